"""The outermost layer of every request: id, headers, and the last catch.

A plain ASGI middleware, because Starlette's BaseHTTPMiddleware costs a task group a request.
"""

import re
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth_manager.budgets import BUDGETS
from auth_manager.errors import InternalError
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event, log_failure, request_id
from auth_manager.spending import Spent, begin
from auth_manager.web.problems import problem

_GATEWAY_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

NO_STORE_PREFIXES = ("/account", "/auth", "/oauth2", "/admin")
DOCS_PATH = "/docs"

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
STRICT_TRANSPORT_SECURITY = "max-age=31536000; includeSubDomains"
DOCS_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: https://fastapi.tiangolo.com; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src https://cdn.jsdelivr.net; "
    "frame-ancestors 'none'"
)


class Envelope:
    """Wrap every request; see the module."""

    def __init__(self, app: ASGIApp, *, https_only: bool) -> None:
        self._app = app
        self._https_only = https_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; only HTTP is served."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = datetime.now(UTC)
        identifier = request_id_of(scope.get("aws.event"))
        token = request_id.set(identifier)
        spent = begin()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(scope["path"], identifier, message, spent)
            await send(message)

        try:
            await self._answer(scope, receive, send_with_headers)
        finally:
            elapsed = (datetime.now(UTC) - started).total_seconds() * 1000
            route = getattr(scope.get("route"), "path_format", None)
            costs = _count_costs(spent)
            log_event(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                milliseconds=round(elapsed, 1),
                **costs,
            )
            budget = BUDGETS.get(f"{scope['method']} {route}")
            keyed = any(name == b"idempotency-key" for name, _ in scope["headers"])
            if budget and status < HTTPStatus.BAD_REQUEST and not keyed and not budget.covers(spent):
                log_event("over_budget", method=scope["method"], route=route, **costs)
            request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 -- the last line: no exception leaves as a stack trace
            log_failure("unhandled_error", error)
            await problem(InternalError())(scope, receive, send)

    def _add_headers(
        self, path: str, identifier: str, message: MutableMapping[str, Any], spent: Spent
    ) -> None:
        headers = MutableHeaders(scope=message)
        headers["X-Request-Id"] = identifier
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        if path == DOCS_PATH:
            headers["Content-Security-Policy"] = DOCS_CONTENT_SECURITY_POLICY
        if self._https_only:
            headers["Strict-Transport-Security"] = STRICT_TRANSPORT_SECURITY
        else:
            headers["Server-Timing"] = _timing(spent)
        if path.startswith(NO_STORE_PREFIXES):
            headers["Cache-Control"] = "no-store"


def _count_costs(spent: Spent) -> dict[str, int]:
    """Return what a request spent, of which there is something, and add it to the metrics."""
    costs = {
        "round_trips": spent.round_trips.count,
        "hashes": spent.hashes.count,
        "aws_calls": spent.aws_calls.count,
    }
    costs = {name: number for name, number in costs.items() if number}
    for name, number in costs.items():
        count(name, number)
    return costs


def _timing(spent: Spent) -> str:
    """Render what a request spent until its headers, as browsers show it (W3C Server-Timing)."""
    parts = {"db": spent.round_trips, "hash": spent.hashes, "aws": spent.aws_calls}
    return ", ".join(
        f'{name};dur={expense.seconds * 1000:.1f};desc="{expense.count}"' for name, expense in parts.items()
    )


def request_id_of(event: object) -> str:
    """Return API Gateway's id, which its access log has too, or a new one; never one the client chose."""
    context = event.get("requestContext") if isinstance(event, Mapping) else None
    identifier = context.get("requestId") if isinstance(context, Mapping) else None
    if isinstance(identifier, str) and _GATEWAY_REQUEST_ID.fullmatch(identifier):
        return identifier
    return str(new_id())

"""The outermost layer of every request: id, limits on the body, headers, and the last catch.

A plain ASGI middleware, because Starlette's BaseHTTPMiddleware costs a task group a request.
"""

import email.message
import re
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth_manager.errors import (
    AuthError,
    BodyTooLarge,
    InternalError,
    MalformedRequest,
    UnsupportedMediaType,
)
from auth_manager.ids import new_id
from auth_manager.observability import log_event, log_failure, request_id
from auth_manager.web import strict_json
from auth_manager.web.problems import problem

MAXIMUM_BODY = 64 * 1024
"""Bytes of a request body, at most."""

_GATEWAY_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

NO_STORE_PREFIXES = ("/auth", "/oauth2", "/admin")
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
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(scope["path"], identifier, message)
            await send(message)

        try:
            await self._answer(scope, receive, send_with_headers)
        finally:
            elapsed = (datetime.now(UTC) - started).total_seconds() * 1000
            log_event(
                "request",
                method=scope["method"],
                path=scope["path"][:256],
                status=status,
                milliseconds=round(elapsed, 1),
            )
            request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read_body(scope, receive)
            _check_body(scope, body)
        except AuthError as error:
            await problem(error)(scope, receive, send)
            return
        try:
            await self._app(scope, _replay(body, receive), send)
        except Exception as error:  # noqa: BLE001 -- the last line: no exception leaves as a stack trace
            log_failure("unhandled_error", error)
            await problem(InternalError())(scope, receive, send)

    def _add_headers(self, path: str, identifier: str, message: MutableMapping[str, Any]) -> None:
        headers = MutableHeaders(scope=message)
        headers["X-Request-Id"] = identifier
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        if path == DOCS_PATH:
            headers["Content-Security-Policy"] = DOCS_CONTENT_SECURITY_POLICY
        if self._https_only:
            headers["Strict-Transport-Security"] = STRICT_TRANSPORT_SECURITY
        if path.startswith(NO_STORE_PREFIXES):
            headers["Cache-Control"] = "no-store"


def request_id_of(event: object) -> str:
    """Return API Gateway's id, which its access log has too, or a new one; never one the client chose."""
    context = event.get("requestContext") if isinstance(event, Mapping) else None
    identifier = context.get("requestId") if isinstance(context, Mapping) else None
    if isinstance(identifier, str) and _GATEWAY_REQUEST_ID.fullmatch(identifier):
        return identifier
    return str(new_id())


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    length = Headers(scope=scope).get("content-length", "")
    if length.isdecimal() and int(length[:12]) > MAXIMUM_BODY:
        raise BodyTooLarge(f"The body is over {MAXIMUM_BODY} bytes.")
    chunks = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("The client went away.")
        chunks += message.get("body", b"")
        more = message.get("more_body", False)
        if len(chunks) > MAXIMUM_BODY:
            raise BodyTooLarge(f"The body is over {MAXIMUM_BODY} bytes.")
    return bytes(chunks)


def _check_body(scope: Scope, body: bytes) -> None:
    if not body:
        return
    values = Headers(scope=scope).getlist("content-type")
    if len(values) != 1 or not _is_json(values[0]):
        raise UnsupportedMediaType
    strict_json.parse(body)


def _is_json(content_type: str) -> bool:
    message = email.message.Message()
    message["content-type"] = content_type.replace("\n", "").replace("\r", "")
    charset = message.get_param("charset", "utf-8")
    return message.get_content_type() == "application/json" and str(charset).lower() in {"utf-8", "utf8"}


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

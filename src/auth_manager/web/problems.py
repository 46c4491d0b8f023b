"""Errors as `application/problem+json` (RFC 9457), and what OpenAPI says of them.

Nothing that was submitted comes back: a validation error names the field and the rule, never the value.
"""

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from auth_manager import errors
from auth_manager.errors import AuthError, FieldError
from auth_manager.observability import log_event, log_failure, request_id

MEDIA_TYPE = "application/problem+json"

ALWAYS: tuple[type[AuthError], ...] = (errors.InternalError, errors.MalformedRequest, errors.InvalidFields)
"""What any route can answer: a Host that is none, a field that is none, a defect of ours."""

WITH_BODY: tuple[type[AuthError], ...] = (
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
)
WITH_DATABASE: tuple[type[AuthError], ...] = (errors.DatabaseUnavailable,)
WITH_TOKEN: tuple[type[AuthError], ...] = (
    errors.MissingToken,
    errors.InvalidToken,
    errors.SessionEnded,
    errors.Forbidden,
)
"""The last one where an administrator acts for the owner (live_sessions.refuse_impersonation)."""
WITH_IDEMPOTENCY_KEY: tuple[type[AuthError], ...] = (
    errors.IdempotencyKeyReused,
    errors.IdempotencyKeyInProgress,
)

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")

_BY_STATUS: dict[int, type[AuthError]] = {
    400: errors.MalformedRequest,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
}

_FIELD_CODES = {
    "missing": ("missing", "This field is required."),
    "extra_forbidden": ("unknown_field", "This field is not known."),
}


def problem(error: AuthError) -> Response:
    """Render an error."""
    body: dict[str, Any] = {
        "type": f"urn:auth-manager:problem:{error.code}",
        "title": error.title(),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id.get(),
    }
    if error.errors:
        body["errors"] = [
            {"pointer": item.pointer, "code": item.code, "detail": item.detail} for item in error.errors
        ]
    body |= error.members
    headers = dict(error.headers)
    if error.status == 401:  # noqa: PLR2004 -- RFC 9110 section 11.6.1: a 401 always carries a challenge
        headers.setdefault("WWW-Authenticate", _challenge(error))
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(json.dumps(body), status_code=error.status, headers=headers, media_type=MEDIA_TYPE)


def _challenge(error: AuthError) -> str:
    """RFC 6750 section 3: name the error only when a token was presented."""
    if isinstance(error, errors.InvalidToken | errors.SessionEnded):
        return f'Bearer error="invalid_token", error_description="{error.title()}"'
    return "Bearer"


def install(app: FastAPI) -> None:
    """Answer every exception with problem+json."""

    async def on_auth_error(_request: Request, error: Exception) -> Response:
        if not isinstance(error, AuthError):
            raise TypeError("registered for AuthError only")
        if error.status >= 500:  # noqa: PLR2004
            log_failure(error.code, error)
        return problem(error)

    async def on_http_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise TypeError("registered for HTTPException only")
        return problem(_of_the_framework(request, error))

    async def on_invalid_request(_request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise TypeError("registered for RequestValidationError only")
        if any(item["loc"][0] == "path" for item in error.errors()):
            return problem(errors.NotFound())  # what can be no id names nothing
        return problem(errors.InvalidFields(errors=[_field_error(item) for item in error.errors()]))

    app.add_exception_handler(AuthError, on_auth_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)


def _of_the_framework(request: Request, error: HTTPException) -> AuthError:
    """Translate what Starlette and FastAPI raise on their own."""
    known = _BY_STATUS.get(error.status_code)
    if known is None:
        log_event("unexpected_http_error", status=error.status_code)
        return errors.InternalError()
    if known is errors.MethodNotAllowed:
        return known(headers={"Allow": ", ".join(_allowed_methods(request))})
    return known(headers=dict(error.headers or {}))


def _allowed_methods(request: Request) -> list[str]:
    """Ask every route: the one that refused knows only its own methods (RFC 9110 section 10.2.1)."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _field_error(item: dict[str, Any]) -> FieldError:
    """Translate pydantic's error: the place and the rule, never `input` or `ctx`."""
    where, *path = item["loc"]
    code, detail = _FIELD_CODES.get(item["type"], (item["type"], _without_prefix(item["msg"])))
    if code == "unknown_field":
        path = path[:-1]  # the last part is the client's own text
    if where == "body":
        return FieldError("".join(f"/{part}" for part in path), code, detail)
    return FieldError(f"?{path[0]}" if where == "query" else str(path[0] if path else where), code, detail)


def _without_prefix(message: str) -> str:
    return message.removeprefix("Value error, ")


def responses(*groups: Sequence[type[AuthError]] | type[AuthError]) -> dict[int | str, dict[str, Any]]:
    """Describe for OpenAPI which errors a route answers, one entry a status with every code named."""
    kinds: list[type[AuthError]] = list(ALWAYS)
    for group in groups:
        kinds.extend([group] if isinstance(group, type) else group)
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        entry = described.setdefault(
            kind.status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
        line = f"`{kind.code}`: {kind.title()}"
        if line not in entry["description"]:
            entry["description"] = f"{entry['description']}\n\n{line}".strip()
    return described


PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457 problem details",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; docs/errors.md lists them all"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "RFC 6901, or ?name for a query parameter"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}

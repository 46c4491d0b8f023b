"""The Lambda function behind the HTTP API.

Mangum raises before the application runs on some events that the internet can cause (a Host with two colons,
bad base64, headers that are null), and a malformed Host poisons `request.url`. So an event is checked here
first, and whatever is wrong with it gets an answer of ours (docs/decisions/0008-hostile-events.md).
"""

import base64
import binascii
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from auth_manager import observability
from auth_manager.app import build_resources, create_app
from auth_manager.aws.secrets import fetch_secret
from auth_manager.ids import new_id
from auth_manager.settings import load_settings
from auth_manager.web.calls import run_inline

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="There is no current event loop", category=DeprecationWarning)
    from mangum import Mangum

TEXT_TYPES = ["text/", "application/json", "application/problem+json"]

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HostileEvent(ValueError):
    """An event that no well-behaved client causes."""


def _build() -> Mangum:
    settings = load_settings()
    observability.configure_logging(settings)
    observability.enable_metrics()
    app = create_app(build_resources(settings, pool_size=1, fetch_secret=fetch_secret), runner=run_inline)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="There is no current event loop", category=DeprecationWarning
        )
        return Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES)


_mangum = _build()


def handler(event: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401 -- Lambda's own types
    """Answer one event of API Gateway's payload format 2.0."""
    try:
        checked = _check(event)
    except HostileEvent as error:
        observability.log_event("hostile_event", reason=str(error))
        return _refusal(event)
    try:
        answer: dict[str, Any] = _mangum(checked, context)
    finally:
        observability.flush_metrics()
    return answer


def _check(event: object) -> dict[str, Any]:
    """Return the event in the form Mangum reads safely.

    Raises:
        HostileEvent: with what is wrong, for the log.
    """
    if not isinstance(event, Mapping) or event.get("version") != "2.0":
        raise HostileEvent("not an HTTP API 2.0 event")
    http = _mapping(event.get("requestContext"), "requestContext").get("http")
    http = _mapping(http, "requestContext.http")
    if not all(isinstance(http.get(name), str) for name in ("method", "path", "sourceIp")):
        raise HostileEvent("requestContext.http is incomplete")
    if http["method"] not in _METHODS:
        raise HostileEvent("unknown method")
    headers = _headers(event.get("headers"))
    query = event.get("rawQueryString") or ""
    if not isinstance(query, str):
        raise HostileEvent("rawQueryString is not text")
    for text in (http["path"], query):
        _encodable(text)
    return {
        **event,
        "headers": headers,
        "cookies": None,
        "rawQueryString": query,
        "body": _body(event),
        "isBase64Encoded": False,
    }


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise HostileEvent(f"{name} is not an object")
    return value


def _headers(value: object) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, content in _mapping(value or {}, "headers").items():
        if not isinstance(content, str):
            raise HostileEvent("a header is not text")
        _encodable(name)
        _encodable(content)
        lowered = name.lower()
        # Mangum reads the port and the scheme from these; nothing here depends on either.
        if not lowered.startswith("x-forwarded-"):
            headers[lowered] = content
    if not _HOST.fullmatch(headers.get("host", "localhost")):
        raise HostileEvent("Host is not a host")
    return headers


def _body(event: Mapping[str, Any]) -> str | bytes:
    body = event.get("body") or ""
    if not isinstance(body, str):
        raise HostileEvent("the body is not text")
    if not event.get("isBase64Encoded"):
        _encodable(body)
        return body
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise HostileEvent("the body is not base64") from None


def _encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise HostileEvent("a lone surrogate") from None


def _refusal(event: object) -> dict[str, Any]:
    """Answer 400 as problem+json, in the form API Gateway takes; other callers can read it too."""
    context = event.get("requestContext") if isinstance(event, Mapping) else None
    identifier = context.get("requestId") if isinstance(context, Mapping) else None
    identifier = identifier if isinstance(identifier, str) else str(new_id())
    body = {
        "type": "urn:auth-manager:problem:malformed_request",
        "title": "The request is malformed.",
        "status": 400,
        "detail": "The request is malformed.",
        "code": "malformed_request",
        "request_id": identifier,
    }
    return {
        "statusCode": 400,
        "headers": {
            "content-type": "application/problem+json",
            "cache-control": "no-store",
            "x-request-id": identifier,
            "x-content-type-options": "nosniff",
        },
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }

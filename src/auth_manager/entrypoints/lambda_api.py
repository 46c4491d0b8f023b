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
from collections.abc import Callable, Mapping
from typing import Any

from auth_manager import observability
from auth_manager.app import build_resources, create_app
from auth_manager.aws.secrets import fetch_secret
from auth_manager.settings import load_settings
from auth_manager.web.calls import run_inline
from auth_manager.web.envelope import request_id_of

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="There is no current event loop", category=DeprecationWarning)
    from mangum import Mangum

TEXT_TYPES = ["text/", "application/json", "application/problem+json"]

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,5})?")
"""A name or an IPv4 address. API Gateway has no other, and Mangum fails on the colons of an IPv6 address."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Answer = dict[str, Any]


class HostileEvent(ValueError):
    """An event that no well-behaved client causes."""


def _build() -> Callable[[Any, Any], Answer]:
    settings = load_settings()
    observability.configure_logging(settings)
    observability.enable_metrics()
    app = create_app(build_resources(settings, pool_size=1, fetch_secret=fetch_secret), runner=run_inline)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="There is no current event loop", category=DeprecationWarning
        )
        mangum = Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES)

    def handle(event: Any, context: Any) -> Answer:  # noqa: ANN401 -- Lambda's own types
        """Answer one event of API Gateway's payload format 2.0."""
        identifier = request_id_of(event)
        token = observability.request_id.set(identifier)
        try:
            return mangum(_check(event, identifier), context)
        except HostileEvent as error:
            observability.log_event("hostile_event", reason=str(error))
            return _refusal(identifier)
        finally:
            observability.flush_metrics()
            observability.request_id.reset(token)

    if not settings.tracing_enabled:
        return handle
    tracer = observability.enable_tracing()
    return tracer.capture_lambda_handler(handle, capture_response=False, capture_error=False)


def _check(event: object, identifier: str) -> dict[str, Any]:
    """Return the event in the form Mangum reads safely, with nothing in it that was not looked at.

    Raises:
        HostileEvent: with what is wrong, for the log.
    """
    if not isinstance(event, Mapping) or event.get("version") != "2.0":
        raise HostileEvent("not an HTTP API 2.0 event")
    http = _mapping(event.get("requestContext"), "requestContext").get("http")
    http = _mapping(http, "requestContext.http")
    method, path, address = (http.get(name) for name in ("method", "path", "sourceIp"))
    if not (isinstance(method, str) and isinstance(path, str) and isinstance(address, str)):
        raise HostileEvent("requestContext.http is incomplete")
    if method not in _METHODS:
        raise HostileEvent("unknown method")
    query = event.get("rawQueryString") or ""
    if not isinstance(query, str):
        raise HostileEvent("rawQueryString is not text")
    for text in (path, query):
        _encodable(text)
    return {
        "version": "2.0",
        "requestContext": {
            "http": {"method": method, "path": path, "sourceIp": address},
            "requestId": identifier,
        },
        "headers": _headers(event.get("headers")),
        "rawQueryString": query,
        "body": _body(event),
        "isBase64Encoded": False,
    }


def _mapping(value: object, name: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise HostileEvent(f"{name} is not an object")
    return value


def _headers(value: object) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, content in _mapping(value or {}, "headers").items():
        if not (isinstance(name, str) and isinstance(content, str)):
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


def _refusal(identifier: str) -> Answer:
    """Answer 400 as problem+json, in the form API Gateway takes; other callers can read it too."""
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


handler = _build()

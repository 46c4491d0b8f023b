"""The Lambda function behind the HTTP API.

Mangum raises before the application runs on some events that the internet can cause (a Host with two colons,
bad base64, headers that are null), and a malformed Host poisons `request.url`. So an event is checked here
first, and whatever is wrong with it gets an answer of ours (docs/decisions/0008-hostile-events.md).
"""

import base64
import binascii
import contextlib
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from auth_manager.cold_start import sparing_collections, sparing_imports

with sparing_collections(), sparing_imports():
    from fastapi import FastAPI

    from auth_manager import observability
    from auth_manager.app import build_resources, create_app
    from auth_manager.aws.queues import hand_over
    from auth_manager.aws.secrets import fetch_secret
    from auth_manager.entrypoints import lambda_snapshot
    from auth_manager.entrypoints.lambda_edge import Edge, open_edge
    from auth_manager.errors import (
        AuthError,
        ConfigurationError,
        MalformedRequest,
        OriginRefused,
        ServiceUnavailable,
    )
    from auth_manager.resources import Resources
    from auth_manager.settings import Settings, load_settings
    from auth_manager.web.calls import run_inline
    from auth_manager.web.envelope import request_id_of
    from auth_manager.web.problems import problem

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="There is no current event loop", category=DeprecationWarning
        )
        from mangum import Mangum

TEXT_TYPES = ["text/", "application/json", "application/problem+json"]

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,5})?")
"""A name or an IPv4 address. API Gateway has no other, and Mangum fails on the colons of an IPv6 address."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Answer = dict[str, Any]


class HostileEvent(ValueError):
    """An event that no well-behaved client causes."""


@dataclass(frozen=True, slots=True)
class _Running:
    """What answers events."""

    edge: Edge
    mangum: Mangum
    resources: Resources


class _Service:
    """The application, built when the sandbox starts, or as soon as its secrets can be read.

    A configuration that is wrong refuses the start. Secrets that cannot be read are no reason to: Lambda
    would start the same sandbox over and over, and answer 500 meanwhile. Every event is answered 503 instead.
    """

    RETRY_AFTER = 1.0
    """Seconds between two attempts to start."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._app: FastAPI | None = None
        self._running: _Running | None = None
        self._tried_at = float("-inf")
        with contextlib.suppress(ServiceUnavailable):
            self.get()

    def get(self) -> _Running:
        """Return the application.

        Raises:
            ServiceUnavailable: it cannot start yet.
            ConfigurationError: it never will.
        """
        if self._running is None:
            if self._clock() - self._tried_at < self.RETRY_AFTER:
                raise ServiceUnavailable
            try:
                self._running = self._start()
            except ServiceUnavailable:
                observability.log_event("start_postponed", level=logging.ERROR)
                raise
            finally:
                self._tried_at = self._clock()
        return self._running

    def disconnect(self) -> None:
        """Close the connection, if there is one: the next process to have this memory is another."""
        if self._running is not None:
            self._running.resources.database.close()

    def renew(self) -> None:
        """Leave everything behind that holds a connection, a secret or a time; keep the code that was loaded.

        While secrets cannot be read, events are answered 503: those of a snapshot may be long withdrawn.
        """
        self._running, self._tried_at = None, float("-inf")
        with contextlib.suppress(ServiceUnavailable):
            self.get()

    def _start(self) -> _Running:
        # What a request writes is mail; webhooks are for the relay.
        queue_url = self._settings.outbox_queue_url if self._settings.mail_transport != "none" else ""
        resources = build_resources(
            self._settings,
            pool_size=1,
            fetch_secret=fetch_secret,
            hand_over=partial(hand_over, queue_url) if queue_url else None,
        )
        edge = open_edge(self._settings)
        if self._app is None:
            with sparing_imports():
                self._app = create_app(resources, runner=run_inline, lazy=not _is_started_ahead())
        self._app.state.resources = resources
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="There is no current event loop", category=DeprecationWarning
            )
            mangum = Mangum(self._app, lifespan="off", text_mime_types=TEXT_TYPES)
        return _Running(edge, mangum, resources)


def build_handler() -> Callable[[Any, Any], Answer]:
    """Read the environment and start.

    Raises:
        ConfigurationError: a setting or a key is missing, weak or contradictory.
    """
    settings = load_settings()
    _refuse_local_mode_on_aws(settings)
    observability.configure_logging(settings)
    observability.enable_metrics()
    tracer = observability.enable_tracing() if settings.tracing_enabled else None
    service = _Service(settings)
    if lambda_snapshot.is_snapshot():
        lambda_snapshot.register_hooks(service.disconnect, service.renew)

    def handle(event: Any, context: Any) -> Answer:  # noqa: ANN401 -- Lambda's own types
        """Answer one event of API Gateway's payload format 2.0."""
        identifier = request_id_of(event)
        token = observability.request_id.set(identifier)
        try:
            running = service.get()
            admitted = running.edge.admit(_check(event, identifier), by_gateway=_is_of_the_gateway(event))
            return running.mangum(admitted, context)
        except HostileEvent as error:
            observability.log_event("hostile_event", reason=str(error))
            return _refusal(MalformedRequest(), identifier)
        except (OriginRefused, ServiceUnavailable) as error:
            return _refusal(error, identifier)
        finally:
            observability.flush_metrics()
            observability.request_id.reset(token)

    if tracer is None:
        return handle
    return tracer.capture_lambda_handler(handle, capture_response=False, capture_error=False)


def _refuse_local_mode_on_aws(settings: Settings) -> None:
    """Refuse default keys and plain http where the internet is; `sam local` says what it is.

    Lambda sets AWS_LAMBDA_INITIALIZATION_TYPE, and its emulator does not.
    """
    on_lambda = "AWS_LAMBDA_INITIALIZATION_TYPE" in os.environ and os.environ.get("AWS_SAM_LOCAL") != "true"
    if settings.is_local and on_lambda:
        raise ConfigurationError("AUTH_MODE=local is for a laptop, and this is AWS Lambda")


def _is_started_ahead() -> bool:
    """Tell whether nobody waits for this start: then a request should not wait for any part of it."""
    return os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") in {"provisioned-concurrency", "snap-start"}


def _is_of_the_gateway(event: Mapping[str, Any]) -> bool:
    return "apiId" in event["requestContext"]


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
        "cookies": _cookies(event.get("cookies")),
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


def _cookies(value: object) -> list[str]:
    """Payload format 2.0 takes the Cookie header apart; Mangum joins it again."""
    if not isinstance(value or [], list):
        raise HostileEvent("cookies are not a list")
    cookies = []
    for cookie in value or []:  # type: ignore[attr-defined]  # a list, see above
        if not isinstance(cookie, str):
            raise HostileEvent("a cookie is not text")
        _encodable(cookie)
        cookies.append(cookie)
    return cookies


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


def _refusal(error: AuthError, identifier: str) -> Answer:
    """Answer with problem+json without the application, in the form that API Gateway takes."""
    response = problem(error)
    return {
        "statusCode": response.status_code,
        "headers": {
            **response.headers,
            "cache-control": "no-store",
            "x-request-id": identifier,
            "x-content-type-options": "nosniff",
        },
        "body": bytes(response.body).decode(),
        "isBase64Encoded": False,
    }


with sparing_collections():
    handler = build_handler()

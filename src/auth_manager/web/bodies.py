"""What a request body may be, before anything of ours reads it: its size, its type, its JSON or form."""

import email.message

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth_manager.errors import AuthError, BodyTooLarge, MalformedRequest, UnsupportedMediaType
from auth_manager.web import strict_form, strict_json
from auth_manager.web.problems import problem

MAXIMUM_BODY = 64 * 1024
"""Bytes of a request body, at most."""

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

FORM_PREFIX = "/account/"
"""Where browsers send forms: there, and nowhere else, a body is a form and not JSON."""


class BodyLimits:
    """Read the whole body, refuse what no route takes, and hand the rest on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await _read_body(scope, receive)
            _check_body(scope, body)
        except AuthError as error:
            await problem(error)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


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
    if scope["path"].startswith(FORM_PREFIX):
        if len(values) != 1 or not _is(FORM_TYPE, values[0]):
            raise UnsupportedMediaType(f"The request body must be {FORM_TYPE}.")
        strict_form.parse(body)
        return
    if len(values) != 1 or not _is(JSON_TYPE, values[0]):
        raise UnsupportedMediaType
    strict_json.parse(body)


def _is(media_type: str, content_type: str) -> bool:
    message = email.message.Message()
    message["content-type"] = content_type.replace("\n", "").replace("\r", "")
    charset = message.get_param("charset", "utf-8")
    return message.get_content_type() == media_type and str(charset).lower() in {"utf-8", "utf8"}


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

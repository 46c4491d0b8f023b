"""Browsers in wrong places, and answers that were changed on the way: each must be refused."""

from collections.abc import Callable
from typing import Any

from tests.passkeys.authenticator import Authenticator, decode, encode

Spoil = Callable[[dict[str, Any]], object]


def _set(**attributes: Any) -> Callable[[Authenticator], None]:
    def change(authenticator: Authenticator) -> None:
        for name, value in attributes.items():
            setattr(authenticator, name, value)

    return change


WRONG_BROWSERS = {
    "another origin": _set(origin="https://evil.example.com"),
    "http": _set(origin="http://auth.example.com"),
    "another port": _set(origin="https://auth.example.com:8443"),
    "a longer host": _set(origin="https://auth.example.com.evil.net"),
    "a frame of another site": _set(cross_origin=True),
    "nobody there": _set(present=False),
}


def change_response(member: str, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(credential: dict[str, Any]) -> None:
        credential["response"][member] = encode(change(decode(credential["response"][member])))

    return spoil


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


SPOILED_ANYWAY = {
    "no response": lambda credential: credential.pop("response"),
    "another type": lambda credential: credential.update(type="password"),
    "id and rawId differ": lambda credential: credential.update(id=encode(b"another")),
    "clientDataJSON is no JSON": change_response("clientDataJSON", lambda _: b"{"),
    "clientDataJSON is a list": change_response("clientDataJSON", lambda _: b"[]"),
    "clientDataJSON is too deep": change_response("clientDataJSON", lambda _: b"[" * 20_000),
    "clientDataJSON is no UTF-8": change_response("clientDataJSON", lambda _: b'{"type": "\xff\xfe"}'),
    "a number for text": lambda credential: credential["response"].update(clientDataJSON=7),
    "nothing": lambda credential: credential.clear(),
}

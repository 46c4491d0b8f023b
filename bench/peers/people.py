"""A person of each service in server mode: the same four requests, as each service has them."""

import http.client
import json
import time
from collections.abc import Mapping
from email.message import Message
from typing import Any, Protocol
from urllib.parse import urlencode

from bench.service import PASSWORD, Person, Refused, new_email

JSON = "application/json"
LONGEST_IDLE = 1.0
"""Seconds after which a connection is opened anew: servers close idle ones after five."""


class Connection:
    """One kept-alive connection. `http.client` costs the machine a tenth of what richer clients do."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._used_at = time.monotonic()

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[Any, Message]:
        """Send a request; return the JSON and the headers of its answer.

        Raises:
            Refused: it is no 2xx.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if time.monotonic() - self._used_at > LONGEST_IDLE:
            self._connection.close()  # the next request opens it
        self._connection.request(method, path, body, named)
        response = self._connection.getresponse()
        content = response.read()
        self._used_at = time.monotonic()
        if response.status // 100 != 2:  # noqa: PLR2004 -- the class of what succeeded
            raise Refused(f"{method} {path}: {response.status} {content[:500]!r}")
        return (json.loads(content) if content else None), response.headers


class Peer(Protocol):
    """What is compared; `refresh` makes a session last longer."""

    def register(self) -> None:
        """Register a new person, and be that one from now on."""

    def log_in(self) -> None:
        """Open a session."""

    def me(self) -> None:
        """Read the own profile."""

    def refresh(self) -> None:
        """Make the session last longer."""


def auth_manager(port: int) -> Person:
    """Return a person of ours."""
    connection = Connection(port)

    def send(method: str, path: str, body: Mapping[str, object] | None, token: str | None) -> Any:  # noqa: ANN401
        headers = {"Content_Type": JSON} | ({"Authorization": f"Bearer {token}"} if token else {})
        content = json.dumps(body).encode() if body is not None else None
        return connection.request(method, path, content, **headers)[0]

    return Person(send, "")


class FastapiUsers:
    """fastapi-users. It refreshes nothing: a session that should go on begins anew, with the password."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port)
        self._email = self._token = ""

    def register(self) -> None:
        """Register a new person."""
        self._email = new_email()
        body = json.dumps({"email": self._email, "password": PASSWORD}).encode()
        self._connection.request("POST", "/auth/register", body, Content_Type=JSON)

    def log_in(self) -> None:
        """Open a session."""
        form = urlencode({"username": self._email, "password": PASSWORD}).encode()
        answer, _ = self._connection.request(
            "POST", "/auth/login", form, Content_Type="application/x-www-form-urlencoded"
        )
        self._token = answer["access_token"]

    def me(self) -> None:
        """Read the own profile."""
        self._connection.request("GET", "/users/me", Authorization=f"Bearer {self._token}")

    refresh = log_in


class BetterAuth:
    """better-auth. Its cookie is the session; to read it may also refresh it."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port)
        self._email = self._cookie = ""

    def register(self) -> None:
        """Register a new person."""
        self._email = new_email()
        self._post("/api/auth/sign-up/email", name="bench")

    def log_in(self) -> None:
        """Open a session."""
        headers = self._post("/api/auth/sign-in/email")
        self._cookie = headers["set-cookie"].partition(";")[0]

    def me(self) -> None:
        """Read the session and its user."""
        self._read_session("?disableRefresh=true")

    def refresh(self) -> None:
        """Read the session, which makes it last longer."""
        self._read_session("")

    def _post(self, path: str, **more: str) -> Message:
        body = json.dumps({"email": self._email, "password": PASSWORD, **more}).encode()
        return self._connection.request("POST", path, body, Content_Type=JSON)[1]

    def _read_session(self, query: str) -> None:
        answer, _ = self._connection.request("GET", f"/api/auth/get-session{query}", Cookie=self._cookie)
        if answer is None:
            raise Refused("better-auth knows no session")

"""What is measured: a database, an environment, and a person who does what people do."""

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from argon2 import PasswordHasher

from auth_manager.database import Database
from auth_manager.local.postgres import EmbeddedPostgres, start_embedded
from auth_manager.migrate import apply_migrations
from auth_manager.settings import Settings
from auth_manager.signing_keys import generate_signing_key, serialize_key_set

PASSWORD = secrets.token_urlsafe(16)
"""Of every person of this run."""

Send = Callable[[str, str, Mapping[str, object] | None, str | None], Any]
"""Sends method, path, JSON body and access token; returns the JSON of the answer, None for an empty one."""


class Refused(Exception):
    """An answer other than 2xx: nothing that was measured then means anything."""


def default_hasher() -> PasswordHasher:
    """Return argon2id with the parameters that a deployment has unless it sets others."""
    fields = Settings.model_fields
    return PasswordHasher(
        memory_cost=fields["argon2_memory_kib"].default,
        time_cost=fields["argon2_time_cost"].default,
        parallelism=fields["argon2_parallelism"].default,
    )


@contextmanager
def postgres(listen: str | None = None) -> Generator[EmbeddedPostgres]:
    """Run the embedded PostgreSQL, without fsync: a laptop's disk is not what is measured.

    Args:
        listen: a TCP address to listen on besides the Unix socket, at a free port.
    """
    with (
        tempfile.TemporaryDirectory(prefix="auth-manager-bench-") as directory,
        start_embedded(
            Path(directory), listen=(listen, free_port(listen)) if listen else None, durable=False
        ) as server,
    ):
        yield server


def create_database(server_url: str, name: str, *, migrated: bool = True) -> str:
    """Create a database beside the server's own; return its URL."""
    server = Database(server_url, deadline=30)
    with server.one_trip() as connection:
        connection.add(f"CREATE DATABASE {name}")
    server.close()
    url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
    if migrated:
        apply_migrations(url)
    return url


def environment_of(database_url: str) -> dict[str, str]:
    """Return what a deployed function is given; only the limit on registrations is out of the way."""
    return {
        "AUTH_MODE": "deployed",
        "AUTH_PUBLIC_URL": "https://auth.example.com",
        "AUTH_DATABASE_URL": database_url,
        "AUTH_SIGNING_KEYS": serialize_key_set([generate_signing_key("RS256")]),
        "AUTH_SECRET_KEYS": secrets.token_urlsafe(48),
        # Everybody here has one address.
        "AUTH_REGISTRATIONS_PER_ADDRESS": "1000000",
        "AUTH_LOGIN_ATTEMPTS_PER_ADDRESS": "1000000",
    }


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port


def event_of(method: str, path: str, body: Mapping[str, object] | None, token: str | None) -> dict[str, Any]:
    """Return the event that API Gateway (HTTP API, payload format 2.0) makes of a request."""
    headers = {
        "accept": "*/*",
        "content-type": "application/json",
        "host": "auth.example.com",
        "user-agent": "bench",
    }
    if token:
        headers["authorization"] = f"Bearer {token}"
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.10"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {"http": http, "requestId": secrets.token_hex(8)},
        "body": json.dumps(body) if body is not None else None,
        "isBase64Encoded": False,
    }


def read_answer(answer: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- JSON
    """Return the JSON in what a function answered.

    Raises:
        Refused: it is no 2xx.
    """
    if not str(answer.get("statusCode", "")).startswith("2"):
        raise Refused(json.dumps(answer))
    return json.loads(answer["body"]) if answer["body"] else None


def open_in_process(environment: Mapping[str, str]) -> Send:
    """Build the Lambda handler of an environment in this process."""
    os.environ.update(environment)
    from auth_manager.entrypoints.lambda_api import build_handler  # noqa: PLC0415 -- it reads the environment

    handle = build_handler()
    context = SimpleNamespace(
        function_name="bench", memory_limit_in_mb=1769, invoked_function_arn="arn", aws_request_id="bench"
    )

    def send(method: str, path: str, body: Mapping[str, object] | None, token: str | None) -> Any:  # noqa: ANN401
        return read_answer(handle(event_of(method, path, body, token), context))

    return send


@dataclass(slots=True)
class Person:
    """A registered person and their session; each method is one request."""

    send: Send
    email: str
    access_token: str = ""
    refresh_token: str = ""

    def health(self) -> None:
        """Ask whether the service runs, without the database."""
        self.send("GET", "/health", None, None)

    def register(self) -> None:
        """Register a new person, and be that one from now on."""
        self.email = new_email()
        self.send("POST", "/auth/register", {"email": self.email, "password": PASSWORD}, None)

    def log_in(self) -> None:
        """Open another session."""
        body = {"email": self.email, "password": PASSWORD}
        self._keep(self.send("POST", "/auth/login", body, None))

    def refresh(self) -> None:
        """Trade the refresh token."""
        self._keep(self.send("POST", "/auth/refresh", {"refresh_token": self.refresh_token}, None))

    def me(self) -> None:
        """Read the own profile."""
        self.send("GET", "/auth/me", None, self.access_token)

    def sessions(self) -> None:
        """List the own sessions."""
        self.send("GET", "/auth/sessions", None, self.access_token)

    def _keep(self, tokens: Mapping[str, str]) -> None:
        self.access_token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]


def new_person(send: Send) -> Person:
    """Register somebody and log them in."""
    person = Person(send, "")
    person.register()
    person.log_in()
    return person


def new_email() -> str:
    """Return an address that nobody has registered."""
    return f"{secrets.token_hex(8)}@example.com"

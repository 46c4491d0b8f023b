import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient

from auth_manager.database import Database, Row

Query = Callable[..., list[Row]]


@pytest.fixture
def query(database: Database) -> Query:
    """Runs one statement of SQL with named parameters, and returns its rows."""

    def run(sql: str, **parameters: Any) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql, parameters)

    return run


@dataclass(frozen=True)
class Reply:
    """What an application sent."""

    status: int
    headers: dict[str, str]
    body: bytes


Ask = Callable[..., Reply]


@pytest.fixture
def ask(client: TestClient) -> Ask:
    """Speaks ASGI to the application, for what no HTTP client would send."""

    def run(
        path: str,
        *,
        method: str = "POST",
        headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
        chunks: Sequence[bytes | None] = (b"",),
        peer: tuple[str, int] | None = ("203.0.113.7", 5000),
        **scope: Any,
    ) -> Reply:
        """Send a request in chunks, None among them for a client that goes away."""
        incoming = list(chunks)
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            chunk = incoming.pop(0)
            if chunk is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": bool(incoming)}

        async def send(message: Any) -> None:
            sent.append(message)

        request = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": list(headers),
            "client": peer,
            "server": ("auth.example.com", 443),
            **scope,
        }
        asyncio.run(client.app(request, receive, send))  # type: ignore[arg-type]
        start = sent[0]
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Reply(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body)

    return run

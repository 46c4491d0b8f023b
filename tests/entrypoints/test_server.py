"""`auth-manager serve`, as a real process that speaks HTTP."""

import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.mail.scenes import body, serve_mail

from auth_manager.database import Database

if TYPE_CHECKING:
    from tests.entrypoints.conftest import Running

Start = Callable[..., "Running"]

LOGIN = {"email": "test@example.com", "password": "SecurePass123!"}


@pytest.fixture
def server(start: Start, database: Database, database_url: str, signing_keys: str) -> "Running":  # noqa: ARG001
    """A deployment of one server, with an empty database."""
    return start(
        "serve",
        DATABASE_URL=database_url,
        PUBLIC_URL="https://auth.example.com",
        SIGNING_KEYS=signing_keys,
        SECRET_KEYS="0123456789abcdefghijklmnopqrstuvwxyz",
    )


@pytest.fixture
def connection(server: "Running") -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    yield connection
    connection.close()


class TestServe:
    def test_it_serves_many_at_once_and_ends_when_told(self, server: "Running", database: Database) -> None:
        def register(number: int) -> int:
            login = LOGIN | {"email": f"user{number}@example.com"}
            return server.call("POST", "/auth/register", json=login).status_code

        with ThreadPoolExecutor(12) as pool:
            assert set(pool.map(register, range(12))) == {201}
        forwarded = {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"}
        answer = server.call("POST", "/auth/login", json=LOGIN, headers=forwarded)
        assert answer.status_code == 401
        assert "server" not in answer.headers
        with database.one_trip() as connection:
            rows = connection.fetch_all("SELECT DISTINCT address FROM audit_events")
        assert rows == [{"address": "127.0.0.1"}]
        assert server.call("GET", "/docs").status_code == 404
        assert server.stop(signal.SIGTERM) < 10
        logged = [json.loads(line) for line in server.written]
        assert {entry["service"] for entry in logged} == {"auth-manager"}
        assert [entry["status"] for entry in logged if entry["message"] == "request"].count(201) == 12

    def test_hostile_bodies(self, server: "Running", connection: http.client.HTTPConnection) -> None:
        """Bodies that no client of ours would send, over real sockets."""
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/auth/login", iter([b"x" * 40_000] * 3), headers, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()
        connection.putrequest("POST", "/auth/login")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100000000")
        connection.endheaders()  # and not one byte of the body
        assert connection.getresponse().status == 413
        connection.close()
        connection.putrequest("POST", "/auth/login")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Type", "text/plain")
        connection.putheader("Content-Length", "2")
        connection.endheaders(b"{}")
        assert connection.getresponse().status == 415
        connection.close()
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as gone:
            gone.sendall(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        assert server.call("GET", "/health").status_code == 200
        assert "unhandled_error" not in server.output

    def test_it_delivers_mail_by_smtp_and_has_no_mailbox(
        self,
        start: Start,
        database: Database,  # noqa: ARG002 -- its tables are empty
        database_url: str,
        signing_keys: str,
    ) -> None:
        with serve_mail() as mail:
            server = start(
                "serve",
                DATABASE_URL=database_url,
                PUBLIC_URL="https://auth.example.com",
                SIGNING_KEYS=signing_keys,
                SECRET_KEYS="0123456789abcdefghijklmnopqrstuvwxyz",
                MAIL_TRANSPORT="smtp",
                MAIL_FROM="no-reply@example.com",
                SMTP_URL=mail.url,
            )
            headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
            assert server.call("POST", "/auth/register", json=LOGIN, headers=headers).status_code == 201
            give_up_at = time.monotonic() + 20
            while not mail.received:
                assert time.monotonic() < give_up_at
                time.sleep(0.02)
            assert server.call("GET", "/dev/mailbox").status_code == 404
            assert server.stop(signal.SIGTERM) < 10
        [(recipient, content)] = mail.received
        assert recipient == "test@example.com"
        assert "https://auth.example.com/account/verify-email?token=" in body(content, "plain")
        assert "evil" not in content.as_string()

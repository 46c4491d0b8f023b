"""Where a request came from, and where its service runs."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from auth_manager.database import Row
from auth_manager.web.calls import run_in_thread, run_inline

Ask = Callable[..., Any]
Query = Callable[..., list[Row]]

REGISTER = b'{"email":"test@example.com","password":"SecurePass123!"}'
JSON = (b"content-type", b"application/json")


class TestOrigin:
    def origin(self, ask: Ask, query: Query, **request: Any) -> Row:
        assert ask("/auth/register", chunks=[REGISTER], **request).status == 201
        [row] = query("SELECT address, user_agent FROM audit_events")
        return row

    @pytest.mark.parametrize(
        ("peer", "address"),
        [
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("fe80::1%eth0", "fe80::1"),
            ("testclient", None),
            ("", None),
        ],
    )
    def test_the_address_is_the_peers(self, ask: Ask, query: Query, peer: str, address: str | None) -> None:
        assert self.origin(ask, query, peer=(peer, 1))["address"] == address

    def test_a_unix_socket_has_none(self, ask: Ask, query: Query) -> None:
        assert self.origin(ask, query, peer=None)["address"] is None

    def test_forwarded_headers_are_ignored(self, client: TestClient, query: Query) -> None:
        headers = {
            "X-Forwarded-For": "198.51.100.1",
            "X-Real-Ip": "198.51.100.2",
            "Forwarded": "for=198.51.100.3",
            "X-Forwarded-Host": "evil.example.com",
            "X-Forwarded-Proto": "http",
        }
        body = {"email": "test@example.com", "password": "SecurePass123!"}
        assert client.post("/auth/register", json=body, headers=headers).status_code == 201
        assert query("SELECT address FROM audit_events") == [{"address": "203.0.113.7"}]
        discovery = client.get(
            "/.well-known/openid-configuration", headers=headers | {"Host": "evil.example.com"}
        )
        assert "evil" not in discovery.text

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            (b"Mozilla/5.0 (X11)", "Mozilla/5.0 (X11)"),
            (b"a\r\nb: c\x00\x1b[31m", "a��b: c��[31m"),
            (b"x" * 600, "x" * 512),
            ("ü".encode(), "Ã¼"),
            (b"", ""),
        ],
        ids=["usual", "control characters", "long", "latin-1", "empty"],
    )
    def test_the_user_agent_is_printable_and_short(
        self, ask: Ask, query: Query, sent: bytes, kept: str
    ) -> None:
        assert self.origin(ask, query, headers=[JSON, (b"user-agent", sent)])["user_agent"] == kept


class TestRunners:
    def test_inline_stays_and_a_thread_does_not(self) -> None:
        here = threading.get_ident()
        assert asyncio.run(run_inline(threading.get_ident)) == here
        assert asyncio.run(run_in_thread(threading.get_ident)) != here

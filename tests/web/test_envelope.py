"""What every request and every answer has in common."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from auth_manager import observability
from auth_manager.budgets import BUDGETS, Budget
from auth_manager.database import Row
from auth_manager.web.bodies import MAXIMUM_BODY

Ask = Callable[..., Any]
Query = Callable[..., list[Row]]

LOGIN = {"email": "test@example.com", "password": "SecurePass123!"}
JSON = (b"content-type", b"application/json")


@pytest.fixture
def broken(query: Query) -> Iterator[None]:
    """A database that lacks a table: a defect of ours."""
    query("ALTER TABLE rate_limits RENAME TO rate_limits_gone")
    yield
    query("ALTER TABLE rate_limits_gone RENAME TO rate_limits")


def padded(size: int) -> bytes:
    """A refresh request of exactly this many bytes."""
    frame = len(b'{"refresh_token":""}')
    return b'{"refresh_token":"%s"}' % (b"x" * (size - frame))


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("GET", "/health", None, 200),
            ("POST", "/auth/register", LOGIN, 201),
            ("POST", "/auth/register", b"{", 400),
            ("GET", "/auth/me", None, 401),
            ("GET", "/nowhere", None, 404),
            ("PUT", "/auth/me", {}, 405),
            ("POST", "/auth/register", b"x" * (MAXIMUM_BODY + 1), 413),
            ("POST", "/auth/register", {}, 422),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_every_answer_has_them(
        self, client: TestClient, method: str, path: str, body: object, status: int
    ) -> None:
        sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        response = client.request(method, path, headers={"Content-Type": "application/json"}, **sent)
        assert response.status_code == status
        assert UUID(response.headers["x-request-id"]).version == 7
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response.headers["strict-transport-security"].startswith("max-age=31536000")
        if status >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["request_id"] == response.headers["x-request-id"]

    @pytest.mark.usefixtures("broken")
    def test_a_defect_of_ours_has_them_too(self, client: TestClient) -> None:
        response = client.post("/auth/register", json=LOGIN)
        assert response.status_code == 500
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.json() == {
            "type": "urn:auth-manager:problem:internal_error",
            "title": "Something went wrong on our side.",
            "status": 500,
            "detail": "Something went wrong on our side.",
            "code": "internal_error",
            "request_id": response.headers["x-request-id"],
        }

    def test_http_on_a_laptop_is_not_forbidden_for_a_year(
        self, make_client: Callable[..., TestClient]
    ) -> None:
        client = make_client(mode="local", public_url="http://127.0.0.1:8000")
        assert "strict-transport-security" not in client.get("/health").headers

    @pytest.mark.parametrize("path", ["/auth/me", "/auth/nowhere", "/admin/users", "/oauth2/token"])
    def test_what_is_private_is_not_stored(self, client: TestClient, path: str) -> None:
        assert client.get(path).headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/.well-known/openid-configuration"])
    def test_what_is_public_is_stored_for_minutes(self, client: TestClient, path: str) -> None:
        assert client.get(path).headers["cache-control"] == "public, max-age=300"

    def test_only_the_docs_may_run_scripts(self, client: TestClient) -> None:
        assert "script-src" in client.get("/docs").headers["content-security-policy"]
        assert "script-src" not in client.get("/openapi.json").headers["content-security-policy"]

    def test_docs_can_be_off(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(docs_enabled=False)
        assert [client.get(path).status_code for path in ("/docs", "/openapi.json", "/redoc")] == [404] * 3

    def test_a_request_id_of_the_client_is_not_taken(self, client: TestClient) -> None:
        response = client.get("/health", headers={"X-Request-Id": "canary"})
        assert response.headers["x-request-id"] != "canary"

    @pytest.mark.parametrize(
        ("context", "taken"),
        [({"requestId": "JKJaXmPLvHcESHA="}, True), ({"requestId": None}, False), ({}, False), ("x", False)],
    )
    def test_the_request_id_of_api_gateway_is(self, ask: Ask, context: object, taken: bool) -> None:  # noqa: FBT001
        reply = ask("/health", method="GET", **{"aws.event": {"requestContext": context}})
        assert (reply.headers["x-request-id"] == "JKJaXmPLvHcESHA=") is taken


class TestBodyLimit:
    def test_64_kib_are_read(self, client: TestClient) -> None:
        response = client.post(
            "/auth/refresh", content=padded(MAXIMUM_BODY), headers={b"content-type": JSON[1]}
        )
        assert response.status_code == 401

    def test_a_byte_more_is_not(self, client: TestClient) -> None:
        response = client.post(
            "/auth/refresh", content=padded(MAXIMUM_BODY + 1), headers={b"content-type": JSON[1]}
        )
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")

    def test_chunks_without_a_length_are_counted(self, ask: Ask) -> None:
        body = padded(MAXIMUM_BODY)
        assert ask("/auth/refresh", chunks=[body[:1000], body[1000:]]).status == 401
        reply = ask("/auth/refresh", chunks=[body, b" "])
        assert (reply.status, json.loads(reply.body)["code"]) == (413, "body_too_large")

    def test_reading_stops_at_the_limit(self, ask: Ask) -> None:
        """More chunks than would be there if it went on: the driver would fail."""
        assert ask("/auth/refresh", chunks=[b"x" * 40_000, b"x" * 40_000, None]).status == 413

    @pytest.mark.parametrize(
        ("length", "status"),
        [(b"65537", 413), (b"9" * 5000, 413), (b"-1", 401), (b"canary", 401), (b"\xb2", 401)],
    )
    def test_a_declared_length_is_believed_only_upwards(self, ask: Ask, length: bytes, status: int) -> None:
        reply = ask("/auth/refresh", headers=[JSON, (b"content-length", length)], chunks=[padded(100)])
        assert reply.status == status

    def test_a_client_that_goes_away_is_no_failure_of_ours(self, ask: Ask) -> None:
        assert ask("/auth/refresh", chunks=[b"{", None]).status == 400


class TestContentType:
    @pytest.mark.parametrize(
        "value",
        [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            'application/json; charset="UTF-8"',
            "application/json; charset=utf8",
        ],
    )
    def test_json_in_utf_8_is_read(self, client: TestClient, value: str) -> None:
        response = client.post("/auth/refresh", content=padded(100), headers={"Content-Type": value})
        assert response.status_code == 401

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/problem+json",
            "application/jsonp",
            "application/json, text/plain",
            "application/json; charset=latin-1",
            "application/json; charset=utf-16",
            "application/json; charset*=utf-8''utf-8",
            "application",
        ],
    )
    @pytest.mark.parametrize("path", ["/auth/refresh", "/auth/nowhere"])
    def test_anything_else_is_refused(self, client: TestClient, path: str, value: str) -> None:
        response = client.post(path, content=padded(100), headers={"Content-Type": value})
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")

    @pytest.mark.parametrize("headers", [[], [JSON, JSON], [JSON, (b"content-type", b"text/plain")]])
    def test_none_and_two_are_refused(self, ask: Ask, headers: list[tuple[bytes, bytes]]) -> None:
        assert ask("/auth/refresh", headers=headers, chunks=[padded(100)]).status == 415

    def test_without_a_body_none_is_needed(self, ask: Ask) -> None:
        assert ask("/auth/refresh", headers=[]).status == 422
        assert ask("/health", method="GET", headers=[(b"content-type", b"text/plain")]).status == 200


class TestStrictJson:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"email":"a@example.com","email":"b@example.com","password":"SecurePass123!"}',
            b'{"email":"a@example.com","password":"\\ud800"}',
            b'{"email":"a@example.com","password":"SecurePass123!","attributes":{"n":NaN}}',
            b"\xff",
        ],
        ids=["duplicate", "surrogate", "NaN", "no UTF-8"],
    )
    def test_what_two_readers_may_read_differently_is_refused(
        self, client: TestClient, query: Query, body: bytes
    ) -> None:
        response = client.post("/auth/register", content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
        assert query("SELECT id FROM accounts") == []


class TestDatabaseGone:
    def test_every_route_that_needs_it_says_503(self, make_client: Callable[..., TestClient]) -> None:
        working = make_client()
        working.post("/auth/register", json=LOGIN)
        login = working.post("/auth/login", json=LOGIN).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        key = {"Idempotency-Key": "key"}
        client = make_client(database_url="postgresql://nobody@127.0.0.1:1/none")
        calls: list[tuple[str, str, dict[str, str], object]] = [
            ("POST", "/auth/register", {}, LOGIN),
            ("POST", "/auth/register", key, LOGIN),
            ("POST", "/auth/login", {}, LOGIN),
            ("POST", "/auth/refresh", {}, {"refresh_token": login["refresh_token"]}),
            ("POST", "/auth/refresh", key, {"refresh_token": login["refresh_token"]}),
            ("POST", "/auth/logout", bearer, {}),
            ("GET", "/auth/me", bearer, None),
            ("PATCH", "/auth/me", bearer, {}),
            ("DELETE", "/auth/me", bearer, None),
            ("GET", "/auth/sessions", bearer, None),
            ("DELETE", f"/auth/sessions/{login['session_id']}", bearer, None),
            ("GET", "/health/ready", {}, None),
        ]
        for method, path, headers, body in calls:
            response = client.request(method, path, headers=headers, json=body)
            assert (response.status_code, response.json()["code"]) == (503, "database_unavailable"), path
            assert response.headers["retry-after"] == "2"
            assert "127.0.0.1" not in response.text
        assert client.get("/health").status_code == 200
        assert client.get("/.well-known/jwks.json").status_code == 200


class TestCors:
    ORIGIN = "https://app.example.com"

    def preflight(self, client: TestClient, origin: str) -> Any:
        headers = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
        headers["Access-Control-Request-Headers"] = "authorization,content-type,idempotency-key"
        return client.options("/auth/me", headers=headers)

    def test_a_configured_origin_may_ask(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(cors_origins=f"{self.ORIGIN}, https://other.example.com")
        answer = self.preflight(client, self.ORIGIN)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == self.ORIGIN
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["x-request-id"]
        response = client.get("/auth/me", headers={"Origin": self.ORIGIN})
        assert response.status_code == 401
        assert response.headers["access-control-allow-origin"] == self.ORIGIN
        assert "X-Request-Id" in response.headers["access-control-expose-headers"]

    def test_another_origin_may_not(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(cors_origins=self.ORIGIN)
        answer = self.preflight(client, "https://evil.example.com")
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "malformed_request"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert "Origin" in answer.headers["vary"]
        assert [name for name in answer.headers if name.startswith("access-control")] == []
        assert "evil" not in answer.text

    def test_without_the_setting_nobody_may(self, client: TestClient) -> None:
        answer = self.preflight(client, self.ORIGIN)
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers


def test_websockets_are_not_served(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/auth/me"):
        pass


class TestServerTiming:
    def test_local_mode_shows_what_a_request_spent(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(mode="local")
        body = {"email": "timing@example.com", "password": "a long and dull passphrase"}

        timing = client.post("/auth/register", json=body).headers["Server-Timing"]

        assert re.fullmatch(
            r'db;dur=[\d.]+;desc="2", hash;dur=[\d.]+;desc="1", aws;dur=0\.0;desc="0"', timing
        )

    def test_a_deployment_does_not(self, client: TestClient) -> None:
        assert "Server-Timing" not in client.get("/health").headers


class TestOverBudget:
    def test_it_is_logged_with_what_was_spent(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        observability.configure_logging(client.app.state.resources.settings)  # type: ignore[attr-defined]
        monkeypatch.setitem(BUDGETS, "GET /health/ready", Budget(0))

        client.get("/health/ready")
        client.get("/health")

        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        over = [event for event in events if event["message"] == "over_budget"]
        assert [(event["route"], event["round_trips"]) for event in over] == [("/health/ready", 1)]

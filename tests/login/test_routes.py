"""POST /auth/login as a client sees it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import KeySet

from auth_manager.database import Row

Query = Callable[..., list[Row]]

PASSWORD = "SecurePass123!"
EMAIL = {"email": "test@example.com"}
LOGIN = EMAIL | {"password": PASSWORD}
PER_REQUEST = {"x-request-id", "content-length"}


@pytest.fixture
def user(client: TestClient) -> dict[str, Any]:
    """The registered user of these tests."""
    response = client.post("/auth/register", json=LOGIN | {"username": "testuser"})
    assert response.status_code == 201
    registered: dict[str, Any] = response.json()
    return registered


def log_in(client: TestClient, status: int = 200, **fields: Any) -> dict[str, Any]:
    response = client.post("/auth/login", json=LOGIN | fields)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def wide(text: str) -> str:
    """Write ASCII letters full-width, as East Asian keyboards do."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


@pytest.mark.usefixtures("user")
class TestIdentifiers:
    @pytest.mark.parametrize(
        "who",
        [
            {"email": "test@example.com"},
            {"email": "TEST@Example.COM"},
            {"email": f"test@{wide('example')}.com"},
            {"username": "testuser"},
            {"username": "TestUser"},
            {"username": wide("testuser")},
            {"identifier": "test@example.com"},
            {"identifier": "TESTUSER"},
            {"email": None, "username": "testuser"},
        ],
        ids=str,
    )
    def test_address_and_username_in_any_case_and_width(
        self, client: TestClient, who: dict[str, str | None]
    ) -> None:
        response = client.post("/auth/login", json=who | {"password": PASSWORD})
        assert response.status_code == 200
        assert response.json()["user"]["username"] == "testuser"

    @pytest.mark.parametrize(
        ("who", "pointer", "code"),
        [
            ({}, "", "value_error"),
            ({"email": "test@example.com", "username": "testuser"}, "", "value_error"),
            ({"email": None, "username": None}, "", "value_error"),
            ({"email": ""}, "/email", "string_too_short"),
            ({"email": "x" * 321}, "/email", "string_too_long"),
            ({"username": 7}, "/username", "string_type"),
            ({"identifier": "testuser", "role": "admin"}, "", "unknown_field"),
        ],
        ids=["none", "two", "nulls", "empty", "long", "number", "extra"],
    )
    def test_exactly_one_is_given(
        self, client: TestClient, who: dict[str, Any], pointer: str, code: str
    ) -> None:
        response = client.post("/auth/login", json=who | {"password": PASSWORD})
        assert response.status_code == 422
        [error] = response.json()["errors"]
        assert (error["pointer"], error["code"]) == (pointer, code)
        assert PASSWORD not in response.text

    @pytest.mark.parametrize("password", [None, 7, ["SecurePass123!"]], ids=["null", "number", "list"])
    def test_the_password_is_text(self, client: TestClient, password: object) -> None:
        response = client.post("/auth/login", json=EMAIL | {"password": password})
        assert response.status_code == 422
        assert [error["pointer"] for error in response.json()["errors"]] == ["/password"]
        assert PASSWORD not in response.text


class TestTokens:
    def test_the_answer_is_a_token_response(self, client: TestClient, user: dict[str, Any]) -> None:
        answer = log_in(client)
        assert answer["token_type"] == "Bearer"
        assert answer["expires_in"] == 900
        assert answer["refresh_expires_in"] == 14 * 86_400
        assert answer["user"] == {name: user[name] for name in user if name != "verification_request"}
        assert set(answer) == {
            "access_token",
            "token_type",
            "expires_in",
            "refresh_token",
            "refresh_expires_in",
            "session_id",
            "user",
        }

    def test_the_access_token_is_rfc_9068_for_a_library_of_others(
        self, client: TestClient, user: dict[str, Any]
    ) -> None:
        answer = log_in(client)
        keys = KeySet.import_key_set(client.get("/.well-known/jwks.json").json())
        token = jwt.decode(answer["access_token"], keys, algorithms=["RS256"])
        assert token.header["typ"] == "at+jwt"
        assert token.header["kid"] == keys.keys[0].kid
        claims = token.claims
        assert claims["iss"] == "https://auth.example.com"
        assert claims["aud"] == "auth-manager"
        assert claims["client_id"] == "auth-manager"
        assert claims["sub"] == user["id"]
        assert claims["sid"] == answer["session_id"]
        assert claims["exp"] - claims["iat"] == 900
        assert claims["auth_time"] == claims["iat"]
        assert (claims["amr"], claims["acr"], claims["scope"], claims["roles"]) == (
            ["pwd"],
            "aal1",
            "account",
            [],
        )

    def test_each_login_is_a_new_session(self, client: TestClient, user: dict[str, Any]) -> None:
        first, second = log_in(client), log_in(client)
        assert first["session_id"] != second["session_id"]
        assert first["refresh_token"] != second["refresh_token"]
        assert first["user"]["id"] == second["user"]["id"] == user["id"]

    def test_the_roles_of_the_account_are_in_the_token(
        self, client: TestClient, user: dict[str, Any], query: Query
    ) -> None:
        query("INSERT INTO roles (name, created_at, updated_at) VALUES ('b', now(), now()) RETURNING 1")
        query(
            "INSERT INTO account_roles SELECT %(id)s, role, now() FROM unnest(ARRAY['b', 'admin']) AS role"
            " RETURNING 1",
            id=user["id"],
        )
        answer = log_in(client)
        keys = KeySet.import_key_set(client.get("/.well-known/jwks.json").json())
        assert answer["user"]["roles"] == ["admin", "b"]
        assert jwt.decode(answer["access_token"], keys).claims["roles"] == ["admin", "b"]

    def test_no_lifetime_passes_the_end_of_the_session(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(
            access_token_lifetime=600, session_idle_lifetime=600, session_absolute_lifetime=600
        )
        client.post("/auth/register", json=LOGIN)
        answer = log_in(client)
        assert answer["expires_in"] == 600
        assert answer["refresh_expires_in"] == 600

    def test_refreshing_does_not_pass_it_either(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        client = make_client(
            access_token_lifetime=600, session_idle_lifetime=600, session_absolute_lifetime=600
        )
        client.post("/auth/register", json=LOGIN)
        token = log_in(client)["refresh_token"]
        query("UPDATE sessions SET expires_at = now() + interval '5 minutes' RETURNING 1")
        answer = client.post("/auth/refresh", json={"refresh_token": token}).json()
        assert 290 <= answer["expires_in"] <= 300
        assert 290 <= answer["refresh_expires_in"] <= 300


class TestRefusals:
    def test_unknown_wrong_and_disabled_are_one_answer(
        self, client: TestClient, user: dict[str, Any], query: Query
    ) -> None:
        wrong = client.post("/auth/login", json=EMAIL | {"password": "not the password"})
        query("UPDATE accounts SET disabled_at = now() WHERE id = %(id)s RETURNING 1", id=user["id"])
        answers = [
            wrong,
            client.post("/auth/login", json=EMAIL | {"password": "not the password"}),
            client.post("/auth/login", json={"email": "no@example.com", "password": "not the password"}),
            client.post("/auth/login", json={"username": "nobody", "password": PASSWORD}),
            client.post("/auth/login", json={"identifier": "no identifier at all!", "password": PASSWORD}),
        ]
        bodies = [answer.json() for answer in answers]
        assert len({body.pop("request_id") for body in bodies}) == len(answers)
        assert bodies == [bodies[0]] * len(answers)
        assert bodies[0]["code"] == "invalid_credentials"
        headers = [{k: v for k, v in a.headers.items() if k not in PER_REQUEST} for a in answers]
        assert headers == [headers[0]] * len(answers)
        assert {answer.status_code for answer in answers} == {401}
        assert headers[0]["www-authenticate"] == "Bearer"

    def test_a_disabled_account_is_told_after_the_right_password(
        self, client: TestClient, user: dict[str, Any], query: Query
    ) -> None:
        query("UPDATE accounts SET disabled_at = now() WHERE id = %(id)s RETURNING 1", id=user["id"])
        assert log_in(client, 403)["code"] == "account_disabled"

    def test_an_unverified_address_is_told_after_the_right_password(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        client = make_client(require_verified_email=True)
        client.post("/auth/register", json=LOGIN)
        assert log_in(client, 401, password="not the password")["code"] == "invalid_credentials"
        assert log_in(client, 403)["code"] == "email_not_verified"
        query("UPDATE accounts SET email_verified_at = now() RETURNING 1")
        assert log_in(client)["user"]["email_verified"] is True

    def test_an_unverified_address_can_be_hidden(self, make_client: Callable[..., TestClient]) -> None:
        """Otherwise registering an address and logging in tells whether it was free."""
        client = make_client(
            require_verified_email=True, reveal_unverified_email=False, login_failures_before_delay=3
        )
        client.post("/auth/register", json=LOGIN)
        right, wrong = log_in(client, 401), log_in(client, 401, password="not the password")

        assert right | {"request_id": ""} == wrong | {"request_id": ""}
        assert right["code"] == "invalid_credentials"
        log_in(client, 401)
        assert log_in(client, 429)["code"] == "too_many_attempts", "the right password counts as well"

    @pytest.mark.usefixtures("user")
    def test_a_password_over_the_limit_is_only_wrong(self, client: TestClient) -> None:
        assert log_in(client, 401, password="x" * 1025)["code"] == "invalid_credentials"

    def test_no_password_opens_an_account_without_one(
        self, client: TestClient, user: dict[str, Any], query: Query
    ) -> None:
        query("UPDATE accounts SET password_hash = '!' WHERE id = %(id)s RETURNING 1", id=user["id"])
        for guess in ("!", "", PASSWORD):
            assert log_in(client, 401, password=guess)["code"] == "invalid_credentials"


class TestLimits:
    def test_too_many_failures_say_when_to_come_back(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(login_failures_before_delay=3, login_delay=30)
        client.post("/auth/register", json=LOGIN)
        for _ in range(3):
            log_in(client, 401, password="not the password")
        response = client.post("/auth/login", json=LOGIN)
        assert response.status_code == 429
        assert response.json()["code"] == "too_many_attempts"
        assert 28 <= int(response.headers["retry-after"]) <= 30

    def test_an_identifier_that_nobody_has_is_limited_alike(
        self, make_client: Callable[..., TestClient]
    ) -> None:
        client = make_client(login_failures_before_delay=3, login_delay=30)
        client.post("/auth/register", json=LOGIN)
        answers = {}
        for email in ("test@example.com", "nobody@example.com"):
            tries = [
                client.post("/auth/login", json={"email": email, "password": "not the password"})
                for _ in range(4)
            ]
            bodies = [answer.json() for answer in tries]
            for body in bodies:
                del body["request_id"]
            answers[email] = [(a.status_code, a.headers.get("retry-after")) for a in tries], bodies
        assert answers["test@example.com"] == answers["nobody@example.com"]
        assert answers["nobody@example.com"][0][-1] == (429, "30")


class TestAudit:
    def test_every_outcome_leaves_a_row_with_its_origin(
        self, client: TestClient, user: dict[str, Any], query: Query
    ) -> None:
        started = client.post("/auth/login", json=LOGIN, headers={"User-Agent": "browser/1"})
        wrong = client.post("/auth/login", json=LOGIN | {"password": "wrong"})
        unknown = client.post("/auth/login", json=LOGIN | {"email": "no@example.com"})
        rows = query("SELECT * FROM audit_events WHERE event = 'logged_in' ORDER BY id")
        assert [row["outcome"] for row in rows] == ["success", "failure", "failure"]
        assert [row["reason"] for row in rows] == [None, "invalid_credentials", "invalid_credentials"]
        assert [row["account_id"] and str(row["account_id"]) for row in rows] == [
            user["id"],
            user["id"],
            None,
        ]
        assert [row["request_id"] for row in rows] == [
            answer.headers["x-request-id"] for answer in (started, wrong, unknown)
        ]
        assert str(rows[0]["session_id"]) == started.json()["session_id"]
        assert {row["address"] for row in rows} == {"203.0.113.7"}
        assert rows[0]["user_agent"] == "browser/1"
        assert isinstance(rows[0]["occurred_at"], datetime)
        assert rows[2]["occurred_at"] - rows[0]["occurred_at"] < timedelta(minutes=1)

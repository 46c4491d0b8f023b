"""POST /auth/register and /auth/me as a client sees them."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from auth_manager.database import Row

Query = Callable[..., list[Row]]

PASSWORD = "SecurePass123!"
EMAIL = {"email": "test@example.com"}
LOGIN = EMAIL | {"password": PASSWORD}
FULL: dict[str, Any] = LOGIN | {
    "username": "TestUser",
    "display_name": "Test Ünser 😀",
    "attributes": {"plan": [1, None]},
}
PER_REQUEST = {"x-request-id", "date"}


def wide(text: str) -> str:
    """Write ASCII letters full-width, as East Asian keyboards do."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


def register(client: TestClient, status: int = 201, **fields: Any) -> dict[str, Any]:
    response = client.post("/auth/register", json=LOGIN | fields)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def bearer(client: TestClient, **who: str) -> dict[str, str]:
    """Log in, for the Authorization header."""
    response = client.post("/auth/login", json=LOGIN | who)
    assert response.status_code == 200
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


class TestRegister:
    def test_the_answer_is_the_user(self, client: TestClient) -> None:
        user = register(client, **FULL)
        assert UUID(user.pop("id")).version == 7
        assert UUID(user.pop("verification_request")).version == 7
        created_at = user.pop("created_at")
        assert created_at == user.pop("updated_at")
        assert created_at.endswith("Z")
        assert user == {
            "email": "test@example.com",
            "email_verified": False,
            "username": "TestUser",
            "display_name": "Test Ünser 😀",
            "locale": None,
            "attributes": {"plan": [1, None]},
            "roles": [],
        }

    def test_address_and_password_are_enough(self, client: TestClient, query: Query) -> None:
        user = register(client)
        assert (user["username"], user["display_name"], user["attributes"]) == (None, None, {})
        [row] = query("SELECT password_hash FROM accounts")
        assert row["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    def test_a_verification_is_queued_to_the_address_as_typed(self, client: TestClient, query: Query) -> None:
        user = register(client, email="Test@Example.COM")
        assert user["email"] == "Test@Example.COM"
        [row] = query("SELECT kind, recipient, account_id FROM outbox")
        assert row == {
            "kind": "verify_email",
            "recipient": "Test@Example.COM",
            "account_id": UUID(user["id"]),
        }

    def test_success_and_refusal_are_in_the_audit_trail(self, client: TestClient, query: Query) -> None:
        user = register(client)
        register(client, 409)
        rows = query("SELECT outcome, reason, account_id, address FROM audit_events ORDER BY id")
        assert [(row["outcome"], row["reason"], row["account_id"]) for row in rows] == [
            ("success", None, UUID(user["id"])),
            ("failure", "email_taken", None),
        ]
        assert {row["address"] for row in rows} == {"203.0.113.7"}

    @pytest.mark.parametrize(
        ("fields", "pointer", "code"),
        [
            ({"email": "canary"}, "/email", "email_invalid"),
            ({"email": "a@canary"}, "/email", "email_invalid"),
            ({"email": "canary <test@example.com>"}, "/email", "email_invalid"),
            ({"email": "canary@example.com\r\nBcc: x@example.com"}, "/email", "email_invalid"),
            ({"email": " canary@example.com"}, "/email", "email_invalid"),
            ({"email": "canary@" + "x" * 60 + ".com" * 60}, "/email", "email_invalid"),
            ({"email": "canary" * 60}, "/email", "string_too_long"),
            ({"email": None}, "/email", "string_type"),
            ({"email": 1}, "/email", "string_type"),
            ({"username": ""}, "/username", "username_invalid"),
            ({"username": "ca"}, "/username", "username_invalid"),
            ({"username": "canary" * 11}, "/username", "username_invalid"),
            ({"username": "canary@example.com"}, "/username", "username_invalid"),
            ({"username": "canary canary"}, "/username", "username_invalid"),
            ({"username": ".canary"}, "/username", "username_invalid"),
            ({"username": ["canary"]}, "/username", "string_type"),
            ({"username": "canary" * 50}, "/username", "string_too_long"),
            ({"password": "canary"}, "/password", "password_too_short"),
            ({"password": "canary" * 171}, "/password", "password_too_long"),
            ({"password": "password1234"}, "/password", "password_common"),
            (
                {"password": "test.test.test", "email": "test@example.com"},
                "/password",
                "password_contains_context",
            ),
            ({"password": None}, "/password", "string_type"),
            ({"display_name": "canary" * 40}, "/display_name", "string_too_long"),
            ({"display_name": {"canary": 1}}, "/display_name", "string_type"),
            ({"attributes": ["canary"]}, "/attributes", "dict_type"),
            ({"attributes": {"canary": "x" * 4096}}, "/attributes", "attributes_too_large"),
            ({"attributes": {"canary": [9e307] * 20}}, "/attributes", "attributes_too_large"),
            ({"role": "canary"}, "", "unknown_field"),
            ({"roles": ["admin"]}, "", "unknown_field"),
            ({"user_id": str(UUID(int=7))}, "", "unknown_field"),
            ({"id": str(UUID(int=7))}, "", "unknown_field"),
            ({"email_verified": True}, "", "unknown_field"),
            ({"canary": "canary"}, "", "unknown_field"),
            ({"display_name": "canary\x00"}, "/display_name", "nul_character"),
            ({"attributes": {"canary": ["\x00"]}}, "/attributes", "nul_character"),
            ({"attributes": {"canary\x00": 1}}, "/attributes", "nul_character"),
        ],
        ids=lambda value: repr(value)[:40] if isinstance(value, dict) else "",
    )
    def test_what_is_invalid_is_named_and_never_repeated(
        self, client: TestClient, query: Query, fields: dict[str, Any], pointer: str, code: str
    ) -> None:
        response = client.post("/auth/register", json=LOGIN | fields)
        assert response.status_code == 422
        body = response.json()
        assert body["code"] == "invalid_fields"
        assert [(error["pointer"], error["code"]) for error in body["errors"]] == [(pointer, code)]
        for submitted in ("canary", PASSWORD, "example.com", "\\u0000"):
            assert submitted not in response.text
        assert query("SELECT id FROM accounts") == []

    def test_everything_that_is_wrong_is_named_at_once(self, client: TestClient) -> None:
        answer = register(client, 422, email="x", username="x", password="x", attributes={"x": "y" * 5000})
        assert [error["pointer"] for error in answer["errors"]] == [
            "/email",
            "/username",
            "/password",
            "/attributes",
        ]

    @pytest.mark.parametrize(("letter", "times"), [("x", 4096), ("é", 2048), ("😀", 1024)])
    def test_attributes_are_measured_in_bytes(self, client: TestClient, letter: str, times: int) -> None:
        spent = len(b'{"k":""}')
        fits = letter * (times - spent // len(letter.encode()))
        register(client, 422, attributes={"k": fits + "x"})
        assert register(client, attributes={"k": fits})["attributes"] == {"k": fits}

    def test_attributes_come_back_as_they_were(self, client: TestClient) -> None:
        attributes = {"": {"a": [True, 0.5, -1, "é\u2028", None, {}]}, "big": 2**53, "10": "ten"}
        assert register(client, attributes=attributes)["attributes"] == attributes
        assert client.get("/auth/me", headers=bearer(client)).json()["attributes"] == attributes

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"email": "test@example.com"}, "email_taken"),
            ({"email": "TEST@EXAMPLE.COM"}, "email_taken"),
            ({"email": f"test@{wide('example')}.com"}, "email_taken"),
            ({"email": "other@example.com", "username": "testuser"}, "username_taken"),
            ({"email": "other@example.com", "username": "TESTUSER"}, "username_taken"),
            ({"email": "other@example.com", "username": wide("TestUser")}, "username_taken"),
            ({"email": "test@example.com", "username": "testuser"}, "email_taken"),
        ],
        ids=str,
    )
    def test_an_identifier_is_taken_in_every_spelling(
        self, client: TestClient, query: Query, fields: dict[str, str], code: str
    ) -> None:
        register(client, username="TestUser")
        assert register(client, 409, **fields)["code"] == code
        assert query("SELECT count(*) AS n FROM accounts") == [{"n": 1}]
        assert query("SELECT count(*) AS n FROM outbox") == [{"n": 1}]

    @pytest.mark.parametrize("email", ["tést@example.com", "teßt@example.com", "tess.t@example.com"])
    def test_a_look_alike_is_another_mailbox(self, client: TestClient, email: str) -> None:
        register(client, email="tesst@example.com")
        assert register(client, email=email)["email"] == email

    def test_registrations_of_one_address_are_limited(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(registrations_per_address=2, registration_window=600)
        register(client)
        register(client, 409)
        register(client, 422, email="x")
        response = client.post("/auth/register", json=LOGIN | {"email": "new@example.com"})
        assert response.status_code == 429
        assert response.json()["code"] == "too_many_requests"
        assert 590 < int(response.headers["retry-after"]) <= 600

    def test_a_recipient_of_too_many_mails_gets_none_and_nobody_sees_it(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        client = make_client(mails_per_recipient=2)
        answers, mails = [], []
        for _ in range(3):
            answer = client.post("/auth/register", json=LOGIN)
            mails.append(len(query("SELECT id FROM outbox WHERE kind = 'verify_email'")))
            assert client.delete("/auth/me", headers=bearer(client)).status_code == 204
            answers.append(answer)

        assert mails == [1, 1, 0]
        assert [answer.status_code for answer in answers] == [201] * 3
        new = "id", "created_at", "updated_at", "verification_request"
        bodies = [{k: v for k, v in answer.json().items() if k not in new} for answer in answers]
        assert bodies == [bodies[0]] * 3
        assert {UUID(answer.json()["verification_request"]).version for answer in answers} == {7}
        headers = [{k: v for k, v in a.headers.items() if k not in PER_REQUEST} for a in answers]
        assert headers == [headers[0]] * 3

    def test_a_retry_of_one_that_mailed_nothing_is_the_same_answer(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        client = make_client(mails_per_recipient=1)
        register(client)
        assert client.delete("/auth/me", headers=bearer(client)).status_code == 204
        key = {"Idempotency-Key": "once"}
        first, again = (client.post("/auth/register", json=LOGIN, headers=key) for _ in range(2))

        assert (first.status_code, again.status_code) == (201, 201)
        assert first.content == again.content
        assert query("SELECT id FROM outbox") == []


class TestRegisterWhereAddressesAreVerified:
    @pytest.fixture
    def client(self, make_client: Callable[..., TestClient]) -> TestClient:
        return make_client(require_verified_email=True)

    def test_new_and_taken_are_one_answer(self, client: TestClient) -> None:
        answers = [
            client.post("/auth/register", json=LOGIN | fields)
            for fields in (
                {"username": "testuser"},
                {"username": "testuser"},
                {"email": "TEST@example.com", "username": "another"},
                {"email": "new@example.com", "username": "TESTUSER"},
                {"email": "another@example.com"},
            )
        ]
        assert {answer.status_code for answer in answers} == {202}
        bodies = [answer.json() for answer in answers]
        requests = {body.pop("verification_request") for body in bodies}
        assert {UUID(request).version for request in requests} == {7}
        assert len(requests) == len(answers)
        assert bodies == [{"detail": "If the address can be registered, a mail is on its way."}] * len(
            answers
        )
        headers = [{k: v for k, v in a.headers.items() if k not in PER_REQUEST} for a in answers]
        assert headers == [headers[0]] * len(answers)

    def test_the_owner_of_the_address_learns_by_mail(self, client: TestClient, query: Query) -> None:
        register(client, 202, email="Test@Example.com", username="testuser")
        register(client, 202, email="TEST@EXAMPLE.COM", username="another")
        register(client, 202, email="new@example.com", username="TestUser")
        [account] = query("SELECT id, username FROM accounts")
        rows = query("SELECT kind, recipient, account_id FROM outbox ORDER BY id")
        assert [tuple(row.values()) for row in rows] == [
            ("verify_email", "Test@Example.com", account["id"]),
            ("already_registered", "Test@Example.com", account["id"]),
            ("username_taken", "new@example.com", None),
        ]
        assert account["username"] == "testuser"
        events = query("SELECT outcome, reason, account_id FROM audit_events ORDER BY id")
        assert [tuple(row.values()) for row in events] == [
            ("success", None, account["id"]),
            ("failure", "already_registered", None),
            ("failure", "username_taken", None),
        ]

    def test_what_is_invalid_is_still_named(self, client: TestClient) -> None:
        answer = register(client, 422, password="short")
        assert answer["errors"][0]["pointer"] == "/password"


class TestReadMe:
    def test_it_is_the_account_as_it_is_now(self, client: TestClient, query: Query) -> None:
        user = register(client, **FULL)
        del user["verification_request"]
        headers = bearer(client)
        assert client.get("/auth/me", headers=headers).json() == user
        query("UPDATE accounts SET email_verified_at = now() RETURNING 1")
        query("INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts RETURNING 1")
        now = client.get("/auth/me", headers=headers).json()
        assert (now["email_verified"], now["roles"]) == (True, ["admin"])

    def test_a_disabled_account_is_refused_at_once(self, client: TestClient, query: Query) -> None:
        register(client)
        headers = bearer(client)
        query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        for method in ("GET", "PATCH", "DELETE"):
            response = client.request(
                method, "/auth/me", headers=headers, json={} if method == "PATCH" else None
            )
            assert (response.status_code, response.json()["code"]) == (401, "session_ended")

    @pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
    def test_without_a_token(self, client: TestClient, method: str) -> None:
        response = client.request(method, "/auth/me")
        assert (response.status_code, response.json()["code"]) == (401, "missing_token")


class TestChangeMe:
    def change(self, client: TestClient, headers: dict[str, str], status: int = 200, **fields: Any) -> Any:
        response = client.patch("/auth/me", headers=headers, json=fields)
        assert response.status_code == status, response.text
        return response.json()

    @pytest.mark.parametrize(
        ("fields", "changed"),
        [
            ({}, {}),
            ({"display_name": "New"}, {"display_name": "New"}),
            ({"display_name": None}, {"display_name": None}),
            ({"username": "NewName"}, {"username": "NewName"}),
            ({"username": "testuser"}, {"username": "testuser"}),
            ({"username": None}, {"username": None}),
            ({"attributes": {"a": 1}}, {"attributes": {"a": 1}}),
            ({"attributes": None}, {"attributes": {}}),
            ({"locale": "fr-CA"}, {"locale": "fr-CA"}),
            ({"username": None, "display_name": "N"}, {"username": None, "display_name": "N"}),
        ],
        ids=str,
    )
    def test_only_what_is_named_changes(
        self, client: TestClient, query: Query, fields: dict[str, Any], changed: dict[str, Any]
    ) -> None:
        user = register(client, **FULL)
        del user["verification_request"]
        headers = bearer(client)
        answer = self.change(client, headers, **fields)
        assert answer["updated_at"] > user["updated_at"]
        assert answer == user | changed | {"updated_at": answer["updated_at"]}
        assert client.get("/auth/me", headers=headers).json() == answer
        [event] = query("SELECT account_id FROM audit_events WHERE event = 'profile_changed'")
        assert str(event["account_id"]) == user["id"]

    def test_a_new_username_logs_in_and_the_old_one_is_free(self, client: TestClient) -> None:
        register(client, username="before")
        self.change(client, bearer(client), username="After")
        bearer(client, username="after", email=None)  # type: ignore[arg-type]  # null is as good as absent
        register(client, email="other@example.com", username="before")

    @pytest.mark.parametrize("name", ["taken", "TAKEN", wide("taken")])
    def test_a_username_of_another_is_taken(self, client: TestClient, query: Query, name: str) -> None:
        register(client, email="other@example.com", username="taken")
        register(client, username="testuser")
        answer = self.change(client, bearer(client), 409, username=name, display_name="lost")
        assert answer["code"] == "username_taken"
        assert query("SELECT id FROM accounts WHERE display_name IS NOT NULL") == []
        assert query("SELECT id FROM audit_events WHERE event = 'profile_changed'") == []

    @pytest.mark.parametrize(
        ("fields", "pointer", "code"),
        [
            ({"username": "canary canary"}, "/username", "username_invalid"),
            ({"username": ""}, "/username", "username_invalid"),
            ({"display_name": 1}, "/display_name", "string_type"),
            ({"display_name": "canary\x00"}, "/display_name", "nul_character"),
            ({"attributes": {"canary": "x" * 4096}}, "/attributes", "attributes_too_large"),
            ({"attributes": "canary"}, "/attributes", "dict_type"),
            ({"email": "canary@example.com"}, "", "unknown_field"),
            ({"password": "canary"}, "", "unknown_field"),
            ({"roles": ["admin"]}, "", "unknown_field"),
            ({"id": str(UUID(int=7))}, "", "unknown_field"),
        ],
        ids=str,
    )
    def test_what_is_invalid_is_named(
        self, client: TestClient, fields: dict[str, Any], pointer: str, code: str
    ) -> None:
        register(client)
        answer = self.change(client, bearer(client), 422, **fields)
        assert [(error["pointer"], error["code"]) for error in answer["errors"]] == [(pointer, code)]
        assert "canary" not in str(answer)


class TestDeleteMe:
    def test_nothing_with_the_address_or_the_name_is_left(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        """Every column of every table is looked through, outbox and counters included."""
        careful = make_client(require_verified_email=True)
        register(careful, 202, email="holder@example.com", username="taken")
        register(careful, 202, email="Gone-Canary@Example.com", username="taken")
        client = make_client()
        register(client, email="Gone-Canary@example.com", username="canaryname", display_name="Canary")
        register(careful, 202, email="GONE-canary@example.com")
        client.post("/auth/login", json={"email": "gone-canary@example.com", "password": "wrong"})
        headers = bearer(client, email="gone-canary@example.com")
        bearer(client, email="gone-canary@example.com")
        assert client.delete("/auth/me", headers=headers).status_code == 204
        tables = query("SELECT tablename FROM pg_tables WHERE schemaname = 'auth_manager'")
        assert len(tables) >= 8
        for table in tables:
            name = table["tablename"]
            found = query(f"SELECT t::text FROM {name} AS t WHERE t::text ILIKE '%%canary%%'")
            assert found == [], name
        assert query("SELECT username FROM accounts") == [{"username": "taken"}]
        assert client.get("/auth/me", headers=headers).json()["code"] == "session_ended"
        assert query("SELECT id FROM sessions") == []

    def test_the_audit_trail_keeps_the_bare_id(self, client: TestClient, query: Query) -> None:
        user = register(client)
        assert client.delete("/auth/me", headers=bearer(client)).status_code == 204
        rows = query("SELECT event, account_id FROM audit_events ORDER BY id")
        assert [row["event"] for row in rows] == ["registered", "logged_in", "account_deleted"]
        assert {str(row["account_id"]) for row in rows} == {user["id"]}

    def test_the_identifiers_are_free_again(self, client: TestClient) -> None:
        first = register(client, username="testuser")
        client.delete("/auth/me", headers=bearer(client))
        assert register(client, username="testuser")["id"] != first["id"]

"""Acting for somebody else: who may, for how long, how it shows, and what nobody does so."""

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from fastapi.testclient import TestClient
from tests.mfa.test_routes import EMAIL, bearer, create, enrol, log_in
from tests.templates.resolved import ROOT

from auth_manager.database import Row

SUPPORT = "support@example.com"
REASON = {"reason": "Ticket 4711"}
NOBODY = "0191d6a0-0000-7000-8000-000000000000"

SCHEMA = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))

OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in SCHEMA["paths"].items()
    for method, operation in methods.items()
    if "security" in operation
]

ALLOWED = {
    "GET /auth/me",
    "PATCH /auth/me",
    "GET /auth/sessions",
    "POST /auth/logout",
    "GET /auth/mfa",
    "GET /auth/mfa/devices",
    "GET /auth/passkeys",
    "GET /auth/passkeys/{passkey_id}",
}
"""What an administrator can do for the owner: look, change the profile, and end it."""

SCHEMAS = SCHEMA["components"]["schemas"]


def sample(schema: dict[str, Any]) -> Any:
    """Something that a schema allows: what is refused for its form never comes to the guard."""
    if "$ref" in schema:
        return sample(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return sample(schema["anyOf"][0])
    if "properties" in schema:
        required = schema.get("oneOf", [schema])[0].get("required", [])
        return {name: sample(schema["properties"][name]) for name in required}
    if examples := schema.get("examples") or schema.get("enum"):
        return examples[0]
    if schema.get("type") == "array":
        return [sample(schema["items"])] * schema.get("minItems", 0)
    plain: dict[str, Any] = {"object": {}, "integer": 1, "boolean": True}
    texts = {"uuid": NOBODY}
    return plain.get(schema.get("type", ""), texts.get(schema.get("format", ""), "some text"))


def body_of(operation: dict[str, Any]) -> Any:
    """A body that the operation takes, None where it takes none."""
    content = operation.get("requestBody", {}).get("content", {})
    return sample(content["application/json"]["schema"]) if content else None


def query(client: TestClient, sql: str) -> list[Row]:
    with client.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
        found: list[Row] = connection.fetch_all(sql)
    return found


def make_impersonator(client: TestClient, *, permissions: str = "users:impersonate") -> str:
    """Somebody whose role has the permission by its name; returns the id."""
    query(
        client,
        "INSERT INTO roles (name, permissions, created_at, updated_at)"
        f" VALUES ('support', '{{{permissions}}}', now(), now()) RETURNING 1",
    )
    return create(client, "support", email=SUPPORT)


@pytest.fixture
def owner(client: TestClient) -> str:
    return create(client)


@pytest.fixture
def support(client: TestClient) -> dict[str, str]:
    make_impersonator(client)
    return bearer(log_in(client, SUPPORT))


@pytest.fixture
def acting(client: TestClient, owner: str, support: dict[str, str]) -> dict[str, str]:
    """The header of an impersonated session of `owner`."""
    answer = client.post(f"/admin/users/{owner}/impersonate", headers=support, json=REASON)
    assert answer.status_code == 201, answer.text
    return bearer(answer)


class TestImpersonate:
    def test_one_access_token_that_says_who_acts(
        self, client: TestClient, owner: str, support: dict[str, str]
    ) -> None:
        answer = client.post(f"/admin/users/{owner}/impersonate", headers=support, json=REASON)
        assert answer.status_code == 201
        opened = answer.json()
        assert set(opened) == {"access_token", "token_type", "expires_in", "session_id", "user"}
        assert (opened["expires_in"], opened["user"]["id"]) == (900, owner)
        claims = jwt.decode(opened["access_token"], options={"verify_signature": False})
        [actor] = query(client, f"SELECT id FROM accounts WHERE email = '{SUPPORT}'")
        assert (claims["sub"], claims["act"]) == (owner, {"sub": str(actor["id"])})
        assert (claims["sid"], claims["exp"] - claims["iat"]) == (opened["session_id"], 900)
        assert client.get("/auth/me", headers=bearer(answer)).json()["email"] == EMAIL
        lines = "SELECT 1 FROM refresh_lines JOIN sessions ON sessions.id = session_id"
        assert query(client, f"{lines} WHERE impersonator_id IS NOT NULL") == []

    def test_it_has_its_time(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(impersonation_lifetime=3600)
        owner = create(client)
        make_impersonator(client)
        headers = bearer(log_in(client, SUPPORT))
        answer = client.post(f"/admin/users/{owner}/impersonate", headers=headers, json=REASON)
        assert answer.json()["expires_in"] == 3600
        [session] = query(
            client, "SELECT expires_at - created_at AS box FROM sessions WHERE impersonator_id IS NOT NULL"
        )
        assert session["box"].total_seconds() == 3600

    def test_the_trail_names_both_and_why(
        self, client: TestClient, owner: str, acting: dict[str, str]
    ) -> None:
        client.patch("/auth/me", headers=acting, json={"display_name": "Changed for you"})
        started, changed = query(
            client,
            "SELECT event, account_id, actor_id, session_id, details FROM audit_events"
            " WHERE event IN ('impersonation_started', 'profile_changed') ORDER BY id",
        )
        [actor] = query(client, f"SELECT id FROM accounts WHERE email = '{SUPPORT}'")
        assert started["details"]["reason"] == REASON["reason"]
        assert {str(event["account_id"]) for event in (started, changed)} == {owner}
        assert {event["actor_id"] for event in (started, changed)} == {actor["id"]}
        assert changed["session_id"] == started["session_id"]

    def test_the_owner_sees_it_and_ends_it(self, client: TestClient, acting: dict[str, str]) -> None:
        own = bearer(log_in(client))
        sessions = client.get("/auth/sessions", headers=own).json()["items"]
        assert [session["impersonated"] for session in sessions] == [False, True]
        assert (sessions[1]["address"], sessions[1]["user_agent"]) == (None, "")
        assert client.delete(f"/auth/sessions/{sessions[1]['id']}", headers=own).status_code == 204
        assert client.get("/auth/me", headers=acting).json()["code"] == "session_ended"

    @pytest.mark.parametrize("permissions", ["*", "users:read,users:write,users:delete", "users:imp"])
    def test_no_other_permission_will_do(self, client: TestClient, owner: str, permissions: str) -> None:
        make_impersonator(client, permissions=permissions)
        answer = client.post(
            f"/admin/users/{owner}/impersonate", headers=bearer(log_in(client, SUPPORT)), json=REASON
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    def test_nobody_above(self, client: TestClient, support: dict[str, str]) -> None:
        above = create(client, "admin", email="admin@example.com")
        answer = client.post(f"/admin/users/{above}/impersonate", headers=support, json=REASON)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    def test_not_oneself(self, client: TestClient) -> None:
        oneself = make_impersonator(client)
        headers = bearer(log_in(client, SUPPORT))
        answer = client.post(f"/admin/users/{oneself}/impersonate", headers=headers, json=REASON)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    def test_nobody_who_is_disabled(self, client: TestClient, owner: str, support: dict[str, str]) -> None:
        query(client, f"UPDATE accounts SET disabled_at = now() WHERE id = '{owner}' RETURNING 1")
        answer = client.post(f"/admin/users/{owner}/impersonate", headers=support, json=REASON)
        assert (answer.status_code, answer.json()["code"]) == (403, "account_disabled")

    def test_nobody_at_all(self, client: TestClient, support: dict[str, str]) -> None:
        answer = client.post(f"/admin/users/{NOBODY}/impersonate", headers=support, json=REASON)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    @pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x" * 501}, {**REASON, "more": 1}])
    def test_not_without_a_reason(
        self, client: TestClient, owner: str, support: dict[str, str], body: dict[str, Any]
    ) -> None:
        answer = client.post(f"/admin/users/{owner}/impersonate", headers=support, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")

    def test_who_has_factors_needs_them(self, client: TestClient, owner: str) -> None:
        make_impersonator(client)
        headers = bearer(log_in(client, SUPPORT))
        enrol(client, headers)
        query(client, "UPDATE sessions SET acr = 'aal1' RETURNING 1")
        answer = client.post(f"/admin/users/{owner}/impersonate", headers=headers, json=REASON)
        assert (answer.status_code, answer.json()["code"]) == (401, "insufficient_user_authentication")

    def test_a_retry_gets_the_same_token(
        self, client: TestClient, owner: str, support: dict[str, str]
    ) -> None:
        headers = support | {"Idempotency-Key": "once"}
        answers = [
            client.post(f"/admin/users/{owner}/impersonate", headers=headers, json=REASON) for _ in range(2)
        ]
        assert answers[0].content == answers[1].content
        assert len(query(client, "SELECT id FROM sessions WHERE impersonator_id IS NOT NULL")) == 1


class TestEnd:
    """It ends with the administrator: judged with each request, so that nothing slips in between."""

    @pytest.mark.parametrize(
        "sql",
        [
            "UPDATE accounts SET disabled_at = now() WHERE email = '{support}'",
            "DELETE FROM accounts WHERE email = '{support}'",
            "DELETE FROM account_roles WHERE role = 'support'",
            "UPDATE roles SET permissions = '{{*}}' WHERE name = 'support'",
            "INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts WHERE email = '{owner}'",
            "UPDATE sessions SET expires_at = now() WHERE impersonator_id IS NOT NULL",
            "UPDATE accounts SET disabled_at = now() WHERE email = '{owner}'",
        ],
        ids=[
            "disabled",
            "deleted",
            "role-taken",
            "permission-taken",
            "owner-raised",
            "over",
            "owner-disabled",
        ],
    )
    @pytest.mark.parametrize("path", ["/auth/me", "/auth/sessions", "/auth/mfa", "/auth/passkeys"])
    def test_with(self, client: TestClient, acting: dict[str, str], sql: str, path: str) -> None:
        assert client.get(path, headers=acting).status_code == 200
        query(client, sql.format(support=SUPPORT, owner=EMAIL) + " RETURNING 1")
        answer = client.get(path, headers=acting)
        assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")

    def test_by_logging_out(self, client: TestClient, acting: dict[str, str]) -> None:
        own = bearer(log_in(client))
        assert client.post("/auth/logout", headers=acting).status_code == 204
        assert client.get("/auth/me", headers=acting).status_code == 401
        assert client.get("/auth/me", headers=own).status_code == 200


class TestWhatNobodyDoesForSomebodyElse:
    @pytest.mark.parametrize(
        ("method", "path", "operation"),
        OPERATIONS,
        ids=[f"{method} {path}" for method, path, _ in OPERATIONS],
    )
    def test_every_operation(
        self,
        client: TestClient,
        acting: dict[str, str],
        method: str,
        path: str,
        operation: dict[str, Any],
    ) -> None:
        """Generated from OpenAPI: a route is refused unless it is named here."""
        name = f"{method} {path}"
        url = path
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                url = url.replace(f"{{{parameter['name']}}}", NOBODY)
        answer = client.request(method, url, headers=acting, json=body_of(operation))
        if name in ALLOWED:
            assert answer.status_code != 403, answer.text
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), answer.text

    @pytest.mark.parametrize("scope", ["others", "all"])
    def test_other_sessions_are_the_owners(
        self, client: TestClient, acting: dict[str, str], scope: str
    ) -> None:
        answer = client.post("/auth/logout", headers=acting, json={"scope": scope})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    def test_the_username_is_what_the_owner_signs_in_with(
        self, client: TestClient, acting: dict[str, str]
    ) -> None:
        answer = client.patch("/auth/me", headers=acting, json={"username": "another"})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert client.get("/auth/me", headers=acting).json()["username"] is None

"""Who may call what, for every operation of docs/openapi.json (ASVS 8.2.1, 8.2.2, 8.3.1).

PERMISSIONS says what each administrative operation asks for: one that is not there fails, and so does one
that lets somebody in with another permission. OWNED names every path with an id of a person's own: one that
is not there fails too.
"""

import json
import re
import secrets
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from tests.mfa.test_routes import bearer, create, enrol, log_in, next_code
from tests.passkeys.visitors import Visitor
from tests.templates.resolved import ROOT

from auth_manager.database import Row
from auth_manager.permissions import PERMISSIONS as ALL_PERMISSIONS
from auth_manager.resources import Resources

Query = Callable[..., list[Row]]

SCHEMA = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))

PERMISSIONS = {
    "GET /admin/audit": "audit:read",
    "POST /admin/invitations": "invitations:write",
    "GET /admin/roles": "roles:read",
    "POST /admin/roles": "roles:write",
    "GET /admin/roles/{name}": "roles:read",
    "PATCH /admin/roles/{name}": "roles:write",
    "DELETE /admin/roles/{name}": "roles:write",
    "GET /admin/users": "users:read",
    "POST /admin/users": "users:write",
    "POST /admin/users/bulk": "users:write",
    "GET /admin/users/{account_id}": "users:read",
    "PATCH /admin/users/{account_id}": "users:write",
    "DELETE /admin/users/{account_id}": "users:delete",
    "POST /admin/users/{account_id}/disable": "users:write",
    "POST /admin/users/{account_id}/enable": "users:write",
    "POST /admin/users/{account_id}/impersonate": "users:impersonate",
    "POST /admin/users/{account_id}/logout": "users:write",
    "POST /admin/users/{account_id}/mfa-reset": "users:write",
    "POST /admin/users/{account_id}/recovery": "users:write",
    "POST /admin/users/{account_id}/unlock": "users:write",
    "PUT /admin/users/{account_id}/roles": "users:write",
    "GET /admin/users/{account_id}/sessions": "users:read",
    "DELETE /admin/users/{account_id}/sessions/{session_id}": "users:write",
    "GET /admin/webhooks": "webhooks:read",
    "POST /admin/webhooks": "webhooks:write",
    "GET /admin/webhooks/{endpoint_id}": "webhooks:read",
    "PATCH /admin/webhooks/{endpoint_id}": "webhooks:write",
    "DELETE /admin/webhooks/{endpoint_id}": "webhooks:write",
    "GET /admin/webhooks/{endpoint_id}/deliveries": "webhooks:read",
    "POST /admin/webhooks/{endpoint_id}/deliveries/{message_id}/replay": "webhooks:write",
    "POST /admin/webhooks/{endpoint_id}/rotate-secret": "webhooks:write",
    "POST /admin/webhooks/{endpoint_id}/test": "webhooks:write",
}


BODIES: dict[str, dict[str, Any]] = {
    "POST /admin/invitations": {"email": "invited@example.com"},
    "POST /admin/roles": {"name": "tester"},
    "PATCH /admin/roles/{name}": {"description": "x"},
    "POST /admin/users": {"email": "created@example.com"},
    "POST /admin/users/bulk": {"action": "logout", "filter": {"prefix": "nobody"}},
    "PATCH /admin/users/{account_id}": {"display_name": "x"},
    "POST /admin/users/{account_id}/impersonate": {"reason": "a test"},
    "PUT /admin/users/{account_id}/roles": {"roles": []},
    "POST /admin/webhooks": {"url": "https://hooks.example.com/", "types": ["user.created"]},
    "PATCH /admin/webhooks/{endpoint_id}": {"description": "x"},
    "PATCH /auth/passkeys/{passkey_id}": {"name": "x"},
}
"""What is well formed: a body that is not is refused before anybody asks who sent it."""

OPERATIONS = sorted(
    f"{method.upper()} {path}" for path, methods in SCHEMA["paths"].items() for method in methods
)
SECURED = [
    name
    for name in OPERATIONS
    for method, path in [name.split(" ")]
    if SCHEMA["paths"][path][method.lower()].get("security")
]
OPTIONAL = {"POST /auth/passkeys/authentication/options"}
"""Says more to who is signed in, and something to everybody."""

OWNED = ["/auth/mfa/devices/{device_id}", "/auth/passkeys/{passkey_id}", "/auth/sessions/{session_id}"]


def administrative(path: str) -> bool:
    return path.startswith("/admin/")


def call(client: TestClient, operation: str, headers: dict[str, str], ids: str | None = None) -> Response:
    """Call an operation with these ids in its path; by default with some of nothing."""
    method, path = operation.split(" ")
    path = re.sub(r"\{name\}", "no-such-role", path)
    path = re.sub(r"\{\w+\}", lambda _: ids or str(UUID(int=secrets.randbits(128))), path)
    return client.request(method, path, headers=headers, json=BODIES.get(operation))


def grant(client: TestClient, account_id: str, *permissions: str) -> None:
    """Give an account a role of its own that has these permissions."""
    resources: Resources = client.app.state.resources  # type: ignore[attr-defined]
    name = f"r{secrets.token_hex(4)}"
    with resources.database.one_trip() as connection:
        connection.add(
            "INSERT INTO roles (name, permissions, created_at, updated_at)"
            " VALUES (%(name)s, %(permissions)s, now(), now())",
            {"name": name, "permissions": list(permissions)},
        )
        connection.add(
            "INSERT INTO account_roles VALUES (%(id)s, %(name)s, now())", {"id": account_id, "name": name}
        )


def test_every_administrative_operation_asks_for_a_permission() -> None:
    assert set(PERMISSIONS) == {name for name in OPERATIONS if administrative(name.split(" ")[1])}
    assert set(PERMISSIONS) <= set(SECURED)
    assert set(PERMISSIONS.values()) == set(ALL_PERMISSIONS)


@pytest.fixture
def query(client: TestClient) -> Query:
    resources: Resources = client.app.state.resources  # type: ignore[attr-defined]

    def run(sql: str) -> list[Row]:
        with resources.database.one_trip() as connection:
            return connection.fetch_all(sql)

    return run


class TestRolesAndEndpoints:
    """ASVS 8.2.1, 8.3.1: who holds one permission may do what it is for, and nothing else."""

    def check(self, client: TestClient, headers: dict[str, str], allowed: set[str]) -> None:
        let_in = {}
        for operation in PERMISSIONS:
            answer = call(client, operation, headers)
            if answer.status_code == 403:
                assert answer.json()["code"] == "forbidden", operation
            else:
                assert answer.status_code in {200, 201, 202, 204, 404, 409}, (operation, answer.text)
                let_in[operation] = answer.status_code
        assert set(let_in) == allowed

    @pytest.mark.parametrize("permission", ALL_PERMISSIONS)
    def test_one_permission(self, client: TestClient, permission: str) -> None:
        grant(client, create(client), permission)
        allowed = {operation for operation, needed in PERMISSIONS.items() if needed == permission}
        self.check(client, bearer(log_in(client)), allowed)

    def test_no_role(self, client: TestClient) -> None:
        create(client)
        self.check(client, bearer(log_in(client)), set())

    def test_permissions_of_somebody_elses_program(self, client: TestClient) -> None:
        grant(client, create(client), "orders:refund", "users", "users:*", "admin")
        self.check(client, bearer(log_in(client)), set())

    def test_the_administrator(self, client: TestClient) -> None:
        """`*` is everything but acting as somebody else."""
        create(client, "admin")
        allowed = {operation for operation, needed in PERMISSIONS.items() if needed != "users:impersonate"}
        self.check(client, bearer(log_in(client)), allowed)

    def test_a_role_that_was_taken_away(self, client: TestClient, query: Query) -> None:
        """ASVS 8.3.2: the token still says it."""
        create(client, "admin")
        headers = bearer(log_in(client))
        assert call(client, "GET /admin/users", headers).status_code == 200
        query("DELETE FROM account_roles RETURNING 1")
        self.check(client, headers, set())


class TestWithoutASession:
    @pytest.mark.parametrize("operation", [name for name in SECURED if name not in OPTIONAL])
    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer e30.e30.e30"}], ids=["none", "forged"])
    def test_nobody_is_let_in(self, client: TestClient, operation: str, headers: dict[str, str]) -> None:
        answer = call(client, operation, headers)
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"].startswith("Bearer")

    def test_an_ended_session(self, client: TestClient) -> None:
        create(client, "admin")
        headers = bearer(log_in(client))
        assert client.post("/auth/logout", headers=headers).status_code == 204
        for operation in PERMISSIONS:
            assert call(client, operation, headers).status_code == 401, operation

    def test_a_disabled_administrator(self, client: TestClient, query: Query) -> None:
        create(client, "admin")
        headers = bearer(log_in(client))
        query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        for operation in PERMISSIONS:
            assert call(client, operation, headers).status_code == 401, operation


class TestSomebodyElsesIds:
    """ASVS 8.2.2: what is another person's looks like what is not there."""

    def test_every_id_in_a_path_is_here(self) -> None:
        assert sorted({path for path in SCHEMA["paths"] if "{" in path and not administrative(path)}) == OWNED

    @pytest.mark.parametrize("operation", [name for name in OPERATIONS if name.split(" ")[1] in OWNED])
    def test_it_is_not_found(self, client: TestClient, operation: str) -> None:
        owner = Visitor(client, email="owner@example.com")
        passkey = owner.add_passkey()["passkey"]["id"]
        app = enrol(client, owner.headers)
        token = log_in(client, "owner@example.com").json()["mfa_token"]
        body = {"mfa_token": token, "totp": next_code(app), "trust_device": True}
        assert client.post("/auth/login/mfa", json=body).status_code == 200
        devices = client.get("/auth/mfa/devices", headers=owner.headers).json()["items"]
        sessions = client.get("/auth/sessions", headers=owner.headers).json()["items"]
        theirs = {
            "/auth/mfa/devices/{device_id}": devices[0]["id"],
            "/auth/passkeys/{passkey_id}": passkey,
            "/auth/sessions/{session_id}": next(one["id"] for one in sessions if not one["current"]),
        }[operation.split(" ")[1]]

        stranger = Visitor(client, email="stranger@example.com").headers
        answers = [call(client, operation, stranger, ids) for ids in (theirs, None)]
        assert [answer.status_code for answer in answers] == [404, 404]
        found, unknown = ({**answer.json(), "request_id": ""} for answer in answers)
        assert found == unknown
        assert call(client, operation, owner.headers, theirs).status_code in {200, 204}

    def test_a_session_of_another_account_than_the_path_says(self, client: TestClient) -> None:
        create(client, "admin")
        headers = bearer(log_in(client))
        one, other = Visitor(client, email="one@example.com"), Visitor(client, email="other@example.com")
        [session] = client.get("/auth/sessions", headers=other.headers).json()["items"]
        wrong = f"/admin/users/{one.account_id}/sessions/{session['id']}"
        assert client.delete(wrong, headers=headers).status_code == 404
        assert client.get("/auth/me", headers=other.headers).status_code == 200
        right = f"/admin/users/{other.account_id}/sessions/{session['id']}"
        assert client.delete(right, headers=headers).status_code == 204
        assert client.get("/auth/me", headers=other.headers).status_code == 401

"""/admin/roles and PUT /admin/users/{id}/roles over HTTP."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.mfa.test_routes import bearer, create, log_in

ADMINISTRATOR = "admin@example.com"
CLERK = "clerk@example.com"

Headers = dict[str, str]


@pytest.fixture
def admin(client: TestClient) -> Headers:
    """An administrator's headers."""
    create(client, "admin", email=ADMINISTRATOR)
    return bearer(log_in(client, ADMINISTRATOR))


def make(client: TestClient, admin: Headers, name: str, **fields: Any) -> Any:
    answer = client.post("/admin/roles", headers=admin, json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    return answer


def clerk_with(client: TestClient, admin: Headers, *permissions: str) -> tuple[str, Headers]:
    """Somebody with one role of these permissions: their id and headers."""
    make(client, admin, "clerk", permissions=list(permissions))
    clerk = create(client, email=CLERK)
    assert put(client, admin, clerk, "clerk").status_code == 200
    return clerk, bearer(log_in(client, CLERK))


def put(client: TestClient, headers: Headers, account: str, *roles: str) -> Any:
    return client.put(f"/admin/users/{account}/roles", headers=headers, json={"roles": list(roles)})


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def pointers(answer: Any) -> list[str]:
    assert answer.status_code == 422
    return [error["pointer"] for error in answer.json()["errors"]]


class TestCreate:
    def test_a_role(self, client: TestClient, admin: Headers) -> None:
        body = {
            "name": "support",
            "description": "Answers questions.",
            "permissions": ["users:read", "orders:refund", "users:read"],
            "claims": {"https://shop.example/level": 3},
            "is_default": False,
        }
        answer = client.post("/admin/roles", headers=admin, json=body)
        assert answer.status_code == 201
        role = answer.json()
        assert role | body == role | {"permissions": body["permissions"]}
        assert role["permissions"] == ["orders:refund", "users:read"]
        assert role["is_built_in"] is False
        assert role["created_at"] == role["updated_at"]
        read = client.get("/admin/roles/support", headers=admin)
        assert (read.json(), read.headers["etag"]) == (role, answer.headers["etag"])

    def test_a_name_that_is_taken(self, client: TestClient, admin: Headers) -> None:
        make(client, admin, "support")
        for name in ("support", "admin"):
            answer = client.post("/admin/roles", headers=admin, json={"name": name})
            assert code_of(answer) == (409, "role_taken")

    def test_once_for_each_idempotency_key(self, client: TestClient, admin: Headers) -> None:
        headers = {**admin, "Idempotency-Key": "once-0123456789abcdef"}
        first, second = (
            client.post("/admin/roles", headers=headers, json={"name": "support"}) for _ in range(2)
        )
        assert (first.status_code, second.status_code) == (201, 201)
        assert (first.content, first.headers["etag"]) == (second.content, second.headers["etag"])

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"name": "Support"}, "/name"),
            ({"name": ""}, "/name"),
            ({"name": "a" * 65}, "/name"),
            ({"name": "a\n"}, "/name"),
            ({"permissions": ["users:raed"]}, "/permissions"),
            ({"permissions": ["users"]}, "/permissions"),
            ({"permissions": ["orders:*"]}, "/permissions"),
            ({"permissions": ["orders:refund\n"]}, "/permissions"),
            ({"permissions": [f"orders:{number}" for number in range(101)]}, "/permissions"),
            ({"permissions": ["users:read"], "is_default": True}, "/is_default"),
            ({"permissions": ["*"], "is_default": True}, "/is_default"),
            ({"claims": {"sub": "somebody"}}, "/claims"),
            ({"claims": {"act": {"sub": "x"}}}, "/claims"),
            ({"claims": {"permissions": ["*"]}}, "/claims"),
            ({"claims": {"email_verified": True}}, "/claims"),
            ({"claims": {"": 1}}, "/claims"),
            ({"claims": {"plan": "x" * 1024}}, "/claims"),
        ],
    )
    def test_what_breaks_a_rule(
        self, client: TestClient, admin: Headers, fields: dict[str, Any], pointer: str
    ) -> None:
        answer = client.post("/admin/roles", headers=admin, json={"name": "support", **fields})
        assert {one.split("/")[1] for one in pointers(answer)} == {pointer[1:]}

    def test_nobody_gives_what_they_lack(self, client: TestClient, admin: Headers) -> None:
        _, clerk = clerk_with(client, admin, "roles:write", "orders:refund")
        for permission in ("users:read", "*", "users:impersonate", "orders:cancel"):
            answer = client.post(
                "/admin/roles", headers=clerk, json={"name": "x", "permissions": [permission]}
            )
            assert code_of(answer) == (403, "forbidden")
        make(client, clerk, "refunds", permissions=["orders:refund"])

    def test_even_an_administrator_gives_no_impersonation(self, client: TestClient, admin: Headers) -> None:
        """`*` does not cover it: only an operator on the command line gives it first."""
        body = {"name": "spy", "permissions": ["users:impersonate"]}
        assert code_of(client.post("/admin/roles", headers=admin, json=body)) == (403, "forbidden")

    def test_who_may_not_write_roles(self, client: TestClient, admin: Headers) -> None:
        _, clerk = clerk_with(client, admin, "roles:read", "users:write")
        assert code_of(client.post("/admin/roles", headers=clerk, json={"name": "x"})) == (403, "forbidden")
        assert client.post("/admin/roles", json={"name": "x"}).status_code == 401


class TestList:
    def test_pages_by_name(self, client: TestClient, admin: Headers) -> None:
        for name in ("b", "a.z", "a-z", "zoo"):
            make(client, admin, name)
        names: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            query = f"?limit=2&cursor={cursor}" if cursor else "?limit=2"
            page = client.get(f"/admin/roles{query}", headers=admin).json()
            names += [role["name"] for role in page["items"]]
            cursor = page["next_cursor"]
        assert names == ["a-z", "a.z", "admin", "b", "zoo"]

    def test_a_foreign_cursor(self, client: TestClient, admin: Headers) -> None:
        assert pointers(client.get("/admin/roles?cursor=AAAA", headers=admin)) == ["?cursor"]

    def test_who_may_not_read_roles(self, client: TestClient, admin: Headers) -> None:
        _, clerk = clerk_with(client, admin, "users:read")
        for path in ("/admin/roles", "/admin/roles/admin"):
            assert code_of(client.get(path, headers=clerk)) == (403, "forbidden")


class TestRead:
    def test_the_built_in_role(self, client: TestClient, admin: Headers) -> None:
        role = client.get("/admin/roles/admin", headers=admin).json()
        assert (role["permissions"], role["is_built_in"], role["is_default"]) == (["*"], True, False)

    @pytest.mark.parametrize("name", ["nonesuch", "%00"])
    def test_of_no_role(self, client: TestClient, admin: Headers, name: str) -> None:
        assert code_of(client.get(f"/admin/roles/{name}", headers=admin)) == (404, "not_found")


class TestChange:
    def test_what_is_present_changes(self, client: TestClient, admin: Headers) -> None:
        made = make(client, admin, "support", description="x", permissions=["orders:refund"])
        answer = client.patch("/admin/roles/support", headers=admin, json={"claims": {"plan": "gold"}})
        assert answer.status_code == 200
        changed = answer.json()
        assert changed == made.json() | {"claims": {"plan": "gold"}, "updated_at": changed["updated_at"]}
        assert answer.headers["etag"] != made.headers["etag"]
        assert client.get("/admin/roles/support", headers=admin).headers["etag"] == answer.headers["etag"]

    def test_only_what_was_read(self, client: TestClient, admin: Headers) -> None:
        old = make(client, admin, "support").headers["etag"]
        headers = {**admin, "If-Match": old}
        answer = client.patch("/admin/roles/support", headers=headers, json={"description": "first"})
        assert answer.status_code == 200
        again = client.patch("/admin/roles/support", headers=headers, json={"description": "second"})
        assert code_of(again) == (412, "precondition_failed")
        assert code_of(client.delete("/admin/roles/support", headers=headers)) == (412, "precondition_failed")
        assert client.get("/admin/roles/support", headers=admin).json()["description"] == "first"
        new = {**admin, "If-Match": answer.headers["etag"]}
        assert client.delete("/admin/roles/support", headers=new).status_code == 204

    @pytest.mark.parametrize("field", ["description", "permissions", "claims", "is_default"])
    def test_null_is_no_value(self, client: TestClient, admin: Headers, field: str) -> None:
        make(client, admin, "support")
        answer = client.patch("/admin/roles/support", headers=admin, json={field: None})
        assert answer.status_code == 422

    def test_the_built_in_role_stays(self, client: TestClient, admin: Headers) -> None:
        answer = client.patch("/admin/roles/admin", headers=admin, json={"permissions": []})
        assert code_of(answer) == (409, "role_built_in")
        assert code_of(client.delete("/admin/roles/admin", headers=admin)) == (409, "role_built_in")

    def test_nobody_touches_what_gives_more_than_they_have(self, client: TestClient, admin: Headers) -> None:
        make(client, admin, "auditor", permissions=["audit:read"])
        _, clerk = clerk_with(client, admin, "roles:write", "roles:read")
        bodies: list[dict[str, Any]] = [
            {"description": "x"},
            {"permissions": []},
            {"claims": {"plan": "gold"}},
        ]
        for body in bodies:
            answer = client.patch("/admin/roles/auditor", headers=clerk, json=body)
            assert code_of(answer) == (403, "forbidden")
        assert code_of(client.delete("/admin/roles/auditor", headers=clerk)) == (403, "forbidden")
        own = client.patch("/admin/roles/clerk", headers=clerk, json={"permissions": ["*"]})
        assert code_of(own) == (403, "forbidden")

    def test_of_no_role(self, client: TestClient, admin: Headers) -> None:
        for answer in (
            client.patch("/admin/roles/nonesuch", headers=admin, json={"description": "x"}),
            client.delete("/admin/roles/nonesuch", headers=admin),
            client.delete("/admin/roles/%00", headers=admin),
        ):
            assert code_of(answer) == (404, "not_found")


class TestDelete:
    def test_its_holders_lose_it_at_once(self, client: TestClient, admin: Headers) -> None:
        """ASVS 8.3.2: their tokens still say it."""
        _, clerk = clerk_with(client, admin, "roles:read")
        assert client.get("/admin/roles", headers=clerk).status_code == 200
        assert client.delete("/admin/roles/clerk", headers=admin).status_code == 204
        assert code_of(client.get("/admin/roles", headers=clerk)) == (403, "forbidden")
        assert client.get("/auth/me", headers=clerk).json()["roles"] == []

    def test_the_trail_says_how_many(self, client: TestClient, admin: Headers) -> None:
        clerk_with(client, admin, "roles:read")
        client.delete("/admin/roles/clerk", headers=admin)
        with client.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
            [event] = connection.fetch_all(
                "SELECT account_id, actor_id, details FROM audit_events WHERE event = 'role_deleted'"
            )
        administrator = client.get("/auth/me", headers=admin).json()["id"]
        assert (event["account_id"], str(event["actor_id"])) == (None, administrator)
        assert event["details"] == {
            "role": "clerk",
            "permissions": ["roles:read"],
            "is_default": False,
            "holders": 1,
        }


class TestSetRoles:
    def test_the_whole_set(self, client: TestClient, admin: Headers) -> None:
        for name in ("a", "b", "c"):
            make(client, admin, name)
        somebody = create(client)
        assert put(client, admin, somebody, "b", "a", "a").json() == {"roles": ["a", "b"]}
        assert put(client, admin, somebody, "c", "b").json() == {"roles": ["b", "c"]}
        assert client.get("/auth/me", headers=bearer(log_in(client))).json()["roles"] == ["b", "c"]
        assert put(client, admin, somebody).json() == {"roles": []}

    def test_the_trail_says_what_changed(self, client: TestClient, admin: Headers) -> None:
        make(client, admin, "a")
        make(client, admin, "b")
        somebody = create(client)
        for roles in (["a"], ["a"], ["b"]):
            put(client, admin, somebody, *roles)
        with client.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
            events = connection.fetch_all(
                "SELECT account_id, actor_id, details FROM audit_events"
                " WHERE event = 'roles_changed' ORDER BY id"
            )
        assert {str(event["account_id"]) for event in events} == {somebody}
        assert None not in {event["actor_id"] for event in events}
        assert [event["details"] for event in events] == [
            {"added": ["a"], "removed": []},
            {"added": ["b"], "removed": ["a"]},
        ]

    def test_of_nobody(self, client: TestClient, admin: Headers) -> None:
        answer = put(client, admin, "0191d6a0-0000-7000-8000-000000000000", "admin")
        assert code_of(answer) == (404, "not_found")

    def test_a_role_that_nobody_made(self, client: TestClient, admin: Headers) -> None:
        somebody = create(client)
        for role in ("nonesuch", "NoSuch", ""):
            assert pointers(put(client, admin, somebody, "admin", role)) == ["/roles"]
        assert client.get("/auth/me", headers=bearer(log_in(client))).json()["roles"] == []

    def test_nobody_gives_or_takes_what_they_lack(self, client: TestClient, admin: Headers) -> None:
        make(client, admin, "auditor", permissions=["audit:read"])
        make(client, admin, "member")
        clerk_id, clerk = clerk_with(client, admin, "users:write")
        somebody = create(client)
        for role in ("auditor", "admin"):
            assert code_of(put(client, clerk, somebody, role)) == (403, "forbidden")
            assert code_of(put(client, clerk, clerk_id, "clerk", role)) == (403, "forbidden")
        assert put(client, clerk, somebody, "member", "clerk").status_code == 200
        assert put(client, admin, somebody, "auditor").status_code == 200
        assert code_of(put(client, clerk, somebody)) == (403, "forbidden")

    def test_the_last_administrator_stays(self, client: TestClient, admin: Headers) -> None:
        own = client.get("/auth/me", headers=admin).json()["id"]
        assert code_of(put(client, admin, own)) == (409, "last_administrator")
        second = create(client, email="second@example.com")
        assert put(client, admin, second, "admin").status_code == 200
        assert put(client, admin, own).json() == {"roles": []}
        assert code_of(put(client, admin, own, "admin")) == (403, "forbidden")

    def test_nor_does_the_last_delete_their_account(self, client: TestClient, admin: Headers) -> None:
        assert code_of(client.delete("/auth/me", headers=admin)) == (409, "last_administrator")
        create(client, "admin", email="second@example.com")
        assert client.delete("/auth/me", headers=admin).status_code in {202, 204}

    def test_who_may_not_write_users(self, client: TestClient, admin: Headers) -> None:
        clerk_id, clerk = clerk_with(client, admin, "users:read", "roles:write")
        assert code_of(put(client, clerk, clerk_id)) == (403, "forbidden")


class TestDefaultRoles:
    def test_a_new_account_has_them(self, client: TestClient, admin: Headers) -> None:
        make(client, admin, "member", is_default=True, permissions=["orders:read"])
        make(client, admin, "guest", is_default=True)
        body = {"email": "new@example.com", "password": "SecurePass123!"}
        registered = client.post("/auth/register", json=body)
        assert (registered.status_code, registered.json()["roles"]) == (201, ["guest", "member"])
        headers = bearer(
            client.post("/auth/login", json={"identifier": body["email"], "password": body["password"]})
        )
        assert client.get("/auth/me", headers=headers).json()["roles"] == ["guest", "member"]

    def test_who_was_there_before_has_not(self, client: TestClient, admin: Headers) -> None:
        create(client)
        make(client, admin, "member", is_default=True)
        assert client.get("/auth/me", headers=bearer(log_in(client))).json()["roles"] == []

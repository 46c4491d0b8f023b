"""Finding, creating, changing and erasing accounts over HTTP, and who may not."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.impersonation.test_routes import NOBODY, query
from tests.mfa.test_routes import EMAIL, PASSWORD, bearer, create, enrol, log_in

from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

ADMIN = "admin@example.com"
HELPER = "helper@example.com"


@pytest.fixture
def admin(client: TestClient) -> dict[str, str]:
    create(client, "admin", email=ADMIN)
    return bearer(log_in(client, ADMIN))


def make_helper(client: TestClient, permissions: str = "users:read,users:write,users:delete") -> str:
    """Somebody who may administer users, and nothing else; returns the id."""
    query(
        client,
        "INSERT INTO roles (name, permissions, created_at, updated_at)"
        f" VALUES ('helper', '{{{permissions}}}', now(), now()) RETURNING 1",
    )
    return create(client, "helper", email=HELPER)


@pytest.fixture
def helper(client: TestClient) -> dict[str, str]:
    make_helper(client)
    return bearer(log_in(client, HELPER))


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def mails(client: TestClient) -> list[tuple[str, str]]:
    return [
        (row["kind"], row["recipient"])
        for row in query(client, "SELECT kind, recipient FROM outbox WHERE kind <> 'nothing' ORDER BY id")
    ]


class TestList:
    def emails(self, client: TestClient, headers: dict[str, str], **wanted: Any) -> list[str]:
        answer = client.get("/admin/users", headers=headers, params=wanted)
        assert answer.status_code == 200, answer.text
        return [item["email"] for item in answer.json()["items"]]

    def test_newest_first_by_pages(self, client: TestClient, admin: dict[str, str]) -> None:
        people = [f"person{number}@example.com" for number in range(4)]
        for email in people:
            create(client, email=email)
        seen: list[str] = []
        cursor = None
        while True:
            page = client.get("/admin/users", headers=admin, params={"limit": 2, "cursor": cursor}).json()
            assert len(page["items"]) <= 2
            seen += [item["email"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == [*reversed(people), ADMIN]

    def test_what_is_shown(self, client: TestClient, admin: dict[str, str]) -> None:
        create(client)
        enrol(client, bearer(log_in(client)))
        [shown] = client.get("/admin/users", headers=admin, params={"email": EMAIL}).json()["items"]
        assert set(shown) == {
            *("id", "email", "email_verified_at", "username", "display_name", "locale", "attributes"),
            *("roles", "factors", "disabled_at", "erase_after", "created_at", "updated_at"),
        }
        assert shown["factors"] == ["totp", "recovery_code"]
        assert shown["disabled_at"] is None

    def test_by_conditions(self, client: TestClient, admin: dict[str, str]) -> None:
        ids = {email: create(client, email=f"{email}@example.com") for email in ("ada", "adam", "bob", "a_m")}
        query(client, f"UPDATE accounts SET disabled_at = now() WHERE id = '{ids['bob']}' RETURNING 1")
        query(client, f"UPDATE accounts SET email_verified_at = NULL WHERE id = '{ids['adam']}' RETURNING 1")
        query(
            client,
            "UPDATE accounts SET username = 'Zo\u00eb', username_normalized = 'zo\u00eb'"
            f" WHERE id = '{ids['bob']}' RETURNING 1",
        )
        query(
            client,
            "INSERT INTO rate_limits (key, count, updated_at)"
            f" VALUES ('login:account:{ids['ada']}', 100, now()), ('login:account:{ids['bob']}', 99, now()),"
            f" ('login:unknown:x', 100, now()), ('factor:account:{ids['adam']}', 100, now()) RETURNING 1",
        )
        by = {
            ("email", "ADA@Example.COM"): ["ada@example.com"],
            ("email", "nobody@example.com"): [],
            ("prefix", "ada"): ["adam@example.com", "ada@example.com"],
            ("prefix", "ADAM@"): ["adam@example.com"],
            ("prefix", "a_m"): ["a_m@example.com"],
            ("prefix", "%"): [],
            ("prefix", "zo\u00cb"): ["bob@example.com"],
            ("prefix", "\\"): [],
            ("role", "admin"): [ADMIN],
            ("role", "none"): [],
            ("status", "disabled"): ["bob@example.com"],
            ("status", "unverified"): ["adam@example.com"],
            ("status", "locked"): ["adam@example.com", "ada@example.com"],
        }
        for (name, value), found in by.items():
            assert self.emails(client, admin, **{name: value}) == found, (name, value)
        assert len(self.emails(client, admin, status="active")) == 4
        assert self.emails(client, admin, status="active", prefix="b") == []

    @pytest.mark.parametrize(
        "wanted",
        [
            {"email": "no address"},
            {"prefix": ""},
            {"prefix": "x" * 255},
            {"prefix": "\0"},
            {"role": "\0"},
            {"status": "asleep"},
            {"limit": 0},
            {"limit": 201},
            {"cursor": "x"},
        ],
        ids=str,
    )
    def test_what_can_be_no_condition(
        self, client: TestClient, admin: dict[str, str], wanted: dict[str, Any]
    ) -> None:
        answer = client.get("/admin/users", headers=admin, params=wanted)
        assert refused(answer) == (422, "invalid_fields")

    def test_a_cursor_belongs_to_its_conditions(self, client: TestClient, admin: dict[str, str]) -> None:
        create(client)
        cursor = client.get("/admin/users", headers=admin, params={"limit": 1}).json()["next_cursor"]
        answer = client.get("/admin/users", headers=admin, params={"cursor": cursor, "role": "admin"})
        assert refused(answer) == (422, "invalid_fields")

    def test_looking_up_many_uses_the_indexes(self, client: TestClient, admin: dict[str, str]) -> None:
        """An address, a prefix and a role are found without reading every account."""
        resources: Resources = client.app.state.resources  # type: ignore[attr-defined]
        with resources.database.transaction() as connection:
            connection.add(
                "INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at,"
                " created_at, updated_at) SELECT gen_random_uuid(), n || '@example.com', n || '@example.com',"
                " '!', now(), now(), now() FROM generate_series(1, 5000) AS n"
            )
            connection.add("ANALYZE accounts")
            plan = connection.fetch_all(
                "EXPLAIN SELECT id FROM accounts"
                " WHERE email_normalized LIKE '4711%' OR username_normalized LIKE '4711%'"
            )
        text = " ".join(row["QUERY PLAN"] for row in plan)
        assert "accounts_by_email_prefix" in text
        assert "accounts_by_username_prefix" in text
        assert self.emails(client, admin, prefix="4711") == ["4711@example.com"]


class TestCreate:
    def test_the_owner_sets_the_password_by_mail(self, client: TestClient, admin: dict[str, str]) -> None:
        body = {
            "email": "New@example.com",
            "username": "newcomer",
            "display_name": "New",
            "locale": "fr",
            "attributes": {"team": 7},
            "roles": ["admin"],
        }
        answer = client.post("/admin/users", headers=admin, json=body)
        assert answer.status_code == 201
        created = answer.json()
        assert {name: created[name] for name in body} == body
        assert created["email_verified_at"] is None
        assert log_in(client, "New@example.com").status_code == 401
        assert mails(client)[-1] == ("reset_password", "New@example.com")
        [secret] = query(client, "SELECT id FROM one_time_secrets WHERE purpose = 'reset_password'")
        resources: Resources = client.app.state.resources  # type: ignore[attr-defined]
        token = resources.one_time_secrets.token(Purpose.RESET_PASSWORD, secret["id"])
        done = client.post("/auth/password/reset", json={"token": token, "password": PASSWORD})
        assert done.status_code == 204
        assert log_in(client, "New@example.com").json()["user"]["email_verified"] is True
        [event] = query(
            client, "SELECT account_id, actor_id, details FROM audit_events WHERE event = 'account_created'"
                    " AND actor_id IS NOT NULL")  # fmt: skip
        assert str(event["account_id"]) == created["id"]
        assert event["details"] == {"roles": ["admin"]}

    def test_default_roles_too(self, client: TestClient, admin: dict[str, str]) -> None:
        query(
            client,
            "INSERT INTO roles (name, is_default, created_at, updated_at)"
            " VALUES ('member', true, now(), now()) RETURNING 1",
        )
        answer = client.post("/admin/users", headers=admin, json={"email": EMAIL, "email_verified": True})
        assert answer.json()["roles"] == ["member"]
        assert answer.json()["email_verified_at"] is not None

    def test_nobody_gives_what_they_lack(self, client: TestClient, helper: dict[str, str]) -> None:
        answer = client.post("/admin/users", headers=helper, json={"email": EMAIL, "roles": ["admin"]})
        assert refused(answer) == (403, "forbidden")
        assert query(client, f"SELECT id FROM accounts WHERE email = '{EMAIL}'") == []
        granted = client.post("/admin/users", headers=helper, json={"email": EMAIL, "roles": ["helper"]})
        assert granted.json()["roles"] == ["helper"]

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            ({"email": EMAIL}, 409, "email_taken"),
            ({"email": "x@example.com", "username": "taken"}, 409, "username_taken"),
            ({"email": "no address"}, 422, "invalid_fields"),
            ({"email": "x@example.com", "username": "x"}, 422, "invalid_fields"),
            ({"email": "x@example.com", "roles": ["nonesuch"]}, 422, "invalid_fields"),
            ({"email": "x@example.com", "attributes": {"a": "x" * 5000}}, 422, "invalid_fields"),
            ({"email": "x@example.com", "password": "SecurePass123!"}, 422, "invalid_fields"),
            ({}, 422, "invalid_fields"),
        ],
        ids=["taken", "username", "address", "short", "role", "attributes", "password", "nothing"],
    )
    def test_what_is_refused(
        self, client: TestClient, admin: dict[str, str], body: dict[str, Any], status: int, code: str
    ) -> None:
        person = create(client)
        query(
            client,
            "UPDATE accounts SET username = 'taken', username_normalized = 'taken'"
            f" WHERE id = '{person}' RETURNING 1",
        )
        before = mails(client)
        assert refused(client.post("/admin/users", headers=admin, json=body)) == (status, code)
        assert mails(client) == before

    def test_a_retry_creates_nobody_else(self, client: TestClient, admin: dict[str, str]) -> None:
        headers = admin | {"Idempotency-Key": "once"}
        answers = [client.post("/admin/users", headers=headers, json={"email": EMAIL}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content


class TestRead:
    def test_a_strong_tag_that_changes_with_what_is_shown(
        self, client: TestClient, admin: dict[str, str]
    ) -> None:
        person = create(client)

        def tag() -> str:
            return str(client.get(f"/admin/users/{person}", headers=admin).headers["etag"])

        first = tag()
        assert first.startswith('"')
        assert tag() == first
        changes = [
            f"INSERT INTO account_roles VALUES ('{person}', 'admin', now())",
            f"UPDATE accounts SET locale = 'fr' WHERE id = '{person}'",
            f"UPDATE accounts SET attributes = '{{\"a\": 1}}' WHERE id = '{person}'",
            f"UPDATE accounts SET disabled_at = now() WHERE id = '{person}'",
            f"UPDATE accounts SET erase_after = now() WHERE id = '{person}'",
        ]
        tags = {first}
        for number, sql in enumerate(changes, start=2):
            query(client, f"{sql} RETURNING 1")
            tags.add(tag())
            assert len(tags) == number, sql

    def test_nobody(self, client: TestClient, admin: dict[str, str]) -> None:
        assert refused(client.get(f"/admin/users/{NOBODY}", headers=admin)) == (404, "not_found")


class TestChange:
    def change(self, client: TestClient, headers: dict[str, str], person: str, **fields: Any) -> Any:
        return client.patch(f"/admin/users/{person}", headers=headers, json=fields)

    def test_what_is_named_changes_and_the_rest_stays(
        self, client: TestClient, admin: dict[str, str]
    ) -> None:
        person = create(client)
        first = self.change(
            client, admin, person, username="Renamed", display_name="R", locale="fr", attributes={"a": 1}
        )
        assert first.status_code == 200
        second = self.change(client, admin, person, display_name=None)
        shown = second.json()
        assert (shown["username"], shown["display_name"], shown["locale"]) == ("Renamed", None, "fr")
        assert (shown["attributes"], shown["email"]) == ({"a": 1}, EMAIL)
        assert shown["email_verified_at"] is not None
        assert second.headers["etag"] == client.get(f"/admin/users/{person}", headers=admin).headers["etag"]
        events = query(client, "SELECT actor_id, details FROM audit_events WHERE event = 'account_changed'")
        assert [event["details"] for event in events][1] == {"fields": ["display_name"]}

    def test_another_address_is_unproven_and_the_old_one_is_told(
        self, client: TestClient, admin: dict[str, str]
    ) -> None:
        person = create(client)
        client.post("/auth/password/forgot", json={"email": EMAIL})
        client.post("/auth/email-login", json={"email": EMAIL})
        old = query(client, "SELECT id, purpose FROM one_time_secrets")
        answer = self.change(client, admin, person, email="new@example.com")
        assert (answer.json()["email"], answer.json()["email_verified_at"]) == ("new@example.com", None)
        assert mails(client)[-2:] == [("email_changed", EMAIL), ("verify_email", "new@example.com")]
        resources: Resources = client.app.state.resources  # type: ignore[attr-defined]
        token = resources.one_time_secrets.token
        for secret in old:
            purpose = Purpose(secret["purpose"])
            path, more = {
                Purpose.RESET_PASSWORD: ("/auth/password/reset", {"password": PASSWORD}),
                Purpose.EMAIL_LOGIN: ("/auth/email-login/verify", {}),
            }[purpose]
            answer = client.post(path, json={"token": token(purpose, secret["id"]), **more})
            assert refused(answer) == (400, "invalid_one_time_secret")
        [proof] = query(
            client,
            "SELECT id FROM one_time_secrets WHERE purpose = 'verify_email' AND expires_at > now()",
        )
        proven = client.post("/auth/verify-email", json={"token": token(Purpose.VERIFY_EMAIL, proof["id"])})
        assert (proven.json()["email"], proven.json()["email_verified"]) == ("new@example.com", True)
        assert log_in(client, EMAIL).status_code == 401
        assert log_in(client, "new@example.com").status_code == 200

    def test_an_address_that_the_administrator_vouches_for(
        self, client: TestClient, admin: dict[str, str]
    ) -> None:
        person = create(client)
        answer = self.change(client, admin, person, email="new@example.com", email_verified=True)
        assert answer.json()["email_verified_at"] is not None
        assert mails(client)[-1] == ("email_changed", EMAIL)

    def test_the_same_address_in_other_letters_stays_proven(
        self, client: TestClient, admin: dict[str, str]
    ) -> None:
        person = create(client)
        before = mails(client)
        answer = self.change(client, admin, person, email=EMAIL.capitalize())
        assert answer.json()["email"] == EMAIL.capitalize()
        assert answer.json()["email_verified_at"] is not None
        assert mails(client) == before

    @pytest.mark.parametrize("verified", [True, False])
    def test_whether_it_is_proven(self, client: TestClient, admin: dict[str, str], *, verified: bool) -> None:
        person = create(client)
        query(client, "UPDATE accounts SET email_verified_at = NULL RETURNING 1")
        shown = self.change(client, admin, person, email_verified=verified).json()
        assert (shown["email_verified_at"] is not None) == verified

    @pytest.mark.parametrize(
        ("fields", "status", "code"),
        [
            ({"email": ADMIN}, 409, "email_taken"),
            ({"username": "taken"}, 409, "username_taken"),
            ({"email": "no address"}, 422, "invalid_fields"),
            ({"email": None}, 422, "invalid_fields"),
            ({"email_verified": None}, 422, "invalid_fields"),
            ({"attributes": {"a": "x" * 5000}}, 422, "invalid_fields"),
            ({"password": "SecurePass123!"}, 422, "invalid_fields"),
            ({"roles": ["admin"]}, 422, "invalid_fields"),
            ({"disabled_at": None}, 422, "invalid_fields"),
        ],
        ids=str,
    )
    def test_what_is_refused(
        self, client: TestClient, admin: dict[str, str], fields: dict[str, Any], status: int, code: str
    ) -> None:
        query(
            client,
            "UPDATE accounts SET username = 'taken', username_normalized = 'taken' RETURNING 1",
        )
        person = create(client)
        before = client.get(f"/admin/users/{person}", headers=admin).headers["etag"]
        assert refused(self.change(client, admin, person, **fields)) == (status, code)
        assert client.get(f"/admin/users/{person}", headers=admin).headers["etag"] == before

    def test_nobody(self, client: TestClient, admin: dict[str, str]) -> None:
        assert refused(self.change(client, admin, NOBODY, locale="fr")) == (404, "not_found")


class TestIfMatch:
    """RFC 9110 section 13.1.1."""

    def change(self, client: TestClient, admin: dict[str, str], person: str, if_match: str) -> Any:
        headers = admin | {"If-Match": if_match}
        return client.patch(f"/admin/users/{person}", headers=headers, json={"display_name": "X"})

    @pytest.mark.parametrize("form", ["{}", '"other", {}', " {} ,", "*"])
    def test_what_was_read_may_be_changed(self, client: TestClient, admin: dict[str, str], form: str) -> None:
        person = create(client)
        tag = client.get(f"/admin/users/{person}", headers=admin).headers["etag"]
        changed = self.change(client, admin, person, form.format(tag))
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag

    @pytest.mark.parametrize("form", ['"other"', "W/{}", "unquoted", "", '"*"'])
    def test_anything_else_may_not(self, client: TestClient, admin: dict[str, str], form: str) -> None:
        person = create(client)
        tag = client.get(f"/admin/users/{person}", headers=admin).headers["etag"]
        answer = self.change(client, admin, person, form.format(tag))
        assert refused(answer) == (412, "precondition_failed")
        assert client.get(f"/admin/users/{person}", headers=admin).headers["etag"] == tag
        assert query(client, "SELECT id FROM audit_events WHERE event = 'account_changed'") == []

    def test_nobody_is_not_there_whatever_the_tag(self, client: TestClient, admin: dict[str, str]) -> None:
        assert refused(self.change(client, admin, NOBODY, '"other"')) == (404, "not_found")

    def test_roles_are_part_of_what_was_read(self, client: TestClient, admin: dict[str, str]) -> None:
        person = create(client)
        query(
            client,
            "INSERT INTO roles (name, created_at, updated_at)"
            " VALUES ('a', now(), now()), ('b', now(), now()) RETURNING 1",
        )
        tag = client.get(f"/admin/users/{person}", headers=admin).headers["etag"]

        def give(role: str, headers: dict[str, str]) -> Any:
            return client.put(f"/admin/users/{person}/roles", headers=headers, json={"roles": [role]})

        assert give("a", admin | {"If-Match": tag}).json() == {"roles": ["a"]}
        assert refused(give("b", admin | {"If-Match": tag})) == (412, "precondition_failed")
        assert client.get(f"/admin/users/{person}", headers=admin).json()["roles"] == ["a"]
        assert give("b", admin).json() == {"roles": ["b"]}

    @pytest.mark.parametrize("parallel", [2, 8])
    def test_of_parallel_changes_one_wins(
        self, client: TestClient, admin: dict[str, str], parallel: int
    ) -> None:
        person = create(client)
        tag = client.get(f"/admin/users/{person}", headers=admin).headers["etag"]

        def change(number: int) -> int:
            answer = client.patch(
                f"/admin/users/{person}",
                headers=admin | {"If-Match": tag},
                json={"display_name": f"Name {number}"},
            )
            return int(answer.status_code)

        for _ in range(3):
            with ThreadPoolExecutor(parallel) as pool:
                statuses = sorted(pool.map(change, range(parallel)))
            assert statuses == [200, *([412] * (parallel - 1))]
            tag = client.get(f"/admin/users/{person}", headers=admin).headers["etag"]


class TestDelete:
    def test_nothing_is_left_but_the_trail(self, client: TestClient, admin: dict[str, str]) -> None:
        person = create(client)
        own = bearer(log_in(client))
        assert client.delete(f"/admin/users/{person}", headers=admin).status_code == 204
        assert refused(client.get(f"/admin/users/{person}", headers=admin)) == (404, "not_found")
        assert refused(client.get("/auth/me", headers=own)) == (401, "session_ended")
        assert mails(client)[-1] == ("account_erased", EMAIL)
        [event] = query(
            client, "SELECT account_id, actor_id, address FROM audit_events WHERE event = 'account_deleted'"
        )
        [actor] = query(client, f"SELECT id FROM accounts WHERE email = '{ADMIN}'")
        assert (str(event["account_id"]), event["actor_id"], event["address"]) == (person, actor["id"], None)

    def test_twice(self, client: TestClient, admin: dict[str, str]) -> None:
        person = create(client)
        statuses = [client.delete(f"/admin/users/{person}", headers=admin).status_code for _ in range(2)]
        assert statuses == [204, 404]

    def test_not_oneself(self, client: TestClient, admin: dict[str, str]) -> None:
        [oneself] = query(client, "SELECT id FROM accounts")
        answer = client.delete(f"/admin/users/{oneself['id']}", headers=admin)
        assert refused(answer) == (403, "forbidden")


class TestNobodyAbove:
    """Who may write accounts could take an administrator's over by its address."""

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "", {"email": "mine@example.com", "email_verified": True}),
            ("PATCH", "", {"display_name": "X"}),
            ("DELETE", "", None),
            ("POST", "/disable", None),
            ("POST", "/enable", None),
            ("POST", "/unlock", None),
            ("POST", "/recovery", None),
            ("POST", "/logout", None),
            ("POST", "/mfa-reset", None),
            ("DELETE", f"/sessions/{NOBODY}", None),
        ],
    )
    def test_acts_on_who_may_more(
        self, client: TestClient, helper: dict[str, str], method: str, path: str, body: dict[str, Any] | None
    ) -> None:
        above = create(client, "admin", email=ADMIN)
        before = query(client, f"SELECT * FROM accounts WHERE id = '{above}'")
        answer = client.request(method, f"/admin/users/{above}{path}", headers=helper, json=body)
        assert refused(answer) == (403, "forbidden")
        assert query(client, f"SELECT * FROM accounts WHERE id = '{above}'") == before

    @pytest.mark.parametrize("permission", ["roles:write", "users:impersonate", "orders:refund"])
    def test_by_a_single_permission(
        self, client: TestClient, helper: dict[str, str], permission: str
    ) -> None:
        query(
            client,
            "INSERT INTO roles (name, permissions, created_at, updated_at)"
            f" VALUES ('other', '{{{permission}}}', now(), now()) RETURNING 1",
        )
        above = create(client, "helper", "other", email="above@example.com")
        answer = client.post(f"/admin/users/{above}/disable", headers=helper)
        assert refused(answer) == (403, "forbidden")

    def test_an_equal_may(self, client: TestClient, helper: dict[str, str]) -> None:
        equal = create(client, "helper", email="equal@example.com")
        assert client.post(f"/admin/users/{equal}/disable", headers=helper).status_code == 204

    def test_looking_is_no_act(self, client: TestClient, helper: dict[str, str]) -> None:
        above = create(client, "admin", email=ADMIN)
        assert client.get(f"/admin/users/{above}", headers=helper).status_code == 200
        assert client.get(f"/admin/users/{above}/sessions", headers=helper).status_code == 200


class TestPaths:
    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    def test_bulk_is_nobodys_id(self, client: TestClient, admin: dict[str, str], method: str) -> None:
        answer = client.request(method, "/admin/users/bulk", headers=admin, json={})
        assert refused(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"

    @pytest.mark.parametrize("path", ["me", "test@example.com", "0191d6a0", f"{NOBODY}/"])
    def test_what_can_be_no_id(self, client: TestClient, admin: dict[str, str], path: str) -> None:
        assert refused(client.get(f"/admin/users/{path}", headers=admin)) == (404, "not_found")

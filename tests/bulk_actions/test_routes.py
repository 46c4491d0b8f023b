"""One act on many accounts: counted first, then done to as many, or not at all."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from tests.directory.test_routes import ADMIN, HELPER, make_helper, refused
from tests.impersonation.test_routes import query
from tests.mfa.test_routes import bearer, create, enrol, log_in

from auth_manager.bulk_actions import service
from auth_manager.bulk_actions.service import MAXIMUM, MOST_MESSAGES

PATH = "/admin/users/bulk"


@pytest.fixture
def people(client: TestClient) -> list[str]:
    return [create(client, email=f"person{number}@example.com") for number in range(3)]


@pytest.fixture
def admin(client: TestClient) -> dict[str, str]:
    create(client, "admin", email=ADMIN)
    return bearer(log_in(client, ADMIN))


def send(client: TestClient, headers: dict[str, str], action: str, **body: Any) -> Response:
    wanted = body.pop("filter", {})
    answer: Response = client.post(PATH, headers=headers, json={"action": action, "filter": wanted, **body})
    return answer


def disabled(client: TestClient) -> list[str]:
    rows = query(client, "SELECT id FROM accounts WHERE disabled_at IS NOT NULL ORDER BY id")
    return [str(row["id"]) for row in rows]


class TestCountFirst:
    def test_it_changes_nothing(self, client: TestClient, admin: dict[str, str], people: list[str]) -> None:
        answer = send(client, admin, "disable")
        assert answer.json() == {"count": 3, "skipped": 1, "changed": 0, "done": False}
        assert disabled(client) == []
        assert query(client, "SELECT id FROM audit_events WHERE event = 'bulk_action'") == []
        assert len(people) == 3

    def test_by_conditions(self, client: TestClient, admin: dict[str, str], people: list[str]) -> None:
        counts = {
            "prefix": ("person", 3),
            "email": ("person1@example.com", 1),
            "ids": ([people[0], people[2]], 2),
            "status": ("disabled", 0),
            "role": ("admin", 0),
        }
        for name, (value, count) in counts.items():
            assert send(client, admin, "logout", filter={name: value}).json()["count"] == count, name
        both = {"prefix": "person1", "ids": people}
        assert send(client, admin, "logout", filter=both).json()["count"] == 1


class TestAct:
    def test_disabled_and_enabled(self, client: TestClient, admin: dict[str, str], people: list[str]) -> None:
        own = bearer(log_in(client, "person0@example.com"))
        done = send(client, admin, "disable", expected_count=3)
        assert done.json() == {"count": 3, "skipped": 1, "changed": 3, "done": True}
        assert disabled(client) == people
        assert refused(client.get("/auth/me", headers=own)) == (401, "session_ended")
        assert client.get("/admin/users", headers=admin).status_code == 200
        again = send(client, admin, "disable", expected_count=3)
        assert again.json() == {"count": 3, "skipped": 1, "changed": 0, "done": True}
        assert send(client, admin, "enable", expected_count=3).json()["changed"] == 3
        assert log_in(client, "person0@example.com").status_code == 200

    def test_logged_out(self, client: TestClient, admin: dict[str, str], people: list[str]) -> None:
        own = [bearer(log_in(client, f"person{number}@example.com")) for number in range(3)]
        wanted = {"ids": people[:2]}
        assert send(client, admin, "logout", filter=wanted, expected_count=2).json()["changed"] == 2
        assert [client.get("/auth/me", headers=one).status_code for one in own] == [401, 401, 200]

    def test_roles(self, client: TestClient, admin: dict[str, str], people: list[str]) -> None:
        query(
            client,
            "INSERT INTO roles (name, created_at, updated_at) VALUES ('member', now(), now()) RETURNING 1",
        )
        query(client, f"INSERT INTO account_roles VALUES ('{people[0]}', 'member', now()) RETURNING 1")
        given = send(client, admin, "assign_role", role="member", expected_count=3)
        assert given.json()["changed"] == 2
        assert len(query(client, "SELECT 1 FROM account_roles WHERE role = 'member'")) == 3
        taken = send(client, admin, "remove_role", role="member", filter={"role": "member"}, expected_count=3)
        assert taken.json()["changed"] == 3
        assert query(client, "SELECT 1 FROM account_roles WHERE role = 'member'") == []

    def test_who_has_fifty_roles_is_given_no_further_one(
        self, client: TestClient, admin: dict[str, str], people: list[str]
    ) -> None:
        query(
            client,
            "INSERT INTO roles (name, created_at, updated_at)"
            " SELECT 'r' || n, now(), now() FROM generate_series(0, 50) AS n RETURNING 1",
        )
        query(
            client,
            f"INSERT INTO account_roles SELECT '{people[0]}', name, now() FROM roles"
            " WHERE NOT is_built_in AND name <> 'r50' RETURNING 1",
        )
        answer = send(client, admin, "assign_role", role="r50", expected_count=3)
        assert refused(answer) == (422, "invalid_fields")
        assert [error["code"] for error in answer.json()["errors"]] == ["too_many_roles"]
        assert query(client, "SELECT 1 FROM account_roles WHERE role = 'r50'") == []

    def test_the_trail_has_the_whole_and_each(
        self, client: TestClient, admin: dict[str, str], people: list[str]
    ) -> None:
        send(client, admin, "disable", filter={"prefix": "person", "status": "active"}, expected_count=3)
        [whole] = query(client, "SELECT * FROM audit_events WHERE event = 'bulk_action'")
        each = query(
            client, "SELECT * FROM audit_events WHERE event = 'account_disabled' ORDER BY account_id"
        )
        [actor] = query(client, f"SELECT id FROM accounts WHERE email = '{ADMIN}'")
        assert whole["details"] == {
            "action": "disable",
            "role": None,
            "count": 3,
            "changed": 3,
            "filter": ["prefix", "status"],
        }
        assert [str(event["account_id"]) for event in each] == people
        assert {event["actor_id"] for event in [whole, *each]} == {actor["id"]}
        assert len({event["request_id"] for event in [whole, *each]}) == 1

    def test_as_many_or_not_at_all(
        self, client: TestClient, admin: dict[str, str], people: list[str]
    ) -> None:
        create(client, email="one-more@example.com")
        for expected in (0, 2, 3, 5):
            answer = send(client, admin, "disable", expected_count=expected)
            assert refused(answer) == (409, "count_changed")
        assert disabled(client) == []
        assert len(people) == 3

    def test_nobody_is_meant(self, client: TestClient, admin: dict[str, str]) -> None:
        wanted = {"prefix": "nobody"}
        assert send(client, admin, "disable", filter=wanted, expected_count=0).json()["done"] is True

    def test_a_retry_is_done_once(self, client: TestClient, admin: dict[str, str], people: list[str]) -> None:
        headers = admin | {"Idempotency-Key": "once"}
        answers = [send(client, headers, "disable", expected_count=len(people)) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert len(query(client, "SELECT 1 FROM audit_events WHERE event = 'bulk_action'")) == 1

    def test_what_an_owner_deleted_is_not_enabled_by_the_way(
        self, client: TestClient, admin: dict[str, str], people: list[str]
    ) -> None:
        query(
            client,
            "UPDATE accounts SET disabled_at = now(), erase_after = now() + interval '1 day'"
            f" WHERE id = '{people[0]}' RETURNING 1",
        )
        answer = send(client, admin, "enable", filter={"status": "disabled"})
        assert (answer.json()["count"], answer.json()["skipped"]) == (0, 1)
        send(client, admin, "enable", filter={"status": "disabled"}, expected_count=0)
        assert disabled(client) == [people[0]]


class TestNobodyAbove:
    def test_they_are_spared(self, client: TestClient, people: list[str]) -> None:
        make_helper(client)
        above = create(client, "admin", email=ADMIN)
        equal = create(client, "helper", email="equal@example.com")
        headers = bearer(log_in(client, HELPER))
        answer = send(client, headers, "disable", expected_count=4)
        assert answer.json() == {"count": 4, "skipped": 2, "changed": 4, "done": True}
        assert disabled(client) == sorted([*people, equal])
        assert above not in disabled(client)

    @pytest.mark.parametrize("action", ["assign_role", "remove_role"])
    def test_nobody_gives_or_takes_what_they_lack(
        self, client: TestClient, people: list[str], action: str
    ) -> None:
        make_helper(client)
        headers = bearer(log_in(client, HELPER))
        answer = send(client, headers, action, role="admin", expected_count=len(people))
        assert refused(answer) == (403, "forbidden")
        assert query(client, "SELECT 1 FROM account_roles WHERE role = 'admin'") == []

    def test_raised_at_the_same_moment(
        self, client: TestClient, admin: dict[str, str], people: list[str]
    ) -> None:
        """Whoever becomes an administrator first is not disabled; who was disabled first is one, disabled."""
        make_helper(client)
        headers = bearer(log_in(client, HELPER))
        for _ in range(5):
            query(client, "UPDATE accounts SET disabled_at = NULL RETURNING 1")
            query(client, "DELETE FROM account_roles WHERE role = 'admin' AND account_id IN (SELECT id FROM"
                          " accounts WHERE email LIKE 'person%') RETURNING 1")  # fmt: skip
            raise_one = {"roles": ["admin"]}
            with ThreadPoolExecutor(2) as pool:
                acted = pool.submit(
                    send, client, headers, "disable", filter={"prefix": "person"}, expected_count=3
                )
                raised = pool.submit(
                    client.put, f"/admin/users/{people[0]}/roles", headers=admin, json=raise_one
                )
                status = acted.result().status_code
                assert raised.result().status_code == 200
            assert status in {200, 409}
            assert disabled(client) == (people if status == 200 else [])


class TestRefused:
    @pytest.mark.parametrize(
        "body",
        [
            {"action": "disable"},
            {"filter": {}},
            {"action": "erase", "filter": {}},
            {"action": "disable", "filter": {}, "role": "member"},
            {"action": "assign_role", "filter": {}},
            {"action": "assign_role", "filter": {}, "role": "nonesuch", "expected_count": 0},
            {"action": "disable", "filter": {"name": "x"}},
            {"action": "disable", "filter": {"email": "no address"}},
            {"action": "disable", "filter": {"ids": ["x"]}},
            {"action": "disable", "filter": {"status": "asleep"}},
            {"action": "disable", "filter": {}, "expected_count": -1},
            {"action": "disable", "filter": {}, "expected_count": MAXIMUM + 1},
        ],
        ids=str,
    )
    def test_what_says_nothing(self, client: TestClient, admin: dict[str, str], body: dict[str, Any]) -> None:
        assert refused(client.post(PATH, headers=admin, json=body)) == (422, "invalid_fields")

    def test_by_who_may_only_look(self, client: TestClient) -> None:
        make_helper(client, "users:read")
        answer = send(client, bearer(log_in(client, HELPER)), "disable")
        assert refused(answer) == (403, "forbidden")

    @pytest.mark.parametrize("body", [{}, {"expected_count": 0}], ids=["count", "act"])
    def test_without_a_step_up(self, client: TestClient, admin: dict[str, str], body: dict[str, Any]) -> None:
        enrol(client, admin)
        query(client, "UPDATE sessions SET acr = 'aal1' RETURNING 1")
        answer = send(client, admin, "disable", **body)
        assert refused(answer) == (401, "insufficient_user_authentication")

    @pytest.mark.parametrize(
        ("action", "more"), [("disable", {}), ("remove_role", {"role": "admin"})], ids=["disable", "role"]
    )
    def test_the_last_administrator_stays(
        self, client: TestClient, people: list[str], action: str, more: dict[str, Any]
    ) -> None:
        query(
            client,
            "INSERT INTO roles (name, permissions, created_at, updated_at)"
            " VALUES ('all', '{*}', now(), now()) RETURNING 1",
        )
        create(client, "admin", email=ADMIN)
        create(client, "all", email=HELPER)
        headers = bearer(log_in(client, HELPER))
        answer = send(client, headers, action, expected_count=4, **more)
        assert refused(answer) == (409, "last_administrator")
        assert disabled(client) == []
        assert len(query(client, "SELECT 1 FROM account_roles WHERE role = 'admin'")) == 1
        assert len(people) == 3


def add_endpoints(client: TestClient, number: int, *types: str) -> None:
    query(
        client,
        "INSERT INTO webhook_endpoints (id, url, types, secret, created_at, updated_at)"
        f" SELECT gen_random_uuid(), 'https://hooks.example.com/', '{{{','.join(types)}}}', '', now(), now()"
        f" FROM generate_series(1, {number}) RETURNING 1",
    )


class TestWebhooks:
    def test_no_more_messages_than_a_transaction_has_time_for(
        self, client: TestClient, admin: dict[str, str], people: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of those that are told of it alone."""
        monkeypatch.setattr(service, "MOST_MESSAGES", 5)
        add_endpoints(client, 1, "*")
        add_endpoints(client, 5, "user.created")
        assert send(client, admin, "disable", expected_count=3).json()["changed"] == 3
        add_endpoints(client, 1, "user.enabled", "user.disabled")
        answer = send(client, admin, "enable", expected_count=3)
        assert refused(answer) == (409, "count_changed")
        assert "At most 2 accounts at a time while 2 webhook endpoints" in answer.json()["detail"]
        assert disabled(client) == people
        assert send(client, admin, "enable", filter={"ids": people[:2]}, expected_count=2).json()["done"]
        # What changes nothing tells nobody.
        assert send(client, admin, "enable", filter={"status": "active"}, expected_count=2).json()["done"]

    def test_none_to_one_that_is_disabled(
        self, client: TestClient, admin: dict[str, str], people: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MOST_MESSAGES", 5)
        add_endpoints(client, 2, "*")
        query(
            client,
            "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'gone' RETURNING 1",
        )
        assert send(client, admin, "disable", expected_count=len(people)).json()["done"]


class TestMany:
    def test_as_many_messages_as_there_may_be(self, client: TestClient, admin: dict[str, str]) -> None:
        """In the time that a transaction has."""
        people = MOST_MESSAGES // 20
        query(
            client,
            "INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at,"
            " created_at, updated_at) SELECT gen_random_uuid(), n || '@example.com', n || '@example.com',"
            f" '!', now(), now(), now() FROM generate_series(1, {people + 1}) AS n RETURNING 1",
        )
        add_endpoints(client, 20, "*")
        assert refused(send(client, admin, "disable", expected_count=people + 1)) == (409, "count_changed")
        query(client, "DELETE FROM accounts WHERE email = '1@example.com' RETURNING 1")
        assert send(client, admin, "disable", expected_count=people).json()["changed"] == people
        [told] = query(client, "SELECT count(*) FROM outbox WHERE endpoint_id IS NOT NULL")
        assert told["count"] == MOST_MESSAGES

    def test_ten_thousand_at_once(self, client: TestClient, admin: dict[str, str]) -> None:
        """As many as there may be, in the time that a transaction has; one more is too many."""
        query(
            client,
            "INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at,"
            " created_at, updated_at) SELECT gen_random_uuid(), n || '@example.com', n || '@example.com',"
            f" '!', now(), now(), now() FROM generate_series(1, {MAXIMUM}) AS n RETURNING 1",
        )
        query(
            client,
            "INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at, authenticated_at,"
            " amr, acr) SELECT gen_random_uuid(), id, now(), now(), now() + interval '1 day', now(),"
            f" '{{pwd}}', 'aal1' FROM accounts WHERE email <> '{ADMIN}' RETURNING 1",
        )
        done = send(client, admin, "disable", expected_count=MAXIMUM)
        assert done.json() == {"count": MAXIMUM, "skipped": 1, "changed": MAXIMUM, "done": True}
        [left] = query(client, "SELECT count(*) AS live FROM sessions WHERE ended_at IS NULL")
        assert left["live"] == 1
        create(client)
        assert send(client, admin, "enable").json()["count"] == MAXIMUM + 1
        assert refused(send(client, admin, "enable", expected_count=MAXIMUM)) == (409, "count_changed")

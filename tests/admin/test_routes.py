"""What administrators do, and that nobody else does."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from tests.impersonation.test_routes import NOBODY, query
from tests.mfa.test_routes import EMAIL, PASSWORD, bearer, create, enrol, log_in, next_code

from auth_manager.admin import service
from auth_manager.audit import Origin
from auth_manager.errors import Forbidden
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

ADMINISTRATOR = "admin@example.com"
ACTS = ["disable", "enable", "unlock", "recovery", "logout", "mfa-reset"]


@pytest.fixture
def admin(client: TestClient) -> dict[str, str]:
    create(client, "admin", email=ADMINISTRATOR)
    return bearer(log_in(client, ADMINISTRATOR))


def act(client: TestClient, headers: dict[str, str], account_id: str, name: str) -> int:
    return int(client.post(f"/admin/users/{account_id}/{name}", headers=headers).status_code)


def secret_token(client: TestClient, purpose: Purpose, secret_id: UUID) -> str:
    resources: Resources = client.app.state.resources  # type: ignore[attr-defined]
    return resources.one_time_secrets.token(purpose, secret_id)


class TestResetMfa:
    def test_an_administrator_lifts_the_factors_of_somebody_else(self, client: TestClient) -> None:
        somebody = create(client)
        administrator = create(client, "admin", email=ADMINISTRATOR)
        enrol(client, bearer(log_in(client)))
        answer = client.post(
            f"/admin/users/{somebody}/mfa-reset", headers=bearer(log_in(client, ADMINISTRATOR))
        )
        assert (answer.status_code, answer.content) == (204, b"")
        with client.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
            events = connection.fetch_all(
                "SELECT event, account_id, actor_id, address, request_id FROM audit_events"
                " ORDER BY id DESC LIMIT 2"
            )
        assert [event["event"] for event in events] == ["mfa_reset", "mfa_reset_ordered"]
        assert {str(event["account_id"]) for event in events} == {somebody}
        assert str(events[1]["actor_id"]) == administrator
        assert [event["address"] for event in events] == [None, "203.0.113.7"]
        assert events[0]["request_id"] == events[1]["request_id"]
        assert answer.headers["cache-control"] == "no-store"
        assert log_in(client).status_code == 200

    def test_the_role_is_looked_up_with_each_call(self, client: TestClient) -> None:
        """ASVS 8.3.2: the token still says admin."""
        somebody = create(client)
        administrator = create(client, "admin", email=ADMINISTRATOR)
        headers = bearer(log_in(client, ADMINISTRATOR))
        with client.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
            connection.add("DELETE FROM account_roles WHERE account_id = %(id)s", {"id": administrator})
        answer = client.post(f"/admin/users/{somebody}/mfa-reset", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    def test_nobody_else_may(self, client: TestClient) -> None:
        somebody = create(client)
        enrol(client, bearer(log_in(client)))
        create(client, email="other@example.com")
        refused = client.post(
            f"/admin/users/{somebody}/mfa-reset", headers=bearer(log_in(client, "other@example.com"))
        )
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert client.post(f"/admin/users/{somebody}/mfa-reset").status_code == 401
        assert log_in(client).json()["code"] == "mfa_required"

    def test_an_administrator_with_factors_needs_them_for_it(self, client: TestClient) -> None:
        somebody = create(client)
        create(client, "admin", email=ADMINISTRATOR)
        app = enrol(client, bearer(log_in(client, ADMINISTRATOR)))
        token = log_in(client, ADMINISTRATOR).json()["mfa_token"]
        step = client.post(
            "/auth/login/mfa", json={"mfa_token": token, "totp": next_code(app), "trust_device": True}
        )
        device = step.json()["device_token"]
        weak = bearer(log_in(client, ADMINISTRATOR, device_token=device))
        refused = client.post(f"/admin/users/{somebody}/mfa-reset", headers=weak)
        assert refused.json()["code"] == "insufficient_user_authentication"
        strong = client.post(
            "/auth/reauthenticate", headers=weak, json={"recovery_code": app.recovery_codes[0]}
        )
        assert client.post(f"/admin/users/{somebody}/mfa-reset", headers=bearer(strong)).status_code == 204

    def test_not_for_oneself(self, client: TestClient) -> None:
        """Where administrators must have a factor, none lifts their own."""
        administrator = create(client, "admin", email=ADMINISTRATOR)
        answer = client.post(
            f"/admin/users/{administrator}/mfa-reset", headers=bearer(log_in(client, ADMINISTRATOR))
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    @pytest.mark.parametrize(
        "account", ["0191d6a0-0000-7000-8000-000000000000", "me", EMAIL], ids=["unknown", "word", "address"]
    )
    def test_of_nobody(self, client: TestClient, account: str) -> None:
        create(client, "admin", email=ADMINISTRATOR)
        headers = bearer(log_in(client, ADMINISTRATOR))
        answer = client.post(f"/admin/users/{account}/mfa-reset", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


class TestDisable:
    def test_it_counts_at_once(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody = create(client)
        own = bearer(log_in(client))
        token = log_in(client).json()["refresh_token"]
        request = client.post("/auth/password/forgot", json={"email": EMAIL}).json()["request"]
        assert act(client, admin, somebody, "disable") == 204
        assert client.get("/auth/me", headers=own).json()["code"] == "session_ended"
        assert client.post("/auth/refresh", json={"refresh_token": token}).status_code == 401
        assert log_in(client).json()["code"] == "account_disabled"
        assert act(client, admin, somebody, "enable") == 204
        assert log_in(client).status_code == 200
        mailed = secret_token(client, Purpose.RESET_PASSWORD, UUID(request))
        answer = client.post("/auth/password/reset", json={"token": mailed, "password": PASSWORD})
        assert answer.json()["code"] == "invalid_one_time_secret"

    def test_the_trail_has_both_and_not_for_the_owner_from_where(
        self, client: TestClient, admin: dict[str, str]
    ) -> None:
        somebody = create(client)
        act(client, admin, somebody, "disable")
        act(client, admin, somebody, "enable")
        events = query(client, "SELECT * FROM audit_events WHERE event LIKE 'account_%abled' ORDER BY id")
        [administrator] = query(client, f"SELECT id FROM accounts WHERE email = '{ADMINISTRATOR}'")
        assert [event["event"] for event in events] == ["account_disabled", "account_enabled"]
        assert {str(event["account_id"]) for event in events} == {somebody}
        assert {event["actor_id"] for event in events} == {administrator["id"]}
        assert {event["address"] for event in events} == {"203.0.113.7"}
        exported = client.get("/auth/me/export", headers=bearer(log_in(client))).json()["security_events"]
        [shown] = [event for event in exported if event["event"] == "account_disabled"]
        assert (shown["address"], shown["user_agent"], shown["session_id"]) == (None, "", None)

    def test_twice_is_once(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody = create(client)
        act(client, admin, somebody, "disable")
        before = query(client, f"SELECT disabled_at FROM accounts WHERE id = '{somebody}'")
        assert act(client, admin, somebody, "disable") == 204
        assert query(client, f"SELECT disabled_at FROM accounts WHERE id = '{somebody}'") == before

    def test_an_account_that_its_owner_deleted(self, make_client: Callable[..., TestClient]) -> None:
        """It is erased as it was to be, and the owner can no longer keep it; an administrator can."""
        client = make_client(erasure_grace=86_400)
        create(client, "admin", email=ADMINISTRATOR)
        admin = bearer(log_in(client, ADMINISTRATOR))
        somebody = create(client)
        client.delete("/auth/me", headers=bearer(log_in(client)))
        [secret] = query(client, "SELECT id FROM one_time_secrets WHERE purpose = 'keep_account'")
        assert act(client, admin, somebody, "disable") == 204
        shown = client.get(f"/admin/users/{somebody}", headers=admin).json()
        assert shown["erase_after"] is not None
        token = secret_token(client, Purpose.KEEP_ACCOUNT, secret["id"])
        assert client.post("/auth/me/keep", json={"token": token}).status_code == 400
        assert act(client, admin, somebody, "enable") == 204
        shown = client.get(f"/admin/users/{somebody}", headers=admin).json()
        assert (shown["erase_after"], shown["disabled_at"]) == (None, None)

    def test_the_last_administrator_stays(self, client: TestClient) -> None:
        query(
            client,
            "INSERT INTO roles (name, permissions, created_at, updated_at)"
            " VALUES ('all', '{*}', now(), now()) RETURNING 1",
        )
        last = create(client, "admin", email=ADMINISTRATOR)
        create(client, "all")
        headers = bearer(log_in(client))
        answer = client.post(f"/admin/users/{last}/disable", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_administrator")
        assert client.delete(f"/admin/users/{last}", headers=headers).json()["code"] == "last_administrator"
        another = create(client, "admin", email="another@example.com")
        assert act(client, headers, last, "disable") == 204
        answer = client.post(f"/admin/users/{another}/disable", headers=headers)
        assert answer.json()["code"] == "last_administrator"

    def test_two_who_disable_each_other(self, client: TestClient) -> None:
        """One of them stays, whoever is first."""
        people = [create(client, "admin", email=f"admin{number}@example.com") for number in range(2)]
        headers = [bearer(log_in(client, f"admin{number}@example.com")) for number in range(2)]
        with ThreadPoolExecutor(2) as pool:
            statuses = pool.map(lambda i: act(client, headers[i], people[1 - i], "disable"), range(2))
        assert sorted(statuses) in ([204, 401], [204, 409])
        assert len(query(client, "SELECT id FROM accounts WHERE disabled_at IS NULL")) == 1

    def test_not_oneself(self, client: TestClient, admin: dict[str, str]) -> None:
        [oneself] = query(client, "SELECT id FROM accounts")
        assert act(client, admin, oneself["id"], "disable") == 403


class TestUnlock:
    def test_the_owner_can_try_again_at_once(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody = create(client)
        query(
            client,
            "INSERT INTO rate_limits (key, count, updated_at)"
            f" VALUES ('login:account:{somebody}', 100, now()) RETURNING 1",
        )
        assert log_in(client).status_code == 429
        assert act(client, admin, somebody, "unlock") == 204
        assert log_in(client).status_code == 200


class TestRecovery:
    def test_a_mail_and_nothing_ends(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody = create(client)
        own = bearer(log_in(client))
        assert act(client, admin, somebody, "recovery") == 204
        assert client.get("/auth/me", headers=own).status_code == 200
        [mail] = query(client, "SELECT secret_id, recipient FROM outbox WHERE kind = 'reset_password'")
        assert mail["recipient"] == EMAIL
        token = secret_token(client, Purpose.RESET_PASSWORD, mail["secret_id"])
        body = {"token": token, "password": "another dull passphrase"}
        assert client.post("/auth/password/reset", json=body).status_code == 204
        assert client.get("/auth/me", headers=own).status_code == 401

    def test_not_of_a_disabled_account(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody = create(client)
        act(client, admin, somebody, "disable")
        answer = client.post(f"/admin/users/{somebody}/recovery", headers=admin)
        assert (answer.status_code, answer.json()["code"]) == (403, "account_disabled")
        assert query(client, "SELECT id FROM outbox WHERE kind = 'reset_password'") == []


class TestLogOut:
    def test_everywhere(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody = create(client)
        own = [bearer(log_in(client)) for _ in range(2)]
        assert act(client, admin, somebody, "logout") == 204
        assert [client.get("/auth/me", headers=one).status_code for one in own] == [401, 401]
        assert log_in(client).status_code == 200
        assert (
            len(query(client, "SELECT 1 FROM audit_events WHERE event = 'logged_out_by_administrator'")) == 1
        )


class TestSessions:
    def test_they_are_listed_by_pages_and_ended(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody = create(client)
        opened = [log_in(client).json()["session_id"] for _ in range(3)]
        path = f"/admin/users/{somebody}/sessions"
        first = client.get(path, headers=admin, params={"limit": 2}).json()
        rest = client.get(path, headers=admin, params={"cursor": first["next_cursor"]}).json()
        assert [item["id"] for item in first["items"] + rest["items"]] == opened[::-1]
        assert rest["next_cursor"] is None
        assert (first["items"][0]["address"], first["items"][0]["impersonator_id"]) == ("203.0.113.7", None)
        assert client.delete(f"{path}/{opened[0]}", headers=admin).status_code == 204
        assert client.delete(f"{path}/{opened[0]}", headers=admin).json()["code"] == "not_found"
        assert len(client.get(path, headers=admin).json()["items"]) == 2
        [event] = query(client, "SELECT details FROM audit_events WHERE event = 'session_revoked'")
        assert event["details"] == {"revoked_session_id": opened[0]}

    def test_of_nobody(self, client: TestClient, admin: dict[str, str]) -> None:
        answer = client.get(f"/admin/users/{NOBODY}/sessions", headers=admin)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_a_cursor_of_somebody_else(self, client: TestClient, admin: dict[str, str]) -> None:
        somebody, other = create(client), create(client, email="other@example.com")
        for _ in range(2):
            log_in(client)
        page = client.get(f"/admin/users/{somebody}/sessions", headers=admin, params={"limit": 1}).json()
        answer = client.get(
            f"/admin/users/{other}/sessions", headers=admin, params={"cursor": page["next_cursor"]}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")


class TestEveryAct:
    @pytest.mark.parametrize("name", ACTS)
    def test_of_nobody(self, client: TestClient, admin: dict[str, str], name: str) -> None:
        answer = client.post(f"/admin/users/{NOBODY}/{name}", headers=admin)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert query(client, "SELECT id FROM audit_events WHERE actor_id IS NOT NULL") == []

    @pytest.mark.parametrize("name", ACTS)
    def test_a_retry_is_answered_alike_and_done_once(
        self, client: TestClient, admin: dict[str, str], name: str
    ) -> None:
        somebody = create(client)
        headers = admin | {"Idempotency-Key": "once"}
        assert [act(client, headers, somebody, name) for _ in range(2)] == [204, 204]
        assert len(query(client, "SELECT id FROM audit_events WHERE actor_id IS NOT NULL")) == 1

    @pytest.mark.parametrize("name", ACTS)
    def test_not_without_a_step_up(self, client: TestClient, admin: dict[str, str], name: str) -> None:
        somebody = create(client)
        enrol(client, admin)
        query(client, "UPDATE sessions SET acr = 'aal1' RETURNING 1")
        answer = client.post(f"/admin/users/{somebody}/{name}", headers=admin)
        assert (answer.status_code, answer.json()["code"]) == (401, "insufficient_user_authentication")

    def test_somebody_without_a_token_is_no_operator(self, resources: Resources) -> None:
        """A service that is called without claims works for the command line alone."""
        origin = Origin("203.0.113.7", "", "request", datetime.now(UTC))
        with pytest.raises(Forbidden):
            service.disable(resources, origin, None, UUID(NOBODY))

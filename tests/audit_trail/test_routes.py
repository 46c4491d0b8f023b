"""GET /admin/audit: who may, and what it answers."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from tests.mfa.test_routes import EMAIL, bearer, create, log_in

ADMINISTRATOR = "admin@example.com"


@pytest.fixture
def administrator(client: TestClient) -> dict[str, str]:
    """The header of an administrator, whose sign-in is the last event."""
    create(client)
    log_in(client)
    client.post("/auth/login", json={"email": EMAIL, "password": "not that one"})
    create(client, "admin", email=ADMINISTRATOR)
    return bearer(log_in(client, ADMINISTRATOR))


class TestSearchAudit:
    def test_the_latest_first(self, client: TestClient, administrator: dict[str, str]) -> None:
        answer = client.get("/admin/audit", headers=administrator)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert body["next_cursor"] is None
        times = [item["occurred_at"] for item in body["items"]]
        assert times == sorted(times, reverse=True)
        latest = body["items"][0]
        assert latest["address"] == "203.0.113.7"
        assert latest["position"] is None
        assert set(latest) == {
            "id", "occurred_at", "event", "outcome", "reason", "account_id", "session_id", "actor_id",
            "operator", "address", "user_agent", "request_id", "details", "position",
        }  # fmt: skip

    def test_filters_and_pages(self, client: TestClient, administrator: dict[str, str]) -> None:
        failed = client.get("/admin/audit?outcome=failure", headers=administrator).json()["items"]
        assert [item["reason"] for item in failed] == ["invalid_credentials"]
        of_account = {"account_id": failed[0]["account_id"], "address": "203.0.113.0/24", "limit": 1}
        first = client.get("/admin/audit", params=of_account, headers=administrator).json()
        assert first["items"] == failed
        second = client.get(
            "/admin/audit", params={**of_account, "cursor": first["next_cursor"]}, headers=administrator
        ).json()
        assert second["items"][0]["outcome"] == "success"
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        for params, empty in (({"since": tomorrow}, True), ({"until": tomorrow}, False)):
            items = client.get("/admin/audit", params=params, headers=administrator).json()["items"]
            assert (items == []) is empty

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "?limit"),
            ("limit=201", "?limit"),
            ("cursor=x", "?cursor"),
            ("outcome=x", "?outcome"),
            ("account_id=x", "?account_id"),
            ("address=", "?address"),
            ("address=x", "?address"),
            ("address=203.0.113.7/33", "?address"),
            ("address=fe80::1%25eth0", "?address"),
            ("since=2030-01-01T00:00:00", "?since"),
            ("until=yesterday", "?until"),
            ("since=0001-01-01T00:00:00%2B23:59", "?since"),
            ("until=9999-12-31T23:59:59-23:59", "?until"),
            ("event=", "?event"),
            ("operator=a%00b", "?operator"),
        ],
    )
    def test_what_is_no_filter(
        self, client: TestClient, administrator: dict[str, str], query: str, field: str
    ) -> None:
        answer = client.get(f"/admin/audit?{query}", headers=administrator)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, field)

    @pytest.mark.parametrize(("query", "empty"), [
        ("since=0001-01-01T00:00:00Z&until=9999-12-31T23:59:59.999999Z", False),
        ("since=2030-01-01T23:59:00%2B23:59&until=2030-01-01T00:00:01Z", True),
        ("until=2000-01-01T00:00:00-23:59", True),
    ])  # fmt: skip
    def test_times_of_every_offset(
        self, client: TestClient, administrator: dict[str, str], query: str, *, empty: bool
    ) -> None:
        """PostgreSQL itself reads none of 16 hours or more."""
        answer = client.get(f"/admin/audit?{query}", headers=administrator)
        assert (answer.status_code, answer.json()["items"] == []) == (200, empty)

    def test_nobody_else_may(self, client: TestClient) -> None:
        create(client)
        refused = client.get("/admin/audit", headers=bearer(log_in(client)))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert client.get("/admin/audit").status_code == 401

    def test_the_permission_is_looked_up_with_each_call(
        self, client: TestClient, administrator: dict[str, str]
    ) -> None:
        with client.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
            connection.add("DELETE FROM account_roles")
        assert client.get("/admin/audit", headers=administrator).status_code == 403

    def test_one_permission_is_enough(self, client: TestClient) -> None:
        create(client)
        with client.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
            connection.add(
                "INSERT INTO roles (name, permissions, created_at, updated_at)"
                " VALUES ('auditor', '{audit:read}', now(), now())"
            )
            connection.add(
                "INSERT INTO account_roles (account_id, role, granted_at)"
                " SELECT id, 'auditor', now() FROM accounts"
            )
        assert client.get("/admin/audit", headers=bearer(log_in(client))).status_code == 200

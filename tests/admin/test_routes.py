"""What administrators do, and that nobody else does."""

import pytest
from fastapi.testclient import TestClient
from tests.mfa.test_routes import EMAIL, bearer, create, enrol, log_in, next_code

ADMINISTRATOR = "admin@example.com"


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
                "SELECT event, account_id, address, request_id FROM audit_events ORDER BY id DESC LIMIT 2"
            )
        assert [event["event"] for event in events] == ["mfa_reset", "mfa_reset_ordered"]
        assert [str(event["account_id"]) for event in events] == [somebody, administrator]
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

"""The HTTP answers of second factors; what they mean is in test_service.py."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from tests.mfa.factors import STEP, Authenticator

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.audit import Origin
from auth_manager.resources import Resources

EMAIL = "person@example.com"
PASSWORD = "SecurePass123!"


def create(client: TestClient, *roles: str, email: str = EMAIL) -> str:
    """Somebody whose address is proven; returns the id."""
    origin = Origin(None, "", "", datetime.now(UTC))
    registration = Registration(email=email, password=PASSWORD)
    resources: Resources = client.app.state.resources  # type: ignore[attr-defined]
    return str(accounts.create_verified(resources, origin, registration, roles=roles).id)


def log_in(client: TestClient, email: str = EMAIL, **more: object) -> Response:
    return client.post("/auth/login", json={"email": email, "password": PASSWORD, **more})


def bearer(answer: Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def enrol(client: TestClient, headers: dict[str, str]) -> Authenticator:
    secret = client.post("/auth/mfa/totp", headers=headers).json()["secret"]
    app = Authenticator(secret)
    confirmed = client.post(
        "/auth/mfa/totp/confirm", headers=headers, json={"code": app.at(datetime.now(UTC))}
    )
    assert confirmed.status_code == 200, confirmed.text
    app.recovery_codes = confirmed.json()["recovery_codes"]
    return app


def next_code(app: Authenticator) -> str:
    """One of the step after this: it was not used yet, and clocks may be that far apart."""
    return app.at(datetime.now(UTC) + timedelta(seconds=STEP))


@pytest.fixture
def enrolled(client: TestClient) -> Authenticator:
    create(client)
    return enrol(client, bearer(log_in(client)))


class TestLogIn:
    def test_the_password_is_answered_with_what_to_go_on_with(
        self, client: TestClient, enrolled: Authenticator
    ) -> None:
        answer = log_in(client)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"] == "mfa_required"
        assert problem["factors"] == ["totp", "recovery_code"]
        assert problem["expires_in"] == 600
        assert enrolled.secret not in answer.text

    def test_a_code_is_answered_with_tokens(self, client: TestClient, enrolled: Authenticator) -> None:
        token = log_in(client).json()["mfa_token"]
        body = {"mfa_token": token, "totp": next_code(enrolled), "trust_device": True}
        answer = client.post("/auth/login/mfa", json=body)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        grant = answer.json()
        assert grant["user"]["email"] == EMAIL
        assert grant["recovery_codes"] == []
        assert grant["device_expires_in"] == 30 * 86_400
        assert client.get("/auth/me", headers=bearer(answer)).status_code == 200
        assert client.post("/auth/refresh", json={"refresh_token": grant["refresh_token"]}).status_code == 200
        trusted = log_in(client, device_token=grant["device_token"])
        assert trusted.status_code == 200

    def test_a_wrong_code(self, client: TestClient, enrolled: Authenticator) -> None:
        good = {enrolled.at(datetime.now(UTC) + timedelta(seconds=s)) for s in (-30, 0, 30, 60)}
        wrong = next(code for code in ("000000", "111111", "222222", "333333", "444444") if code not in good)
        answer = client.post(
            "/auth/login/mfa", json={"mfa_token": log_in(client).json()["mfa_token"], "totp": wrong}
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_factor")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert wrong not in answer.text

    @pytest.mark.parametrize("token", ["", "ot_", "x" * 256, "not a token"])
    def test_no_token_of_ours(self, client: TestClient, token: str) -> None:
        answer = client.post("/auth/login/mfa", json={"mfa_token": token, "totp": "123456"})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_mfa_token")

    @pytest.mark.parametrize(
        "factors",
        [
            {},
            {"totp": "123456", "recovery_code": "aaaaa-aaaaa"},
            {"passkey": {}},
            {"passkey_request": "0191d6a0-0000-7000-8000-000000000000"},
            {"totp": "1" * 17},
            {"recovery_code": "1" * 33},
            {"totp": None},
            {"totp": 123456},
            {"code": "123456"},
        ],
        ids=str,
    )
    def test_not_exactly_one_factor(self, client: TestClient, factors: dict[str, Any]) -> None:
        answer = client.post("/auth/login/mfa", json={"mfa_token": "ot_", **factors})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")

    def test_a_retry_with_a_key_gets_the_same_tokens(
        self, client: TestClient, enrolled: Authenticator
    ) -> None:
        body = {"mfa_token": log_in(client).json()["mfa_token"], "totp": next_code(enrolled)}
        first, second = (
            client.post("/auth/login/mfa", json=body, headers={"Idempotency-Key": "one"}) for _ in range(2)
        )
        assert first.status_code == 200
        assert first.content == second.content


class TestEnrolment:
    def test_before_there_is_a_session(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(mfa_policy="required")
        create(client)
        problem = log_in(client).json()
        assert problem["code"] == "mfa_enrolment_required"
        body = {"mfa_token": problem["mfa_token"]}
        started = client.post("/auth/login/mfa/enrolment", json=body)
        assert started.status_code == 201
        assert started.json()["uri"].startswith("otpauth://totp/")
        app = Authenticator(started.json()["secret"])
        confirmed = client.post(
            "/auth/login/mfa/enrolment/confirm", json=body | {"code": app.at(datetime.now(UTC))}
        )
        assert confirmed.status_code == 200
        assert len(confirmed.json()["recovery_codes"]) == 10
        found = client.get("/auth/mfa", headers=bearer(confirmed)).json()
        assert (found["totp"], found["required"], found["recovery_codes_left"]) == (True, True, 10)
        assert client.delete("/auth/mfa/totp", headers=bearer(confirmed)).json()["code"] == "factor_needed"


class TestIdempotencyKey:
    """A retry gets the same bytes, which nobody could get a second time otherwise."""

    def twice(self, client: TestClient, path: str, **options: Any) -> Response:
        headers = options.pop("headers", {}) | {"Idempotency-Key": "one"}
        first, second = (client.post(path, headers=headers, **options) for _ in range(2))
        assert first.is_success, first.text
        assert (first.status_code, first.content) == (second.status_code, second.content)
        return first

    def test_enrolment(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(mfa_policy="required")
        create(client)
        body = {"mfa_token": log_in(client).json()["mfa_token"]}
        app = Authenticator(self.twice(client, "/auth/login/mfa/enrolment", json=body).json()["secret"])
        body |= {"code": app.at(datetime.now(UTC))}
        confirmed = self.twice(client, "/auth/login/mfa/enrolment/confirm", json=body)
        assert len(confirmed.json()["recovery_codes"]) == 10

    def test_recovery_codes(self, client: TestClient) -> None:
        create(client)
        headers = bearer(log_in(client))
        enrol(client, headers)
        made = self.twice(client, "/auth/mfa/recovery-codes", headers=headers)
        assert len(made.json()["recovery_codes"]) == 10

    def test_reset_by_an_administrator(self, client: TestClient) -> None:
        somebody = create(client)
        create(client, "admin", email="admin@example.com")
        headers = bearer(log_in(client, "admin@example.com"))
        assert self.twice(client, f"/admin/users/{somebody}/mfa-reset", headers=headers).status_code == 204


class TestOwnFactors:
    def test_overview_of_nothing(self, client: TestClient) -> None:
        create(client)
        assert client.get("/auth/mfa", headers=bearer(log_in(client))).json() == {
            "totp": False,
            "totp_confirmed_at": None,
            "totp_last_used_at": None,
            "passkeys": 0,
            "recovery_codes_left": 0,
            "trusted_devices": 0,
            "required": False,
        }

    def test_recovery_codes_and_devices(self, client: TestClient, enrolled: Authenticator) -> None:
        token = log_in(client).json()["mfa_token"]
        body = {"mfa_token": token, "recovery_code": enrolled.recovery_codes[0], "trust_device": True}
        me = bearer(client.post("/auth/login/mfa", json=body))
        made = client.post("/auth/mfa/recovery-codes", headers=me)
        assert (made.status_code, len(made.json()["recovery_codes"])) == (200, 10)
        [device] = client.get("/auth/mfa/devices", headers=me).json()["items"]
        assert device["address"] == "203.0.113.7"
        assert client.delete(f"/auth/mfa/devices/{device['id']}", headers=me).status_code == 204
        assert client.delete(f"/auth/mfa/devices/{device['id']}", headers=me).status_code == 404
        assert client.get("/auth/mfa/devices", headers=me).json() == {"items": [], "next_cursor": None}

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/auth/mfa"), ("POST", "/auth/mfa/recovery-codes"), ("GET", "/auth/mfa/devices")],
    )
    def test_needs_a_token(self, client: TestClient, method: str, path: str) -> None:
        assert client.request(method, path).json()["code"] == "missing_token"


class TestStepUp:
    """RFC 9470: the challenge says what is missing, and /auth/reauthenticate gives it."""

    def test_by_one_time_password(self, client: TestClient, enrolled: Authenticator) -> None:
        token = log_in(client).json()["mfa_token"]
        body = {"mfa_token": token, "recovery_code": enrolled.recovery_codes[0], "trust_device": True}
        device = client.post("/auth/login/mfa", json=body).json()["device_token"]
        weak = bearer(log_in(client, device_token=device))
        refused = client.post("/auth/mfa/recovery-codes", headers=weak)
        assert (refused.status_code, refused.json()["code"]) == (401, "insufficient_user_authentication")
        challenge = refused.headers["www-authenticate"]
        assert 'error="insufficient_user_authentication"' in challenge
        assert 'acr_values="aal2"' in challenge
        assert 'max_age="900"' in challenge
        strong = client.post("/auth/reauthenticate", headers=weak, json={"totp": next_code(enrolled)})
        assert strong.status_code == 200
        assert client.post("/auth/mfa/recovery-codes", headers=bearer(strong)).status_code == 200

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("DELETE", "/auth/me", None),
            ("GET", "/auth/me/export", None),
            ("POST", "/auth/email/change", {"email": "new@example.com"}),
            ("DELETE", "/auth/mfa/totp", None),
            ("POST", "/auth/mfa/recovery-codes", None),
        ],
    )
    def test_every_sensitive_step_asks_for_it(
        self, client: TestClient, enrolled: Authenticator, method: str, path: str, body: dict[str, str] | None
    ) -> None:
        token = log_in(client).json()["mfa_token"]
        first = {"mfa_token": token, "recovery_code": enrolled.recovery_codes[0], "trust_device": True}
        device = client.post("/auth/login/mfa", json=first).json()["device_token"]
        weak = bearer(log_in(client, device_token=device))
        answer = client.request(method, path, headers=weak, json=body)
        assert answer.json()["code"] == "insufficient_user_authentication"
        assert 'acr_values="aal2"' in answer.headers["www-authenticate"]

    def test_the_password_alone_does_not_step_an_account_with_factors_up(
        self, client: TestClient, enrolled: Authenticator
    ) -> None:
        token = log_in(client).json()["mfa_token"]
        body = {"mfa_token": token, "recovery_code": enrolled.recovery_codes[0]}
        me = bearer(client.post("/auth/login/mfa", json=body))
        answer = client.post("/auth/reauthenticate", headers=me, json={"password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (403, "mfa_required")

    def test_a_wrong_factor_is_a_wrong_field(self, client: TestClient, enrolled: Authenticator) -> None:
        token = log_in(client).json()["mfa_token"]
        body = {"mfa_token": token, "recovery_code": enrolled.recovery_codes[0]}
        me = bearer(client.post("/auth/login/mfa", json=body))
        answer = client.post(
            "/auth/reauthenticate", headers=me, json={"recovery_code": enrolled.recovery_codes[0]}
        )
        assert answer.status_code == 422
        assert answer.json()["errors"][0] == {
            "pointer": "/recovery_code",
            "code": "factor_wrong",
            "detail": "This is not valid, or was used before.",
        }
        right = client.post(
            "/auth/reauthenticate", headers=me, json={"recovery_code": enrolled.recovery_codes[1]}
        )
        assert right.status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"password": PASSWORD, "totp": "123456"},
            {"code": "123456"},
            {"totp": "123456", "recovery_code": "aaaaa-aaaaa"},
            {"passkey": {}},
        ],
        ids=str,
    )
    def test_exactly_one_form(self, client: TestClient, body: dict[str, Any]) -> None:
        create(client)
        answer = client.post("/auth/reauthenticate", headers=bearer(log_in(client)), json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")


class TestProvenAddress:
    def test_where_mail_is_sent_a_factor_waits_for_the_address(
        self, make_client: Callable[..., TestClient]
    ) -> None:
        """Or whoever registers a stranger's address could leave a factor there for when they come."""
        client = make_client(mail_transport="ses", mail_from="auth@example.com")
        client.post("/auth/register", json={"email": EMAIL, "password": PASSWORD})
        answer = client.post("/auth/mfa/totp", headers=bearer(log_in(client)))
        assert (answer.status_code, answer.json()["code"]) == (403, "email_not_verified")

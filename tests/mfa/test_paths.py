"""Every first factor, every second factor, every state of an account: no path skips a factor (ASVS 6.3.4)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from tests.mfa.factors import Authenticator as App
from tests.mfa.test_routes import EMAIL, bearer, create, enrol, log_in, next_code
from tests.passkeys.authenticator import Authenticator

from auth_manager import rate_limits
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

STATES = ("active", "disabled", "locked", "unverified")


@dataclass
class Somebody:
    """An account with every factor, at a service that takes passkeys without user verification."""

    client: TestClient
    account: UUID
    app: App
    authenticator: Authenticator
    mail_request: UUID = field(init=False)

    def __post_init__(self) -> None:
        asked = self.client.post("/auth/email-login", json={"email": EMAIL})
        self.mail_request = UUID(asked.json()["request"])

    @property
    def resources(self) -> Resources:
        found: Resources = self.client.app.state.resources  # type: ignore[attr-defined]
        return found

    def query(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        with self.resources.database.one_trip() as connection:
            return connection.fetch_all(sql, parameters or {"none": None})

    def sessions(self) -> int:
        [row] = self.query("SELECT count(*) AS n FROM sessions")
        return int(row["n"])

    def become(self, state: str) -> None:
        if state == "disabled":
            self.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        elif state == "unverified":
            self.query("UPDATE accounts SET email_verified_at = NULL RETURNING 1")
        elif state == "locked":
            self.query(
                "INSERT INTO rate_limits (key, count, updated_at) VALUES (%(key)s, 100, now())"
                " ON CONFLICT (key) DO UPDATE SET count = 100 RETURNING 1",
                key=rate_limits.account_key(self.account),
            )

    def passkey(self, *, mfa_token: str | None = None, user_verified: bool = False) -> dict[str, Any]:
        """A signature for new options; of the device that verifies nobody, unless told."""
        body = {"mfa_token": mfa_token} if mfa_token else {}
        asked = self.client.post("/auth/passkeys/authentication/options", json=body).json()
        self.authenticator.verifies_user = user_verified
        return {
            "request": asked["request"],
            "credential": self.authenticator.get(asked["publicKey"]),
        }


@pytest.fixture
def somebody(make_client: Callable[..., TestClient]) -> Somebody:
    client = make_client(require_verified_email=True, passkey_user_verification="discouraged")
    account = UUID(create(client))
    session = bearer(log_in(client))
    app = enrol(client, session)
    authenticator = Authenticator()
    options = client.post("/auth/passkeys/registration/options", headers=session).json()
    registered = client.post(
        "/auth/passkeys/registration/verify",
        headers=session,
        json={"request": options["request"], "credential": authenticator.create(options["publicKey"])},
    )
    assert registered.status_code == 201, registered.text
    return Somebody(client, account, app, authenticator)


def by_password(somebody: Somebody) -> Response:
    return log_in(somebody.client)


def by_mailed_link(somebody: Somebody) -> Response:
    token = somebody.resources.one_time_secrets.token(Purpose.EMAIL_LOGIN, somebody.mail_request)
    return somebody.client.post("/auth/email-login/verify", json={"token": token})


def by_mailed_code(somebody: Somebody) -> Response:
    code = somebody.resources.one_time_secrets.code(Purpose.EMAIL_LOGIN, somebody.mail_request)
    body = {"request": str(somebody.mail_request), "code": code}
    return somebody.client.post("/auth/email-login/verify", json=body)


def by_passkey(somebody: Somebody) -> Response:
    return somebody.client.post("/auth/passkeys/authentication/verify", json=somebody.passkey())


FIRST = {
    "password": by_password,
    "mailed link": by_mailed_link,
    "mailed code": by_mailed_code,
    "passkey without user verification": by_passkey,
}
SECOND: dict[str, Callable[[Somebody, str], dict[str, Any]]] = {
    "totp": lambda somebody, _: {"totp": next_code(somebody.app)},
    "recovery_code": lambda somebody, _: {"recovery_code": somebody.app.recovery_codes[0]},
    "passkey": lambda somebody, token: {
        "passkey": (presented := somebody.passkey(mfa_token=token))["credential"],
        "passkey_request": presented["request"],
    },
}
REFUSED = {
    "disabled": (403, "account_disabled"),
    "locked": (429, "too_many_attempts"),
    "unverified": (403, "email_not_verified"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("first", FIRST)
class TestEveryPath:
    def test_the_first_factor_opens_nothing(self, somebody: Somebody, first: str, state: str) -> None:
        before = somebody.sessions()
        somebody.become(state)
        answer = FIRST[first](somebody)
        # A mail that arrives proves the address; so that state is over with it.
        expected = (403, "mfa_required") if "mailed" in first and state == "unverified" else None
        expected = expected or REFUSED.get(state, (403, "mfa_required"))
        assert (answer.status_code, answer.json()["code"]) == expected
        asked = answer.json().get("factors", [])
        assert ("passkey" in asked) == (expected[1] == "mfa_required" and first in {*FIRST} - {_PASSKEY})
        assert somebody.sessions() == before

    @pytest.mark.parametrize("second", SECOND)
    def test_both_together_open_a_session_where_the_account_may_sign_in(
        self, somebody: Somebody, first: str, second: str, state: str
    ) -> None:
        """The state begins between the two steps."""
        before = somebody.sessions()
        token = FIRST[first](somebody).json()["mfa_token"]
        body = {"mfa_token": token, **SECOND[second](somebody, token)}
        somebody.become(state)
        answer = somebody.client.post("/auth/login/mfa", json=body)
        if (first, second) == (_PASSKEY, "passkey"):
            # One passkey, presented twice, is one factor.
            expected: tuple[int, str] | None = REFUSED.get(state, (401, "invalid_factor"))
        else:
            expected = REFUSED.get(state)
        if expected:
            assert (answer.status_code, answer.json()["code"]) == expected
            assert somebody.sessions() == before
            return
        assert answer.status_code == 200, answer.text
        assert somebody.sessions() == before + 1
        claims = somebody.resources.access_tokens.verify(answer.json()["access_token"], now=datetime.now(UTC))
        assert claims.acr == "aal2"
        assert "mfa" in claims.amr


_PASSKEY = "passkey without user verification"


class TestPasskeyAlone:
    @pytest.mark.parametrize("state", STATES)
    def test_one_that_verified_its_user_is_two_factors(self, somebody: Somebody, state: str) -> None:
        before = somebody.sessions()
        presented = somebody.passkey(user_verified=True)
        somebody.become(state)
        answer = somebody.client.post("/auth/passkeys/authentication/verify", json=presented)
        if state in REFUSED:
            assert (answer.status_code, answer.json()["code"]) == REFUSED[state]
            assert somebody.sessions() == before
            return
        claims = somebody.resources.access_tokens.verify(answer.json()["access_token"], now=datetime.now(UTC))
        assert (claims.acr, claims.amr) == ("aal2", ("mfa", "pop", "user"))


class TestRefresh:
    @pytest.mark.parametrize("state", ["disabled"])
    def test_a_session_of_two_factors_ends_with_the_account(self, somebody: Somebody, state: str) -> None:
        token = by_password(somebody).json()["mfa_token"]
        body = {"mfa_token": token, "recovery_code": somebody.app.recovery_codes[1]}
        granted = somebody.client.post("/auth/login/mfa", json=body).json()
        somebody.become(state)
        answer = somebody.client.post("/auth/refresh", json={"refresh_token": granted["refresh_token"]})
        assert answer.json()["code"] == "account_disabled"

"""Limits of guesses over all ways, and who can begin them anew (ASVS 6.3.1)."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from tests.mfa.factors import (
    STEP,
    Authenticator,
    claims_of,
    enrol,
    first_step,
    person,
    second_step,
)
from tests.verification.people import NEW_PASSWORD, PASSWORD, Person, at, operator

from auth_manager.admin import service as admin
from auth_manager.email_login import service as email_login
from auth_manager.errors import (
    InvalidCredentials,
    InvalidFactor,
    InvalidFields,
    MfaRequired,
    TooManyAttempts,
)
from auth_manager.factors.checks import Presented
from auth_manager.ids import new_id
from auth_manager.login import service as login
from auth_manager.one_time_secrets import Purpose
from auth_manager.reauthentication import service as reauthentication
from auth_manager.recovery import service as recovery
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims

LOOSE = {"login_failures_before_delay": 100, "login_failures_before_lock": 100}
"""As many guesses as there may be, without delays between them."""


class TestGuesses:
    """Who has the password, the mailbox or a session shall not get new guesses of the factors by it."""

    STRICT = 5

    def guess(self, somebody: Person, app: Authenticator, claims: AccessClaims) -> bool:
        """Guess at step-up; tell whether it was looked at."""
        try:
            reauthentication.by_factor(somebody.resources, at(STEP), claims, Presented(totp=app.wrong(STEP)))
        except TooManyAttempts:
            return False
        except InvalidFields:
            return True
        raise AssertionError("the guess was right")

    @pytest.mark.parametrize("way", ["change of the password", "trusted device", "reset", "sign-in by mail"])
    def test_none_by_any_other_proof(self, make_resources: Callable[..., Resources], way: str) -> None:
        resources = make_resources(
            login_failures_before_delay=self.STRICT, login_failures_before_lock=self.STRICT
        )
        somebody = person(resources)
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP), trust_device=True)
        claims = claims_of(somebody, step)

        def begin_anew() -> AccessClaims:
            if way == "change of the password":
                with pytest.raises(InvalidFields):  # too short: it was still the right password
                    recovery.change_password(
                        resources,
                        at(STEP),
                        claims,
                        current_password=PASSWORD,
                        new_password="short",
                        end_other_sessions=False,
                    )
                return claims
            if way == "trusted device":
                tokens = login.log_in(
                    resources,
                    at(STEP),
                    identifier=somebody.email,
                    password=PASSWORD,
                    device_token=step.device_token,
                )
                return somebody.claims(tokens)
            request = new_id()
            if way == "reset":
                request = recovery.start(resources, at(STEP), somebody.email)
                proof = somebody.token(Purpose.RESET_PASSWORD, request)
                recovery.reset_password(resources, at(STEP), proof, NEW_PASSWORD)
                somebody.query("UPDATE sessions SET ended_at = NULL, end_reason = NULL RETURNING 1")
                return claims
            request = email_login.start(resources, at(STEP), somebody.email)
            with pytest.raises(MfaRequired):
                email_login.log_in(resources, at(STEP), somebody.token(Purpose.EMAIL_LOGIN, request))
            return claims

        looked_at = 0
        for _ in range(3):
            for _ in range(self.STRICT - 1):
                looked_at += self.guess(somebody, app, claims)
            with suppress(TooManyAttempts):
                claims = begin_anew()
        assert looked_at <= self.STRICT
        with pytest.raises(TooManyAttempts):
            reauthentication.by_factor(
                resources, at(STEP), claims, Presented(recovery_code=app.recovery_codes[0])
            )

    def test_what_is_refused_counts_nothing(self, make_resources: Callable[..., Resources]) -> None:
        """The delays stand between the guesses: who hammers at them does not come to the lock sooner."""
        resources = make_resources(login_failures_before_delay=3, login_failures_before_lock=6)
        somebody = person(resources)
        app = enrol(somebody)
        claims = claims_of(somebody, second_step(somebody, first_step(somebody), totp=app.code(STEP)))
        assert [self.guess(somebody, app, claims) for _ in range(12)] == [True] * 3 + [False] * 9
        [factors] = somebody.query("SELECT count FROM rate_limits WHERE key LIKE 'factor:%%'")
        [account] = somebody.query("SELECT count FROM rate_limits WHERE key LIKE 'login:account:%%'")
        assert (factors["count"], account["count"]) == (3, 3)

    def test_what_the_lock_of_the_factors_refuses_does_not_lock_the_account(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        resources = make_resources(login_failures_before_delay=6, login_failures_before_lock=6)
        somebody = person(resources)
        app = enrol(somebody)
        claims = claims_of(somebody, second_step(somebody, first_step(somebody), totp=app.code(STEP)))
        somebody.query("UPDATE rate_limits SET count = 0 RETURNING 1")
        somebody.query(
            "INSERT INTO rate_limits (key, count, updated_at)"
            " SELECT 'factor:account:' || id, 6, now() FROM accounts RETURNING 1"
        )
        assert [self.guess(somebody, app, claims) for _ in range(12)] == [False] * 12
        assert first_step(somebody)

    def test_an_account_without_factors_has_no_run_of_them(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        somebody = person(make_resources(login_failures_before_delay=3, login_failures_before_lock=3))
        claims = somebody.claims()
        for _ in range(3):
            with pytest.raises(InvalidFields):
                reauthentication.by_factor(somebody.resources, at(), claims, Presented(totp="000000"))
        assert somebody.query("SELECT 1 FROM rate_limits WHERE key LIKE 'factor:%%'") == []

    def test_the_owner_hears_that_it_is_the_factors(self, make_resources: Callable[..., Resources]) -> None:
        somebody = person(make_resources(login_failures_before_delay=3, login_failures_before_lock=3))
        app = enrol(somebody)
        claims = claims_of(somebody, second_step(somebody, first_step(somebody), totp=app.code(STEP)))
        for _ in range(3):
            self.guess(somebody, app, claims)
        [mail] = somebody.query("SELECT details FROM outbox WHERE kind = 'account_locked'")
        assert (mail["details"]["failures"], mail["details"]["of_factors"]) == (3, True)

    def test_a_right_factor_ends_both_runs(self, make_resources: Callable[..., Resources]) -> None:
        somebody = person(make_resources(login_failures_before_delay=5, login_failures_before_lock=5))
        app = enrol(somebody)
        for code in app.recovery_codes[:3]:
            for _ in range(3):
                with pytest.raises(InvalidFactor):
                    second_step(somebody, first_step(somebody), totp=app.wrong(STEP))
            assert second_step(somebody, first_step(somebody), recovery_code=code).tokens.expires_in > 0

    def test_a_stranger_who_locks_the_account_does_not_lock_its_factors(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        """The owner comes back by a mailed reset, and then by the factor."""
        resources = make_resources(login_failures_before_delay=3, login_failures_before_lock=3)
        somebody = person(resources)
        app = enrol(somebody)
        for _ in range(3):
            with pytest.raises(InvalidCredentials):
                somebody.log_in("a wrong password")
        with pytest.raises(TooManyAttempts):
            somebody.log_in()
        request = recovery.start(resources, at(), somebody.email)
        recovery.reset_password(
            resources, at(), somebody.token(Purpose.RESET_PASSWORD, request), NEW_PASSWORD
        )
        token = first_step(somebody, password=NEW_PASSWORD)
        assert second_step(somebody, token, totp=app.code(STEP)).tokens.expires_in > 0

    def test_an_operator_unlocks_both(self, make_resources: Callable[..., Resources]) -> None:
        resources = make_resources(login_failures_before_delay=3, login_failures_before_lock=3)
        somebody = person(resources)
        app = enrol(somebody)
        token = first_step(somebody)
        for _ in range(3):
            with pytest.raises(InvalidFactor):
                second_step(somebody, token, totp=app.wrong(STEP))
        with pytest.raises(TooManyAttempts):
            second_step(somebody, token, totp=app.code(STEP))
        admin.unlock(resources, operator(), None, somebody.id)
        assert second_step(somebody, token, totp=app.code(STEP)).tokens.expires_in > 0

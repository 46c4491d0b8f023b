from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from tests.mfa.factors import (
    STEP,
    Authenticator,
    claims_of,
    enrol,
    enrolment_step,
    first_step,
    person,
    second_step,
)
from tests.verification.people import NEW_PASSWORD, PASSWORD, Person, at, operator

from auth_manager.admin import service as admin
from auth_manager.email_login import service as email_login
from auth_manager.errors import (
    AccountDisabled,
    FactorNeeded,
    InvalidCredentials,
    InvalidFactor,
    InvalidFields,
    InvalidMfaToken,
    InvalidToken,
    MfaEnrolmentRequired,
    MfaRequired,
    NotFound,
    RecentAuthenticationRequired,
    SessionEnded,
    TooManyAttempts,
    TooManyRequests,
)
from auth_manager.factors.changes import enrolee_of
from auth_manager.factors.checks import Presented
from auth_manager.login import service as login
from auth_manager.mfa import service as mfa
from auth_manager.one_time_secrets import Purpose
from auth_manager.recovery import service as recovery
from auth_manager.resources import Resources
from auth_manager.totp import service as totp

LOOSE = {"login_failures_before_delay": 100, "login_failures_before_lock": 100}
"""As many guesses as there may be, without delays between them."""


class TestFirstStep:
    def test_the_password_alone_opens_no_session(self, resources: Resources) -> None:
        somebody = person(resources)
        enrol(somebody)
        before = somebody.query("SELECT count(*) AS n FROM sessions")
        with pytest.raises(MfaRequired) as raised:
            somebody.log_in()
        assert somebody.query("SELECT count(*) AS n FROM sessions") == before
        assert raised.value.members["factors"] == ["totp", "recovery_code"]
        assert raised.value.members["expires_in"] == 600
        assert somebody.events()[-1] == ("first_factor_passed", "success", None)

    def test_the_token_is_no_access_token_and_no_refresh_token(self, resources: Resources) -> None:
        somebody = person(resources)
        enrol(somebody)
        token = first_step(somebody)
        with pytest.raises(InvalidToken):
            resources.access_tokens.verify(token, now=at().now)
        with pytest.raises(InvalidMfaToken):
            second_step(somebody, token + "A", totp="000000")
        with pytest.raises(InvalidMfaToken):  # of another purpose
            second_step(
                somebody, resources.one_time_secrets.token(Purpose.ENROL_FACTOR, uuid4()), totp="000000"
            )

    def test_a_right_password_does_not_forget_failed_guesses(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        """Or whoever knows it would get new guesses of the second factor by typing it again."""
        resources = make_resources(
            **LOOSE | {"login_failures_before_lock": 5, "login_failures_before_delay": 5}
        )
        somebody = person(resources)
        app = enrol(somebody)
        for _ in range(4):
            token = first_step(somebody)
            with pytest.raises(InvalidFactor):
                second_step(somebody, token, totp=app.wrong(STEP))
        token = first_step(somebody)  # the fifth reservation, which is given back
        with pytest.raises(InvalidFactor):
            second_step(somebody, token, totp=app.wrong(STEP))
        with pytest.raises(TooManyAttempts):
            second_step(somebody, token, totp=app.code(STEP))
        with pytest.raises(TooManyAttempts):
            somebody.log_in()

    def test_a_right_password_takes_its_own_delay_back(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        """After failures of somebody else, the owner needs not wait between password and second factor."""
        resources = make_resources(login_failures_before_delay=3)
        somebody = person(resources)
        app = enrol(somebody)
        for attempt in range(3):
            with pytest.raises(InvalidCredentials):
                somebody.log_in("a wrong password", origin=at(attempt))
        token = first_step(somebody, at(STEP + 5))
        assert second_step(somebody, token, seconds=STEP + 6, totp=app.code(STEP + 6)).tokens.expires_in > 0


class TestSecondStep:
    def test_a_code_opens_a_session_of_two_factors(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        claims = claims_of(somebody, second_step(somebody, first_step(somebody), totp=app.code(STEP)))
        assert claims.acr == "aal2"
        assert claims.amr == ("mfa", "otp", "pwd")
        assert somebody.events()[-1] == ("logged_in", "success", None)

    def test_a_code_counts_once(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        with pytest.raises(InvalidFactor):  # it confirmed the factor
            second_step(somebody, first_step(somebody), seconds=0, totp=app.code())
        second_step(somebody, first_step(somebody), totp=app.code(STEP))
        with pytest.raises(InvalidFactor):
            second_step(somebody, first_step(somebody), totp=app.code(STEP))

    @pytest.mark.parametrize("kind", ["totp", "recovery_code"])
    def test_sixteen_parallel_uses_of_one_code_have_one_winner(
        self, make_resources: Callable[..., Resources], kind: str
    ) -> None:
        """Each with a token of its own, so that nothing but the code is single."""
        resources = make_resources(database_pool_size=16, **LOOSE)
        somebody = person(resources)
        app = enrol(somebody)
        factor: dict[str, Any] = {kind: app.code(STEP) if kind == "totp" else app.recovery_codes[0]}
        tokens = [first_step(somebody) for _ in range(16)]

        def use(token: str) -> bool:
            try:
                second_step(somebody, token, **factor)
            except InvalidFactor:
                return False
            return True

        with ThreadPoolExecutor(16) as threads:
            assert sum(threads.map(use, tokens)) == 1

    def test_sixteen_parallel_uses_of_one_token_have_one_winner(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        """Each with a recovery code of its own, or one of three TOTP codes."""
        resources = make_resources(database_pool_size=16, **LOOSE)
        somebody = person(resources)
        app = enrol(somebody)
        token = first_step(somebody)
        presented: list[dict[str, Any]] = [{"recovery_code": code} for code in app.recovery_codes]
        presented += [{"totp": app.code(STEP)} for _ in range(6)]

        def use(factor: dict[str, Any]) -> bool:
            try:
                second_step(somebody, token, **factor)
            except (InvalidFactor, InvalidMfaToken):
                return False
            return True

        with ThreadPoolExecutor(16) as threads:
            assert sum(threads.map(use, presented)) == 1
        [row] = somebody.query("SELECT count(*) AS used FROM recovery_codes WHERE used_at IS NOT NULL")
        assert row["used"] <= 1  # what lost was not used up

    def test_no_more_guesses_than_the_limit_are_looked_at_over_all_ways(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        """ASVS 6.3.1: 500 parallel guesses of passwords, codes and recovery codes share one hundred."""
        resources = make_resources(database_pool_size=16, login_attempts_per_address=10_000, **LOOSE)
        somebody = person(resources)
        app = enrol(somebody)
        token = first_step(somebody)

        def guess(number: int) -> bool:
            try:
                if number % 5 == 0:
                    somebody.log_in("a wrong password")
                elif number % 5 == 1:
                    second_step(somebody, token, recovery_code=f"{number:05}-00000")
                else:
                    second_step(somebody, token, totp=app.wrong(STEP))
            except TooManyAttempts:
                return False
            except (InvalidFactor, InvalidCredentials):
                return True
            raise AssertionError("a guess was right")

        with ThreadPoolExecutor(16) as threads:
            looked_at = sum(threads.map(guess, range(500)))
        assert looked_at == 100
        with pytest.raises(TooManyAttempts):
            second_step(somebody, token, totp=app.code(STEP))

    def test_a_recovery_code_counts_once_and_its_owner_hears_of_it(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        code = app.recovery_codes[3]
        claims = claims_of(
            somebody, second_step(somebody, first_step(somebody), recovery_code=f" {code.upper()} ")
        )
        assert claims.acr == "aal2"
        [row] = somebody.query(
            "SELECT details ->> 'change' AS change FROM outbox WHERE kind = 'factors_changed'"
            " ORDER BY id DESC LIMIT 1"
        )
        assert row["change"] == "recovery_code_used"
        with pytest.raises(InvalidFactor):
            second_step(somebody, first_step(somebody), recovery_code=code)
        assert mfa.overview(resources, at(STEP), claims).recovery_codes_left == 9

    def test_a_token_is_over_with_its_time_its_use_and_the_password(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        token = first_step(somebody)
        with pytest.raises(InvalidMfaToken):
            second_step(somebody, token, seconds=601, totp=app.code(601))
        step = second_step(somebody, token, totp=app.code(STEP))
        with pytest.raises(InvalidMfaToken):
            second_step(somebody, token, seconds=2 * STEP, totp=app.code(2 * STEP))
        token = first_step(somebody, at(2 * STEP))
        recovery.change_password(
            resources,
            at(2 * STEP),
            claims_of(somebody, step),
            current_password=PASSWORD,
            new_password=NEW_PASSWORD,
            end_other_sessions=False,
        )
        with pytest.raises(InvalidMfaToken):
            second_step(somebody, token, seconds=3 * STEP, totp=app.code(3 * STEP))

    def test_disabled_between_the_steps(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        token = first_step(somebody)
        somebody.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        with pytest.raises(AccountDisabled):
            second_step(somebody, token, totp=app.code(STEP))

    def test_a_factor_of_another_account_is_none(self, resources: Resources) -> None:
        somebody, other = person(resources), person(resources, "other@example.com")
        enrol(somebody)
        theirs = enrol(other)
        token = first_step(somebody)
        with pytest.raises(InvalidFactor):
            second_step(somebody, token, totp=theirs.code(STEP))
        with pytest.raises(InvalidFactor):
            second_step(somebody, token, recovery_code=theirs.recovery_codes[0])

    def test_a_reset_of_the_password_lifts_no_factor(self, resources: Resources) -> None:
        """ASVS 6.4.3."""
        somebody = person(resources)
        app = enrol(somebody)
        request = recovery.start(resources, at(), somebody.email)
        recovery.reset_password(
            resources, at(), somebody.token(Purpose.RESET_PASSWORD, request), NEW_PASSWORD
        )
        token = first_step(somebody, password=NEW_PASSWORD)
        assert second_step(somebody, token, totp=app.code(STEP)).tokens.expires_in > 0


class TestTrustedDevice:
    def test_it_stands_for_the_factor_and_opens_a_session_of_one(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP), trust_device=True)
        assert step.device_expires_in == 30 * 86_400
        tokens = login.log_in(
            resources,
            at(STEP),
            identifier=somebody.email,
            password=PASSWORD,
            device_token=step.device_token,
        )
        claims = somebody.claims(tokens)
        assert (claims.acr, claims.amr) == ("aal1", ("pwd",))
        with pytest.raises(RecentAuthenticationRequired) as raised:
            mfa.make_recovery_codes(resources, at(STEP), claims)
        assert 'acr_values="aal2"' in raised.value.headers["WWW-Authenticate"]

    def test_nobody_is_trusted_without_asking_or_where_it_is_off(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        somebody = person(make_resources(trusted_device_lifetime=0))
        app = enrol(somebody)
        asked = second_step(somebody, first_step(somebody), totp=app.code(STEP), trust_device=True)
        assert asked.device_token is None
        assert asked.device_expires_in is None

    @pytest.mark.parametrize("why", ["expired", "revoked", "password", "reset", "forged", "foreign"])
    def test_what_ends_it(self, resources: Resources, why: str) -> None:
        somebody, later = person(resources), at(2 * STEP)
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP), trust_device=True)
        claims, token = claims_of(somebody, step), step.device_token
        password = PASSWORD
        if why == "expired":
            somebody.query("UPDATE trusted_devices SET expires_at = now() - interval '1 hour' RETURNING 1")
        elif why == "revoked":
            [device] = mfa.list_devices(resources, later, claims, limit=10, cursor=None).items
            mfa.revoke_device(resources, later, claims, device["id"])
        elif why == "password":
            recovery.change_password(
                resources,
                later,
                claims,
                current_password=PASSWORD,
                new_password=NEW_PASSWORD,
                end_other_sessions=False,
            )
            assert mfa.list_devices(resources, later, claims, limit=10, cursor=None).items == []
            password = NEW_PASSWORD
        elif why == "reset":
            admin.reset_mfa(resources, replace(later, operator="tester"), None, somebody.id)
            enrol(somebody)
        elif why == "forged":
            assert token is not None
            token = token[:-1] + ("A" if token[-1] != "A" else "B")
        else:
            other = person(resources, "other@example.com")
            theirs = enrol(other)
            token = second_step(
                other, first_step(other), totp=theirs.code(STEP), trust_device=True
            ).device_token
        assert first_step(somebody, later, password, device_token=token)

    def test_a_device_of_somebody_else_does_not_exist(self, resources: Resources) -> None:
        """ASVS 8.2.2."""
        somebody, other = person(resources), person(resources, "other@example.com")
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP), trust_device=True)
        [device] = mfa.list_devices(
            resources, at(STEP), claims_of(somebody, step), limit=10, cursor=None
        ).items
        with pytest.raises(NotFound):
            mfa.revoke_device(resources, at(STEP), other.claims(), device["id"])

    def test_pages(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        factors: list[dict[str, Any]] = [{"totp": app.code(STEP)}]
        factors += [{"recovery_code": code} for code in app.recovery_codes[:2]]
        steps = [
            second_step(somebody, first_step(somebody), trust_device=True, **factor) for factor in factors
        ]
        claims = claims_of(somebody, steps[0])
        first = mfa.list_devices(resources, at(STEP), claims, limit=2, cursor=None)
        rest = mfa.list_devices(resources, at(STEP), claims, limit=2, cursor=first.next_cursor)
        assert [len(first.items), len(rest.items), rest.next_cursor] == [2, 1, None]
        with pytest.raises(InvalidFields):
            mfa.list_devices(resources, at(STEP), claims, limit=2, cursor="AAAA")


class TestPolicy:
    def test_who_must_have_a_factor_sets_one_up_before_there_is_a_session(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        resources = make_resources(mfa_policy="required")
        somebody = person(resources)
        token = enrolment_step(somebody)
        enrolment = mfa.start_enrolment(resources, at(), token)
        app = Authenticator(enrolment.secret)
        with pytest.raises(InvalidFields):
            mfa.finish_enrolment(resources, at(), token, app.wrong())
        assert somebody.query("SELECT 1 FROM sessions") == []
        step = mfa.finish_enrolment(resources, at(), token, app.code())
        assert len(step.recovery_codes) == 10
        claims = claims_of(somebody, step)
        assert (claims.acr, claims.amr) == ("aal2", ("mfa", "otp", "pwd"))
        with pytest.raises(InvalidMfaToken):
            mfa.finish_enrolment(resources, at(), token, app.code(STEP))
        with pytest.raises(InvalidMfaToken):
            mfa.start_enrolment(resources, at(), token)
        assert second_step(somebody, first_step(somebody), totp=app.code(STEP)).tokens.expires_in > 0

    def test_an_enrolment_token_adds_no_second_way_to_an_account_that_has_one(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        """Two tokens of the password alone: the second must not replace the factor of the first."""
        resources = make_resources(mfa_policy="required")
        somebody = person(resources)
        one, other = enrolment_step(somebody), enrolment_step(somebody)
        app = Authenticator(mfa.start_enrolment(resources, at(), one).secret)
        mfa.finish_enrolment(resources, at(), one, app.code())
        with pytest.raises(InvalidMfaToken):
            mfa.start_enrolment(resources, at(), other)

    def test_an_enrolment_token_is_no_second_factor(self, make_resources: Callable[..., Resources]) -> None:
        resources = make_resources(mfa_policy="required")
        somebody = person(resources)
        with pytest.raises(InvalidMfaToken):
            second_step(somebody, enrolment_step(somebody), totp="000000")

    def test_disabled_before_the_enrolment_ends(self, make_resources: Callable[..., Resources]) -> None:
        resources = make_resources(mfa_policy="required")
        somebody = person(resources)
        token = enrolment_step(somebody)
        app = Authenticator(mfa.start_enrolment(resources, at(), token).secret)
        somebody.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        with pytest.raises(AccountDisabled):
            mfa.finish_enrolment(resources, at(), token, app.code())
        assert somebody.query("SELECT 1 FROM totp_factors WHERE confirmed_at IS NOT NULL") == []

    def test_who_lost_the_account_since_the_first_step_leaves_no_factor_on_it(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        """Its owner proved the address by mail, which ended the password of whoever had registered it."""
        resources = make_resources(mfa_policy="required")
        stranger = Person(resources).register()
        token, other = enrolment_step(stranger), enrolment_step(stranger)
        app = Authenticator(mfa.start_enrolment(resources, at(), token).secret)
        request = email_login.start(resources, at(), stranger.email)
        with pytest.raises(MfaEnrolmentRequired):
            email_login.log_in(resources, at(), stranger.token(Purpose.EMAIL_LOGIN, request))
        with pytest.raises(InvalidMfaToken):
            mfa.finish_enrolment(resources, at(), token, app.code())
        with pytest.raises(InvalidMfaToken):
            mfa.start_enrolment(resources, at(), other)
        assert stranger.query("SELECT 1 FROM totp_factors WHERE confirmed_at IS NOT NULL") == []

    def test_administrators_alone(self, make_resources: Callable[..., Resources]) -> None:
        resources = make_resources(mfa_policy="required_for_admins")
        somebody = person(resources)
        assert somebody.log_in().expires_in > 0
        somebody.query("INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts RETURNING 1")
        assert enrolment_step(somebody)

    def test_the_last_factor_stays_where_one_is_asked_for(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        resources = make_resources(mfa_policy="required")
        somebody = person(resources)
        token = enrolment_step(somebody)
        app = Authenticator(mfa.start_enrolment(resources, at(), token).secret)
        claims = claims_of(somebody, mfa.finish_enrolment(resources, at(), token, app.code()))
        with pytest.raises(FactorNeeded):
            totp.remove(resources, at(), claims)
        assert mfa.overview(resources, at(), claims).totp_confirmed_at is not None


class TestRecoveryCodes:
    def test_new_ones_replace_the_old(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP))
        codes = mfa.make_recovery_codes(resources, at(STEP), claims_of(somebody, step))
        assert len(set(codes) | set(app.recovery_codes)) == 20
        with pytest.raises(InvalidFactor):
            second_step(somebody, first_step(somebody), recovery_code=app.recovery_codes[0])
        assert second_step(somebody, first_step(somebody), recovery_code=codes[0]).tokens.expires_in > 0

    def test_there_must_be_a_factor_that_they_stand_in_for(self, resources: Resources) -> None:
        somebody = person(resources)
        with pytest.raises(FactorNeeded):
            mfa.make_recovery_codes(resources, at(), somebody.claims())
        assert somebody.query("SELECT 1 FROM recovery_codes") == []

    def test_not_without_end(self, resources: Resources) -> None:
        """Each set costs as much as ten logins."""
        somebody = person(resources)
        app = enrol(somebody)
        claims = claims_of(somebody, second_step(somebody, first_step(somebody), totp=app.code(STEP)))
        for _ in range(19):  # and one to confirm the app
            mfa.make_recovery_codes(resources, at(STEP), claims)
        with pytest.raises(TooManyRequests):
            mfa.make_recovery_codes(resources, at(STEP), claims)

    def test_not_after_a_while(self, resources: Resources) -> None:
        """ASVS 7.5.1, RFC 9470."""
        somebody = person(resources)
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP))
        with pytest.raises(RecentAuthenticationRequired):
            mfa.make_recovery_codes(resources, at(3600), claims_of(somebody, step))

    def test_alone_they_are_asked_for_by_nobody(self, resources: Resources) -> None:
        """They stand in for a factor; without one there is nothing to stand in for."""
        somebody = person(resources)
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP))
        totp.remove(resources, at(STEP), claims_of(somebody, step))
        assert somebody.log_in().expires_in > 0
        assert somebody.query("SELECT 1 FROM recovery_codes") == []


class TestReset:
    def test_everything_goes_and_the_owner_hears_of_it(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP), trust_device=True)
        token = first_step(somebody)
        admin.reset_mfa(resources, operator(STEP), None, somebody.id)
        for table in ("totp_factors", "recovery_codes", "passkeys", "trusted_devices"):
            assert somebody.query(f"SELECT 1 FROM {table}") == [], table
        with pytest.raises(SessionEnded):
            mfa.overview(resources, at(STEP), claims_of(somebody, step))
        with pytest.raises(InvalidMfaToken):
            second_step(somebody, token, totp=app.code(2 * STEP))
        assert somebody.log_in(origin=at(STEP)).expires_in > 0
        [row] = somebody.query(
            "SELECT details ->> 'change' AS change FROM outbox WHERE kind = 'factors_changed'"
            " ORDER BY id DESC LIMIT 1"
        )
        assert row["change"] == "mfa_reset"

    def test_of_nobody(self, resources: Resources) -> None:
        with pytest.raises(NotFound):
            admin.reset_mfa(resources, operator(), None, uuid4())


class TestRaces:
    def test_a_factor_that_is_set_up_while_a_password_is_checked_is_asked_for(
        self, resources: Resources
    ) -> None:
        """What was read before the hash is not what is there after it: the sign-in is refused."""
        somebody = person(resources)
        claims = somebody.claims()
        enrolee = enrolee_of(resources, at(), claims)
        secret = totp.start(resources, at(), enrolee).secret
        passwords = resources.passwords
        verify = passwords.verify_and_upgrade

        def verify_slowly(password: str, stored: str | None) -> object:
            found = verify(password, stored)
            totp.confirm(resources, at(), enrolee, Authenticator(secret).code())
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(passwords, "verify_and_upgrade", verify_slowly)
            with pytest.raises(InvalidCredentials):
                somebody.log_in()
        assert first_step(somebody)


class TestPresented:
    def test_nothing_is_no_factor(self, resources: Resources) -> None:
        somebody = person(resources)
        enrol(somebody)
        with pytest.raises(InvalidFactor):
            mfa.log_in(resources, at(STEP), first_step(somebody), Presented())

    def test_an_account_that_is_gone(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        token = first_step(somebody)
        somebody.query("DELETE FROM accounts RETURNING 1")
        with pytest.raises(InvalidMfaToken):
            second_step(somebody, token, totp=app.code(STEP))

    def test_a_secret_that_no_key_opens_is_no_factor(self, make_resources: Callable[..., Resources]) -> None:
        """The key was lost: fail closed, and the other factors work."""
        resources = make_resources()
        somebody = person(resources)
        app = enrol(somebody)
        other = make_resources(secret_keys=("another-secret-0123456789abcdefghijklmnop",))
        somebody.resources = other
        with pytest.raises(InvalidFactor):
            second_step(somebody, first_step(somebody), totp=app.code(STEP))
        step = second_step(somebody, first_step(somebody), recovery_code=app.recovery_codes[0])
        assert step.tokens.expires_in > 0

"""Passkeys beside other factors, and against changes of the account in the same moment."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.mfa import factors
from tests.passkeys.authenticator import Authenticator
from tests.verification.people import Person, at, query, together

from auth_manager.errors import (
    AuthError,
    DatabaseUnavailable,
    FactorNeeded,
    InvalidFields,
    InvalidPasskey,
    MfaEnrolmentRequired,
    MfaRequired,
    TooManyAttempts,
)
from auth_manager.factors.changes import Enrolee, enrolee_of
from auth_manager.passkeys import service
from auth_manager.passkeys.service import Registered
from auth_manager.resources import Resources
from auth_manager.sessions.service import TokenGrant
from auth_manager.tokens import AccessClaims

Make = Callable[..., Resources]


def add_passkey(
    person: Person, authenticator: Authenticator, claims: AccessClaims | None = None, **more: Any
) -> Registered:
    enrolee = enrolee_of(person.resources, at(), claims or person.claims())
    ceremony = service.registration_options(person.resources, at(), enrolee)
    credential = authenticator.create(ceremony.options)
    return service.register(person.resources, at(), enrolee, ceremony.request, credential, **more)


def present(person: Person, authenticator: Authenticator, *, seconds: float = 0) -> Callable[[], TokenGrant]:
    """Sign the options of a sign-in; return what sends it."""
    ceremony = service.authentication_options(person.resources, at(seconds))
    credential = authenticator.get(ceremony.options)
    return lambda: service.log_in(person.resources, at(seconds), ceremony.request, credential)


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator()


class TestRegister:
    def test_within_an_enrolment(self, resources: Resources, authenticator: Authenticator) -> None:
        """Without a session, there is none to renew; the guard is asked both times."""
        person = factors.person(resources)
        asked: list[object] = []
        enrolee = Enrolee(factors.account_id(person), "registration:ticket", asked.append)
        ceremony = service.registration_options(resources, at(), enrolee)
        registered = service.register(
            resources, at(), enrolee, ceremony.request, authenticator.create(ceremony.options)
        )
        assert len(asked) == 3
        assert len(registered.recovery_codes) == 10
        assert person.events()[-1][:2] == ("passkey_added", "success")

    def test_is_bound_to_its_context(self, resources: Resources, authenticator: Authenticator) -> None:
        person = factors.person(resources)
        enrolees = [
            Enrolee(factors.account_id(person), f"registration:{name}", lambda _: None) for name in "ab"
        ]
        ceremony = service.registration_options(resources, at(), enrolees[0])
        credential = authenticator.create(ceremony.options)
        with pytest.raises(InvalidFields):
            service.register(resources, at(), enrolees[1], ceremony.request, credential)
        service.register(resources, at(), enrolees[0], ceremony.request, credential)

    def test_of_sixteen_parallel_uses_of_a_challenge_one_counts(self, resources: Resources) -> None:
        person = factors.person(resources)
        enrolee = enrolee_of(resources, at(), person.claims())
        ceremony = service.registration_options(resources, at(), enrolee)
        made = [Authenticator().create(ceremony.options) for _ in range(16)]
        outcomes = together(
            [partial(service.register, resources, at(), enrolee, ceremony.request, each) for each in made]
        )
        assert sum(isinstance(outcome, Registered) for outcome in outcomes) == 1
        refused = [outcome for outcome in outcomes if not isinstance(outcome, Registered)]
        assert all(isinstance(outcome, InvalidFields) for outcome in refused)
        assert query(resources, "SELECT count(*) AS n FROM passkeys") == [{"n": 1}]
        assert query(resources, "SELECT count(*) AS n FROM recovery_codes") == [{"n": 10}]

    def test_beside_an_authenticator_app_brings_no_new_codes(
        self, resources: Resources, authenticator: Authenticator
    ) -> None:
        person = factors.person(resources)
        claims = person.claims()
        factors.enrol(person, claims)
        assert add_passkey(person, authenticator, claims).recovery_codes == []


class TestLogIn:
    def test_a_verified_user_is_asked_for_nothing_else(
        self, resources: Resources, authenticator: Authenticator
    ) -> None:
        person = factors.person(resources)
        claims = person.claims()
        factors.enrol(person, claims)
        add_passkey(person, authenticator, claims)
        granted = person.claims(present(person, authenticator)())
        assert (granted.acr, granted.amr) == ("aal2", ("mfa", "pop", "user"))

    def test_without_verification_an_app_is_asked_for_where_there_is_one(
        self, make_resources: Make, authenticator: Authenticator
    ) -> None:
        resources = make_resources(passkey_user_verification="discouraged")
        person = factors.person(resources)
        claims = person.claims()
        app = factors.enrol(person, claims)
        add_passkey(person, authenticator, claims)
        authenticator.verifies_user = False

        with pytest.raises(MfaRequired) as raised:
            present(person, authenticator)()

        assert raised.value.members["factors"] == ["totp", "recovery_code"]
        token = str(raised.value.members["mfa_token"])
        step = factors.second_step(person, token, totp=app.code(factors.STEP))
        granted = factors.claims_of(person, step)
        assert (granted.acr, granted.amr) == ("aal2", ("mfa", "otp", "pop"))

    def test_a_passkey_alone_meets_a_policy_that_asks_for_two_factors(
        self, make_resources: Make, authenticator: Authenticator
    ) -> None:
        person = factors.person(make_resources())
        add_passkey(person, authenticator)
        strict = Person(make_resources(mfa_policy="required"), email=person.email)
        assert person.claims(present(strict, authenticator)()).acr == "aal2"
        with pytest.raises(MfaEnrolmentRequired):
            factors.person(strict.resources, "other@example.com").log_in()

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE accounts SET factors_changed_at = now() + interval '1 s' RETURNING 1",
            "UPDATE accounts SET password_changed_at = now() RETURNING 1",
            "UPDATE accounts SET disabled_at = now() RETURNING 1",
            "DELETE FROM passkeys RETURNING 1",
        ],
        ids=["factors", "password", "disabled", "removed"],
    )
    def test_a_change_while_the_signature_was_verified_is_seen(
        self,
        resources: Resources,
        authenticator: Authenticator,
        monkeypatch: pytest.MonkeyPatch,
        change: str,
    ) -> None:
        """The library is where the time goes: the account changes just there."""
        import webauthn

        person = factors.person(resources)
        add_passkey(person, authenticator)
        send, verify = present(person, authenticator), webauthn.verify_authentication_response

        def slowly(**arguments: Any) -> Any:
            person.query(change)
            return verify(**arguments)

        monkeypatch.setattr(webauthn, "verify_authentication_response", slowly)
        with pytest.raises(InvalidPasskey):
            send()
        sessions = "SELECT count(*) AS n FROM sessions WHERE 'pop' = ANY(amr) AND NOT 'pwd' = ANY(amr)"
        assert query(resources, sessions) == [{"n": 0}]
        assert person.events()[-1] == ("logged_in_by_passkey", "failure", "invalid_passkey")

    def test_five_hundred_guesses_reach_the_lock_and_no_further(
        self, make_resources: Make, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import webauthn

        resources = make_resources(
            login_attempts_per_address=1000,
            login_failures_before_delay=20,
            login_failures_before_lock=20,
        )
        person = factors.person(resources)
        add_passkey(person, authenticator)
        ceremony = service.authentication_options(resources, at())
        wrong = authenticator.get(ceremony.options, type_="webauthn.create")
        verified, verify = [], webauthn.verify_authentication_response

        def counting(**arguments: Any) -> Any:
            verified.append(1)
            return verify(**arguments)

        monkeypatch.setattr(webauthn, "verify_authentication_response", counting)
        outcomes = together([lambda: service.log_in(resources, at(), ceremony.request, wrong)] * 500)

        assert len(verified) == 20
        assert sum(isinstance(outcome, InvalidPasskey) for outcome in outcomes) == 20
        assert sum(isinstance(outcome, TooManyAttempts) for outcome in outcomes) == 480

    def test_beside_a_removal_in_the_same_moment_nothing_waits_for_ever(self, make_resources: Make) -> None:
        """Both lock the account before the passkey."""
        resources = make_resources(database_pool_size=8, login_failures_before_delay=100)
        person = factors.person(resources)
        claims = person.claims()
        for _ in range(8):
            authenticator = Authenticator()
            passkey_id = add_passkey(person, authenticator, claims).passkey.id
            sends = [present(person, authenticator) for _ in range(6)]
            outcomes = together(
                [
                    *sends[:3],
                    partial(service.remove, resources, at(), claims, passkey_id),
                    *sends[3:],
                ]
            )
            unexpected = [
                outcome
                for outcome in outcomes
                if not (outcome is None or isinstance(outcome, TokenGrant | AuthError))
                or isinstance(outcome, DatabaseUnavailable)
            ]
            assert unexpected == []


class TestRemove:
    def test_of_parallel_removals_one_is_refused_by_policy(self, make_resources: Make) -> None:
        """Each locks the account before it counts what is left."""
        person = factors.person(make_resources())
        claims = person.claims()
        added = [add_passkey(person, Authenticator(), claims).passkey.id for _ in range(12)]
        strict = make_resources(mfa_policy="required", database_pool_size=12)

        outcomes = together([partial(service.remove, strict, at(), claims, each) for each in added])

        assert sum(outcome is None for outcome in outcomes) == 11
        assert sum(isinstance(outcome, FactorNeeded) for outcome in outcomes) == 1
        assert query(strict, "SELECT count(*) AS n FROM passkeys") == [{"n": 1}]

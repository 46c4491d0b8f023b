"""Signing in by mail."""

from collections.abc import Callable

import pytest
from tests.verification.people import EMAIL, Person, at

from auth_manager.email_login.service import log_in, start
from auth_manager.errors import (
    AccountDisabled,
    InvalidCredentials,
    InvalidOneTimeSecret,
    SessionEnded,
    TooManyAttempts,
)
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.verification import service as verification

Make = Callable[..., Resources]
forms = pytest.mark.parametrize("form", ["token", "code"])


class TestLogIn:
    @forms
    def test_it_opens_a_session(self, resources: Resources, form: str) -> None:
        person = Person(resources).register().verified()
        made = person.token if form == "token" else person.code

        grant = log_in(resources, at(), made(Purpose.EMAIL_LOGIN, start(resources, at(), EMAIL)))

        claims = person.claims(grant)
        assert (claims.amr, claims.acr, claims.sid) == (("otp",), "aal1", grant.session_id)
        assert grant.account.email == EMAIL
        assert sessions.refresh(resources, at(), grant.refresh_token).session_id == grant.session_id
        assert person.events()[1:] == [
            ("email_login_requested", "success", None),
            ("logged_in_by_mail", "success", None),
        ]

    def test_a_verified_account_keeps_its_password_and_its_sessions(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        before = person.log_in()
        log_in(resources, at(), person.code(Purpose.EMAIL_LOGIN, start(resources, at(), EMAIL)))

        sessions.refresh(resources, at(), before.refresh_token)
        assert person.log_in().account.email == EMAIL

    @forms
    def test_whoever_registered_the_address_of_another_is_out(self, resources: Resources, form: str) -> None:
        """Pre-hijacking: an account that waits for its victim, who then signs in by mail."""
        intruder = Person(resources).register()
        theirs = intruder.log_in()
        pending = verification.change_email(resources, at(), intruder.claims(theirs), "intruder@example.com")
        made = intruder.token if form == "token" else intruder.code

        grant = log_in(resources, at(1), made(Purpose.EMAIL_LOGIN, start(resources, at(), EMAIL)))

        assert grant.account.id == theirs.account.id
        assert grant.account.email_verified_at == at(1).now
        with pytest.raises(InvalidCredentials):
            intruder.log_in()
        with pytest.raises(SessionEnded):
            sessions.refresh(resources, at(1), theirs.refresh_token)
        for proof in (intruder.token, intruder.code):
            with pytest.raises(InvalidOneTimeSecret):
                verification.verify_email(resources, at(1), proof(Purpose.CHANGE_EMAIL, pending))
        assert sessions.refresh(resources, at(1), grant.refresh_token).account.email_verified_at == at(1).now
        reasons = intruder.query("SELECT end_reason FROM sessions WHERE ended_at IS NOT NULL")
        assert [row["end_reason"] for row in reasons] == ["address_proven_by_another"]

    @forms
    def test_a_disabled_account_is_refused(self, resources: Resources, form: str) -> None:
        person = Person(resources).register()
        request = start(resources, at(), EMAIL)
        person.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        made = person.token if form == "token" else person.code

        with pytest.raises(AccountDisabled):
            log_in(resources, at(), made(Purpose.EMAIL_LOGIN, request))

        assert person.events()[-1] == ("logged_in_by_mail", "failure", "account_disabled")
        assert person.query("SELECT id FROM sessions") == []

    @forms
    def test_a_locked_account_is_refused(self, make_resources: Make, form: str) -> None:
        person = Person(
            make_resources(login_failures_before_delay=3, login_failures_before_lock=3)
        ).register()
        request = start(person.resources, at(), EMAIL)
        for _ in range(3):
            with pytest.raises(InvalidCredentials):
                person.log_in("not that one")
        made = person.token if form == "token" else person.code
        with pytest.raises(TooManyAttempts):
            log_in(person.resources, at(500), made(Purpose.EMAIL_LOGIN, request))
        assert person.query("SELECT id FROM sessions") == []

    def test_another_address_by_now_is_refused(self, resources: Resources) -> None:
        person = Person(resources).register()
        proof = person.token(Purpose.EMAIL_LOGIN, start(resources, at(), EMAIL))
        person.query("UPDATE accounts SET email_normalized = 'other@example.com' RETURNING 1")
        with pytest.raises(InvalidOneTimeSecret):
            log_in(resources, at(), proof)

    def test_other_open_requests_end(self, resources: Resources) -> None:
        person = Person(resources).register()
        used, left = (person.token(Purpose.EMAIL_LOGIN, start(resources, at(), EMAIL)) for _ in range(2))
        log_in(resources, at(), used)
        with pytest.raises(InvalidOneTimeSecret):
            log_in(resources, at(), left)

    def test_it_clears_the_failures(self, make_resources: Make) -> None:
        person = Person(make_resources(login_failures_before_delay=3)).register().verified()
        for _ in range(2):
            with pytest.raises(InvalidCredentials):
                person.log_in("not that one")
        resources = person.resources
        log_in(resources, at(), person.code(Purpose.EMAIL_LOGIN, start(resources, at(), EMAIL)))
        assert person.query("SELECT key FROM rate_limits WHERE key LIKE 'login:account:%%'") == []

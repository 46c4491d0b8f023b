"""Proving an address, and changing it."""

from collections.abc import Callable
from functools import partial

import pytest
from tests.verification.people import EMAIL, NEW_EMAIL, PASSWORD, Person, at, together

from auth_manager.accounts import Account
from auth_manager.errors import (
    EmailTaken,
    InvalidCredentials,
    InvalidOneTimeSecret,
    RecentAuthenticationRequired,
    SessionEnded,
)
from auth_manager.one_time_secrets import Purpose
from auth_manager.recovery import service as recovery
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.verification.service import change_email, mask, resend, verify_email

Make = Callable[..., Resources]


class TestVerifyEmail:
    @pytest.mark.parametrize("form", ["token", "code"])
    def test_the_mail_of_a_registration_proves_the_address(self, resources: Resources, form: str) -> None:
        person = Person(resources).register()
        made = person.token if form == "token" else person.code

        account = verify_email(resources, at(60), made(Purpose.VERIFY_EMAIL, person.verification))

        assert account.email_verified_at == at(60).now
        assert person.log_in().account == account
        assert person.events()[:2] == [("registered", "success", None), ("email_verified", "success", None)]

    def test_it_lets_in_where_addresses_must_be_verified(self, make_resources: Make) -> None:
        resources = make_resources(require_verified_email=True, reveal_unverified_email=False)
        person = Person(resources).register()
        with pytest.raises(InvalidCredentials):
            person.log_in()
        verify_email(resources, at(), person.code(Purpose.VERIFY_EMAIL, person.verification))
        assert person.log_in().account.email == EMAIL

    def test_a_disabled_account_is_refused(self, resources: Resources) -> None:
        person = Person(resources).register()
        person.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        proof = person.token(Purpose.VERIFY_EMAIL, person.verification)
        with pytest.raises(InvalidOneTimeSecret):
            verify_email(resources, at(), proof)
        assert person.query("SELECT id FROM one_time_secrets WHERE used_at IS NOT NULL") == []

    def test_a_wrong_code_is_in_the_audit_trail(self, resources: Resources) -> None:
        person = Person(resources).register()
        with pytest.raises(InvalidOneTimeSecret):
            verify_email(resources, at(), person.wrong(Purpose.VERIFY_EMAIL, person.verification))
        assert person.events()[-1] == ("code_presented", "failure", "verify_email")


class TestResend:
    def test_a_verified_account_gets_nothing(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        request = resend(resources, at(1), EMAIL)
        assert person.mails()[1:] == [("nothing", "", None)]
        with pytest.raises(InvalidOneTimeSecret):
            verify_email(resources, at(1), person.code(Purpose.VERIFY_EMAIL, request))


class TestChangeEmail:
    def test_the_old_address_counts_until_the_new_one_is_proven(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        newer = Person(resources, NEW_EMAIL)
        request = change_email(resources, at(1), person.claims(), NEW_EMAIL)

        assert person.log_in().account.email == EMAIL
        with pytest.raises(InvalidCredentials):
            newer.log_in()
        account = verify_email(resources, at(2), person.token(Purpose.CHANGE_EMAIL, request))

        assert (account.email, account.email_verified_at) == (NEW_EMAIL, at(2).now)
        assert newer.log_in().account == account
        with pytest.raises(InvalidCredentials):
            person.log_in()
        assert [mail for mail in person.mails() if mail[0] != "verify_email"] == [
            ("change_email", NEW_EMAIL, None),
            ("email_change_requested", EMAIL, None),
            ("email_changed", EMAIL, None),
        ]
        events = [event for event in person.events() if event[0] not in {"logged_in", "registered"}]
        assert events == [("change_email_requested", "success", None), ("email_changed", "success", None)]

    def test_notices_do_not_show_the_new_address(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        request = change_email(resources, at(), person.claims(), NEW_EMAIL)
        verify_email(resources, at(), person.token(Purpose.CHANGE_EMAIL, request))
        rows = person.query("SELECT details FROM outbox WHERE kind LIKE 'email_change%%'")
        assert [row["details"] for row in rows] == [{"new_email_masked": "n…@example.com"}] * 2

    def test_an_address_that_nobody_proved_gets_no_notice(self, resources: Resources) -> None:
        person = Person(resources).register()
        change_email(resources, at(1), person.claims(), NEW_EMAIL)
        assert person.mails()[1:] == [("change_email", NEW_EMAIL, None)]

    def test_the_accounts_language_comes_first(self, resources: Resources) -> None:
        person = Person(resources).register(locale="fr")
        change_email(resources, at(1, locale="en"), person.claims(), NEW_EMAIL)
        assert person.mails()[1:] == [("change_email", NEW_EMAIL, "fr")]

    def test_only_the_last_request_counts(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        first, last = (change_email(resources, at(), claims, f"{n}@example.com") for n in (1, 2))
        with pytest.raises(InvalidOneTimeSecret):
            verify_email(resources, at(), person.code(Purpose.CHANGE_EMAIL, first))
        assert verify_email(resources, at(), person.code(Purpose.CHANGE_EMAIL, last)).email == "2@example.com"

    def test_a_slow_clock_does_not_revive_the_one_before(self, resources: Resources) -> None:
        """What was retired by a process whose clock is an hour fast is over for the others too."""
        person = Person(resources).register()
        claims = person.claims()
        first = change_email(resources, at(), claims, "1@example.com")
        change_email(resources, at(899), claims, "2@example.com")
        with pytest.raises(InvalidOneTimeSecret):
            verify_email(resources, at(), person.code(Purpose.CHANGE_EMAIL, first))

    def test_what_was_mailed_to_the_old_address_is_over(self, resources: Resources) -> None:
        person = Person(resources).register()
        reset = recovery.start(resources, at(), EMAIL)
        request = change_email(resources, at(), person.claims(), NEW_EMAIL)
        verify_email(resources, at(), person.code(Purpose.CHANGE_EMAIL, request))

        for proof in (
            person.token(Purpose.VERIFY_EMAIL, person.verification),
            person.code(Purpose.VERIFY_EMAIL, person.verification),
        ):
            with pytest.raises(InvalidOneTimeSecret):
                verify_email(resources, at(), proof)
        with pytest.raises(InvalidOneTimeSecret):
            recovery.reset_password(
                resources, at(), person.token(Purpose.RESET_PASSWORD, reset), "AnotherPass456!"
            )

    def test_of_two_who_want_one_address_the_first_to_prove_it_has_it(self, resources: Resources) -> None:
        one, other = Person(resources, "one@example.com"), Person(resources, "other@example.com")
        proofs = []
        for person in (one, other):
            person.register()
            request = change_email(resources, at(), person.claims(), NEW_EMAIL)
            proofs.append(person.token(Purpose.CHANGE_EMAIL, request))

        outcomes = together([partial(verify_email, resources, at(), proof) for proof in proofs])

        assert {type(outcome) for outcome in outcomes} == {Account, EmailTaken}
        [used] = one.query("SELECT count(*) AS n FROM one_time_secrets WHERE used_at IS NOT NULL")
        assert used["n"] == 1, "the other one used nothing up"
        emails = {row["email"] for row in one.query("SELECT email FROM accounts")}
        assert NEW_EMAIL in emails
        assert len(emails) == 2

    def test_the_owner_of_a_taken_address_is_told_and_nobody_else(self, resources: Resources) -> None:
        owner = Person(resources, "Owner@example.com").register(locale="fr")
        person = Person(resources).register()
        request = change_email(resources, at(1, locale="en"), person.claims(), "owner@EXAMPLE.com")

        mails = [mail for mail in person.mails() if mail[0] != "verify_email"]
        assert mails == [("already_registered", "Owner@example.com", "fr")]
        [row] = person.query("SELECT secret_id FROM outbox WHERE kind = 'already_registered'")
        assert row["secret_id"] is None, "nor is there anything in it to present"
        with pytest.raises(EmailTaken):
            verify_email(resources, at(1), person.code(Purpose.CHANGE_EMAIL, request))
        assert owner.log_in().account.email == "Owner@example.com"

    def test_it_needs_a_recent_sign_in(self, resources: Resources) -> None:
        person = Person(resources).register()
        with pytest.raises(RecentAuthenticationRequired):
            change_email(resources, at(901), person.claims(), NEW_EMAIL)

    def test_it_needs_a_live_session(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        sessions.log_out(resources, at(), claims, "this")
        with pytest.raises(SessionEnded):
            change_email(resources, at(), claims, NEW_EMAIL)
        assert len(person.mails()) == 1

    def test_a_session_that_ended_takes_no_mail_from_the_recipient(self, make_resources: Make) -> None:
        resources = make_resources(mails_per_recipient=1, mail_requests_per_address=1)
        person = Person(resources).register()
        ended = person.claims()
        sessions.log_out(resources, at(), ended, "this")
        for _ in range(3):
            with pytest.raises(SessionEnded):
                change_email(resources, at(), ended, NEW_EMAIL)
        change_email(resources, at(1), person.claims(), NEW_EMAIL)
        assert ("change_email", NEW_EMAIL, None) in person.mails()

    def test_a_disabled_account_is_refused(self, resources: Resources) -> None:
        person = Person(resources).register()
        request = change_email(resources, at(), person.claims(), NEW_EMAIL)
        person.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        with pytest.raises(InvalidOneTimeSecret):
            verify_email(resources, at(), person.token(Purpose.CHANGE_EMAIL, request))


class TestMask:
    @pytest.mark.parametrize(
        ("email", "shown"),
        [("new@example.com", "n…@example.com"), ("é@example.com", "é…@example.com")],
    )
    def test_it_shows_one_letter(self, email: str, shown: str) -> None:
        assert mask(email) == shown


class TestPassword:
    def test_it_stays(self, resources: Resources) -> None:
        person = Person(resources).register()
        request = change_email(resources, at(), person.claims(), NEW_EMAIL)
        verify_email(resources, at(), person.token(Purpose.CHANGE_EMAIL, request))
        assert Person(resources, NEW_EMAIL).log_in(PASSWORD).account.email == NEW_EMAIL

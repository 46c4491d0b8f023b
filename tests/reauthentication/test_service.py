"""Authenticating again within a session."""

from collections.abc import Callable

import pytest
from tests.verification.people import EMAIL, PASSWORD, Person, at

from auth_manager.errors import (
    InvalidFields,
    InvalidOneTimeSecret,
    RecentAuthenticationRequired,
    SessionEnded,
    TooManyAttempts,
    TooManyRequests,
)
from auth_manager.one_time_secrets import Purpose
from auth_manager.reauthentication.service import Reauthenticated, by_code, by_password, start
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.verification import service as verification

Make = Callable[..., Resources]


class TestByPassword:
    def test_the_sign_in_is_recent_again(self, resources: Resources) -> None:
        person = Person(resources).register()
        grant = person.log_in()
        claims = person.claims(grant)
        late = at(3000)
        with pytest.raises(RecentAuthenticationRequired):
            verification.change_email(resources, late, claims, "new@example.com")

        renewed = by_password(resources, late, claims, PASSWORD)
        again = resources.access_tokens.verify(renewed.access_token, now=late.now)

        assert (again.sub, again.sid, again.amr) == (claims.sub, claims.sid, ("pwd",))
        assert again.auth_time == late.now.replace(microsecond=0)
        verification.change_email(resources, late, again, "new@example.com")
        sessions.refresh(resources, late, grant.refresh_token)
        assert ("reauthenticated", "success", None) in person.events()

    def test_a_refresh_keeps_it(self, resources: Resources) -> None:
        person = Person(resources).register()
        grant = person.log_in()
        by_password(resources, at(3000), person.claims(grant), PASSWORD)
        token = sessions.refresh(resources, at(3001), grant.refresh_token).access_token
        claims = resources.access_tokens.verify(token, now=at(3001).now)
        assert claims.auth_time == at(3000).now.replace(microsecond=0)

    def test_a_wrong_password_is_a_wrong_field_and_counts(self, make_resources: Make) -> None:
        person = Person(make_resources(login_failures_before_delay=3)).register()
        claims = person.claims()
        for _ in range(3):
            with pytest.raises(InvalidFields) as caught:
                by_password(person.resources, at(), claims, "not that one")
            assert [(e.pointer, e.code) for e in caught.value.errors] == [("/password", "password_wrong")]
        with pytest.raises(TooManyAttempts):
            by_password(person.resources, at(), claims, PASSWORD)
        assert ("reauthenticated", "failure", "password_wrong") in person.events()

    def test_a_session_that_ended_is_refused(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        sessions.log_out(resources, at(), claims, "this")
        with pytest.raises(SessionEnded):
            by_password(resources, at(), claims, PASSWORD)


class TestByCode:
    def test_the_code_of_a_mail_will_do(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        request = start(resources, at(1), claims)
        assert person.mails()[1:] == [("reauthenticate", EMAIL, None)]

        renewed = by_code(resources, at(2), claims, person.code(Purpose.REAUTHENTICATE, request))

        assert isinstance(renewed, Reauthenticated)
        again = resources.access_tokens.verify(renewed.access_token, now=at(2).now)
        assert set(again.amr) == {"otp", "pwd"}

    def test_it_belongs_to_the_session_that_asked(self, resources: Resources) -> None:
        person, stranger = Person(resources).register(), Person(resources, "other@example.com").register()
        claims = person.claims()
        proof = person.code(Purpose.REAUTHENTICATE, start(resources, at(), claims))

        for foreign in (person.claims(), stranger.claims()):
            with pytest.raises(InvalidOneTimeSecret):
                by_code(resources, at(), foreign, proof)
        by_code(resources, at(), claims, proof)

    def test_it_ends_with_the_session(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        proof = person.code(Purpose.REAUTHENTICATE, start(resources, at(), claims))
        sessions.log_out(resources, at(), claims, "this")
        with pytest.raises(SessionEnded):
            by_code(resources, at(), claims, proof)
        with pytest.raises(SessionEnded):
            start(resources, at(), claims)

    def test_an_account_asks_for_five_an_hour_whatever_its_address(self, resources: Resources) -> None:
        person, other = Person(resources).register(), Person(resources, "other@example.com").register()
        claims = person.claims()
        for _ in range(4):
            start(resources, at(), claims)
        request = verification.change_email(resources, at(), claims, "new@example.com")
        verification.verify_email(resources, at(), person.token(Purpose.CHANGE_EMAIL, request))
        start(resources, at(), claims)

        with pytest.raises(TooManyRequests) as caught:
            start(resources, at(1), claims)
        assert caught.value.retry_after == 3599
        start(resources, at(1), other.claims())
        assert len([mail for mail in person.mails() if mail[0] == "reauthenticate"]) == 6

    def test_a_session_that_ended_counts_nothing(self, make_resources: Make) -> None:
        """A stolen token of it keeps nobody from their mails."""
        resources = make_resources(mails_per_recipient=1)
        person = Person(resources).register()
        ended = person.claims()
        sessions.log_out(resources, at(), ended, "this")
        for _ in range(3):
            with pytest.raises(SessionEnded):
                start(resources, at(), ended)
        start(resources, at(), person.claims())

    def test_two_round_trips_are_enough(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        before = resources.database.round_trips
        start(resources, at(), claims)
        assert resources.database.round_trips - before == 2

    def test_a_locked_account_is_refused(self, make_resources: Make) -> None:
        person = Person(make_resources(login_failures_before_delay=3)).register()
        claims = person.claims()
        proof = person.code(Purpose.REAUTHENTICATE, start(person.resources, at(), claims))
        for _ in range(3):
            with pytest.raises(InvalidFields):
                by_password(person.resources, at(), claims, "not that one")
        with pytest.raises(TooManyAttempts):
            by_code(person.resources, at(), claims, proof)

"""What follows when an account's failures reach a limit."""

from collections.abc import Callable

import pytest
from tests.verification.people import EMAIL, Person, at

from auth_manager.errors import InvalidCredentials, InvalidOneTimeSecret
from auth_manager.one_time_secrets import Purpose
from auth_manager.reauthentication import service as reauthentication
from auth_manager.recovery import service as recovery
from auth_manager.resources import Resources


@pytest.fixture
def person(make_resources: Callable[..., Resources]) -> Person:
    resources = make_resources(login_failures_before_delay=3, login_failures_before_lock=4, login_delay=1)
    return Person(resources).register(locale="fr").verified()


def guess(person: Person, times: int, seconds: float = 0) -> None:
    for _ in range(times):
        with pytest.raises(InvalidCredentials):
            person.log_in("not that one", origin=at(seconds))


def notices(person: Person) -> list[tuple[str, str, str | None]]:
    return [mail for mail in person.mails() if mail[0] == "account_locked"]


class TestRecord:
    def test_the_owner_is_told_of_the_delay_and_of_the_lock(self, person: Person) -> None:
        guess(person, 2)
        assert notices(person) == []
        guess(person, 1)
        assert notices(person) == [("account_locked", EMAIL, "fr")]
        guess(person, 1, 5)
        rows = person.query("SELECT details FROM outbox WHERE kind = 'account_locked' ORDER BY created_at")
        assert [row["details"] for row in rows] == [
            {
                "at": at(seconds).now.isoformat(),
                "address": "203.0.113.7",
                "failures": failures,
                "of_factors": False,
            }
            for seconds, failures in ((0, 3), (5, 4))
        ]

    def test_codes_and_passwords_reach_it_together(self, person: Person) -> None:
        resources = person.resources
        guess(person, 2)
        request = recovery.start(resources, at(), EMAIL)
        with pytest.raises(InvalidOneTimeSecret):
            recovery.reset_password(
                resources, at(), person.wrong(Purpose.RESET_PASSWORD, request), "AnotherPass456!"
            )
        assert len(notices(person)) == 1
        assert person.events()[-2:] == [
            ("code_presented", "failure", "reset_password"),
            ("account_locked", "failure", "3"),
        ]

    def test_so_do_passwords_of_who_is_signed_in(self, person: Person) -> None:
        claims = person.claims()
        guess(person, 2)
        with pytest.raises(Exception, match="fields"):
            reauthentication.by_password(person.resources, at(), claims, "not that one")
        assert len(notices(person)) == 1

    def test_an_address_that_nobody_proved_gets_no_mail(self, person: Person) -> None:
        person.query("UPDATE accounts SET email_verified_at = NULL RETURNING 1")
        guess(person, 3)
        assert notices(person) == []
        assert person.events()[-1] == ("account_locked", "failure", "3")

    def test_neither_does_one_that_nobody_has(self, person: Person) -> None:
        stranger = Person(person.resources, "stranger@example.com")
        guess(stranger, 3)
        assert notices(person) == []
        assert person.events()[-1] == ("account_locked", "failure", "3")

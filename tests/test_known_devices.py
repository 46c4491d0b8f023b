"""Sign-ins from a device that an account does not know."""

from collections.abc import Callable

import pytest
from tests.verification.people import EMAIL, Person, at, together

from auth_manager.email_login import service as email_login
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0"
CHROME = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36"


def sign_in(person: Person, user_agent: str, seconds: float = 0, locale: str | None = None) -> None:
    person.log_in(origin=at(seconds, user_agent=user_agent, locale=locale))


def notices(person: Person) -> list[tuple[str, str, str | None]]:
    return [mail for mail in person.mails() if mail[0] == "new_sign_in"]


class TestGreet:
    def test_the_first_device_is_no_news_and_each_other_one_is_once(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        sign_in(person, FIREFOX.format(120))
        assert notices(person) == []
        for _ in range(3):
            sign_in(person, CHROME, 5, locale="fr")
            sign_in(person, FIREFOX.format(120), 6)
        assert notices(person) == [("new_sign_in", EMAIL, "fr")]
        [row] = person.query("SELECT details, relay_after FROM outbox WHERE kind = 'new_sign_in'")
        assert row["details"] == {
            "at": at(5).now.isoformat(),
            "address": "203.0.113.7",
            "user_agent": CHROME,
        }
        assert row["relay_after"] == at(5).now, "nobody hands it over but the relay, which need not wait"

    def test_an_update_of_a_browser_is_the_same_device(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        for version in (120, 121, 122):
            sign_in(person, FIREFOX.format(version))
        assert notices(person) == []

    def test_an_address_that_nobody_proved_gets_no_mail(self, resources: Resources) -> None:
        person = Person(resources).register()
        sign_in(person, CHROME)
        sign_in(person, FIREFOX)
        assert notices(person) == []

    def test_a_team_can_do_without(self, make_resources: Callable[..., Resources]) -> None:
        person = Person(make_resources(notify_new_device=False)).register().verified()
        sign_in(person, CHROME)
        sign_in(person, FIREFOX)
        assert notices(person) == []

    def test_a_sign_in_by_mail_counts_too(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        sign_in(person, FIREFOX)
        proof = person.code(Purpose.EMAIL_LOGIN, email_login.start(resources, at(), EMAIL))
        email_login.log_in(resources, at(user_agent=CHROME), proof)
        assert len(notices(person)) == 1

    def test_a_wrong_password_makes_no_device_known(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        sign_in(person, FIREFOX)
        with pytest.raises(Exception, match="not valid"):
            person.log_in("not that one", origin=at(user_agent=CHROME))
        sign_in(person, CHROME)
        assert len(notices(person)) == 1

    def test_of_many_at_once_one_is_news(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        sign_in(person, FIREFOX)
        assert together([lambda: sign_in(person, CHROME)] * 8) == [None] * 8
        assert len(notices(person)) == 1

    def test_the_table_does_not_tell_who_shares_a_device(self, resources: Resources) -> None:
        for email in ("a@example.com", "b@example.com"):
            sign_in(Person(resources, email).register(), CHROME)
        rows = Person(resources).query("SELECT device_hash FROM known_devices")
        assert len({bytes(row["device_hash"]) for row in rows}) == 2

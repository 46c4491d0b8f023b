"""Passwords: forgotten and reset, or changed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from tests.verification.people import EMAIL, NEW_EMAIL, NEW_PASSWORD, PASSWORD, Person, at, together

from auth_manager.email_login import service as email_login
from auth_manager.errors import (
    AccountDisabled,
    InvalidCredentials,
    InvalidFields,
    InvalidOneTimeSecret,
    SessionEnded,
    TooManyAttempts,
)
from auth_manager.one_time_secrets import Purpose
from auth_manager.recovery.service import change_password, reset_password, start
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.tokens import AccessClaims
from auth_manager.verification import service as verification

Make = Callable[..., Resources]


def live_sessions(person: Person) -> int:
    return len(person.query("SELECT id FROM sessions WHERE ended_at IS NULL"))


class TestResetPassword:
    @pytest.mark.parametrize("form", ["token", "code"])
    def test_the_new_password_is_in_force_and_the_old_one_is_not(
        self, resources: Resources, form: str
    ) -> None:
        person = Person(resources).register()
        request = start(resources, at(), EMAIL)
        made = person.token if form == "token" else person.code

        reset_password(resources, at(1), made(Purpose.RESET_PASSWORD, request), NEW_PASSWORD)

        assert person.log_in(NEW_PASSWORD).account.email == EMAIL
        with pytest.raises(InvalidCredentials):
            person.log_in(PASSWORD)
        assert person.mails()[1:] == [("reset_password", EMAIL, None), ("password_changed", EMAIL, None)]
        assert person.events()[1:3] == [
            ("reset_password_requested", "success", None),
            ("password_reset", "success", None),
        ]

    def test_every_session_ends(self, resources: Resources) -> None:
        person = Person(resources).register()
        grants = [person.log_in(), person.log_in()]
        proof = person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL))

        reset_password(resources, at(), proof, NEW_PASSWORD)

        assert live_sessions(person) == 0
        for grant in grants:
            with pytest.raises(SessionEnded):
                sessions.refresh(resources, at(), grant.refresh_token)
            with pytest.raises(SessionEnded):
                sessions.list_sessions(resources, at(), person.claims(grant), limit=1, cursor=None)

    def test_it_proves_the_address(self, resources: Resources) -> None:
        person = Person(resources).register()
        proof = person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL))
        reset_password(resources, at(7), proof, NEW_PASSWORD)
        assert person.log_in(NEW_PASSWORD).account.email_verified_at == at(7).now

    def test_a_link_opens_a_locked_account(self, make_resources: Make) -> None:
        person = Person(make_resources(login_failures_before_delay=3)).register()
        request = start(person.resources, at(), EMAIL)
        for _ in range(3):
            with pytest.raises(InvalidCredentials):
                person.log_in("not that one")
        with pytest.raises(TooManyAttempts):
            reset_password(person.resources, at(), person.code(Purpose.RESET_PASSWORD, request), NEW_PASSWORD)

        reset_password(person.resources, at(), person.token(Purpose.RESET_PASSWORD, request), NEW_PASSWORD)
        assert person.log_in(NEW_PASSWORD).account.email == EMAIL

    def test_it_enables_no_account(self, resources: Resources) -> None:
        person = Person(resources).register()
        proof = person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL))
        person.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        with pytest.raises(InvalidOneTimeSecret):
            reset_password(resources, at(), proof, NEW_PASSWORD)
        with pytest.raises(AccountDisabled):
            person.log_in(PASSWORD)

    @pytest.mark.parametrize("form", ["token", "code"])
    @pytest.mark.parametrize(
        ("password", "code"),
        [
            ("short", "password_too_short"),
            ("passwordpassword", "password_common"),
            ("theperson-person", "password_contains_context"),
            ("x" * 1025, "password_too_long"),
        ],
    )
    def test_a_weak_password_uses_nothing_up(
        self, resources: Resources, form: str, password: str, code: str
    ) -> None:
        person = Person(resources).register()
        request = start(resources, at(), EMAIL)
        proof = (person.token if form == "token" else person.code)(Purpose.RESET_PASSWORD, request)

        for _ in range(11):
            with pytest.raises(InvalidFields) as caught:
                reset_password(resources, at(), proof, password)
            assert code in {error.code for error in caught.value.errors}
            assert {error.pointer for error in caught.value.errors} == {"/password"}
        reset_password(resources, at(100), proof, NEW_PASSWORD)

    def test_other_open_requests_end(self, resources: Resources) -> None:
        person = Person(resources).register()
        used, left = (person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL)) for _ in range(2))
        reset_password(resources, at(), used, NEW_PASSWORD)
        with pytest.raises(InvalidOneTimeSecret):
            reset_password(resources, at(), left, PASSWORD)

    def test_a_pending_change_of_address_ends(self, resources: Resources) -> None:
        """Whoever was signed in with the old password asked for it, and would get the account back by it."""
        person = Person(resources).register()
        pending = verification.change_email(resources, at(), person.claims(), "intruder@example.com")
        proof = person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL))

        reset_password(resources, at(), proof, NEW_PASSWORD)

        for form in (person.token, person.code):
            with pytest.raises(InvalidOneTimeSecret):
                verification.verify_email(resources, at(), form(Purpose.CHANGE_EMAIL, pending))

    def test_another_address_by_now_is_refused(self, resources: Resources) -> None:
        person = Person(resources).register()
        proof = person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL))
        person.query(
            f"UPDATE accounts SET email = '{NEW_EMAIL}', email_normalized = '{NEW_EMAIL}' RETURNING 1"
        )
        with pytest.raises(InvalidOneTimeSecret):
            reset_password(resources, at(), proof, NEW_PASSWORD)


def change(
    person: Person, claims: AccessClaims, current: str = PASSWORD, new: str = NEW_PASSWORD, **options: bool
) -> None:
    change_password(
        person.resources,
        at(),
        claims,
        current_password=current,
        new_password=new,
        end_other_sessions=options.get("end_other_sessions", True),
    )


class TestChangePassword:
    @pytest.mark.parametrize(("end_other_sessions", "left"), [(True, 1), (False, 3)])
    def test_other_sessions_end_unless_asked_otherwise(
        self, resources: Resources, left: int, *, end_other_sessions: bool
    ) -> None:
        person = Person(resources).register().verified()
        own, other, _ = person.log_in(), person.log_in(), person.log_in()

        change(person, person.claims(own), end_other_sessions=end_other_sessions)

        assert live_sessions(person) == left
        sessions.refresh(resources, at(), own.refresh_token)
        if end_other_sessions:
            with pytest.raises(SessionEnded):
                sessions.refresh(resources, at(), other.refresh_token)
        assert person.log_in(NEW_PASSWORD).account.email == EMAIL
        with pytest.raises(InvalidCredentials):
            person.log_in(PASSWORD)
        assert person.mails()[1:] == [("password_changed", EMAIL, None)]
        assert ("password_changed", "success", None) in person.events()

    def test_a_wrong_one_is_a_wrong_field_and_counts(self, make_resources: Make) -> None:
        person = Person(make_resources(login_failures_before_delay=3)).register()
        claims = person.claims()
        for _ in range(3):
            with pytest.raises(InvalidFields) as caught:
                change(person, claims, current="not that one")
            assert [(e.pointer, e.code) for e in caught.value.errors] == [
                ("/current_password", "password_wrong")
            ]
        with pytest.raises(TooManyAttempts):
            change(person, claims)

    @pytest.mark.parametrize("new", ["short", "passwordpassword", "theperson-person"])
    def test_a_weak_one_changes_nothing(self, resources: Resources, new: str) -> None:
        person = Person(resources).register()
        claims = person.claims()
        for _ in range(11):
            with pytest.raises(InvalidFields) as caught:
                change(person, claims, new=new)
            assert {error.pointer for error in caught.value.errors} == {"/new_password"}
        assert person.log_in().account.email == EMAIL

    def test_open_resets_end(self, resources: Resources) -> None:
        person = Person(resources).register()
        proof = person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL))
        change(person, person.claims())
        with pytest.raises(InvalidOneTimeSecret):
            reset_password(resources, at(), proof, PASSWORD)

    def test_of_two_at_once_one_wins(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = [person.claims(), person.claims()]
        news = ["AnotherPass456!", "ThirdPassword789!"]

        outcomes = together(
            [
                partial(change, person, each, new=new, end_other_sessions=False)
                for each, new in zip(claims, news, strict=True)
            ]
        )

        won = [new for outcome, new in zip(outcomes, news, strict=True) if outcome is None]
        assert all(
            outcome is None or isinstance(outcome, (SessionEnded, InvalidFields)) for outcome in outcomes
        )
        assert won
        works = [new for new in news if can_log_in(person, new)]
        assert len(works) == 1
        assert works[0] in won


def can_log_in(person: Person, password: str) -> bool:
    try:
        person.log_in(password)
    except InvalidCredentials:
        return False
    return True


class TestLockOrder:
    """A login locks the counter, then the account: in another order each could wait for the other."""

    @pytest.mark.parametrize("what", ["reset", "sign-in by mail", "change"])
    def test_who_waits_for_the_account_holds_the_counter(self, resources: Resources, what: str) -> None:
        person = Person(resources).register().verified()
        claims = person.claims()
        reset = person.token(Purpose.RESET_PASSWORD, start(resources, at(), EMAIL))
        login = person.code(Purpose.EMAIL_LOGIN, email_login.start(resources, at(), EMAIL))
        actions: dict[str, Callable[[], object]] = {
            "reset": partial(reset_password, resources, at(), reset, NEW_PASSWORD),
            "sign-in by mail": partial(email_login.log_in, resources, at(), login),
            "change": partial(change, person, claims),
        }
        with pytest.raises(InvalidCredentials):
            person.log_in("not that one")

        with ThreadPoolExecutor(1) as pool:
            with resources.database.transaction() as connection:
                connection.fetch_all("SELECT id FROM accounts FOR UPDATE")
                done = pool.submit(actions[what])
                wait_until(lambda: len(person.query(WAITING)) == 1)
                assert person.query(FREE_COUNTERS) == []
            done.result(10)


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
FREE_COUNTERS = "SELECT key FROM rate_limits WHERE key LIKE 'login:account:%%' FOR UPDATE SKIP LOCKED"


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 5
    while not holds() and time.monotonic() < give_up_at:
        time.sleep(0.002)
    assert holds()

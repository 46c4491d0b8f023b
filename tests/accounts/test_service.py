"""Accounts over time: recent authentication, many registrations at once, operators' accounts."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from auth_manager.accounts.service import (
    ProfilePatch,
    Registered,
    Registration,
    change_profile,
    create_verified,
    get_profile,
    register,
)
from auth_manager.audit import Origin
from auth_manager.database import Row
from auth_manager.erasure.service import delete_own_account
from auth_manager.errors import (
    EmailTaken,
    InvalidFields,
    RecentAuthenticationRequired,
    SessionEnded,
    TooManyRequests,
    UsernameTaken,
)
from auth_manager.login.service import log_in
from auth_manager.resources import Resources
from auth_manager.sessions.service import refresh
from auth_manager.tokens import AccessClaims
from auth_manager.verification.service import resend
from auth_manager.web.problems import problem

Query = Callable[..., list[Row]]
Make = Callable[..., Resources]

EMAIL = "test@example.com"
PASSWORD = "SecurePass123!"
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(seconds: float = 0, address: str | None = "203.0.113.7") -> Origin:
    return Origin(address, "pytest", "request", NOW + timedelta(seconds=seconds))


def sign_in(resources: Resources) -> tuple[AccessClaims, str]:
    """Register and log in; return the claims and the refresh token."""
    register(resources, at(), Registration(EMAIL, PASSWORD))
    grant = log_in(resources, at(), identifier=EMAIL, password=PASSWORD)
    return resources.access_tokens.verify(grant.access_token, now=NOW), grant.refresh_token


class TestRegister:
    def test_of_many_at_once_one_account_is_made(self, resources: Resources, query: Query) -> None:
        def attempt(number: int) -> str:
            email = EMAIL.upper() if number % 2 else EMAIL
            try:
                register(resources, at(), Registration(email, PASSWORD, f"user{number}"))
            except EmailTaken:
                return "taken"
            return "created"

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(attempt, range(16)))
        assert sorted(outcomes) == ["created"] + ["taken"] * 15
        assert query("SELECT count(*) AS n FROM accounts") == [{"n": 1}]
        assert query("SELECT count(*) AS n FROM outbox") == [{"n": 1}]

    def test_the_limit_is_for_each_address_and_window(self, make_resources: Callable[..., Resources]) -> None:
        resources = make_resources(registrations_per_address=1, registration_window=600)

        def attempt(number: int, seconds: float, address: str) -> Registered:
            return register(resources, at(seconds, address), Registration(f"{number}@example.com", PASSWORD))

        attempt(1, 0, "2001:db8::1")
        with pytest.raises(TooManyRequests) as caught:
            attempt(2, 0.5, "2001:db8::2")
        assert caught.value.retry_after == 600
        attempt(3, 0.5, "2001:db8:0:1::1")
        attempt(4, 600, "2001:db8::2")

    def test_the_limit_comes_before_the_hash(self, make_resources: Callable[..., Resources]) -> None:
        """Hashing is what an attacker would make us do: a refusal does not even wait for its turn."""
        resources = make_resources(registrations_per_address=1, hash_concurrency=1)
        register(resources, at(), Registration(EMAIL, PASSWORD))
        with resources.passwords._slots, pytest.raises(TooManyRequests):
            register(resources, at(), Registration("other@example.com", PASSWORD))


class TestMailsOfRegistrations:
    """Registering and deleting an account in turn is no way to send its address mails without end."""

    def registered_and_mailed(
        self, resources: Resources, query: Query, email: str = EMAIL, *, seconds: float = 0
    ) -> bool:
        """Register, look whether a mail is there, and leave no account behind."""
        handed: list[UUID] = []
        registered = register(
            replace(resources, hand_over=handed.extend), at(seconds), Registration(email, PASSWORD)
        )
        assert registered.account is not None
        [account] = query("SELECT id FROM accounts")
        assert account["id"] == registered.account.id
        [secret] = query("SELECT id FROM one_time_secrets")
        assert secret["id"] == registered.verification
        mails = [row["id"] for row in query("SELECT id FROM outbox")]
        assert mails == handed, "what is there is handed over, and nothing else"
        grant = log_in(resources, at(seconds), identifier=email, password=PASSWORD)
        claims = resources.access_tokens.verify(grant.access_token, now=at(seconds).now)
        delete_own_account(resources, at(seconds), claims)
        assert query("SELECT id FROM accounts") == query("SELECT id FROM outbox") == []
        return bool(mails)

    def test_a_recipient_gets_five_an_hour(self, resources: Resources, query: Query) -> None:
        spellings = [EMAIL, EMAIL.upper(), EMAIL, EMAIL, EMAIL, EMAIL.upper(), EMAIL]
        mailed = [self.registered_and_mailed(resources, query, email) for email in spellings]

        assert mailed == [True] * 5 + [False] * 2
        assert self.registered_and_mailed(resources, query, "another@example.com")
        assert not self.registered_and_mailed(resources, query, seconds=800)

    def test_the_next_hour_begins_anew(self, make_resources: Make, query: Query) -> None:
        resources = make_resources(mails_per_recipient=1, mail_window=600)
        mailed = [self.registered_and_mailed(resources, query, seconds=s) for s in (0, 599, 600, 601)]
        assert mailed == [True, False, True, False]

    def test_what_fails_counts_nothing(self, make_resources: Make, query: Query) -> None:
        resources = make_resources(mails_per_recipient=2)
        register(resources, at(), Registration("first@example.com", PASSWORD, "taken"))
        for _ in range(3):
            with pytest.raises(UsernameTaken):
                register(resources, at(), Registration(EMAIL, PASSWORD, "taken"))
            with pytest.raises(EmailTaken):
                register(resources, at(), Registration("first@example.com", PASSWORD))
        counts = query("SELECT count FROM rate_limits WHERE key LIKE 'mail:%%'")
        assert [row["count"] for row in counts] == [1]
        register(resources, at(), Registration(EMAIL, PASSWORD))
        assert len(query("SELECT id FROM outbox")) == 2

    def test_the_limit_costs_no_round_trip(self, make_resources: Make, query: Query) -> None:
        resources = make_resources(mails_per_recipient=1)
        assert self.registered_and_mailed(resources, query)
        before = resources.database.round_trips
        register(resources, at(), Registration(EMAIL, PASSWORD))
        assert resources.database.round_trips - before == 2

    def test_who_got_none_can_ask_for_it(self, make_resources: Make, query: Query) -> None:
        resources = make_resources(mails_per_recipient=1)
        assert self.registered_and_mailed(resources, query)
        register(resources, at(), Registration(EMAIL, PASSWORD))
        assert query("SELECT id FROM outbox") == []
        resend(resources, at(), EMAIL)
        assert [row["kind"] for row in query("SELECT kind FROM outbox")] == ["verify_email"]


class TestCreateVerified:
    def test_an_operators_word_verifies_and_grants(self, resources: Resources, query: Query) -> None:
        account = create_verified(
            resources, at(address=None), Registration(EMAIL, PASSWORD, "testuser"), roles=["admin"]
        )
        assert account.roles == ("admin",)
        assert account.email_verified_at == NOW
        grant = log_in(resources, at(), identifier="testuser", password=PASSWORD)
        assert grant.account == account
        [event] = query("SELECT event, account_id, address FROM audit_events WHERE event LIKE 'account%%'")
        assert event == {"event": "account_created", "account_id": account.id, "address": None}
        assert query("SELECT id FROM outbox") == []

    def test_the_rules_of_registration_hold(self, resources: Resources, query: Query) -> None:
        with pytest.raises(InvalidFields):
            create_verified(resources, at(), Registration(EMAIL, "short"))
        create_verified(resources, at(), Registration(EMAIL, PASSWORD, "testuser"))
        with pytest.raises(EmailTaken):
            create_verified(resources, at(), Registration(EMAIL.upper(), PASSWORD))
        with pytest.raises(UsernameTaken):
            create_verified(resources, at(), Registration("b@example.com", PASSWORD, "TestUser"), roles=["x"])
        assert query("SELECT count(*) AS n FROM audit_events") == [{"n": 1}]
        assert query("SELECT role FROM account_roles") == []


class TestRecentAuthentication:
    def test_a_sign_in_within_the_limit_is_recent(self, resources: Resources, query: Query) -> None:
        claims, _ = sign_in(resources)
        delete_own_account(resources, at(900), claims)
        assert query("SELECT id FROM accounts") == []

    def test_an_older_one_is_challenged_as_rfc_9470_says(self, resources: Resources, query: Query) -> None:
        claims, _ = sign_in(resources)
        with pytest.raises(RecentAuthenticationRequired) as caught:
            delete_own_account(resources, at(901), claims)
        response = problem(caught.value)
        assert response.status_code == 401
        challenge = response.headers["www-authenticate"]
        assert challenge.startswith('Bearer error="insufficient_user_authentication"')
        assert challenge.endswith('max_age="900"')
        assert len(query("SELECT id FROM accounts")) == 1

    def test_a_refresh_does_not_make_it_recent(self, resources: Resources) -> None:
        _, token = sign_in(resources)
        grant = refresh(resources, at(1000), token)
        claims = resources.access_tokens.verify(grant.access_token, now=at(1000).now)
        with pytest.raises(RecentAuthenticationRequired):
            delete_own_account(resources, at(1000), claims)


class TestEndedSessions:
    def test_no_profile_is_read_or_changed_after_the_end(self, resources: Resources) -> None:
        claims, _ = sign_in(resources)
        late = at(90 * 86_400)
        with pytest.raises(SessionEnded):
            get_profile(resources, late, claims)
        with pytest.raises(SessionEnded):
            change_profile(resources, late, claims, ProfilePatch(frozenset({"username"})))

    def test_a_second_deletion_finds_nothing(self, resources: Resources, query: Query) -> None:
        claims, _ = sign_in(resources)
        delete_own_account(resources, at(), claims)
        with pytest.raises(SessionEnded):
            delete_own_account(resources, at(), claims)
        assert len(query("SELECT id FROM audit_events WHERE event = 'account_deleted'")) == 1

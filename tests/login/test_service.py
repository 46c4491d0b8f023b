"""Logging in: limits over time, races between its two round trips, and better hashes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from argon2 import PasswordHasher
from passlib.hash import bcrypt

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.admin import service as admin
from auth_manager.audit import Origin
from auth_manager.database import Row
from auth_manager.directory.service import find_id
from auth_manager.errors import InvalidCredentials, NotFound, TooManyAttempts
from auth_manager.login.service import log_in
from auth_manager.passwords import Passwords, Verification
from auth_manager.resources import Resources
from auth_manager.sessions.service import TokenGrant
from auth_manager.settings import Settings

Query = Callable[..., list[Row]]

EMAIL = "test@example.com"
PASSWORD = "SecurePass123!"
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
LIMITS = {
    "login_failures_before_delay": 3,
    "login_failures_before_lock": 6,
    "login_delay": 30,
    "login_delay_maximum": 100,
}


def at(seconds: float = 0, address: str | None = "203.0.113.7") -> Origin:
    return Origin(address, "pytest", "request", NOW + timedelta(seconds=seconds))


@pytest.fixture
def limited(make_resources: Callable[..., Resources]) -> Resources:
    """Resources with tight limits, and one account."""
    resources = make_resources(**LIMITS)
    accounts.register(resources, at(), Registration(EMAIL, PASSWORD, "testuser"))
    return resources


def enter(
    resources: Resources, seconds: float = 0, *, address: str = "203.0.113.7", who: str = EMAIL
) -> TokenGrant:
    return log_in(resources, at(seconds, address), identifier=who, password=PASSWORD)


def guess(
    resources: Resources, seconds: float = 0, *, address: str = "203.0.113.7", who: str = EMAIL
) -> int | None:
    """Try a wrong password; return the Retry-After of a refusal, None when it was looked at."""
    try:
        log_in(resources, at(seconds, address), identifier=who, password="not the password")
    except TooManyAttempts as error:
        return error.retry_after
    except InvalidCredentials:
        return None
    raise AssertionError("a wrong password got in")


class TestAccountLimit:
    def test_delays_double_up_to_their_maximum_and_then_the_account_is_locked(
        self, limited: Resources
    ) -> None:
        assert [guess(limited), guess(limited), guess(limited)] == [None, None, None]
        assert [guess(limited), guess(limited, 29)] == [30, 1]
        assert [guess(limited, 30), guess(limited, 30)] == [None, 60]
        assert [guess(limited, 90), guess(limited, 90)] == [None, 100]
        assert [guess(limited, 190), guess(limited, 190)] == [None, 86_400]
        assert guess(limited, 86_400 * 30) == 86_400

    def test_the_right_password_does_not_pass_a_delay_or_a_lock(self, limited: Resources) -> None:
        for seconds in (0, 0, 0):
            guess(limited, seconds)
        with pytest.raises(TooManyAttempts) as caught:
            enter(limited, 10)
        assert caught.value.retry_after == 20
        for seconds in (30, 90, 190):
            guess(limited, seconds)
        with pytest.raises(TooManyAttempts):
            enter(limited, 86_400 * 30)

    def test_a_success_clears_the_failures(self, limited: Resources) -> None:
        guess(limited)
        guess(limited)
        enter(limited)
        assert [guess(limited), guess(limited), guess(limited), guess(limited)] == [None, None, None, 30]

    def test_every_identifier_of_an_account_counts_as_one(self, limited: Resources) -> None:
        assert [guess(limited, who=who) for who in (EMAIL, "testuser", "TestUser", EMAIL)] == [
            None,
            None,
            None,
            30,
        ]

    def test_addresses_of_attackers_do_not_matter(self, limited: Resources) -> None:
        tries = [guess(limited, address=f"198.51.100.{n}") for n in range(4)]
        assert tries == [None, None, None, 30]

    def test_parallel_guesses_cannot_outrun_the_counter(self, limited: Resources) -> None:
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: guess(limited), range(16)))
        assert outcomes.count(None) == 3
        assert set(outcomes) == {None, 30}

    def test_a_right_password_of_a_disabled_account_is_no_guess(
        self, limited: Resources, query: Query
    ) -> None:
        query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        for _ in range(8):
            with pytest.raises(Exception, match="disabled"):
                enter(limited)
        assert query("SELECT count FROM rate_limits WHERE key LIKE 'login:%%' AND count > 0") == []

    def test_delay_and_lock_are_in_the_audit_trail(self, limited: Resources, query: Query) -> None:
        for seconds in (0, 0, 0, 0, 30, 90, 190, 300):
            guess(limited, seconds)
        rows = query(
            "SELECT reason, outcome, account_id FROM audit_events WHERE event = 'account_locked' ORDER BY id"
        )
        assert [row["reason"] for row in rows] == ["3", "6"]
        assert {row["outcome"] for row in rows} == {"failure"}
        assert [row["account_id"] for row in rows] == [
            row["id"] for row in query("SELECT id FROM accounts")
        ] * 2


class TestAddressLimit:
    @pytest.fixture
    def narrow(self, make_resources: Callable[..., Resources]) -> Resources:
        """Three failures for each address in ten minutes."""
        resources = make_resources(login_attempts_per_address=3, login_address_window=600)
        accounts.register(resources, at(), Registration(EMAIL, PASSWORD, "testuser"))
        return resources

    def test_failures_of_all_identifiers_count_until_the_window_ends(self, narrow: Resources) -> None:
        tries = [guess(narrow, n, who=f"user{n}@example.com") for n in range(4)]
        assert tries == [None, None, None, 597]
        with pytest.raises(TooManyAttempts):
            enter(narrow, 599)
        assert enter(narrow, 600).account.email == EMAIL

    def test_another_address_is_not_held_up(self, narrow: Resources) -> None:
        for _ in range(4):
            guess(narrow, who="nobody@example.com")
        assert enter(narrow, address="203.0.113.8").account.email == EMAIL

    def test_successes_do_not_count(self, narrow: Resources) -> None:
        for _ in range(5):
            enter(narrow)
        assert guess(narrow) is None

    def test_a_refused_address_takes_nothing_from_the_account(self, narrow: Resources, query: Query) -> None:
        for _ in range(6):
            guess(narrow)
        rows = query("SELECT count FROM rate_limits WHERE key LIKE 'login:account:%%'")
        assert [row["count"] for row in rows] == [3]

    @pytest.mark.parametrize(
        ("addresses", "expected"),
        [
            (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1", "2001:db8::9"], [None, None, None, 600]),
            (["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"], [None, None, None, None]),
            (["203.0.113.9", "::ffff:203.0.113.9", "203.0.113.9", "203.0.113.9"], [None, None, None, 600]),
            (
                ["::ffff:203.0.113.1", "::ffff:203.0.113.2", "::ffff:203.0.113.3", "::ffff:203.0.113.4"],
                [None] * 4,
            ),
        ],
        ids=["one /64", "two /64", "IPv4 in IPv6 is the IPv4 address", "IPv4 in IPv6 is no /64"],
    )
    def test_an_ipv6_network_is_one_address(
        self, narrow: Resources, addresses: list[str], expected: list[int | None]
    ) -> None:
        assert [guess(narrow, address=a, who=f"{n}@example.com") for n, a in enumerate(addresses)] == expected

    def test_peers_without_an_address_share_one_limit(self, narrow: Resources) -> None:
        for _ in range(3):
            with pytest.raises(InvalidCredentials):
                log_in(narrow, at(0, None), identifier="nobody", password=PASSWORD)
        with pytest.raises(TooManyAttempts):
            log_in(narrow, at(0, None), identifier=EMAIL, password=PASSWORD)


class TestUnknownIdentifiers:
    def test_their_counter_does_not_keep_what_was_typed(self, limited: Resources, query: Query) -> None:
        guess(limited, who="hunter2@example.com")
        guess(limited, who="My Password!")
        keys = [row["key"] for row in query("SELECT key FROM rate_limits WHERE key LIKE 'login:unknown:%%'")]
        assert len(keys) == 2
        assert all(len(key) == len("login:unknown:") + 64 for key in keys)

    def test_spellings_of_one_address_are_one_counter(self, limited: Resources) -> None:
        spellings = ("no@example.com", "NO@example.com", "no@EXAMPLE.com", "No@Example.com")
        assert [guess(limited, who=who) for who in spellings] == [None, None, None, 30]


class MeanwhilePasswords(Passwords):
    """Runs something at the worst moment: after the password was checked, before the session is written."""

    def __init__(self, settings: Settings, meanwhile: Callable[[], object]) -> None:
        super().__init__(settings)
        self._meanwhile = meanwhile

    def verify_and_upgrade(self, password: str, stored_hash: str | None) -> Verification:
        verification = super().verify_and_upgrade(password, stored_hash)
        self._meanwhile()
        return verification


class TestRaces:
    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE accounts SET disabled_at = now() RETURNING 1",
            "UPDATE accounts SET password_hash = '!', password_changed_at = now() RETURNING 1",
            "DELETE FROM accounts RETURNING 1",
        ],
        ids=["disabled", "password changed", "deleted"],
    )
    def test_what_changed_after_the_check_is_refused(
        self, limited: Resources, query: Query, change: str
    ) -> None:
        passwords = MeanwhilePasswords(limited.settings, lambda: query(change))
        with pytest.raises(InvalidCredentials):
            enter(replace(limited, passwords=passwords))
        assert query("SELECT id FROM sessions") == []
        assert query("SELECT id FROM refresh_lines") == []
        assert query("SELECT outcome, reason FROM audit_events WHERE event = 'logged_in'") == [
            {"outcome": "failure", "reason": "invalid_credentials"}
        ]
        counters = query("SELECT count FROM rate_limits WHERE key LIKE 'login:account:%%'")
        assert [row["count"] for row in counters] == [1]

    def test_a_better_hash_never_overwrites_a_new_password(self, limited: Resources, query: Query) -> None:
        query("UPDATE accounts SET password_hash = %(hash)s RETURNING 1", hash=weak_hash())
        change = "UPDATE accounts SET password_hash = '!', password_changed_at = now() RETURNING 1"
        passwords = MeanwhilePasswords(limited.settings, lambda: query(change))
        with pytest.raises(InvalidCredentials):
            enter(replace(limited, passwords=passwords))
        assert query("SELECT password_hash FROM accounts") == [{"password_hash": "!"}]


def weak_hash() -> str:
    return PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)


class TestBetterHashes:
    @pytest.fixture(params=["weaker argon2", "bcrypt"])
    def stored(self, request: pytest.FixtureRequest) -> str:
        """A hash that another system or an older setting left behind."""
        return weak_hash() if request.param == "weaker argon2" else bcrypt.using(rounds=4).hash(PASSWORD)

    def test_a_login_replaces_a_weaker_hash(self, limited: Resources, query: Query, stored: str) -> None:
        query("UPDATE accounts SET password_hash = %(hash)s RETURNING 1", hash=stored)
        [before] = query("SELECT password_changed_at FROM accounts")
        enter(limited)
        [after] = query("SELECT password_hash, password_changed_at FROM accounts")
        assert after["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert after["password_changed_at"] == before["password_changed_at"]
        enter(limited)
        assert query("SELECT password_hash FROM accounts") == [{"password_hash": after["password_hash"]}]

    def test_a_wrong_password_replaces_nothing(self, limited: Resources, query: Query, stored: str) -> None:
        query("UPDATE accounts SET password_hash = %(hash)s RETURNING 1", hash=stored)
        guess(limited)
        assert query("SELECT password_hash FROM accounts") == [{"password_hash": stored}]


class TestUnlock:
    def unlock(self, resources: Resources, seconds: float, who: str) -> None:
        """As the command line does."""
        operator = replace(at(seconds, None), operator="tester")
        admin.unlock(resources, operator, None, find_id(resources, who))

    @pytest.mark.parametrize("who", [EMAIL, "TESTUSER"])
    def test_the_owner_can_log_in_at_once(self, limited: Resources, query: Query, who: str) -> None:
        for seconds in (0, 0, 0, 30, 90, 190):
            guess(limited, seconds)
        with pytest.raises(TooManyAttempts):
            enter(limited, 300)
        self.unlock(limited, 300, who)
        assert enter(limited, 300).account.email == EMAIL
        [row] = query("SELECT outcome, account_id FROM audit_events WHERE event = 'account_unlocked'")
        assert row["outcome"] == "success"
        assert row["account_id"] == enter(limited, 300).account.id

    @pytest.mark.parametrize("who", ["nobody@example.com", "nobody", "no identifier!", str(UUID(int=7))])
    def test_nobody_can_not_be_unlocked(self, limited: Resources, query: Query, who: str) -> None:
        with pytest.raises(NotFound):
            self.unlock(limited, 0, who)
        assert query("SELECT id FROM audit_events WHERE event = 'account_unlocked'") == []

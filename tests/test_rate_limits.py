"""Attempt limits as the database counts them; tests/login shows them in use."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from auth_manager.database import Database
from auth_manager.rate_limits import (
    Limit,
    account_key,
    address_key,
    clear,
    give_back,
    reserve,
    seconds_until,
    unknown_key,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Reserve = Callable[..., float | None]


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def tries(database: Database) -> Reserve:
    """Reserves one attempt; returns the seconds after NOW when another may come, None when it may go."""

    def run(limit: Limit, seconds: float = 0, key: str = "k") -> float | None:
        with database.one_trip() as connection:
            retry_at = reserve(connection, key, limit, after(seconds))
        return None if retry_at is None else (retry_at - NOW).total_seconds()

    return run


class TestReserve:
    def test_a_window_starts_with_its_first_attempt_and_ends(self, tries: Reserve) -> None:
        limit = Limit(maximum=2, window=MINUTE)
        assert [tries(limit, s) for s in (0, 30, 40, 59.9)] == [None, None, 60, 60]
        assert [tries(limit, s) for s in (60, 61, 62)] == [None, None, 120]

    def test_without_a_window_the_count_never_ends(self, tries: Reserve) -> None:
        limit = Limit(maximum=1)
        assert tries(limit) is None
        assert tries(limit, 86_400 * 365) == 86_400 * 366

    def test_delays_double_up_to_their_maximum(self, tries: Reserve) -> None:
        limit = Limit(maximum=100, free=2, delay=timedelta(seconds=10), delay_maximum=timedelta(seconds=35))
        assert [tries(limit), tries(limit), tries(limit)] == [None, None, 10]
        assert [tries(limit, 10), tries(limit, 29.9)] == [None, 30]
        assert [tries(limit, 30), tries(limit, 30)] == [None, 65]
        assert [tries(limit, 65), tries(limit, 65)] == [None, 100]

    def test_a_very_long_run_of_failures_is_no_overflow(self, tries: Reserve, database: Database) -> None:
        limit = Limit(maximum=10**6, free=1, delay=MINUTE, delay_maximum=MINUTE)
        tries(limit)
        with database.one_trip() as connection:
            connection.add("UPDATE rate_limits SET count = 999998")
        assert [tries(limit, 60), tries(limit, 60)] == [None, 120]

    def test_keys_do_not_share(self, tries: Reserve) -> None:
        limit = Limit(maximum=1, window=MINUTE)
        assert [tries(limit, key="a"), tries(limit, key="b"), tries(limit, key="a")] == [None, None, 60]

    def test_in_parallel_no_more_than_the_maximum_go_ahead(self, tries: Reserve) -> None:
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: tries(Limit(maximum=5, window=MINUTE)), range(40)))
        assert outcomes.count(None) == 5

    def test_a_reservation_given_back_is_free_and_never_under_zero(
        self, tries: Reserve, database: Database
    ) -> None:
        limit = Limit(maximum=1, window=MINUTE)
        tries(limit)
        for _ in range(3):
            with database.one_trip() as connection:
                give_back(connection, "k")
        assert [tries(limit), tries(limit)] == [None, 60]

    def test_clear_forgets(self, tries: Reserve, database: Database) -> None:
        limit = Limit(maximum=1)
        tries(limit)
        with database.one_trip() as connection:
            clear(connection, "k")
        assert tries(limit) is None


class TestKeys:
    @pytest.mark.parametrize(
        ("address", "counted"),
        [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
            (None, "none"),
        ],
    )
    def test_addresses(self, address: str | None, counted: str) -> None:
        assert address_key("login", address) == f"login:address:{counted}"

    def test_purposes_do_not_share(self) -> None:
        assert address_key("login", "203.0.113.7") != address_key("register", "203.0.113.7")

    def test_accounts_and_unknown_identifiers(self) -> None:
        assert account_key(UUID(int=7)) == "login:account:00000000-0000-0000-0000-000000000007"
        assert unknown_key("a@example.com") == unknown_key("a@example.com")
        assert "a@example.com" not in unknown_key("a@example.com")


@pytest.mark.parametrize(("seconds", "whole"), [(0.001, 1), (1, 1), (1.001, 2), (60, 60), (0, 1), (-5, 1)])
def test_retry_after_is_whole_seconds_and_never_too_early(seconds: float, whole: int) -> None:
    assert seconds_until(after(seconds), NOW) == whole

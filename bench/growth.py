"""Growth: the same requests at more and more users, and logins while a million sessions are cleaned up."""

import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from auth_manager.database import Database
from bench.report import Cell, Report, Table, Target, ratio
from bench.samples import median_ms, percentile_ms, take_turns, time_once
from bench.service import (
    PASSWORD,
    Person,
    Refused,
    create_database,
    default_hasher,
    environment_of,
    open_in_process,
    postgres,
)

GROWTH = "Growth, in process"
CLEAN_UP = "Logins while expired sessions are cleaned up"
TABLES = (GROWTH, CLEAN_UP)

SIZES = (1_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 20_000)
CHUNK = 100_000
REQUESTS = ("log_in", "refresh", "me", "sessions")
QUIET_LOGINS = 30
SLICE = 2.0
"""Seconds of cleaning between two quiet times."""

SEED = """
    WITH new_accounts AS (
        INSERT INTO auth_manager.accounts (id, email, email_normalized, username, username_normalized,
                                           password_hash, password_changed_at, created_at, updated_at)
        SELECT uuidv7(), name || '@example.com', name || '@example.com', name, name,
               %(password_hash)s, now(), now(), now()
        FROM generate_series(%(first)s, %(last)s) AS n, LATERAL (SELECT 'user' || n) AS named (name)
        RETURNING id
    ), new_sessions AS (
        INSERT INTO auth_manager.sessions (id, account_id, created_at, last_used_at, expires_at,
                                           authenticated_at, amr, acr, address, user_agent)
        SELECT uuidv7(), id, now(), now(), now() + interval '90 days', now(), '{pwd}', 'aal1',
               '203.0.113.10', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
        FROM new_accounts
        RETURNING id
    )
    INSERT INTO auth_manager.refresh_lines (id, session_id, client_id, scope, counter, rotated_at)
    SELECT uuidv7(), id, 'auth-manager', 'account', 1, now() FROM new_sessions
"""

SEED_EXPIRED = """
    WITH new_sessions AS (
        INSERT INTO auth_manager.sessions (id, account_id, created_at, last_used_at, expires_at,
                                           authenticated_at, amr, acr, address, user_agent)
        SELECT uuidv7(-interval '200 days'), id, %(over)s, %(over)s, %(over)s, %(over)s, '{pwd}', 'aal1',
               '203.0.113.10', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
        FROM auth_manager.accounts LIMIT %(count)s
        RETURNING id
    )
    INSERT INTO auth_manager.refresh_lines (id, session_id, client_id, scope, counter, rotated_at)
    SELECT uuidv7(), id, 'auth-manager', 'account', 1, now() FROM new_sessions
"""


def measure(*, quick: bool = False, largest: int | None = None) -> Report:
    """Fill a database for each size, ask all of them in turns, and clean up in the largest.

    Args:
        quick: small sizes and few rounds.
        largest: users of the largest database, instead of the last of the sizes.
    """
    sizes: tuple[int, ...] = QUICK_SIZES if quick else SIZES
    if largest:
        sizes = (*(size for size in sizes if size < largest), largest)
    with postgres() as server:
        people = {}
        url = ""
        for size in sizes:
            url = create_database(server.url, f"users_{size}")
            _seed(url, size)
            people[size] = _Somebody(url, size)
        seconds = _measure_requests(people, rounds=30 if quick else 200)
        growth = _report_growth(seconds, sizes)
        expired = sizes[-1] if quick else min(sizes[-1], 1_000_000)
        _seed_expired(url, expired)
        quiet, meanwhile, removed, duration = _log_in_meanwhile(
            people[sizes[-1]].log_in, url, expired=expired
        )
    cleaned = _report_clean_up(quiet, meanwhile, removed, duration)
    samples = {f"{request} at {size}": found for (request, size), found in seconds.items()}
    return Report(
        [*growth.tables, *cleaned.tables],
        growth.targets + cleaned.targets,
        samples | {"logins, quiet": quiet, "logins, while cleaning": meanwhile},
    )


class _Somebody:
    """Another person at each login, so that no row is warmer than it would be in a crowd."""

    def __init__(self, url: str, users: int) -> None:
        self._users = users
        self._random = random.Random(users)  # noqa: S311 -- the same people in every run
        self._person = Person(open_in_process(environment_of(url)), "")
        self.refresh, self.me, self.sessions = self._person.refresh, self._person.me, self._person.sessions

    def log_in(self) -> None:
        """Log somebody in; the other requests are then theirs."""
        self._person.email = f"user{self._random.randint(1, self._users)}@example.com"
        self._person.log_in()


def _measure_requests(people: Mapping[int, _Somebody], rounds: int) -> dict[tuple[str, int], list[float]]:
    for somebody in people.values():
        somebody.log_in()
    found = take_turns(
        {
            f"{request} {size}": getattr(somebody, request)
            for request in REQUESTS
            for size, somebody in people.items()
        },
        rounds=rounds,
    )
    return {(request, size): found[f"{request} {size}"] for request in REQUESTS for size in people}


def _seed(url: str, users: int) -> None:
    """Fill a database with users who all have the password of this run, and one session each."""
    password_hash = default_hasher().hash(PASSWORD)
    chunks = [
        (SEED, {"first": first, "last": min(users, first + CHUNK - 1), "password_hash": password_hash})
        for first in range(1, users + 1, CHUNK)
    ]
    _fill(url, chunks)


def _seed_expired(url: str, count: int) -> None:
    over = datetime.now(UTC) - timedelta(days=100)
    _fill(
        url,
        [
            (SEED_EXPIRED, {"over": over, "count": min(CHUNK, count - done)})
            for done in range(0, count, CHUNK)
        ],
    )


def _fill(url: str, statements: Sequence[tuple[str, Mapping[str, object]]]) -> None:
    """Write as a replica, which trusts the foreign keys, then do what autovacuum would do in time."""
    database = Database(url, deadline=900, session_options=False)
    for sql, parameters in statements:
        with database.one_trip() as connection:
            connection.add("SET LOCAL session_replication_role = replica")
            connection.add(sql, parameters)
    for table in ("accounts", "sessions", "refresh_lines"):
        with database.one_trip() as connection:
            connection.add(f"VACUUM (ANALYZE) auth_manager.{table}")
    database.close()


def _log_in_meanwhile(
    log_in: Callable[[], None], url: str, *, expired: int
) -> tuple[list[float], list[float], int, float]:
    """Return logins between and during slices of a clean-up, how many rows it removed, and its seconds.

    The clean-up is a process of its own, as it is a function of its own in Lambda.
    """
    quiet: list[float] = []
    meanwhile: list[float] = []
    removed, seconds = 0, 0.0
    environment = environment_of(url)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        processes.submit(_clean_up, environment, 0).result()  # imports are no part of it
        while removed < expired:
            quiet += [time_once(log_in) for _ in range(QUIET_LOGINS)]
            started = time.perf_counter()
            cleaning = processes.submit(_clean_up, environment, SLICE)
            while not cleaning.done():
                meanwhile.append(time_once(log_in))
            seconds += time.perf_counter() - started
            if not cleaning.result():
                raise Refused(f"the clean-up left {expired - removed} expired sessions")
            removed += cleaning.result()
    return quiet, meanwhile, removed, seconds


def _clean_up(environment: Mapping[str, str], seconds: float) -> int:
    """Run the function that a schedule starts, for so long; return how many sessions it removed."""
    os.environ.update(environment)
    from auth_manager.entrypoints.lambda_maintenance import handler  # noqa: PLC0415 -- as in Lambda

    stop_at = time.monotonic() + seconds
    context = SimpleNamespace(
        aws_request_id="bench",
        get_remaining_time_in_millis=lambda: 60_000 if time.monotonic() < stop_at else 0,
    )
    removed: int = handler({"action": "clean_up"}, context)["removed"]["sessions"]
    return removed


def _report_growth(seconds: Mapping[tuple[str, int], list[float]], sizes: Sequence[int]) -> Report:
    rows: list[tuple[Cell, ...]] = []
    for request in REQUESTS:
        medians = [median_ms(seconds[request, size]) for size in sizes]
        rows.append((request, *medians, ratio(medians[-1], medians[0])))
    targets = [
        Target(
            f"{request}: {sizes[-1]:,} users / {sizes[0]:,}",
            median_ms(seconds[request, sizes[-1]]) / median_ms(seconds[request, sizes[0]]),
            1.25,
        )
        for request in ("log_in", "refresh")
    ]
    columns = ("request", *(f"{size:,} users, ms" for size in sizes), "last / first")
    return Report([Table(GROWTH, columns, rows)], targets)


def _report_clean_up(
    quiet: Sequence[float], meanwhile: Sequence[float], removed: int, duration: float
) -> Report:
    base = median_ms(quiet)
    rows: list[tuple[Cell, ...]] = [
        (
            what,
            len(found),
            median_ms(found),
            percentile_ms(found, 99),
            max(found) * 1000,
            ratio(median_ms(found), base),
            ratio(max(found) * 1000, base),
        )
        for what, found in (("quiet", quiet), (f"while {removed:,} go, {duration:.0f} s", meanwhile))
    ]
    return Report(
        [
            Table(
                CLEAN_UP,
                ("logins", "count", "median ms", "p99 ms", "slowest ms", "median / quiet", "slowest / quiet"),
                rows,
            )
        ],
        [
            Target(
                "median login while cleaning / quiet median", statistics.median(meanwhile) * 1000 / base, 1.5
            ),
            Target("slowest login while cleaning / quiet median", max(meanwhile) * 1000 / base, 1.5),
        ],
    )

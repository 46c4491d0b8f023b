"""Logins while the audit trail is chained: eight clients of one server, the chain in a process of its own."""

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from auth_manager.audit_chain.chaining import extend
from auth_manager.database import Database
from bench.report import Report, Table, Target, ratio
from bench.samples import Action
from bench.server_mode import CLIENTS, arrived, auth_manager_server, rate_of
from bench.service import postgres

AUDIT_CHAIN = "Logins while the audit trail is chained"
TABLES = (AUDIT_CHAIN,)

QUIET = "nothing is chained"
ALWAYS = "each second, what was appended"
BACKLOG = "a backlog, without a pause"
PAUSES = {ALWAYS: 1.0, BACKLOG: 0.0}
"""Seconds between two runs; a deployment has an hour."""

SEED = """
    INSERT INTO auth_manager.audit_events (id, occurred_at, event, outcome, account_id, session_id, address,
                                           user_agent, request_id)
    SELECT gen_random_uuid(), now(), 'logged_in', 'failure', gen_random_uuid(), gen_random_uuid(),
           '203.0.113.10', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', 'bench'
    FROM generate_series(1, %(count)s)
"""
SEED_CHUNK = 20_000


def measure(*, quick: bool = False) -> Report:
    """Measure logins a second, quiet and while what comes in is chained, in turns; then with a backlog."""
    rounds, seconds = (4, 2.0) if quick else (15, 4.0)
    found: dict[str, list[float]] = {QUIET: [], ALWAYS: [], BACKLOG: []}
    chained = dict.fromkeys(PAUSES, 0.0)
    with (
        postgres() as server,
        auth_manager_server(server.url) as service,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes,
    ):
        url = service.database_url
        log_ins = [arrived(service).log_in for _ in range(CLIENTS)]
        processes.submit(_chain, url, 0, 0).result()  # imports are no part of it
        in_turns = [what for _ in range((rounds + 1) // 2) for what in (QUIET, ALWAYS, ALWAYS, QUIET)]
        for what in [*in_turns, *[BACKLOG] * (rounds // 3)]:
            if what == BACKLOG:
                _seed(url, int(seconds * 5_000))
            rate, links = _meanwhile(processes, log_ins, url, what, seconds)
            found[what].append(rate)
            if what in chained:
                chained[what] += links / seconds
    for what in chained:
        chained[what] /= len(found[what])
    return _report(found, chained)


def _meanwhile(
    processes: ProcessPoolExecutor, log_ins: Sequence[Action], url: str, what: str, seconds: float
) -> tuple[float, int]:
    """Return logins a second, and how many events were chained meanwhile."""
    chaining: Future[int] | None = None
    if what in PAUSES:
        chaining = processes.submit(_chain, url, seconds, PAUSES[what])
    rate = rate_of(log_ins, seconds)
    return rate, chaining.result() if chaining else 0


def _chain(url: str, seconds: float, pause: float) -> int:
    """Chain for so long; return how many events."""
    database = Database(url)
    stop_at, chained = time.monotonic() + seconds, 0
    while time.monotonic() < stop_at:
        added = extend(database)
        chained += added
        if not added or pause:
            time.sleep(min(pause or 0.01, max(0, stop_at - time.monotonic())))
    database.close()
    return chained


def _seed(url: str, count: int) -> None:
    database = Database(url, deadline=60)
    for start in range(0, count, SEED_CHUNK):
        with database.one_trip() as connection:
            connection.add(SEED, {"count": min(SEED_CHUNK, count - start)})
    database.close()


def _report(found: dict[str, list[float]], chained: dict[str, float]) -> Report:
    rates = {what: statistics.median(each) for what, each in found.items()}
    quiet = rates[QUIET]
    return Report(
        [
            Table(
                AUDIT_CHAIN,
                ("meanwhile", "logins a second", "/ quiet", "events chained a second"),
                [(what, rate, ratio(rate, quiet), chained.get(what)) for what, rate in rates.items()],
            )
        ],
        [
            Target(
                "logins a second while the audit trail is chained / quiet",
                rates[ALWAYS] / quiet,
                0.9,
                at_least=True,
            )
        ],
        found,
    )

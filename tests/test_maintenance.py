"""Clean-up and relay on a real database."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from auth_manager import rate_limits
from auth_manager.database import Database
from auth_manager.errors import ServiceUnavailable
from auth_manager.ids import new_id
from auth_manager.maintenance import clean_up, relay_outbox
from auth_manager.outbox import CLAIM
from auth_manager.rate_limits import Limit

NOW = datetime(2026, 11, 22, 6, 40, tzinfo=UTC)
DAY = timedelta(days=1)
RETENTION = timedelta(days=30)


def query(database: Database, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    with database.one_trip() as connection:
        return connection.fetch_all(sql, parameters)


def add_session(database: Database, *, expires_at: datetime, ended_at: datetime | None = None) -> UUID:
    """A session with a refresh line, of an account of its own."""
    identifier = new_id()
    query(
        database,
        """
        INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at, created_at,
                              updated_at)
        VALUES (%(id)s, %(id)s::text, %(id)s::text, '', now(), now(), now());
        INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at, authenticated_at, amr,
                              acr, ended_at, end_reason)
        VALUES (%(id)s, %(id)s, now(), now(), %(expires_at)s, now(), '{pwd}', 'aal1', %(ended_at)s,
                CASE WHEN %(ended_at)s::timestamptz IS NOT NULL THEN 'logged_out' END);
        INSERT INTO refresh_lines (id, session_id, client_id, scope, counter, rotated_at)
        VALUES (%(id)s, %(id)s, 'first-party', 'account', 1, now())
        """,
        {"id": identifier, "expires_at": expires_at, "ended_at": ended_at},
    )
    return identifier


def add_counter(database: Database, key: str, **columns: Any) -> None:
    values = {"count": 1, "window_ends_at": None, "blocked_until": None, "updated_at": NOW - 900 * DAY}
    query(
        database,
        "INSERT INTO rate_limits VALUES (%(key)s, %(count)s, %(window_ends_at)s, %(blocked_until)s,"
        " %(updated_at)s)",
        values | columns | {"key": key},
    )


class TestCleanUp:
    def clean(self, database: Database, **options: Any) -> dict[str, int]:
        return clean_up(database, now=NOW, session_retention=RETENTION, outbox_retention=7 * DAY, **options)

    def test_sessions_go_some_time_after_their_end(self, database: Database) -> None:
        kept = {
            add_session(database, expires_at=NOW + DAY),
            add_session(database, expires_at=NOW - 29 * DAY),
            add_session(database, expires_at=NOW + DAY, ended_at=NOW - 29 * DAY),
        }
        add_session(database, expires_at=NOW - 31 * DAY)
        add_session(database, expires_at=NOW + DAY, ended_at=NOW - 31 * DAY)

        assert self.clean(database)["sessions"] == 2
        assert {row["id"] for row in query(database, "SELECT id FROM sessions")} == kept
        assert {row["id"] for row in query(database, "SELECT id FROM refresh_lines")} == kept
        assert len(query(database, "SELECT id FROM accounts")) == 5

    def test_idempotency_records_go_when_they_expired(self, database: Database) -> None:
        for number, expires_at in enumerate((NOW + DAY, NOW - timedelta(minutes=59), NOW - DAY)):
            query(
                database,
                "INSERT INTO idempotency_keys VALUES (%(key)s, '', %(id)s, now(), %(expires_at)s)",
                {"key": bytes([number]), "id": new_id(), "expires_at": expires_at},
            )

        assert self.clean(database)["idempotency_keys"] == 1
        assert len(query(database, "SELECT 1 FROM idempotency_keys")) == 2

    def test_counters_go_when_they_count_nothing(self, database: Database) -> None:
        add_counter(database, "window over", window_ends_at=NOW - DAY)
        add_counter(database, "no failures", count=0)
        add_counter(database, "window", window_ends_at=NOW + DAY)
        add_counter(database, "window over, blocked", window_ends_at=NOW - DAY, blocked_until=NOW + DAY)
        add_counter(database, "no failures, just now", count=0, updated_at=NOW)

        assert self.clean(database)["rate_limits"] == 2
        assert {row["key"] for row in query(database, "SELECT key FROM rate_limits")} == {
            "window",
            "window over, blocked",
            "no failures, just now",
        }

    @pytest.mark.parametrize("failures", [1, 9, 10, 99, 100])
    @pytest.mark.parametrize("key", ["login:account:x", "login:unknown:x"])
    def test_a_run_of_failures_stays_for_ever(self, database: Database, key: str, failures: int) -> None:
        """ASVS 6.3.1: waiting gives no guess back, and 6.3.8: nor does it tell who exists."""
        limit = Limit(maximum=100, free=10, delay=timedelta(seconds=30), delay_maximum=timedelta(seconds=900))
        add_counter(database, key, count=failures, blocked_until=NOW - 800 * DAY)

        assert self.clean(database)["rate_limits"] == 0
        with database.one_trip() as connection:
            retry_at = rate_limits.reserve(connection, key, limit, NOW)
        assert (retry_at is not None) == (failures == 100)
        [row] = query(database, "SELECT count FROM rate_limits")
        assert row["count"] == min(failures + 1, 100)

    def test_secrets_go_when_they_expired_used_or_not(self, database: Database) -> None:
        for expires_at, used in (
            (NOW + DAY, False),
            (NOW + DAY, True),
            (NOW - timedelta(minutes=59), False),
            (NOW - DAY, False),
            (NOW - DAY, True),
        ):
            query(
                database,
                """
                INSERT INTO one_time_secrets (id, purpose, limit_key, created_at, expires_at, used_at,
                                              used_by)
                VALUES (%(id)s, 'invitation', 'x', now(), %(expires_at)s, %(used_at)s, %(used_by)s)
                """,
                {
                    "id": new_id(),
                    "expires_at": expires_at,
                    "used_at": NOW if used else None,
                    "used_by": new_id() if used else None,
                },
            )

        assert self.clean(database)["one_time_secrets"] == 2
        assert len(query(database, "SELECT 1 FROM one_time_secrets")) == 3

    def test_messages_go_after_their_retention_sent_or_not(self, database: Database) -> None:
        for age, sent_at in ((6 * DAY, None), (8 * DAY, None), (8 * DAY, NOW)):
            query(
                database,
                "INSERT INTO outbox (id, kind, recipient, created_at, sent_at)"
                " VALUES (%(id)s, 'verify_email', 'a@b.c', %(at)s, %(sent_at)s)",
                {"id": new_id(), "at": NOW - age, "sent_at": sent_at},
            )

        assert self.clean(database)["outbox"] == 2
        assert len(query(database, "SELECT 1 FROM outbox")) == 1

    def test_devices_go_when_nobody_came_back(self, database: Database) -> None:
        owner = add_session(database, expires_at=NOW + DAY)
        for number, age in enumerate((399 * DAY, 401 * DAY)):
            query(
                database,
                "INSERT INTO known_devices VALUES (%(owner)s, %(hash)s, %(seen)s, %(seen)s)",
                {"owner": owner, "hash": bytes([number]), "seen": NOW - age},
            )

        assert self.clean(database)["known_devices"] == 1
        assert len(query(database, "SELECT 1 FROM known_devices")) == 1

    def test_trusted_devices_go_when_their_trust_is_over(self, database: Database) -> None:
        owner = add_session(database, expires_at=NOW + DAY)
        kept = {NOW + DAY, NOW - timedelta(minutes=59)}
        for expires_at in (*kept, NOW - DAY):
            query(
                database,
                """
                INSERT INTO trusted_devices (id, account_id, password_changed_at, created_at, last_used_at,
                                             expires_at)
                VALUES (%(id)s, %(owner)s, now(), now(), now(), %(expires_at)s)
                """,
                {"id": new_id(), "owner": owner, "expires_at": expires_at},
            )

        assert self.clean(database)["trusted_devices"] == 1
        rows = query(database, "SELECT expires_at FROM trusted_devices")
        assert {row["expires_at"] for row in rows} == kept

    def test_it_works_in_batches_until_its_time_is_up(self, database: Database) -> None:
        for number in range(7):
            add_counter(database, f"{number}", count=0)
        asked = iter([True] * 3 + [False] * 5)
        # One batch each for the two empty tables, then one of the counters.
        assert self.clean(database, batch=2, may_go_on=lambda: next(asked))["rate_limits"] == 2
        assert self.clean(database, batch=2)["rate_limits"] == 5

    def test_what_somebody_works_with_is_skipped(self, database: Database) -> None:
        held = add_session(database, expires_at=NOW - 99 * DAY)
        add_session(database, expires_at=NOW - 99 * DAY)
        with database.transaction() as connection:
            connection.fetch_all("SELECT 1 FROM sessions WHERE id = %(id)s FOR UPDATE", {"id": held})
            assert self.clean(database)["sessions"] == 1
        assert self.clean(database)["sessions"] == 1


def add_messages(database: Database, number: int) -> list[UUID]:
    ids = [new_id() for _ in range(number)]
    for position, identifier in enumerate(ids):
        query(
            database,
            "INSERT INTO outbox (id, kind, recipient, created_at)"
            " VALUES (%(id)s, 'verify_email', 'a@b.c', %(at)s)",
            {"id": identifier, "at": NOW - DAY + timedelta(seconds=position)},
        )
    return ids


class Queue:
    """What was handed over; `refuses` stay out, `down` fails all, `killed` fails after the fact."""

    def __init__(self) -> None:
        self.taken: list[UUID] = []
        self.refuses: set[UUID] = set()
        self.failure: BaseException | None = None
        self.after = False

    def send(self, ids: Sequence[UUID]) -> list[UUID]:
        assert 0 < len(ids) <= 10
        if self.failure and not self.after:
            raise self.failure
        taken = [each for each in ids if each not in self.refuses]
        self.taken += taken
        if self.failure:
            raise self.failure
        return taken


class Killed(BaseException):
    """SIGKILL leaves no more behind than this."""


@pytest.fixture
def queue() -> Queue:
    return Queue()


def waiting(database: Database) -> int:
    return len(query(database, "SELECT 1 FROM outbox WHERE relayed_at IS NULL"))


class TestRelayOutbox:
    def test_each_message_is_handed_over_once(self, database: Database, queue: Queue) -> None:
        ids = add_messages(database, 25)

        assert relay_outbox(database, queue.send, now=NOW) == {"relayed": 25, "failed": 0}
        assert sorted(queue.taken) == sorted(ids)
        assert relay_outbox(database, queue.send, now=NOW + DAY) == {"relayed": 0, "failed": 0}
        rows = query(database, "SELECT relayed_at, attempts FROM outbox")
        assert {(row["relayed_at"], row["attempts"]) for row in rows} == {(NOW, 1)}

    def test_what_the_queue_refuses_is_tried_again(self, database: Database, queue: Queue) -> None:
        refused = add_messages(database, 12)[3]
        queue.refuses = {refused}

        assert relay_outbox(database, queue.send, now=NOW) == {"relayed": 11, "failed": 1}
        assert relay_outbox(database, queue.send, now=NOW + CLAIM / 2) == {"relayed": 0, "failed": 0}
        queue.refuses = set()
        assert relay_outbox(database, queue.send, now=NOW + CLAIM) == {"relayed": 1, "failed": 0}
        assert queue.taken[-1] == refused

    @pytest.mark.parametrize("after", [False, True], ids=["before it has them", "after"])
    @pytest.mark.parametrize("failure", [ServiceUnavailable(), Killed()], ids=["down", "killed"])
    def test_nothing_is_lost(
        self, database: Database, queue: Queue, failure: BaseException, *, after: bool
    ) -> None:
        ids = add_messages(database, 12)
        queue.failure, queue.after = failure, after

        with pytest.raises(type(failure)):
            relay_outbox(database, queue.send, now=NOW)
        assert waiting(database) == 12
        queue.failure = None
        relay_outbox(database, queue.send, now=NOW + CLAIM)
        assert set(queue.taken) == set(ids)
        assert waiting(database) == 0

    def test_two_relays_share_the_work(self, database: Database, queue: Queue) -> None:
        ids = add_messages(database, 25)
        other = Queue()

        def send(ids: Sequence[UUID]) -> list[UUID]:
            relay_outbox(database, other.send, now=NOW)
            return queue.send(ids)

        relay_outbox(database, send, now=NOW)
        assert sorted(queue.taken + other.taken) == sorted(ids)

    def test_it_stops_when_its_time_is_up(self, database: Database, queue: Queue) -> None:
        add_messages(database, 25)
        asked = iter([True, False])

        assert relay_outbox(database, queue.send, now=NOW, may_go_on=lambda: next(asked))["relayed"] == 10
        assert waiting(database) == 15

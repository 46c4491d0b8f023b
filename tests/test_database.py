# ruff: noqa: PT012 -- what a transaction raises at its end needs the whole block inside pytest.raises
"""Round trips, transactions, parameters and the pool, while PostgreSQL is well."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extras import Json

from auth_manager.database import Connection, Database, Row
from auth_manager.errors import DatabaseUnavailable, EmailTaken, SessionEnded


@pytest.fixture(autouse=True)
def _things(database: Database) -> Iterator[None]:
    """A table of our own."""
    with database.one_trip() as connection:
        connection.add("CREATE TABLE things (id integer, name text, CONSTRAINT things_pkey PRIMARY KEY (id))")
    database.round_trips = 0
    yield
    with database.one_trip() as connection:
        connection.add("DROP TABLE things")


def with_query(url: str, setting: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{setting}"


def insert(connection: Connection, number: int) -> None:
    connection.add("INSERT INTO things (id) VALUES (%(id)s)", {"id": number})


def kept(database: Database) -> list[int]:
    with database.one_trip() as connection:
        return [row["id"] for row in connection.fetch_all("SELECT id FROM things ORDER BY id")]


def wait_for_sleeper(database: Database) -> None:
    """Return when a statement sleeps, which has what it asked for before."""
    asleep: list[Row] = []
    while not asleep:
        with database.one_trip() as connection:
            asleep = connection.fetch_all("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


class TestOneTrip:
    def test_everything_travels_together(self, database: Database) -> None:
        with database.one_trip() as connection:
            insert(connection, 1)
            insert(connection, 2)
            row = connection.fetch_one("SELECT count(*) AS n FROM things")
        assert row == {"n": 2}
        assert database.round_trips == 1

    def test_without_a_fetch_the_end_of_the_block_sends(self, database: Database) -> None:
        with database.one_trip() as connection:
            insert(connection, 1)
            assert database.round_trips == 0
        assert database.round_trips == 1
        assert kept(database) == [1]

    def test_a_violation_undoes_what_came_before(self, database: Database) -> None:
        with pytest.raises(psycopg2.errors.UniqueViolation) as caught, database.one_trip() as connection:
            insert(connection, 1)
            insert(connection, 1)
        assert caught.value.diag.constraint_name == "things_pkey"
        assert kept(database) == []

    def test_a_block_that_raises_sends_nothing(self, database: Database) -> None:
        with pytest.raises(LookupError), database.one_trip() as connection:
            insert(connection, 1)
            raise LookupError
        assert database.round_trips == 0
        assert kept(database) == []

    def test_an_empty_block_does_not_even_connect(self, database_url: str) -> None:
        attempts: list[None] = []
        database = Database(
            with_query(database_url, "port=1"), on_connect_failed=lambda: attempts.append(None)
        )
        with database.one_trip():
            pass
        assert attempts == []

    def test_a_second_trip_is_refused(self, database: Database) -> None:
        """It would be a second transaction that looks like part of the first."""
        with pytest.raises(RuntimeError, match="sends once"), database.one_trip() as connection:
            connection.fetch_one("SELECT 1 AS one")
            insert(connection, 1)
        assert kept(database) == []

    def test_the_victim_of_a_deadlock_is_sent_once_more(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two take the same rows in opposite orders; the other one never looks for a deadlock itself."""
        monkeypatch.setattr("auth_manager.database.AFTER_DEADLOCK", 0.5)  # however busy this machine is
        with database.one_trip() as connection:
            insert(connection, 1)
            insert(connection, 2)

        def take_the_other_way() -> None:
            with database.one_trip() as connection:
                connection.add("UPDATE things SET name = name || 'b' WHERE id = 2")
                # Until the other one waits for this row, and not at all when it is done.
                connection.add(
                    """
                    DO $$ BEGIN
                        WHILE (SELECT bool_and(granted) FROM pg_locks
                               WHERE pid = %(other)s AND locktype IN ('transactionid', 'tuple'))
                        LOOP PERFORM pg_sleep(0.01); END LOOP;
                    END $$
                    """,
                    {"other": other},
                )
                connection.add("UPDATE things SET name = name || 'b' WHERE id = 1")

        with ThreadPoolExecutor() as threads:
            with database.transaction() as connection:
                connection.add("SET LOCAL deadlock_timeout = '1min'; SET LOCAL lock_timeout = 0")
                connection.add("UPDATE things SET name = 'a' WHERE id = 1")
                other = connection.fetch_all("SELECT pg_backend_pid() AS pid")[0]["pid"]
                victim = threads.submit(take_the_other_way)
                wait_for_sleeper(database)
                connection.fetch_all("UPDATE things SET name = 'a' WHERE id = 2 RETURNING 1")
            victim.result()
        with database.one_trip() as connection:
            rows = connection.fetch_all("SELECT name FROM things ORDER BY id")
        assert [row["name"] for row in rows] == ["ab", "ab"]

    def test_fetch_one_without_a_row_is_none(self, database: Database) -> None:
        with database.one_trip() as connection:
            assert connection.fetch_one("SELECT id FROM things") is None

    def test_rows_of_earlier_statements_are_dropped(self, database: Database) -> None:
        with database.one_trip() as connection:
            connection.add("SELECT 1 AS one")
            assert connection.fetch_all("SELECT 2 AS two") == [{"two": 2}]

    def test_a_transaction_left_open_by_sql_is_not_handed_on(self, database_url: str) -> None:
        database = Database(database_url)
        with database.one_trip() as connection:
            connection.add("BEGIN")
            insert(connection, 1)
        assert kept(database) == []
        with pytest.raises(psycopg2.errors.UniqueViolation), database.one_trip() as connection:
            insert(connection, 2)
            insert(connection, 2)
        assert kept(database) == []
        database.close()


class TestTransaction:
    def test_read_then_write_is_two_trips(self, database: Database) -> None:
        with database.transaction() as connection:
            row = connection.fetch_one("SELECT count(*) AS n FROM things")
            assert row is not None
            insert(connection, row["n"])
        assert database.round_trips == 2
        assert kept(database) == [0]

    def test_a_single_trip_needs_neither_begin_nor_commit(self, database: Database) -> None:
        with database.transaction() as connection:
            insert(connection, 1)
        assert database.round_trips == 1
        assert kept(database) == [1]

    def test_an_empty_block_sends_nothing(self, database: Database) -> None:
        with database.transaction():
            pass
        assert database.round_trips == 0

    def test_an_exception_rolls_back(self, database: Database) -> None:
        with pytest.raises(LookupError), database.transaction() as connection:
            insert(connection, 1)
            connection.fetch_one("SELECT 1 AS one")
            insert(connection, 2)
            raise LookupError
        assert database.round_trips == 2  # BEGIN with the read, ROLLBACK alone
        assert kept(database) == []

    def test_a_connection_is_reused_after_a_rollback(self, database_url: str) -> None:
        database = Database(database_url)
        pids = []
        for _ in range(2):
            with pytest.raises(psycopg2.errors.UniqueViolation), database.transaction() as connection:
                row = connection.fetch_one("SELECT pg_backend_pid() AS pid")
                assert row is not None
                pids.append(row["pid"])
                insert(connection, 1)
                insert(connection, 1)
        assert pids[0] == pids[1]
        assert kept(database) == []
        database.close()

    def test_a_swallowed_error_is_not_a_commit(self, database: Database) -> None:
        """PostgreSQL answers COMMIT in a failed transaction with ROLLBACK, and no error."""
        with (
            pytest.raises(psycopg2.errors.InFailedSqlTransaction, match="nothing was kept"),
            database.transaction() as connection,
        ):
            insert(connection, 1)
            connection.fetch_one("SELECT 1 AS one")
            with pytest.raises(psycopg2.errors.DivisionByZero):
                connection.fetch_one("SELECT 1 / 0")
        assert kept(database) == []

    def test_a_constraint_checked_at_commit_is_reported(self, database: Database) -> None:
        with database.one_trip() as connection:
            connection.add("ALTER TABLE things ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
        with pytest.raises(psycopg2.errors.UniqueViolation), database.transaction() as connection:
            for number in (1, 2):
                connection.fetch_all(
                    "INSERT INTO things VALUES (%(id)s, 'same') RETURNING id", {"id": number}
                )
        assert kept(database) == []


class TestRefused:
    def test_a_violated_constraint_becomes_its_error(self, database: Database) -> None:
        with pytest.raises(EmailTaken) as caught, database.one_trip() as connection:
            insert(connection, 1)
            connection.add("INSERT INTO things VALUES (1)", refused={"things_pkey": EmailTaken()})
        assert isinstance(caught.value.__cause__, psycopg2.errors.UniqueViolation)
        assert kept(database) == []

    def test_a_requirement_that_does_not_hold_becomes_its_error(self, database: Database) -> None:
        with pytest.raises(SessionEnded), database.one_trip() as connection:
            insert(connection, 1)
            connection.add(
                "SELECT require(false, 'session_ended')", refused={"session_ended": SessionEnded()}
            )
        assert kept(database) == []

    def test_a_requirement_that_holds_changes_nothing(self, database: Database) -> None:
        with database.one_trip() as connection:
            insert(connection, 1)
            connection.add("SELECT require(true, 'ended')", refused={"ended": SessionEnded()})
        assert kept(database) == [1]

    def test_another_constraint_stays_what_it_is(self, database: Database) -> None:
        with pytest.raises(psycopg2.errors.UniqueViolation), database.one_trip() as connection:
            insert(connection, 1)
            connection.add("INSERT INTO things VALUES (1)", refused={"other_pkey": EmailTaken()})


class TestParameters:
    @pytest.mark.parametrize(
        "value",
        [
            pytest.param('it\'s "quoted" \\ -- ; DROP TABLE things', id="quotes"),
            pytest.param("100% %s %(id)s", id="percent"),
            pytest.param("žluťoučký 🐎", id="unicode"),
            pytest.param(None, id="null"),
            pytest.param(True, id="bool"),
            pytest.param(2**60, id="bigint"),
            pytest.param(UUID("01890a5d-ac96-774b-bcce-b302099a8057"), id="uuid"),
            pytest.param(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), id="datetime"),
            pytest.param(timedelta(days=1, seconds=2), id="timedelta"),
            pytest.param(["a", "b'"], id="array"),
        ],
    )
    def test_a_value_comes_back_as_it_went(self, database: Database, value: object) -> None:
        with database.one_trip() as connection:
            assert connection.fetch_one("SELECT %(v)s AS v, '%%' AS p", {"v": value}) == {
                "v": value,
                "p": "%",
            }

    def test_bytes_come_back_as_a_memoryview(self, database: Database) -> None:
        with database.one_trip() as connection:
            row = connection.fetch_one("SELECT %(v)s AS v", {"v": b"\x00\xff'\\"})
        assert row is not None
        assert bytes(row["v"]) == b"\x00\xff'\\"

    def test_times_are_read_in_utc(self, database: Database) -> None:
        noon_in_tokyo = datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=9)))
        with database.one_trip() as connection:
            row = connection.fetch_one("SELECT %(v)s AS v", {"v": noon_in_tokyo})
        assert row is not None
        assert row["v"] == noon_in_tokyo
        assert row["v"].utcoffset() == timedelta(0)

    @pytest.mark.parametrize("value", ["a\0b", ["a\0b"]], ids=["text", "array"])
    def test_a_nul_is_refused_before_anything_is_sent(self, database: Database, value: object) -> None:
        """In a query's text, psycopg2 would cut it off there and run the rest."""
        with pytest.raises(ValueError, match="NUL"), database.one_trip() as connection:
            insert(connection, 1)
            connection.add("UPDATE things SET name = %(v)s", {"v": value})
        assert database.round_trips == 0

    def test_a_nul_in_jsonb_is_refused_by_postgresql(self, database: Database) -> None:
        with pytest.raises(psycopg2.DataError), database.one_trip() as connection:
            insert(connection, 1)
            connection.add("SELECT %(v)s::jsonb", {"v": Json({"a": "\0"})})
        assert kept(database) == []

    def test_without_parameters_a_percent_sign_is_itself(self, database: Database) -> None:
        with database.one_trip() as connection:
            assert connection.fetch_one("SELECT '%' AS one, '%%' AS two") == {"one": "%", "two": "%%"}


class TestSession:
    def test_every_connection_has_the_time_outs(self, database: Database) -> None:
        with database.one_trip() as connection:
            row = connection.fetch_one(
                "SELECT current_setting('lock_timeout') AS lock, current_setting('TimeZone') AS zone,"
                " current_setting('statement_timeout') AS statement, current_schema AS schema,"
                " current_setting('idle_in_transaction_session_timeout') AS idle"
            )
        assert row == {
            "lock": "2s",
            "statement": "3s",
            "idle": "10s",
            "zone": "UTC",
            "schema": "auth_manager",
        }

    def test_without_session_options_the_role_and_the_url_decide(self, database_url: str) -> None:
        database = Database(with_query(database_url, "options=-c%20lock_timeout%3D77"), session_options=False)
        with database.one_trip() as connection:
            row = connection.fetch_one("SELECT current_setting('lock_timeout') AS lock")
        database.close()
        assert row == {"lock": "77ms"}


class TestPool:
    def test_no_more_than_its_size_are_opened(self, database_url: str) -> None:
        database = Database(database_url, pool_size=2, deadline=20)

        def work(_: int) -> int:
            with database.one_trip() as connection:
                row = connection.fetch_one("SELECT pg_backend_pid() AS pid, pg_sleep(0.01)")
            assert row is not None
            pid: int = row["pid"]
            return pid

        with ThreadPoolExecutor(8) as threads:
            pids = set(threads.map(work, range(40)))
        database.close()
        assert len(pids) == 2

    def test_a_busy_pool_says_so_at_the_deadline_and_recovers(self, database_url: str) -> None:
        database = Database(database_url, deadline=0.2)
        with database.one_trip(), pytest.raises(DatabaseUnavailable, match="busy"), database.one_trip():
            pytest.fail("the only place was taken")
        assert kept(database) == []
        database.close()

    def test_a_waiting_caller_gets_the_place(self, database_url: str) -> None:
        database = Database(database_url)
        taken, done = threading.Event(), threading.Event()

        def hold() -> None:
            with database.one_trip():
                taken.set()
                done.wait(5)

        with ThreadPoolExecutor(1) as threads:
            holder = threads.submit(hold)
            assert taken.wait(5)
            threading.Timer(0.1, done.set).start()
            assert kept(database) == []
            holder.result()
        database.close()

    @pytest.mark.parametrize("trips", [1, 2], ids=["one_trip", "transaction"])
    def test_failures_give_their_place_back(self, database_url: str, trips: int) -> None:
        database = Database(database_url, deadline=2)
        block = database.one_trip if trips == 1 else database.transaction
        for error in (psycopg2.DataError, KeyboardInterrupt, GeneratorExit, DatabaseUnavailable):
            with pytest.raises(error), block() as connection:
                connection.fetch_one("SELECT 1 AS one")
                raise error
        assert kept(database) == []
        database.close()

    def test_close_closes_the_idle_and_those_in_use(self, database: Database, database_url: str) -> None:
        closed = Database(database_url, pool_size=2)
        with closed.transaction() as connection:
            row = connection.fetch_one("SELECT pg_backend_pid() AS pid")
            closed.close()
        with database.one_trip() as connection:
            # A backend needs a moment to end after its client went away.
            connection.add("DO $$ BEGIN PERFORM pg_sleep(0.2); END $$")
            assert connection.fetch_all("SELECT pid FROM pg_stat_activity WHERE pid = %(pid)s", row) == []

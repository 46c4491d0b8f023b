"""Extending the chain while everybody else goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from tests.audit_chain.conftest import NOW, Append

from auth_manager import audit
from auth_manager.audit import Origin
from auth_manager.audit_chain.chaining import extend
from auth_manager.audit_chain.rows import GENESIS
from auth_manager.audit_chain.verification import verify
from auth_manager.database import Database, Row
from auth_manager.ids import new_id
from auth_manager.signing_keys import KeySet

Rows = Callable[[], list[Row]]


@pytest.fixture
def rows(database: Database) -> Rows:
    def fetch() -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all("SELECT * FROM audit_events ORDER BY position NULLS LAST, id")

    return fetch


def note(database: Database, name: str = "noted", account_id: UUID | None = None) -> None:
    with database.one_trip() as connection:
        origin = Origin("198.51.100.7", "browser/1", "r", NOW)
        audit.append(connection, name, origin, account_id=account_id)


class TestExtend:
    def test_each_event_carries_the_hash_of_the_one_before(
        self, database: Database, append: Append, rows: Rows
    ) -> None:
        append(7)
        assert [extend(database, limit=3) for _ in range(4)] == [3, 3, 1, 0]
        found = rows()
        assert [row["position"] for row in found] == list(range(1, 8))
        assert [row["id"] for row in found] == sorted(row["id"] for row in found)
        previous = GENESIS
        for row in found:
            assert bytes(row["previous_hash"]) == previous
            previous = bytes(row["hash"])

    def test_who_left_no_trace_has_no_salt(self, database: Database, append: Append, rows: Rows) -> None:
        append(30)
        extend(database)
        assert {row["personal_salt"] is None for row in rows()} == {True, False}
        for row in rows():
            assert (row["personal_salt"] is None) == (row["address"] is None and row["user_agent"] == "")

    def test_equal_people_have_other_hashes(self, database: Database, rows: Rows) -> None:
        note(database)
        note(database)
        extend(database)
        one, other = rows()
        assert bytes(one["personal_hash"]) != bytes(other["personal_hash"])

    def test_nothing_to_do(self, database: Database) -> None:
        assert extend(database) == 0

    def test_an_event_of_a_long_transaction_comes_later(
        self, database: Database, key_set: KeySet, rows: Rows
    ) -> None:
        """Its id is the lowest; it commits last."""
        with database.transaction() as connection:
            audit.append(connection, "slow", Origin(None, "", "r", NOW))
            connection.fetch_all("SELECT 1")
            note(database, "fast")
            assert extend(database) == 1
        assert extend(database) == 1
        assert [row["event"] for row in rows()] == ["fast", "slow"]
        assert rows()[0]["id"] > rows()[1]["id"]
        assert verify(database, key_set).is_sound

    def test_an_event_that_is_being_erased_is_left_for_later(self, database: Database, rows: Rows) -> None:
        note(database, "erased", UUID(int=1))
        note(database, "other", UUID(int=2))
        with database.transaction() as connection:
            audit.anonymise(connection, UUID(int=1))
            connection.fetch_all("SELECT 1")
            assert extend(database) == 1
        assert extend(database) == 1
        assert [row["event"] for row in rows()] == ["other", "erased"]
        assert rows()[1]["address"] is None


class TestAtOnce:
    def test_eight_who_append_and_three_who_chain(
        self, database_url: str, database: Database, key_set: KeySet, rows: Rows
    ) -> None:
        many, each = Database(database_url, pool_size=11, deadline=20), 60
        done = threading.Event()

        def append_some() -> None:
            for _ in range(each):
                note(many)

        def chain() -> int:
            chained = 0
            while not done.is_set():
                chained += extend(many, limit=20)
            return chained

        with ThreadPoolExecutor(11) as threads:
            chainers = [threads.submit(chain) for _ in range(3)]
            for appended in [threads.submit(append_some) for _ in range(8)]:
                appended.result()
            done.set()
            chained = sum(chainer.result() for chainer in chainers)
        while added := extend(many):
            chained += added
        many.close()
        found = verify(database, key_set)
        assert (found.is_sound, found.events, found.unchained, chained) == (True, 8 * each, 0, 8 * each)
        assert len({row["id"] for row in rows()}) == 8 * each

    def test_erasing_meanwhile(self, database_url: str, database: Database, key_set: KeySet) -> None:
        """Neither of the two waits for the other in a circle."""
        many, accounts = Database(database_url, pool_size=4, deadline=20), [new_id() for _ in range(10)]
        nobody = Origin(None, "", "", NOW)
        for account in accounts * 20:
            note(database, account_id=account)

        def erase() -> None:
            for account in accounts:
                with many.one_trip() as connection:
                    audit.append(connection, "account_deleted", nobody, account_id=account)
                    audit.anonymise(connection, account)

        with ThreadPoolExecutor(2) as threads:
            erasing = threads.submit(erase)
            while extend(many, limit=7) or not erasing.done():
                pass
            erasing.result()
        while extend(many):
            pass
        many.close()
        found = verify(database, key_set)
        assert (found.is_sound, found.events) == (True, 210)


class TestKilled:
    def test_at_any_moment(
        self, database_url: str, database: Database, key_set: KeySet, append: Append
    ) -> None:
        """SIGKILL leaves whole batches, and the next run goes on behind them."""
        append(400)
        program = (
            "import sys; from auth_manager.database import Database;"
            "from auth_manager.audit_chain.chaining import extend;"
            "database = Database(sys.argv[1]); print('ready', flush=True)\n"
            "while extend(database, limit=5): pass"
        )
        left = []
        for delay in range(6):
            process = subprocess.Popen([sys.executable, "-c", program, database_url], stdout=subprocess.PIPE)
            assert process.stdout
            process.stdout.readline()
            time.sleep(delay * 0.004)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            found = verify(database, key_set)
            assert found.is_sound
            assert (found.events % 5, found.events + found.unchained) == (0, 400)
            left.append(found.unchained)
        assert left[0] > left[-1] > 0
        while extend(database):
            pass
        assert verify(database, key_set).events == 400

# ruff: noqa: PT012 -- what a transaction raises at its end needs the whole block inside pytest.raises
"""When PostgreSQL, the network or the caller fails: 503 in time, no false success, a pool that goes on."""

import os
import secrets
import select
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extensions import parse_dsn

from auth_manager.database import Connection, Database
from auth_manager.errors import DatabaseUnavailable
from auth_manager.local.postgres import EmbeddedPostgres, start_embedded

DEADLINE = 0.5
Block = Callable[[Database], AbstractContextManager[Connection]]
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: close() sends RST."""


@pytest.fixture(autouse=True)
def _things(database: Database) -> Iterator[None]:
    with database.one_trip() as connection:
        connection.add("CREATE TABLE things (id integer, CONSTRAINT things_pkey PRIMARY KEY (id))")
    yield
    with database.one_trip() as connection:
        connection.add("DROP TABLE things")


@pytest.fixture
def single(database_url: str) -> Iterator[Database]:
    """A pool of one connection with a short deadline: any leak of a place is found by the next use."""
    database = Database(database_url, connect_timeout=DEADLINE, deadline=DEADLINE)
    yield database
    database.close()


@pytest.fixture
def proxy(postgres: EmbeddedPostgres) -> Iterator["Proxy"]:
    proxy = Proxy(postgres)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(proxy: "Proxy", database_url: str) -> Iterator[Database]:
    """`single`, through the proxy."""
    parts = urlsplit(database_url)
    address = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
    url = parts._replace(netloc=address, query="").geturl()
    database = Database(url, connect_timeout=DEADLINE, deadline=DEADLINE)
    yield database
    database.close()


class Proxy:
    """A TCP link to PostgreSQL that can go silent or break."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        address = parse_dsn(postgres.url)
        self._target = f"{address['host']}/.s.PGSQL.{address['port']}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.silent = False
        """Drops what arrives and refuses nothing: a firewall that forgot the flow."""
        self.cut_before: bytes | None = None
        """Resets the connection instead of delivering a request with these bytes; once."""
        self.cut_after: bytes | None = None
        """Delivers a request with these bytes and resets the connection instead of the answer; once."""
        self._ends: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener, suppress(OSError):  # shut down
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._ends += [client, server]
                self._start(self._relay, client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        last = False
        with client, server, suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data or (source is server and last):
                        return
                    if self.silent:
                        continue
                    if source is server:
                        client.sendall(data)
                        continue
                    if self.cut_before is not None and self.cut_before in data:
                        self.cut_before = None
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        return
                    if self.cut_after is not None and self.cut_after in data:
                        self.cut_after, last = None, True
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    server.sendall(data)

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


def insert(database: Database, number: int) -> None:
    with database.one_trip() as connection:
        connection.add("INSERT INTO things VALUES (%(id)s)", {"id": number})


def kept(database: Database) -> list[int]:
    with database.one_trip() as connection:
        return [row["id"] for row in connection.fetch_all("SELECT id FROM things ORDER BY id")]


def backend(database: Database) -> int:
    """The process that serves the pool's next transaction."""
    with database.one_trip() as connection:
        row = connection.fetch_one("SELECT pg_backend_pid() AS pid")
    assert row is not None
    pid: int = row["pid"]
    return pid


def terminate(database: Database, pid: int) -> None:
    with database.one_trip() as connection:
        # With a time-out, pg_terminate_backend waits until the process is gone.
        connection.fetch_one("SELECT pg_terminate_backend(%(pid)s, 2000)", {"pid": pid})


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def seconds(limit: float) -> Iterator[None]:
    """Fail when the block takes longer; a deadline that does not hold takes for ever."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < limit


class TestTimeOuts:
    @pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
    def test_unavailable_rolled_back_and_usable(
        self, database: Database, single: Database, setting: str
    ) -> None:
        insert(database, 1)
        pid = backend(single)
        with database.transaction() as holder:
            holder.fetch_all("SELECT * FROM things FOR UPDATE")
            with pytest.raises(DatabaseUnavailable), single.transaction() as connection:
                connection.add("SELECT set_config(%(setting)s, '50', true)", {"setting": setting})
                connection.fetch_all("INSERT INTO things VALUES (2) RETURNING id")
                connection.add("UPDATE things SET id = 3 WHERE id = 1")
        assert kept(single) == [1]
        assert backend(single) == pid

    def test_of_two_in_a_deadlock_one_goes_on(self, database: Database) -> None:
        insert(database, 1)
        insert(database, 2)
        meeting = threading.Barrier(2, timeout=5)

        def lock(first: int, second: int) -> bool:
            try:
                with database.transaction() as connection:
                    connection.add("SET LOCAL deadlock_timeout = 50")
                    connection.fetch_all("SELECT FROM things WHERE id = %(id)s FOR UPDATE", {"id": first})
                    meeting.wait()
                    connection.fetch_all("SELECT FROM things WHERE id = %(id)s FOR UPDATE", {"id": second})
            except DatabaseUnavailable:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            outcomes = [run.result() for run in (threads.submit(lock, 1, 2), threads.submit(lock, 2, 1))]
        assert sorted(outcomes) == [False, True]


class TestSqlstates:
    @pytest.mark.parametrize(
        "code", ["08006", "25006", "40001", "53100", "53300", "55P03", "57014", "57P01", "58030"]
    )
    def test_what_may_pass_is_unavailability(self, single: Database, code: str) -> None:
        with pytest.raises(DatabaseUnavailable), single.one_trip() as connection:
            connection.add("INSERT INTO things VALUES (1)")
            connection.add(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
        assert kept(single) == []

    @pytest.mark.parametrize("code", ["22003", "25P02", "42501", "42P01", "54000", "55000", "P0001", "XX000"])
    def test_what_waiting_cannot_cure_is_not(self, single: Database, code: str) -> None:
        """Even where psycopg2 calls it an OperationalError, as it does 54000 and 55000."""
        with pytest.raises(psycopg2.Error) as caught, single.one_trip() as connection:
            connection.add(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
        assert caught.value.pgcode == code
        assert kept(single) == []

    def test_a_read_only_server_is_left_for_another(self, single: Database) -> None:
        """After a failover the old connections lead to what is a replica now."""
        pid = backend(single)
        with pytest.raises(DatabaseUnavailable), single.one_trip() as connection:
            connection.add("SELECT set_config('transaction_read_only', 'on', true)")
            connection.add("INSERT INTO things VALUES (1)")
        assert backend(single) != pid


class TestConnecting:
    def test_too_many_connections(self, database: Database, database_url: str) -> None:
        role = f"limited_{secrets.token_hex(4)}"
        with database.one_trip() as connection:
            connection.add(f"CREATE ROLE {role} LOGIN PASSWORD 'limited' CONNECTION LIMIT 1")
        parts = urlsplit(database_url)
        url = parts._replace(netloc=f"{role}:limited@{parts.netloc.rpartition('@')[2]}").geturl()
        first, second = Database(url), Database(url)
        backend(first)
        with pytest.raises(DatabaseUnavailable):
            backend(second)
        terminate(database, backend(first))
        backend(second)
        first.close()
        terminate(database, backend(second))
        second.close()
        with database.one_trip() as connection:
            connection.add(f"DROP ROLE {role}")

    def test_a_server_that_is_down_is_unavailable_at_once_and_found_again_when_up(self) -> None:
        failures: list[None] = []
        with tempfile.TemporaryDirectory(prefix="auth-manager-test-") as directory:
            server = start_embedded(Path(directory), durable=False)
            database = Database(server.url, on_connect_failed=lambda: failures.append(None))
            try:
                backend(database)
                server.stop()
                for attempt in (1, 2):
                    with seconds(1), pytest.raises(DatabaseUnavailable):
                        backend(database)
                    assert len(failures) == attempt
                server = start_embedded(Path(directory), durable=False)
                backend(database)
                assert len(failures) == 2
            finally:
                database.close()
                server.stop()

    def test_a_frozen_postmaster(self, postgres: EmbeddedPostgres, single: Database) -> None:
        with stopped(postgres.pid), seconds(DEADLINE + 1), pytest.raises(DatabaseUnavailable):
            backend(single)
        backend(single)

    def test_a_wrong_url_is_a_defect(self) -> None:
        with pytest.raises(psycopg2.ProgrammingError), Database("postgresql://%zz").one_trip() as connection:
            connection.add("SELECT %(v)s", {"v": 1})


class TestFrozenBackend:
    @pytest.mark.parametrize("block", [Database.one_trip, Database.transaction], ids=lambda f: f.__name__)
    @pytest.mark.usefixtures("postgres")
    def test_unavailable_by_the_deadline_and_the_pool_goes_on(self, single: Database, block: Block) -> None:
        pid = backend(single)
        with (
            stopped(pid),
            seconds(DEADLINE + 1),
            pytest.raises(DatabaseUnavailable),
            block(single) as connection,
        ):
            connection.add("INSERT INTO things VALUES (1)")
            connection.fetch_one("SELECT 1")
        assert backend(single) != pid

    @pytest.mark.usefixtures("postgres")
    def test_frozen_between_two_trips(self, single: Database) -> None:
        """Not even the ROLLBACK can be sent."""
        pid = backend(single)
        try:
            with (
                seconds(DEADLINE + 1),
                pytest.raises(DatabaseUnavailable),
                single.transaction() as connection,
            ):
                connection.fetch_one("SELECT 1")
                os.kill(pid, signal.SIGSTOP)
                connection.fetch_one("SELECT 1")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert backend(single) != pid


class TestLostConnection:
    @pytest.mark.parametrize(("block", "trips"), [(Database.one_trip, 1), (Database.transaction, 2)])
    def test_lost_while_idle_is_seen_before_anything_is_sent(
        self, database: Database, single: Database, block: Block, trips: int
    ) -> None:
        terminate(database, backend(single))
        single.round_trips = 0
        with block(single) as connection:
            connection.fetch_one("INSERT INTO things VALUES (1) RETURNING id")
        assert single.round_trips == trips
        assert kept(database) == [1]

    @pytest.mark.parametrize(("block", "trips"), [(Database.one_trip, 2), (Database.transaction, 3)])
    def test_lost_in_a_freeze_is_seen_at_use_and_sent_again(
        self, database: Database, proxy: Proxy, proxied: Database, block: Block, trips: int
    ) -> None:
        backend(proxied)
        proxied.round_trips = 0
        proxy.cut_before = b"INSERT"
        with block(proxied) as connection:
            connection.fetch_one("INSERT INTO things VALUES (1) RETURNING id")
        assert proxied.round_trips == trips
        assert kept(database) == [1]

    def test_lost_on_first_use_is_not_sent_again(
        self, database: Database, proxy: Proxy, proxied: Database
    ) -> None:
        """A new connection was not lost in a freeze: something else is wrong."""
        proxy.cut_before = b"INSERT"
        with pytest.raises(DatabaseUnavailable):
            insert(proxied, 1)
        assert kept(database) == []

    def test_lost_in_mid_transaction_is_not_sent_again(self, database: Database, single: Database) -> None:
        pid = backend(single)
        with pytest.raises(DatabaseUnavailable), single.transaction() as connection:
            connection.fetch_one("INSERT INTO things VALUES (1) RETURNING id")
            terminate(database, pid)
            connection.fetch_one("INSERT INTO things VALUES (2) RETURNING id")
        assert kept(database) == []
        assert backend(single) != pid

    def test_a_lost_answer_to_commit_is_never_a_success(
        self, database: Database, proxy: Proxy, proxied: Database
    ) -> None:
        """Nobody can know, so nobody claims; here it was kept."""
        backend(proxied)
        proxy.cut_after = b"COMMIT"
        with pytest.raises(DatabaseUnavailable), proxied.transaction() as connection:
            connection.fetch_one("INSERT INTO things VALUES (1) RETURNING id")
        assert kept(database) == [1]
        assert kept(proxied) == [1]

    def test_silence_ends_at_the_deadline(self, proxy: Proxy, proxied: Database) -> None:
        backend(proxied)
        proxy.silent = True
        for _ in ("reused", "connecting"):
            with seconds(DEADLINE + 1), pytest.raises(DatabaseUnavailable):
                backend(proxied)
        proxy.silent = False
        backend(proxied)

    def test_idle_for_too_long_is_replaced_unasked(self, database_url: str) -> None:
        database = Database(database_url, max_idle=0.05)
        pid = backend(database)
        assert backend(database) == pid
        time.sleep(0.1)
        assert backend(database) != pid
        database.close()


class _Interrupted(BaseException):
    """What Ctrl-C raises, but of this test only."""


class TestInterrupt:
    @pytest.fixture(autouse=True)
    def _interruptible(self) -> Iterator[None]:
        def interrupt(_signal: int, _frame: FrameType | None) -> None:
            raise _Interrupted

        before = signal.signal(signal.SIGUSR1, interrupt)
        yield
        signal.signal(signal.SIGUSR1, before)

    @pytest.mark.parametrize("block", [Database.one_trip, Database.transaction], ids=lambda f: f.__name__)
    def test_a_busy_connection_does_not_come_back(self, database_url: str, block: Block) -> None:
        database = Database(database_url)
        pid = backend(database)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(_Interrupted), block(database) as connection:
            connection.fetch_one("SELECT pg_sleep(1)")
        assert backend(database) != pid
        database.close()

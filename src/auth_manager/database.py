"""PostgreSQL: the only place that connects, and the only place that waits for an answer.

A round trip is the unit of cost here, so statements are queued and travel together:

- `Database.one_trip()` sends everything in a single simple query, which PostgreSQL runs as one implicit
  transaction (protocol documentation, "Multiple Statements in a Simple Query").
- `Database.transaction()` is for work that must read before it can decide: BEGIN travels with the first
  trip and COMMIT with the last.

psycopg2 alone would wait for a frozen server for ever: statement_timeout is the server's, and keepalives are
answered by its kernel. A wait callback gives every wait a client-side deadline instead.
"""

import functools
import queue
import select
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras

from auth_manager.database_authorities import find_authorities
from auth_manager.errors import AuthError, DatabaseUnavailable
from auth_manager.spending import spending

Row = dict[str, Any]
Parameters = Mapping[str, object]

SESSION_OPTIONS = (
    "-c search_path=auth_manager -c timezone=UTC -c lock_timeout=2000 -c statement_timeout=3000 "
    "-c idle_in_transaction_session_timeout=10000"
)
"""Milliseconds; shorter than the client's deadline, so that a slow server answers before we hang up.
Behind RDS Proxy, which pins on SET and refuses `options`, they belong on the database role instead."""

_UNAVAILABLE_SQLSTATES = (
    "08",  # connection exception
    "25006",  # read_only_sql_transaction: the other end of a failover
    "25P03",  # idle_in_transaction_session_timeout
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources: connections, memory, disk
    "55P03",  # lock_not_available
    "57",  # operator intervention: statement_timeout, shutdown, starting up
    "58",  # system error
)
"""Codes and whole classes of codes after which the same request can succeed later. Not the rest of what
psycopg2 calls OperationalError: an index row that is too large (54000) is so for ever."""

AFTER_DEADLOCK = 0.05
"""Seconds that the victim of a deadlock waits before it is sent again."""

_REQUIREMENT_FAILED = "AM001"
"""SQLSTATE of `require`, in migrations/0003_security.sql."""

_STALE_SQLSTATES = frozenset({"25006"})


class DeadlineExceeded(psycopg2.OperationalError):
    """The server did not answer in time; the connection is lost."""


class _Connection(psycopg2.extensions.connection):
    """A connection that knows until when it may wait, in `time.monotonic()` seconds."""

    def __init__(self, dsn: str, *, deadline: float) -> None:
        self.deadline = deadline  # before libpq connects, which already waits through `_wait`
        self.idle_since = 0.0
        super().__init__(dsn)


def _wait(connection: Any, _timeout: float | None = None) -> None:  # noqa: ANN401 -- psycopg2's type
    """Wait for the socket as libpq asks, but never past the connection's deadline.

    Whatever is raised here (a KeyboardInterrupt too), psycopg2 drops the connection. Closing it here would
    wait for a lock that `execute` holds: for ever.
    """
    events = {psycopg2.extensions.POLL_READ: select.POLLIN, psycopg2.extensions.POLL_WRITE: select.POLLOUT}
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), events[state])
        remaining = connection.deadline - time.monotonic()
        if remaining <= 0 or not poller.poll(remaining * 1000):
            raise DeadlineExceeded("no answer from PostgreSQL before the deadline")


psycopg2.extensions.set_wait_callback(_wait)
psycopg2.extras.register_uuid()  # type: ignore[no-untyped-call]


class Connection:
    """Statements of one transaction; what a store receives.

    `add` queues a statement whose result nobody reads; `fetch_one` and `fetch_all` send the queue and their
    own statement in one round trip. What is still queued at the end travels with the commit.
    """

    def __init__(self, send: Callable[[bytes], list[Row]], mogrify: Callable[..., bytes]) -> None:
        self._send = send
        self._mogrify = mogrify
        self._queued: list[bytes] = []
        self._refusals: dict[str, AuthError] = {}

    def add(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        refused: Mapping[str, AuthError] | None = None,
    ) -> None:
        """Queue a statement; its errors surface when it is sent. Without parameters `%` means itself.

        `refused` says what the database's refusal means: by the name of a violated constraint, or by the
        fact of a `require(condition, fact)` that does not hold. The whole trip is then undone and the error
        raised in place of psycopg2's.
        """
        self._queued.append(self._mogrify(sql, parameters) if parameters else sql.encode())
        self._refusals.update(refused or {})

    def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        refused: Mapping[str, AuthError] | None = None,
    ) -> list[Row]:
        """Send the queue and this statement; return this statement's rows."""
        self.add(sql, parameters, refused=refused)
        return self._flush()

    def fetch_one(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        refused: Mapping[str, AuthError] | None = None,
    ) -> Row | None:
        """Send the queue and this statement; return its first row, or None."""
        rows = self.fetch_all(sql, parameters, refused=refused)
        return rows[0] if rows else None

    def _flush(self) -> list[Row]:
        statements, self._queued = self._queued, []
        try:
            return self._send(b";\n".join(statements))
        except psycopg2.Error as error:
            fact = error.diag.message_primary if error.pgcode == _REQUIREMENT_FAILED else None
            refusal = self._refusals.get(fact or error.diag.constraint_name or "")
            if refusal is None:
                raise
            raise refusal from error


class Database:
    """A small pool of connections, each given out for one transaction.

    One connection is right for a Lambda sandbox, which runs one request at a time; a threaded server needs
    more. A connection seen to have died while it was idle is replaced; one that turns out dead when it is
    used, as after a freeze, is replaced and its first round trip sent once more: every write of this service
    carries ids chosen by the caller, so that sending it twice does it once.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        renewed_url: Callable[[], str] | None = None,
        pool_size: int = 1,
        connect_timeout: float = 2.0,
        deadline: float = 4.0,
        max_idle: float = 240.0,
        session_options: bool = True,
        on_connect_failed: Callable[[], None] = lambda: None,
        trace: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Prepare a pool; nothing is opened yet.

        Args:
            url: libpq connection URI, or what returns it for each new connection.
            renewed_url: asked after a refusal, as its password may have been changed; another URL than the
                one refused is tried at once.
            pool_size: connections open at once, at most.
            connect_timeout: seconds for a connection to be ready.
            deadline: seconds for a whole transaction, connecting and waiting for a place included.
            max_idle: seconds after which an idle connection is replaced unasked, because firewalls drop
                idle flows without telling either end.
            session_options: whether to send SESSION_OPTIONS at connect.
            on_connect_failed: called once for each failed attempt to connect.
            trace: returns what surrounds each round trip, the wait for a connection included.
        """
        self._url = url if callable(url) else lambda: url
        self._renewed_url = renewed_url
        self._connect_timeout = connect_timeout
        self._deadline = deadline
        self._max_idle = max_idle
        self._options: dict[str, Any] = {"options": SESSION_OPTIONS} if session_options else {}
        self._on_connect_failed = on_connect_failed
        self._trace = trace
        self._places = threading.BoundedSemaphore(pool_size)
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue()
        self._closed = False
        self.round_trips = 0
        """Simple queries sent since the start, BEGIN and COMMIT included, when they travel alone."""

    @contextmanager
    def one_trip(self) -> Generator[Connection]:
        """Send all statements of the block in one round trip and one implicit transaction.

        The last statement's rows are the only ones returned, so a fetch ends the trip: the block may not
        use its connection after it. Nothing is sent when the block raises before that. PostgreSQL undoes one
        of two that wait for each other: then it is sent once more.

        Raises:
            DatabaseUnavailable: no answer, no connection, or a time-out. Nothing was kept, unless only the
                answer was lost or late: then nobody knows.
        """
        with self._checked_out() as lease:
            connection = Connection(lease.send_once, lease.mogrify)
            yield connection
            if connection._queued:
                connection._flush()

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """Run an explicit transaction: commit at the end of the block, roll back when it raises.

        Raises:
            DatabaseUnavailable: as for `one_trip`.
        """
        with self._checked_out() as lease:
            connection = Connection(lease.send, lease.mogrify)
            connection.add("BEGIN")
            try:
                yield connection
                if lease.sent:
                    connection.add("COMMIT")
                    connection._flush()
                    lease.confirm_commit()
                elif len(connection._queued) > 1:
                    del connection._queued[0]
                    connection._flush()
            except BaseException:
                lease.roll_back()
                raise

    def close(self) -> None:
        """Close the idle connections; those in use close when they come back."""
        self._closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    @contextmanager
    def _checked_out(self) -> Generator["_Lease"]:
        deadline = time.monotonic() + self._deadline
        if not self._places.acquire(timeout=self._deadline):
            raise DatabaseUnavailable("the database is busy")
        try:
            lease = _Lease(self, deadline)
            try:
                yield lease
            except psycopg2.Error as error:
                lease.discard_if_stale(error)
                if _is_unavailability(error):
                    raise DatabaseUnavailable from error
                raise
            finally:
                lease.give_back()
        finally:
            self._places.release()

    def _connect(self, deadline: float) -> _Connection:
        """Open a connection; libpq has no SQLSTATE for a refusal, so each one may mean a new password."""
        url = self._url()
        try:
            return self._connect_to(url, deadline)
        except DeadlineExceeded:
            raise
        except psycopg2.OperationalError:
            renewed = self._renewed_url() if self._renewed_url else url
            if renewed == url:
                raise
            return self._connect_to(renewed, deadline)

    def _connect_to(self, url: str, deadline: float) -> _Connection:
        """Open a connection. Looking up the server's name is the one wait that no deadline bounds."""
        deadline = min(deadline, time.monotonic() + self._connect_timeout)
        try:
            connection: _Connection = psycopg2.connect(
                url,
                connection_factory=functools.partial(_Connection, deadline=deadline),
                application_name="auth-manager",
                client_encoding="UTF8",
                **self._options | find_authorities(url),
            )
        except psycopg2.Error:
            self._on_connect_failed()
            raise
        connection.autocommit = True
        return connection

    def _take_idle(self) -> _Connection | None:
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return None
            if time.monotonic() - connection.idle_since <= self._max_idle and not _has_hung_up(connection):
                return connection
            connection.close()


class _Lease:
    """One place in the pool, for one transaction: connects when needed, retries a connection lost idle."""

    def __init__(self, database: Database, deadline: float) -> None:
        self._database = database
        self._deadline = deadline
        self._connection = database._take_idle()
        self._reused = self._connection is not None
        self.sent = False
        self._answer: str | None = None

    @property
    def _open(self) -> _Connection:
        if self._connection is None:
            self._connection = self._database._connect(self._deadline)
        self._connection.deadline = self._deadline
        return self._connection

    def mogrify(self, sql: str, parameters: Parameters) -> bytes:
        """Bind parameters client-side, as psycopg2 does for every statement."""
        connection = self._open
        with connection.cursor() as cursor:
            rendered: bytes = cursor.mogrify(sql, parameters)
        return rendered

    def send(self, sql: bytes) -> list[Row]:
        """Send one simple query; return the rows of its last statement."""
        first, self.sent = not self.sent, True
        try:
            return self._execute(sql)
        except psycopg2.Error as error:
            lost = self._connection is not None and self._connection.closed
            if not (first and self._reused and lost) or isinstance(error, DeadlineExceeded):
                raise
            self._close()
            self._connection, self._reused = None, False
            return self._execute(sql)

    def send_once(self, sql: bytes) -> list[Row]:
        """Send the only simple query of this lease: a second one would be a second transaction."""
        if self.sent:
            raise RuntimeError("one_trip() sends once: nothing may follow its fetch")
        try:
            return self.send(sql)
        except psycopg2.errors.DeadlockDetected:
            # Nothing of it was kept. The other one goes on, if it is left the time to take what was let go.
            time.sleep(AFTER_DEADLOCK)
            return self._execute(sql)

    def _execute(self, sql: bytes) -> list[Row]:
        with (
            spending("round_trips"),
            self._database._trace(),
            self._open.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            self._database.round_trips += 1
            cursor.execute(sql)
            self._answer = cursor.statusmessage
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def confirm_commit(self) -> None:
        """Refuse to take ROLLBACK for success: PostgreSQL's answer to COMMIT in a failed transaction."""
        if self._answer != "COMMIT":
            raise psycopg2.errors.InFailedSqlTransaction(
                "nothing was kept: the block caught an error of PostgreSQL and went on"
            )

    def roll_back(self) -> None:
        """Undo what was sent; a connection that cannot even do that is closed."""
        if self._connection is None or self._connection.closed or self._is_idle(self._connection):
            return
        try:
            self._execute(b"ROLLBACK")
        except psycopg2.Error:
            self._close()

    def discard_if_stale(self, error: psycopg2.Error) -> None:
        """Drop a connection that reached the wrong server, so that the next request finds the right one."""
        if error.pgcode in _STALE_SQLSTATES:
            self._close()

    def give_back(self) -> None:
        """Return a usable connection to the pool; close any other."""
        connection = self._connection
        if connection is None:
            return
        if connection.closed or not self._is_idle(connection):
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._database._idle.put(connection)
        if self._database._closed:
            self._database.close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @staticmethod
    def _is_idle(connection: _Connection) -> bool:
        return connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE


def _has_hung_up(connection: _Connection) -> bool:
    """Tell whether the server said something since the last answer: a farewell, or the end of the stream."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _is_unavailability(error: psycopg2.Error) -> bool:
    """Tell "try again later" from a defect of ours or a constraint the caller handles."""
    if error.pgcode is not None:
        return error.pgcode.startswith(_UNAVAILABLE_SQLSTATES)
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return True
    # A connection cut mid-answer surfaces as a bare DatabaseError without SQLSTATE.
    return type(error) is psycopg2.DatabaseError

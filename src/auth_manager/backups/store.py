"""SQL of backups: a snapshot's tables, COPY out and in, and the state of a database before a restore.

COPY does not work under a wait callback (psycopg2 documentation, "Support for coroutine libraries"), which
database.py sets for the whole process. So a connection of here switches it off while it lasts, and the
deadlines of other connections with it: not for a process that serves. Keepalives notice a dead server.
"""

import graphlib
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import psycopg2
import psycopg2.errors
import psycopg2.extras
from psycopg2 import sql
from psycopg2.extensions import get_wait_callback, set_wait_callback

from auth_manager.backups import BackupError
from auth_manager.backups.archive import SchemaVersion
from auth_manager.database import Connection, Parameters, Row
from auth_manager.database_authorities import find_authorities
from auth_manager.errors import DatabaseUnavailable

SCHEMA = "auth_manager"

# What a text means may not hang on the server's settings; and a backup takes as long as it takes.
_SESSION = """
SET search_path = auth_manager;
SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET statement_timeout = 0; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = 0
"""

_KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

_SCRATCH_PREFIX = "auth_manager_verify_"

_one_at_a_time = threading.RLock()


class NoScratchDatabase(BackupError):
    """There is no database to try a backup in."""


class Sink(Protocol):
    """Takes rows as COPY writes them."""

    def write(self, lines: bytes, /) -> object:
        """Take whole rows."""


class Source(Protocol):
    """Gives rows as COPY reads them."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes, none at the end."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A table and its columns; those that PostgreSQL generates are left out."""

    name: str
    columns: tuple[str, ...]


class Session:
    """A connection of its own for one backup or restore."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 -- psycopg2's type is not exported
        self._connection = connection
        self.statements = Connection(self._send, self._mogrify)

    def copy_out(self, table: Shape, sink: Sink) -> None:
        """Write every row of a table; whatever the sink raises comes through, and ends the connection."""
        statement = sql.SQL("COPY {} ({}) TO STDOUT").format(*_named(table))
        with self._connection.cursor() as cursor:
            cursor.copy_expert(statement, sink)

    def copy_in(self, table: Shape, source: Source) -> int:
        """Read rows into a table; return how many. What the source raises arrives as QueryCanceled."""
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(*_named(table))
        with self._connection.cursor() as cursor:
            cursor.copy_expert(statement, source, size=1 << 16)
            copied: int = cursor.rowcount
        return copied

    def commit(self) -> None:
        """Send what is queued, and keep everything."""
        self.statements.add("COMMIT")
        self.statements.fetch_all("SELECT 1")

    def _send(self, statements: bytes) -> list[Row]:
        with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(statements)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def _mogrify(self, statement: str, parameters: Parameters) -> bytes:
        with self._connection.cursor() as cursor:
            mogrified: bytes = cursor.mogrify(statement, parameters)
        return mogrified


@contextmanager
def connect(url: str) -> Generator[Session]:
    """Open a connection for a backup or a restore; what was not committed at the end is undone.

    Raises:
        DatabaseUnavailable: no connection, or it was lost.
        BackupError: PostgreSQL refused; in its own words, without values.
    """
    with _one_at_a_time, _without_wait_callback(), _translated():
        connection = psycopg2.connect(
            url,
            connect_timeout=10,
            application_name="auth-manager backup",
            client_encoding="UTF8",
            **_KEEPALIVES | find_authorities(url),
        )
        try:
            connection.autocommit = True
            session = Session(connection)
            session.statements.fetch_all(f"{_SESSION}; SELECT 1")
            yield session
        finally:
            connection.close()


def begin_snapshot(session: Session) -> None:
    """See the database as it is now, until the end of the session, and change nothing.

    The tables are locked against what no snapshot hides, before it is taken: TRUNCATE (of a restore) and an
    ALTER TABLE that rewrites leave their older rows to nobody. Who writes rows waits for nothing.
    """
    tables = ", ".join(_quoted(table.name) for table in list_tables(session))
    lock = f"LOCK TABLE {tables} IN ACCESS SHARE MODE;" if tables else ""
    session.statements.fetch_all(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {lock} SELECT 1")


def list_applied(session: Session) -> tuple[SchemaVersion, ...]:
    """Return the migrations that were applied; none where there is no schema."""
    if not session.statements.fetch_all("SELECT 1 WHERE to_regclass('schema_migrations') IS NOT NULL"):
        return ()
    rows = session.statements.fetch_all(
        "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
    )
    return tuple(SchemaVersion(row["version"], row["name"], row["checksum"]) for row in rows)


def list_tables(session: Session) -> list[Shape]:
    """Return every table that keeps something, each after those that it refers to.

    Left out: schema_migrations, which migrating writes, and unlogged tables, which a crash may empty.
    """
    rows = session.statements.fetch_all(
        """
        SELECT c.relname AS name,
               ARRAY(SELECT attname::text FROM pg_attribute
                     WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
                     ORDER BY attnum) AS columns,
               ARRAY(SELECT r.relname::text FROM pg_constraint JOIN pg_class AS r ON r.oid = confrelid
                     WHERE conrelid = c.oid AND contype = 'f' AND confrelid <> c.oid
                       AND r.relnamespace = c.relnamespace) AS refers_to
        FROM pg_class AS c
        WHERE c.relnamespace = to_regnamespace('auth_manager') AND c.relkind = 'r' AND c.relpersistence = 'p'
          AND c.relname <> 'schema_migrations'
        ORDER BY c.relname
        """
    )
    shapes = {row["name"]: Shape(row["name"], tuple(row["columns"])) for row in rows}
    order = graphlib.TopologicalSorter({row["name"]: row["refers_to"] for row in rows}).static_order()
    return [shapes[name] for name in order]


def list_sequences(session: Session) -> dict[str, int]:
    """Return where each sequence is; those that gave nothing yet are left out."""
    rows = session.statements.fetch_all(
        """
        SELECT sequencename AS name, last_value FROM pg_sequences
        WHERE schemaname = 'auth_manager' AND last_value IS NOT NULL
        """
    )
    return {row["name"]: row["last_value"] for row in rows}


def find_occupied(session: Session) -> list[str]:
    """Return the tables that have rows, but for those that migrating an empty database leaves."""
    occupied = []
    for table in list_tables(session):
        condition = "NOT is_built_in" if table.name == "roles" else "true"
        if session.statements.fetch_all(f"SELECT 1 FROM {_quoted(table.name)} WHERE {condition} LIMIT 1"):  # noqa: S608
            occupied.append(table.name)
    return occupied


def lock_all(session: Session) -> None:
    """Keep everybody out of the schema's tables, until the end of the transaction."""
    tables = ", ".join(_quoted(table.name) for table in list_tables(session))
    if tables:
        session.statements.fetch_all(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE; SELECT 1")


def drop_everything(session: Session) -> None:
    """Drop our tables and functions; the schema stays, with who may use it.

    Without CASCADE: what others built on our tables is not ours to drop, and stops it.
    """
    tables = session.statements.fetch_all(
        """
        SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = 'auth_manager'
        """
    )
    if tables:
        session.statements.fetch_all(f"DROP TABLE {', '.join(row['name'] for row in tables)}; SELECT 1")
    functions = session.statements.fetch_all(
        """
        SELECT p.oid::regprocedure::text AS name FROM pg_proc AS p
        WHERE p.pronamespace = to_regnamespace('auth_manager')
          AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
        """
    )
    if functions:
        session.statements.fetch_all(f"DROP ROUTINE {', '.join(row['name'] for row in functions)}; SELECT 1")


def empty_all(session: Session) -> None:
    """Empty every table, with no trigger of ours: they speak of changes by people, and a load is none."""
    tables = list_tables(session)
    _switch_triggers(session, tables, "DISABLE")
    session.statements.fetch_all(f"TRUNCATE {', '.join(_quoted(table.name) for table in tables)}; SELECT 1")


def finish_load(session: Session, sequences: Mapping[str, int]) -> None:
    """Switch the triggers on again, and put the sequences where they were."""
    _switch_triggers(session, list_tables(session), "ENABLE")
    for name, value in sequences.items():
        session.statements.fetch_all(
            "SELECT setval(format('auth_manager.%%I', %(name)s::text)::regclass, %(value)s)",
            {"name": name, "value": value},
        )


def end_what_was_open(session: Session) -> int:
    """End what may have been ended since the backup; return how many sessions that were.

    Sessions, trusted devices, mailed links and codes; and mail that was not sent yet is not sent. Webhooks
    are: their receivers know them by their ids.
    """
    columns = {table.name: table.columns for table in list_tables(session)}
    if "one_time_secrets" in columns:
        session.statements.add("DELETE FROM one_time_secrets")
    if "trusted_devices" in columns:
        session.statements.add("DELETE FROM trusted_devices")
    if "failed_at" in columns.get("outbox", ()):
        session.statements.add(
            """
            UPDATE outbox SET failed_at = now(), failure = 'restored'
            WHERE sent_at IS NULL AND failed_at IS NULL AND kind <> 'webhook'
            """
        )
    rows = session.statements.fetch_all(
        """
        WITH ended AS (
            UPDATE sessions SET ended_at = now(), end_reason = 'restored' WHERE ended_at IS NULL RETURNING 1
        )
        SELECT count(*) AS ended FROM ended
        """
    )
    ended: int = rows[0]["ended"]
    return ended


def analyze(session: Session) -> None:
    """Let the planner know how large the tables are now.

    Raises:
        DatabaseUnavailable: the connection was lost.
        BackupError: PostgreSQL refused.
    """
    with _translated():
        tables = ", ".join(_quoted(table.name) for table in list_tables(session))
        session.statements.fetch_all(f"ANALYZE {tables}")


@contextmanager
def scratch_database(url: str, *, name: str) -> Generator[str]:
    """Create a database on the same server; yield its URL; drop it, whatever happened.

    Raises:
        NoScratchDatabase: it cannot be created: the role may not, for one.
    """
    try:
        with connect(url) as session:
            session.statements.fetch_all(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    except BackupError as error:
        raise NoScratchDatabase(f"no scratch database: {error} (--checksums-only needs none)") from error
    try:
        yield urlsplit(url)._replace(path=f"/{quote(name)}").geturl()
    finally:
        with connect(url) as session:
            session.statements.fetch_all(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def drop_forgotten(url: str, is_old: Callable[[str], bool]) -> None:
    """Drop what killed verifications left: scratch databases of which nobody uses any."""
    with connect(url) as session:
        rows = session.statements.fetch_all(
            """
            SELECT datname AS name FROM pg_database AS d
            WHERE starts_with(datname, %(prefix)s) AND pg_has_role(datdba, 'USAGE')
              AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid)
            """,
            {"prefix": _SCRATCH_PREFIX},
        )
        for row in rows:
            if is_old(row["name"].removeprefix(_SCRATCH_PREFIX)):
                session.statements.fetch_all(f"DROP DATABASE IF EXISTS {_quoted(row['name'])}")


def scratch_name(suffix: str) -> str:
    """Return the name of a scratch database."""
    return _SCRATCH_PREFIX + suffix


def _switch_triggers(session: Session, tables: Sequence[Shape], switch: str) -> None:
    for table in tables:
        session.statements.add(f"ALTER TABLE {_quoted(table.name)} {switch} TRIGGER USER")
    session.statements.fetch_all("SELECT 1")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _named(table: Shape) -> tuple[sql.Identifier, sql.Composed]:
    return sql.Identifier(SCHEMA, table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))


@contextmanager
def _without_wait_callback() -> Generator[None]:
    callback = get_wait_callback()
    set_wait_callback(None)
    try:
        yield
    finally:
        set_wait_callback(callback)


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except psycopg2.errors.InsufficientPrivilege as error:
        raise BackupError(f"PostgreSQL: {error.diag.message_primary}") from error
    except psycopg2.OperationalError as error:
        if error.pgcode is None:
            raise DatabaseUnavailable from error
        raise BackupError(f"PostgreSQL: {error.diag.message_primary}") from error
    except psycopg2.Error as error:
        raise BackupError(f"PostgreSQL: {error.diag.message_primary or type(error).__name__}") from error

"""Schema migrations: migrations/NNNN_name.sql, each applied once, in order, in a transaction of its own.

The running image and the next one share a schema (expand, deploy, contract), so a database may be ahead of
this package, never different from it.
"""

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psycopg2
import psycopg2.errors

from auth_manager.database import Connection, Database, Row
from auth_manager.errors import DatabaseUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"

_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_OWN_TRANSACTION = re.compile(r"^\s*(BEGIN|COMMIT|ROLLBACK)\s*;", re.IGNORECASE | re.MULTILINE)
_LOCK = 7_305_001
"""Advisory lock of all migrators of one database; the number means nothing."""

# CREATE SCHEMA IF NOT EXISTS would need the right to create one even where it exists.
_CREATE_ONCE = """
DO $$ BEGIN
    IF to_regnamespace('auth_manager') IS NULL THEN
        CREATE SCHEMA auth_manager;
    END IF;
    IF to_regclass('auth_manager.schema_migrations') IS NULL THEN
        CREATE TABLE auth_manager.schema_migrations (
            version integer NOT NULL,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT schema_migrations_pkey PRIMARY KEY (version)
        );
    END IF;
END $$
"""


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the package."""

    version: int
    name: str
    sql: str = field(repr=False)
    checksum: str = field(repr=False)

    @property
    def file_name(self) -> str:
        """The name it is known by to people."""
        return f"{self.version:04}_{self.name}.sql"


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """A migration of the package, the database or both; `applied_at` is None where it is pending."""

    version: int
    name: str
    applied_at: datetime | None


def read_migrations(directory: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """Read the migrations of a directory, in order.

    Raises:
        MigrationError: a file is misnamed or ends its transaction, the numbers are not 1, 2, 3 and so on, or
            there is no file.
    """
    migrations: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        parts = _FILE_NAME.fullmatch(path.name)
        if parts is None:
            raise MigrationError(f"{path.name} is not named NNNN_name.sql: rename it")
        sql = path.read_text(encoding="utf-8")  # newlines as \n, whatever git made of them
        migration = Migration(
            version=int(parts["version"]),
            name=parts["name"],
            sql=sql,
            checksum=hashlib.sha256(sql.encode()).hexdigest(),
        )
        if migration.version != len(migrations) + 1:
            raise MigrationError(f"{path.name} should have number {len(migrations) + 1:04}: renumber it")
        if _OWN_TRANSACTION.search(sql):
            raise MigrationError(f"{path.name} begins or ends a transaction: it runs in one, take that out")
        migrations.append(migration)
    if not migrations:
        raise MigrationError(f"no migrations in {directory}: install the package again")
    return tuple(migrations)


@functools.cache
def shipped_migrations() -> tuple[Migration, ...]:
    """Return the package's own migrations; read once."""
    return read_migrations()


def is_current(database: Database) -> bool:
    """Tell, in one round trip, whether the database has everything this package needs.

    Migrations are applied in order, so the newest stands for all.

    Raises:
        DatabaseUnavailable: the database did not answer.
    """
    newest = shipped_migrations()[-1]
    try:
        with database.one_trip() as connection:
            row = connection.fetch_one(
                """
                SELECT version FROM auth_manager.schema_migrations
                WHERE version = %(version)s AND checksum = %(checksum)s
                """,
                {"version": newest.version, "checksum": newest.checksum},
            )
    except psycopg2.errors.UndefinedTable:  # a missing schema is reported as this, too
        return False
    return row is not None


def apply_migrations(
    database_url: str,
    *,
    migrations: Sequence[Migration] | None = None,
    lock_timeout: float = 4.0,
    statement_timeout: float = 5.0,
    deadline: float = 300.0,
) -> list[Migration]:
    """Apply what is pending and return it. Several may run this at once: each migration is applied once.

    Args:
        database_url: of a role that owns the schema, or may create it.
        migrations: other than the package's own.
        lock_timeout: seconds a statement may wait for a table, and so keep others waiting behind it.
        statement_timeout: seconds for each statement.
        deadline: seconds for each migration, waiting for another migrator included.

    Raises:
        MigrationError: a migration failed and left nothing behind, or the database is not what the package
            thinks; what was applied before stays.
        DatabaseUnavailable: no connection, or another migrator held the lock past the deadline.
    """
    known = shipped_migrations() if migrations is None else migrations
    database = Database(database_url, connect_timeout=10, deadline=deadline, session_options=False)
    applied: list[Migration] = []
    try:
        while migration := _apply_next(database, known, lock_timeout, statement_timeout):
            applied.append(migration)
    finally:
        database.close()
    return applied


def migration_status(
    database_url: str, *, migrations: Sequence[Migration] | None = None
) -> list[MigrationStatus]:
    """Return every migration of the package and of the database, in order. Changes nothing.

    Raises:
        MigrationError: the database is not what the package thinks.
        DatabaseUnavailable: the database did not answer.
    """
    known = shipped_migrations() if migrations is None else migrations
    database = Database(database_url)
    try:
        with database.one_trip() as connection:
            rows = _fetch_applied(connection)
    except psycopg2.errors.UndefinedTable:
        rows = []
    finally:
        database.close()
    _compare(rows, known)
    applied = [MigrationStatus(row["version"], row["name"], row["applied_at"]) for row in rows]
    pending = [MigrationStatus(m.version, m.name, None) for m in known[len(rows) :]]
    return applied + pending


def _apply_next(
    database: Database, known: Sequence[Migration], lock_timeout: float, statement_timeout: float
) -> Migration | None:
    """Apply the first pending migration, under the lock; None when there is none."""
    migration = None
    try:
        with database.transaction() as connection:
            connection.add("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
            connection.add("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": _LOCK})
            connection.add(_CREATE_ONCE)
            rows = _fetch_applied(connection)
            _compare(rows, known)
            if len(rows) >= len(known):
                return None
            migration = known[len(rows)]
            connection.add("SET LOCAL search_path = auth_manager")
            connection.add(
                """
                SELECT set_config('lock_timeout', %(lock)s, true),
                       set_config('statement_timeout', %(statement)s, true)
                """,
                {"lock": f"{lock_timeout * 1000:.0f}", "statement": f"{statement_timeout * 1000:.0f}"},
            )
            _add_migration(connection, migration)
    except (psycopg2.Error, DatabaseUnavailable) as error:
        reason = str(error.__cause__ or error).strip()
        if migration is not None:
            raise MigrationError(f"{migration.file_name} did not go through: {reason}") from error
        if isinstance(error, DatabaseUnavailable):
            raise
        raise MigrationError(f"schema auth_manager cannot be prepared: {reason}") from error
    return migration


def add_schema(connection: Connection, migrations: Sequence[Migration]) -> None:
    """Queue the lock of all migrators, the schema if it is missing, and migrations: for a restore.

    All of it happens in the caller's transaction, or none; the caller says which migrations are missing. The
    search path is the schema's from then on.
    """
    connection.add("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": _LOCK})
    connection.add(_CREATE_ONCE)
    connection.add("SET LOCAL search_path = auth_manager")
    for migration in migrations:
        _add_migration(connection, migration)


def _add_migration(connection: Connection, migration: Migration) -> None:
    connection.add(migration.sql + "\n")  # a comment may end the file
    connection.add(
        """
        INSERT INTO auth_manager.schema_migrations (version, name, checksum)
        VALUES (%(version)s, %(name)s, %(checksum)s)
        """,
        {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
    )


def _fetch_applied(connection: Connection) -> list[Row]:
    return connection.fetch_all(
        "SELECT version, name, checksum, applied_at FROM auth_manager.schema_migrations ORDER BY version"
    )


def _compare(rows: Sequence[Row], known: Sequence[Migration]) -> None:
    """Refuse a database that took another road than this package; being ahead of it is no other road."""
    for version, row in enumerate(rows, start=1):
        file_name = f"{row['version']:04}_{row['name']}.sql"
        if row["version"] != version:
            raise MigrationError(
                f"the database has {file_name} but not number {version:04}: restore its row, or the database"
            )
        if version <= len(known) and row["checksum"] != known[version - 1].checksum:
            raise MigrationError(
                f"{known[version - 1].file_name} is not the {file_name} that was applied: "
                "restore the file, and write what you want to change as a new migration"
            )

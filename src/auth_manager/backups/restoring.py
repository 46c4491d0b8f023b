"""Restoring a backup, into a database or a scratch one: all of it in one transaction, or nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from auth_manager import audit, migrate
from auth_manager.audit import Origin
from auth_manager.backups import BackupDamaged, BackupError, store
from auth_manager.backups.archive import Manifest, RowsDigest, Table
from auth_manager.backups.reading import check_parts, open_manifest, read_part
from auth_manager.backups.storage import Storage
from auth_manager.errors import DatabaseUnavailable
from auth_manager.migrate import Migration

_SCRATCH_TIME = "%Y%m%d%H%M%S"
_SCRATCH_LIFETIME = timedelta(days=1)


class NotEmpty(BackupError):
    """The database has something in it, and nobody said that it may go."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: sessions that it ended, and migrations that followed it.

    `not_analyzed` says why the planner does not know the tables' new sizes; None when it does.
    """

    manifest: Manifest
    sessions_ended: int
    migrated: tuple[str, ...]
    not_analyzed: str | None


def restore(
    url: str,
    storage: Storage,
    backup_id: str,
    origin: Origin,
    *,
    force: bool = False,
    keep_sessions: bool = False,
    on_read: Callable[[int], None] = lambda _size: None,
) -> Restored:
    """Make a database what it was at a backup, and then what this version needs.

    The schema of the backup's time, every row, the newer migrations and the event in the trail come in one
    transaction: whoever kills this finds the database as it was before, or whole.

    Args:
        url: of the database, for the role that owns the schema, or may create it.
        storage: where the backup is.
        backup_id: of a complete backup.
        origin: who asked for it, for the audit trail.
        force: replace what is in the database.
        keep_sessions: leave sessions, trusted devices, mailed links and unsent mail as they were at the
            backup. By default they end: some may have been ended, used or sent since.
        on_read: told of the bytes of each part, after it.

    Raises:
        NotEmpty: there are rows, and no `force`.
        BackupDamaged: something is not what was written. Nothing was changed.
        BackupError: the backup's schema is newer than this version's, or another one; or PostgreSQL refused.
        DatabaseUnavailable: the database did not answer.
    """
    manifest = open_manifest(storage, backup_id)
    newer = migrate.shipped_migrations()[len(manifest.migrations) :]
    with store.connect(url) as session:
        _load(session, storage, manifest, force=force, on_read=on_read)
        ended = 0 if keep_sessions else store.end_what_was_open(session)
        connection = session.statements
        migrate.add_schema(connection, newer)
        details = {"backup": manifest.id, "rows": manifest.rows, "sessions_ended": ended}
        audit.append(connection, "restored", origin, details=details)
        session.commit()
        not_analyzed = _analyze(session)
    return Restored(manifest, ended, tuple(migration.file_name for migration in newer), not_analyzed)


def _analyze(session: store.Session) -> str | None:
    """Return why it failed, if it did: what was restored stays restored."""
    try:
        store.analyze(session)
    except (BackupError, DatabaseUnavailable) as error:
        return str(error)
    return None


def verify(
    url: str | None,
    storage: Storage,
    backup_id: str,
    *,
    now: datetime,
    random: bytes,
    on_read: Callable[[int], None] = lambda _size: None,
) -> Manifest:
    """Compare a backup with its manifest, and restore it into a scratch database that is dropped afterwards.

    Args:
        url: of a database on the server where the scratch one is created; None compares checksums only.
        storage: where the backup is.
        backup_id: of a complete backup.
        now: the current time.
        random: four bytes for the scratch database's name.
        on_read: told of the bytes of each part, after each of the two times it is read.

    Raises:
        BackupDamaged: something is not what was written, or does not come back as it was.
        BackupError: the scratch database cannot be created, or the backup's schema is newer than this
            version's, or another one.
    """
    manifest = open_manifest(storage, backup_id)
    check_parts(storage, manifest, on_read)
    if url is None:
        return manifest
    store.drop_forgotten(url, lambda suffix: _is_forgotten(suffix, now))
    name = store.scratch_name(f"{now.astimezone(UTC):{_SCRATCH_TIME}}_{random[:4].hex()}")
    with store.scratch_database(url, name=name) as scratch:
        with store.connect(scratch) as session:
            _load(session, storage, manifest, force=False, on_read=on_read)
            session.commit()
        _compare(scratch, manifest)
    return manifest


def _load(
    session: store.Session,
    storage: Storage,
    manifest: Manifest,
    *,
    force: bool,
    on_read: Callable[[int], None],
) -> None:
    """Begin a transaction and load everything; the caller commits."""
    wanted = _migrations_of(manifest)
    session.statements.add("BEGIN")
    migrate.add_schema(session.statements, ())
    store.lock_all(session)
    if not force and (occupied := store.find_occupied(session)):
        raise NotEmpty(
            f"the database is not empty ({', '.join(occupied[:5])}): --force replaces everything in it"
        )
    there = len(store.list_applied(session))
    if there > len(wanted):
        store.drop_everything(session)
        there = 0
    migrate.add_schema(session.statements, wanted[there:])
    if store.list_applied(session) != manifest.migrations:
        raise BackupError("the database's migrations are not those of the backup: use an empty database")
    shapes = {shape.name: shape for shape in store.list_tables(session)}
    store.empty_all(session)
    for table in manifest.tables:
        if table.name not in shapes:
            raise BackupError(f"the backup has a table {table.name}, which its migrations do not make")
        _load_table(session, storage, manifest.id, table, on_read)
    store.finish_load(session, manifest.sequences)


def _load_table(
    session: store.Session,
    storage: Storage,
    backup_id: str,
    table: Table,
    on_read: Callable[[int], None],
) -> None:
    shape, rows = store.Shape(table.name, table.columns), 0
    for part in table.parts:
        source = _Source(read_part(storage, backup_id, part))
        try:
            rows += session.copy_in(shape, source)
        except Exception as error:
            # PostgreSQL says only that reading failed; the reader knows why.
            if source.failure is not None:
                raise source.failure from error
            raise
        on_read(part.size)
    if rows != table.rows:
        raise BackupDamaged(f"{backup_id}: {table.name} has {rows} rows, not {table.rows}")


class _Source:
    """A part as COPY reads it; keeps what went wrong."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.failure: Exception | None = None

    def read(self, size: int) -> bytes:
        """Return up to so many bytes, none at the end of a part that is whole."""
        if not self._rest:
            try:
                self._rest = next(self._pieces, b"")
            except Exception as error:
                self.failure = error
                raise
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def _migrations_of(manifest: Manifest) -> tuple[Migration, ...]:
    """Return the migrations that made the backup's schema, from this package."""
    known = migrate.shipped_migrations()
    if manifest.schema_version > len(known):
        raise BackupError(
            f"{manifest.id} has schema {manifest.schema_version:04} and this version has {len(known):04}: "
            f"restore it with version {manifest.product_version} or a later one"
        )
    wanted = known[: len(manifest.migrations)]
    for ours, theirs in zip(wanted, manifest.migrations, strict=True):
        if (ours.version, ours.checksum) != (theirs.version, theirs.checksum):
            raise BackupError(
                f"{manifest.id}: its {theirs.version:04}_{theirs.name} is another than this package's"
            )
    return wanted


def _compare(url: str, manifest: Manifest) -> None:
    """Read every table back, and compare its rows with the manifest's."""
    with store.connect(url) as session:
        store.begin_snapshot(session)
        for table in manifest.tables:
            digest = RowsDigest()
            session.copy_out(store.Shape(table.name, table.columns), _Digesting(digest))
            if (digest.rows, digest.hexdigest()) != (table.rows, table.digest):
                raise BackupDamaged(f"{manifest.id}: {table.name} does not come back as it was")


class _Digesting:
    def __init__(self, digest: RowsDigest) -> None:
        self._digest = digest

    def write(self, lines: bytes) -> None:
        self._digest.add(lines)


def _is_forgotten(suffix: str, now: datetime) -> bool:
    try:
        begun = datetime.strptime(suffix.partition("_")[0], _SCRATCH_TIME).replace(tzinfo=UTC)
    except ValueError:
        return False
    return begun < now - _SCRATCH_LIFETIME

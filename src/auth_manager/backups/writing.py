"""Taking a backup: every table as one transaction sees it, and the manifest when all of it is stored."""

import hashlib
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from auth_manager import __version__
from auth_manager.backups import BackupError, OutOfTime, StorageFailed, store
from auth_manager.backups.archive import (
    MANIFEST,
    PART_BYTES,
    Manifest,
    Part,
    RowsDigest,
    Table,
    make_id,
    write_manifest,
)
from auth_manager.backups.storage import ObjectWriter, Storage

GZIP = zlib.MAX_WBITS | 16
"""zlib's way to say gzip."""

_BATCH_BYTES = 1 << 16
"""What is compressed at once."""


def back_up(
    url: str,
    storage: Storage,
    *,
    now: datetime,
    may_go_on: Callable[[], bool] = lambda: True,
    part_bytes: int = PART_BYTES,
    random: Callable[[int], bytes] = os.urandom,
) -> Manifest:
    """Store a snapshot of the database; return its manifest, which was written last.

    The database is as usable as ever meanwhile. Memory stays bounded: one batch of rows, and what the storage
    holds of one object.

    Args:
        url: of the database, for a role that may read every table of the schema.
        storage: where to.
        now: the current time, which goes into the id.
        may_go_on: asked often; when it says no, the backup fails.
        part_bytes: of a part, about.
        random: of the id.

    Raises:
        OutOfTime: `may_go_on` said no.
        BackupError: PostgreSQL or the storage refused. There is no manifest then, in none of these cases, and
            parts that could not be taken away are cleaned up later (retention.py).
        DatabaseUnavailable: the database did not answer.
    """
    backup_id = make_id(now, random(4))
    written: list[str] = []
    try:
        manifest = _store_tables(url, storage, backup_id, now, may_go_on, part_bytes, written)
        _store(storage, f"{backup_id}/{MANIFEST}", write_manifest(manifest))
    except BaseException:
        with suppress(StorageFailed):
            # The manifest first, by itself: its answer may have been all that was lost.
            storage.delete([f"{backup_id}/{MANIFEST}"])
            storage.delete(written)
        raise
    return manifest


def _store_tables(
    url: str,
    storage: Storage,
    backup_id: str,
    now: datetime,
    may_go_on: Callable[[], bool],
    part_bytes: int,
    written: list[str],
) -> Manifest:
    with store.connect(url) as session:
        store.begin_snapshot(session)
        migrations = store.list_applied(session)
        if not migrations:
            raise BackupError("the database has no schema of ours: there is nothing to back up")
        tables = []
        for shape in store.list_tables(session):
            writer = _TableWriter(storage, f"{backup_id}/{shape.name}", may_go_on, part_bytes, written)
            try:
                session.copy_out(shape, writer)
                tables.append(writer.finish(shape))
            finally:
                writer.abort()
        sequences = store.list_sequences(session)
    return Manifest(backup_id, now, __version__, migrations, tuple(tables), sequences)


def _store(storage: Storage, name: str, content: bytes) -> None:
    writer = storage.create(name)
    try:
        writer.write(content)
        writer.commit()
    finally:
        writer.abort()


class _TableWriter:
    """Takes the rows of a table, and makes parts of them."""

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        may_go_on: Callable[[], bool],
        part_bytes: int,
        written: list[str],
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._may_go_on = may_go_on
        self._part_bytes = part_bytes
        self._written = written
        self._digest = RowsDigest()
        self._parts: list[Part] = []
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._part: _PartWriter | None = None

    def write(self, lines: bytes) -> int:
        """Take rows, one at a time from PostgreSQL."""
        self._batch.append(lines)
        self._batch_bytes += len(lines)
        if self._batch_bytes >= _BATCH_BYTES:
            self._flush()
        return len(lines)

    def finish(self, shape: store.Shape) -> Table:
        """Store what is left; return the table as the manifest has it."""
        self._flush()
        self._end_part()
        return Table(
            shape.name, shape.columns, self._digest.rows, self._digest.hexdigest(), tuple(self._parts)
        )

    def abort(self) -> None:
        """Forget the part that was begun; nothing after `finish`."""
        if self._part is not None:
            self._part.writer.abort()

    def _flush(self) -> None:
        if not self._may_go_on():
            raise OutOfTime(
                "the time is over and the backup is not complete: give the function more, "
                "or run `auth-manager backup` where time is not limited"
            )
        if not self._batch:
            return
        lines = b"".join(self._batch)
        self._batch.clear()
        self._batch_bytes = 0
        rows_before = self._digest.rows
        self._digest.add(lines)
        if self._part is None:
            name = f"{self._prefix}-{len(self._parts) + 1:05}.copy.gz"
            self._part = _PartWriter(name, self._storage.create(name))
            self._written.append(name)
        self._part.add(lines, self._digest.rows - rows_before)
        if self._part.size >= self._part_bytes:
            self._end_part()

    def _end_part(self) -> None:
        if self._part is not None:
            self._parts.append(self._part.finish())
            self._part = None


class _PartWriter:
    def __init__(self, name: str, writer: ObjectWriter) -> None:
        self.writer = writer
        self.size = 0
        self._name = name
        self._rows = 0
        self._sha256 = hashlib.sha256()
        self._gzip = zlib.compressobj(wbits=GZIP)

    def add(self, lines: bytes, rows: int) -> None:
        self._rows += rows
        self._put(self._gzip.compress(lines))

    def finish(self) -> Part:
        self._put(self._gzip.flush())
        self.writer.commit()
        return Part(self._name.partition("/")[2], self._rows, self.size, self._sha256.hexdigest())

    def _put(self, compressed: bytes) -> None:
        self._sha256.update(compressed)
        self.size += len(compressed)
        self.writer.write(compressed)

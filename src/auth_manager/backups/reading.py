"""Reading a backup: its manifest, and each part, which is what the manifest says or raises."""

import hashlib
import zlib
from collections.abc import Callable, Iterator

from auth_manager.backups import BackupDamaged
from auth_manager.backups.archive import (
    MANIFEST,
    MANIFEST_LIMIT,
    Manifest,
    Part,
    RowsDigest,
    Table,
    read_manifest,
)
from auth_manager.backups.storage import Storage
from auth_manager.backups.writing import GZIP

_CHUNK = 1 << 18
"""Bytes, compressed and not, that are in memory at once."""

_ROW_LIMIT = 64 * 1024 * 1024
"""Bytes of a row: more is none of ours, however little of it was compressed."""


def open_manifest(storage: Storage, backup_id: str) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        BackupError: it cannot be read, is damaged, or a later version wrote it.
    """
    try:
        reader = storage.open(f"{backup_id}/{MANIFEST}")
    except LookupError:
        raise BackupDamaged(f"{backup_id} has no manifest: it is not complete") from None
    text = b""
    try:
        while chunk := reader.read(_CHUNK):
            text += chunk
            if len(text) > MANIFEST_LIMIT:
                raise BackupDamaged(f"{backup_id}: its manifest is damaged")
    finally:
        reader.close()
    return read_manifest(backup_id, text)


def read_part(storage: Storage, backup_id: str, part: Part) -> Iterator[bytes]:
    """Yield the rows of a part in pieces that need not end with a row.

    The last piece comes before the part was checked as a whole: believe it when this ends without an error.

    Raises:
        BackupDamaged: it is missing, cut short or changed.
        StorageFailed: it cannot be read.
    """
    where = f"{backup_id}/{part.name}"
    try:
        reader = storage.open(where)
    except LookupError:
        raise BackupDamaged(f"{where} is missing") from None
    sha256, size, rows, row = hashlib.sha256(), 0, 0, 0
    gzip = zlib.decompressobj(wbits=GZIP)
    try:
        while compressed := reader.read(_CHUNK):
            sha256.update(compressed)
            size += len(compressed)
            while compressed and not gzip.eof:
                lines = gzip.decompress(compressed, _CHUNK)
                compressed = gzip.unconsumed_tail
                rows += lines.count(b"\n")
                row = len(lines) - lines.rfind(b"\n") - 1 + (row if b"\n" not in lines else 0)
                if row > _ROW_LIMIT:
                    raise BackupDamaged(f"{where} was changed: a row has more than {_ROW_LIMIT} bytes")
                if size > part.size or rows > part.rows:
                    raise BackupDamaged(f"{where} was changed: there is more than was written")
                if lines:
                    yield lines
    except zlib.error:
        raise BackupDamaged(f"{where} was changed: it is no gzip") from None
    finally:
        reader.close()
    if size < part.size:
        raise BackupDamaged(f"{where} is cut short: {size} of {part.size} bytes")
    if (size, sha256.hexdigest(), rows) != (part.size, part.sha256, part.rows) or not gzip.eof:
        raise BackupDamaged(f"{where} was changed: its checksum is another one")


def check_parts(
    storage: Storage, manifest: Manifest, on_read: Callable[[int], None] = lambda _size: None
) -> None:
    """Read everything, and compare it with the manifest; `on_read` is told of each part's bytes.

    Raises:
        BackupDamaged: naming the first part, or the table, that is not what was written.
        StorageFailed: something cannot be read.
    """
    for table in manifest.tables:
        _check_table(storage, manifest.id, table, on_read)


def _check_table(storage: Storage, backup_id: str, table: Table, on_read: Callable[[int], None]) -> None:
    digest = RowsDigest()
    for part in table.parts:
        rest = b""
        for lines in read_part(storage, backup_id, part):
            whole, _, rest = (rest + lines).rpartition(b"\n")
            if whole:
                digest.add(whole + b"\n")
        on_read(part.size)
    if (digest.rows, digest.hexdigest()) != (table.rows, table.digest):
        raise BackupDamaged(f"{backup_id}: the rows of {table.name} are not those that were written")

"""What a backup consists of: ids, names of parts, the manifest, and the digest of a table's rows."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from auth_manager.backups import BackupDamaged, BackupError

FORMAT = "auth-manager-backup"
FORMAT_VERSION = 1

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 16 * 1024 * 1024
"""Bytes: more is no manifest."""

PART_BYTES = 64 * 1024 * 1024
"""Of a compressed part; it ends with the row that reaches this."""

_ID = re.compile(r"(?P<time>[0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-[0-9a-f]{8}")
_NAME = re.compile(r"[^\W\d][\w$]{0,62}")
"""Of a table."""

_ID_TIME = "%Y%m%dT%H%M%S.%fZ"
_DIGEST_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Part:
    """One object: rows of one table. `size` and `sha256` are of the compressed bytes."""

    name: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was: `digest` is that of all its rows (RowsDigest), in no order."""

    name: str
    columns: tuple[str, ...]
    rows: int
    digest: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """A migration that had been applied."""

    version: int
    name: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a restore needs to know. Tables are in an order in which they can be loaded."""

    id: str
    created_at: datetime
    product_version: str
    migrations: tuple[SchemaVersion, ...]
    tables: tuple[Table, ...]
    sequences: Mapping[str, int]

    @property
    def schema_version(self) -> int:
        """The number of the newest migration."""
        return self.migrations[-1].version

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for table in self.tables for part in table.parts)


class RowsDigest:
    """The sum of the SHA-256 of every row, modulo 2^256: the same in whatever order the rows come.

    Two servers may sort differently (their collations do), so the order of rows is none of the content.
    It tells accidents, not a forger; who can write to the backups can write a manifest, too.
    """

    def __init__(self) -> None:
        self._sum = 0
        self.rows = 0

    def add(self, lines: bytes) -> None:
        """Add rows as COPY writes them, each with its line feed at the end; inside a row there is none."""
        for line in lines.split(b"\n")[:-1]:
            self._sum += int.from_bytes(hashlib.sha256(line).digest())
            self.rows += 1

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return f"{self._sum % _DIGEST_MODULUS:064x}"


def make_id(now: datetime, random: bytes) -> str:
    """Return an id that sorts by time: when, to the microsecond, and four random bytes."""
    return f"{now.astimezone(UTC):{_ID_TIME}}-{random[:4].hex()}"


def time_of(backup_id: str) -> datetime | None:
    """Return when a backup was begun, None for what is no id."""
    found = _ID.fullmatch(backup_id)
    try:
        return datetime.strptime(found["time"], _ID_TIME).replace(tzinfo=UTC) if found else None
    except ValueError:
        return None


def write_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, with its own digest."""
    content = asdict(manifest) | {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created_at": manifest.created_at.astimezone(UTC).isoformat(),
    }
    return json.dumps(content | {"sha256": _digest_of(content)}, indent=1).encode() + b"\n"


def read_manifest(backup_id: str, text: bytes) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        BackupError: a later version wrote it.
        BackupDamaged: it is not whole, or it is another backup's.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        written, kind, version = content.pop("sha256"), content["format"], content["format_version"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BackupDamaged(f"{backup_id}: its manifest is damaged") from None
    if kind != FORMAT:
        raise BackupDamaged(f"{backup_id}: its manifest is none of a backup")
    if version != FORMAT_VERSION:
        raise BackupError(f"{backup_id} was written by a later version: install that one to read it")
    if written != _digest_of(content) or content.get("id") != backup_id:
        raise BackupDamaged(f"{backup_id}: its manifest was changed")
    try:
        return _manifest_from(content)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BackupDamaged(f"{backup_id}: its manifest is none that we write") from None


def _manifest_from(content: Mapping[str, Any]) -> Manifest:
    """Read it strictly: the digest tells accidents, and whoever may write here can write one that fits."""
    migrations = tuple(SchemaVersion(**item) for item in content["migrations"])
    if not migrations or [one.version for one in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError("no history of a schema")
    return Manifest(
        id=content["id"],
        created_at=datetime.fromisoformat(content["created_at"]),
        product_version=content["product_version"],
        migrations=migrations,
        tables=tuple(map(_table_from, content["tables"])),
        sequences={str(name): int(value) for name, value in content["sequences"].items()},
    )


def _table_from(item: Mapping[str, Any]) -> Table:
    parts = tuple(Part(**part) for part in item["parts"])
    name = item["name"]
    # Names become paths and keys, and what the command line prints.
    if not _NAME.fullmatch(name) or any(not _is_part_of(name, part.name) for part in parts):
        raise ValueError("no name of ours")
    return Table(name, tuple(item["columns"]), int(item["rows"]), item["digest"], parts)


def _is_part_of(table: str, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(table)}-[0-9]{{5,}}\.copy\.gz", name) is not None


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

"""Where backups are: what a place has to be able to do, and the one that is a directory."""

import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from auth_manager.backups import StorageFailed

_UNFINISHED = ".partial"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Something that is stored: its name below the place, its bytes, and when it was written."""

    name: str
    size: int
    written_at: datetime


class ObjectWriter(Protocol):
    """An object that is being written; nobody sees it before `commit`."""

    def write(self, data: bytes) -> None:
        """Append bytes."""

    def commit(self) -> None:
        """Make it durable, then visible under its name."""

    def abort(self) -> None:
        """Forget it. Never raises, and does nothing after `commit`."""


class ObjectReader(Protocol):
    """An object that is read from its beginning to its end."""

    def read(self, size: int) -> bytes:
        """Return up to so many bytes, none at the end."""

    def close(self) -> None:
        """Let go of it."""


class Storage(Protocol):
    """A place for backups. Everything may raise StorageFailed; memory stays bounded, whatever the size."""

    @property
    def url(self) -> str:
        """What to call it."""

    def create(self, name: str) -> ObjectWriter:
        """Begin an object."""

    def open(self, name: str) -> ObjectReader:
        """Read an object; LookupError when there is none."""

    def list_objects(self) -> Iterable[StoredObject]:
        """Return what is there, unfinished objects included where the place shows them."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone already do not matter."""

    def forget_unfinished(self, before: datetime) -> None:
        """Free what objects of backups take that were begun before then, neither committed nor listed."""


class Directory:
    """A directory, for its owner alone. An object is a file that got its name when it was on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    @property
    def url(self) -> str:
        """The path."""
        return str(self._path)

    def create(self, name: str) -> "_File":
        """Begin a file, and the directories above it."""
        with _translated(self._path):
            path = self._path / name
            for directory in (self._path, path.parent):  # a mode is not given to parents
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _File(path)

    def open(self, name: str) -> ObjectReader:
        """Read a file."""
        with _translated(self._path):
            try:
                return _Reader(self._path / name)
            except FileNotFoundError:
                raise LookupError(name) from None

    def list_objects(self) -> Iterator[StoredObject]:
        """Return the files of the directories in here."""
        with _translated(self._path):
            paths = [path for path in self._path.glob("*/*") if path.is_file()]
            for path in sorted(paths):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    known = path.stat()
                    written_at = datetime.fromtimestamp(known.st_mtime, UTC)
                    yield StoredObject(path.relative_to(self._path).as_posix(), known.st_size, written_at)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, in this order, and directories that became empty."""
        with _translated(self._path):
            for name in names:
                path = self._path / name
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    path.parent.rmdir()

    def forget_unfinished(self, before: datetime) -> None:
        """Nothing to do: unfinished files are listed."""


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(path.name + _UNFINISHED)
        self._unfinished.unlink(missing_ok=True)  # of one who was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._file = os.fdopen(os.open(self._unfinished, flags, 0o600), "wb", buffering=0)

    def write(self, data: bytes) -> None:
        with _translated(self._path):
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]

    def commit(self) -> None:
        with _translated(self._path):
            os.fsync(self._file.fileno())
            self._file.close()
            self._unfinished.rename(self._path)
            _sync_directory(self._path.parent)
            _sync_directory(self._path.parent.parent)

    def abort(self) -> None:
        with suppress(OSError):
            self._file.close()
            self._unfinished.unlink(missing_ok=True)
            self._path.parent.rmdir()


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")

    def read(self, size: int) -> bytes:
        with _translated(self._path):
            return self._file.read(size)

    def close(self) -> None:
        self._file.close()


@contextmanager
def _translated(path: Path) -> Generator[None]:
    """Say what is wrong with a file in words; a full disk says how much is left."""
    try:
        yield
    except OSError as error:
        free = ""
        with suppress(OSError):
            existing = next(parent for parent in (path, *path.parents) if parent.exists())
            free = f" ({shutil.disk_usage(existing).free // 1024} KiB are free there)"
        where = error.filename or path
        raise StorageFailed(f"{where}: {error.strerror or type(error).__name__}{free}") from error


def _sync_directory(path: Path) -> None:
    """A name is on the disk when its directory is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

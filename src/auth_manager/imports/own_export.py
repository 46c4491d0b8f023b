"""Our own export: JSON Lines between a header and a trailer, which tell whether all of it is there.

docs/exporting.md has the format; without header and trailer it is JSON Lines like any other.
"""

import hashlib
import os
from collections.abc import Generator, Mapping
from typing import Any, BinaryIO

from auth_manager.imports.reading import MAXIMUM_LINE, Read, parse_object, read_json
from auth_manager.imports.refusals import FileUnreadable, Refused

FORMAT = "auth-manager-export"
FORMAT_VERSION = 1

_TRAILER = 4096
"""Bytes that are enough for a trailer."""
_PIECE = 1024 * 1024


def read(file: BinaryIO) -> Generator[Read]:
    """Yield the users; header and trailer are none. `check_whole` comes first."""
    for one in read_json("item")(file):
        if isinstance(one.record, Refused) or one.record.get("format") != FORMAT:
            yield one


def check_whole(file: BinaryIO) -> Mapping[str, Any] | None:
    """Return the header of an export, None for a file that is none; leaves the file at its start.

    Raises:
        FileUnreadable: the export was cut off or changed, or is of a version that we do not know.
    """
    header = parse_object(file.readline(MAXIMUM_LINE))
    file.seek(0)
    if isinstance(header, Refused) or header.get("format") != FORMAT:
        return None
    if header.get("version") != FORMAT_VERSION:
        raise FileUnreadable("it is an export of a version that this one does not read")
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TRAILER, 0))
    last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    trailer = parse_object(last)
    if isinstance(trailer, Refused) or trailer.get("end") is not True:
        raise FileUnreadable("the export is cut off: it has no trailer")
    file.seek(0)
    if trailer.get("sha256") != _digest(file, size - len(last) - 1):
        raise FileUnreadable("the export is not what was written: its checksum is another one")
    file.seek(0)
    return header


def _digest(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of the first bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()

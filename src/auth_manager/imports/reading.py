"""Reading files as streams: JSON Lines, a list inside a JSON document, CSV; one record at a time.

A reader yields every record there is, also one that cannot be read: then a Refused stands in its place, so
that the position (a count of records) means the same in every run. What makes the rest of the file unreadable
raises FileUnreadable. No record and no line grows over a bound in memory.
"""

import csv
import json
import math
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO, NoReturn

from auth_manager.imports.refusals import FileUnreadable, Refused

MAXIMUM_LINE = 1024 * 1024
"""Bytes of a line of JSON Lines or CSV; an account's own data have a few thousand."""

MAXIMUM_GAP = 64 * 1024 * 1024
"""Bytes of a JSON document between two users: other parts of a realm, or a record nobody wants in memory."""

MAXIMUM_DEPTH = 64
"""Levels of a JSON document; the attributes of a user have no more than half."""

_DIGITS = b"0123456789"
_MOST_DIGITS = sys.int_info.default_max_str_digits
"""Of an integer that int() reads."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Record = Mapping[str, Any] | Refused


@dataclass(frozen=True, slots=True)
class Read:
    """A record with its place for people: the line it begins on (None in a JSON document)."""

    record: Record
    line: int | None


Reader = Callable[[BinaryIO], Generator[Read]]


def read_json_lines(file: BinaryIO) -> Generator[Read]:
    """Yield the object of each line that is not blank."""
    for number, line in _lines(file):
        if isinstance(line, Refused):
            yield Read(line, number)
        elif line.strip():
            yield Read(parse_object(line), number)


def parse_object(line: bytes) -> Record:
    """Parse one JSON object as RFC 8259 and RFC 7493 mean it."""
    try:
        value = _decode(line.decode())
    except UnicodeDecodeError:
        return Refused("not_utf8", "The line is not UTF-8.")
    except Refused as error:
        return error
    except (ValueError, RecursionError):
        return Refused("not_json", "The line is not JSON.")
    if not isinstance(value, dict):
        return Refused("not_an_object", "The line is no JSON object.")
    return value


def list_reader(path: str) -> Reader:
    """Return what reads a list inside a JSON document; `path` is ijson's, as in `users.item`."""
    target = path.split(".")

    def read(file: BinaryIO) -> Generator[Read]:
        import ijson  # noqa: PLC0415 -- an extra, and for these sources alone

        _skip_byte_order_mark(file)
        bounded = _BoundedGap(file)
        count = 0
        try:
            # Not use_float: with it, an integer of over 64 bits ends the whole file.
            for record in _list_items(ijson.basic_parse(bounded), target):
                bounded.since = 0
                count += 1
                yield Read(record, None)
        except ijson.JSONError as error:
            raise FileUnreadable(f"it is not JSON after record {count} of `{path}`") from error
        # An exponent beyond Decimal's, half of a surrogate pair.
        except (ArithmeticError, UnicodeDecodeError) as error:
            detail = f"it has what nothing can read after record {count} of `{path}`"
            raise FileUnreadable(detail) from error

    return read


def _list_items(events: Iterator[tuple[str, Any]], target: Sequence[str]) -> Generator[Record]:
    """Build what is at `target`, of a bounded depth: ijson's own builders take memory by the square of it."""
    names: list[str] = []
    building = _Building()
    for event, value in events:
        if event == "map_key":
            names[-1] = value
        elif event.startswith("start_"):
            opened: Any = {} if event == "start_map" else []
            if building.is_open or names == target:
                building.open(opened, names)
            names.append("item")
            if len(names) > MAXIMUM_DEPTH:
                raise FileUnreadable(f"it is nested over {MAXIMUM_DEPTH} levels")
        elif event.startswith("end_"):
            names.pop()
            if building.is_open and building.close():
                yield building.record()
                building = _Building()
        elif building.is_open:
            building.add(value, names)
        elif names == target:
            yield Refused("not_an_object", "The record is no JSON object.")


class _Building:
    """A record that is not whole yet: its containers, from the outermost to the one that is open."""

    def __init__(self) -> None:
        self._open: list[Any] = []
        self._outermost: Any = None
        self._has_duplicates = False
        self._is_finite = True

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def open(self, container: Any, names: Sequence[str]) -> None:  # noqa: ANN401 -- a dict or a list
        if self._open:
            self.add(container, names)
        else:
            self._outermost = container
        self._open.append(container)

    def add(self, value: object, names: Sequence[str]) -> None:
        parent = self._open[-1]
        if isinstance(value, Decimal):
            value = float(value)
            self._is_finite &= math.isfinite(value)
        if isinstance(parent, list):
            parent.append(value)
            return
        self._has_duplicates |= names[-1] in parent
        parent[names[-1]] = value

    def close(self) -> bool:
        """Close a container; tell whether it was the outermost."""
        self._open.pop()
        return not self._open

    def record(self) -> Record:
        if self._has_duplicates:
            return Refused("duplicate_key", "The record has a key twice.")
        if not self._is_finite:
            return Refused("not_json", "The record has a number that is not finite.")
        if not isinstance(self._outermost, dict):
            return Refused("not_an_object", "The record is no JSON object.")
        return self._outermost


def read_json(path: str) -> Reader:
    """Return what reads either JSON Lines or, where the document begins with `[`, a list."""

    def read(file: BinaryIO) -> Generator[Read]:
        reader = list_reader(path) if _first_byte(file) == b"[" else read_json_lines
        yield from reader(file)

    return read


def read_csv(file: BinaryIO) -> Generator[Read]:
    """Yield each row by the names of the first one (RFC 4180); an empty field is absent."""
    rows = _rows(file)
    _, header = next(rows, (0, []))
    names = [name.strip() for name in header]
    if len(set(names)) != len(names):
        raise FileUnreadable("two columns have the same name")
    for line, row in rows:
        if len(row) == len(names):
            yield Read({name: value for name, value in zip(names, row, strict=True) if value}, line)
        elif row:
            detail = f"The row has {len(row)} fields, the header {len(names)}."
            yield Read(Refused("columns_wrong", detail), line)


def _rows(file: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row with the line it begins on."""
    last = 0

    def text() -> Iterator[str]:
        nonlocal last
        for number, line in _lines(file):
            last = number
            if isinstance(line, Refused):
                raise FileUnreadable(f"line {number} has over {MAXIMUM_LINE} bytes")
            # What is no UTF-8 becomes lone surrogates, which no check lets through: one row is refused.
            yield line.decode("utf-8", "surrogateescape")

    csv.field_size_limit(MAXIMUM_LINE)
    rows = csv.reader(text(), strict=True)
    while True:
        line = last + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise FileUnreadable(f"it is not CSV from line {line} on: {error}") from error
        if row is None:
            return
        yield line, row


def read_csv_or_json(path: str) -> Reader:
    """Return what reads a JSON document (a list at `path`) where it begins as one, else CSV."""

    def read(file: BinaryIO) -> Generator[Read]:
        reader = list_reader(path) if _first_byte(file) in {b"[", b"{"} else read_csv
        yield from reader(file)

    return read


def _first_byte(file: BinaryIO) -> bytes:
    """Return the first byte that is no white space (nor a byte order mark), and go back to the start."""
    head = file.read(4096)
    file.seek(0)
    return head.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1]


def _skip_byte_order_mark(file: BinaryIO) -> None:
    if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
        file.seek(0)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Refused]]:
    """Yield each line with its number; in place of an endless one, why not."""
    number = 0
    while line := file.readline(MAXIMUM_LINE + 1):
        number += 1
        if len(line) <= MAXIMUM_LINE:
            yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAXIMUM_LINE)
        yield number, Refused("line_too_long", f"The line has over {MAXIMUM_LINE} bytes.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Refused("duplicate_key", "The record has a key twice.")
    return value


def _refuse_constant(_name: str) -> NoReturn:
    raise Refused("not_json", "The record has a number that is not finite.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Refused("not_json", "The record has a number that is not finite.")
    return number


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
).decode


class _BoundedGap:
    """A file that is read on only so far without yielding a record, and without a number of many digits."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last_digits = b""
        self.since = 0

    def read(self, size: int = -1) -> bytes:
        if self.since > MAXIMUM_GAP:
            raise FileUnreadable(f"there is no record in {MAXIMUM_GAP} bytes")
        data = self._file.read(size)
        self.since += len(data)
        # ijson goes on with the error of int() pending, and calls back with it: whatever happens then.
        if _has_long_number(self._last_digits + data):
            raise FileUnreadable(f"it has over {_MOST_DIGITS} digits in a row")
        self._last_digits = _digits_at_end((self._last_digits + data)[-_MOST_DIGITS:])
        return data


def _has_long_number(data: bytes) -> bool:
    """Tell whether there are over _MOST_DIGITS digits in a row, which would cover one of these places."""
    for place in range(0, len(data), _MOST_DIGITS):
        before, behind = data[max(place - _MOST_DIGITS, 0) : place], data[place : place + _MOST_DIGITS + 1]
        if len(_digits_at_end(before)) + len(behind) - len(behind.lstrip(_DIGITS)) > _MOST_DIGITS:
            return True
    return False


def _digits_at_end(data: bytes) -> bytes:
    return data[len(data.rstrip(_DIGITS)) :]

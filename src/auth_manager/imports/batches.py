"""Batches of a file's records, checked one by one: what an import and its dry run have in common."""

import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from auth_manager.audit import Origin
from auth_manager.imports import own_export, store
from auth_manager.imports.mapping import Convert
from auth_manager.imports.reading import Read, Record
from auth_manager.imports.record import ImportedUser, Rules, check
from auth_manager.imports.refusals import FileUnreadable, Refused
from auth_manager.imports.sources import Source, System
from auth_manager.passwords import LAZY_HASH, UNUSABLE_HASH
from auth_manager.resources import Resources

BATCH = 5_000
"""Records of a transaction: the more, the fewer waits for the disk; the fewer, the less memory."""

TAKEN = {
    "email_taken": "An account, or a record before, has this e-mail address.",
    "username_taken": "An account, or a record before, has this username.",
    "id_taken": "An account, or a record before, has this id.",
}


class Reject(NamedTuple):
    """A record that is not imported; `record` counts those of the file from 1."""

    record: int
    line: int | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Order:
    """What to import, and how.

    `rejects` is where refused records are told of, as JSON Lines; None in a dry run. Without `administrators`
    a record with a role that administers this service is refused, unless our own export has it.
    """

    file: Path
    source: Source
    rejects: Path | None = None
    create_roles: bool = False
    administrators: bool = False
    assume_verified: bool = False
    batch: int = BATCH


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `resumed_at` is where it began; `bytes_read` of the file's `size` are behind it."""

    position: int
    created: int
    refused: dict[str, int]
    resumed_at: int
    bytes_read: int
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Users who may be stored, each with its place, and rejects; of `records` in all."""

    users: list[ImportedUser]
    places: list[tuple[int, int | None]]
    rejects: list[Reject]
    records: int
    bytes_read: int


def check_whole(order: Order) -> Mapping[str, Any] | None:
    """Return the header of an export of ours, before anything of it is imported; None for any other file."""
    if order.source.system is not System.JSON:
        return None
    with order.file.open("rb") as file:
        return own_export.check_whole(file)


def open_rules(resources: Resources, origin: Origin, order: Order, *, is_own: bool) -> Rules:
    """Return what the records are checked by, in one round trip; `is_own`: the file is an export of ours."""
    with resources.database.one_trip() as connection:
        roles = store.list_roles(connection)
    anything_goes = order.administrators or is_own
    return Rules(
        now=origin.now,
        accepts_hash=resources.passwords.accepts,
        roles=frozenset(roles),
        administrative_roles=frozenset(
            name for name, administers in roles.items() if administers and not anything_goes
        ),
        create_roles=order.create_roles,
        no_hash=LAZY_HASH if order.source.is_lazy else UNUSABLE_HASH,
        assume_verified=order.assume_verified,
    )


def read_batches(file: BinaryIO, order: Order, rules: Rules, *, skip: int) -> Generator[Batch]:
    """Read and check the records after the first `skip`. A file that ends badly first gives what it has."""
    records = order.source.read(file)
    broken: FileUnreadable | None = None
    index = skip
    for _ in islice(records, skip):
        pass

    def until_broken() -> Iterator[Read]:
        nonlocal broken
        try:
            yield from records
        except FileUnreadable as error:
            broken = error

    whole = until_broken()
    while batch := list(islice(whole, order.batch)):
        yield _check_batch(batch, order, rules, index, file.tell())
        index += len(batch)
    if broken is not None:
        raise broken


def _check_batch(batch: Sequence[Read], order: Order, rules: Rules, before: int, bytes_read: int) -> Batch:
    convert = order.source.convert
    users, places, rejects = [], [], []
    ids: set[str] = set()
    for number, (record, line) in enumerate(((read.record, read.line) for read in batch), before + 1):
        try:
            user = check(_readable(record, convert), rules)
            _require_new(user.id, ids)
        except Refused as error:
            rejects.append(Reject(number, line, error.code, error.detail))
        else:
            ids.add(user.id)
            users.append(user)
            places.append((number, line))
    return Batch(users, places, rejects, len(batch), bytes_read)


def _readable(record: Record, convert: Convert) -> Mapping[str, Any]:
    if isinstance(record, Refused):
        raise record
    return convert(record)


def _require_new(account_id: str, ids: set[str]) -> None:
    """ON CONFLICT says which id was not inserted: so a batch may have each but once."""
    if account_id in ids:
        raise Refused("id_taken", TAKEN["id_taken"])


def taken_reject(user: ImportedUser, place: tuple[int, int | None], taken: store.Taken) -> Reject:
    """Tell which identifier of a user somebody else has."""
    if user.email_normalized in taken.emails:
        code = "email_taken"
    elif user.username_normalized in taken.usernames:
        code = "username_taken"
    else:
        code = "id_taken"
    return Reject(*place, code, TAKEN[code])


def write_rejects(file: BinaryIO, rejects: Sequence[Reject]) -> int:
    """Write rejects to the disk; return how long their file is."""
    file.writelines(json.dumps(reject._asdict(), ensure_ascii=False).encode() + b"\n" for reject in rejects)
    if rejects:
        file.flush()
        os.fsync(file.fileno())
    return file.tell()

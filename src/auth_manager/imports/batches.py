"""Batches of a file's records, checked one by one: what an import and its dry run have in common."""

import fcntl
import json
import os
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from auth_manager.audit import Origin
from auth_manager.errors import ConfigurationError, PreconditionFailed
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

BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of the file after which a batch ends all the same: 5,000 ordinary records have a quarter of it."""

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
    a record with a role that administers this service is refused, unless our own export has it. With
    `ignore_roles` nobody gets the roles that the file names; with `drop_usernames` an account is imported
    without a username that is none here.
    """

    file: Path
    source: Source
    rejects: Path | None = None
    create_roles: bool = False
    ignore_roles: bool = False
    administrators: bool = False
    drop_usernames: bool = False
    assume_verified: bool = False
    batch: int = BATCH


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `resumed_at` is where it began; `bytes_read` of the file's `size` are behind it.

    `created` and `refused` are of the whole file, `usernames_dropped` since the run began.
    """

    position: int
    created: int
    refused: dict[str, int]
    resumed_at: int
    bytes_read: int
    size: int
    usernames_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Users who may be stored, each with its place, and rejects; of `records` in all."""

    users: list[ImportedUser]
    places: list[tuple[int, int | None]]
    rejects: list[Reject]
    records: int
    bytes_read: int
    usernames_dropped: int = 0


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
        roles=frozenset(role.name for role in roles),
        administrative_roles=frozenset(role.name for role in roles if role.administers and not anything_goes),
        default_roles=frozenset(role.name for role in roles if role.is_default),
        create_roles=order.create_roles,
        ignore_roles=order.ignore_roles,
        drop_usernames=order.drop_usernames,
        no_hash=LAZY_HASH if order.source.is_lazy else UNUSABLE_HASH,
        assume_verified=order.assume_verified,
    )


def read_batches(file: BinaryIO, order: Order, rules: Rules, *, skip: int) -> Generator[Batch]:
    """Read and check the records after the first `skip`. A file that ends badly first gives what it has."""
    records = order.source.read(file)
    for _ in islice(records, skip):
        pass
    numbered = enumerate(records, skip + 1)
    while True:
        batch, broken = _fill_batch(numbered, file, order, rules)
        if batch.records:
            yield batch
        if broken is not None:
            raise broken
        if not batch.records:
            return


def _fill_batch(
    numbered: Iterator[tuple[int, Read]], file: BinaryIO, order: Order, rules: Rules
) -> tuple[Batch, FileUnreadable | None]:
    """Read records, and keep of each only what is stored; also return what ended the file before its end."""
    convert, end = order.source.convert, file.tell() + BATCH_BYTES
    users, places, rejects = [], [], []
    ids: set[str] = set()
    count = dropped = 0
    broken = None
    try:
        for number, read in islice(numbered, order.batch):
            count += 1
            try:
                normal = _convert(read.record, convert)
                user = check(normal, rules)
                _require_new(user.id, ids)
            except Refused as error:
                rejects.append(Reject(number, read.line, error.code, error.detail))
            else:
                ids.add(user.id)
                users.append(user)
                places.append((number, read.line))
                dropped += user.username is None and normal.get("username") is not None
            if file.tell() >= end:
                break
    except FileUnreadable as error:
        broken = error
    return Batch(users, places, rejects, count, file.tell(), dropped), broken


def _convert(record: Record, convert: Convert) -> Mapping[str, Any]:
    if isinstance(record, Refused):
        raise record
    return convert(record)


def _require_new(account_id: str, ids: set[str]) -> None:
    """ON CONFLICT says which id was not inserted: so a batch may have each but once."""
    if account_id in ids:
        raise Refused("id_taken", TAKEN["id_taken"])


def halve(batch: Batch, before: int) -> tuple[Batch, Batch]:
    """Return the halves of a batch of several records, of which `before` is the number of the one before."""
    records = batch.records // 2
    user = bisect_right(batch.places, before + records, key=itemgetter(0))
    reject = bisect_right(batch.rejects, before + records, key=attrgetter("record"))
    return (
        replace(
            batch,
            users=batch.users[:user],
            places=batch.places[:user],
            rejects=batch.rejects[:reject],
            records=records,
        ),
        replace(
            batch,
            users=batch.users[user:],
            places=batch.places[user:],
            rejects=batch.rejects[reject:],
            records=batch.records - records,
        ),
    )


def taken_reject(user: ImportedUser, place: tuple[int, int | None], taken: store.Taken) -> Reject:
    """Tell which identifier of a user somebody else has."""
    if user.email_normalized in taken.emails:
        code = "email_taken"
    elif user.username_normalized in taken.usernames:
        code = "username_taken"
    else:
        code = "id_taken"
    return Reject(*place, code, TAKEN[code])


def open_rejects(path: Path) -> BinaryIO:
    """Open a rejects file that nobody else writes to until it is closed; what is in it stays.

    Raises:
        PreconditionFailed: another process imports into it.
        ConfigurationError: it cannot be written.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise ConfigurationError(f"the rejects cannot be written to {path}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise PreconditionFailed(store.MOVED_ON) from None
    return file


def write_rejects(file: BinaryIO, rejects: Sequence[Reject], *, behind: int) -> int:
    """Write rejects to the disk in place of all behind so many bytes; return how long the file is."""
    file.seek(min(behind, file.seek(0, os.SEEK_END)))  # unless somebody took it away meanwhile
    file.truncate()
    file.writelines(json.dumps(reject._asdict(), ensure_ascii=False).encode() + b"\n" for reject in rejects)
    if rejects:
        file.flush()
        os.fsync(file.fileno())
    return file.tell()

"""The loader: batches of a file's users into accounts, each with the position it leads to, all or nothing.

Killed at any moment, the next run of the same file goes on after the last batch that was committed. The
rejects of a batch are on disk before its commit, and the commit says how long their file is; what a killed
run wrote beyond that is cut off. A second thread reads and checks the next batch while PostgreSQL stores
this one.
"""

import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from uuid import UUID

from auth_manager import audit, sealed_values
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.factors import totp
from auth_manager.ids import new_id
from auth_manager.imports import own_export, store
from auth_manager.imports.mapping import Convert
from auth_manager.imports.reading import Read, Record
from auth_manager.imports.record import ImportedUser, Rules, check
from auth_manager.imports.refusals import FileUnreadable, Refused
from auth_manager.imports.sources import Source, System
from auth_manager.imports.store import IdentifiersTaken, Import
from auth_manager.observability import log_event
from auth_manager.passwords import LAZY_HASH, UNUSABLE_HASH
from auth_manager.resources import Resources

BATCH = 5_000
"""Records of a transaction: the more, the fewer waits for the disk; the fewer, the less memory."""

_TAKEN = {
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
class _Checked:
    """A batch: users who may be stored, each with its place, and rejects; `records` of the file, in all."""

    users: list[ImportedUser]
    places: list[tuple[int, int | None]]
    rejects: list[Reject]
    records: int
    bytes_read: int


def import_file(
    resources: Resources,
    origin: Origin,
    order: Order,
    *,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Progress:
    """Import a file, from where an unfinished run over it stopped; return what became of all its records.

    Raises:
        FileUnreadable: not to its end; what came before stays, and the rest is not looked at.
        PreconditionFailed: another process imports the same file.
        DatabaseUnavailable: the next run goes on where this one was.
    """
    size = order.file.stat().st_size
    header = _check_whole(order)
    with order.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if header and header.get("roles") and order.create_roles:
        with resources.database.one_trip() as connection:
            store.define_roles(connection, header["roles"], origin.now)
    with resources.database.transaction() as connection:
        run = store.begin(
            connection,
            import_id=new_id(),
            source=order.source.system.value,
            file_digest=digest,
            file_size=size,
            operator=origin.operator,
            now=origin.now,
        )
    resumed_at = run.position
    rules = _rules(resources, origin, order, is_own=header is not None)
    rejects = _open_rejects(order.rejects, run) if order.rejects else nullcontext()
    with order.file.open("rb") as file, rejects as rejects_file:
        for batch in _prefetch(_batches(file, order, rules, skip=run.position)):
            run = _store_batch(resources, origin, order, run, batch, rejects_file)
            progress = Progress(
                run.position, run.created, dict(run.refused), resumed_at, batch.bytes_read, size
            )
            on_progress(progress)
    with resources.database.one_trip() as connection:
        store.finish(connection, run.id, origin.now)
    log_event("import_finished", import_id=run.id, created=run.created, refused=sum(run.refused.values()))
    return Progress(run.position, run.created, dict(run.refused), resumed_at, size, size)


def try_file(
    resources: Resources,
    origin: Origin,
    order: Order,
    *,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Progress:
    """Tell what an import of the whole file would do, and write nothing to the database; as `import_file`.

    Rejects go to the file, where one is named.
    """
    size, created, refused = order.file.stat().st_size, 0, Counter[str]()
    header = _check_whole(order)
    rules = _rules(resources, origin, order, is_own=header is not None)
    position = 0
    # On disk, and gone with the connection: what a million users have taken is no matter for memory.
    with (
        order.file.open("rb") as file,
        closing(sqlite3.connect("")) as seen,
        order.rejects.open("wb") if order.rejects else nullcontext() as rejects_file,
    ):
        seen.execute("CREATE TABLE seen (identifier TEXT PRIMARY KEY) WITHOUT ROWID")
        for batch in _batches(file, order, rules, skip=0):
            rejects = sorted(batch.rejects + _find_duplicates(resources, seen, batch))
            refused.update(reject.code for reject in rejects)
            position += batch.records
            created += batch.records - len(rejects)
            if rejects_file:
                _write_rejects(rejects_file, rejects)
            on_progress(Progress(position, created, dict(refused), 0, batch.bytes_read, size))
    return Progress(position, created, dict(refused), 0, size, size)


def _check_whole(order: Order) -> Mapping[str, Any] | None:
    """Return the header of an export of ours, before anything of it is imported; None for any other file."""
    if order.source.system is not System.JSON:
        return None
    with order.file.open("rb") as file:
        return own_export.check_whole(file)


def _rules(resources: Resources, origin: Origin, order: Order, *, is_own: bool) -> Rules:
    with resources.database.one_trip() as connection:
        roles = store.list_roles(connection)
    administrative: frozenset[str] = frozenset()
    if not (order.administrators or is_own):
        with resources.database.one_trip() as connection:
            administrative = store.list_administrative_roles(connection)
    return Rules(
        now=origin.now,
        accepts_hash=resources.passwords.accepts,
        roles=roles,
        administrative_roles=administrative,
        create_roles=order.create_roles,
        no_hash=LAZY_HASH if order.source.is_lazy else UNUSABLE_HASH,
        assume_verified=order.assume_verified,
    )


def _batches(file: BinaryIO, order: Order, rules: Rules, *, skip: int) -> Generator[_Checked]:
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


def _check_batch(batch: Sequence[Read], order: Order, rules: Rules, before: int, bytes_read: int) -> _Checked:
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
    return _Checked(users, places, rejects, len(batch), bytes_read)


def _readable(record: Record, convert: Convert) -> Mapping[str, Any]:
    if isinstance(record, Refused):
        raise record
    return convert(record)


def _require_new(account_id: str, ids: set[str]) -> None:
    """ON CONFLICT says which id was not inserted: so a batch may have each but once."""
    if account_id in ids:
        raise Refused("id_taken", _TAKEN["id_taken"])


def _prefetch(batches: Generator[_Checked]) -> Iterator[_Checked]:
    """Yield batches while the next one is made in another thread, one ahead and no more."""
    with closing(batches), ThreadPoolExecutor(1, "import") as reader:
        ahead = reader.submit(next, batches, None)
        while batch := ahead.result():
            ahead = reader.submit(next, batches, None)
            yield batch


def _store_batch(
    resources: Resources,
    origin: Origin,
    order: Order,
    run: Import,
    batch: _Checked,
    rejects_file: BinaryIO | None,
) -> Import:
    """Commit a batch: accounts, what belongs to them, the event, and the position.

    Most batches have only new identifiers, and are inserted twice as fast without asking for each.
    """
    try:
        return _commit(resources, origin, order, run, batch, rejects_file, insert=_insert_all)
    except IdentifiersTaken:
        return _commit(resources, origin, order, run, batch, rejects_file, insert=_insert_free)


def _insert_all(connection: Connection, users: Sequence[ImportedUser]) -> frozenset[UUID]:
    store.insert_accounts(connection, users)
    return frozenset()


def _insert_free(connection: Connection, users: Sequence[ImportedUser]) -> frozenset[UUID]:
    return store.insert_free_accounts(connection, users)


def _commit(
    resources: Resources,
    origin: Origin,
    order: Order,
    run: Import,
    batch: _Checked,
    rejects_file: BinaryIO | None,
    *,
    insert: Callable[[Connection, Sequence[ImportedUser]], frozenset[UUID]],
) -> Import:
    users, rejects = batch.users, batch.rejects
    with resources.database.transaction() as connection:
        store.allow_long_statements(connection)
        taken_ids = insert(connection, users) if users else frozenset()
        if taken_ids:
            both = list(zip(users, batch.places, strict=True))
            left = [(user, place) for user, place in both if UUID(user.id) in taken_ids]
            users = [user for user in users if UUID(user.id) not in taken_ids]
            taken = store.find_taken(connection, [user for user, _ in left])
            rejects = sorted([*rejects, *(_taken_reject(user, place, taken) for user, place in left)])
        _store_belongings(connection, resources, origin, order, users)
        after = replace(
            run,
            position=run.position + batch.records,
            created=run.created + len(users),
            refused=dict(Counter(run.refused) + Counter(reject.code for reject in rejects)),
            rejects_size=_write_rejects(rejects_file, rejects) if rejects_file else run.rejects_size,
        )
        store.advance(connection, run, after, origin.now)
        if users:
            details = {"import_id": str(run.id), "count": len(users)}
            audit.append(connection, "accounts_imported", origin, details=details)
    return after


def _store_belongings(
    connection: Connection,
    resources: Resources,
    origin: Origin,
    order: Order,
    users: Sequence[ImportedUser],
) -> None:
    grants = [(user.id, role) for user in users for role in user.roles or ()]
    if order.create_roles and grants:
        store.create_roles(connection, sorted({role for _, role in grants}), origin.now)
    if grants:
        store.grant_roles(connection, grants, origin.now)
    if without := [user.id for user in users if user.roles is None]:
        store.grant_default_roles(connection, without, origin.now)
    owners = [user for user in users if any(user.factors)]
    if owners:
        store.add_factors(
            connection,
            totp=[_sealed_totp(resources, user) for user in owners if user.factors.totp],
            passkeys=[{"account_id": user.id, **row} for user in owners for row in user.factors.passkeys],
            recovery_codes=[
                {"account_id": user.id, **row} for user in owners for row in user.factors.recovery_codes
            ],
        )


def _sealed_totp(resources: Resources, user: ImportedUser) -> dict[str, object]:
    app = user.factors.totp
    if app is None:
        raise LookupError("asked of those who have one")
    sealed = sealed_values.seal(
        resources.secret_keys, totp.PURPOSE, app.secret.encode(), bound_to=UUID(user.id).bytes
    )
    return {
        "account_id": user.id,
        "sealed_secret": sealed.hex(),
        "confirmed_at": app.confirmed_at,
        "last_step": app.last_step,
    }


def _taken_reject(user: ImportedUser, place: tuple[int, int | None], taken: store.Taken) -> Reject:
    if user.email_normalized in taken.emails:
        code = "email_taken"
    elif user.username_normalized in taken.usernames:
        code = "username_taken"
    else:
        code = "id_taken"
    return Reject(*place, code, _TAKEN[code])


def _find_duplicates(resources: Resources, seen: sqlite3.Connection, batch: _Checked) -> list[Reject]:
    """Return what a dry run refuses of a batch because an account, or a record before, has it."""
    if not batch.users:
        return []
    with resources.database.transaction() as connection:
        store.allow_long_statements(connection)
        taken = store.find_taken(connection, batch.users)
    rejects = []
    for user, place in zip(batch.users, batch.places, strict=True):
        own = {"email_taken": f"e{user.email_normalized}", "id_taken": f"i{user.id}"}
        if user.username_normalized is not None:
            own["username_taken"] = f"u{user.username_normalized}"
        code = next(
            (code for code in _TAKEN if code in own and _is_seen(seen, own[code])),
            None,
        )
        if code is None and (
            user.email_normalized in taken.emails
            or user.username_normalized in taken.usernames
            or UUID(user.id) in taken.ids
        ):
            code = _taken_reject(user, place, taken).code
        if code is None:
            seen.executemany("INSERT INTO seen VALUES (?)", [(identifier,) for identifier in own.values()])
        else:
            rejects.append(Reject(*place, code, _TAKEN[code]))
    return rejects


def _is_seen(seen: sqlite3.Connection, identifier: str) -> bool:
    found = seen.execute("SELECT 1 FROM seen WHERE identifier = ?", (identifier,))
    return found.fetchone() is not None


def _open_rejects(path: Path, run: Import) -> BinaryIO:
    """Open the rejects file behind what was committed of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    file = os.fdopen(descriptor, "r+b")
    if file.seek(0, os.SEEK_END) > run.rejects_size:
        file.truncate(run.rejects_size)
    file.seek(0, os.SEEK_END)
    return file


def _write_rejects(file: BinaryIO, rejects: Sequence[Reject]) -> int:
    """Write rejects to the disk; return how long their file is."""
    file.writelines(json.dumps(reject._asdict(), ensure_ascii=False).encode() + b"\n" for reject in rejects)
    if rejects:
        file.flush()
        os.fsync(file.fileno())
    return file.tell()

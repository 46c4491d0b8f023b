"""The loader: batches of a file's users into accounts, each with the position it leads to, all or nothing.

Killed at any moment, the next run of the same file goes on after the last batch that was committed. The
rejects of a batch are on disk before its commit, and the commit says how long their file is; what a killed
run wrote beyond that is cut off. A second thread reads and checks the next batch while PostgreSQL stores
this one.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any, BinaryIO
from uuid import UUID

from auth_manager import audit, sealed_values
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.factors import totp
from auth_manager.ids import new_id
from auth_manager.imports import store
from auth_manager.imports.batches import (
    Batch,
    Order,
    Progress,
    Reject,
    check_whole,
    halve,
    open_rejects,
    open_rules,
    read_batches,
    taken_reject,
    write_rejects,
)
from auth_manager.imports.record import ImportedUser
from auth_manager.imports.store import IdentifiersTaken, Import
from auth_manager.observability import log_event
from auth_manager.resources import Resources


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
    header = check_whole(order)
    # Locked before the position is read: who comes second touches nothing.
    with open_rejects(order.rejects) if order.rejects else nullcontext() as rejects_file:
        return _import(resources, origin, order, header, rejects_file, on_progress)


def _import(
    resources: Resources,
    origin: Origin,
    order: Order,
    header: Mapping[str, Any] | None,
    rejects_file: BinaryIO | None,
    on_progress: Callable[[Progress], None],
) -> Progress:
    size = order.file.stat().st_size
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
    if rejects_file:
        write_rejects(rejects_file, [], behind=run.rejects_size)
    rules = open_rules(resources, origin, order, is_own=header is not None)
    progress = Progress(run.position, run.created, dict(run.refused), run.position, 0, size)
    on_progress(progress)
    with order.file.open("rb") as file:
        for batch in _prefetch(read_batches(file, order, rules, skip=run.position)):
            run = _store_batch(resources, origin, order, run, batch, rejects_file)
            progress = replace(
                progress,
                position=run.position,
                created=run.created,
                refused=dict(run.refused),
                bytes_read=batch.bytes_read,
                usernames_dropped=progress.usernames_dropped + batch.usernames_dropped,
            )
            on_progress(progress)
    with resources.database.one_trip() as connection:
        store.finish(connection, run.id, origin.now)
    log_event("import_finished", import_id=run.id, created=run.created, refused=sum(run.refused.values()))
    return replace(progress, bytes_read=size)


def _prefetch(batches: Generator[Batch]) -> Iterator[Batch]:
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
    batch: Batch,
    rejects_file: BinaryIO | None,
) -> Import:
    """Commit a batch; a record that passed the checks and that PostgreSQL cannot store is refused alone."""
    try:
        return _commit_fast(resources, origin, order, run, batch, rejects_file)
    except store.NOT_STORABLE as error:
        if batch.records > 1:
            for half in halve(batch, run.position):
                run = _store_batch(resources, origin, order, run, half, rejects_file)
            return run
        detail = f"PostgreSQL cannot store the record (SQLSTATE {error.pgcode})."
        reject = Reject(*batch.places[0], "not_storable", detail)
        batch = replace(batch, users=[], places=[], rejects=[reject])
        return _commit_fast(resources, origin, order, run, batch, rejects_file)


def _commit_fast(
    resources: Resources,
    origin: Origin,
    order: Order,
    run: Import,
    batch: Batch,
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
    batch: Batch,
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
            rejects = sorted([*rejects, *(taken_reject(user, place, taken) for user, place in left)])
        _store_belongings(connection, resources, origin, order, users)
        after = replace(
            run,
            position=run.position + batch.records,
            created=run.created + len(users),
            refused=dict(Counter(run.refused) + Counter(reject.code for reject in rejects)),
            rejects_size=write_rejects(rejects_file, rejects, behind=run.rejects_size) if rejects_file else 0,
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

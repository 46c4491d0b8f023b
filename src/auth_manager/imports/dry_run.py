"""The dry run: what an import of the whole file would do, without writing anything to the database."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext
from uuid import UUID

from auth_manager.audit import Origin
from auth_manager.imports import store
from auth_manager.imports.batches import (
    TAKEN,
    Batch,
    Order,
    Progress,
    Reject,
    check_whole,
    open_rejects,
    open_rules,
    read_batches,
    taken_reject,
    write_rejects,
)
from auth_manager.resources import Resources


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
    header = check_whole(order)
    rules = open_rules(resources, origin, order, is_own=header is not None)
    position = dropped = length = 0
    # On disk, and gone with the connection: what a million users have taken is no matter for memory.
    with (
        order.file.open("rb") as file,
        closing(sqlite3.connect("")) as seen,
        open_rejects(order.rejects) if order.rejects else nullcontext() as rejects_file,
    ):
        if rejects_file:
            rejects_file.truncate(0)
        seen.execute("CREATE TABLE seen (identifier TEXT PRIMARY KEY) WITHOUT ROWID")
        for batch in read_batches(file, order, rules, skip=0):
            rejects = sorted(batch.rejects + _find_duplicates(resources, seen, batch))
            refused.update(reject.code for reject in rejects)
            position += batch.records
            created += batch.records - len(rejects)
            dropped += batch.usernames_dropped
            if rejects_file:
                length = write_rejects(rejects_file, rejects, behind=length)
            on_progress(Progress(position, created, dict(refused), 0, batch.bytes_read, size, dropped))
    return Progress(position, created, dict(refused), 0, size, size, dropped)


def _find_duplicates(resources: Resources, seen: sqlite3.Connection, batch: Batch) -> list[Reject]:
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
            (code for code in TAKEN if code in own and _is_seen(seen, own[code])),
            None,
        )
        if code is None and (
            user.email_normalized in taken.emails
            or user.username_normalized in taken.usernames
            or UUID(user.id) in taken.ids
        ):
            code = taken_reject(user, place, taken).code
        if code is None:
            seen.executemany("INSERT INTO seen VALUES (?)", [(identifier,) for identifier in own.values()])
        else:
            rejects.append(Reject(*place, code, TAKEN[code]))
    return rejects


def _is_seen(seen: sqlite3.Connection, identifier: str) -> bool:
    found = seen.execute("SELECT 1 FROM seen WHERE identifier = ?", (identifier,))
    return found.fetchone() is not None

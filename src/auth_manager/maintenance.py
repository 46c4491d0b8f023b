"""What runs beside the requests: deletions, messages for the queue, the chain of the audit trail.

Each batch is one short transaction and skips what a request holds, so that nobody waits for it.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from auth_manager import idempotency, known_devices, one_time_secrets, outbox, rate_limits
from auth_manager.audit import Origin
from auth_manager.audit_chain import chaining, checkpoints
from auth_manager.audit_chain.checkpoints import ChainBroken, Checkpoint
from auth_manager.database import Connection, Database
from auth_manager.erasure.service import erase_due
from auth_manager.errors import ServiceUnavailable
from auth_manager.factors import trusted_devices
from auth_manager.observability import count, log_event
from auth_manager.sessions import store as sessions_store
from auth_manager.signing_keys import KeySet
from auth_manager.webhooks import messages as webhook_messages

BATCH = 1000
"""Rows of one transaction."""

ERASURE_BATCH = 50
"""Accounts of one transaction: each takes its sessions and mails with it."""

DEVICE_RETENTION = timedelta(days=400)
"""Since its last sign-in, a device is known."""

MARGIN = timedelta(hours=1)
"""By how much our clock may be fast before something is deleted that another one still counts."""

RELAY_BATCH = 10
"""Messages of one SendMessageBatch."""

HandOver = Callable[[Sequence[UUID]], Collection[UUID]]
"""Hands messages over by their ids; returns those that were taken."""


def clean_up(
    database: Database,
    *,
    now: datetime,
    session_retention: timedelta,
    outbox_retention: timedelta,
    may_go_on: Callable[[], bool] = lambda: True,
    batch: int = BATCH,
) -> dict[str, int]:
    """Delete what is over; return how many rows of each table.

    Args:
        database: to clean.
        now: the current time.
        session_retention: how long a session is kept after its end.
        outbox_retention: how long a message is kept after it was written.
        may_go_on: asked before each batch; what is left then is for the next run.
        batch: rows of one transaction.
    """
    tables: dict[str, Callable[[Connection], int]] = {
        "sessions": lambda connection: sessions_store.delete_over(
            connection, before=now - MARGIN - session_retention, limit=batch
        ),
        "idempotency_keys": lambda connection: idempotency.delete_expired(
            connection, before=now - MARGIN, limit=batch
        ),
        "rate_limits": lambda connection: rate_limits.delete_meaningless(
            connection, before=now - MARGIN, limit=batch
        ),
        "one_time_secrets": lambda connection: one_time_secrets.delete_over(
            connection, before=now - MARGIN, limit=batch
        ),
        "outbox": lambda connection: outbox.delete_over(
            connection, before=now - MARGIN - outbox_retention, limit=batch
        ),
        "known_devices": lambda connection: known_devices.delete_unused(
            connection, before=now - DEVICE_RETENTION, limit=batch
        ),
        "trusted_devices": lambda connection: trusted_devices.delete_over(
            connection, before=now - MARGIN, limit=batch
        ),
    }
    removed = dict.fromkeys(tables, 0)
    for table, delete in tables.items():
        while may_go_on():
            with database.one_trip() as connection:
                deleted = delete(connection)
            removed[table] += deleted
            if deleted < batch:
                break
    count("expired_rows_removed", sum(removed.values()))
    log_event("cleaned_up", **removed)
    return removed


def erase_accounts(
    database: Database, origin: Origin, *, may_go_on: Callable[[], bool] = lambda: True
) -> int:
    """Erase the accounts that their owners deleted and did not keep; return how many."""
    erased = 0
    while may_go_on():
        batch = erase_due(database, origin, limit=ERASURE_BATCH)
        erased += batch
        if batch < ERASURE_BATCH:
            break
    log_event("accounts_erased", erased=erased)
    return erased


def relay_outbox(
    database: Database,
    hand_over: HandOver,
    *,
    now: datetime,
    mails: bool = True,
    may_go_on: Callable[[], bool] = lambda: True,
) -> dict[str, int]:
    """Hand every waiting message to the queue, at least once; return how many it took and refused.

    Mails first; without `mails`, where nothing can send one, they wait. No transaction is open while the
    queue is asked. A message that it refuses waits for its claim to end.

    Raises:
        ServiceUnavailable: the queue or the database did not answer; what was claimed waits likewise.
    """
    relayed = failed = 0
    claims = [outbox.claim, webhook_messages.claim] if mails else [webhook_messages.claim]
    while claims and may_go_on():
        with database.one_trip() as connection:
            ids = claims[0](connection, now=now, limit=RELAY_BATCH)
        if not ids:
            del claims[0]
            continue
        try:
            taken = hand_over(ids)
        except ServiceUnavailable:
            count("outbox_failed", len(ids))
            raise
        with database.one_trip() as connection:
            outbox.mark_relayed(connection, taken, now=now)
        relayed += len(taken)
        failed += len(ids) - len(taken)
    if relayed:
        count("outbox_relayed", relayed)
    if failed:
        count("outbox_failed", failed)
    log_event("outbox_relayed", relayed=relayed, failed=failed)
    return {"relayed": relayed, "failed": failed}


def chain_audit(
    database: Database, *, may_go_on: Callable[[], bool] = lambda: True, batch: int = chaining.BATCH
) -> int:
    """Chain the events that wait for it; return how many.

    A short transaction each: the events of one that was killed wait for the next run, and nothing else.
    """
    chained = 0
    while may_go_on():
        added = chaining.extend(database, limit=batch)
        chained += added
        if added < batch:
            break
    if chained:
        count("audit_events_chained", chained)
    log_event("audit_chained", chained=chained)
    return chained


def checkpoint_audit(
    database: Database,
    key_set: KeySet,
    *,
    issuer: str,
    now: datetime,
    keep: Callable[[Checkpoint], None] | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Checkpoint | None:
    """Chain, sign where the chain stands, and keep that elsewhere, too; None while there is no event.

    Args:
        database: whose trail.
        key_set: whose current key signs.
        issuer: of our tokens.
        now: the current time.
        keep: stores a checkpoint outside the database; None keeps it there alone.
        may_go_on: asked before each batch; where there is no time for all, what was chained is signed.

    Raises:
        ChainBroken: the trail is not the one that was signed before.
    """
    chain_audit(database, may_go_on=may_go_on)
    try:
        checkpoint = checkpoints.take(database, key_set, issuer=issuer, now=now)
    except ChainBroken:
        count("audit_chain_broken")
        raise
    if checkpoint and keep:
        keep(checkpoint)
    log_event(
        "audit_checkpoint_taken",
        position=checkpoint.position if checkpoint else 0,
        kept_elsewhere=bool(checkpoint and keep),
    )
    return checkpoint

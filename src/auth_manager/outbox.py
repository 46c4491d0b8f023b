"""Messages written in the same transaction as the change they announce, then handed over and delivered.

A row is the message. What is handed to a queue is its id alone, so that neither addresses nor secrets lie in
queues; whoever delivers it (mail/delivery.py) reads the row. Handing over is at least once: a row is claimed
for a time, sent, and marked; what is not marked by then is handed over again. Delivery takes the row for
itself first, so that a message that was handed over twice is sent once.

Webhooks are rows of the same table, with an `endpoint_id`; webhooks/store.py has what is theirs.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from auth_manager.database import Connection, Row
from auth_manager.rate_limits import Limit


class Kind(StrEnum):
    """What a message says; each has its templates in mail/templates."""

    VERIFY_EMAIL = "verify_email"
    ALREADY_REGISTERED = "already_registered"
    USERNAME_TAKEN = "username_taken"
    CHANGE_EMAIL = "change_email"
    EMAIL_CHANGE_REQUESTED = "email_change_requested"
    EMAIL_CHANGED = "email_changed"
    RESET_PASSWORD = "reset_password"  # noqa: S105 -- a kind of message
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 -- same
    EMAIL_LOGIN = "email_login"
    REAUTHENTICATE = "reauthenticate"
    INVITATION = "invitation"
    NEW_SIGN_IN = "new_sign_in"
    ACCOUNT_LOCKED = "account_locked"
    FACTORS_CHANGED = "factors_changed"
    ERASURE_SCHEDULED = "erasure_scheduled"
    ACCOUNT_ERASED = "account_erased"


NOTHING = "nothing"
"""The kind of a row that stands for a message that nobody gets: written so that both cost the same."""

CLAIM = timedelta(seconds=60)
"""Longer than one batch takes to be handed over, and than the request that wrote a message and hands it over
itself."""

SENDING = timedelta(seconds=60)
"""Longer than one mail takes to be sent."""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One message; its id is the same however often it is handed over.

    `secret_id` names the one-time secret that it carries; `details` are facts for its text, such as where a
    new sign-in came from. `tries` counts the deliveries begun, this one included.
    """

    id: UUID
    kind: Kind
    recipient: str = field(repr=False)
    account_id: UUID | None
    locale: str | None
    created_at: datetime
    secret_id: UUID | None
    details: Mapping[str, Any] = field(repr=False)
    tries: int


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What is written; `id` is chosen by the caller, who hands it over after the commit.

    `handed_over` False: nobody does, because it is not urgent, and the relay need not wait for it.
    """

    id: UUID
    kind: Kind
    now: datetime
    secret_id: UUID | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    handed_over: bool = True


def add(
    connection: Connection,
    message: NewMessage,
    *,
    recipient: str,
    account_id: UUID | None = None,
    locale: str | None = None,
) -> None:
    """Queue a message to an address as its owner typed it."""
    connection.add(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, locale, created_at, secret_id, details,
                            relay_after)
        VALUES (%(id)s, %(kind)s, %(recipient)s, %(account_id)s, %(locale)s, %(now)s, %(secret_id)s,
                %(details)s::jsonb, %(relay_after)s)
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING -- sent twice, written once
        """,
        {**_columns(message), "recipient": recipient, "account_id": account_id, "locale": locale},
    )


def add_within_limit(
    connection: Connection,
    message: NewMessage,
    *,
    recipient: str,
    account_id: UUID,
    locale: str | None,
    key: str,
    limit: Limit,
) -> bool:
    """Write a message if there may be another one by this limit, and count it; return whether, in one trip.

    Counted with the transaction: what is undone mails nothing and counts nothing.
    """
    row = connection.fetch_one(
        """
        WITH reservation AS (
            SELECT retry_at FROM reserve_attempt(
                %(key)s, %(now)s, %(limit_maximum)s, %(limit_window)s, %(limit_free)s,
                %(limit_delay)s, %(limit_delay_maximum)s)
        ), written AS (
            INSERT INTO outbox (id, kind, recipient, account_id, locale, created_at, secret_id, details,
                                relay_after)
            SELECT %(id)s, %(kind)s, %(recipient)s, %(account_id)s, %(locale)s, %(now)s, %(secret_id)s,
                   %(details)s::jsonb, %(relay_after)s
            FROM reservation WHERE retry_at IS NULL
            ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING
        )
        SELECT retry_at IS NULL AS within FROM reservation
        """,
        {
            **_columns(message),
            "recipient": recipient,
            "account_id": account_id,
            "locale": locale,
            "key": key,
            **limit.parameters("limit"),
        },
    )
    return bool(row and row["within"])


def add_to_account(
    connection: Connection,
    message: NewMessage,
    *,
    account_id: UUID,
    locale: str | None,
    verified_only: bool = True,
    keep: bool = False,
    unless: str | None = None,
) -> None:
    """Queue a message to the address that an account has now; in its own language, else in `locale`.

    With `verified_only` not to an address that nobody proved: it may be a stranger's. With `keep` the message
    does not go when the account is erased, because it says so. Not to the normalised address `unless`.
    """
    connection.add(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, locale, created_at, secret_id, details,
                            relay_after)
        SELECT %(id)s, %(kind)s, email, CASE WHEN %(keep)s THEN NULL ELSE id END,
               COALESCE(locale, %(locale)s), %(now)s, %(secret_id)s, %(details)s::jsonb, %(relay_after)s
        FROM accounts
        WHERE id = %(account_id)s AND NOT (%(verified_only)s AND email_verified_at IS NULL)
          AND email_normalized IS DISTINCT FROM %(unless)s
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING
        """,
        {
            **_columns(message),
            "account_id": account_id,
            "locale": locale,
            "verified_only": verified_only,
            "keep": keep,
            "unless": unless,
        },
    )


def add_to_owner(
    connection: Connection,
    message: NewMessage,
    *,
    email_normalized: str,
    locale: str | None,
    unverified_only: bool = False,
) -> None:
    """Queue a message to whoever has this address and is not disabled; else a row of no message.

    With `unverified_only` it is none either for an owner who is verified.
    """
    connection.add(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, locale, created_at, secret_id, details,
                            relay_after, sent_at)
        SELECT %(id)s, CASE WHEN owner.id IS NULL THEN %(nothing)s ELSE %(kind)s END,
               COALESCE(owner.email, ''), owner.id, COALESCE(owner.locale, %(locale)s), %(now)s,
               %(secret_id)s, %(details)s::jsonb, %(relay_after)s,
               CASE WHEN owner.id IS NULL THEN %(now)s END
        FROM (SELECT) AS one
        LEFT JOIN accounts AS owner
            ON owner.email_normalized = %(email_normalized)s AND owner.disabled_at IS NULL
           AND NOT (%(unverified_only)s AND owner.email_verified_at IS NOT NULL)
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING
        """,
        {
            **_columns(message),
            "nothing": NOTHING,
            "email_normalized": email_normalized,
            "locale": locale,
            "unverified_only": unverified_only,
        },
    )


def add_new_address(
    connection: Connection,
    message: NewMessage,
    *,
    wanted_by: UUID,
    email: str,
    email_normalized: str,
    locale: str | None,
) -> None:
    """Queue a message to an address that an account wants, or ALREADY_REGISTERED to the owner who has it.

    The first belongs to the account that wants it, and goes with it when that is erased.
    """
    connection.add(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, locale, created_at, secret_id, details,
                            relay_after)
        SELECT %(id)s, CASE WHEN owner.id IS NULL THEN %(kind)s ELSE %(already_registered)s END,
               COALESCE(owner.email, %(email)s), COALESCE(owner.id, wanting.id),
               COALESCE(CASE WHEN owner.id IS NULL THEN wanting.locale ELSE owner.locale END, %(locale)s),
               %(now)s, CASE WHEN owner.id IS NULL THEN %(secret_id)s::uuid END, %(details)s::jsonb,
               %(relay_after)s
        FROM accounts AS wanting LEFT JOIN accounts AS owner ON owner.email_normalized = %(email_normalized)s
        WHERE wanting.id = %(wanted_by)s
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING
        """,
        {
            **_columns(message),
            "wanted_by": wanted_by,
            "email": email,
            "email_normalized": email_normalized,
            "locale": locale,
            "already_registered": Kind.ALREADY_REGISTERED.value,
        },
    )


def add_registration_notice(
    connection: Connection,
    message_id: UUID,
    *,
    account_id: UUID,
    secret_id: UUID,
    email: str,
    email_normalized: str,
    locale: str | None,
    now: datetime,
) -> str:
    """Write the mail that a registration leads to and return its kind, in one statement for all outcomes.

    VERIFY_EMAIL when `account_id` was inserted; ALREADY_REGISTERED, to the stored address of the owner, when
    the address was taken; USERNAME_TAKEN when only the username was.
    """
    message = NewMessage(message_id, Kind.VERIFY_EMAIL, now, secret_id=secret_id)
    row = connection.fetch_one(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, locale, created_at, secret_id, details,
                            relay_after)
        SELECT %(id)s,
               CASE WHEN owner.id = %(account_id)s THEN %(kind)s
                    WHEN owner.id IS NOT NULL THEN %(already_registered)s
                    ELSE %(username_taken)s END,
               COALESCE(owner.email, %(email)s), owner.id, COALESCE(owner.locale, %(locale)s), %(now)s,
               CASE WHEN owner.id = %(account_id)s THEN %(secret_id)s::uuid END, %(details)s::jsonb,
               %(relay_after)s
        FROM (SELECT) AS one LEFT JOIN accounts AS owner ON owner.email_normalized = %(email_normalized)s
        RETURNING kind
        """,
        {
            **_columns(message),
            "account_id": account_id,
            "email": email,
            "email_normalized": email_normalized,
            "locale": locale,
            "already_registered": Kind.ALREADY_REGISTERED.value,
            "username_taken": Kind.USERNAME_TAKEN.value,
        },
    )
    return str(row["kind"]) if row else Kind.USERNAME_TAKEN.value


def _columns(message: NewMessage) -> dict[str, object]:
    return {
        "id": message.id,
        "kind": message.kind.value,
        "now": message.now,
        "secret_id": message.secret_id,
        "details": json.dumps(dict(message.details)),
        "relay_after": message.now + CLAIM if message.handed_over else message.now,
    }


# --- handing over to a queue ---------------------------------------------------------------------------


def claim(connection: Connection, *, now: datetime, limit: int) -> list[UUID]:
    """Claim the oldest mails that nobody holds, in one round trip; a parallel relay gets others.

    Materialized: as a subquery the planner may run it once for each row, and the limit would not be one.
    """
    rows = connection.fetch_all(
        """
        WITH waiting AS MATERIALIZED (
            SELECT id FROM outbox
            WHERE relayed_at IS NULL AND sent_at IS NULL AND failed_at IS NULL AND endpoint_id IS NULL
              AND (relay_after IS NULL OR relay_after <= %(now)s)
            ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )
        UPDATE outbox SET attempts = attempts + 1, relay_after = %(claimed_until)s
        FROM waiting WHERE outbox.id = waiting.id
        RETURNING outbox.id
        """,
        {"now": now, "claimed_until": now + CLAIM, "limit": limit},
    )
    return [row["id"] for row in rows]


def mark_relayed(connection: Connection, ids: Collection[UUID], *, now: datetime) -> None:
    """Queue the note that the queue has these; not of webhooks, which are handed over again and again."""
    connection.add(
        """
        UPDATE outbox SET relayed_at = %(now)s
        WHERE id = ANY(%(ids)s) AND relayed_at IS NULL AND endpoint_id IS NULL
        """,
        {"now": now, "ids": list(ids)},
    )


# --- delivery ------------------------------------------------------------------------------------------


class Taken(StrEnum):
    """What came of taking a message for delivery."""

    TAKEN = "taken"
    DONE = "done"  # sent, given up, or gone with its account
    BUSY = "busy"  # somebody sends it right now, or died doing so
    WEBHOOK = "webhook"  # no mail


def take(connection: Connection, message_id: UUID, *, now: datetime) -> tuple[Taken, OutboxMessage | None]:
    """Take a mail for oneself, in one round trip; the message only when it is TAKEN.

    By the database's clock, because two senders' clocks may disagree by more than a mail takes.
    """
    row = connection.fetch_one(
        """
        WITH taken AS (
            UPDATE outbox SET sending_until = clock_timestamp() + %(sending)s, tries = tries + 1
            WHERE id = %(id)s AND sent_at IS NULL AND failed_at IS NULL AND endpoint_id IS NULL
              AND (sending_until IS NULL OR sending_until <= clock_timestamp())
            RETURNING *
        )
        SELECT taken.*, held.open, held.is_webhook
        FROM (SELECT) AS one LEFT JOIN taken ON true LEFT JOIN (
            SELECT sent_at IS NULL AND failed_at IS NULL AS open, endpoint_id IS NOT NULL AS is_webhook
            FROM outbox WHERE id = %(id)s
        ) AS held ON true
        """,
        {"id": message_id, "now": now, "sending": SENDING},
    )
    if row is None or row["id"] is None:
        if row and row["is_webhook"]:
            return Taken.WEBHOOK, None
        return (Taken.BUSY if row and row["open"] else Taken.DONE), None
    return Taken.TAKEN, message_from(row)


def take_next(connection: Connection, *, now: datetime) -> OutboxMessage | None:
    """Take the oldest mail that is due, in one round trip: for delivery without a queue.

    A message that could not be sent is due again after a minute, and each time after twice as long.
    """
    row = connection.fetch_one(
        """
        WITH due AS MATERIALIZED (
            SELECT id FROM outbox
            WHERE sent_at IS NULL AND failed_at IS NULL AND endpoint_id IS NULL AND created_at <= %(now)s
              AND (sending_until IS NULL OR sending_until <= clock_timestamp())
            ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        UPDATE outbox SET sending_until = clock_timestamp() + %(sending)s, tries = tries + 1
        FROM due WHERE outbox.id = due.id
        RETURNING outbox.*
        """,
        {"now": now, "sending": SENDING},
    )
    return message_from(row) if row else None


def mark_sent(connection: Connection, message_id: UUID, *, now: datetime) -> None:
    """Queue the note that a message is on its way."""
    connection.add(
        "UPDATE outbox SET sent_at = %(now)s, sending_until = NULL WHERE id = %(id)s",
        {"now": now, "id": message_id},
    )


def put_back(connection: Connection, message_id: UUID, *, wait: timedelta) -> None:
    """Queue the note that a message could not be sent now, and may be taken again after `wait`."""
    connection.add(
        """
        UPDATE outbox SET sending_until = clock_timestamp() + %(wait)s WHERE id = %(id)s AND sent_at IS NULL
        """,
        {"wait": wait, "id": message_id},
    )


def give_up(connection: Connection, message_id: UUID, *, reason: str, now: datetime) -> None:
    """Queue the note that a message will never be sent, and why: a stable word, no address."""
    connection.add(
        """
        UPDATE outbox SET failed_at = %(now)s, failure = %(reason)s, sending_until = NULL
        WHERE id = %(id)s AND sent_at IS NULL
        """,
        {"now": now, "reason": reason, "id": message_id},
    )


def message_from(row: Row) -> OutboxMessage:
    """Read a message from a row that has every column.

    Raises:
        ValueError: of a kind that we do not know: a newer image wrote it.
    """
    return OutboxMessage(
        id=row["id"],
        kind=Kind(row["kind"]),
        recipient=row["recipient"],
        account_id=row["account_id"],
        locale=row["locale"],
        created_at=row["created_at"],
        secret_id=row["secret_id"],
        details=row["details"],
        tries=row["tries"],
    )


# --- the end of messages -------------------------------------------------------------------------------


def forget(connection: Connection, account_id: UUID) -> None:
    """Drop every message to an account that is being erased, sent or not.

    By address too: a notice that a username was taken belongs to no account.
    """
    connection.add(
        """
        DELETE FROM outbox USING accounts
        WHERE accounts.id = %(account_id)s
          AND (outbox.account_id = accounts.id OR lower(outbox.recipient) = accounts.email_normalized)
        """,
        {"account_id": account_id},
    )


def delete_over(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete messages that were written before a moment; return how many.

    Sent or not: whatever stopped them so long rang an alarm, and nobody waits for that mail any more.
    """
    row = connection.fetch_one(
        """
        WITH over AS (
            SELECT id FROM outbox WHERE created_at < %(before)s
            LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM outbox USING over WHERE outbox.id = over.id RETURNING 1
        )
        SELECT count(*) AS deleted FROM deleted
        """,
        {"before": before, "limit": limit},
    )
    return int(row["deleted"]) if row else 0


def list_of(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return the messages to an account, newest first, in one round trip: for its owner's export."""
    return connection.fetch_all(
        """
        SELECT kind, recipient, locale, details, created_at, sent_at FROM outbox
        WHERE account_id = %(account_id)s ORDER BY created_at DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )

"""Messages written in the same transaction as the change they announce, and then handed to a queue.

Handing over is at least once: a row is claimed for a time, sent, and marked. What is not marked by then, as
its relay was killed or the queue refused it, is sent again.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

from auth_manager.database import Connection
from auth_manager.ids import new_id

VERIFY_EMAIL = "verify_email"
ALREADY_REGISTERED = "already_registered"
USERNAME_TAKEN = "username_taken"
KINDS = frozenset({VERIFY_EMAIL, ALREADY_REGISTERED, USERNAME_TAKEN})

CLAIM = timedelta(seconds=60)
"""Longer than one batch takes to be sent."""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One message; its id is the same however often it is handed over."""

    id: UUID
    kind: str
    recipient: str
    account_id: UUID | None
    locale: str | None
    created_at: datetime

    def to_json(self) -> str:
        """Return the body that `parse_message` reads."""
        return json.dumps(asdict(self), default=_render)


def _render(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def parse_message(body: str) -> OutboxMessage:
    """Undo `to_json`.

    Raises:
        ValueError: it is no message of a kind that we know; never with what it says.
    """
    try:
        members = json.loads(body)
        account_id, locale = members["account_id"], members["locale"]
        message = OutboxMessage(
            id=UUID(members["id"]),
            kind=members["kind"],
            recipient=members["recipient"],
            account_id=None if account_id is None else UUID(account_id),
            locale=None if locale is None else str(locale),
            created_at=datetime.fromisoformat(members["created_at"]),
        )
        known = message.kind in KINDS and isinstance(message.recipient, str)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("no message of the outbox") from None
    if not known:
        raise ValueError("no message of a kind that we know")
    return message


def claim(connection: Connection, *, now: datetime, limit: int) -> list[OutboxMessage]:
    """Claim the oldest messages that nobody holds, in one round trip; a parallel relay gets others.

    Materialized: as a subquery the planner may run it once for each row, and the limit would not be one.
    """
    rows = connection.fetch_all(
        """
        WITH waiting AS MATERIALIZED (
            SELECT id FROM outbox
            WHERE relayed_at IS NULL AND (relay_after IS NULL OR relay_after <= %(now)s)
            ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )
        UPDATE outbox SET attempts = attempts + 1, relay_after = %(claimed_until)s
        FROM waiting WHERE outbox.id = waiting.id
        RETURNING outbox.id, kind, recipient, account_id, locale, created_at
        """,
        {"now": now, "claimed_until": now + CLAIM, "limit": limit},
    )
    return [OutboxMessage(**row) for row in rows]


def mark_relayed(connection: Connection, ids: Collection[UUID], *, now: datetime) -> None:
    """Queue the note that the queue has these."""
    connection.add(
        "UPDATE outbox SET relayed_at = %(now)s WHERE id = ANY(%(ids)s) AND relayed_at IS NULL",
        {"now": now, "ids": list(ids)},
    )


def add_verification(connection: Connection, recipient: str, *, account_id: UUID, now: datetime) -> None:
    """Queue the mail that proves an address, to the address as its owner typed it."""
    connection.add(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, created_at)
        VALUES (%(id)s, %(kind)s, %(recipient)s, %(account_id)s, %(now)s)
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING -- sent twice, written once
        """,
        {
            "id": new_id(),
            "kind": VERIFY_EMAIL,
            "recipient": recipient,
            "account_id": account_id,
            "now": now,
        },
    )


def add_registration_notice(
    connection: Connection, *, account_id: UUID, email: str, email_normalized: str, now: datetime
) -> str:
    """Write the mail that a registration leads to and return its kind, in one statement for all outcomes.

    VERIFY_EMAIL when `account_id` was inserted; ALREADY_REGISTERED, to the stored address of the owner, when
    the address was taken; USERNAME_TAKEN when only the username was.
    """
    row = connection.fetch_one(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, created_at)
        SELECT %(id)s,
               CASE WHEN owner.id = %(account_id)s THEN %(verify_email)s
                    WHEN owner.id IS NOT NULL THEN %(already_registered)s
                    ELSE %(username_taken)s END,
               COALESCE(owner.email, %(email)s), owner.id, %(now)s
        FROM (SELECT) AS one LEFT JOIN accounts AS owner ON owner.email_normalized = %(email_normalized)s
        RETURNING kind
        """,
        {
            "id": new_id(),
            "account_id": account_id,
            "email": email,
            "email_normalized": email_normalized,
            "now": now,
            "verify_email": VERIFY_EMAIL,
            "already_registered": ALREADY_REGISTERED,
            "username_taken": USERNAME_TAKEN,
        },
    )
    return str(row["kind"]) if row else USERNAME_TAKEN


def forget(connection: Connection, account_id: UUID) -> None:
    """Drop what was not sent yet to an account that is being erased.

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

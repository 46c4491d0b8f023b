"""SQL on the messages to endpoints, which are the rows of the outbox that have an `endpoint_id`.

The row of a message is its schedule, with a queue or without: `sending_until` is when it is due, pushed on by
whoever sends it, and again when that failed. A queue only says that somebody should look; what it loses is
handed over once more when the relay's claim, `relay_after`, has passed.

They are written by the trigger of migrations/0010_webhooks.sql, with the event of the audit trail.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from auth_manager.database import Connection, Row
from auth_manager.errors import NotFound
from auth_manager.webhooks import TEST_TYPE, LoggedDelivery

CLAIM = timedelta(minutes=10)
"""How long a message may wait in the queue before it is handed over once more."""

SENDING = timedelta(seconds=30)
"""Longer than one attempt takes."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that somebody took to send it. `sealed_secrets` are the live ones, the newest first."""

    id: UUID
    endpoint_id: UUID
    url: str
    sealed_secrets: tuple[bytes, ...] = field(repr=False)
    payload: Mapping[str, Any]
    tries: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt. `pause`: for how long the endpoint gets nothing, because it is slow."""

    at: datetime
    duration: int
    status: int | None = None
    error: str | None = None
    pause: timedelta | None = None


def add_test(connection: Connection, message_id: UUID, endpoint_id: UUID, *, now: datetime) -> None:
    """Queue a message that says nothing, to one endpoint."""
    payload = {
        "type": TEST_TYPE,
        "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {},
    }
    connection.add(
        """
        INSERT INTO outbox (id, kind, recipient, created_at, endpoint_id, sending_until, details)
        VALUES (%(id)s, 'webhook', '', %(now)s, %(endpoint_id)s, LEAST(%(now)s, clock_timestamp()),
                %(payload)s::jsonb)
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING
        """,
        {"id": message_id, "endpoint_id": endpoint_id, "now": now, "payload": json.dumps(payload)},
    )


def claim(connection: Connection, *, now: datetime, limit: int) -> list[UUID]:
    """Claim messages that are due, those due longest first, in one round trip; a parallel relay gets others.

    None of an endpoint that is disabled or slow: its messages wait here, not in the queue before others.
    """
    rows = connection.fetch_all(
        """
        WITH waiting AS MATERIALIZED (SELECT due_webhooks(%(limit)s, %(now)s) AS id)
        UPDATE outbox SET attempts = attempts + 1, relay_after = %(claimed_until)s
        FROM waiting WHERE outbox.id = waiting.id
        RETURNING outbox.id
        """,
        {"now": now, "claimed_until": now + CLAIM, "limit": limit},
    )
    return [row["id"] for row in rows]


def take(connection: Connection, message_id: UUID, *, now: datetime) -> Message | None:
    """Take a message for oneself, in one round trip; None: it is done, not due, or somebody sends it.

    By the database's clock, because two senders' clocks may disagree. What an endpoint is too slow for is
    due again when it may have more.
    """
    connection.add(
        """
        UPDATE outbox SET sending_until = endpoint.paused_until, relay_after = NULL
        FROM webhook_endpoints AS endpoint
        WHERE outbox.id = %(id)s AND endpoint.id = outbox.endpoint_id
          AND sent_at IS NULL AND failed_at IS NULL
          AND endpoint.paused_until > clock_timestamp() AND sending_until <= clock_timestamp()
        """,
        {"id": message_id},
    )
    row = connection.fetch_one(
        """
        UPDATE outbox SET sending_until = clock_timestamp() + %(sending)s, tries = tries + 1
        FROM webhook_endpoints AS endpoint
        WHERE outbox.id = %(id)s AND endpoint.id = outbox.endpoint_id AND endpoint.disabled_at IS NULL
          AND sent_at IS NULL AND failed_at IS NULL AND sending_until <= clock_timestamp()
        RETURNING outbox.id, endpoint_id, details, tries, url, secret, previous_secret, previous_until
        """,
        {"id": message_id, "sending": SENDING},
    )
    return _message_from(row, now) if row else None


def take_next(connection: Connection, *, now: datetime) -> Message | None:
    """Take the message that is due longest, in one round trip: for delivery without a queue."""
    row = connection.fetch_one(
        """
        WITH waiting AS MATERIALIZED (SELECT due_webhooks(%(limit)s) AS id)
        UPDATE outbox SET sending_until = clock_timestamp() + %(sending)s, tries = tries + 1
        FROM waiting, webhook_endpoints AS endpoint
        WHERE outbox.id = waiting.id AND endpoint.id = outbox.endpoint_id
        RETURNING outbox.id, endpoint_id, details, tries, url, secret, previous_secret, previous_until
        """,
        {"sending": SENDING, "limit": 1},
    )
    return _message_from(row, now) if row else None


def mark_delivered(connection: Connection, message: Message, outcome: Outcome) -> None:
    """Queue the note that an endpoint has a message."""
    connection.add(
        """
        UPDATE outbox SET sent_at = %(now)s, sending_until = NULL, failure = NULL,
            last_try_at = %(now)s, last_status = %(status)s, last_duration = %(duration)s
        WHERE id = %(id)s AND tries >= %(tries)s -- a replay meanwhile counts from 0 again, and stays due
        """,
        _logged(message, outcome),
    )
    connection.add(
        """
        UPDATE webhook_endpoints
        SET failing_since = NULL, paused_until = clock_timestamp() + %(pause)s::interval
        WHERE id = %(endpoint_id)s AND (failing_since IS NOT NULL OR %(pause)s::interval IS NOT NULL)
        """,
        {"endpoint_id": message.endpoint_id, "pause": outcome.pause},
    )


def mark_failed(
    connection: Connection, message: Message, outcome: Outcome, *, wait: timedelta | None
) -> datetime | None:
    """Note a failed attempt, in one round trip; return since when the endpoint fails.

    The message is due again after `wait`; without one it is given up. None: the endpoint is gone.
    """
    connection.add(
        """
        UPDATE outbox SET
            failed_at = CASE WHEN %(wait)s::interval IS NULL THEN %(now)s END,
            sending_until = clock_timestamp() + %(wait)s::interval,
            relay_after = NULL, failure = %(error)s,
            last_try_at = %(now)s, last_status = %(status)s, last_duration = %(duration)s
        WHERE id = %(id)s AND sent_at IS NULL AND tries = %(tries)s -- no replay or other sender meanwhile
        """,
        {**_logged(message, outcome), "wait": wait},
    )
    row = connection.fetch_one(
        """
        UPDATE webhook_endpoints
        SET failing_since = COALESCE(failing_since, %(now)s),
            paused_until = COALESCE(clock_timestamp() + %(pause)s::interval, paused_until)
        WHERE id = %(endpoint_id)s
        RETURNING failing_since
        """,
        {"endpoint_id": message.endpoint_id, "now": outcome.at, "pause": outcome.pause},
    )
    return row["failing_since"] if row else None


def replay(connection: Connection, endpoint_id: UUID, message_id: UUID) -> None:
    """Queue a message again, under the same id and with a schedule of its own.

    The round trip raises NotFound if the endpoint's log does not have it.
    """
    connection.add(
        """
        SELECT require(EXISTS (
            SELECT FROM outbox WHERE id = %(id)s AND endpoint_id = %(endpoint_id)s), 'message_not_found')
        """,
        {"id": message_id, "endpoint_id": endpoint_id},
        refused={"message_not_found": NotFound()},
    )
    connection.add(
        """
        UPDATE outbox SET sent_at = NULL, failed_at = NULL, tries = 0, sending_until = clock_timestamp(),
                          relay_after = NULL
        WHERE id = %(id)s AND endpoint_id = %(endpoint_id)s
        """,
        {"id": message_id, "endpoint_id": endpoint_id},
    )


def list_deliveries(
    connection: Connection, endpoint_id: UUID, *, before: UUID | None, limit: int
) -> list[LoggedDelivery]:
    """Return an endpoint's messages, newest first, from the one before a position."""
    rows = connection.fetch_all(
        """
        SELECT id, details ->> 'type' AS type, tries, created_at, last_try_at, last_status, last_duration,
               failure, sent_at, failed_at, sending_until
        FROM outbox
        WHERE endpoint_id = %(endpoint_id)s AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"endpoint_id": endpoint_id, "before": before, "limit": limit},
    )
    return [
        LoggedDelivery(
            message_id=row["id"],
            type=row["type"],
            state="delivered" if row["sent_at"] else "failed" if row["failed_at"] else "pending",
            attempts=row["tries"],
            created_at=row["created_at"],
            last_attempt_at=row["last_try_at"],
            next_attempt_at=None if row["sent_at"] or row["failed_at"] else row["sending_until"],
            status=row["last_status"],
            duration=row["last_duration"],
            error=row["failure"],
        )
        for row in rows
    ]


def _logged(message: Message, outcome: Outcome) -> dict[str, object]:
    return {
        "id": message.id,
        "tries": message.tries,
        "now": outcome.at,
        "status": outcome.status,
        "duration": outcome.duration,
        "error": outcome.error,
    }


def _message_from(row: Row, now: datetime) -> Message:
    until = row["previous_until"]
    sealed = (row["secret"], row["previous_secret"] if until and until > now else None)
    return Message(
        id=row["id"],
        endpoint_id=row["endpoint_id"],
        url=row["url"],
        sealed_secrets=tuple(bytes(secret) for secret in sealed if secret is not None),
        payload=row["details"],
        tries=row["tries"],
    )

"""Devices that an account signed in from, so that its owner hears of a sign-in from another one."""

import hashlib
import json
import re
from datetime import datetime
from uuid import UUID

from auth_manager.audit import Origin
from auth_manager.database import Connection, Row
from auth_manager.ids import new_id
from auth_manager.outbox import Kind
from auth_manager.settings import Settings

_VERSIONS = re.compile(r"[0-9]+(?:[._][0-9]+)*")


def greet(connection: Connection, settings: Settings, origin: Origin, account_id: UUID) -> None:
    """Queue the note that an account signed in from here, and a mail when it never did from such a device.

    A device is a User-Agent without its versions, or each update of a browser would look like a stranger. The
    first device of an account is no news, and an address that nobody proved gets no mail. The relay hands the
    mail over: a login does not wait for a queue.
    """
    connection.add(
        """
        WITH device AS (
            INSERT INTO known_devices (account_id, device_hash, first_seen_at, last_seen_at)
            SELECT id, %(device_hash)s, %(now)s, %(now)s FROM accounts WHERE id = %(account_id)s
            ON CONFLICT ON CONSTRAINT known_devices_pkey DO UPDATE SET last_seen_at = excluded.last_seen_at
            RETURNING (xmax = 0) AS is_new
        )
        INSERT INTO outbox (id, kind, recipient, account_id, locale, created_at, details, relay_after)
        SELECT %(message_id)s, %(kind)s, accounts.email, accounts.id, COALESCE(accounts.locale, %(locale)s),
               %(now)s, %(details)s::jsonb, %(now)s
        FROM device JOIN accounts ON accounts.id = %(account_id)s
        WHERE device.is_new AND %(notify)s AND accounts.email_verified_at IS NOT NULL
          AND EXISTS (SELECT FROM known_devices WHERE account_id = %(account_id)s)
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING
        """,
        {
            "account_id": account_id,
            "device_hash": _hash(account_id, origin.user_agent),
            "message_id": new_id(),
            "kind": Kind.NEW_SIGN_IN.value,
            "locale": origin.locale,
            "notify": settings.notify_new_device,
            "details": json.dumps(
                {
                    "at": origin.now.isoformat(),
                    "address": origin.address,
                    "user_agent": origin.user_agent,
                }
            ),
            "now": origin.now,
        },
    )


def _hash(account_id: UUID, user_agent: str) -> bytes:
    """Hash with the account: the table does not tell which accounts share a device."""
    return hashlib.sha256(account_id.bytes + _VERSIONS.sub("", user_agent).encode()).digest()


def delete_unused(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete devices that nobody signed in from since a moment; return how many."""
    row = connection.fetch_one(
        """
        WITH unused AS (
            SELECT account_id, device_hash FROM known_devices WHERE last_seen_at < %(before)s
            LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM known_devices USING unused
            WHERE known_devices.account_id = unused.account_id
              AND known_devices.device_hash = unused.device_hash
            RETURNING 1
        )
        SELECT count(*) AS deleted FROM deleted
        """,
        {"before": before, "limit": limit},
    )
    return int(row["deleted"]) if row else 0


def list_of(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return when each device of an account was seen, in one round trip: for its owner's export."""
    return connection.fetch_all(
        """
        SELECT first_seen_at, last_seen_at FROM known_devices
        WHERE account_id = %(account_id)s ORDER BY last_seen_at DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )

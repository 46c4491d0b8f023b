"""Devices that need no second factor for a time, because one was presented on them.

Each holds a token, which is an HMAC over its row's id. The trust ends when it is revoked, with the time, and
with the password that it was given under. A session that was opened by it has one factor (`aal1`): what needs
two asks for them again.
"""

from datetime import datetime, timedelta
from uuid import UUID

from auth_manager.audit import Origin
from auth_manager.database import Connection, Row
from auth_manager.errors import NotFound
from auth_manager.secret_keys import SecretKeys
from auth_manager.signing_keys import decode_base64url, encode_base64url

_PURPOSE = "trusted device"
_PREFIX = "td_"
_LENGTH = 67


def issue_token(secret_keys: SecretKeys, device_id: UUID) -> str:
    """Return the token that a device keeps: `td_` and the base64url of id (16 bytes) and HMAC-SHA256 (32)."""
    return _PREFIX + encode_base64url(device_id.bytes + secret_keys.sign(_PURPOSE, device_id.bytes))


def parse_token(secret_keys: SecretKeys, token: str | None) -> UUID | None:
    """Return which device a token of ours is; None for every other: it trusts nothing, and refuses nobody."""
    if token is None or len(token) != _LENGTH or not token.startswith(_PREFIX):
        return None
    try:
        content = decode_base64url(token.removeprefix(_PREFIX))
    except ValueError:
        return None
    if not secret_keys.verifies(_PURPOSE, content[:16], content[16:]):
        return None
    return UUID(bytes=content[:16])


def add(
    connection: Connection,
    device_id: UUID,
    origin: Origin,
    *,
    account_id: UUID,
    password_changed_at: datetime,
    lifetime: timedelta,
) -> None:
    """Queue the trust in the device that a request came from."""
    connection.add(
        """
        INSERT INTO trusted_devices (id, account_id, password_changed_at, created_at, last_used_at,
                                     expires_at, address, user_agent)
        VALUES (%(id)s, %(account_id)s, %(password_changed_at)s, %(now)s, %(now)s, %(expires_at)s,
                %(address)s, %(user_agent)s)
        ON CONFLICT ON CONSTRAINT trusted_devices_pkey DO NOTHING -- sent twice, written once
        """,
        {
            "id": device_id,
            "account_id": account_id,
            "password_changed_at": password_changed_at,
            "now": origin.now,
            "expires_at": origin.now + lifetime,
            "address": origin.address,
            "user_agent": origin.user_agent,
        },
    )


def note_use(connection: Connection, device_id: UUID, origin: Origin) -> None:
    """Queue when and from where a device was used."""
    connection.add(
        """
        UPDATE trusted_devices SET last_used_at = GREATEST(last_used_at, %(now)s), address = %(address)s
        WHERE id = %(id)s
        """,
        {"id": device_id, "now": origin.now, "address": origin.address},
    )


def list_of(
    connection: Connection, account_id: UUID, *, now: datetime, before: UUID | None = None, limit: int
) -> list[Row]:
    """Return the trusted devices of an account, newest first, in one round trip."""
    return connection.fetch_all(
        """
        SELECT trusted_devices.id, trusted_devices.created_at, last_used_at, expires_at,
               host(address) AS address, user_agent
        FROM trusted_devices JOIN accounts ON accounts.id = trusted_devices.account_id
        WHERE accounts.id = %(account_id)s AND expires_at > GREATEST(%(now)s, now())
          AND trusted_devices.password_changed_at = accounts.password_changed_at
          AND (%(before)s::uuid IS NULL OR trusted_devices.id < %(before)s::uuid)
        ORDER BY trusted_devices.id DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "now": now, "before": before, "limit": limit},
    )


def list_all(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return an account's devices, those whose trust ended too, in one round trip: for its owner's export."""
    return connection.fetch_all(
        """
        SELECT created_at, last_used_at, expires_at, host(address) AS address, user_agent FROM trusted_devices
        WHERE account_id = %(account_id)s ORDER BY created_at DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )


def revoke(connection: Connection, account_id: UUID, device_id: UUID) -> None:
    """Queue the end of the trust in a device; the round trip raises NotFound unless it is the account's."""
    connection.add(
        """
        WITH revoked AS (
            DELETE FROM trusted_devices WHERE id = %(id)s AND account_id = %(account_id)s RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM revoked), 'device_not_found')
        """,
        {"id": device_id, "account_id": account_id},
        refused={"device_not_found": NotFound()},
    )


def revoke_all(connection: Connection, account_id: UUID) -> None:
    """Queue the end of the trust in all devices of an account."""
    connection.add(
        "DELETE FROM trusted_devices WHERE account_id = %(account_id)s", {"account_id": account_id}
    )


def delete_over(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete devices whose trust expired before a moment; return how many."""
    row = connection.fetch_one(
        """
        WITH over AS (
            SELECT id FROM trusted_devices WHERE expires_at < %(before)s
            LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM trusted_devices USING over WHERE trusted_devices.id = over.id RETURNING 1
        )
        SELECT count(*) AS deleted FROM deleted
        """,
        {"before": before, "limit": limit},
    )
    return int(row["deleted"]) if row else 0

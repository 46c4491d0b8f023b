"""The one statement that starts every login: reserve an attempt, then read what to check it against."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from auth_manager.account_roles import GRANTS
from auth_manager.accounts import Account
from auth_manager.accounts.store import FACTORS, account_from
from auth_manager.database import Connection
from auth_manager.rate_limits import Limit, account_key_prefix


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reserved, or refused, attempt.

    `account` is None for an identifier that nobody has, which is counted like any other. `failures` are the
    consecutive ones of the account, this reservation included. `retry_at` is None when it may go ahead.
    `trusts_device` tells whether the device that was named is the account's, and still trusted.
    """

    account: Account | None
    password_hash: str | None = field(repr=False)
    password_changed_at: datetime | None
    factors_changed_at: datetime | None
    factors: tuple[str, ...]
    trusts_device: bool
    failures: int
    retry_at: datetime | None


def reserve_attempt(
    connection: Connection,
    *,
    email_normalized: str | None,
    username_normalized: str | None,
    address_key: str,
    unknown_key: str,
    by_address: Limit,
    by_account: Limit,
    device_id: UUID | None,
    now: datetime,
) -> Attempt:
    """Count this attempt against its address and its account, and read the account, in one round trip.

    The laterals fix the order: the address's row is locked before the account's, here as wherever both are.
    A refused address counts nothing against the account, or one address could lock anybody out: the account's
    key exists only where the address may go ahead (a condition of the join would be checked after the call).
    """
    row = connection.fetch_one(
        f"""
        SELECT account.*, COALESCE(of_account.retry_at, of_address.retry_at) AS retry_at, of_account.reserved
        FROM (SELECT) AS one
        LEFT JOIN LATERAL (
            SELECT accounts.*, {GRANTS}, {FACTORS}, EXISTS (
                       SELECT FROM trusted_devices
                       WHERE id = %(device_id)s AND account_id = accounts.id
                         AND expires_at > GREATEST(%(now)s, now())
                         AND trusted_devices.password_changed_at = accounts.password_changed_at
                   ) AS trusts_device
            FROM accounts
            WHERE email_normalized = %(email)s OR username_normalized = %(username)s
            LIMIT 1
        ) AS account ON true
        CROSS JOIN LATERAL reserve_attempt(
            %(address_key)s, %(now)s, %(address_maximum)s, %(address_window)s, %(address_free)s,
            %(address_delay)s, %(address_delay_maximum)s
        ) AS of_address
        LEFT JOIN LATERAL (
            SELECT reservation.*
            FROM (
                SELECT COALESCE(%(account_key_prefix)s || account.id, %(unknown_key)s) AS key
                WHERE of_address.retry_at IS NULL
                OFFSET 0
            ) AS allowed
            CROSS JOIN LATERAL reserve_attempt(
                allowed.key, %(now)s, %(account_maximum)s, %(account_window)s, %(account_free)s,
                %(account_delay)s, %(account_delay_maximum)s
            ) AS reservation
        ) AS of_account ON true
        """,  # noqa: S608 -- constants
        {
            "email": email_normalized,
            "username": username_normalized,
            "address_key": address_key,
            "account_key_prefix": account_key_prefix(),
            "unknown_key": unknown_key,
            "device_id": device_id,
            "now": now,
            **by_address.parameters("address"),
            **by_account.parameters("account"),
        },
    )
    if row is None:
        raise LookupError("a join from one row returns one row")
    known = row["id"] is not None
    return Attempt(
        account=account_from(row) if known else None,
        password_hash=row["password_hash"],
        password_changed_at=row["password_changed_at"],
        factors_changed_at=row["factors_changed_at"],
        factors=tuple(row["factors"] or ()),
        trusts_device=bool(row["trusts_device"]),
        failures=row["reserved"] or 0,
        retry_at=row["retry_at"],
    )

"""The one statement that starts every sign-in by passkey: reserve an attempt, read what to check it with."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from auth_manager.account_roles import GRANTS
from auth_manager.accounts import Account
from auth_manager.accounts.store import FACTORS, account_from
from auth_manager.database import Connection
from auth_manager.factors.passkeys import PasskeyKey
from auth_manager.one_time_secrets import LIVE, Purpose
from auth_manager.rate_limits import Limit, account_key_prefix
from auth_manager.signing_keys import decode_base64url


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose passkey it is, as read before anything was verified."""

    account: Account
    key: PasskeyKey
    password_changed_at: datetime
    factors_changed_at: datetime | None
    factors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reserved, or refused, attempt.

    `owner` is None for a credential that nobody has: then only its client was counted. `challenge` is None
    unless it is open, and for signing in. `failures` are the consecutive ones of the account, this one
    included. `retry_at` is None when it may go ahead.
    """

    owner: Owner | None
    challenge: bytes | None = field(repr=False)
    failures: int
    retry_at: datetime | None


def reserve_attempt(
    connection: Connection,
    *,
    credential_id: bytes | None,
    request: UUID,
    context: str,
    address_key: str,
    by_address: Limit,
    by_account: Limit,
    now: datetime,
) -> Attempt:
    """Count this attempt against its address and its account, and read the passkey, in one round trip.

    In the order of login/store.py: the address's row is locked before the account's, and a refused address
    counts nothing against the account.
    """
    row = connection.fetch_one(
        f"""
        SELECT owner.*, COALESCE(of_account.retry_at, of_address.retry_at) AS retry_at, of_account.reserved,
               challenge.value AS challenge
        FROM (SELECT) AS one
        LEFT JOIN LATERAL (
            SELECT accounts.*, {GRANTS}, {FACTORS}, passkeys.id AS passkey_id, passkeys.public_key,
                   passkeys.sign_count, passkeys.backup_eligible
            FROM passkeys JOIN accounts ON accounts.id = passkeys.account_id
            WHERE passkeys.credential_id = %(credential_id)s
        ) AS owner ON true
        CROSS JOIN LATERAL reserve_attempt(
            %(address_key)s, %(now)s, %(address_maximum)s, %(address_window)s, %(address_free)s,
            %(address_delay)s, %(address_delay_maximum)s
        ) AS of_address
        LEFT JOIN LATERAL (
            SELECT reservation.*
            FROM (
                SELECT %(account_key_prefix)s || owner.id AS key
                WHERE of_address.retry_at IS NULL AND owner.id IS NOT NULL
                OFFSET 0
            ) AS allowed
            CROSS JOIN LATERAL reserve_attempt(
                allowed.key, %(now)s, %(account_maximum)s, %(account_window)s, %(account_free)s,
                %(account_delay)s, %(account_delay_maximum)s
            ) AS reservation
        ) AS of_account ON true
        LEFT JOIN LATERAL (
            SELECT details ->> 'challenge' AS value FROM one_time_secrets
            WHERE id = %(request)s AND purpose = %(purpose)s AND {LIVE}
              AND details ->> 'context' = %(context)s
        ) AS challenge ON true
        """,  # noqa: S608 -- constants
        {
            "credential_id": credential_id,
            "request": request,
            "purpose": Purpose.PASSKEY_AUTHENTICATION.value,
            "context": context,
            "address_key": address_key,
            "account_key_prefix": account_key_prefix(),
            "now": now,
            **by_address.parameters("address"),
            **by_account.parameters("account"),
        },
    )
    if row is None:
        raise LookupError("a join from one row returns one row")
    owner = None
    if row["id"] is not None:
        owner = Owner(
            account=account_from(row),
            key=PasskeyKey(
                row["passkey_id"], bytes(row["public_key"]), row["sign_count"], row["backup_eligible"]
            ),
            password_changed_at=row["password_changed_at"],
            factors_changed_at=row["factors_changed_at"],
            factors=tuple(row["factors"]),
        )
    return Attempt(
        owner=owner,
        challenge=decode_base64url(row["challenge"]) if row["challenge"] else None,
        failures=row["reserved"] or 0,
        retry_at=row["retry_at"],
    )

"""Checking a second factor, whichever it is: counted before it is looked at, used up with what it is for.

All of them count against the one run of failures of their account, which passwords and mailed codes count
against too; and against a run of their own, which nothing but a right factor ends, or who has the password or
the mailbox could begin the first one anew (ASVS 6.3.1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from auth_manager import audit, lockouts, one_time_secrets, rate_limits, sealed_values
from auth_manager.account_roles import GRANTS
from auth_manager.accounts import Account
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.store import FACTORS, account_from
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import InvalidFactor
from auth_manager.factors import ceremonies, changes, passkeys, recovery_codes, totp
from auth_manager.factors.changes import Change
from auth_manager.factors.passkeys import PasskeyKey
from auth_manager.factors.totp import Totp
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import LIVE, Purpose
from auth_manager.resources import Resources
from auth_manager.sealed_values import CannotOpen
from auth_manager.settings import Settings
from auth_manager.signing_keys import decode_base64url


@dataclass(frozen=True, slots=True)
class Presented:
    """What a person presents: exactly one of these.

    `passkey` is what navigator.credentials.get() returned, as JSON, for the options of `passkey_request`.
    """

    totp: str | None = field(default=None, repr=False)
    recovery_code: str | None = field(default=None, repr=False)
    passkey: Mapping[str, Any] | None = field(default=None, repr=False)
    passkey_request: UUID | None = None

    @property
    def factor(self) -> str:
        """Its name, as in `factors_of`."""
        if self.totp is not None:
            return "totp"
        return "recovery_code" if self.recovery_code is not None else "passkey"


@dataclass(frozen=True, slots=True)
class Check:
    """An account with what its factors are checked against, once the attempt was counted.

    `details` are those of the ticket that named the account. `failures` are the consecutive ones of the
    account and of its factors, this attempt included; `retry_at` is None when it may go ahead. `challenge` is
    what the passkey had to sign.
    """

    account: Account
    password_changed_at: datetime
    factors_changed_at: datetime | None
    factors: tuple[str, ...]
    failures: tuple[int, int]
    retry_at: datetime | None
    details: Mapping[str, Any]
    totp: Totp | None = field(repr=False)
    recovery_salt: bytes | None = field(repr=False)
    passkey: PasskeyKey | None = field(repr=False)
    challenge: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """A factor that was right: its RFC 8176 methods, and what uses it up.

    `use` queues the write by which it counts once; the round trip raises InvalidFactor when another was
    faster. It locks the account's row first, like whoever removes a factor, and so comes after the account's
    counter was touched.
    """

    factor: str
    amr: tuple[str, ...]
    use: Callable[[Connection], None]


def reserve(
    connection: Connection,
    presented: Presented,
    *,
    account_id: UUID | None = None,
    ticket_id: UUID | None = None,
    challenge_context: str,
    settings: Settings,
    now: datetime,
) -> Check | None:
    """Count an attempt and read what to check it against, in one round trip that commits on its own.

    Args:
        connection: of a trip of its own.
        presented: names the passkey and its challenge, if it is one.
        account_id: whose factor it is said to be; or
        ticket_id: the SECOND_FACTOR secret that names the account, while it is good. One of the two.
        challenge_context: what a passkey's challenge must have been made for.
        settings: the limits of the account's secrets.
        now: the current time.

    Returns:
        None when there is no such account, or the ticket is not good (any more).
    """
    row = connection.fetch_one(
        f"""
        SELECT accounts.*, {GRANTS}, {FACTORS}, subject.details, reservation.reserved,
               reservation.factors_reserved, reservation.retry_at,
               totp.id AS totp_id, totp.sealed_secret, totp.last_step,
               (SELECT salt FROM recovery_codes WHERE account_id = accounts.id LIMIT 1) AS recovery_salt,
               passkey.id AS passkey_id, passkey.public_key, passkey.sign_count, passkey.backup_eligible,
               challenge.details ->> 'challenge' AS challenge
        FROM (
            SELECT %(account_id)s::uuid AS account_id, '{{}}'::jsonb AS details
            WHERE %(account_id)s::uuid IS NOT NULL
            UNION ALL
            SELECT account_id, details FROM one_time_secrets
            WHERE id = %(ticket_id)s AND purpose = %(ticket_purpose)s AND {LIVE}
        ) AS subject
        JOIN accounts ON accounts.id = subject.account_id
        CROSS JOIN LATERAL reserve_factor_attempt(
            %(account_key_prefix)s || accounts.id,
            CASE WHEN cardinality(factors_of(accounts.id)) > 0 THEN %(factor_key_prefix)s || accounts.id END,
            %(now)s, %(account_maximum)s, %(account_free)s, %(account_delay)s, %(account_delay_maximum)s
        ) AS reservation
        LEFT JOIN totp_factors AS totp ON totp.account_id = accounts.id AND totp.confirmed_at IS NOT NULL
        LEFT JOIN LATERAL (
            SELECT * FROM passkeys
            WHERE account_id = accounts.id AND credential_id = %(credential_id)s
        ) AS passkey ON true
        LEFT JOIN LATERAL (
            SELECT * FROM one_time_secrets
            WHERE id = %(request)s AND purpose = %(challenge_purpose)s AND {LIVE}
              AND details ->> 'context' = %(challenge_context)s
        ) AS challenge ON true
        """,  # noqa: S608 -- constants
        {
            "account_id": account_id,
            "ticket_id": ticket_id,
            "ticket_purpose": Purpose.SECOND_FACTOR.value,
            "account_key_prefix": rate_limits.account_key_prefix(),
            "factor_key_prefix": rate_limits.factor_key_prefix(),
            "credential_id": ceremonies.credential_id_of(presented.passkey),
            "request": presented.passkey_request,
            "challenge_purpose": Purpose.PASSKEY_AUTHENTICATION.value,
            "challenge_context": challenge_context,
            "now": now,
            **rate_limits.account_limit(settings).parameters("account"),
        },
    )
    if row is None:
        return None
    return Check(
        account=account_from(row),
        password_changed_at=row["password_changed_at"],
        factors_changed_at=row["factors_changed_at"],
        factors=tuple(row["factors"]),
        failures=(row["reserved"], row["factors_reserved"]),
        retry_at=row["retry_at"],
        details=row["details"],
        totp=Totp(row["totp_id"], row["sealed_secret"], row["last_step"]) if row["totp_id"] else None,
        recovery_salt=bytes(row["recovery_salt"]) if row["recovery_salt"] else None,
        passkey=(
            PasskeyKey(row["passkey_id"], bytes(row["public_key"]), row["sign_count"], row["backup_eligible"])
            if row["passkey_id"]
            else None
        ),
        challenge=decode_base64url(row["challenge"]) if row["challenge"] else None,
    )


def verify(
    resources: Resources, origin: Origin, check: Check, presented: Presented, *, first: str | None = None
) -> Verified:
    """Return the factor if it is right; `Verified.use` then uses it up.

    `first` is what was the first factor: a passkey twice is one factor.

    Raises:
        InvalidFactor: for every reason alike.
    """
    verified = None
    if presented.factor == first:
        pass
    elif presented.totp is not None:
        verified = _verify_totp(resources, origin, check, presented.totp)
    elif presented.recovery_code is not None:
        verified = _verify_recovery_code(resources, origin, check, presented.recovery_code)
    elif presented.passkey is not None and presented.passkey_request is not None:
        verified = _verify_passkey(resources, origin, check, presented.passkey, presented.passkey_request)
    if verified is None:
        raise InvalidFactor
    return verified


def _verify_totp(resources: Resources, origin: Origin, check: Check, code: str) -> Verified | None:
    if check.totp is None:
        return None
    account_id = check.account.id
    try:
        secret = sealed_values.open_value(
            resources.secret_keys, totp.PURPOSE, bytes(check.totp.sealed_secret), bound_to=account_id.bytes
        )
    except CannotOpen:
        # Its key was retired too early. The other factors still work, and the operators hear of it.
        count("totp_secret_unreadable")
        log_event("totp_secret_unreadable", account_id=account_id)
        return None
    step = totp.matching_step(secret.decode(), code, last_step=check.totp.last_step, now=origin.now)
    if step is None:
        return None
    use = partial(totp.use, totp_id=check.totp.id, step=step, use_id=new_id(), now=origin.now)
    return Verified("totp", ("otp", "mfa"), _after_locking(account_id, use))


def _verify_recovery_code(resources: Resources, origin: Origin, check: Check, code: str) -> Verified | None:
    """Look for the hash of a code: the database tells whether it is there, and uses it up, in one step."""
    if check.recovery_salt is None or "recovery_code" not in check.factors:
        return None
    code_hash = recovery_codes.hash_code(resources.passwords, code, check.recovery_salt)
    if code_hash is None:
        return None
    account_id, use_id = check.account.id, new_id()

    def use(connection: Connection) -> None:
        recovery_codes.use(
            connection, account_id=account_id, code_hash=code_hash, use_id=use_id, now=origin.now
        )
        changes.tell(connection, origin, account_id, Change.RECOVERY_CODE_USED)

    return Verified("recovery_code", ("mfa", "otp"), _after_locking(account_id, use))


def _after_locking(account_id: UUID, use: Callable[[Connection], None]) -> Callable[[Connection], None]:
    def lock_and_use(connection: Connection) -> None:
        accounts_store.lock(connection, account_id)
        use(connection)

    return lock_and_use


def _verify_passkey(
    resources: Resources, origin: Origin, check: Check, credential: Mapping[str, Any], request: UUID
) -> Verified | None:
    if check.passkey is None or check.challenge is None:
        return None
    assertion = ceremonies.accept(
        resources,
        origin,
        credential,
        check.passkey,
        account_id=check.account.id,
        challenge=check.challenge,
        alone=False,
    )
    if assertion is None:
        return None
    key = check.passkey

    def use(connection: Connection) -> None:
        accounts_store.lock(connection, check.account.id)
        one_time_secrets.use(connection, request, use_id=use_id, now=origin.now, otherwise=InvalidFactor())
        passkeys.use(connection, key.id, assertion, now=origin.now, otherwise=InvalidFactor())

    use_id = new_id()
    methods = ("mfa", "pop", "user") if assertion.user_verified else ("mfa", "pop")
    return Verified("passkey", methods, use)


def record_failure(
    resources: Resources,
    origin: Origin,
    check: Check,
    presented: Presented,
    *,
    session_id: UUID | None = None,
) -> None:
    """Write a wrong factor down, in one round trip; what reaches the limit locks the account."""
    with resources.database.one_trip() as connection:
        audit.append(
            connection,
            "factor_presented",
            origin,
            account_id=check.account.id,
            session_id=session_id,
            failure=presented.factor,
        )
        of_account, of_factors = check.failures
        if lockouts.is_reached(resources.settings, of_factors):
            lockouts.record(connection, origin, check.account.id, failures=of_factors, of_factors=True)
        elif lockouts.is_reached(resources.settings, of_account):
            lockouts.record(connection, origin, check.account.id, failures=of_account)
    count("factor_refused")
    log_event("factor_refused", factor=presented.factor, account_id=check.account.id)

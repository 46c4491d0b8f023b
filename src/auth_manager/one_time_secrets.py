"""Single-use secrets: one mechanism for links and codes of every purpose (ASVS 6.4.1, 6.6.2).

A secret has a row, whose id is the `request` that a client gets back, and two forms: the token of a link, and
six digits that count only together with the request. Both are HMACs over purpose and id, so that nothing in
the database, the outbox or the queue can be presented (docs/decisions/0013-one-time-secrets.md).
"""

import hmac
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from auth_manager.database import Connection, Row
from auth_manager.errors import AuthError, InvalidOneTimeSecret
from auth_manager.rate_limits import Limit, account_key, account_key_prefix, unknown_key
from auth_manager.secret_keys import SecretKeys
from auth_manager.signing_keys import decode_base64url, encode_base64url

CODE_DIGITS = 6
GUESSES = 5
"""How often the code of one secret may be wrong (ASVS 6.6.3)."""


class Purpose(StrEnum):
    """What a secret is for; it is good for nothing else."""

    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 -- a purpose
    EMAIL_LOGIN = "email_login"
    REAUTHENTICATE = "reauthenticate"
    INVITATION = "invitation"
    KEEP_ACCOUNT = "keep_account"
    # Not mailed, but handed to who proved a first factor, or asked for the options of a passkey.
    SECOND_FACTOR = "second_factor"
    ENROL_FACTOR = "enrol_factor"
    PASSKEY_REGISTRATION = "passkey_registration"
    PASSKEY_AUTHENTICATION = "passkey_authentication"


class OneTimeSecrets:
    """Derives and recognises the two forms of a secret.

    A token is `ot_` and the base64url of id (16 bytes) and HMAC-SHA256 (32): 48 bytes, so that no character
    has spare bits and each token has exactly one text. It names no purpose; the MAC covers it.
    """

    _PREFIX = "ot_"
    _LENGTH = 67

    def __init__(self, secret_keys: SecretKeys) -> None:
        self._secret_keys = secret_keys

    def token(self, purpose: Purpose, secret_id: UUID) -> str:
        """Return the token of a link."""
        mac = self._secret_keys.sign(_purpose("token", purpose), secret_id.bytes)
        return self._PREFIX + encode_base64url(secret_id.bytes + mac)

    def code(self, purpose: Purpose, secret_id: UUID) -> str:
        """Return the six digits."""
        return _digits(self._secret_keys.derive(_purpose("code", purpose))[0], secret_id)

    def parse(self, token: str, purposes: Collection[Purpose]) -> tuple[UUID, Purpose]:
        """Return which secret a token of ours is, and for which of `purposes`.

        Raises:
            InvalidOneTimeSecret: it is none. Whether it was used is for the caller.
        """
        if len(token) != self._LENGTH or not token.startswith(self._PREFIX):
            raise InvalidOneTimeSecret
        try:
            content = decode_base64url(token.removeprefix(self._PREFIX))
        except ValueError:
            raise InvalidOneTimeSecret from None
        for purpose in purposes:
            if self._secret_keys.verifies(_purpose("token", purpose), content[:16], content[16:]):
                return UUID(bytes=content[:16]), purpose
        raise InvalidOneTimeSecret

    def is_code(self, purpose: Purpose, secret_id: UUID, code: str) -> bool:
        """Tell whether these are the digits, in a time that does not tell how many of them."""
        presented = code.encode("utf-8", "surrogatepass")
        keys = self._secret_keys.derive(_purpose("code", purpose))
        return any(hmac.compare_digest(_digits(key, secret_id).encode(), presented) for key in keys)


def _purpose(form: str, purpose: Purpose) -> str:
    """Name a key: a token is no code, and neither is good for anything else."""
    return f"one-time {form}: {purpose.value}"


def _digits(key: bytes, secret_id: UUID) -> str:
    """Return a number below 10^6, of 256 bits: the bias is beyond measure."""
    mac = hmac.digest(key, secret_id.bytes, "sha256")
    return f"{int.from_bytes(mac) % 10**CODE_DIGITS:0{CODE_DIGITS}d}"


@dataclass(frozen=True, slots=True)
class OneTimeSecret:
    """A secret's row. `account_id` None: an invitation, or a request for an address that nobody has."""

    id: UUID
    purpose: Purpose
    account_id: UUID | None
    email: str | None
    email_normalized: str | None
    details: Mapping[str, Any]
    limit_key: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Guess:
    """A guess of a code that was counted: the secret, or None where there is none to guess.

    `retry_at` is when its account may be guessed at again, None when this guess may be looked at.
    """

    secret: OneTimeSecret | None
    failures: int
    retry_at: datetime | None


def add(connection: Connection, secret: OneTimeSecret, *, now: datetime) -> None:
    """Queue a new secret; sent twice, it is written once."""
    connection.add(
        """
        INSERT INTO one_time_secrets (id, purpose, account_id, email, email_normalized, details, limit_key,
                                      created_at, expires_at)
        VALUES (%(id)s, %(purpose)s, %(account_id)s, %(email)s, %(email_normalized)s, %(details)s::jsonb,
                %(limit_key)s, %(now)s, %(expires_at)s)
        ON CONFLICT ON CONSTRAINT one_time_secrets_pkey DO NOTHING
        """,
        {
            "id": secret.id,
            "purpose": secret.purpose.value,
            "account_id": secret.account_id,
            "email": secret.email,
            "email_normalized": secret.email_normalized,
            "details": json.dumps(dict(secret.details)),
            "limit_key": secret.limit_key,
            "now": now,
            "expires_at": secret.expires_at,
        },
    )


def add_for_new_account(connection: Connection, secret: OneTimeSecret, *, now: datetime) -> None:
    """Queue a secret of an account that may not have been inserted: then one that nobody can use.

    The same statement for both, so that neither time nor a guess tells them apart: guesses count against
    whoever has the address now, as failed logins do. An account that is there already is somebody else's.
    """
    connection.add(
        """
        INSERT INTO one_time_secrets (id, purpose, account_id, email, email_normalized, limit_key, created_at,
                                      expires_at)
        SELECT %(id)s, %(purpose)s, account.id, account.email, account.email_normalized,
               COALESCE(%(account_key_prefix)s || holder.id, %(unknown_key)s), %(now)s, %(expires_at)s
        FROM (SELECT) AS one
        LEFT JOIN accounts AS holder ON holder.email_normalized = %(email_normalized)s
        LEFT JOIN LATERAL (SELECT holder.* WHERE holder.id = %(account_id)s) AS account ON true
        ON CONFLICT ON CONSTRAINT one_time_secrets_pkey DO NOTHING
        """,
        {
            "id": secret.id,
            "purpose": secret.purpose.value,
            "account_id": secret.account_id,
            "email_normalized": secret.email_normalized,
            "account_key_prefix": account_key_prefix(),
            "unknown_key": unknown_key(secret.email_normalized or ""),
            "now": now,
            "expires_at": secret.expires_at,
        },
    )


def add_for_account(
    connection: Connection,
    *,
    secret_id: UUID,
    purpose: Purpose,
    account_id: UUID,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Queue a secret that goes to the address that an account has now."""
    connection.add(
        """
        INSERT INTO one_time_secrets (id, purpose, account_id, email, email_normalized, limit_key,
                                      created_at, expires_at)
        SELECT %(id)s, %(purpose)s, id, email, email_normalized, %(limit_key)s, %(now)s, %(expires_at)s
        FROM accounts WHERE id = %(account_id)s
        ON CONFLICT ON CONSTRAINT one_time_secrets_pkey DO NOTHING
        """,
        {
            "id": secret_id,
            "purpose": purpose.value,
            "account_id": account_id,
            "limit_key": account_key(account_id),
            "now": now,
            "expires_at": expires_at,
        },
    )


def add_for_address(
    connection: Connection,
    *,
    secret_id: UUID,
    purpose: Purpose,
    email_normalized: str,
    unverified_only: bool,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Queue a secret for whoever has this address, or one that nobody can use, at the same cost.

    A disabled owner counts as nobody; so does one who is verified, with `unverified_only`. Their guesses
    count where their failed logins do all the same, or a limit reached in one way and not in the other would
    tell who has an account. Of an address that nobody has nothing is kept but that key, a hash.
    """
    connection.add(
        """
        INSERT INTO one_time_secrets (id, purpose, account_id, email, email_normalized, limit_key,
                                      created_at, expires_at)
        SELECT %(id)s, %(purpose)s, owner.id, owner.email, owner.email_normalized,
               COALESCE(%(account_key_prefix)s || holder.id, %(unknown_key)s), %(now)s, %(expires_at)s
        FROM (SELECT) AS one
        LEFT JOIN accounts AS holder ON holder.email_normalized = %(email_normalized)s
        LEFT JOIN LATERAL (
            SELECT holder.* WHERE holder.disabled_at IS NULL
               AND NOT (%(unverified_only)s AND holder.email_verified_at IS NOT NULL)
        ) AS owner ON true
        ON CONFLICT ON CONSTRAINT one_time_secrets_pkey DO NOTHING
        """,
        {
            "id": secret_id,
            "purpose": purpose.value,
            "email_normalized": email_normalized,
            "account_key_prefix": account_key_prefix(),
            "unknown_key": unknown_key(email_normalized),
            "unverified_only": unverified_only,
            "now": now,
            "expires_at": expires_at,
        },
    )


LIVE = "used_at IS NULL AND expires_at > GREATEST(%(now)s, now())"
"""SQL: not used, and not expired by our clock or the database's. With `%(now)s`."""


def find_live(
    connection: Connection, secret_id: UUID, purpose: Purpose, *, now: datetime
) -> OneTimeSecret | None:
    """Return a secret that was not used and did not expire, in one round trip."""
    row = connection.fetch_one(
        f"SELECT * FROM one_time_secrets WHERE id = %(id)s AND purpose = %(purpose)s AND {LIVE}",  # noqa: S608 -- a constant
        {"id": secret_id, "purpose": purpose.value, "now": now},
    )
    return _secret_from(row) if row else None


def require_live(
    connection: Connection, secret_id: UUID, purpose: Purpose, *, now: datetime, otherwise: AuthError
) -> None:
    """Queue the guard: the round trip raises `otherwise` unless the secret is good; nothing is used up."""
    connection.add(
        f"""
        SELECT require(EXISTS (
            SELECT FROM one_time_secrets WHERE id = %(id)s AND purpose = %(purpose)s AND {LIVE}
        ), 'one_time_secret_over')
        """,  # noqa: S608 -- a constant
        {"id": secret_id, "purpose": purpose.value, "now": now},
        refused={"one_time_secret_over": otherwise},
    )


def reserve_guess(
    connection: Connection,
    secret_id: UUID,
    purposes: Collection[Purpose],
    *,
    by_account: Limit,
    now: datetime,
) -> Guess:
    """Count a guess of a secret's code before it is looked at, in one round trip that commits on its own.

    Against the secret, of which parallel guesses cannot outrun the limit, and against whatever its limit_key
    counts: the account's failures over all ways to guess (ASVS 6.3.1), or those of an unknown address.
    """
    row = connection.fetch_one(
        f"""
        WITH secret AS (
            UPDATE one_time_secrets SET failures = failures + 1
            WHERE id = %(id)s AND purpose = ANY(%(purposes)s) AND failures < %(guesses)s AND {LIVE}
            RETURNING *
        )
        SELECT secret.*, reservation.reserved, reservation.retry_at
        FROM secret CROSS JOIN LATERAL reserve_attempt(
            secret.limit_key, %(now)s, %(account_maximum)s, %(account_window)s, %(account_free)s,
            %(account_delay)s, %(account_delay_maximum)s
        ) AS reservation
        """,  # noqa: S608 -- a constant
        {
            "id": secret_id,
            "purposes": [purpose.value for purpose in purposes],
            "guesses": GUESSES,
            "now": now,
            **by_account.parameters("account"),
        },
    )
    if row is None:
        return Guess(secret=None, failures=0, retry_at=None)
    return Guess(secret=_secret_from(row), failures=row["reserved"], retry_at=row["retry_at"])


def use(
    connection: Connection,
    secret_id: UUID,
    *,
    use_id: UUID,
    now: datetime,
    otherwise: AuthError | None = None,
) -> None:
    """Queue the use: the whole round trip fails with InvalidOneTimeSecret unless this is the first.

    Parallel uses queue at the row and re-read it: exactly one gets through.

    Args:
        connection: of the transaction that does what the secret is for.
        secret_id: of a secret that was proven (proofs.prove).
        use_id: chosen by the caller: the same use, sent twice over a lost connection, is one use.
        now: the current time.
        otherwise: what it fails with instead, where several are used in one round trip: the same for all.
    """
    connection.add(
        f"""
        WITH used AS (
            UPDATE one_time_secrets SET used_at = %(now)s, used_by = %(use_id)s
            WHERE id = %(id)s AND (used_by = %(use_id)s OR {LIVE})
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM used), 'one_time_secret_used')
        """,  # noqa: S608 -- a constant
        {"id": secret_id, "use_id": use_id, "now": now},
        refused={"one_time_secret_used": otherwise or InvalidOneTimeSecret()},
    )


def give_back_guess(connection: Connection, secret_id: UUID) -> None:
    """Queue the return of a guess that was right and led to nothing, as with a password that is too weak."""
    connection.add(
        "UPDATE one_time_secrets SET failures = GREATEST(failures - 1, 0) WHERE id = %(id)s",
        {"id": secret_id},
    )


def retire(
    connection: Connection,
    account_id: UUID,
    purposes: Collection[Purpose],
    *,
    except_for: UUID | None = None,
    now: datetime,
) -> None:
    """Queue the end of an account's open secrets, as after a change of what they prove.

    By the slower clock of ours and the database's: what we end now, a process whose clock is behind must not
    take for good. `except_for` is a secret added in the same transaction, which may be sent twice.
    """
    connection.add(
        """
        UPDATE one_time_secrets SET expires_at = LEAST(%(now)s, now())
        WHERE account_id = %(account_id)s AND purpose = ANY(%(purposes)s) AND used_at IS NULL
          AND expires_at > LEAST(%(now)s, now()) AND id IS DISTINCT FROM %(except_for)s::uuid
        """,
        {
            "account_id": account_id,
            "purposes": [purpose.value for purpose in purposes],
            "except_for": except_for,
            "now": now,
        },
    )


def retire_all(connection: Connection, account_ids: Collection[UUID], *, now: datetime) -> None:
    """Queue the end of every open secret of some accounts, as `retire` does."""
    connection.add(
        """
        UPDATE one_time_secrets SET expires_at = LEAST(%(now)s, now())
        WHERE account_id = ANY (%(account_ids)s::uuid[]) AND used_at IS NULL
          AND expires_at > LEAST(%(now)s, now())
        """,
        {"account_ids": list(account_ids), "now": now},
    )


def forget(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of what was mailed to the address of an account that is being erased.

    What belongs to the account goes with it; this is for invitations, which belong to none.
    """
    connection.add(
        """
        DELETE FROM one_time_secrets USING accounts
        WHERE accounts.id = %(account_id)s AND one_time_secrets.email_normalized = accounts.email_normalized
          AND one_time_secrets.account_id IS DISTINCT FROM accounts.id
        """,
        {"account_id": account_id},
    )


def delete_over(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete secrets that expired before a moment; return how many. What somebody works with is skipped."""
    row = connection.fetch_one(
        """
        WITH over AS (
            SELECT id FROM one_time_secrets WHERE expires_at < %(before)s
            LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM one_time_secrets USING over WHERE one_time_secrets.id = over.id RETURNING 1
        )
        SELECT count(*) AS deleted FROM deleted
        """,
        {"before": before, "limit": limit},
    )
    return int(row["deleted"]) if row else 0


def _secret_from(row: Row) -> OneTimeSecret:
    return OneTimeSecret(
        id=row["id"],
        purpose=Purpose(row["purpose"]),
        account_id=row["account_id"],
        email=row["email"],
        email_normalized=row["email_normalized"],
        details=row["details"],
        limit_key=row["limit_key"],
        expires_at=row["expires_at"],
    )


def list_of(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return what was mailed to an account, newest first, in one round trip: for its owner's export."""
    return connection.fetch_all(
        """
        SELECT purpose, email, created_at, expires_at, used_at FROM one_time_secrets
        WHERE account_id = %(account_id)s ORDER BY id DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )

"""Passkeys: what is kept of WebAuthn credentials, and the SQL of their table."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from auth_manager.account_roles import GRANTS
from auth_manager.accounts import Account
from auth_manager.accounts.store import FACTORS, account_from
from auth_manager.database import Connection, Row
from auth_manager.errors import AuthError, PasskeyKnown, TooManyFactors
from auth_manager.factors.recovery_codes import LEFT
from auth_manager.one_time_secrets import LIVE, Purpose
from auth_manager.signing_keys import decode_base64url

MAXIMUM_PASSKEYS = 20
"""Of one account."""


@dataclass(frozen=True, slots=True)
class PasskeyKey:
    """What an assertion is verified with: a COSE key (RFC 9052), and the highest counter that was seen."""

    id: UUID
    public_key: bytes
    sign_count: int
    backup_eligible: bool


@dataclass(frozen=True, slots=True)
class Passkey:
    """A passkey as its owner sees it. `aaguid` names its model, all zeroes where that is kept private."""

    id: UUID
    name: str
    credential_id: bytes
    transports: tuple[str, ...]
    aaguid: UUID
    attestation_format: str
    backed_up: bool
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Registration:
    """A new credential that was verified."""

    credential_id: bytes
    public_key: bytes = field(repr=False)
    sign_count: int
    transports: tuple[str, ...]
    aaguid: UUID
    attestation_format: str
    user_verified: bool
    backup_eligible: bool
    backed_up: bool


@dataclass(frozen=True, slots=True)
class Assertion:
    """A signature that was right.

    `regressed`: its counter is not above the one before, which is what two copies of a key look like
    (WebAuthn section 6.1.1). `must_rise`: such a one is refused.
    """

    sign_count: int
    user_verified: bool
    backed_up: bool
    regressed: bool
    must_rise: bool


def use(
    connection: Connection, passkey_id: UUID, assertion: Assertion, *, now: datetime, otherwise: AuthError
) -> None:
    """Queue the note of a use; the stored counter never falls.

    The round trip raises `otherwise` when the passkey was removed since it was read, or when a parallel use
    left a counter that this one does not rise above and it must. The same use, sent twice, is known by its
    time. The account's row is locked first, as by whoever removes a passkey.
    """
    connection.add(
        """
        WITH account AS (
            SELECT accounts.id FROM accounts JOIN passkeys ON passkeys.account_id = accounts.id
            WHERE passkeys.id = %(id)s FOR SHARE OF accounts
        ), used AS (
            UPDATE passkeys SET sign_count = GREATEST(sign_count, %(sign_count)s),
                                backed_up = %(backed_up)s, last_used_at = %(now)s
            FROM account
            WHERE passkeys.id = %(id)s AND passkeys.account_id = account.id
              AND (NOT %(must_rise)s OR sign_count < %(sign_count)s
                   OR sign_count = 0 AND %(sign_count)s = 0
                   OR sign_count = %(sign_count)s AND last_used_at = %(now)s)
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM used), 'passkey_not_usable')
        """,
        {
            "id": passkey_id,
            "sign_count": assertion.sign_count,
            "backed_up": assertion.backed_up,
            "must_rise": assertion.must_rise,
            "now": now,
        },
        refused={"passkey_not_usable": otherwise},
    )


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a new passkey has to sign, and how many passkeys and unused recovery codes its account has."""

    value: bytes
    passkeys: int
    recovery_codes_left: int


def find_challenge(
    connection: Connection, request: UUID, account_id: UUID, *, context: str, now: datetime
) -> Challenge | None:
    """Return the open challenge of a registration that began in this context, in one round trip."""
    row = connection.fetch_one(
        f"""
        SELECT details ->> 'challenge' AS challenge, {LEFT},
               (SELECT count(*) FROM passkeys WHERE account_id = %(account_id)s) AS passkeys
        FROM one_time_secrets
        WHERE id = %(id)s AND purpose = %(purpose)s AND account_id = %(account_id)s AND {LIVE}
          AND details ->> 'context' = %(context)s
        """,  # noqa: S608 -- constants
        {
            "id": request,
            "purpose": Purpose.PASSKEY_REGISTRATION.value,
            "account_id": account_id,
            "context": context,
            "now": now,
        },
    )
    if row is None:
        return None
    return Challenge(decode_base64url(row["challenge"]), row["passkeys"], row["recovery_codes_left"])


def require_room(connection: Connection, account_id: UUID) -> None:
    """Queue the guard: the round trip raises TooManyFactors where an account has MAXIMUM_PASSKEYS."""
    connection.add(
        """
        SELECT require((SELECT count(*) FROM passkeys WHERE account_id = %(account_id)s) < %(maximum)s,
                       'too_many_passkeys')
        """,
        {"account_id": account_id, "maximum": MAXIMUM_PASSKEYS},
        refused={"too_many_passkeys": TooManyFactors()},
    )


def add(
    connection: Connection,
    passkey_id: UUID,
    registration: Registration,
    *,
    account_id: UUID,
    name: str,
    now: datetime,
) -> None:
    """Queue a new passkey; the round trip raises PasskeyKnown when any account has it.

    And TooManyFactors when it is one too many: the caller has locked the account's row, so that parallel
    ones are counted.
    """
    connection.add(
        """
        INSERT INTO passkeys (id, account_id, credential_id, public_key, sign_count, name, transports, aaguid,
                              attestation_format, user_verified, backup_eligible, backed_up, created_at)
        VALUES (%(id)s, %(account_id)s, %(credential_id)s, %(public_key)s, %(sign_count)s, %(name)s,
                %(transports)s, %(aaguid)s, %(attestation_format)s, %(user_verified)s, %(backup_eligible)s,
                %(backed_up)s, %(now)s)
        ON CONFLICT ON CONSTRAINT passkeys_pkey DO NOTHING -- sent twice, written once
        """,
        {
            "id": passkey_id,
            "account_id": account_id,
            "credential_id": registration.credential_id,
            "public_key": registration.public_key,
            "sign_count": registration.sign_count,
            "name": name,
            "transports": list(registration.transports),
            "aaguid": registration.aaguid,
            "attestation_format": registration.attestation_format,
            "user_verified": registration.user_verified,
            "backup_eligible": registration.backup_eligible,
            "backed_up": registration.backed_up,
            "now": now,
        },
        refused={"passkeys_credential_key": PasskeyKnown()},
    )
    connection.add(
        """
        SELECT require((SELECT count(*) FROM passkeys WHERE account_id = %(account_id)s) <= %(maximum)s,
                       'one_passkey_too_many')
        """,
        {"account_id": account_id, "maximum": MAXIMUM_PASSKEYS},
        refused={"one_passkey_too_many": TooManyFactors()},
    )


@dataclass(frozen=True, slots=True)
class Holder:
    """An account with its passkeys, oldest first, and the names of all its factors."""

    account: Account
    factors: tuple[str, ...]
    passkeys: tuple[Passkey, ...]


def find_holder(connection: Connection, account_id: UUID) -> Holder | None:
    """Return an account with its passkeys, in one round trip."""
    rows = connection.fetch_all(
        f"""
        SELECT accounts.*, {GRANTS}, {FACTORS}, passkeys.id AS passkey_id, passkeys.name,
               passkeys.credential_id, passkeys.transports, passkeys.aaguid, passkeys.attestation_format,
               passkeys.backed_up, passkeys.created_at AS passkey_created_at, passkeys.last_used_at
        FROM accounts LEFT JOIN passkeys ON passkeys.account_id = accounts.id
        WHERE accounts.id = %(account_id)s ORDER BY passkeys.id
        """,  # noqa: S608 -- constants
        {"account_id": account_id},
    )
    if not rows:
        return None
    return Holder(
        account=account_from(rows[0]),
        factors=tuple(rows[0]["factors"]),
        passkeys=tuple(
            _passkey_from(row, id_column="passkey_id", created_column="passkey_created_at")
            for row in rows
            if row["passkey_id"]
        ),
    )


def list_of(connection: Connection, account_id: UUID) -> list[Passkey]:
    """Return the passkeys of an account, oldest first, in one round trip."""
    rows = connection.fetch_all(
        "SELECT * FROM passkeys WHERE account_id = %(account_id)s ORDER BY id", {"account_id": account_id}
    )
    return [_passkey_from(row) for row in rows]


def list_of_ticket(connection: Connection, ticket_id: UUID) -> list[Passkey]:
    """Return the passkeys of the account that a one-time secret names, oldest first, in one round trip."""
    rows = connection.fetch_all(
        """
        SELECT passkeys.* FROM one_time_secrets JOIN passkeys USING (account_id)
        WHERE one_time_secrets.id = %(ticket_id)s ORDER BY passkeys.id
        """,
        {"ticket_id": ticket_id},
    )
    return [_passkey_from(row) for row in rows]


def find(connection: Connection, account_id: UUID, passkey_id: UUID) -> Passkey | None:
    """Return a passkey of an account, in one round trip; None when it is none of the account's."""
    row = connection.fetch_one(
        "SELECT * FROM passkeys WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": passkey_id, "account_id": account_id},
    )
    return _passkey_from(row) if row else None


def rename(connection: Connection, account_id: UUID, passkey_id: UUID, name: str) -> Passkey | None:
    """Give a passkey of an account another name, in one round trip; None when it is none of the account's."""
    row = connection.fetch_one(
        """
        UPDATE passkeys SET name = %(name)s WHERE id = %(id)s AND account_id = %(account_id)s RETURNING *
        """,
        {"id": passkey_id, "account_id": account_id, "name": name},
    )
    return _passkey_from(row) if row else None


def remove(connection: Connection, account_id: UUID, passkey_id: UUID) -> None:
    """Queue the removal of a passkey of an account."""
    connection.add(
        "DELETE FROM passkeys WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": passkey_id, "account_id": account_id},
    )


def remove_all(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of all passkeys of an account."""
    connection.add("DELETE FROM passkeys WHERE account_id = %(account_id)s", {"account_id": account_id})


def _passkey_from(row: Row, *, id_column: str = "id", created_column: str = "created_at") -> Passkey:
    return Passkey(
        id=row[id_column],
        name=row["name"],
        credential_id=bytes(row["credential_id"]),
        transports=tuple(row["transports"]),
        aaguid=row["aaguid"],
        attestation_format=row["attestation_format"],
        backed_up=row["backed_up"],
        created_at=row[created_column],
        last_used_at=row["last_used_at"],
    )

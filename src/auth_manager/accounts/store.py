"""SQL of the accounts table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg2.extras import Json

from auth_manager.account_roles import DEFAULT_ROLES, GRANT_DEFAULTS, GRANTS, ROLES, Grants, read_grants
from auth_manager.accounts import Account
from auth_manager.database import Connection, Row
from auth_manager.errors import AuthError, EmailTaken, NotFound, UsernameTaken
from auth_manager.identifiers import parse_identifier
from auth_manager.live_sessions import IMPERSONATION_STANDS, LEEWAY
from auth_manager.rate_limits import Limit, account_key
from auth_manager.tokens import AccessClaims

FACTORS = (
    "CASE WHEN accounts.factors_changed_at IS NULL THEN '{}' ELSE factors_of(accounts.id) END AS factors"
)
"""What the account can be asked for besides its first factor; most were never given one."""

_INSERT = """
    WITH account AS (
        INSERT INTO accounts (id, email, email_normalized, email_verified_at, username, username_normalized,
                              display_name, locale, attributes, password_hash, password_changed_at,
                              created_at, updated_at)
        VALUES (%(id)s, %(email)s, %(email_normalized)s, %(email_verified_at)s, %(username)s,
                %(username_normalized)s, %(display_name)s, %(locale)s, %(attributes)s, %(password_hash)s,
                %(created_at)s, %(created_at)s, %(created_at)s)
"""


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is written for a new person; the identifiers in both forms."""

    id: UUID
    email: str
    email_normalized: str
    email_verified_at: datetime | None
    username: str | None
    username_normalized: str | None
    display_name: str | None
    locale: str | None
    attributes: dict[str, Any]
    password_hash: str = field(repr=False)
    created_at: datetime

    def as_account(self, roles: Sequence[str] = ()) -> Account:
        """Return the account as it reads once inserted and granted its roles."""
        return Account(
            id=self.id,
            email=self.email,
            email_verified_at=self.email_verified_at,
            username=self.username,
            display_name=self.display_name,
            locale=self.locale,
            attributes=self.attributes,
            roles=tuple(sorted(roles)),
            disabled_at=None,
            created_at=self.created_at,
            updated_at=self.created_at,
        )


def account_from(row: Row) -> Account:
    """Read an account from a row that has every column of `accounts`, and GRANTS or ROLES."""
    grants = read_grants(row["grants"]) if "grants" in row else Grants(tuple(row["roles"]))
    return Account(
        id=row["id"],
        email=row["email"],
        email_verified_at=row["email_verified_at"],
        username=row["username"],
        display_name=row["display_name"],
        locale=row["locale"],
        attributes=row["attributes"],
        roles=grants.roles,
        disabled_at=row["disabled_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        permissions=grants.permissions,
        claims=grants.claims,
    )


def reserve_registration(
    connection: Connection, key: str, limit: Limit, now: datetime
) -> tuple[datetime | None, tuple[str, ...]]:
    """Count a registration and read the default roles, in one round trip; None, or when another may come."""
    row = connection.fetch_one(
        f"""
        SELECT retry_at, {DEFAULT_ROLES} FROM reserve_attempt(
            %(key)s, %(now)s, %(limit_maximum)s, %(limit_window)s, %(limit_free)s,
            %(limit_delay)s, %(limit_delay_maximum)s)
        """,  # noqa: S608 -- a constant
        {"key": key, "now": now, **limit.parameters("limit")},
    )
    return (row["retry_at"], tuple(row["default_roles"])) if row else (None, ())


def insert(connection: Connection, new: NewAccount) -> None:
    """Queue a new account with the default roles; the round trip raises EmailTaken or UsernameTaken.

    An account of the same id is this one, sent before by a connection that was lost: nothing to do.
    """
    connection.add(
        f"{_INSERT} ON CONFLICT ON CONSTRAINT accounts_pkey DO NOTHING RETURNING id) {GRANT_DEFAULTS}",
        _columns(new),
        refused={"accounts_email_key": EmailTaken(), "accounts_username_key": UsernameTaken()},
    )


def insert_unless_taken(connection: Connection, new: NewAccount) -> None:
    """Queue a new account that is none where an identifier is taken, at the same cost."""
    connection.add(f"{_INSERT} ON CONFLICT DO NOTHING RETURNING id) {GRANT_DEFAULTS}", _columns(new))


def _columns(new: NewAccount) -> dict[str, object]:
    return {
        "id": new.id,
        "email": new.email,
        "email_normalized": new.email_normalized,
        "email_verified_at": new.email_verified_at,
        "username": new.username,
        "username_normalized": new.username_normalized,
        "display_name": new.display_name,
        "locale": new.locale,
        "attributes": Json(new.attributes),
        "password_hash": new.password_hash,
        "created_at": new.created_at,
    }


def find_by_live_session(connection: Connection, claims: AccessClaims, now: datetime) -> Account | None:
    """Return the account of a session that lives; None when it ended or the account is disabled."""
    row = connection.fetch_one(
        f"""
        SELECT accounts.*, {ROLES} FROM sessions JOIN accounts ON accounts.id = sessions.account_id
        WHERE sessions.id = %(session_id)s AND accounts.id = %(account_id)s
          AND sessions.ended_at IS NULL AND sessions.expires_at > GREATEST(%(now)s, now())
          AND now() < %(token_expires_at)s AND accounts.disabled_at IS NULL AND {IMPERSONATION_STANDS}
        """,  # noqa: S608 -- a constant
        {
            "session_id": claims.sid,
            "account_id": claims.sub,
            "now": now,
            "token_expires_at": claims.expires_at + LEEWAY,
        },
    )
    return account_from(row) if row else None


def is_taken(connection: Connection, email_normalized: str) -> bool:
    """Tell, in one round trip, whether an account has this address."""
    return bool(
        connection.fetch_all(
            "SELECT 1 FROM accounts WHERE email_normalized = %(email)s", {"email": email_normalized}
        )
    )


def get_id(connection: Connection, identifier: str) -> UUID:
    """Return whose id, e-mail address or username this is, as an operator types it; in one round trip.

    Raises:
        NotFound: nobody's; or the id of one account, which another one took as its username.
    """
    email, username = parse_identifier(identifier)
    rows = connection.fetch_all(
        """
        SELECT id FROM accounts
        WHERE email_normalized = %(email)s OR username_normalized = %(username)s OR id = %(id)s
        """,
        {"email": email, "username": username, "id": _read_id(identifier)},
    )
    if not rows:
        raise NotFound("No account has this id, e-mail address or username.")
    if len(rows) > 1:
        raise NotFound("One account has this id and another one this username: give its e-mail address.")
    found: UUID = rows[0]["id"]
    return found


def _read_id(text: str) -> UUID | None:
    """Read an id as we write it: other spellings of a UUID may well be usernames."""
    try:
        account_id = UUID(text)
    except ValueError:
        return None
    return account_id if str(account_id) == text.lower() else None


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """What a person may change of their own profile; a field absent from `fields` stays as it is."""

    fields: frozenset[str]
    username: str | None = None
    username_normalized: str | None = None
    display_name: str | None = None
    locale: str | None = None
    attributes: dict[str, Any] | None = None


def update_profile(connection: Connection, account_id: UUID, change: ProfileChange, now: datetime) -> None:
    """Queue a change; the round trip raises UsernameTaken when another account has the new name."""
    connection.add(
        """
        UPDATE accounts SET
            username = CASE WHEN %(set_username)s THEN %(username)s ELSE username END,
            username_normalized = CASE WHEN %(set_username)s THEN %(username_normalized)s
                                       ELSE username_normalized END,
            display_name = CASE WHEN %(set_display_name)s THEN %(display_name)s ELSE display_name END,
            locale = CASE WHEN %(set_locale)s THEN %(locale)s ELSE locale END,
            attributes = CASE WHEN %(set_attributes)s THEN %(attributes)s::jsonb ELSE attributes END,
            updated_at = %(now)s
        WHERE id = %(account_id)s
        """,
        {
            "account_id": account_id,
            "set_username": "username" in change.fields,
            "username": change.username,
            "username_normalized": change.username_normalized,
            "set_display_name": "display_name" in change.fields,
            "display_name": change.display_name,
            "set_locale": "locale" in change.fields,
            "locale": change.locale,
            "set_attributes": "attributes" in change.fields,
            "attributes": Json(change.attributes or {}),
            "now": now,
        },
        refused={"accounts_username_key": UsernameTaken()},
    )


def upgrade_password_hash(
    connection: Connection, account_id: UUID, *, new_hash: str, password_changed_at: datetime
) -> None:
    """Queue a better hash of the same password, unless the password changed meanwhile."""
    connection.add(
        """
        UPDATE accounts SET password_hash = %(new_hash)s
        WHERE id = %(account_id)s AND password_changed_at = %(password_changed_at)s
        """,
        {"account_id": account_id, "new_hash": new_hash, "password_changed_at": password_changed_at},
    )


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account with what its password is checked against, and when another attempt may come (None: now)."""

    account: Account
    password_hash: str = field(repr=False)
    password_changed_at: datetime
    factors_changed_at: datetime | None
    factors: tuple[str, ...]
    failures: int = 0
    retry_at: datetime | None = None


def find_credentials(connection: Connection, account_id: UUID) -> Credentials | None:
    """Return an account and its password's hash, in one round trip."""
    row = connection.fetch_one(
        f"SELECT accounts.*, {GRANTS}, {FACTORS} FROM accounts WHERE id = %(account_id)s",  # noqa: S608 -- constants
        {"account_id": account_id},
    )
    return _credentials_from(row) if row else None


def _credentials_from(row: Row) -> Credentials:
    return Credentials(
        account=account_from(row),
        password_hash=row["password_hash"],
        password_changed_at=row["password_changed_at"],
        factors_changed_at=row["factors_changed_at"],
        factors=tuple(row["factors"]),
        failures=row.get("reserved", 0),
        retry_at=row.get("retry_at"),
    )


def reserve_attempt(
    connection: Connection, account_id: UUID, *, by_account: Limit, now: datetime
) -> Credentials | None:
    """Count an attempt at an account's secrets and read what to check it against, in one round trip."""
    row = connection.fetch_one(
        f"""
        SELECT accounts.*, {GRANTS}, {FACTORS}, reservation.reserved, reservation.retry_at
        FROM accounts CROSS JOIN LATERAL reserve_attempt(
            %(account_key)s, %(now)s, %(account_maximum)s, %(account_window)s, %(account_free)s,
            %(account_delay)s, %(account_delay_maximum)s
        ) AS reservation
        WHERE accounts.id = %(account_id)s
        """,  # noqa: S608 -- a constant
        {
            "account_id": account_id,
            "account_key": account_key(account_id),
            "now": now,
            **by_account.parameters("account"),
        },
    )
    return _credentials_from(row) if row else None


def require_enabled(
    connection: Connection, account_id: UUID, *, email_normalized: str | None = None, otherwise: AuthError
) -> None:
    """Queue the guard: the round trip raises `otherwise` unless the account is enabled, and has this address.

    Locks the row, so that what follows in the transaction finds it as it was.
    """
    connection.add(
        """
        WITH account AS (
            SELECT FROM accounts WHERE id = %(account_id)s AND disabled_at IS NULL
              AND email_normalized = COALESCE(%(email_normalized)s, email_normalized)
            FOR UPDATE
        )
        SELECT require(EXISTS (SELECT FROM account), 'account_not_as_expected')
        """,
        {"account_id": account_id, "email_normalized": email_normalized},
        refused={"account_not_as_expected": otherwise},
    )


def mark_verified(connection: Connection, account_id: UUID, email_normalized: str, now: datetime) -> None:
    """Queue the note that an address was proven, if it is still the account's."""
    connection.add(
        """
        UPDATE accounts SET email_verified_at = %(now)s, updated_at = %(now)s
        WHERE id = %(account_id)s AND email_normalized = %(email_normalized)s AND email_verified_at IS NULL
        """,
        {"account_id": account_id, "email_normalized": email_normalized, "now": now},
    )


def change_email(
    connection: Connection,
    account_id: UUID,
    *,
    email: str,
    email_normalized: str,
    now: datetime,
    verified: bool | None = True,
) -> None:
    """Queue a new address; the round trip raises EmailTaken when another account has it.

    It is proven by default. None: it is not, unless it is the address that the account had.
    """
    connection.add(
        """
        UPDATE accounts SET email = %(email)s, email_normalized = %(email_normalized)s,
            email_verified_at = CASE WHEN %(verified)s THEN %(now)s
                WHEN %(verified)s::boolean IS NULL AND email_normalized = %(email_normalized)s
                THEN email_verified_at END,
            updated_at = %(now)s
        WHERE id = %(account_id)s
        """,
        {
            "account_id": account_id,
            "email": email,
            "email_normalized": email_normalized,
            "now": now,
            "verified": verified,
        },
        refused={"accounts_email_key": EmailTaken()},
    )


def set_verified(connection: Connection, account_id: UUID, *, verified: bool, now: datetime) -> None:
    """Queue whether the address counts as proven, on an administrator's word; since when stays."""
    connection.add(
        """
        UPDATE accounts SET updated_at = %(now)s,
            email_verified_at = CASE WHEN %(verified)s THEN COALESCE(email_verified_at, %(now)s) END
        WHERE id = %(account_id)s
        """,
        {"account_id": account_id, "verified": verified, "now": now},
    )


def later(now: datetime, before: datetime) -> datetime:
    """Return the time of a change now: after the one before it also where our clock is slow."""
    return max(now, before + timedelta(microseconds=1))


def set_password_hash(connection: Connection, account_id: UUID, password_hash: str, now: datetime) -> None:
    """Queue another password, changed `later`; a login that is checking the old one right now is refused."""
    connection.add(
        """
        UPDATE accounts SET password_hash = %(password_hash)s, updated_at = %(now)s,
            password_changed_at = GREATEST(%(now)s, password_changed_at + interval '1 microsecond')
        WHERE id = %(account_id)s
        """,
        {"account_id": account_id, "password_hash": password_hash, "now": now},
    )


def lock(connection: Connection, account_id: UUID) -> None:
    """Queue the lock that whoever changes the account waits for, and other readers do not."""
    connection.add("SELECT FROM accounts WHERE id = %(account_id)s FOR SHARE", {"account_id": account_id})


def require_exists(connection: Connection, account_id: UUID, *, otherwise: AuthError) -> None:
    """Queue the guard: the round trip raises `otherwise` unless there is such an account; locks its row."""
    connection.add(
        """
        WITH account AS (SELECT FROM accounts WHERE id = %(account_id)s FOR UPDATE)
        SELECT require(EXISTS (SELECT FROM account), 'account_not_found')
        """,
        {"account_id": account_id},
        refused={"account_not_found": otherwise},
    )


def note_factor_change(connection: Connection, account_id: UUID, now: datetime) -> None:
    """Queue the note that factors changed: a sign-in that is being decided right now is decided anew."""
    connection.add(
        """
        UPDATE accounts SET updated_at = %(now)s,
            factors_changed_at = GREATEST(%(now)s, factors_changed_at + interval '1 microsecond')
        WHERE id = %(account_id)s
        """,
        {"account_id": account_id, "now": now},
    )


def require_password_unchanged(
    connection: Connection, account_id: UUID, password_changed_at: datetime, *, otherwise: AuthError
) -> None:
    """Queue the guard: the password is still the one that was checked."""
    connection.add(
        """
        WITH account AS (
            SELECT FROM accounts WHERE id = %(account_id)s AND password_changed_at = %(password_changed_at)s
            FOR UPDATE
        )
        SELECT require(EXISTS (SELECT FROM account), 'password_changed')
        """,
        {"account_id": account_id, "password_changed_at": password_changed_at},
        refused={"password_changed": otherwise},
    )


def get(connection: Connection, account_id: UUID) -> Account:
    """Return an account that what was queued before made; sends the round trip."""
    account = fetch(connection, account_id)
    if account is None:
        raise LookupError("what was inserted in this transaction is there")
    return account


def fetch(connection: Connection, account_id: UUID) -> Account | None:
    """Return an account as what was queued before leaves it; sends the round trip."""
    credentials = find_credentials(connection, account_id)
    return credentials.account if credentials else None


def note_change(connection: Connection, account_id: UUID, now: datetime) -> None:
    """Queue that what belongs to the account was changed, `later` than before."""
    connection.add(
        """
        UPDATE accounts SET updated_at = GREATEST(%(now)s, updated_at + interval '1 microsecond')
        WHERE id = %(account_id)s
        """,
        {"account_id": account_id, "now": now},
    )


def schedule_erasure(
    connection: Connection, account_id: UUID, *, erase_after: datetime, now: datetime
) -> None:
    """Queue the disabling of an account that its owner deleted, until it is erased or kept."""
    connection.add(
        """
        UPDATE accounts SET disabled_at = %(now)s, erase_after = %(erase_after)s, updated_at = %(now)s
        WHERE id = %(account_id)s
        """,
        {"account_id": account_id, "erase_after": erase_after, "now": now},
    )


def cancel_erasure(
    connection: Connection,
    account_id: UUID,
    *,
    scheduled_at: datetime,
    now: datetime,
    otherwise: AuthError,
) -> None:
    """Queue the end of an erasure; the round trip raises `otherwise` when none is scheduled since then.

    Nor when an operator disabled the account meanwhile: that is not its owner's to undo.
    """
    connection.add(
        """
        WITH kept AS (
            UPDATE accounts SET disabled_at = NULL, erase_after = NULL, updated_at = %(now)s
            WHERE id = %(account_id)s AND erase_after > %(now)s AND disabled_at = %(scheduled_at)s
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM kept), 'erasure_not_scheduled')
        """,
        {"account_id": account_id, "scheduled_at": scheduled_at, "now": now},
        refused={"erasure_not_scheduled": otherwise},
    )


def disable(connection: Connection, account_ids: Sequence[UUID], now: datetime) -> None:
    """Queue the disabling of accounts on an administrator's word.

    One whose owner deleted it is erased as it was to be, and no longer kept by its owner (`cancel_erasure`).
    """
    connection.add(
        """
        UPDATE accounts SET disabled_at = %(now)s, updated_at = %(now)s
        WHERE id = ANY (%(account_ids)s::uuid[]) AND (disabled_at IS NULL OR erase_after IS NOT NULL)
        """,
        {"account_ids": list(account_ids), "now": now},
    )


def enable(connection: Connection, account_ids: Sequence[UUID], now: datetime) -> None:
    """Queue that accounts may sign in again; what was to be erased is kept."""
    connection.add(
        """
        UPDATE accounts SET disabled_at = NULL, erase_after = NULL, updated_at = %(now)s
        WHERE id = ANY (%(account_ids)s::uuid[]) AND disabled_at IS NOT NULL
        """,
        {"account_ids": list(account_ids), "now": now},
    )


def claim_to_erase(connection: Connection, *, now: datetime, limit: int) -> list[UUID]:
    """Lock and return accounts whose time to be kept is over, in one round trip."""
    rows = connection.fetch_all(
        """
        SELECT id FROM accounts WHERE erase_after <= %(now)s
        ORDER BY erase_after LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        """,
        {"now": now, "limit": limit},
    )
    return [row["id"] for row in rows]


def delete(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of an account; its roles, sessions and refresh lines go with it."""
    connection.add("DELETE FROM accounts WHERE id = %(account_id)s", {"account_id": account_id})

"""SQL of the accounts and account_roles tables."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg2.extras import Json

from auth_manager.accounts import Account
from auth_manager.database import Connection, Row
from auth_manager.errors import EmailTaken, UsernameTaken
from auth_manager.live_sessions import LEEWAY
from auth_manager.tokens import AccessClaims

_INSERT = """
    INSERT INTO accounts (id, email, email_normalized, email_verified_at, username, username_normalized,
                          display_name, attributes, password_hash, password_changed_at,
                          created_at, updated_at)
    VALUES (%(id)s, %(email)s, %(email_normalized)s, %(email_verified_at)s, %(username)s,
            %(username_normalized)s, %(display_name)s, %(attributes)s, %(password_hash)s,
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
    attributes: dict[str, Any]
    password_hash: str = field(repr=False)
    created_at: datetime

    def as_account(self) -> Account:
        """Return the account as it reads once inserted."""
        return Account(
            id=self.id,
            email=self.email,
            email_verified_at=self.email_verified_at,
            username=self.username,
            display_name=self.display_name,
            attributes=self.attributes,
            roles=(),
            disabled_at=None,
            created_at=self.created_at,
            updated_at=self.created_at,
        )


def account_from(row: Row) -> Account:
    """Read an account from a row that has every column of `accounts` and `roles`."""
    return Account(
        id=row["id"],
        email=row["email"],
        email_verified_at=row["email_verified_at"],
        username=row["username"],
        display_name=row["display_name"],
        attributes=row["attributes"],
        roles=tuple(row["roles"]),
        disabled_at=row["disabled_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def insert(connection: Connection, new: NewAccount) -> None:
    """Queue a new account; the round trip raises EmailTaken or UsernameTaken when the database says so.

    An account of the same id is this one, sent before by a connection that was lost: nothing to do.
    """
    connection.add(
        _INSERT + "ON CONFLICT ON CONSTRAINT accounts_pkey DO NOTHING",
        _columns(new),
        refused={"accounts_email_key": EmailTaken(), "accounts_username_key": UsernameTaken()},
    )


def insert_unless_taken(connection: Connection, new: NewAccount) -> None:
    """Queue a new account that inserts nothing where an identifier is taken, at the same cost."""
    connection.add(_INSERT + "ON CONFLICT DO NOTHING", _columns(new))


def _columns(new: NewAccount) -> dict[str, object]:
    return {
        "id": new.id,
        "email": new.email,
        "email_normalized": new.email_normalized,
        "email_verified_at": new.email_verified_at,
        "username": new.username,
        "username_normalized": new.username_normalized,
        "display_name": new.display_name,
        "attributes": Json(new.attributes),
        "password_hash": new.password_hash,
        "created_at": new.created_at,
    }


def grant_role(connection: Connection, account_id: UUID, role: str, now: datetime) -> None:
    """Queue a role for an account; granting it twice changes nothing."""
    connection.add(
        """
        INSERT INTO account_roles (account_id, role, granted_at) VALUES (%(account_id)s, %(role)s, %(now)s)
        ON CONFLICT ON CONSTRAINT account_roles_pkey DO NOTHING
        """,
        {"account_id": account_id, "role": role, "now": now},
    )


def find_by_live_session(connection: Connection, claims: AccessClaims, now: datetime) -> Account | None:
    """Return the account of a session that lives; None when it ended or the account is disabled."""
    row = connection.fetch_one(
        """
        SELECT accounts.*, ARRAY(SELECT role FROM account_roles
                                 WHERE account_id = accounts.id ORDER BY role) AS roles
        FROM sessions JOIN accounts ON accounts.id = sessions.account_id
        WHERE sessions.id = %(session_id)s AND accounts.id = %(account_id)s
          AND sessions.ended_at IS NULL AND sessions.expires_at > GREATEST(%(now)s, now())
          AND now() < %(token_expires_at)s AND accounts.disabled_at IS NULL
        """,
        {
            "session_id": claims.sid,
            "account_id": claims.sub,
            "now": now,
            "token_expires_at": claims.expires_at + LEEWAY,
        },
    )
    return account_from(row) if row else None


def find_id(
    connection: Connection, *, email_normalized: str | None, username_normalized: str | None
) -> UUID | None:
    """Return whose e-mail or username this is."""
    row = connection.fetch_one(
        "SELECT id FROM accounts WHERE email_normalized = %(email)s OR username_normalized = %(username)s",
        {"email": email_normalized, "username": username_normalized},
    )
    return row["id"] if row else None


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """What a person may change of their own profile; a field absent from `fields` stays as it is."""

    fields: frozenset[str]
    username: str | None = None
    username_normalized: str | None = None
    display_name: str | None = None
    attributes: dict[str, Any] | None = None


def update_profile(
    connection: Connection, account_id: UUID, change: ProfileChange, now: datetime
) -> Account | None:
    """Apply a change and return the account, None when it is gone.

    Raises:
        UsernameTaken: by another account.
    """
    row = connection.fetch_one(
        """
        UPDATE accounts SET
            username = CASE WHEN %(set_username)s THEN %(username)s ELSE username END,
            username_normalized = CASE WHEN %(set_username)s THEN %(username_normalized)s
                                       ELSE username_normalized END,
            display_name = CASE WHEN %(set_display_name)s THEN %(display_name)s ELSE display_name END,
            attributes = CASE WHEN %(set_attributes)s THEN %(attributes)s::jsonb ELSE attributes END,
            updated_at = %(now)s
        WHERE id = %(account_id)s
        RETURNING accounts.*, ARRAY(SELECT role FROM account_roles
                                    WHERE account_id = accounts.id ORDER BY role) AS roles
        """,
        {
            "account_id": account_id,
            "set_username": "username" in change.fields,
            "username": change.username,
            "username_normalized": change.username_normalized,
            "set_display_name": "display_name" in change.fields,
            "display_name": change.display_name,
            "set_attributes": "attributes" in change.fields,
            "attributes": Json(change.attributes or {}),
            "now": now,
        },
        refused={"accounts_username_key": UsernameTaken()},
    )
    return account_from(row) if row else None


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


def delete(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of an account; its roles, sessions and refresh lines go with it."""
    connection.add("DELETE FROM accounts WHERE id = %(account_id)s", {"account_id": account_id})

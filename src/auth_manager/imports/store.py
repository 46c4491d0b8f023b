"""SQL of an import: the imports table, and one statement for a batch of accounts.

psycopg2 has no COPY under the wait callback that bounds every wait (database.py), and none is needed: a
column of a batch travels as one array literal, and `unnest` makes rows of them. Nothing is written twice, as
with a staging table.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg2 import DataError
from psycopg2.errors import ProgramLimitExceeded, StatementTooComplex, UniqueViolation

from auth_manager.database import Connection
from auth_manager.errors import PreconditionFailed
from auth_manager.imports.record import ImportedUser
from auth_manager.permissions import EVERYTHING, PERMISSIONS

_COLUMNS = (
    ("id", "uuid"),
    ("email", "text"),
    ("email_normalized", "text"),
    ("email_verified_at", "timestamptz"),
    ("username", "text"),
    ("username_normalized", "text"),
    ("display_name", "text"),
    ("locale", "text"),
    ("attributes", "jsonb"),
    ("password_hash", "text"),
    ("disabled_at", "timestamptz"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
)
_NAMES = ", ".join(name for name, _ in _COLUMNS)
_ARRAYS = ", ".join(f"%({name})s::text[]" for name, _ in _COLUMNS)
_TYPED = ", ".join(name if kind == "text" else f"{name}::{kind}" for name, kind in _COLUMNS)

_NULL = "\udfff"
"""Stands for NULL: half of a surrogate pair, which no text that can be stored has."""


NOT_STORABLE = (DataError, ProgramLimitExceeded, StatementTooComplex)
"""What PostgreSQL says of a value, and will say of it again."""

MOVED_ON = "Another process is importing this file."
"""The detail of PreconditionFailed here."""


@dataclass(frozen=True, slots=True)
class Import:
    """A run over a file, as far as it was committed; `refused` counts records by the code of the reason."""

    id: UUID
    position: int
    created: int
    refused: Mapping[str, int]
    rejects_size: int


def begin(
    connection: Connection,
    *,
    import_id: UUID,
    source: str,
    file_digest: bytes,
    file_size: int,
    operator: str | None,
    now: datetime,
) -> Import:
    """Return the unfinished run over this file, or a new one, in one round trip."""
    connection.add(
        """
        INSERT INTO imports (id, source, file_digest, file_size, operator, started_at, updated_at)
        VALUES (%(id)s, %(source)s, %(digest)s, %(size)s, %(operator)s, %(now)s, %(now)s)
        ON CONFLICT DO NOTHING
        """,
        {
            "id": import_id,
            "source": source,
            "digest": file_digest,
            "size": file_size,
            "operator": operator,
            "now": now,
        },
    )
    row = connection.fetch_one(
        """
        SELECT id, position, created, refused, rejects_size FROM imports
        WHERE source = %(source)s AND file_digest = %(digest)s AND finished_at IS NULL
        """,
        {"source": source, "digest": file_digest},
    )
    if row is None:  # another process finished it in the same moment
        raise PreconditionFailed(MOVED_ON)
    return Import(**row)


def allow_long_statements(connection: Connection) -> None:
    """Queue longer time-outs, for this transaction: a batch is no request that somebody waits for."""
    connection.add("SET LOCAL statement_timeout = '50s'; SET LOCAL lock_timeout = '20s'")


class IdentifiersTaken(Exception):
    """Somebody has an e-mail address, a username or an id of these accounts; none was inserted."""


def insert_accounts(connection: Connection, users: Sequence[ImportedUser]) -> None:
    """Insert accounts in one round trip, all or none: nearly as fast as COPY.

    Raises:
        IdentifiersTaken: the transaction is over, and nothing of it was kept.
    """
    try:
        connection.fetch_all(
            f"""
            INSERT INTO accounts ({_NAMES}, password_changed_at)
            SELECT {_TYPED}, created_at::timestamptz FROM unnest({_ARRAYS}) AS given ({_NAMES})
            """,  # noqa: S608 -- constants
            _arrays(users),
        )
    except UniqueViolation:
        raise IdentifiersTaken from None


def insert_free_accounts(connection: Connection, users: Sequence[ImportedUser]) -> frozenset[UUID]:
    """Insert the accounts whose identifiers are free, in one round trip; return the ids of the others.

    Of two with the same identifier the first one is inserted. Takes about twice as long as `insert_accounts`.
    """
    row = connection.fetch_one(
        f"""
        WITH given AS MATERIALIZED (
            SELECT {_TYPED} FROM unnest({_ARRAYS}) AS given ({_NAMES})
        ), inserted AS (
            INSERT INTO accounts ({_NAMES}, password_changed_at)
            SELECT {_NAMES}, created_at FROM given
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        SELECT ARRAY(SELECT id FROM given EXCEPT SELECT id FROM inserted) AS taken
        """,  # noqa: S608 -- constants
        _arrays(users),
    )
    return frozenset(row["taken"]) if row else frozenset()


def _arrays(users: Sequence[ImportedUser]) -> dict[str, str]:
    columns = zip(*users, strict=True)
    return {name: _array(values) for (name, _), values in zip(_COLUMNS, columns, strict=False)}


def _array(values: Sequence[str | None]) -> str:
    """Return an array literal (PostgreSQL documentation, "Array Value Input"); no value has a NUL."""
    joined = "\0".join([_NULL if value is None else value for value in values])
    quoted = joined.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{quoted}"}}'.replace(f'"{_NULL}"', "NULL")


@dataclass(frozen=True, slots=True)
class Taken:
    """Which of a user's identifiers other accounts have."""

    emails: frozenset[str]
    usernames: frozenset[str]
    ids: frozenset[UUID]


def find_taken(connection: Connection, users: Sequence[ImportedUser]) -> Taken:
    """Return what of these users is in the database, in one round trip."""
    row = connection.fetch_one(
        """
        SELECT ARRAY(SELECT email_normalized FROM accounts
                     WHERE email_normalized = ANY (%(emails)s::text[])) AS emails,
               ARRAY(SELECT username_normalized FROM accounts
                     WHERE username_normalized = ANY (%(usernames)s::text[])) AS usernames,
               ARRAY(SELECT id FROM accounts WHERE id = ANY (%(ids)s::uuid[])) AS ids
        """,
        {
            "emails": _array([user.email_normalized for user in users]),
            "usernames": _array([user.username_normalized for user in users]),
            "ids": _array([user.id for user in users]),
        },
    )
    if row is None:
        raise LookupError("a select without FROM returns one row")
    return Taken(frozenset(row["emails"]), frozenset(row["usernames"]), frozenset(row["ids"]))


class Role(NamedTuple):
    """A role that exists; `administers` says that it has a permission of ours."""

    name: str
    administers: bool
    is_default: bool


def list_roles(connection: Connection) -> list[Role]:
    """Return all roles, in one round trip."""
    rows = connection.fetch_all(
        "SELECT name, permissions && %(ours)s::text[] AS administers, is_default FROM roles",
        {"ours": [EVERYTHING, *PERMISSIONS]},
    )
    return [Role(**row) for row in rows]


def create_roles(connection: Connection, names: Sequence[str], now: datetime) -> None:
    """Queue roles without permissions, those that do not exist."""
    connection.add(
        """
        INSERT INTO roles (name, created_at, updated_at)
        SELECT name, %(now)s, %(now)s FROM unnest(%(names)s::text[]) AS name
        ON CONFLICT ON CONSTRAINT roles_pkey DO NOTHING
        """,
        {"names": _array(names), "now": now},
    )


def define_roles(connection: Connection, roles: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Queue roles as an export describes them; one that exists stays as it is."""
    connection.add(
        """
        INSERT INTO roles (name, description, permissions, claims, is_default, created_at, updated_at)
        SELECT name, COALESCE(description, ''), COALESCE(permissions, '{}'), COALESCE(claims, '{}'),
               COALESCE(is_default, false), %(now)s, %(now)s
        FROM jsonb_to_recordset(%(roles)s::jsonb)
             AS given (name text, description text, permissions text[], claims jsonb, is_default boolean)
        ON CONFLICT ON CONSTRAINT roles_pkey DO NOTHING
        """,
        {"roles": json.dumps(list(roles)), "now": now},
    )


def grant_roles(connection: Connection, grants: Sequence[tuple[str, str]], now: datetime) -> None:
    """Queue roles for accounts, as pairs of account and role; a role that was deleted meanwhile is none."""
    accounts, roles = zip(*grants, strict=True)
    connection.add(
        """
        INSERT INTO account_roles (account_id, role, granted_at)
        SELECT account_id::uuid, name, %(now)s
        FROM unnest(%(accounts)s::text[], %(roles)s::text[]) AS given (account_id, role)
        JOIN roles ON roles.name = given.role
        """,
        {"accounts": _array(accounts), "roles": _array(roles), "now": now},
    )


def grant_default_roles(connection: Connection, account_ids: Sequence[str], now: datetime) -> None:
    """Queue the roles that every new account gets."""
    connection.add(
        """
        INSERT INTO account_roles (account_id, role, granted_at)
        SELECT account_id::uuid, name, %(now)s
        FROM unnest(%(accounts)s::text[]) AS account_id CROSS JOIN roles WHERE roles.is_default
        """,
        {"accounts": _array(account_ids), "now": now},
    )


def add_factors(
    connection: Connection,
    *,
    totp: Sequence[Mapping[str, Any]],
    passkeys: Sequence[Mapping[str, Any]],
    recovery_codes: Sequence[Mapping[str, Any]],
) -> None:
    """Queue factors, each with its `account_id`; bytes in hex. A passkey that is known is passed over."""
    connection.add(
        """
        INSERT INTO totp_factors (id, account_id, sealed_secret, created_at, confirmed_at, last_step)
        SELECT account_id, account_id, decode(sealed_secret, 'hex'), confirmed_at, confirmed_at,
               COALESCE(last_step, 0)
        FROM jsonb_to_recordset(%(totp)s::jsonb)
             AS given (account_id uuid, sealed_secret text, confirmed_at timestamptz, last_step bigint);
        INSERT INTO passkeys (id, account_id, credential_id, public_key, sign_count, name, transports, aaguid,
                              attestation_format, user_verified, backup_eligible, backed_up, created_at,
                              last_used_at)
        SELECT id, account_id, decode(credential_id, 'hex'), decode(public_key, 'hex'), sign_count, name,
               transports, aaguid, attestation_format, user_verified, backup_eligible, backed_up, created_at,
               last_used_at
        FROM jsonb_to_recordset(%(passkeys)s::jsonb)
             AS given (id uuid, account_id uuid, credential_id text, public_key text, sign_count bigint,
                       name text, transports text[], aaguid uuid, attestation_format text,
                       user_verified boolean, backup_eligible boolean, backed_up boolean,
                       created_at timestamptz, last_used_at timestamptz)
        ON CONFLICT DO NOTHING;
        INSERT INTO recovery_codes (account_id, code_hash, salt, created_at)
        SELECT account_id, decode(code_hash, 'hex'), decode(salt, 'hex'), created_at
        FROM jsonb_to_recordset(%(recovery_codes)s::jsonb)
             AS given (account_id uuid, code_hash text, salt text, created_at timestamptz)
        ON CONFLICT DO NOTHING;
        UPDATE accounts SET factors_changed_at = created_at
        WHERE id IN (SELECT (given ->> 'account_id')::uuid
                     FROM jsonb_array_elements(%(totp)s::jsonb || %(passkeys)s::jsonb) AS given)
        """,
        {
            "totp": json.dumps(list(totp)),
            "passkeys": json.dumps(list(passkeys)),
            "recovery_codes": json.dumps(list(recovery_codes)),
        },
    )


def advance(connection: Connection, before: Import, after: Import, now: datetime) -> None:
    """Queue the new position; the round trip raises PreconditionFailed where somebody else moved it."""
    connection.add(
        """
        WITH moved AS (
            UPDATE imports SET position = %(position)s, created = %(created)s, refused = %(refused)s::jsonb,
                               rejects_size = %(rejects_size)s, updated_at = %(now)s
            WHERE id = %(id)s AND position = %(before)s AND finished_at IS NULL
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM moved), 'import_not_where_it_was')
        """,
        {
            "id": before.id,
            "before": before.position,
            "position": after.position,
            "created": after.created,
            "refused": json.dumps(dict(after.refused)),
            "rejects_size": after.rejects_size,
            "now": now,
        },
        refused={"import_not_where_it_was": PreconditionFailed(MOVED_ON)},
    )


def finish(connection: Connection, import_id: UUID, now: datetime) -> None:
    """Queue the note that the file was read to its end."""
    connection.add(
        """
        UPDATE imports SET finished_at = %(now)s, updated_at = %(now)s
        WHERE id = %(id)s AND finished_at IS NULL
        """,
        {"id": import_id, "now": now},
    )

"""SQL of an export: every account as one snapshot has it, in batches of a cursor."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from auth_manager.database import Connection, Database, Row

BATCH = 2000
"""Accounts in memory at once."""

_DEADLINE = 86_400.0
"""Seconds; an export takes as long as it takes, and its reader may be slow."""


def _base64url(column: str) -> str:
    """Return SQL for base64url without padding (RFC 4648 section 5)."""
    return f"translate(encode({column}, 'base64'), E'+/=\\n', '-_')"


# Built by PostgreSQL, so that attributes come out as they are stored: no number changes on its way through a
# float. What waits to be confirmed, or was used up, is no factor.
_USERS = f"""
SELECT
    (SELECT row_to_json(member) FROM (SELECT
        a.id, a.email, a.email_verified_at, a.username, a.display_name, a.locale, a.attributes,
        ARRAY(SELECT role FROM account_roles WHERE account_id = a.id ORDER BY role) AS roles,
        a.disabled_at, a.created_at, a.updated_at, a.password_hash
    ) AS member)::text AS line,
    a.id,
    totp.sealed_secret, totp.confirmed_at, totp.last_step,
    (SELECT json_agg(row_to_json(p)) FROM (
        SELECT id, {_base64url("credential_id")} AS credential_id,
               {_base64url("public_key")} AS public_key, sign_count, name, transports, aaguid,
               attestation_format, user_verified, backup_eligible, backed_up, created_at, last_used_at
        FROM passkeys WHERE account_id = a.id ORDER BY id
    ) AS p) AS passkeys,
    (SELECT json_agg(row_to_json(r)) FROM (
        SELECT {_base64url("code_hash")} AS code_hash, {_base64url("salt")} AS salt, created_at
        FROM recovery_codes WHERE account_id = a.id AND used_at IS NULL ORDER BY code_hash
    ) AS r) AS recovery_codes
FROM accounts AS a
LEFT JOIN totp_factors AS totp ON totp.account_id = a.id AND totp.confirmed_at IS NOT NULL
ORDER BY a.id
"""  # noqa: S608 -- constants


@contextmanager
def snapshot(url: str) -> Generator[Connection]:
    """See the database as it is now, until the end of the block, and change nothing.

    Raises:
        DatabaseUnavailable: the database did not answer.
    """
    database = Database(url, connect_timeout=10, deadline=_DEADLINE, session_options=False)
    try:
        with database.transaction() as connection:
            connection.add("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.add("SET LOCAL search_path = auth_manager; SET LOCAL timezone = 'UTC'")
            connection.add(
                "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
            )
            yield connection
    finally:
        database.close()


def count_accounts(connection: Connection) -> int:
    """Return how many accounts the snapshot has."""
    rows = connection.fetch_all("SELECT count(*) AS count FROM accounts")
    count: int = rows[0]["count"]
    return count


def list_roles(connection: Connection) -> list[dict[str, Any]]:
    """Return what each role that is not built in means."""
    return connection.fetch_all(
        """
        SELECT name, description, permissions, claims, is_default FROM roles
        WHERE NOT is_built_in ORDER BY name
        """
    )


def each_account(connection: Connection) -> Iterator[Row]:
    """Yield every account by its id: its `line` without factors, and these."""
    connection.add(f"DECLARE users NO SCROLL CURSOR FOR {_USERS}")
    while rows := connection.fetch_all(f"FETCH {BATCH} FROM users"):
        yield from rows

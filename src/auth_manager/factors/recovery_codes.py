"""Recovery codes: they stand in for a factor that was lost, each once. And the SQL of their table.

A code has 50 random bits: fewer than the 112 from which a plain hash would do, so it is hashed like a
password (ASVS 6.5.2). Codes that were made together share a salt: one hash tells which was presented.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from auth_manager.database import Connection, Row
from auth_manager.errors import DatabaseUnavailable, InvalidFactor
from auth_manager.passwords import Passwords

COUNT = 10
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: what it leaves out is read as what it looks like."""

_LENGTH = 10
_LOOKALIKES = str.maketrans("OIL", "011", "- ")
_CODE = re.compile(f"[{_ALPHABET}]{{{_LENGTH}}}")
_SALT_BYTES = 16

# Not the settings of passwords: with other parameters a code has another hash, and would be lost.
_MEMORY_KIB = 19_456
_TIME_COST = 2
_PARALLELISM = 1

LEFT = """(
    SELECT count(*) FROM recovery_codes WHERE account_id = %(account_id)s AND used_at IS NULL
) AS recovery_codes_left"""
"""SQL: how many an account has that were not used. With `%(account_id)s`."""


@dataclass(frozen=True, slots=True)
class HashedCodes:
    """What is stored of codes that were made together."""

    salt: bytes = field(repr=False)
    hashes: tuple[bytes, ...] = field(repr=False)


def generate() -> list[str]:
    """Return COUNT codes, as `x7k2m-9q4td`."""
    return [f"{_group()}-{_group()}" for _ in range(COUNT)]


def hash_codes(passwords: Passwords, codes: Iterable[str]) -> HashedCodes:
    """Return what is to be stored of new codes, at the cost of a password's hash each."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return HashedCodes(salt, tuple(_hash(passwords, _normalise(code), salt) for code in codes))


def hash_code(passwords: Passwords, code: str, salt: bytes) -> bytes | None:
    """Return the hash of a code, however it was typed; None, at no cost, for what can be none."""
    normalised = _normalise(code)
    return _hash(passwords, normalised, salt) if _CODE.fullmatch(normalised) else None


def replace(connection: Connection, account_id: UUID, made: HashedCodes, *, now: datetime) -> None:
    """Queue new codes for an account in place of all that it has. Sent twice, they are written once."""
    _lock_account(connection, account_id)
    connection.add(
        "DELETE FROM recovery_codes WHERE account_id = %(account_id)s AND salt <> %(salt)s",
        {"account_id": account_id, "salt": made.salt},
    )
    connection.add(
        """
        INSERT INTO recovery_codes (account_id, code_hash, salt, created_at)
        SELECT %(account_id)s, code_hash, %(salt)s, %(now)s FROM unnest(%(hashes)s::bytea[]) AS code_hash
        ON CONFLICT ON CONSTRAINT recovery_codes_pkey DO NOTHING
        """,
        {"account_id": account_id, "salt": made.salt, "hashes": list(made.hashes), "now": now},
    )


def add_first(connection: Connection, account_id: UUID, made: HashedCodes, *, now: datetime) -> None:
    """Queue codes for an account that was seen to have none left; otherwise as `replace`.

    Where two first factors are set up at once, and both bring codes, the round trip of the second raises
    DatabaseUnavailable, like any transaction that another one came before: it succeeds when it is repeated.
    """
    _lock_account(connection, account_id)
    connection.add(
        """
        SELECT require(NOT EXISTS (
            SELECT FROM recovery_codes
            WHERE account_id = %(account_id)s AND used_at IS NULL AND salt <> %(salt)s
        ), 'recovery_codes_made_meanwhile')
        """,
        {"account_id": account_id, "salt": made.salt},
        refused={"recovery_codes_made_meanwhile": DatabaseUnavailable()},
    )
    replace(connection, account_id, made, now=now)


def use(connection: Connection, *, account_id: UUID, code_hash: bytes, use_id: UUID, now: datetime) -> None:
    """Queue the use of a code: the round trip raises InvalidFactor unless it is one, and this is the first.

    Parallel uses queue at the row and re-read it: exactly one gets through. The same use, sent twice over a
    lost connection, is one use.
    """
    connection.add(
        """
        WITH used AS (
            UPDATE recovery_codes SET used_at = %(now)s, used_by = %(use_id)s
            WHERE account_id = %(account_id)s AND code_hash = %(code_hash)s
              AND (used_at IS NULL OR used_by = %(use_id)s)
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM used), 'recovery_code_used')
        """,
        {"account_id": account_id, "code_hash": code_hash, "use_id": use_id, "now": now},
        refused={"recovery_code_used": InvalidFactor()},
    )


def remove_all(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of an account's codes, the used ones too."""
    connection.add("DELETE FROM recovery_codes WHERE account_id = %(account_id)s", {"account_id": account_id})


def list_of(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return when each code of an account was made and used, in one round trip: for its owner's export."""
    return connection.fetch_all(
        """
        SELECT created_at, used_at FROM recovery_codes
        WHERE account_id = %(account_id)s ORDER BY created_at DESC, used_at LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )


def _group() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH // 2)).lower()


def _normalise(code: str) -> str:
    return code.upper().translate(_LOOKALIKES)


def _hash(passwords: Passwords, normalised: str, salt: bytes) -> bytes:
    return passwords.hash_with_salt(
        normalised.encode(), salt, memory_kib=_MEMORY_KIB, time_cost=_TIME_COST, parallelism=_PARALLELISM
    )


def _lock_account(connection: Connection, account_id: UUID) -> None:
    """Queue the lock without which two sets of codes could be written at once; one alone can be found."""
    connection.add("SELECT FROM accounts WHERE id = %(account_id)s FOR UPDATE", {"account_id": account_id})

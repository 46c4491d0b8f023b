"""SQL that reads accounts as administrators see them; what changes them is in accounts/store.py."""

import unicodedata
from collections.abc import Sequence
from uuid import UUID

from auth_manager.account_roles import ROLES
from auth_manager.accounts.store import FACTORS, account_from
from auth_manager.database import Connection, Row
from auth_manager.directory import Entry, Filter
from auth_manager.errors import FieldError, InvalidFields, PreconditionFailed
from auth_manager.proofs import parse_email
from auth_manager.rate_limits import account_key_prefix, factor_key_prefix
from auth_manager.settings import Settings

MATCHES = """
    (%(ids)s::uuid[] IS NULL OR accounts.id = ANY (%(ids)s::uuid[]))
    AND (%(email)s::text IS NULL OR email_normalized = %(email)s)
    AND (%(email_pattern)s::text IS NULL OR email_normalized LIKE %(email_pattern)s
         OR username_normalized LIKE %(username_pattern)s)
    AND (%(role)s::text IS NULL
         OR accounts.id IN (SELECT account_id FROM account_roles WHERE role = %(role)s))
    AND CASE %(status)s::text WHEN 'active' THEN disabled_at IS NULL
                              WHEN 'disabled' THEN disabled_at IS NOT NULL
                              WHEN 'unverified' THEN email_verified_at IS NULL
                              ELSE true END
    AND (%(status)s::text IS DISTINCT FROM 'locked' OR accounts.id IN (
        SELECT split_part(key, ':', 3)::uuid FROM rate_limits
        WHERE count >= %(lock)s AND (key LIKE %(account_keys)s OR key LIKE %(factor_keys)s)))
"""
"""SQL: whether an account is one of a filter's. With `parameters_of`, whose values the planner sees: what is
not asked for costs nothing."""

_ENTRIES = f"""
    SELECT entry.*, left(encode(sha256(convert_to(jsonb_build_array(
        id, email, username, display_name, locale, attributes, roles, factors,
        extract(epoch FROM email_verified_at), extract(epoch FROM disabled_at),
        extract(epoch FROM erase_after), extract(epoch FROM updated_at))::text, 'UTF8')), 'hex'), 32) AS tag
    FROM (SELECT accounts.*, {ROLES}, {FACTORS} FROM accounts) AS entry
"""  # noqa: S608 -- constants
"""SQL: entries with their tags; a WHERE on `id` follows."""

_ENTRY = f"{_ENTRIES} WHERE id = %(account_id)s"


def parameters_of(wanted: Filter, settings: Settings) -> dict[str, object]:
    """Return what MATCHES is asked with.

    Raises:
        InvalidFields: `email` is no address, or there is a NUL, which PostgreSQL cannot take.
    """
    for pointer, text in (("?prefix", wanted.prefix), ("?role", wanted.role)):
        if "\0" in (text or ""):
            raise InvalidFields(errors=[FieldError(pointer, "nul_character", "A string contains NUL.")])
    return {
        "ids": None if wanted.ids is None else list(wanted.ids),
        "email": None if wanted.email is None else parse_email(wanted.email),
        "email_pattern": None if wanted.prefix is None else _beginning_with(wanted.prefix.lower()),
        "username_pattern": None if wanted.prefix is None else _beginning_with(_fold(wanted.prefix)),
        "role": wanted.role,
        "status": wanted.status,
        "lock": settings.login_failures_before_lock,
        "account_keys": _beginning_with(account_key_prefix()),
        "factor_keys": _beginning_with(factor_key_prefix()),
    }


def _beginning_with(prefix: str) -> str:
    """Return the LIKE pattern; what would be a wildcard is itself."""
    return prefix.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_") + "%"


def _fold(prefix: str) -> str:
    """Fold as identifiers.normalize_username does, without its rules for a whole name."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prefix).casefold())


def list_matching(
    connection: Connection, settings: Settings, wanted: Filter, *, before: UUID | None, limit: int
) -> list[Entry]:
    """Return entries, newest first, those older than account `before`; in one round trip.

    Raises:
        InvalidFields: as for `parameters_of`.
    """
    rows = connection.fetch_all(
        f"""
        {_ENTRIES} WHERE id = ANY (ARRAY(
            SELECT id FROM accounts
            WHERE (%(before)s::uuid IS NULL OR id < %(before)s::uuid) AND {MATCHES}
            ORDER BY id DESC LIMIT %(limit)s
        )) ORDER BY id DESC
        """,  # noqa: S608 -- constants
        {**parameters_of(wanted, settings), "before": before, "limit": limit},
    )
    return [_entry_from(row) for row in rows]


def find(connection: Connection, account_id: UUID) -> Entry | None:
    """Return an entry as what was queued before leaves it; sends the round trip."""
    row = connection.fetch_one(_ENTRY, {"account_id": account_id})
    return _entry_from(row) if row else None


def require_tag(connection: Connection, account_id: UUID, tags: Sequence[str]) -> None:
    """Queue the guard: the round trip raises PreconditionFailed unless one of these is the entry's tag.

    The account's row is to be locked before, in a statement of its own: this one then sees what whoever held
    the lock left.
    """
    connection.add(
        f"SELECT require((SELECT tag FROM ({_ENTRY}) AS current) = ANY (%(tags)s), 'changed_since')",  # noqa: S608 -- a constant
        {"account_id": account_id, "tags": list(tags)},
        refused={"changed_since": PreconditionFailed()},
    )


def _entry_from(row: Row) -> Entry:
    return Entry(
        account=account_from(row),
        factors=tuple(row["factors"]),
        erase_after=row["erase_after"],
        tag=row["tag"],
    )

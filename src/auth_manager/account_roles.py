"""SQL of the account_roles table: who has which role, and what the roles give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from auth_manager.database import Connection
from auth_manager.errors import FieldError, Forbidden, InvalidFields

MAXIMUM = 50
"""Roles of one account, besides those that every new one has."""

ROLES = "ARRAY(SELECT role FROM account_roles WHERE account_id = accounts.id ORDER BY role) AS roles"
"""The names alone, for who only shows an account."""

GRANTS = "grants_of(accounts.id) AS grants"
"""The roles with what they give, for who signs a token; `read_grants` reads it."""

GRANT_DEFAULTS = """
    INSERT INTO account_roles (account_id, role, granted_at)
    SELECT account.id, roles.name, %(created_at)s FROM account CROSS JOIN roles
    WHERE roles.is_default FOR KEY SHARE OF roles -- one that is deleted right now is not given
"""
"""The rest of a statement that begins `WITH account AS (INSERT ... RETURNING id)`."""

DEFAULT_ROLES = "ARRAY(SELECT name FROM roles WHERE is_default ORDER BY name) AS default_roles"
"""What GRANT_DEFAULTS gives now."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What the roles of an account give; `claims` for its access tokens."""

    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)


def read_grants(grants: Sequence[tuple[str, Sequence[str], Mapping[str, Any]]] | None) -> Grants:
    """Join the roles of a column GRANTS, None without any; of a claim that two give, the first counts."""
    if not grants:
        return Grants()
    claims: dict[str, Any] = {}
    for _, _, given in reversed(grants):
        claims |= given
    return Grants(
        roles=tuple(name for name, _, _ in grants),
        permissions=tuple(sorted({permission for _, given, _ in grants for permission in given})),
        claims=claims,
    )


def unknown_role() -> InvalidFields:
    """Return the error for a role that does not exist."""
    error = FieldError("/roles", "role_unknown", "There is no such role.")
    return InvalidFields("There is no such role.", errors=[error])


def require_known(connection: Connection, roles: Sequence[str]) -> None:
    """Queue the guard: the round trip raises InvalidFields unless there are such roles."""
    connection.add(
        """
        SELECT require(NOT EXISTS (
            SELECT FROM unnest(%(roles)s::text[]) AS role WHERE role NOT IN (SELECT name FROM roles)
        ), 'role_unknown')
        """,
        {"roles": list(roles)},
        refused={"role_unknown": unknown_role()},
    )


def require_roles_permitted(connection: Connection, actor_id: UUID, roles: Sequence[str]) -> None:
    """Queue the guard: the round trip raises Forbidden if a role gives a permission that the actor lacks."""
    connection.add(
        """
        SELECT require(NOT EXISTS (
            SELECT FROM roles WHERE name = ANY (%(roles)s::text[])
              AND NOT permits(permissions_of(%(actor_id)s), permissions)
        ), 'role_above')
        """,
        {"actor_id": actor_id, "roles": list(roles)},
        refused={"role_above": Forbidden("A role gives what you may not do yourself.")},
    )


def grant(connection: Connection, account_ids: Sequence[UUID], roles: Sequence[str], now: datetime) -> None:
    """Queue roles for accounts, which are locked; granting one twice changes nothing.

    The round trip raises InvalidFields when a role does not exist, or an account would have over MAXIMUM.
    """
    if not roles:
        return
    connection.add(
        """
        INSERT INTO account_roles (account_id, role, granted_at)
        SELECT account_id, role, %(now)s
        FROM unnest(%(account_ids)s::uuid[]) AS account_id CROSS JOIN unnest(%(roles)s::text[]) AS role
        ON CONFLICT ON CONSTRAINT account_roles_pkey DO NOTHING
        """,
        {"account_ids": list(account_ids), "roles": list(roles), "now": now},
        refused={
            "account_roles_role_fkey": unknown_role(),
            "account_roles_role_name": unknown_role(),
        },
    )
    connection.add(
        """
        SELECT require(NOT EXISTS (
            SELECT FROM account_roles JOIN roles ON roles.name = account_roles.role
            WHERE account_id = ANY (%(account_ids)s::uuid[]) AND NOT roles.is_default
            GROUP BY account_id HAVING count(*) > %(maximum)s
        ), 'too_many_roles')
        """,
        {"account_ids": list(account_ids), "maximum": MAXIMUM},
        refused={
            "too_many_roles": InvalidFields(
                errors=[FieldError("/roles", "too_many_roles", f"At most {MAXIMUM} of an account.")]
            )
        },
    )


def grant_invited(
    connection: Connection, account_id: UUID, roles: Sequence[str], *, inviter_id: UUID | None, now: datetime
) -> None:
    """Queue the roles of an invitation: those that still exist, and that its inviter could still give.

    Who is disabled gives none. `inviter_id` is None where an operator invited, who may give every role.
    """
    connection.add(
        """
        INSERT INTO account_roles (account_id, role, granted_at)
        SELECT %(account_id)s, name, %(now)s FROM roles
        WHERE name = ANY (%(roles)s::text[])
          AND (%(inviter_id)s::uuid IS NULL OR (
              EXISTS (SELECT FROM accounts WHERE id = %(inviter_id)s::uuid AND disabled_at IS NULL)
              AND permits(permissions_of(%(inviter_id)s::uuid), permissions || '{invitations:write}')))
        FOR KEY SHARE
        ON CONFLICT ON CONSTRAINT account_roles_pkey DO NOTHING
        """,
        {"account_id": account_id, "roles": list(roles), "inviter_id": inviter_id, "now": now},
    )


def revoke(connection: Connection, account_ids: Sequence[UUID], roles: Sequence[str]) -> None:
    """Queue the end of roles for accounts; `permissions.keep_an_administrator` goes before it."""
    connection.add(
        """
        DELETE FROM account_roles
        WHERE account_id = ANY (%(account_ids)s::uuid[]) AND role = ANY (%(roles)s::text[])
        """,
        {"account_ids": list(account_ids), "roles": list(roles)},
    )

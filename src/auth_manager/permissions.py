"""What administrators may do: guards that travel with the statements they protect (ASVS 8.3.2).

A permission is a string, ours below or a customer's own. An account holds those of its roles, `*` stands for
every one but `users:impersonate`, which is held by name or not at all; the rule is `permits` in
migrations/0007_roles.sql.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import AuthError, Forbidden, LastAdministrator
from auth_manager.live_sessions import require_live_session, require_step_up
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims

ADMIN = "admin"
"""The built-in role."""

EVERYTHING = "*"

PERMISSIONS = (
    "users:read",
    "users:write",
    "users:delete",
    "users:impersonate",
    "roles:read",
    "roles:write",
    "audit:read",
    "invitations:write",
    "webhooks:read",
    "webhooks:write",
)
"""Ours: what our own API asks for."""

_OURS = frozenset(PERMISSIONS)


def administers(permissions: Collection[str]) -> bool:
    """Tell whether who holds these permissions may use any of our own: AUTH_MFA_POLICY asks more of them."""
    return EVERYTHING in permissions or not _OURS.isdisjoint(permissions)


def require_administrator(
    resources: Resources, connection: Connection, origin: Origin, claims: AccessClaims, permission: str
) -> None:
    """Queue the guards of every administrative act: a live session, the permission, how it was authenticated.

    Raises:
        Forbidden: the token is one of an impersonation; at once. The permission is not held: with the trip.
        RecentAuthenticationRequired, SessionEnded: as for `require_step_up`.
    """
    require_live_session(connection, claims, origin.now)
    require_permission(connection, claims.sub, permission)
    require_step_up(connection, claims, origin.now, maximum_age=resources.settings.recent_authentication)


def require_permission(
    connection: Connection, account_id: UUID, permission: str, *, otherwise: AuthError | None = None
) -> None:
    """Queue the guard: the round trip raises `otherwise` (Forbidden) unless the account has it."""
    require_permissions(connection, account_id, [permission], otherwise=otherwise)


def require_permissions(
    connection: Connection,
    account_id: UUID,
    permissions: Sequence[str],
    *,
    otherwise: AuthError | None = None,
) -> None:
    """Queue the guard: the round trip raises `otherwise` (Forbidden) unless the account has all of these."""
    connection.add(
        """
        SELECT require(permits(permissions_of(%(account_id)s), %(permissions)s::text[]), 'permission_missing')
        """,
        {"account_id": account_id, "permissions": list(permissions)},
        refused={"permission_missing": otherwise or Forbidden()},
    )


def require_not_above(connection: Connection, actor_id: UUID, account_ids: Sequence[UUID]) -> None:
    """Queue the guard: the round trip raises Forbidden if an account holds a permission the actor lacks.

    Without it, who may change accounts could take over an administrator's.
    """
    connection.add(
        """
        SELECT require(NOT EXISTS (
            SELECT FROM unnest(%(account_ids)s::uuid[]) AS account_id
            WHERE NOT permits(permissions_of(%(actor_id)s), permissions_of(account_id))
        ), 'account_above')
        """,
        {"actor_id": actor_id, "account_ids": list(account_ids)},
        refused={"account_above": Forbidden("This account may do what you may not.")},
    )


def keep_an_administrator(connection: Connection, account_ids: Sequence[UUID]) -> None:
    """Queue the guard of whatever takes the role `admin` from accounts, disables or deletes them.

    The round trip raises LastAdministrator unless another enabled account has the role. To be queued before
    the change: it locks the accounts, and then, where they are administrators, the role, so that of two who
    remove each other at the same moment the second finds itself the last.
    """
    parameters = {"account_ids": list(account_ids), "admin": ADMIN}
    connection.add(
        "SELECT FROM accounts WHERE id = ANY (%(account_ids)s::uuid[]) ORDER BY id FOR UPDATE", parameters
    )
    connection.add(
        """
        SELECT FROM roles WHERE name = %(admin)s AND EXISTS (
            SELECT FROM account_roles WHERE role = %(admin)s AND account_id = ANY (%(account_ids)s::uuid[])
        ) FOR NO KEY UPDATE -- grants of the role, which refer to it, do not wait
        """,
        parameters,
    )
    # A statement of its own sees what the one that held the lock before left.
    connection.add(
        """
        SELECT require(
            NOT EXISTS (
                SELECT FROM account_roles
                WHERE role = %(admin)s AND account_id = ANY (%(account_ids)s::uuid[])
            ) OR EXISTS (
                SELECT FROM account_roles JOIN accounts ON accounts.id = account_roles.account_id
                WHERE role = %(admin)s AND disabled_at IS NULL AND account_id <> ALL (%(account_ids)s::uuid[])
            ), 'last_administrator')
        """,
        parameters,
        refused={"last_administrator": LastAdministrator()},
    )

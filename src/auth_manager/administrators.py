"""Who administers: an account by its access token, or an operator on the command line, who may do all.

The command line works on the database directly, for when nobody can sign in: whoever has that access needs no
permission of ours. Each act is in the audit trail, with the account (`actor_id`) or the operator's name.
"""

from typing import TypedDict
from uuid import UUID

from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import Forbidden, NotFound
from auth_manager.permissions import require_administrator, require_not_above
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims


class Actor(TypedDict):
    """What the audit trail says of who did it; the operator's name is the origin's."""

    actor_id: UUID | None
    session_id: UUID | None


def actor(claims: AccessClaims | None) -> Actor:
    """Return it for an event about somebody else's account."""
    return Actor(actor_id=claims.sub if claims else None, session_id=claims.sid if claims else None)


def authorize(
    resources: Resources,
    connection: Connection,
    origin: Origin,
    claims: AccessClaims | None,
    permission: str,
) -> None:
    """Queue the guards of an administrative act: the permission, and a session that was stepped up.

    Raises:
        Forbidden: the permission is missing, or the token is one of an impersonation; or there is neither a
            token nor an operator.
        RecentAuthenticationRequired, SessionEnded: as for live_sessions.require_step_up.
    """
    if claims is not None:
        require_administrator(resources, connection, origin, claims, permission)
    elif origin.operator is None:
        raise Forbidden


def authorize_over(
    resources: Resources,
    connection: Connection,
    origin: Origin,
    claims: AccessClaims | None,
    permission: str,
    account_id: UUID,
    *,
    not_oneself: bool = False,
) -> None:
    """Queue the guards of an act on one account, and lock it: nobody acts on who may do what they may not.

    The lock is one that a role for the account waits for: it is not above the caller before the act is done.

    Raises:
        NotFound: there is no such account.
        Forbidden: as for `authorize`; the account is above the caller; with `not_oneself`, is the caller's.
        RecentAuthenticationRequired, SessionEnded: as for `authorize`.
    """
    if not_oneself and claims is not None and claims.sub == account_id:
        raise Forbidden("Another administrator has to do this for you.")
    authorize(resources, connection, origin, claims, permission)
    accounts_store.require_exists(connection, account_id, otherwise=NotFound())
    if claims is not None:
        require_not_above(connection, claims.sub, [account_id])

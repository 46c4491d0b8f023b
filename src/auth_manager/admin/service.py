"""Acts of administrators; the role is looked up with each of them (ASVS 8.3.2)."""

from dataclasses import replace
from uuid import UUID

from auth_manager import audit
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import Forbidden
from auth_manager.idempotency import Record
from auth_manager.live_sessions import require_step_up
from auth_manager.mfa.service import remove_factors
from auth_manager.observability import log_event
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims

ADMIN = "admin"


def reset_mfa(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    account_id: UUID,
    *,
    record: Record[None] | None = None,
) -> None:
    """Remove every second factor of an account and end its sessions, in one round trip.

    For an owner who lost them all, and who is told by mail.

    Raises:
        Forbidden: the caller is no administrator (any more), or means their own account.
        RecentAuthenticationRequired: the caller's session was not stepped up.
        NotFound: there is no such account.
        SessionEnded: the caller's session ended.
    """
    if account_id == claims.sub:
        raise Forbidden("Another administrator has to do this for you.")
    with resources.database.one_trip() as connection:
        require_administrator(resources, connection, origin, claims)
        # Whose word it was is not for the owner's export; the request joins the two events.
        audit.append(connection, "mfa_reset_ordered", origin, account_id=claims.sub, session_id=claims.sid)
        remove_factors(connection, replace(origin, address=None, user_agent=""), account_id)
        if record:
            record(connection, None)
    log_event("mfa_reset", account_id=account_id, administrator_id=claims.sub)


def require_administrator(
    resources: Resources, connection: Connection, origin: Origin, claims: AccessClaims
) -> None:
    """Queue the guards of every administrative act: the role first, then how its holder authenticated."""
    accounts_store.require_role(connection, claims.sub, ADMIN, otherwise=Forbidden())
    require_step_up(connection, claims, origin.now, maximum_age=resources.settings.recent_authentication)

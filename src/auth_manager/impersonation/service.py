"""Opening a session in which an administrator acts for an account's owner.

It has no refresh token and ends with its time, with the administrator's account, or with their permission
(`impersonation_stands` in migrations/0011_admin.sql). Its tokens say `act`, and administer nothing and change
nothing of what the owner signs in with (live_sessions.refuse_impersonation).
"""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from auth_manager import audit
from auth_manager.accounts import Account
from auth_manager.accounts import store as accounts_store
from auth_manager.administrators import authorize_over
from auth_manager.audit import Origin
from auth_manager.errors import AccountDisabled, NotFound
from auth_manager.idempotency import Record
from auth_manager.observability import log_event
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import issue_access_token, new_session
from auth_manager.tokens import AccessClaims


@dataclass(frozen=True, slots=True)
class Impersonation:
    """The one token there is, good for `expires_in` seconds, and whom it is for."""

    access_token: str = field(repr=False)
    expires_in: int
    session_id: UUID
    account: Account


def impersonate(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    account_id: UUID,
    *,
    reason: str,
    record: Record[Impersonation] | None = None,
) -> Impersonation:
    """Open such a session, in two round trips. How and when the administrator signed in, it says of itself.

    The owner sees the session in their list, without the administrator's address, and can end it.

    Raises:
        AccountDisabled: nobody signs in to it.
        Forbidden: as for administrators.authorize_over; or it is the caller's own.
        NotFound, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.transaction() as connection:
        authorize_over(
            resources, connection, origin, claims, "users:impersonate", account_id, not_oneself=True
        )
        credentials = accounts_store.find_credentials(connection, account_id)
        if credentials is None:  # the guard holds its row
            raise NotFound
        if credentials.account.disabled_at is not None:
            raise AccountDisabled
        session, line = new_session(
            resources,
            replace(origin, address=None, user_agent=""),
            account_id,
            amr=claims.amr,
            acr=claims.acr,
        )
        session = replace(
            session,
            authenticated_at=claims.auth_time,
            expires_at=origin.now + timedelta(seconds=resources.settings.impersonation_lifetime),
            impersonator_id=claims.sub,
        )
        token = issue_access_token(
            resources,
            origin,
            session=session,
            account=credentials.account,
            client_id=line.client_id,
            scope=line.scope,
        )
        sessions_store.insert(
            connection,
            session,
            None,
            password_changed_at=credentials.password_changed_at,
            factors_changed_at=credentials.factors_changed_at,
        )
        audit.append(
            connection,
            "impersonation_started",
            origin,
            account_id=account_id,
            session_id=session.id,
            actor_id=claims.sub,
            details={"reason": reason, "expires_at": session.expires_at.isoformat()},
        )
        impersonation = Impersonation(token.token, token.expires_in, session.id, credentials.account)
        if record:
            record(connection, impersonation)
    log_event("impersonation_started", account_id=account_id, administrator_id=claims.sub)
    return impersonation

"""Acts of administrators on one account; the permission is looked up with each of them (ASVS 8.3.2).

`claims` are those of the administrator's access token, None for an operator on the command line.
"""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from auth_manager import audit, one_time_secrets, rate_limits
from auth_manager.accounts import store as accounts_store
from auth_manager.admin import store
from auth_manager.administrators import actor, authorize, authorize_over
from auth_manager.audit import Origin
from auth_manager.errors import AccountDisabled
from auth_manager.idempotency import Record
from auth_manager.mfa.service import remove_factors
from auth_manager.observability import log_event
from auth_manager.one_time_secrets import Purpose
from auth_manager.permissions import keep_an_administrator
from auth_manager.recovery.service import mail_reset
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import SessionPage
from auth_manager.tokens import AccessClaims


def disable(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    *,
    record: Record[None] | None = None,
) -> None:
    """Disable an account and end its sessions, in one round trip; it is refused from the next request on.

    Of an account whose owner deleted it, the time of the erasure stays, and its owner can no longer keep it.

    Raises:
        LastAdministrator: nobody would be left who may administer.
        Forbidden: as for administrators.authorize_over; or it is the caller's own.
        NotFound, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.one_trip() as connection:
        authorize_over(resources, connection, origin, claims, "users:write", account_id, not_oneself=True)
        keep_an_administrator(connection, [account_id])
        accounts_store.disable(connection, [account_id], origin.now)
        sessions_store.end_sessions(connection, account_id, reason="account_disabled", now=origin.now)
        one_time_secrets.retire(connection, account_id, list(Purpose), now=origin.now)
        audit.append(connection, "account_disabled", origin, account_id=account_id, **actor(claims))
        if record:
            record(connection, None)
    log_event("account_disabled", account_id=account_id, administrator_id=_id(claims))


def enable(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    *,
    record: Record[None] | None = None,
) -> None:
    """Let an account sign in again, in one round trip; an erasure that its owner asked for is called off.

    Raises:
        NotFound, Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.one_trip() as connection:
        authorize_over(resources, connection, origin, claims, "users:write", account_id)
        accounts_store.enable(connection, [account_id], origin.now)
        audit.append(connection, "account_enabled", origin, account_id=account_id, **actor(claims))
        if record:
            record(connection, None)
    log_event("account_enabled", account_id=account_id, administrator_id=_id(claims))


def unlock(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    *,
    record: Record[None] | None = None,
) -> None:
    """Forget the failed attempts at an account, in one round trip.

    Raises:
        NotFound, Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.one_trip() as connection:
        # Counters before the account's row, as at a login.
        rate_limits.clear_account(connection, account_id)
        authorize_over(resources, connection, origin, claims, "users:write", account_id)
        audit.append(connection, "account_unlocked", origin, account_id=account_id, **actor(claims))
        if record:
            record(connection, None)
    log_event("account_unlocked", account_id=account_id, administrator_id=_id(claims))


def start_recovery(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    *,
    record: Record[None] | None = None,
) -> None:
    """Mail the owner a link to set a password with, in one round trip; nothing ends.

    Raises:
        AccountDisabled: it is; the link would be refused.
        NotFound, Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.one_trip() as connection:
        authorize_over(resources, connection, origin, claims, "users:write", account_id)
        accounts_store.require_enabled(connection, account_id, otherwise=AccountDisabled())
        message_id = mail_reset(resources, connection, origin, account_id)
        audit.append(connection, "recovery_started", origin, account_id=account_id, **actor(claims))
        if record:
            record(connection, None)
    resources.hand_over([message_id])
    log_event("recovery_started", account_id=account_id, administrator_id=_id(claims))


def log_out(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    *,
    record: Record[None] | None = None,
) -> None:
    """End every session of an account, in one round trip; their tokens are refused from then on.

    Raises:
        NotFound, Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.one_trip() as connection:
        authorize_over(resources, connection, origin, claims, "users:write", account_id)
        sessions_store.end_sessions(
            connection, account_id, reason="logged_out_by_administrator", now=origin.now
        )
        audit.append(
            connection, "logged_out_by_administrator", origin, account_id=account_id, **actor(claims)
        )
        if record:
            record(connection, None)
    log_event("logged_out", scope="all", account_id=account_id, administrator_id=_id(claims))


def reset_mfa(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    *,
    record: Record[None] | None = None,
) -> None:
    """Remove every second factor of an account and end its sessions, in one round trip.

    For an owner who lost them all, and who is told by mail.

    Raises:
        Forbidden: as for administrators.authorize_over; or it is the caller's own.
        NotFound, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.one_trip() as connection:
        # Counters before the account's row, as at a login.
        rate_limits.clear_account(connection, account_id)
        authorize_over(resources, connection, origin, claims, "users:write", account_id, not_oneself=True)
        audit.append(connection, "mfa_reset_ordered", origin, account_id=account_id, **actor(claims))
        # This one is the owner's, who is not told from where it was done.
        remove_factors(connection, replace(origin, address=None, user_agent=""), account_id)
        if record:
            record(connection, None)
    log_event("mfa_reset", account_id=account_id, administrator_id=_id(claims))


def list_sessions(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    *,
    limit: int,
    cursor: str | None,
) -> SessionPage:
    """Return the live sessions of an account, newest first, in one round trip.

    Raises:
        InvalidFields: the cursor is not one of this list.
        NotFound: there is no such account.
        Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    context = f"sessions of:{account_id}"
    before = UUID(bytes=resources.cursors.open(cursor, context=context)) if cursor else None
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, "users:read")
        store.require_known(connection, account_id)
        # One more than asked tells whether there is a next page.
        found = sessions_store.list_live(
            connection,
            account_id,
            now=origin.now,
            idle_lifetime=timedelta(seconds=resources.settings.session_idle_lifetime),
            before=before,
            limit=limit + 1,
        )
    items = found[:limit]
    more = len(found) > limit
    return SessionPage(items, resources.cursors.seal(items[-1].id.bytes, context=context) if more else None)


def revoke_session(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    session_id: UUID,
) -> None:
    """End one session of an account, in one round trip.

    Raises:
        NotFound: there is no such account, or this is not a live session of it.
        Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    with resources.database.one_trip() as connection:
        authorize_over(resources, connection, origin, claims, "users:write", account_id)
        sessions_store.require_owned(connection, account_id, session_id, now=origin.now)
        sessions_store.end_sessions(
            connection, account_id, only=session_id, reason="revoked_by_administrator", now=origin.now
        )
        audit.append(
            connection,
            "session_revoked",
            origin,
            account_id=account_id,
            details={"revoked_session_id": str(session_id)},
            **actor(claims),
        )


def _id(claims: AccessClaims | None) -> UUID | None:
    return claims.sub if claims else None

"""Staying logged in, looking at one's sessions, logging out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal
from uuid import UUID

from auth_manager import audit
from auth_manager.accounts import Account
from auth_manager.audit import Origin
from auth_manager.custom_claims import choose
from auth_manager.errors import (
    AccountDisabled,
    InvalidRefreshToken,
    RefreshTokenReused,
    SessionEnded,
)
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.observability import count, log_event
from auth_manager.resources import Resources
from auth_manager.sessions import RefreshLine, Session, store
from auth_manager.sessions.store import RefreshOutcome
from auth_manager.tokens import AccessClaims, IssuedAccessToken

FIRST_PARTY_CLIENT = "auth-manager"
"""The one client there is until other applications can register theirs."""
FIRST_PARTY_SCOPE = "account"

LogOutScope = Literal["this", "others", "all"]


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """What a signed-in client gets. Lifetimes in seconds from now."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str = field(repr=False)
    refresh_expires_in: int
    session_id: UUID
    account: Account


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Some of a list, and the cursor of what follows, None at its end."""

    items: Sequence[Session]
    next_cursor: str | None


def new_session(
    resources: Resources, origin: Origin, account_id: UUID, *, amr: Sequence[str], acr: str
) -> tuple[Session, RefreshLine]:
    """Make a session of this moment and its first refresh line; nothing is stored yet (ASVS 7.2.4)."""
    session = Session(
        id=new_id(),
        account_id=account_id,
        created_at=origin.now,
        last_used_at=origin.now,
        expires_at=origin.now + timedelta(seconds=resources.settings.session_absolute_lifetime),
        authenticated_at=origin.now,
        amr=tuple(amr),
        acr=acr,
        address=origin.address,
        user_agent=origin.user_agent,
    )
    return session, RefreshLine(new_id(), FIRST_PARTY_CLIENT, FIRST_PARTY_SCOPE, counter=1)


def issue_tokens(
    resources: Resources, origin: Origin, *, session: Session, line: RefreshLine, account: Account
) -> TokenGrant:
    """Sign an access token and derive the refresh token of the line's current counter.

    Neither outlives the session's absolute limit.
    """
    left = session.expires_at - origin.now
    access = issue_access_token(
        resources,
        origin,
        session=session,
        account=account,
        client_id=line.client_id,
        scope=line.scope,
    )
    idle = timedelta(seconds=resources.settings.session_idle_lifetime)
    return TokenGrant(
        access_token=access.token,
        expires_in=access.expires_in,
        refresh_token=resources.refresh_tokens.issue(line.id, line.counter),
        refresh_expires_in=int(min(idle, left).total_seconds()),
        session_id=session.id,
        account=account,
    )


def issue_access_token(
    resources: Resources,
    origin: Origin,
    *,
    session: Session,
    account: Account,
    client_id: str,
    scope: str,
) -> IssuedAccessToken:
    """Sign an access token of a session, which it does not outlive; `account` was read with its grants.

    Claims for which there is no room are left out, and logged: nobody is locked out by an attribute.
    """
    settings = resources.settings
    left = session.expires_at - origin.now
    chosen = choose(
        roles=account.roles,
        permissions=account.permissions if settings.token_permissions else (),
        role_claims=account.claims,
        attributes=account.attributes,
        attribute_claims=settings.attribute_claims,
    )
    if chosen.left_out:
        log_event("claims_left_out", account_id=account.id, claims=chosen.left_out)
    return resources.access_tokens.issue(
        account_id=session.account_id,
        session_id=session.id,
        token_id=new_id(),
        client_id=client_id,
        scope=scope,
        roles=chosen.roles,
        permissions=chosen.permissions if settings.token_permissions else None,
        custom=chosen.claims,
        act=session.impersonator_id,
        authenticated_at=session.authenticated_at,
        amr=session.amr,
        acr=session.acr,
        now=origin.now,
        lifetime=left
        if session.impersonator_id  # nothing refreshes it
        else min(timedelta(seconds=settings.access_token_lifetime), left),
    )


def refresh(
    resources: Resources, origin: Origin, token: str, *, record: Record[TokenGrant] | None = None
) -> TokenGrant:
    """Trade a refresh token for the next one, in one round trip.

    Raises:
        InvalidRefreshToken: not a token of ours, or its session expired.
        SessionEnded: logged out, or ended for another reason.
        RefreshTokenReused: it was traded before, longer ago than the grace; the session ends with this.
        AccountDisabled: the account is.
    """
    presented = resources.refresh_tokens.parse(token)
    settings = resources.settings
    database = resources.database
    tokens = None
    with database.transaction() if record else database.one_trip() as connection:
        refreshed = store.rotate(
            connection,
            presented.line_id,
            presented.counter,
            now=origin.now,
            idle_lifetime=timedelta(seconds=settings.session_idle_lifetime),
            grace=timedelta(seconds=settings.refresh_grace),
        )
        if refreshed and refreshed.outcome in {RefreshOutcome.ROTATED, RefreshOutcome.REPEATED}:
            tokens = issue_tokens(
                resources,
                origin,
                session=refreshed.session,
                line=refreshed.line,
                account=refreshed.account,
            )
            if record:
                record(connection, tokens)
    if tokens is not None:
        return tokens
    if refreshed is None:
        log_event("refresh_failed", reason="unknown")
        raise InvalidRefreshToken
    _refuse(resources, origin, refreshed)
    raise InvalidRefreshToken


def _refuse(resources: Resources, origin: Origin, refreshed: store.Refreshed) -> None:
    log_event("refresh_failed", reason=refreshed.outcome, session_id=refreshed.session.id)
    if refreshed.outcome is RefreshOutcome.REUSED:
        count("refresh_token_reused")
        with resources.database.one_trip() as connection:
            audit.append(
                connection,
                "refresh_token_reused",
                origin,
                account_id=refreshed.account.id,
                session_id=refreshed.session.id,
                failure="session_ended",
            )
        raise RefreshTokenReused
    if refreshed.outcome is RefreshOutcome.ENDED:
        raise SessionEnded
    if refreshed.outcome is RefreshOutcome.DISABLED:
        raise AccountDisabled


def find_by_refresh_token(resources: Resources, origin: Origin, token: str) -> tuple[Session, Account] | None:
    """Return the live session that a refresh token is the latest of, in one round trip.

    For a browser that keeps the token in a cookie: it is not traded, and the session counts as used now. None
    for every token that `refresh` would not trade for its successor.
    """
    try:
        presented = resources.refresh_tokens.parse(token)
    except InvalidRefreshToken:
        return None
    with resources.database.one_trip() as connection:
        return store.use_line(
            connection,
            presented.line_id,
            presented.counter,
            now=origin.now,
            idle_lifetime=timedelta(seconds=resources.settings.session_idle_lifetime),
        )


def claims_of(session: Session, account: Account) -> AccessClaims:
    """Return what an access token of a session says, for its owner's own calls in this process."""
    return AccessClaims(
        sub=account.id,
        sid=session.id,
        jti="",
        client_id=FIRST_PARTY_CLIENT,
        scope=FIRST_PARTY_SCOPE,
        roles=account.roles,
        auth_time=session.authenticated_at,
        amr=session.amr,
        acr=session.acr,
        expires_at=session.expires_at,
        act=session.impersonator_id,
    )


def log_out(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    scope: LogOutScope,
    *,
    record: Record[None] | None = None,
) -> None:
    """End this session, the others, or all, in one round trip; their tokens are refused from then on.

    Raises:
        Forbidden: somebody acts for the owner, and means other sessions than this one.
        SessionEnded: this session ended before.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now, impersonated_too=scope == "this")
        store.end_sessions(
            connection,
            claims.sub,
            only=claims.sid if scope == "this" else None,
            except_for=claims.sid if scope == "others" else None,
            reason="logged_out",
            now=origin.now,
        )
        audit.append(connection, f"logged_out_{scope}", origin, account_id=claims.sub, session_id=claims.sid)
        if record:
            record(connection, None)
    log_event("logged_out", scope=scope, account_id=claims.sub)


def list_sessions(
    resources: Resources, origin: Origin, claims: AccessClaims, *, limit: int, cursor: str | None
) -> SessionPage:
    """Return the caller's live sessions, newest first, in one round trip.

    Raises:
        InvalidFields: the cursor is not one of this list.
        SessionEnded: the caller's own session ended.
    """
    context = f"sessions:{claims.sub}"
    before = UUID(bytes=resources.cursors.open(cursor, context=context)) if cursor else None
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now, impersonated_too=True)
        # One more than asked tells whether there is a next page.
        found = store.list_live(
            connection,
            claims.sub,
            now=origin.now,
            idle_lifetime=timedelta(seconds=resources.settings.session_idle_lifetime),
            before=before,
            limit=limit + 1,
        )
    items = found[:limit]
    more = len(found) > limit
    return SessionPage(items, resources.cursors.seal(items[-1].id.bytes, context=context) if more else None)


def revoke_session(resources: Resources, origin: Origin, claims: AccessClaims, session_id: UUID) -> None:
    """End one of the caller's sessions, in one round trip (ASVS 7.5.2).

    Raises:
        NotFound: not a live session of the caller's; another person's looks the same (ASVS 8.2.2).
        SessionEnded: the caller's own session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        audit.append(connection, "session_revoked", origin, account_id=claims.sub, session_id=session_id)
        store.require_owned(connection, claims.sub, session_id, now=origin.now)
        store.end_sessions(connection, claims.sub, only=session_id, reason="revoked", now=origin.now)

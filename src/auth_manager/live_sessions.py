"""Whether an access token still counts on our own API: its session lives and its account is enabled.

A guard that travels with the statements it protects, at no round trip of its own, so that log-out, disabling
and deletion take effect at once (ASVS 7.4.1, 7.4.2).

What has expired is judged by the database's clock too: a sandbox whose clock is an hour slow revives nothing.
"""

from datetime import datetime, timedelta

from auth_manager.database import Connection
from auth_manager.errors import Forbidden, RecentAuthenticationRequired, SessionEnded
from auth_manager.tokens import LEEWAY as LEEWAY_SECONDS
from auth_manager.tokens import AccessClaims

LEEWAY = timedelta(seconds=LEEWAY_SECONDS)

IMPERSONATION_STANDS = (
    "(sessions.impersonator_id IS NULL OR impersonation_stands(sessions.impersonator_id, accounts.id))"
)
"""SQL: an administrator acts for the account's owner for as long as they still may."""


def require_live_session(
    connection: Connection, claims: AccessClaims, now: datetime, *, impersonated_too: bool = False
) -> None:
    """Queue the guard: the whole round trip fails with SessionEnded unless the session lives.

    Raises:
        Forbidden: somebody acts for the owner; at once, unless `impersonated_too` says that this may be done.
    """
    if not impersonated_too:
        refuse_impersonation(claims)
    connection.add(
        f"""
        SELECT require(EXISTS (
            SELECT FROM sessions JOIN accounts ON accounts.id = sessions.account_id
            WHERE sessions.id = %(session_id)s AND sessions.account_id = %(account_id)s
              AND sessions.ended_at IS NULL AND sessions.expires_at > GREATEST(%(now)s, now())
              AND now() < %(token_expires_at)s AND accounts.disabled_at IS NULL
              AND {IMPERSONATION_STANDS}), 'session_ended')
        """,  # noqa: S608 -- a constant
        {
            "session_id": claims.sid,
            "account_id": claims.sub,
            "now": now,
            "token_expires_at": claims.expires_at + LEEWAY,
        },
        refused={"session_ended": SessionEnded()},
    )


def require_step_up(connection: Connection, claims: AccessClaims, now: datetime, *, maximum_age: int) -> None:
    """Queue the guard of a sensitive step: the session lives and was authenticated well enough for it.

    That is, not longer ago than `maximum_age` seconds, and with two factors where the account has two (ASVS
    7.5.1, 7.5.3). /auth/reauthenticate satisfies it (RFC 9470). What the session is now counts for the
    factors, what the token says for the time.

    Raises:
        Forbidden: somebody acts for the owner; at once.
        RecentAuthenticationRequired: too long ago; at once. With one factor of two: with the round trip.
    """
    refuse_impersonation(claims)  # whatever else is wrong with it
    require_recent_authentication(claims, now, maximum_age)
    require_live_session(connection, claims, now)
    connection.add(
        """
        SELECT require(EXISTS (
            SELECT FROM sessions JOIN accounts ON accounts.id = sessions.account_id
            WHERE sessions.id = %(session_id)s AND (sessions.acr = 'aal2'
               OR accounts.factors_changed_at IS NULL OR cardinality(factors_of(accounts.id)) = 0)
        ), 'authentication_too_weak')
        """,
        {"session_id": claims.sid},
        refused={"authentication_too_weak": insufficient_authentication(maximum_age, acr="aal2")},
    )


def refuse_impersonation(claims: AccessClaims) -> None:
    """Refuse at once what nobody does for somebody else: to administer, or to change how they sign in.

    Raises:
        Forbidden: the token says that somebody acts for the account's owner.
    """
    if claims.act is not None:
        raise Forbidden("Not while you act for somebody else.")


def require_recent_authentication(claims: AccessClaims, now: datetime, maximum_age: int) -> None:
    """Refuse a sensitive step after an authentication older than `maximum_age` seconds, at once.

    Raises:
        RecentAuthenticationRequired: with the challenge that says so.
    """
    if now - claims.auth_time > timedelta(seconds=maximum_age):
        raise insufficient_authentication(maximum_age)


def insufficient_authentication(maximum_age: int, *, acr: str | None = None) -> RecentAuthenticationRequired:
    """Return the error with the challenge of RFC 9470 section 3."""
    challenge = (
        'Bearer error="insufficient_user_authentication", '
        f'error_description="A more recent{" and stronger" if acr else ""} authentication is required", '
        f'max_age="{maximum_age}"'
    )
    if acr:
        challenge += f', acr_values="{acr}"'
    return RecentAuthenticationRequired(
        "Authenticate again, then retry.", headers={"WWW-Authenticate": challenge}
    )

"""Whether an access token still counts on our own API: its session lives and its account is enabled.

A guard that travels with the statements it protects, at no round trip of its own, so that log-out, disabling
and deletion take effect at once (ASVS 7.4.1, 7.4.2).

What has expired is judged by the database's clock too: a sandbox whose clock is an hour slow revives nothing.
"""

from datetime import datetime, timedelta

from auth_manager.database import Connection
from auth_manager.errors import SessionEnded
from auth_manager.tokens import LEEWAY as LEEWAY_SECONDS
from auth_manager.tokens import AccessClaims

LEEWAY = timedelta(seconds=LEEWAY_SECONDS)


def require_live_session(connection: Connection, claims: AccessClaims, now: datetime) -> None:
    """Queue the guard: the whole round trip fails with SessionEnded unless the session lives."""
    connection.add(
        """
        SELECT require(EXISTS (
            SELECT FROM sessions JOIN accounts ON accounts.id = sessions.account_id
            WHERE sessions.id = %(session_id)s AND sessions.account_id = %(account_id)s
              AND sessions.ended_at IS NULL AND sessions.expires_at > GREATEST(%(now)s, now())
              AND now() < %(token_expires_at)s AND accounts.disabled_at IS NULL), 'session_ended')
        """,
        {
            "session_id": claims.sid,
            "account_id": claims.sub,
            "now": now,
            "token_expires_at": claims.expires_at + LEEWAY,
        },
        refused={"session_ended": SessionEnded()},
    )

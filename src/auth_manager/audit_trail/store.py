"""SQL that reads security events; `audit` writes them."""

from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from auth_manager.audit_chain.rows import COLUMNS
from auth_manager.audit_trail import Filters
from auth_manager.database import Connection, Row

Place = tuple[datetime, UUID]
"""Where an event is among all by time: when it occurred, and its id."""

_MATCHES = """
        (%(event)s IS NULL OR event = %(event)s)
    AND (%(outcome)s IS NULL OR outcome = %(outcome)s)
    AND (%(account_id)s::uuid IS NULL OR account_id = %(account_id)s::uuid)
    AND (%(actor_id)s::uuid IS NULL OR actor_id = %(actor_id)s::uuid)
    AND (%(operator)s IS NULL OR operator = %(operator)s)
    AND (%(network)s::inet IS NULL OR address <<= %(network)s::inet)
    AND (%(since)s::timestamptz IS NULL OR occurred_at >= %(since)s::timestamptz)
    AND (%(until)s::timestamptz IS NULL OR occurred_at < %(until)s::timestamptz)
"""
"""Parameters are literals when PostgreSQL plans, so that what is not asked for falls away."""


def search(connection: Connection, filters: Filters, *, before: Place | None, limit: int) -> list[Row]:
    """Return events, the latest first, in one round trip."""
    return connection.fetch_all(
        f"""
        SELECT id, occurred_at, event, outcome, reason, account_id, session_id, actor_id, operator, address,
               user_agent, request_id, details, position
        FROM audit_events
        WHERE {_MATCHES} AND (%(before)s::timestamptz IS NULL
                              OR (occurred_at, id) < (%(before)s::timestamptz, %(before_id)s::uuid))
        ORDER BY occurred_at DESC, id DESC LIMIT %(limit)s
        """,  # noqa: S608 -- our own conditions
        asdict(filters) | {"before": before and before[0], "before_id": before and before[1], "limit": limit},
    )


def read_on(connection: Connection, filters: Filters, *, after: Place | None, limit: int) -> list[Row]:
    """Return whole events, the first ones first, as the chain's hashes cover them, and their `time`."""
    return connection.fetch_all(
        f"""
        SELECT {COLUMNS}, audit_events.occurred_at AS time
        FROM audit_events
        WHERE {_MATCHES} AND (%(after)s::timestamptz IS NULL
                              OR (occurred_at, id) > (%(after)s::timestamptz, %(after_id)s::uuid))
        ORDER BY audit_events.occurred_at, audit_events.id LIMIT %(limit)s
        """,  # noqa: S608 -- our own conditions
        asdict(filters) | {"after": after and after[0], "after_id": after and after[1], "limit": limit},
    )

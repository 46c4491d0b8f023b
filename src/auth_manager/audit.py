"""Security events, append-only: who, what, when, from where, with which outcome (ASVS 16.3).

Events hold ids, never addresses of mail, names or secrets, so that an erased account leaves a trace without
leaving a person.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from auth_manager.database import Connection
from auth_manager.ids import new_id


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, and when.

    `address` is the peer's IP address as the gateway saw it, None when there is no network peer (the command
    line); `user_agent` is printable and at most 512 characters.
    """

    address: str | None
    user_agent: str
    request_id: str
    now: datetime


def append(
    connection: Connection,
    event: str,
    origin: Origin,
    *,
    account_id: UUID | None = None,
    session_id: UUID | None = None,
    failure: str | None = None,
) -> None:
    """Queue one event; `failure` is the stable reason of a failed attempt, None for a success."""
    connection.add(
        """
        INSERT INTO audit_events (id, occurred_at, event, outcome, reason, account_id, session_id,
                                  address, user_agent, request_id)
        VALUES (%(id)s, %(now)s, %(event)s, %(outcome)s, %(reason)s, %(account_id)s, %(session_id)s,
                %(address)s, %(user_agent)s, %(request_id)s)
        ON CONFLICT ON CONSTRAINT audit_events_pkey DO NOTHING -- sent twice, written once
        """,
        {
            "id": new_id(),
            "now": origin.now,
            "event": event,
            "outcome": "failure" if failure else "success",
            "reason": failure,
            "account_id": account_id,
            "session_id": session_id,
            "address": origin.address,
            "user_agent": origin.user_agent,
            "request_id": origin.request_id,
        },
    )

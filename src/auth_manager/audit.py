"""Security events, append-only: who, what, when, from where, with which outcome (ASVS 16.3).

Events hold ids, never addresses of mail, names or secrets, so that an erased account leaves a trace without
leaving a person.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from auth_manager.database import Connection, Row
from auth_manager.ids import new_id

ACTS = 10_000
"""Events of one statement that forgets who did them: some 300 ms."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, and when.

    `address` is the peer's IP address as the gateway saw it, None when there is no network peer (the command
    line); `user_agent` is printable and at most 512 characters; `locale` is the language that was asked
    for, of those we speak; `operator` is who works on the command line, None for a request.
    """

    address: str | None
    user_agent: str
    request_id: str
    now: datetime
    locale: str | None = None
    operator: str | None = None


def append(
    connection: Connection,
    event: str,
    origin: Origin,
    *,
    account_id: UUID | None = None,
    session_id: UUID | None = None,
    owner_of: str | None = None,
    actor_id: UUID | None = None,
    details: Mapping[str, Any] | None = None,
    failure: str | None = None,
) -> None:
    """Queue one event.

    Args:
        connection: of the transaction that does what the event says.
        event: what happened.
        origin: where it came from.
        account_id: whose account it concerns.
        session_id: and which session.
        owner_of: instead of `account_id`, a normalised e-mail address: of whoever has it, if anybody does.
        actor_id: who did it, where that is not the account's owner; by default the impersonator of
            `session_id`, if it has one.
        details: facts that the event's name does not say: ids, roles and counts, nothing personal.
        failure: the stable reason of a failed attempt, None for a success.
    """
    connection.add(
        """
        INSERT INTO audit_events (id, occurred_at, event, outcome, reason, account_id, session_id,
                                  address, user_agent, request_id, actor_id, operator, details)
        VALUES (%(id)s, %(now)s, %(event)s, %(outcome)s, %(reason)s,
                COALESCE(%(account_id)s::uuid,
                         (SELECT id FROM accounts WHERE email_normalized = %(owner_of)s)),
                %(session_id)s::uuid, %(address)s, %(user_agent)s, %(request_id)s,
                COALESCE(%(actor_id)s::uuid,
                         (SELECT impersonator_id FROM sessions WHERE id = %(session_id)s::uuid)),
                %(operator)s, %(details)s::jsonb)
        ON CONFLICT ON CONSTRAINT audit_events_pkey DO NOTHING -- sent twice, written once
        """,
        {
            "id": new_id(),
            "now": origin.now,
            "event": event,
            "outcome": "failure" if failure else "success",
            "reason": failure,
            "account_id": account_id,
            "owner_of": owner_of,
            "session_id": session_id,
            "address": origin.address,
            "user_agent": origin.user_agent,
            "request_id": origin.request_id,
            "actor_id": actor_id,
            "operator": origin.operator,
            "details": json.dumps(dict(details or {})),
        },
    )


def append_all(
    connection: Connection,
    event: str,
    origin: Origin,
    *,
    account_ids: Sequence[UUID],
    actor_id: UUID | None = None,
    session_id: UUID | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Queue one event for each of these accounts, in one statement; as `append`."""
    connection.add(
        """
        INSERT INTO audit_events (id, occurred_at, event, outcome, account_id, session_id, address,
                                  user_agent, request_id, actor_id, operator, details)
        SELECT id, %(now)s, %(event)s, 'success', account_id, %(session_id)s::uuid, %(address)s,
               %(user_agent)s, %(request_id)s, %(actor_id)s::uuid, %(operator)s, %(details)s::jsonb
        FROM unnest(%(ids)s::uuid[], %(account_ids)s::uuid[]) AS of_account (id, account_id)
        ON CONFLICT ON CONSTRAINT audit_events_pkey DO NOTHING
        """,
        {
            "ids": [new_id() for _ in account_ids],
            "now": origin.now,
            "event": event,
            "account_ids": list(account_ids),
            "session_id": session_id,
            "address": origin.address,
            "user_agent": origin.user_agent,
            "request_id": origin.request_id,
            "actor_id": actor_id,
            "operator": origin.operator,
            "details": json.dumps(dict(details or {})),
        },
    )


def list_of(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return the latest events of an account, newest first, in one round trip: for its owner's export.

    Where somebody else did it, not from where.
    """
    return connection.fetch_all(
        """
        SELECT occurred_at, event, outcome, reason,
               CASE WHEN actor_id IS NULL THEN session_id END AS session_id,
               CASE WHEN actor_id IS NULL THEN host(address) END AS address,
               CASE WHEN actor_id IS NULL THEN user_agent ELSE '' END AS user_agent
        FROM audit_events WHERE account_id = %(account_id)s ORDER BY id DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )


def anonymise(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of addresses and user agents from an account's events; the events stay.

    Their salt goes with them: what the chain's hash has of both can then be guessed by nobody. The same for
    ACTS events of what its owner did to others; where there are more, the rest is for `anonymise_rest`.
    """
    connection.add(
        """
        UPDATE audit_events SET address = NULL, user_agent = '', personal_salt = NULL
        WHERE account_id = %(account_id)s AND (address IS NOT NULL OR user_agent <> '')
        """,
        {"account_id": account_id},
    )
    connection.add(
        """
        UPDATE audit_events SET address = NULL, user_agent = '', personal_salt = NULL
        WHERE id IN (SELECT id FROM audit_events
                     WHERE actor_id = %(account_id)s AND (address IS NOT NULL OR user_agent <> '')
                     LIMIT %(acts)s)
        """,
        {"account_id": account_id, "acts": ACTS},
    )


def anonymise_rest(connection: Connection, *, erased_since: datetime) -> None:
    """Queue the same for ACTS events that were left of what the owners of erased accounts did to others."""
    connection.add(
        """
        UPDATE audit_events SET address = NULL, user_agent = '', personal_salt = NULL
        WHERE id IN (SELECT act.id FROM audit_events AS erasure
                     JOIN audit_events AS act ON act.actor_id = erasure.account_id
                     WHERE erasure.event = 'account_deleted' AND erasure.occurred_at >= %(erased_since)s
                       AND (act.address IS NOT NULL OR act.user_agent <> '')
                       AND NOT EXISTS (SELECT FROM accounts WHERE id = act.actor_id) -- imported again
                     LIMIT %(acts)s FOR UPDATE OF act SKIP LOCKED)
        """,
        {"erased_since": erased_since, "acts": ACTS},
    )

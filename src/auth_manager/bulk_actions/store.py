"""SQL that finds the accounts of a bulk action."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from auth_manager.bulk_actions import Action
from auth_manager.database import Connection
from auth_manager.directory import Filter
from auth_manager.directory.store import MATCHES, parameters_of
from auth_manager.errors import CountChanged
from auth_manager.settings import Settings

_ABOVE = """
    SELECT account_id FROM account_roles JOIN roles ON roles.name = account_roles.role
    WHERE %(actor_id)s::uuid IS NOT NULL
      AND NOT permits(permissions_of(%(actor_id)s::uuid), roles.permissions)
"""
"""Who may do what the actor may not: an account is above when one of its roles is."""

_SPARED = f"""
    (accounts.id IS NOT DISTINCT FROM %(actor_id)s::uuid OR accounts.id IN ({_ABOVE})
     OR (%(action)s = 'enable' AND erase_after IS NOT NULL))
"""


@dataclass(frozen=True, slots=True)
class Count:
    """How many accounts are acted on, and how many of those that match are not."""

    meant: int
    spared: int


@dataclass(frozen=True, slots=True)
class Found:
    """An account that matches, locked.

    `changes`: the act makes a difference to it; `messages`: so many endpoints of webhooks are then told.
    """

    id: UUID
    spared: bool
    changes: bool
    messages: int


def count(
    connection: Connection, settings: Settings, wanted: Filter, action: Action, *, actor_id: UUID | None
) -> Count:
    """Count the accounts that match, in one round trip."""
    row = connection.fetch_one(
        f"""
        SELECT count(*) FILTER (WHERE NOT spared) AS meant, count(*) FILTER (WHERE spared) AS spared
        FROM (SELECT {_SPARED} AS spared FROM accounts WHERE {MATCHES}) AS matching
        """,  # noqa: S608 -- constants
        {**parameters_of(wanted, settings), "action": action, "actor_id": actor_id},
    )
    return Count(row["meant"], row["spared"]) if row else Count(0, 0)


def lock_matching(
    connection: Connection,
    settings: Settings,
    wanted: Filter,
    action: Action,
    *,
    event: str,
    role: str | None,
    actor_id: UUID | None,
    limit: int,
) -> list[Found]:
    """Lock and return accounts that match, in one round trip; by id, so that two bulk actions queue up.

    `event` is the one of each that changes, and makes a message for every webhook endpoint that asks for it.
    """
    rows = connection.fetch_all(
        f"""
        SELECT accounts.id, {_SPARED} AS spared,
               CASE %(action)s WHEN 'disable' THEN disabled_at IS NULL
                               WHEN 'enable' THEN disabled_at IS NOT NULL
                               WHEN 'logout' THEN true
                               ELSE (%(action)s = 'assign_role') <> EXISTS (
                                   SELECT FROM account_roles
                                   WHERE account_id = accounts.id AND account_roles.role = %(wanted_role)s)
               END AS changes,
               (SELECT count(*) FROM webhook_endpoints
                WHERE disabled_at IS NULL AND types && ARRAY[webhook_type_of(%(event)s), '*']) AS messages
        FROM accounts WHERE {MATCHES} ORDER BY accounts.id LIMIT %(limit)s FOR UPDATE
        """,  # noqa: S608 -- constants
        {
            **parameters_of(wanted, settings),
            "action": action,
            "event": event,
            "wanted_role": role,
            "actor_id": actor_id,
            "limit": limit,
        },
    )
    return [Found(row["id"], row["spared"], row["changes"], row["messages"]) for row in rows]


def require_still_below(connection: Connection, actor_id: UUID, account_ids: Sequence[UUID]) -> None:
    """Queue the guard: the round trip raises CountChanged if one was raised above the actor meanwhile.

    Between being found and being locked, that is: from then on no role is given to it.
    """
    connection.add(
        f"""
        SELECT require(NOT EXISTS (
            {_ABOVE} AND account_id = ANY (%(account_ids)s::uuid[])
        ), 'raised_meanwhile')
        """,
        {"actor_id": actor_id, "account_ids": list(account_ids)},
        refused={"raised_meanwhile": CountChanged()},
    )

"""One act on all accounts that a filter matches: counted first, then done if they are still as many.

Those above the caller, and the caller's own, are spared (`skipped`).
"""

from dataclasses import asdict, dataclass
from uuid import UUID

from auth_manager import account_roles, audit, one_time_secrets
from auth_manager.accounts import store as accounts_store
from auth_manager.administrators import Actor, actor, authorize
from auth_manager.audit import Origin
from auth_manager.bulk_actions import Action, store
from auth_manager.bulk_actions.store import Found
from auth_manager.database import Connection
from auth_manager.directory import Filter
from auth_manager.errors import CountChanged
from auth_manager.idempotency import Record
from auth_manager.observability import log_event
from auth_manager.permissions import ADMIN, keep_an_administrator
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.tokens import AccessClaims

MAXIMUM = 10_000
"""Accounts that are changed in one transaction: within the time that a statement has."""

MOST_MESSAGES = 30_000
"""Messages to webhook endpoints that one transaction writes: in half the time that a statement has."""

LOOKED_AT = 2 * MAXIMUM
"""Accounts that are locked: those that are spared are, too."""

EVENTS: dict[Action, str] = {
    "disable": "account_disabled",
    "enable": "account_enabled",
    "logout": "logged_out_by_administrator",
    "assign_role": "roles_changed",
    "remove_role": "roles_changed",
}
"""What the audit trail says at each account: as for one alone."""


@dataclass(frozen=True, slots=True)
class BulkAction:
    """What to do with whom. `role` belongs to `assign_role` and `remove_role`."""

    action: Action
    wanted: Filter
    role: str | None = None


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """How many accounts are meant, and spared; `changed` of the former if it was done."""

    count: int
    skipped: int
    changed: int = 0
    done: bool = False


def act_or_count(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    bulk: BulkAction,
    *,
    expected_count: int | None,
    record: Record[BulkOutcome] | None = None,
) -> BulkOutcome:
    """Do it to so many accounts, as `act`; with None only count them, as `count`."""
    if expected_count is None:
        return count(resources, origin, claims, bulk, record=record)
    return act(resources, origin, claims, bulk, expected_count=expected_count, record=record)


def count(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    bulk: BulkAction,
    *,
    record: Record[BulkOutcome] | None = None,
) -> BulkOutcome:
    """Tell how many accounts it would be done to, in one round trip; nothing changes.

    Raises:
        InvalidFields: the filter's `email` is no address.
        Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    trip = resources.database.transaction if record else resources.database.one_trip
    with trip() as connection:
        authorize(resources, connection, origin, claims, "users:write")
        counted = store.count(
            connection,
            resources.settings,
            bulk.wanted,
            bulk.action,
            actor_id=claims.sub if claims else None,
        )
        outcome = BulkOutcome(counted.meant, counted.spared)
        if record:
            record(connection, outcome)
    return outcome


def act(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    bulk: BulkAction,
    *,
    expected_count: int,
    record: Record[BulkOutcome] | None = None,
) -> BulkOutcome:
    """Do it, if so many accounts are meant; all in one transaction of two round trips.

    Raises:
        CountChanged: other than `expected_count` are meant now, or more than MAXIMUM, or their events would
            make more than MOST_MESSAGES.
        LastAdministrator: nobody would be left who may administer.
        InvalidFields: there is no such role, or the filter's `email` is no address.
        Forbidden: as for administrators.authorize; or the role gives what the caller lacks.
        RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    if expected_count > MAXIMUM:
        raise CountChanged(f"At most {MAXIMUM} accounts at a time; narrow the filter.")
    with resources.database.transaction() as connection:
        authorize(resources, connection, origin, claims, "users:write")
        if bulk.role is not None:
            account_roles.require_known(connection, [bulk.role])
            if claims:
                account_roles.require_roles_permitted(connection, claims.sub, [bulk.role])
        found = store.lock_matching(
            connection,
            resources.settings,
            bulk.wanted,
            bulk.action,
            event=EVENTS[bulk.action],
            role=bulk.role,
            actor_id=claims.sub if claims else None,
            limit=LOOKED_AT,
        )
        meant = [account.id for account in found if not account.spared]
        changes = [account for account in found if account.changes and not account.spared]
        if len(meant) != expected_count or len(found) == LOOKED_AT:
            raise CountChanged
        _refuse_too_many_messages(changes)
        changed = [account.id for account in changes]
        if claims:
            store.require_still_below(connection, claims.sub, meant)
        _change(connection, origin, bulk, changed, actor(claims))
        outcome = BulkOutcome(len(meant), len(found) - len(meant), len(changed), done=True)
        audit.append(
            connection,
            "bulk_action",
            origin,
            details={
                "action": bulk.action,
                "role": bulk.role,
                "count": outcome.count,
                "changed": outcome.changed,
                "filter": sorted(name for name, value in asdict(bulk.wanted).items() if value is not None),
            },
            **actor(claims),
        )
        if record:
            record(connection, outcome)
    log_event(
        "bulk_action",
        action=bulk.action,
        changed=outcome.changed,
        administrator_id=claims.sub if claims else None,
    )
    return outcome


def _refuse_too_many_messages(changes: list[Found]) -> None:
    endpoints = max((account.messages for account in changes), default=0)
    if len(changes) * endpoints > MOST_MESSAGES:
        raise CountChanged(
            f"At most {MOST_MESSAGES // endpoints} accounts at a time while {endpoints} webhook endpoints"
            " are told of each; narrow the filter."
        )


def _change(
    connection: Connection, origin: Origin, bulk: BulkAction, account_ids: list[UUID], by: Actor
) -> None:
    """Queue the act on accounts that it makes a difference to, and an event for each."""
    details: dict[str, list[str]] = {}
    if bulk.action == "disable":
        keep_an_administrator(connection, account_ids)
        accounts_store.disable(connection, account_ids, origin.now)
        sessions_store.end_all(connection, account_ids, reason="account_disabled", now=origin.now)
        one_time_secrets.retire_all(connection, account_ids, now=origin.now)
    elif bulk.action == "enable":
        accounts_store.enable(connection, account_ids, origin.now)
    elif bulk.action == "logout":
        sessions_store.end_all(connection, account_ids, reason="logged_out_by_administrator", now=origin.now)
    elif bulk.role is not None and bulk.action == "assign_role":
        details = {"added": [bulk.role], "removed": []}
        account_roles.grant(connection, account_ids, [bulk.role], origin.now)
    elif bulk.role is not None:
        details = {"added": [], "removed": [bulk.role]}
        if bulk.role == ADMIN:
            keep_an_administrator(connection, account_ids)
        account_roles.revoke(connection, account_ids, [bulk.role])
    audit.append_all(connection, EVENTS[bulk.action], origin, account_ids=account_ids, details=details, **by)

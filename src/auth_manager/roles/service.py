"""What roles there are, and who has them.

Nobody creates, changes, deletes, gives or takes away a role that permits what they may not do themselves. An
operator on the command line (`claims` None) may do everything but take the last administrator away.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from auth_manager import account_roles, audit
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.service import growth_in_database
from auth_manager.accounts.store import later
from auth_manager.administrators import actor, authorize, authorize_over
from auth_manager.audit import Origin
from auth_manager.custom_claims import check_name
from auth_manager.database import Connection
from auth_manager.errors import FieldError, InvalidFields, NotFound, PreconditionFailed, RoleBuiltIn
from auth_manager.idempotency import Record
from auth_manager.observability import log_event
from auth_manager.permissions import (
    ADMIN,
    EVERYTHING,
    PERMISSIONS,
    administers,
    keep_an_administrator,
    require_permissions,
)
from auth_manager.resources import Resources
from auth_manager.roles import Role, store
from auth_manager.tokens import AccessClaims

MAXIMUM_PERMISSIONS = 100
"""Of one role."""
MAXIMUM_CLAIMS_BYTES = 1024
"""Of one role, as compact JSON, with numbers as the database writes them."""

_NAME = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_PERMISSION = re.compile(r"(?=.{3,64}\Z)[a-z][a-z0-9_.-]*(?::[a-z0-9_.-]+)+")
_OUR_PREFIXES = {permission.partition(":")[0] for permission in PERMISSIONS}


@dataclass(frozen=True, slots=True)
class RoleFields:
    """What a role is made of, as typed."""

    description: str = ""
    permissions: Sequence[str] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class RolePatch:
    """New values of some fields; None leaves one as it is."""

    description: str | None = None
    permissions: Sequence[str] | None = None
    claims: Mapping[str, Any] | None = None
    is_default: bool | None = None


@dataclass(frozen=True, slots=True)
class RolePage:
    """Some of a list, and the cursor of what follows, None at its end."""

    items: Sequence[Role]
    next_cursor: str | None


def list_roles(
    resources: Resources, origin: Origin, claims: AccessClaims | None, *, limit: int, cursor: str | None
) -> RolePage:
    """Return roles by name, in one round trip.

    Raises:
        InvalidFields: the cursor is not one of this list.
        Forbidden: the caller lacks roles:read.
        RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    after = resources.cursors.open(cursor, context="roles").decode() if cursor else ""
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, "roles:read")
        # One more than asked tells whether there is a next page.
        found = store.list_page(connection, after=after, limit=limit + 1)
    items = found[:limit]
    more = len(found) > limit
    return RolePage(items, resources.cursors.seal(items[-1].name.encode(), context="roles") if more else None)


def get_role(resources: Resources, origin: Origin, claims: AccessClaims | None, name: str) -> Role:
    """Return a role, in one round trip.

    Raises:
        NotFound: there is none of this name.
        Forbidden, RecentAuthenticationRequired, SessionEnded: as for `list_roles`.
    """
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, "roles:read")
        role = store.find(connection, name) if _NAME.fullmatch(name) else None
    if role is None:
        raise NotFound("There is no such role.")
    return role


def create_role(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    name: str,
    fields: RoleFields,
    *,
    record: Record[Role] | None = None,
) -> Role:
    """Create a role, in one round trip.

    Raises:
        InvalidFields: a field breaks a rule.
        RoleTaken: there is one of this name.
        Forbidden: the caller lacks roles:write, or a permission of the role.
        RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    role = Role(
        name=name,
        description=fields.description,
        permissions=tuple(sorted(set(fields.permissions))),
        claims=fields.claims,
        is_default=fields.is_default,
        is_built_in=False,
        created_at=origin.now,
        updated_at=origin.now,
    )
    _check(role)
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, "roles:write")
        if claims is not None:
            require_permissions(connection, claims.sub, role.permissions)
        store.insert(connection, role)
        audit.append(connection, "role_created", origin, **actor(claims), details=_told(role))
        if record:
            record(connection, role)
    log_event("role_created", role=name)
    return role


def change_role(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    name: str,
    patch: RolePatch,
    *,
    tags: Sequence[str] | None = None,
) -> Role:
    """Change a role, in two round trips; with `tags` only while one of them is its own.

    Those who have it may do what it permits from their next call on; their tokens follow as they are renewed.

    Raises:
        InvalidFields: a field breaks a rule.
        NotFound: there is none of this name.
        RoleBuiltIn: it is never changed.
        PreconditionFailed: it was changed since it was read.
        Forbidden: the caller lacks roles:write, or a permission that the role gives, or would give.
        RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    with resources.database.transaction() as connection:
        authorize(resources, connection, origin, claims, "roles:write")
        role = _lock(connection, name, tags)
        changed = replace(
            role,
            description=role.description if patch.description is None else patch.description,
            permissions=(
                role.permissions if patch.permissions is None else tuple(sorted(set(patch.permissions)))
            ),
            claims=role.claims if patch.claims is None else patch.claims,
            is_default=role.is_default if patch.is_default is None else patch.is_default,
            updated_at=later(origin.now, role.updated_at),
        )
        _check(changed)
        if claims is not None:
            require_permissions(connection, claims.sub, [*role.permissions, *changed.permissions])
        store.update(connection, changed)
        audit.append(connection, "role_changed", origin, **actor(claims), details=_told(changed))
    log_event("role_changed", role=name)
    return changed


def delete_role(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    name: str,
    *,
    tags: Sequence[str] | None = None,
) -> int:
    """Delete a role and take it from all who have it; return how many. Three round trips.

    Raises:
        NotFound, RoleBuiltIn, PreconditionFailed, Forbidden, RecentAuthenticationRequired, SessionEnded: as
            for `change_role`.
    """
    with resources.database.transaction() as connection:
        authorize(resources, connection, origin, claims, "roles:write")
        role = _lock(connection, name, tags)
        if claims is not None:
            require_permissions(connection, claims.sub, role.permissions)
        holders = store.count_holders(connection, name)
        store.delete(connection, name)
        details = {**_told(role), "holders": holders}
        audit.append(connection, "role_deleted", origin, **actor(claims), details=details)
    log_event("role_deleted", role=name, holders=holders)
    return holders


def set_roles(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    roles: Sequence[str],
    *,
    guard: Callable[[Connection], None] = lambda _connection: None,
) -> Sequence[str]:
    """Give an account these roles and no others; return them sorted. Two round trips.

    `guard` queues what else must hold of the account, once it is locked.

    Raises:
        InvalidFields: there is no such role, or too many.
        NotFound: there is no such account.
        LastAdministrator: nobody else could administer.
        Forbidden: the caller lacks users:write, or what the account or one of the roles may do.
        RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    with resources.database.transaction() as connection:
        authorize_over(resources, connection, origin, claims, "users:write", account_id)
        guard(connection)
        held = _find(connection, account_id, roles)
        return _replace(connection, origin, claims, account_id, set(roles), held)


def grant_role(resources: Resources, origin: Origin, account_id: UUID, role: str) -> Sequence[str]:
    """Give an account one more role, on an operator's word; return all of them sorted.

    Raises:
        InvalidFields, NotFound: as for `set_roles`.
    """
    with resources.database.transaction() as connection:
        authorize_over(resources, connection, origin, None, "users:write", account_id)
        held = _find(connection, account_id, [role])
        return _replace(connection, origin, None, account_id, held | {role}, held)


def revoke_role(resources: Resources, origin: Origin, account_id: UUID, role: str) -> Sequence[str]:
    """Take a role from an account, on an operator's word; return those that are left, sorted.

    Raises:
        InvalidFields, NotFound, LastAdministrator: as for `set_roles`.
    """
    with resources.database.transaction() as connection:
        authorize_over(resources, connection, origin, None, "users:write", account_id)
        held = _find(connection, account_id, [role])
        return _replace(connection, origin, None, account_id, held - {role}, held)


def _find(connection: Connection, account_id: UUID, roles: Sequence[str]) -> frozenset[str]:
    """Return the roles of a locked account; refuse the names of none."""
    account_roles.require_known(connection, roles)
    return store.roles_of(connection, account_id)


def _replace(
    connection: Connection,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    wanted: set[str] | frozenset[str],
    held: frozenset[str],
) -> Sequence[str]:
    added, removed = sorted(wanted - held), sorted(held - wanted)
    if added or removed:
        if claims is not None:
            # What is removed is the account's, and the account is not above the caller.
            account_roles.require_roles_permitted(connection, claims.sub, added)
        if ADMIN in removed:
            keep_an_administrator(connection, [account_id])
        account_roles.revoke(connection, [account_id], removed)
        account_roles.grant(connection, [account_id], added, origin.now)
        accounts_store.note_change(connection, account_id, origin.now)
        audit.append(
            connection,
            "roles_changed",
            origin,
            account_id=account_id,
            **actor(claims),
            details={"added": added, "removed": removed},
        )
        log_event("roles_changed", account_id=account_id, added=added, removed=removed)
    return sorted(wanted)


def _lock(connection: Connection, name: str, tags: Sequence[str] | None) -> Role:
    role = store.lock(connection, name) if _NAME.fullmatch(name) else None
    if role is None:
        raise NotFound("There is no such role.")
    if role.is_built_in:
        raise RoleBuiltIn
    if tags is not None and role.tag not in tags:
        raise PreconditionFailed
    return role


def _told(role: Role) -> dict[str, Any]:
    """Return what the audit trail says of a role: not what may be anything, as its description and claims."""
    return {"role": role.name, "permissions": list(role.permissions), "is_default": role.is_default}


def _check(role: Role) -> None:
    """Raise InvalidFields with everything that is wrong with a role."""
    wrong: list[FieldError] = []
    if not _NAME.fullmatch(role.name):
        rule = "A letter, then at most 63 letters, digits and _.:-, in lower case."
        wrong.append(FieldError("/name", "name_invalid", rule))
    if any(not _is_permission(permission) for permission in role.permissions):
        rule = "One of ours, *, or one of your own as in orders:refund, up to 64 characters."
        wrong.append(FieldError("/permissions", "permission_invalid", rule))
    if len(role.permissions) > MAXIMUM_PERMISSIONS:
        wrong.append(FieldError("/permissions", "too_many_permissions", f"At most {MAXIMUM_PERMISSIONS}."))
    if role.is_default and administers(role.permissions):
        rule = "A role that everybody is given permits nothing of the administration."
        wrong.append(FieldError("/is_default", "default_administers", rule))
    try:
        for name in role.claims:
            check_name(name)
    except ValueError as error:
        wrong.append(FieldError("/claims", "claim_invalid", str(error)))
    claims = dict(role.claims)
    size = len(json.dumps(claims, separators=(",", ":"))) + growth_in_database(claims)
    if size > MAXIMUM_CLAIMS_BYTES:
        wrong.append(FieldError("/claims", "claims_too_large", f"Over {MAXIMUM_CLAIMS_BYTES} bytes as JSON."))
    if wrong:
        raise InvalidFields(errors=wrong)


def _is_permission(permission: str) -> bool:
    """Tell whether it is one of ours, or a customer's own: not one that only looks like ours."""
    if permission == EVERYTHING or permission in PERMISSIONS:
        return True
    return bool(_PERMISSION.fullmatch(permission)) and permission.partition(":")[0] not in _OUR_PREFIXES

"""Finding, creating, changing and erasing accounts, on an administrator's word.

`claims` are those of the administrator's access token, None for an operator on the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from auth_manager import account_roles, audit, one_time_secrets, outbox
from auth_manager.accounts import service as accounts_service
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.service import ProfilePatch, Registration
from auth_manager.administrators import actor, authorize, authorize_over
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.directory import Entry, EntryPage, Filter, store
from auth_manager.erasure.service import erase
from auth_manager.errors import NotFound
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.permissions import keep_an_administrator
from auth_manager.proofs import lifetime, parse_email
from auth_manager.recovery.service import mail_reset
from auth_manager.resources import Resources
from auth_manager.roles import service as roles_service
from auth_manager.tokens import AccessClaims
from auth_manager.verification.service import OF_THE_OLD_ADDRESS, mask


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An account to be. Its owner sets the password by a mailed link."""

    email: str
    email_verified: bool = False
    username: str | None = None
    display_name: str | None = None
    locale: str | None = None
    attributes: dict[str, object] | None = None
    roles: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class EntryPatch:
    """New values of some fields; only those named in `profile.fields` change, and None clears one.

    `email` and `email_verified` None leave the address, and whether it is proven, as they are. A new address
    is not, unless `email_verified` says so.
    """

    profile: ProfilePatch = field(default_factory=lambda: ProfilePatch(frozenset()))
    email: str | None = None
    email_verified: bool | None = None


def list_entries(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    wanted: Filter,
    *,
    limit: int,
    cursor: str | None,
) -> EntryPage:
    """Return accounts that a filter matches, newest first, in one round trip.

    Raises:
        InvalidFields: the cursor is not one of this list, or `wanted.email` is no address.
        Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    context = f"users:{wanted}"
    before = UUID(bytes=resources.cursors.open(cursor, context=context)) if cursor else None
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, "users:read")
        # One more than asked tells whether there is a next page.
        found = store.list_matching(connection, resources.settings, wanted, before=before, limit=limit + 1)
    items, more = found[:limit], len(found) > limit
    last = items[-1].account.id if items else None
    return EntryPage(items, resources.cursors.seal(last.bytes, context=context) if more and last else None)


def get_entry(resources: Resources, origin: Origin, claims: AccessClaims | None, account_id: UUID) -> Entry:
    """Return one account, in one round trip.

    Raises:
        NotFound: there is none.
        Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, "users:read")
        entry = store.find(connection, account_id)
    if entry is None:
        raise NotFound
    return entry


def find_id(resources: Resources, identifier: str) -> UUID:
    """Return whose id, e-mail address or username this is, as an operator types it.

    Raises:
        NotFound: nobody's, or two accounts'.
    """
    with resources.database.one_trip() as connection:
        return accounts_store.get_id(connection, identifier)


def create_entry(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    new: NewEntry,
    *,
    record: Record[Entry] | None = None,
) -> Entry:
    """Create an account without a password, and mail its owner a link to set one; in one round trip.

    Two with `record`.

    Raises:
        InvalidFields: an identifier or the attributes break a rule, or there is no such role.
        EmailTaken, UsernameTaken: by another account.
        Forbidden: as for administrators.authorize; or a role gives what the caller lacks.
        RecentAuthenticationRequired, SessionEnded: as for administrators.authorize.
    """
    registration = Registration(
        email=new.email,
        password=None,
        username=new.username,
        display_name=new.display_name,
        locale=new.locale,
        attributes=new.attributes,
    )
    account = accounts_service.prepare_verified(resources, origin, registration)
    if not new.email_verified:
        account = replace(account, email_verified_at=None)
    trip = resources.database.transaction if record else resources.database.one_trip
    with trip() as connection:
        authorize(resources, connection, origin, claims, "users:write")
        account_roles.require_known(connection, new.roles)
        if claims:
            account_roles.require_roles_permitted(connection, claims.sub, new.roles)
        accounts_store.insert(connection, account)
        account_roles.grant(connection, [account.id], new.roles, origin.now)
        message_id = mail_reset(resources, connection, origin, account.id)
        audit.append(
            connection,
            "account_created",
            origin,
            account_id=account.id,
            details={"roles": list(new.roles)},
            **actor(claims),
        )
        entry = _get(connection, account.id)
        if record:
            record(connection, entry)
    resources.hand_over([message_id])
    count("registered")
    log_event("account_created", account_id=account.id, administrator_id=claims.sub if claims else None)
    return entry


def change_entry(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    patch: EntryPatch,
    *,
    tags: Sequence[str] | None = None,
) -> Entry:
    """Change an account, in one round trip; with `tags` only while one of them is its entry's.

    A new address is told to the old one, ends what was mailed there, and gets a mail to prove it, unless the
    administrator vouches for it.

    Raises:
        InvalidFields: a value breaks a rule.
        EmailTaken, UsernameTaken: by another account.
        PreconditionFailed: the entry changed since it was read.
        NotFound, Forbidden, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    change = accounts_service.prepare_change(patch.profile)
    email_normalized = parse_email(patch.email) if patch.email is not None else None
    changed = sorted(
        {
            *change.fields,
            *(["email"] if patch.email is not None else []),
            *(["email_verified"] if patch.email_verified is not None else []),
        }
    )
    messages: list[UUID] = []
    with resources.database.one_trip() as connection:
        authorize_over(resources, connection, origin, claims, "users:write", account_id)
        if tags is not None:
            store.require_tag(connection, account_id, tags)
        accounts_store.update_profile(connection, account_id, change, origin.now)
        if patch.email is not None and email_normalized is not None:
            messages = _change_email(
                resources,
                connection,
                origin,
                account_id,
                email=patch.email,
                email_normalized=email_normalized,
                verified=patch.email_verified,
            )
        elif patch.email_verified is not None:
            accounts_store.set_verified(connection, account_id, verified=patch.email_verified, now=origin.now)
        audit.append(
            connection,
            "account_changed",
            origin,
            account_id=account_id,
            details={"fields": changed},
            **actor(claims),
        )
        entry = _get(connection, account_id)
    if messages:
        resources.hand_over(messages)
    log_event("account_changed", account_id=account_id, administrator_id=claims.sub if claims else None)
    return entry


def _change_email(
    resources: Resources,
    connection: Connection,
    origin: Origin,
    account_id: UUID,
    *,
    email: str,
    email_normalized: str,
    verified: bool | None,
) -> list[UUID]:
    """Queue another address; return the messages to hand over."""
    notice = NewMessage(new_id(), Kind.EMAIL_CHANGED, origin.now, details={"new_email_masked": mask(email)})
    # Before the change: to the old address, if it is another one.
    outbox.add_to_account(
        connection, notice, account_id=account_id, locale=origin.locale, unless=email_normalized
    )
    accounts_store.change_email(
        connection,
        account_id,
        email=email,
        email_normalized=email_normalized,
        now=origin.now,
        verified=verified,
    )
    one_time_secrets.retire(
        connection, account_id, [*OF_THE_OLD_ADDRESS, Purpose.REAUTHENTICATE], now=origin.now
    )
    if verified:
        return [notice.id]
    secret_id = new_id()
    proof = NewMessage(new_id(), Kind.VERIFY_EMAIL, origin.now, secret_id=secret_id)
    one_time_secrets.add_for_account(
        connection,
        secret_id=secret_id,
        purpose=Purpose.VERIFY_EMAIL,
        account_id=account_id,
        now=origin.now,
        expires_at=origin.now + lifetime(resources.settings, Purpose.VERIFY_EMAIL),
    )
    outbox.add_to_owner(
        connection,
        proof,
        email_normalized=email_normalized,
        locale=origin.locale,
        unverified_only=True,
    )
    return [notice.id, proof.id]


def set_roles(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    account_id: UUID,
    roles: Sequence[str],
    *,
    tags: Sequence[str] | None = None,
) -> Sequence[str]:
    """Give an account these roles and no others; with `tags` only while one of them is its entry's.

    Raises:
        PreconditionFailed: it was changed since `tags` were told.
        InvalidFields, NotFound, LastAdministrator, Forbidden, RecentAuthenticationRequired, SessionEnded: as
            for roles.service.set_roles.
    """

    def guard(connection: Connection) -> None:
        if tags is not None:
            store.require_tag(connection, account_id, tags)

    return roles_service.set_roles(resources, origin, claims, account_id, roles, guard=guard)


def delete_entry(resources: Resources, origin: Origin, claims: AccessClaims | None, account_id: UUID) -> None:
    """Erase an account at once, in one round trip, as its owner could; a last mail says so.

    Raises:
        LastAdministrator: nobody would be left who may administer.
        Forbidden: as for administrators.authorize_over; or it is the caller's own.
        NotFound, RecentAuthenticationRequired, SessionEnded: as for administrators.authorize_over.
    """
    goodbye = new_id()
    with resources.database.one_trip() as connection:
        authorize_over(resources, connection, origin, claims, "users:delete", account_id, not_oneself=True)
        keep_an_administrator(connection, [account_id])
        erase(connection, origin, account_id, goodbye, **actor(claims))
    resources.hand_over([goodbye])
    count("account_erased")
    log_event("account_deleted", account_id=account_id, administrator_id=claims.sub if claims else None)


def _get(connection: Connection, account_id: UUID) -> Entry:
    entry = store.find(connection, account_id)
    if entry is None:
        raise NotFound
    return entry

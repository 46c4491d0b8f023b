"""Registering, reading and changing an account, and deleting it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from auth_manager import account_roles, audit, one_time_secrets, outbox, rate_limits
from auth_manager.accounts import Account, store
from auth_manager.accounts.store import NewAccount, ProfileChange
from auth_manager.audit import Origin
from auth_manager.errors import (
    EmailTaken,
    FieldError,
    InvalidFields,
    SessionEnded,
    SignUpClosed,
    TooManyRequests,
    UsernameTaken,
)
from auth_manager.idempotency import Record
from auth_manager.identifiers import normalize_email, normalize_username
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.passwords import UNUSABLE_HASH
from auth_manager.proofs import lifetime
from auth_manager.rate_limits import seconds_until
from auth_manager.resources import Resources
from auth_manager.settings import Settings
from auth_manager.tokens import AccessClaims

MAXIMUM_ATTRIBUTES = 4096
"""Bytes of `attributes` as compact JSON."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a person sends to register, as typed. `password` None: to be set by a mailed link."""

    email: str
    password: str | None = field(repr=False)
    username: str | None = None
    display_name: str | None = None
    locale: str | None = None
    attributes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of a registration.

    `account` is None where `require_verified_email` hides it. `verification` is the request that the mailed
    code belongs to, also where no mail went out.
    """

    account: Account | None
    verification: UUID


def register(
    resources: Resources,
    origin: Origin,
    registration: Registration,
    *,
    record: Record[Registered] | None = None,
) -> Registered:
    """Create an account and mail the proof of its address, in two round trips.

    A recipient who got too many such mails gets none, and the account is there all the same: registering and
    deleting it in turn would be a way to send somebody mails without end.

    With `require_verified_email` every well-formed registration does the same work and returns no account,
    whether the address was free or not (ASVS 6.3.8); the owner of the address learns the difference by mail.

    Raises:
        InvalidFields: an identifier, the password or the attributes break a rule.
        SignUpClosed: people are invited here, and the address is not of an open domain.
        TooManyRequests: too many registrations from this client, or of this e-mail address.
        EmailTaken, UsernameTaken: only without `require_verified_email`.
    """
    check = _check(resources, registration)
    _require_open_sign_up(resources.settings, check[0])
    default_roles = _reserve_registration(resources, origin, check[0])
    new = _new_account(resources, origin, registration, check)
    if resources.settings.require_verified_email:
        return _register_silently(resources, origin, new, record)
    secret_id = new_id()
    message = NewMessage(new_id(), Kind.VERIFY_EMAIL, origin.now, secret_id=secret_id)
    secret = _verification(resources, origin, new, secret_id)
    registered = Registered(new.as_account(default_roles), secret_id)
    try:
        with resources.database.one_trip() as connection:
            store.insert(connection, new)
            one_time_secrets.add(connection, secret, now=origin.now)
            audit.append(connection, "registered", origin, account_id=new.id)
            if record:
                record(connection, registered)
            mailed = outbox.add_within_limit(
                connection,
                message,
                recipient=new.email,
                account_id=new.id,
                locale=new.locale or origin.locale,
                key=rate_limits.recipient_key(rate_limits.REGISTRATION, new.email_normalized),
                limit=rate_limits.recipient_limit(resources.settings),
            )
    except (EmailTaken, UsernameTaken) as error:
        with resources.database.one_trip() as connection:
            audit.append(connection, "registered", origin, failure=error.code)
        log_event("registration_refused", reason=error.code)
        raise
    if mailed:
        resources.hand_over([message.id])
    else:
        log_event("mail_limited", purpose=rate_limits.REGISTRATION, address=origin.address)
    count("registered")
    log_event("registered", account_id=new.id)
    return registered


def _require_open_sign_up(settings: Settings, email_normalized: str) -> None:
    """Refuse a stranger where people are invited; by the domain alone, which tells nothing of accounts.

    Raises:
        SignUpClosed: so it is.
    """
    domain = email_normalized.rpartition("@")[2]
    if settings.sign_up == "closed" and domain not in {name.lower() for name in settings.sign_up_domains}:
        raise SignUpClosed


def _verification(resources: Resources, origin: Origin, new: NewAccount, secret_id: UUID) -> OneTimeSecret:
    return OneTimeSecret(
        id=secret_id,
        purpose=Purpose.VERIFY_EMAIL,
        account_id=new.id,
        email=new.email,
        email_normalized=new.email_normalized,
        details={},
        limit_key=rate_limits.account_key(new.id),
        expires_at=origin.now + lifetime(resources.settings, Purpose.VERIFY_EMAIL),
    )


def create_verified(
    resources: Resources, origin: Origin, registration: Registration, *, roles: Sequence[str] = ()
) -> Account:
    """Create an account on an operator's word: verified, with roles, without limits.

    Raises:
        InvalidFields, EmailTaken, UsernameTaken: as for `register`.
    """
    new = prepare_verified(resources, origin, registration)
    with resources.database.one_trip() as connection:
        store.insert(connection, new)
        account_roles.grant(connection, [new.id], roles, origin.now)
        audit.append(connection, "account_created", origin, account_id=new.id)
        return store.get(connection, new.id)


def prepare_verified(resources: Resources, origin: Origin, registration: Registration) -> NewAccount:
    """Return the account that a registration asks for, its address taken as proven; nothing is stored yet.

    Raises:
        InvalidFields: an identifier, the password or the attributes break a rule.
    """
    new = _new_account(resources, origin, registration, _check(resources, registration))
    return replace(new, email_verified_at=origin.now)


def _new_account(
    resources: Resources, origin: Origin, registration: Registration, check: tuple[str, str | None]
) -> NewAccount:
    email_normalized, username_normalized = check
    return NewAccount(
        id=new_id(),
        email=registration.email,
        email_normalized=email_normalized,
        email_verified_at=None,
        username=registration.username,
        username_normalized=username_normalized,
        display_name=registration.display_name,
        locale=registration.locale,
        attributes=registration.attributes or {},
        password_hash=(
            UNUSABLE_HASH
            if registration.password is None
            else resources.passwords.hash(registration.password)
        ),
        created_at=origin.now,
    )


def _register_silently(
    resources: Resources, origin: Origin, new: NewAccount, record: Record[Registered] | None
) -> Registered:
    message_id, secret_id = new_id(), new_id()
    registered = Registered(None, secret_id)
    with resources.database.transaction() as connection:
        store.insert_unless_taken(connection, new)
        one_time_secrets.add_for_new_account(
            connection, _verification(resources, origin, new, secret_id), now=origin.now
        )
        notice = outbox.add_registration_notice(
            connection,
            message_id,
            account_id=new.id,
            secret_id=secret_id,
            email=new.email,
            email_normalized=new.email_normalized,
            locale=new.locale or origin.locale,
            now=origin.now,
        )
        created = notice == Kind.VERIFY_EMAIL
        audit.append(
            connection,
            "registered",
            origin,
            account_id=new.id if created else None,
            failure=None if created else notice,
        )
        if record:
            record(connection, registered)
    resources.hand_over([message_id])
    if created:
        count("registered")
    log_event("registration_answered")
    return registered


def _check(resources: Resources, registration: Registration) -> tuple[str, str | None]:
    """Return the normalised e-mail and username, or raise InvalidFields with everything that is wrong."""
    wrong: list[FieldError] = []
    email_normalized, username_normalized = "", None
    try:
        email_normalized = normalize_email(registration.email)
    except ValueError as error:
        wrong.append(FieldError("/email", "email_invalid", str(error)))
    if registration.username is not None:
        try:
            username_normalized = normalize_username(registration.username)
        except ValueError as error:
            wrong.append(FieldError("/username", "username_invalid", str(error)))
    if registration.password is not None:
        try:
            resources.passwords.check_policy(
                registration.password, context=[registration.email, registration.username]
            )
        except InvalidFields as error:
            wrong.extend(error.errors)
    wrong.extend(attribute_errors(registration.attributes))
    if wrong:
        raise InvalidFields(errors=wrong)
    return email_normalized, username_normalized


def attribute_errors(attributes: dict[str, Any] | None) -> list[FieldError]:
    """Return what is wrong with attributes; ValueError for what is no JSON at all."""
    size = len(json.dumps(attributes or {}, separators=(",", ":"), ensure_ascii=False).encode())
    if size + growth_in_database(attributes) <= MAXIMUM_ATTRIBUTES:
        return []
    return [FieldError("/attributes", "attributes_too_large", f"Over {MAXIMUM_ATTRIBUTES} bytes as JSON.")]


def growth_in_database(value: object) -> int:
    """Count the bytes that numbers gain in the database, which writes 9e307 with all its zeros."""
    if isinstance(value, float):
        return len(format(Decimal(repr(value)), "f")) - len(repr(value))
    if isinstance(value, dict):
        return sum(map(growth_in_database, value.values()))
    return sum(map(growth_in_database, value)) if isinstance(value, list) else 0


def _reserve_registration(resources: Resources, origin: Origin, email_normalized: str) -> tuple[str, ...]:
    """Count this client's registrations before a hash is computed, and the mails where each one sends one.

    Returns the roles that a new account has, where the answer shows the account.
    """
    settings = resources.settings
    default_roles: tuple[str, ...] = ()
    with resources.database.one_trip() as connection:
        if settings.require_verified_email:
            retry_at = rate_limits.reserve_silent_registration(
                connection,
                settings,
                address=origin.address,
                email_normalized=email_normalized,
                now=origin.now,
            )
        else:
            retry_at, default_roles = store.reserve_registration(
                connection,
                rate_limits.address_key(rate_limits.REGISTRATION, origin.address),
                rate_limits.registration_limit(settings),
                origin.now,
            )
    if retry_at is not None:
        log_event("registration_limited", address=origin.address)
        raise TooManyRequests(
            "Too many registrations from this address.", retry_after=seconds_until(retry_at, origin.now)
        )
    return default_roles


def get_profile(resources: Resources, origin: Origin, claims: AccessClaims) -> Account:
    """Return the caller's account as it is now, in one round trip.

    Raises:
        SessionEnded: the session ended, or the account was disabled or deleted.
    """
    with resources.database.one_trip() as connection:
        account = store.find_by_live_session(connection, claims, origin.now)
    if account is None:
        raise SessionEnded
    return account


@dataclass(frozen=True, slots=True)
class ProfilePatch:
    """New values of some fields; only those named in `fields` change, and None clears one."""

    fields: frozenset[str]
    username: str | None = None
    display_name: str | None = None
    locale: str | None = None
    attributes: dict[str, Any] | None = None


def change_profile(
    resources: Resources, origin: Origin, claims: AccessClaims, patch: ProfilePatch
) -> Account:
    """Change the caller's profile, in one round trip.

    Raises:
        InvalidFields: a value breaks a rule.
        UsernameTaken: by another account.
        Forbidden: somebody acts for the owner, who signs in with the username.
        SessionEnded: as for `get_profile`.
    """
    change = prepare_change(patch)
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now, impersonated_too="username" not in patch.fields)
        audit.append(connection, "profile_changed", origin, account_id=claims.sub, session_id=claims.sid)
        store.update_profile(connection, claims.sub, change, origin.now)
        account = store.fetch(connection, claims.sub)
    if account is None:  # deleted after the guard, in the same moment
        raise SessionEnded
    return account


def prepare_change(patch: ProfilePatch) -> ProfileChange:
    """Return the change that a patch asks for; nothing is stored yet.

    Raises:
        InvalidFields: a value breaks a rule.
    """
    wrong = attribute_errors(patch.attributes)
    username_normalized = None
    if patch.username is not None:
        try:
            username_normalized = normalize_username(patch.username)
        except ValueError as error:
            wrong.append(FieldError("/username", "username_invalid", str(error)))
    if wrong:
        raise InvalidFields(errors=wrong)
    return ProfileChange(
        fields=patch.fields,
        username=patch.username,
        username_normalized=username_normalized,
        display_name=patch.display_name,
        locale=patch.locale,
        attributes=patch.attributes,
    )

"""Registering, reading and changing an account, and deleting it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from auth_manager import audit, outbox, rate_limits
from auth_manager.accounts import Account, store
from auth_manager.accounts.store import NewAccount, ProfileChange
from auth_manager.audit import Origin
from auth_manager.errors import (
    EmailTaken,
    FieldError,
    InvalidFields,
    RecentAuthenticationRequired,
    SessionEnded,
    TooManyRequests,
    UsernameTaken,
)
from auth_manager.idempotency import Record
from auth_manager.identifiers import normalize_email, normalize_username
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.observability import count, log_event
from auth_manager.rate_limits import Limit, address_key, seconds_until
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims

MAXIMUM_ATTRIBUTES = 4096
"""Bytes of `attributes` as compact JSON."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a person sends to register, as typed."""

    email: str
    password: str = field(repr=False)
    username: str | None = None
    display_name: str | None = None
    attributes: dict[str, Any] | None = None


def register(
    resources: Resources,
    origin: Origin,
    registration: Registration,
    *,
    record: Record[Account | None] | None = None,
) -> Account | None:
    """Create an account, in two round trips.

    With `require_verified_email` every well-formed registration does the same work and returns None, whether
    the address was free or not (ASVS 6.3.8); the owner of the address learns the difference by mail.

    Raises:
        InvalidFields: an identifier, the password or the attributes break a rule.
        TooManyRequests: too many registrations from this address.
        EmailTaken, UsernameTaken: only without `require_verified_email`.
    """
    check = _check(resources, registration)
    _reserve_registration(resources, origin)
    new = _new_account(resources, origin, registration, check)
    if resources.settings.require_verified_email:
        _register_silently(resources, origin, new, record)
        return None
    try:
        with resources.database.one_trip() as connection:
            store.insert(connection, new)
            outbox.add_verification(connection, new.email, account_id=new.id, now=origin.now)
            audit.append(connection, "registered", origin, account_id=new.id)
            if record:
                record(connection, new.as_account())
    except (EmailTaken, UsernameTaken) as error:
        with resources.database.one_trip() as connection:
            audit.append(connection, "registered", origin, failure=error.code)
        log_event("registration_refused", reason=error.code)
        raise
    count("registered")
    log_event("registered", account_id=new.id)
    return new.as_account()


def create_verified(
    resources: Resources, origin: Origin, registration: Registration, *, roles: Sequence[str] = ()
) -> Account:
    """Create an account on an operator's word: verified, with roles, without limits.

    Raises:
        InvalidFields, EmailTaken, UsernameTaken: as for `register`.
    """
    new = replace(
        _new_account(resources, origin, registration, _check(resources, registration)),
        email_verified_at=origin.now,
    )
    with resources.database.one_trip() as connection:
        store.insert(connection, new)
        for role in roles:
            store.grant_role(connection, new.id, role, origin.now)
        audit.append(connection, "account_created", origin, account_id=new.id)
    return replace(new.as_account(), roles=tuple(roles))


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
        attributes=registration.attributes or {},
        password_hash=resources.passwords.hash(registration.password),
        created_at=origin.now,
    )


def _register_silently(
    resources: Resources, origin: Origin, new: NewAccount, record: Record[Account | None] | None
) -> None:
    with resources.database.transaction() as connection:
        store.insert_unless_taken(connection, new)
        notice = outbox.add_registration_notice(
            connection,
            account_id=new.id,
            email=new.email,
            email_normalized=new.email_normalized,
            now=origin.now,
        )
        created = notice == outbox.VERIFY_EMAIL
        audit.append(
            connection,
            "registered",
            origin,
            account_id=new.id if created else None,
            failure=None if created else notice,
        )
        if record:
            record(connection, None)
    if created:
        count("registered")
    log_event("registration_answered")


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
    try:
        resources.passwords.check_policy(
            registration.password, context=[registration.email, registration.username]
        )
    except InvalidFields as error:
        wrong.extend(error.errors)
    wrong.extend(_attribute_errors(registration.attributes))
    if wrong:
        raise InvalidFields(errors=wrong)
    return email_normalized, username_normalized


def _attribute_errors(attributes: dict[str, Any] | None) -> list[FieldError]:
    size = len(json.dumps(attributes or {}, separators=(",", ":"), ensure_ascii=False).encode())
    if size + _growth(attributes) <= MAXIMUM_ATTRIBUTES:
        return []
    return [FieldError("/attributes", "attributes_too_large", f"Over {MAXIMUM_ATTRIBUTES} bytes as JSON.")]


def _growth(value: object) -> int:
    """Count the bytes that numbers gain in the database, which writes 9e307 with all its zeros."""
    if isinstance(value, float):
        return len(format(Decimal(repr(value)), "f")) - len(repr(value))
    if isinstance(value, dict):
        return sum(_growth(item) for item in value.values())
    return sum(_growth(item) for item in value) if isinstance(value, list) else 0


def _reserve_registration(resources: Resources, origin: Origin) -> None:
    """Count this address's registrations before a hash is computed for one."""
    settings = resources.settings
    limit = Limit(
        maximum=settings.registrations_per_address,
        window=timedelta(seconds=settings.registration_window),
    )
    with resources.database.one_trip() as connection:
        retry_at = rate_limits.reserve(connection, address_key("register", origin.address), limit, origin.now)
    if retry_at is not None:
        log_event("registration_limited", address=origin.address)
        raise TooManyRequests(
            "Too many registrations from this address.", retry_after=seconds_until(retry_at, origin.now)
        )


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
    attributes: dict[str, Any] | None = None


def change_profile(
    resources: Resources, origin: Origin, claims: AccessClaims, patch: ProfilePatch
) -> Account:
    """Change the caller's profile, in one round trip.

    Raises:
        InvalidFields: a value breaks a rule.
        UsernameTaken: by another account.
        SessionEnded: as for `get_profile`.
    """
    wrong = _attribute_errors(patch.attributes)
    username_normalized = None
    if patch.username is not None:
        try:
            username_normalized = normalize_username(patch.username)
        except ValueError as error:
            wrong.append(FieldError("/username", "username_invalid", str(error)))
    if wrong:
        raise InvalidFields(errors=wrong)
    change = ProfileChange(
        fields=patch.fields,
        username=patch.username,
        username_normalized=username_normalized,
        display_name=patch.display_name,
        attributes=patch.attributes,
    )
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        audit.append(connection, "profile_changed", origin, account_id=claims.sub, session_id=claims.sid)
        account = store.update_profile(connection, claims.sub, change, origin.now)
    if account is None:  # deleted after the guard, in the same moment
        raise SessionEnded
    return account


def delete_own_account(resources: Resources, origin: Origin, claims: AccessClaims) -> None:
    """Erase the caller's account and everything that hangs on it; the audit trail keeps its bare id.

    Raises:
        RecentAuthenticationRequired: the sign-in is older than the setting allows (ASVS 7.5.1).
        SessionEnded: as for `get_profile`.
    """
    require_recent_authentication(claims, origin.now, resources.settings.recent_authentication)
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        audit.append(connection, "account_deleted", origin, account_id=claims.sub, session_id=claims.sid)
        outbox.forget(connection, claims.sub)
        rate_limits.clear(connection, rate_limits.account_key(claims.sub))
        store.delete(connection, claims.sub)
    log_event("account_deleted", account_id=claims.sub)


def require_recent_authentication(claims: AccessClaims, now: datetime, maximum_age: int) -> None:
    """Refuse a sensitive step after a sign-in older than `maximum_age` seconds (RFC 9470).

    Raises:
        RecentAuthenticationRequired: with the challenge that says so.
    """
    if now - claims.auth_time > timedelta(seconds=maximum_age):
        raise RecentAuthenticationRequired(
            "Sign in again, then retry.",
            headers={
                "WWW-Authenticate": 'Bearer error="insufficient_user_authentication", '
                f'error_description="A more recent authentication is required", max_age="{maximum_age}"'
            },
        )

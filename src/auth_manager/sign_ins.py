"""Opening a session once enough was proven: the one place that decides whether a second factor is needed.

Every way in (password, mail, passkey) ends here, so that no way skips a factor (ASVS 6.3.4).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from auth_manager import audit, known_devices, one_time_secrets, rate_limits
from auth_manager.accounts import Account
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import AuthError, MfaEnrolmentRequired, MfaRequired
from auth_manager.factors import MULTI_FACTOR_ACR, SINGLE_FACTOR_ACR, trusted_devices
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.permissions import administers
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import TokenGrant, issue_tokens, new_session
from auth_manager.settings import Settings


class FirstMethod(StrEnum):
    """How somebody began to sign in."""

    PASSWORD = "password"  # noqa: S105 -- a method
    MAIL = "mail"
    PASSKEY = "passkey"


AMR = {FirstMethod.PASSWORD: ("pwd",), FirstMethod.MAIL: ("otp",), FirstMethod.PASSKEY: ("pop",)}
"""RFC 8176. It has no value for mail, whose code is a one-time password, nor for a passkey, which proves the
possession of a key."""

EVENTS = {
    FirstMethod.PASSWORD: "logged_in",
    FirstMethod.MAIL: "logged_in_by_mail",
    FirstMethod.PASSKEY: "logged_in_by_passkey",
}
"""What the audit trail calls it."""


@dataclass(frozen=True, slots=True)
class FirstFactor:
    """Whom a first factor proved, and what else the account could be asked for as it was read.

    `factors` are what `factors_of` in the migrations returns. `complete` says that it was two factors in one:
    a passkey that verified its user. `trusted_device` was presented and stands.
    """

    account: Account
    password_changed_at: datetime
    factors_changed_at: datetime | None
    factors: Sequence[str]
    method: FirstMethod
    complete: bool = False
    trusted_device: UUID | None = None


def _nothing(_connection: Connection) -> None:
    pass


def sign_in(
    resources: Resources,
    origin: Origin,
    first: FirstFactor,
    *,
    before: Callable[[Connection], None] = _nothing,
    writes: Callable[[Connection], None] = _nothing,
    record: Record[TokenGrant] | None = None,
) -> TokenGrant:
    """Open a session, in one round trip; or, where a factor is missing, note what was proven and ask for it.

    Args:
        resources: what services work with.
        origin: of the request.
        first: what was proven.
        before: queues what comes before the account's counter is touched: the use of a secret, the client's
            counter.
        writes: queues what changes about the account, its row locked or not.
        record: of an Idempotency-Key.

    Raises:
        MfaRequired, MfaEnrolmentRequired: with the token to go on with. `before` and `writes` are kept.
        InvalidCredentials: the account was disabled, or its password or factors changed, since it was read.
    """
    missing = _find_missing(resources.settings, first)
    if missing:
        raise _ask(resources, origin, first, missing, before, writes)
    return open_session(
        resources,
        origin,
        first,
        amr=(*AMR[first.method], *(["mfa", "user"] if first.complete else [])),
        acr=MULTI_FACTOR_ACR if first.complete else SINGLE_FACTOR_ACR,
        before=before,
        writes=writes,
        record=record,
    )


def open_session(
    resources: Resources,
    origin: Origin,
    first: FirstFactor,
    *,
    amr: Sequence[str],
    acr: str,
    before: Callable[[Connection], None] = _nothing,
    writes: Callable[[Connection], None] = _nothing,
    record: Record[TokenGrant] | None = None,
) -> TokenGrant:
    """Open a session for who proved all that is needed; as `sign_in`, which most callers want.

    Raises:
        InvalidCredentials: as for `sign_in`.
    """
    account = first.account
    session, line = new_session(resources, origin, account.id, amr=sorted(set(amr)), acr=acr)
    tokens = issue_tokens(resources, origin, session=session, line=line, account=account)
    with resources.database.one_trip() as connection:
        before(connection)
        # Before the account's row is locked, here as wherever both are.
        rate_limits.clear(connection, rate_limits.account_key(account.id))
        if acr == MULTI_FACTOR_ACR:
            rate_limits.clear(connection, rate_limits.factor_key(account.id))
        writes(connection)
        sessions_store.insert(
            connection,
            session,
            line,
            password_changed_at=first.password_changed_at,
            factors_changed_at=first.factors_changed_at,
        )
        if first.trusted_device:
            trusted_devices.note_use(connection, first.trusted_device, origin)
        known_devices.greet(connection, resources.settings, origin, account.id)
        audit.append(connection, EVENTS[first.method], origin, account_id=account.id, session_id=session.id)
        if record:
            record(connection, tokens)
    count("login_succeeded")
    log_event("login_succeeded", account_id=account.id, session_id=session.id, method=first.method.value)
    return tokens


def must_have_factor(settings: Settings, permissions: Collection[str]) -> bool:
    """Tell whether AUTH_MFA_POLICY asks an account with these permissions for a second factor."""
    if settings.mfa_policy == "required_for_admins":
        return administers(permissions)
    return settings.mfa_policy == "required"


def _find_missing(settings: Settings, first: FirstFactor) -> Purpose | None:
    """Return what the token to go on with is for, None when nothing is missing."""
    if first.complete:
        return None
    enrolled = {factor for factor in first.factors if factor != "recovery_code"}
    if not enrolled:
        return Purpose.ENROL_FACTOR if must_have_factor(settings, first.account.permissions) else None
    if first.method is FirstMethod.PASSKEY and enrolled == {"passkey"}:
        return None  # it was presented just now
    return None if first.trusted_device else Purpose.SECOND_FACTOR


def _ask(
    resources: Resources,
    origin: Origin,
    first: FirstFactor,
    purpose: Purpose,
    before: Callable[[Connection], None],
    writes: Callable[[Connection], None],
) -> AuthError:
    """Write down that the first factor was passed; return the error that says how to go on.

    The reservation is given back but the run of failures stands: who knows the password shall not get new
    guesses of the second factor by typing it again (ASVS 6.3.1).
    """
    account = first.account
    lifetime = timedelta(seconds=resources.settings.mfa_token_lifetime)
    ticket = OneTimeSecret(
        id=new_id(),
        purpose=purpose,
        account_id=account.id,
        email=None,
        email_normalized=None,
        details={
            "method": first.method.value,
            "password_changed_at": first.password_changed_at.isoformat(),
        },
        limit_key=rate_limits.account_key(account.id),
        expires_at=origin.now + lifetime,
    )
    with resources.database.one_trip() as connection:
        before(connection)
        rate_limits.give_back(connection, ticket.limit_key)
        writes(connection)
        one_time_secrets.add(connection, ticket, now=origin.now)
        audit.append(connection, "first_factor_passed", origin, account_id=account.id)
    log_event("first_factor_passed", account_id=account.id, method=first.method.value)
    members: dict[str, Any] = {
        "mfa_token": resources.one_time_secrets.token(purpose, ticket.id),
        "expires_in": resources.settings.mfa_token_lifetime,
    }
    if purpose is Purpose.ENROL_FACTOR:
        return MfaEnrolmentRequired(members=members)
    asked = [factor for factor in first.factors if factor != first.method.value]
    return MfaRequired(members=members | {"factors": asked})

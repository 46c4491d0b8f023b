"""The second step of a sign-in, setting up a factor that a policy asks for, and what an account has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from auth_manager import audit, live_sessions, one_time_secrets, rate_limits
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection, Row
from auth_manager.errors import (
    AccountDisabled,
    EmailNotVerified,
    FactorNeeded,
    InvalidCredentials,
    InvalidFactor,
    InvalidMfaToken,
    InvalidOneTimeSecret,
    NotFound,
    SessionEnded,
    TooManyAttempts,
)
from auth_manager.factors import (
    MULTI_FACTOR_ACR,
    changes,
    checks,
    passkeys,
    recovery_codes,
    totp,
    trusted_devices,
)
from auth_manager.factors.changes import Change, Enrolee, enrolee_of
from auth_manager.factors.checks import Check, Presented, Verified
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.mfa import Overview, store
from auth_manager.observability import count
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import TokenGrant
from auth_manager.sign_ins import AMR, FirstFactor, FirstMethod, open_session
from auth_manager.tokens import AccessClaims
from auth_manager.totp import service as totp_service
from auth_manager.totp.service import Enrolment


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Some of the trusted devices, and the cursor of what follows, None at the end."""

    items: Sequence[Row]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class SecondStep:
    """A finished sign-in; `device_token` where the device is trusted from now on, `recovery_codes` once."""

    tokens: TokenGrant
    device_token: str | None = field(default=None, repr=False)
    device_expires_in: int | None = None
    recovery_codes: Sequence[str] = field(default=(), repr=False)


def log_in(
    resources: Resources,
    origin: Origin,
    mfa_token: str,
    presented: Presented,
    *,
    trust_device: bool = False,
    record: Record[SecondStep] | None = None,
) -> SecondStep:
    """Finish a sign-in by a second factor, in two round trips.

    A wrong factor leaves the token good; a right one uses it up. All that a password sign-in refuses is
    refused here again, because it may have come about in between (ASVS 6.3.4).

    Raises:
        InvalidMfaToken: forged, expired, used; or the password changed since.
        InvalidFactor: for every reason alike.
        TooManyAttempts: the account was guessed at too often, by whatever way.
        AccountDisabled, EmailNotVerified: the account is.
    """
    ticket_id = _parse(resources, mfa_token, Purpose.SECOND_FACTOR)
    with resources.database.one_trip() as connection:
        check = checks.reserve(
            connection,
            presented,
            ticket_id=ticket_id,
            challenge_context=f"second_factor:{ticket_id}",
            settings=resources.settings,
            now=origin.now,
        )
    if check is None:
        raise InvalidMfaToken
    if check.retry_at is not None:
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(check.retry_at, origin.now))
    first = _first_factor(resources, origin, check)
    try:
        verified = checks.verify(resources, origin, check, presented, first=first.method.value)
        return _finish(
            resources, origin, first, ticket_id, verified, trust_device=trust_device, record=record
        )
    except (InvalidFactor, InvalidCredentials):
        # The second: the account changed while the factor was being checked.
        checks.record_failure(resources, origin, check, presented)
        count("login_failed")
        raise InvalidFactor from None


def _parse(resources: Resources, mfa_token: str, purpose: Purpose) -> UUID:
    try:
        return resources.one_time_secrets.parse(mfa_token, (purpose,))[0]
    except InvalidOneTimeSecret:
        raise InvalidMfaToken from None


def _first_factor(resources: Resources, origin: Origin, check: Check) -> FirstFactor:
    """Return what the first step proved, unless the account became one that may not sign in."""
    account = check.account
    refused: type[AccountDisabled | EmailNotVerified | InvalidMfaToken] | None = None
    if account.disabled_at is not None:
        refused = AccountDisabled
    elif resources.settings.require_verified_email and account.email_verified_at is None:
        refused = EmailNotVerified
    elif check.details["password_changed_at"] != check.password_changed_at.isoformat():
        refused = InvalidMfaToken
    if refused:
        with resources.database.one_trip() as connection:
            rate_limits.give_back(connection, rate_limits.account_key(account.id))
            rate_limits.give_back(connection, rate_limits.factor_key(account.id))
            audit.append(connection, "factor_presented", origin, account_id=account.id, failure=refused.code)
        raise refused
    return FirstFactor(
        account=account,
        password_changed_at=check.password_changed_at,
        factors_changed_at=check.factors_changed_at,
        factors=check.factors,
        method=FirstMethod(check.details["method"]),
    )


def _finish(
    resources: Resources,
    origin: Origin,
    first: FirstFactor,
    ticket_id: UUID,
    verified: Verified,
    *,
    trust_device: bool,
    record: Record[SecondStep] | None,
) -> SecondStep:
    lifetime = resources.settings.trusted_device_lifetime
    device_id = new_id() if trust_device and lifetime else None
    device_token = trusted_devices.issue_token(resources.secret_keys, device_id) if device_id else None

    def write(connection: Connection) -> None:
        # The account before the ticket, like whoever ends what is open of an account.
        verified.use(connection)
        one_time_secrets.use(connection, ticket_id, use_id=use_id, now=origin.now, otherwise=InvalidFactor())
        if device_id:
            trusted_devices.add(
                connection,
                device_id,
                origin,
                account_id=first.account.id,
                password_changed_at=first.password_changed_at,
                lifetime=timedelta(seconds=lifetime),
            )

    def step(tokens: TokenGrant) -> SecondStep:
        return SecondStep(tokens, device_token, lifetime if device_token else None)

    use_id = new_id()
    tokens = open_session(
        resources,
        origin,
        first,
        amr=(*AMR[first.method], *verified.amr),
        acr=MULTI_FACTOR_ACR,
        writes=write,
        record=_recording(record, step),
    )
    return step(tokens)


def _recording(
    record: Record[SecondStep] | None, step: Callable[[TokenGrant], SecondStep]
) -> Record[TokenGrant] | None:
    if record is None:
        return None
    return lambda connection, tokens: record(connection, step(tokens))


# --- setting up a factor that a policy asks for, before there is a session --------------------------


def start_enrolment(
    resources: Resources, origin: Origin, mfa_token: str, *, record: Record[Enrolment] | None = None
) -> Enrolment:
    """Begin to set up one-time passwords for who must have a second factor.

    Raises:
        InvalidMfaToken: forged, expired, used; or the password changed, or the account has a factor by now.
        AccountDisabled: the account is.
        EmailNotVerified: the address must be proven first.
    """
    ticket = _find_ticket(resources, origin, mfa_token)
    return totp_service.start(resources, origin, _enrolee(origin, ticket), record=record)


def finish_enrolment(
    resources: Resources,
    origin: Origin,
    mfa_token: str,
    code: str,
    *,
    record: Record[SecondStep] | None = None,
) -> SecondStep:
    """Confirm the factor by a first code, and finish the sign-in with it.

    Raises:
        InvalidMfaToken: forged, expired, used; or the password changed since.
        InvalidFields: the code is wrong, at `/code`.
        AccountDisabled: the account is.
    """
    ticket = _find_ticket(resources, origin, mfa_token)
    codes = totp_service.confirm(resources, origin, _enrolee(origin, ticket), code)
    with resources.database.one_trip() as connection:
        credentials = accounts_store.find_credentials(connection, ticket.account_id or ticket.id)
    if credentials is None:
        raise InvalidMfaToken
    first = FirstFactor(
        account=credentials.account,
        password_changed_at=_password_changed_at(ticket),
        factors_changed_at=credentials.factors_changed_at,
        factors=credentials.factors,
        method=FirstMethod(ticket.details["method"]),
    )
    try:
        tokens = open_session(
            resources,
            origin,
            first,
            amr=(*AMR[first.method], "otp", "mfa"),
            acr=MULTI_FACTOR_ACR,
            writes=partial(
                one_time_secrets.use,
                secret_id=ticket.id,
                use_id=new_id(),
                now=origin.now,
                otherwise=InvalidMfaToken(),
            ),
            record=_recording(record, lambda tokens: SecondStep(tokens, recovery_codes=codes)),
        )
    except InvalidCredentials:  # the account changed meanwhile
        raise InvalidMfaToken from None
    return SecondStep(tokens, recovery_codes=codes)


def _find_ticket(resources: Resources, origin: Origin, mfa_token: str) -> OneTimeSecret:
    ticket_id = _parse(resources, mfa_token, Purpose.ENROL_FACTOR)
    with resources.database.one_trip() as connection:
        ticket = one_time_secrets.find_live(connection, ticket_id, Purpose.ENROL_FACTOR, now=origin.now)
    if ticket is None or ticket.account_id is None:
        raise InvalidMfaToken
    return ticket


def _password_changed_at(ticket: OneTimeSecret) -> datetime:
    return datetime.fromisoformat(ticket.details["password_changed_at"])


def _enrolee(origin: Origin, ticket: OneTimeSecret) -> Enrolee:
    account_id = ticket.account_id or ticket.id

    def guard(connection: Connection) -> None:
        one_time_secrets.require_live(
            connection, ticket.id, Purpose.ENROL_FACTOR, now=origin.now, otherwise=InvalidMfaToken()
        )
        # Who passed the first step may have lost the account since, and shall leave no factor on it.
        accounts_store.require_enabled(connection, account_id, otherwise=AccountDisabled())
        accounts_store.require_password_unchanged(
            connection, account_id, _password_changed_at(ticket), otherwise=InvalidMfaToken()
        )
        # Who enrolled in the meantime proves that factor, and adds no other by the password alone.
        changes.require_no_factors(connection, account_id, otherwise=InvalidMfaToken())

    return Enrolee(account_id=account_id, context=f"registration:{ticket.id}", guard=guard)


# --- what an account has ---------------------------------------------------------------------------


def overview(resources: Resources, origin: Origin, claims: AccessClaims) -> Overview:
    """Return what second factors the caller has, in one round trip.

    Raises:
        SessionEnded: the session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now, impersonated_too=True)
        found = store.find_overview(connection, claims.sub)
    if found is None:  # deleted after the guard, in the same moment
        raise SessionEnded
    return found


def make_recovery_codes(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    *,
    record: Record[Sequence[str]] | None = None,
) -> Sequence[str]:
    """Replace the caller's recovery codes and return the new ones, to be shown once, in two round trips.

    Raises:
        RecentAuthenticationRequired: the session was not stepped up (ASVS 7.5.1).
        FactorNeeded: there is no second factor that they could stand in for.
        TooManyRequests: made too often; each time costs as much as ten logins.
        SessionEnded: the session ended.
    """
    live_sessions.require_recent_authentication(claims, origin.now, resources.settings.recent_authentication)
    guard = enrolee_of(resources, origin, claims).guard
    with resources.database.one_trip() as connection:  # before ten hashes are computed
        guard(connection)
        changes.require_factors(connection, claims.sub, otherwise=FactorNeeded())
        rate_limits.require_factor_change(connection, claims.sub, origin.now)
    codes = recovery_codes.generate()
    made = recovery_codes.hash_codes(resources.passwords, codes)
    with resources.database.one_trip() as connection:
        guard(connection)
        changes.require_factors(connection, claims.sub, otherwise=FactorNeeded())
        recovery_codes.replace(connection, claims.sub, made, now=origin.now)
        changes.tell(connection, origin, claims.sub, Change.RECOVERY_CODES_MADE, session_id=claims.sid)
        if record:
            record(connection, codes)
    return codes


def list_devices(
    resources: Resources, origin: Origin, claims: AccessClaims, *, limit: int, cursor: str | None
) -> DevicePage:
    """Return the devices that the caller trusts, newest first, in one round trip.

    Raises:
        InvalidFields: the cursor is not one of this list.
        SessionEnded: the session ended.
    """
    context = f"trusted devices:{claims.sub}"
    before = UUID(bytes=resources.cursors.open(cursor, context=context)) if cursor else None
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now, impersonated_too=True)
        # One more than asked tells whether there is a next page.
        found = trusted_devices.list_of(
            connection, claims.sub, now=origin.now, before=before, limit=limit + 1
        )
    items, more = found[:limit], len(found) > limit
    return DevicePage(items, resources.cursors.seal(items[-1]["id"].bytes, context=context) if more else None)


def revoke_device(resources: Resources, origin: Origin, claims: AccessClaims, device_id: UUID) -> None:
    """End the trust in one of the caller's devices, in one round trip.

    Raises:
        NotFound: it is none of the caller's (ASVS 8.2.2).
        SessionEnded: the session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        trusted_devices.revoke(connection, claims.sub, device_id)
        audit.append(
            connection, "trusted_device_revoked", origin, account_id=claims.sub, session_id=claims.sid
        )


def remove_factors(connection: Connection, origin: Origin, account_id: UUID) -> None:
    """Queue the removal of every factor, and the end of every session; the round trip may raise NotFound.

    For people who lost all their factors and recovery codes. They sign in with what is left, and where a
    policy asks for a factor, they set a new one up. The caller clears the counters first: they come before
    the account's row, as at a login.
    """
    accounts_store.require_exists(connection, account_id, otherwise=NotFound())
    for remove in (
        totp.remove_all,
        passkeys.remove_all,
        recovery_codes.remove_all,
        trusted_devices.revoke_all,
    ):
        remove(connection, account_id)
    sessions_store.end_sessions(connection, account_id, reason="mfa_reset", now=origin.now)
    one_time_secrets.retire(
        connection, account_id, [Purpose.SECOND_FACTOR, Purpose.ENROL_FACTOR], now=origin.now
    )
    changes.note(connection, origin, account_id, Change.MFA_RESET)
    count("mfa_reset")

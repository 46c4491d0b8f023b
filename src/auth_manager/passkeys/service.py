"""Registering passkeys, signing in with them alone, and looking after them.

As a second factor, and to authenticate again, they are verified where all factors are (factors/checks.py).
Every ceremony has a challenge that counts once, for its purpose and for whoever began it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from auth_manager import audit, lockouts, one_time_secrets, rate_limits
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import (
    AccountDisabled,
    AuthError,
    EmailNotVerified,
    FactorNeeded,
    FieldError,
    InvalidCredentials,
    InvalidFields,
    InvalidMfaToken,
    InvalidOneTimeSecret,
    InvalidPasskey,
    NotFound,
    SessionEnded,
    TooManyAttempts,
    TooManyRequests,
)
from auth_manager.factors import MULTI_FACTOR_ACR, ceremonies, passkeys, recovery_codes
from auth_manager.factors.ceremonies import NewChallenge, new_challenge
from auth_manager.factors.changes import (
    Change,
    Enrolee,
    end_what_stood_in,
    enrolee_of,
    note,
    require_proven_address,
)
from auth_manager.factors.passkeys import Assertion, Passkey
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import Purpose
from auth_manager.passkeys import store
from auth_manager.passkeys.store import Attempt
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import TokenGrant
from auth_manager.sign_ins import FirstFactor, FirstMethod, must_have_factor, sign_in
from auth_manager.tokens import AccessClaims

SIGN_IN = "sign_in"
"""The context of a challenge that anybody may ask for."""


@dataclass(frozen=True, slots=True)
class Ceremony:
    """The options for a browser, and the request that goes back with what it made of them."""

    request: UUID
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Registered:
    """A new passkey; and recovery codes, where the account had none left."""

    passkey: Passkey
    recovery_codes: Sequence[str] = field(repr=False)


# --- registering -----------------------------------------------------------------------------------


def registration_options(resources: Resources, origin: Origin, enrolee: Enrolee) -> Ceremony:
    """Begin to register a passkey, in one round trip.

    Raises:
        TooManyFactors: the account has as many as it may have.
        EmailNotVerified: the address must be proven first.
        AuthError: what the enrolee's guard raises.
    """
    challenge = new_challenge(
        resources.settings,
        origin,
        Purpose.PASSKEY_REGISTRATION,
        context=enrolee.context,
        account_id=enrolee.account_id,
    )
    with resources.database.one_trip() as connection:
        enrolee.guard(connection)
        require_proven_address(connection, resources.settings, enrolee.account_id)
        passkeys.require_room(connection, enrolee.account_id)
        ceremonies.require_few_challenges(connection, enrolee.context, origin)
        challenge.write(connection)
        holder = passkeys.find_holder(connection, enrolee.account_id)
    if holder is None:  # the guard just saw it
        raise NotFound
    options = ceremonies.creation_options(
        resources.settings, holder.account, holder.passkeys, challenge=challenge.value
    )
    return Ceremony(challenge.request, options)


def register(
    resources: Resources,
    origin: Origin,
    enrolee: Enrolee,
    request: UUID,
    credential: Mapping[str, Any],
    name: str | None = None,
    *,
    record: Record[Registered] | None = None,
) -> Registered:
    """Take a passkey as a factor, in two round trips. The session of the enrolee has two factors from now on.

    `name` None: numbered.

    Raises:
        InvalidFields: it cannot be verified, or not for this request, at `/credential`.
        PasskeyKnown: it is registered, with this account or another.
        TooManyFactors: the account has as many as it may have.
        TooManyRequests: tried too often.
        EmailNotVerified: the address must be proven first.
        AuthError: what the enrolee's guard raises.
    """
    account_id = enrolee.account_id
    with resources.database.one_trip() as connection:
        enrolee.guard(connection)
        rate_limits.require_factor_change(connection, account_id, origin.now)
        challenge = passkeys.find_challenge(
            connection, request, account_id, context=enrolee.context, now=origin.now
        )
    if challenge is None:
        raise _refused()
    registration = ceremonies.verify_registration(resources.settings, credential, challenge=challenge.value)
    if registration is None:
        raise _refused()
    codes = [] if challenge.recovery_codes_left else recovery_codes.generate()
    made = recovery_codes.hash_codes(resources.passwords, codes)
    passkey = Passkey(
        id=new_id(),
        name=name or f"Passkey {challenge.passkeys + 1}",
        credential_id=registration.credential_id,
        transports=registration.transports,
        aaguid=registration.aaguid,
        attestation_format=registration.attestation_format,
        backed_up=registration.backed_up,
        created_at=origin.now,
        last_used_at=None,
    )
    registered = Registered(passkey, codes)
    with resources.database.one_trip() as connection:
        enrolee.guard(connection)
        require_proven_address(connection, resources.settings, account_id)
        # Locks the account, so that parallel ones are counted.
        note(
            connection,
            origin,
            account_id,
            Change.PASSKEY_ADDED,
            session_id=enrolee.session_id,
            name=passkey.name,
        )
        one_time_secrets.use(connection, request, use_id=new_id(), now=origin.now, otherwise=_refused())
        passkeys.add(
            connection, passkey.id, registration, account_id=account_id, name=passkey.name, now=origin.now
        )
        if codes:
            recovery_codes.add_first(connection, account_id, made, now=origin.now)
        if record:
            record(connection, registered)
        if enrolee.session_id:
            sessions_store.renew_authentication(
                connection,
                enrolee.session_id,
                amr=["mfa", "pop", *(["user"] if registration.user_verified else [])],
                acr=MULTI_FACTOR_ACR,
                now=origin.now,
            )
    log_event("passkey_added", account_id=account_id, attestation_format=registration.attestation_format)
    return registered


def _refused() -> InvalidFields:
    detail = "This passkey could not be verified. Ask for new options, and try again."
    return InvalidFields(errors=[FieldError("/credential", "passkey_refused", detail)])


# --- signing in ------------------------------------------------------------------------------------


def authentication_options(
    resources: Resources,
    origin: Origin,
    *,
    claims: AccessClaims | None = None,
    mfa_token: str | None = None,
) -> Ceremony:
    """Begin to authenticate: as the second factor of a sign-in, within a session, or knowing nobody's name.

    The last is the same for everybody, and costs two round trips, the others one.

    Raises:
        TooManyRequests: asked for too often from this address.
        InvalidMfaToken: the sign-in is over.
        SessionEnded: the session ended.
    """
    if mfa_token is not None:
        return _begin_second_factor(resources, origin, mfa_token)
    if claims is not None:
        return _begin_again(resources, origin, claims)
    return _begin_sign_in(resources, origin)


def _begin_second_factor(resources: Resources, origin: Origin, mfa_token: str) -> Ceremony:
    try:
        ticket_id, _ = resources.one_time_secrets.parse(mfa_token, [Purpose.SECOND_FACTOR])
    except InvalidOneTimeSecret:
        raise InvalidMfaToken from None
    context = f"second_factor:{ticket_id}"
    challenge = new_challenge(resources.settings, origin, Purpose.PASSKEY_AUTHENTICATION, context=context)
    with resources.database.one_trip() as connection:
        one_time_secrets.require_live(
            connection, ticket_id, Purpose.SECOND_FACTOR, now=origin.now, otherwise=InvalidMfaToken()
        )
        ceremonies.require_few_challenges(connection, context, origin)
        challenge.write(connection)
        allowed = passkeys.list_of_ticket(connection, ticket_id)
    return _asked(resources, challenge, allowed)


def _begin_again(resources: Resources, origin: Origin, claims: AccessClaims) -> Ceremony:
    context = f"reauthenticate:{claims.sid}"
    challenge = new_challenge(
        resources.settings,
        origin,
        Purpose.PASSKEY_AUTHENTICATION,
        context=context,
        account_id=claims.sub,
    )
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        ceremonies.require_few_challenges(connection, context, origin)
        challenge.write(connection)
        allowed = passkeys.list_of(connection, claims.sub)
    return _asked(resources, challenge, allowed)


def _begin_sign_in(resources: Resources, origin: Origin) -> Ceremony:
    with resources.database.one_trip() as connection:
        retry_at = rate_limits.reserve(
            connection,
            rate_limits.address_key("passkey", origin.address),
            rate_limits.sign_in_limit(resources.settings),
            origin.now,
        )
    if retry_at is not None:
        log_event("passkey_options_limited", address=origin.address)
        raise TooManyRequests(retry_after=rate_limits.seconds_until(retry_at, origin.now))
    challenge = new_challenge(resources.settings, origin, Purpose.PASSKEY_AUTHENTICATION, context=SIGN_IN)
    with resources.database.one_trip() as connection:
        challenge.write(connection)
    return _asked(resources, challenge, None)


def _asked(resources: Resources, challenge: NewChallenge, allowed: Sequence[Passkey] | None) -> Ceremony:
    options = ceremonies.request_options(resources.settings, allowed, challenge=challenge.value)
    return Ceremony(challenge.request, options)


def log_in(
    resources: Resources,
    origin: Origin,
    request: UUID,
    credential: Mapping[str, Any],
    *,
    record: Record[TokenGrant] | None = None,
) -> TokenGrant:
    """Check a passkey of whoever it is and open a session, in two round trips.

    Raises:
        TooManyAttempts: too many failures of this account, or from this address; nothing was checked.
        InvalidPasskey: for every reason alike.
        AccountDisabled, EmailNotVerified: only after the right signature.
        MfaRequired, MfaEnrolmentRequired: it did not verify its user, and something else is asked for.
    """
    attempt = _reserve(resources, origin, request, credential)
    assertion = _verify(resources, origin, attempt, credential)
    owner = attempt.owner
    if owner is None or assertion is None:
        raise _fail(resources, origin, attempt, InvalidPasskey(), guessed=True)
    if owner.account.disabled_at is not None:
        raise _fail(resources, origin, attempt, AccountDisabled())
    if resources.settings.require_verified_email and owner.account.email_verified_at is None:
        raise _fail(resources, origin, attempt, EmailNotVerified())

    def before(connection: Connection) -> None:
        one_time_secrets.use(connection, request, use_id=use_id, now=origin.now, otherwise=InvalidPasskey())
        rate_limits.give_back(connection, _address_key(origin))

    def writes(connection: Connection) -> None:
        passkeys.use(connection, owner.key.id, assertion, now=origin.now, otherwise=InvalidPasskey())

    use_id = new_id()
    first = FirstFactor(
        account=owner.account,
        password_changed_at=owner.password_changed_at,
        factors_changed_at=owner.factors_changed_at,
        factors=owner.factors,
        method=FirstMethod.PASSKEY,
        complete=assertion.user_verified,
    )
    try:
        return sign_in(resources, origin, first, before=before, writes=writes, record=record)
    except (InvalidPasskey, InvalidCredentials):  # used by another, or the account changed meanwhile
        raise _fail(resources, origin, attempt, InvalidPasskey(), guessed=True) from None


def _reserve(resources: Resources, origin: Origin, request: UUID, credential: Mapping[str, Any]) -> Attempt:
    with resources.database.one_trip() as connection:
        attempt = store.reserve_attempt(
            connection,
            credential_id=ceremonies.credential_id_of(credential),
            request=request,
            context=SIGN_IN,
            address_key=_address_key(origin),
            by_address=rate_limits.sign_in_limit(resources.settings),
            by_account=rate_limits.account_limit(resources.settings),
            now=origin.now,
        )
    if attempt.retry_at is not None:
        count("login_failed")
        log_event("login_refused", reason="too_many_attempts", address=origin.address)
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(attempt.retry_at, origin.now))
    return attempt


def _verify(
    resources: Resources, origin: Origin, attempt: Attempt, credential: Mapping[str, Any]
) -> Assertion | None:
    if attempt.owner is None or attempt.challenge is None:
        return None
    return ceremonies.accept(
        resources,
        origin,
        credential,
        attempt.owner.key,
        account_id=attempt.owner.account.id,
        challenge=attempt.challenge,
        alone=True,
    )


def _fail(
    resources: Resources, origin: Origin, attempt: Attempt, error: AuthError, *, guessed: bool = False
) -> AuthError:
    """Write a failed sign-in down and return its error; the reservation stands for the failure.

    A credential that nobody has concerns no account: its client was counted, and that is all.
    """
    account_id = attempt.owner.account.id if attempt.owner else None
    if account_id:
        with resources.database.one_trip() as connection:
            if not guessed:
                rate_limits.give_back(connection, _address_key(origin))
                rate_limits.give_back(connection, rate_limits.account_key(account_id))
            audit.append(
                connection, "logged_in_by_passkey", origin, account_id=account_id, failure=error.code
            )
            if guessed and lockouts.is_reached(resources.settings, attempt.failures):
                lockouts.record(connection, origin, account_id, failures=attempt.failures)
    count("login_failed")
    log_event(
        "login_failed", reason=error.code, method="passkey", account_id=account_id, address=origin.address
    )
    return error


def _address_key(origin: Origin) -> str:
    """Count with the failed log-ins of the same client."""
    return rate_limits.address_key("login", origin.address)


# --- looking after them ----------------------------------------------------------------------------


def list_of(resources: Resources, origin: Origin, claims: AccessClaims) -> Sequence[Passkey]:
    """Return the caller's passkeys, oldest first, in one round trip.

    Raises:
        SessionEnded: the session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now, impersonated_too=True)
        return passkeys.list_of(connection, claims.sub)


def get(resources: Resources, origin: Origin, claims: AccessClaims, passkey_id: UUID) -> Passkey:
    """Return one of the caller's passkeys, in one round trip.

    Raises:
        NotFound: it is none of the caller's (ASVS 8.2.2).
        SessionEnded: the session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now, impersonated_too=True)
        passkey = passkeys.find(connection, claims.sub, passkey_id)
    if passkey is None:
        raise NotFound
    return passkey


def rename(
    resources: Resources, origin: Origin, claims: AccessClaims, passkey_id: UUID, name: str
) -> Passkey:
    """Give one of the caller's passkeys another name, in one round trip.

    Raises:
        NotFound, SessionEnded: as for `get`.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        passkey = passkeys.rename(connection, claims.sub, passkey_id, name)
    if passkey is None:
        raise NotFound
    return passkey


def remove(resources: Resources, origin: Origin, claims: AccessClaims, passkey_id: UUID) -> None:
    """Remove one of the caller's passkeys, in two round trips.

    With the last factor go what stands in for one: recovery codes and trusted devices.

    Raises:
        NotFound: it is none of the caller's (ASVS 8.2.2).
        FactorNeeded: AUTH_MFA_POLICY asks this account for a factor, and there is no other.
        RecentAuthenticationRequired: the session was not stepped up (ASVS 7.5.1).
        SessionEnded: the session ended.
    """
    with resources.database.transaction() as connection:
        enrolee_of(resources, origin, claims).guard(connection)
        # Locked, so that of two removals at once the second sees what the first left.
        accounts_store.require_exists(connection, claims.sub, otherwise=SessionEnded())
        holder = passkeys.find_holder(connection, claims.sub)
        passkey = next((one for one in holder.passkeys if one.id == passkey_id), None) if holder else None
        if holder is None or passkey is None:
            raise NotFound
        is_last = "totp" not in holder.factors and len(holder.passkeys) == 1
        if is_last and must_have_factor(resources.settings, holder.account.permissions):
            raise FactorNeeded
        passkeys.remove(connection, claims.sub, passkey_id)
        if is_last:
            end_what_stood_in(connection, claims.sub)
        note(
            connection,
            origin,
            claims.sub,
            Change.PASSKEY_REMOVED,
            session_id=claims.sid,
            name=passkey.name,
        )
    log_event("passkey_removed", account_id=claims.sub)

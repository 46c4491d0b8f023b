"""Authenticating again within a session, before a sensitive step (ASVS 7.5.1, RFC 9470)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from auth_manager import audit, lockouts, one_time_secrets, outbox, rate_limits
from auth_manager.accounts import Account
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.store import Credentials
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import (
    FieldError,
    InvalidFactor,
    InvalidFields,
    InvalidOneTimeSecret,
    MfaRequired,
    SessionEnded,
    TooManyAttempts,
)
from auth_manager.factors import MULTI_FACTOR_ACR, SINGLE_FACTOR_ACR, changes, checks
from auth_manager.factors.checks import Presented
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.proofs import Proof, lifetime, prove, reserve_mail
from auth_manager.resources import Resources
from auth_manager.sessions import Session
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import FIRST_PARTY_CLIENT, FIRST_PARTY_SCOPE, issue_access_token
from auth_manager.tokens import AccessClaims

PASSWORD_METHOD = "pwd"  # noqa: S105 -- RFC 8176
MAILED_CODE_METHOD = "otp"
"""RFC 8176: a one-time password, here one that was mailed."""


@dataclass(frozen=True, slots=True)
class Reauthenticated:
    """An access token that says when the person authenticated last. `expires_in` is seconds."""

    access_token: str = field(repr=False)
    expires_in: int
    session_id: UUID


def check_password(
    resources: Resources, origin: Origin, claims: AccessClaims, password: str, *, pointer: str
) -> Credentials:
    """Check the password of who is signed in, in one round trip, counted like a login (ASVS 6.3.1).

    A wrong one is a wrong field, not a 401: the access token is good. Success clears nothing yet; the caller
    does, with what it then writes.

    Raises:
        InvalidFields: at `pointer`, with `password_wrong`.
        TooManyAttempts: the account was guessed at too often.
        SessionEnded: the session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        credentials = accounts_store.reserve_attempt(
            connection, claims.sub, by_account=rate_limits.account_limit(resources.settings), now=origin.now
        )
    if credentials is None:
        raise SessionEnded
    if credentials.retry_at is not None:
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(credentials.retry_at, origin.now))
    if resources.passwords.verify_and_upgrade(password, credentials.password_hash).ok:
        return credentials
    with resources.database.one_trip() as connection:
        audit.append(
            connection,
            "reauthenticated",
            origin,
            account_id=claims.sub,
            session_id=claims.sid,
            failure="password_wrong",
        )
        if lockouts.is_reached(resources.settings, credentials.failures):
            lockouts.record(connection, origin, claims.sub, failures=credentials.failures)
    log_event("reauthentication_failed", account_id=claims.sub)
    raise InvalidFields(errors=[FieldError(pointer, "password_wrong", "This is not your password.")])


def start(
    resources: Resources, origin: Origin, claims: AccessClaims, *, record: Record[UUID] | None = None
) -> UUID:
    """Mail a code to who is signed in, for those who have no password; return its request. Two round trips.

    Raises:
        TooManyRequests: too many mails.
        SessionEnded: the session ended.
    """
    reserve_mail(resources, origin, Purpose.REAUTHENTICATE, str(claims.sub), claims=claims)
    secret = OneTimeSecret(
        id=new_id(),
        purpose=Purpose.REAUTHENTICATE,
        account_id=claims.sub,
        email=None,
        email_normalized=None,
        details={"session_id": str(claims.sid)},
        limit_key=rate_limits.account_key(claims.sub),
        expires_at=origin.now + lifetime(resources.settings, Purpose.REAUTHENTICATE),
    )
    message = NewMessage(new_id(), Kind.REAUTHENTICATE, origin.now, secret_id=secret.id)
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        one_time_secrets.add(connection, secret, now=origin.now)
        outbox.add_to_account(
            connection, message, account_id=claims.sub, locale=origin.locale, verified_only=False
        )
        audit.append(
            connection, "reauthenticate_requested", origin, account_id=claims.sub, session_id=claims.sid
        )
        if record:
            record(connection, secret.id)
    resources.hand_over([message.id])
    return secret.id


def by_password(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    password: str,
    *,
    record: Record[Reauthenticated] | None = None,
) -> Reauthenticated:
    """Authenticate again by password.

    Raises:
        InvalidFields, TooManyAttempts, SessionEnded: as for `check_password`.
        MfaRequired: the account has second factors: one of them counts, and the password alone does not.
    """
    check_password(resources, origin, claims, password, pointer="/password")
    return _renew(resources, origin, claims, [PASSWORD_METHOD], record=record)


def by_code(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    proof: Proof,
    *,
    record: Record[Reauthenticated] | None = None,
) -> Reauthenticated:
    """Authenticate again by a code that was mailed for this session.

    Raises:
        InvalidOneTimeSecret: used, expired, or of another session.
        MfaRequired, TooManyAttempts, SessionEnded: as for `by_password`.
    """
    secret = prove(resources, origin, proof, Purpose.REAUTHENTICATE)
    if secret.account_id != claims.sub or secret.details.get("session_id") != str(claims.sid):
        raise InvalidOneTimeSecret
    use = partial(one_time_secrets.use, secret_id=secret.id, use_id=new_id(), now=origin.now)
    return _renew(resources, origin, claims, [MAILED_CODE_METHOD], before=use, record=record)


def by_factor(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    presented: Presented,
    *,
    record: Record[Reauthenticated] | None = None,
) -> Reauthenticated:
    """Authenticate again by a second factor, in two round trips; the session has two factors from then on.

    Raises:
        InvalidFields: at the factor's own pointer, with `factor_wrong`, for every reason alike.
        TooManyAttempts: the account was guessed at too often.
        SessionEnded: the session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        check = checks.reserve(
            connection,
            presented,
            account_id=claims.sub,
            challenge_context=f"reauthenticate:{claims.sid}",
            settings=resources.settings,
            now=origin.now,
        )
    if check is None:
        raise SessionEnded
    if check.retry_at is not None:
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(check.retry_at, origin.now))
    try:
        # A session that a passkey alone opened, unverified, has one factor: the same key again is no second.
        first = "passkey" if set(claims.amr) == {"pop"} else None
        verified = checks.verify(resources, origin, check, presented, first=first)
        return _renew(
            resources,
            origin,
            claims,
            verified.amr,
            acr=MULTI_FACTOR_ACR,
            writes=verified.use,
            record=record,
        )
    except InvalidFactor:
        checks.record_failure(resources, origin, check, presented, session_id=claims.sid)
        error = FieldError(f"/{presented.factor}", "factor_wrong", "This is not valid, or was used before.")
        raise InvalidFields(errors=[error]) from None


def _renew(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    amr: Sequence[str],
    *,
    before: Callable[[Connection], None] | None = None,
    writes: Callable[[Connection], None] | None = None,
    acr: str = SINGLE_FACTOR_ACR,
    record: Record[Reauthenticated] | None,
) -> Reauthenticated:
    """Use up what was presented, before the account's counter is touched or after it.

    One factor is enough for accounts that have no second one; the session has one then, whatever it had
    before.
    """
    with resources.database.transaction() if record else resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        if acr == SINGLE_FACTOR_ACR:
            changes.require_no_factors(connection, claims.sub, otherwise=MfaRequired())
        if before:
            before(connection)
        rate_limits.clear(connection, rate_limits.account_key(claims.sub))
        if acr == MULTI_FACTOR_ACR:
            rate_limits.clear(connection, rate_limits.factor_key(claims.sub))
        if writes:
            writes(connection)
        audit.append(connection, "reauthenticated", origin, account_id=claims.sub, session_id=claims.sid)
        found = sessions_store.renew_authentication(connection, claims.sid, amr=amr, acr=acr, now=origin.now)
        if found is None:  # the guard just saw it
            raise SessionEnded
        renewed = _issue(resources, origin, *found)
        if record:
            record(connection, renewed)
    count("reauthenticated")
    return renewed


def _issue(resources: Resources, origin: Origin, session: Session, account: Account) -> Reauthenticated:
    access = issue_access_token(
        resources,
        origin,
        session=session,
        account=account,
        client_id=FIRST_PARTY_CLIENT,
        scope=FIRST_PARTY_SCOPE,
    )
    return Reauthenticated(access.token, access.expires_in, session.id)

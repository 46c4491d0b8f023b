"""Authenticating again within a session, before a sensitive step (ASVS 7.5.1, RFC 9470)."""

from dataclasses import dataclass, field
from uuid import UUID

from auth_manager import audit, lockouts, one_time_secrets, outbox, rate_limits
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.store import Credentials
from auth_manager.audit import Origin
from auth_manager.errors import (
    FieldError,
    InvalidFields,
    InvalidOneTimeSecret,
    SessionEnded,
    TooManyAttempts,
)
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
        credentials = accounts_store.reserve_password_check(
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
    """Mail a code to who is signed in, for those who have no password; return its request.

    Raises:
        TooManyRequests: too many mails.
        SessionEnded: the session ended.
    """
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        account = accounts_store.fetch(connection, claims.sub)
    if account is None:
        raise SessionEnded
    reserve_mail(resources, origin, Purpose.REAUTHENTICATE, str(claims.sub))
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
    """
    check_password(resources, origin, claims, password, pointer="/password")
    return _renew(resources, origin, claims, PASSWORD_METHOD, None, record)


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
        TooManyAttempts, SessionEnded: as for `check_password`.
    """
    secret = prove(resources, origin, proof, Purpose.REAUTHENTICATE)
    if secret.account_id != claims.sub or secret.details.get("session_id") != str(claims.sid):
        raise InvalidOneTimeSecret
    return _renew(resources, origin, claims, MAILED_CODE_METHOD, secret, record)


def _renew(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    method: str,
    secret: OneTimeSecret | None,
    record: Record[Reauthenticated] | None,
) -> Reauthenticated:
    with resources.database.transaction() if record else resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        if secret:
            one_time_secrets.use(connection, secret.id, use_id=new_id(), now=origin.now)
        rate_limits.clear(connection, rate_limits.account_key(claims.sub))
        audit.append(connection, "reauthenticated", origin, account_id=claims.sub, session_id=claims.sid)
        session = sessions_store.renew_authentication(connection, claims.sid, amr=[method], now=origin.now)
        if session is None:  # the guard just saw it
            raise SessionEnded
        renewed = _issue(resources, origin, claims, session)
        if record:
            record(connection, renewed)
    count("reauthenticated")
    return renewed


def _issue(resources: Resources, origin: Origin, claims: AccessClaims, session: Session) -> Reauthenticated:
    access = issue_access_token(
        resources,
        origin,
        session=session,
        client_id=FIRST_PARTY_CLIENT,
        scope=FIRST_PARTY_SCOPE,
        roles=claims.roles,
    )
    return Reauthenticated(access.token, access.expires_in, session.id)

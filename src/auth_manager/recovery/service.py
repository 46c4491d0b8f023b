"""Passwords: forgotten, reset by what was mailed, changed by who knows the old one."""

from uuid import UUID

from auth_manager import audit, one_time_secrets, outbox, rate_limits
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.store import Credentials
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import InvalidFields, InvalidOneTimeSecret, SessionEnded
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.proofs import Proof, give_back, lifetime, prove, request_by_mail
from auth_manager.reauthentication.service import check_password
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.tokens import AccessClaims

OVER_WITH_THE_PASSWORD = (
    Purpose.RESET_PASSWORD,
    Purpose.EMAIL_LOGIN,
    Purpose.REAUTHENTICATE,
    Purpose.CHANGE_EMAIL,
    Purpose.SECOND_FACTOR,
    Purpose.ENROL_FACTOR,
)
"""Open secrets that end when the password changes. A new address too: whoever had the old password may have
asked for it, and would get the account back by it."""


def start(resources: Resources, origin: Origin, email: str, *, record: Record[UUID] | None = None) -> UUID:
    """Mail a link and a code by which a password can be set; the same answer for everyone (ASVS 6.3.8).

    Raises:
        InvalidFields, TooManyRequests: as for proofs.request_by_mail.
    """
    return request_by_mail(resources, origin, email, purpose=Purpose.RESET_PASSWORD, record=record)


def mail_reset(resources: Resources, connection: Connection, origin: Origin, account_id: UUID) -> UUID:
    """Queue the same mail to an account's address, on an administrator's word; return the message's id.

    No limit counts it, and nothing ends: neither sessions nor the password.
    """
    secret_id = new_id()
    message = NewMessage(new_id(), Kind.RESET_PASSWORD, origin.now, secret_id=secret_id)
    one_time_secrets.add_for_account(
        connection,
        secret_id=secret_id,
        purpose=Purpose.RESET_PASSWORD,
        account_id=account_id,
        now=origin.now,
        expires_at=origin.now + lifetime(resources.settings, Purpose.RESET_PASSWORD),
    )
    outbox.add_to_account(
        connection, message, account_id=account_id, locale=origin.locale, verified_only=False
    )
    return message.id


def reset_password(
    resources: Resources,
    origin: Origin,
    proof: Proof,
    password: str,
    *,
    record: Record[None] | None = None,
) -> None:
    """Set a password by what was mailed, in three round trips; every session ends, a lock too.

    It proves the address as well. It lifts no second factor (ASVS 6.4.3), nor the lock of those.

    Raises:
        InvalidFields: the password breaks the policy; the proof stays good.
        InvalidOneTimeSecret: used, expired, foreign; or the account is disabled or has another address.
        TooManyAttempts: as for proofs.prove.
    """
    resources.passwords.check_policy(password)
    secret = prove(resources, origin, proof, Purpose.RESET_PASSWORD)
    if secret.account_id is None or secret.email_normalized is None:
        raise InvalidOneTimeSecret
    with resources.database.one_trip() as connection:
        credentials = accounts_store.find_credentials(connection, secret.account_id)
    if credentials is None:
        raise InvalidOneTimeSecret
    try:
        _check_policy(resources, password, credentials, pointer="/password")
    except InvalidFields:
        if proof.code is not None:
            give_back(resources, secret)
        raise
    password_hash = resources.passwords.hash(password)
    notice = NewMessage(new_id(), Kind.PASSWORD_CHANGED, origin.now)
    with resources.database.one_trip() as connection:
        one_time_secrets.use(connection, secret.id, use_id=new_id(), now=origin.now)
        # Before the account's row is locked, as at a login: the two must not wait for each other.
        rate_limits.clear(connection, rate_limits.account_key(secret.account_id))
        accounts_store.require_enabled(
            connection,
            secret.account_id,
            email_normalized=secret.email_normalized,
            otherwise=InvalidOneTimeSecret(),
        )
        accounts_store.mark_verified(connection, secret.account_id, secret.email_normalized, origin.now)
        accounts_store.set_password_hash(connection, secret.account_id, password_hash, origin.now)
        sessions_store.end_sessions(connection, secret.account_id, reason="password_reset", now=origin.now)
        one_time_secrets.retire(connection, secret.account_id, OVER_WITH_THE_PASSWORD, now=origin.now)
        outbox.add_to_account(connection, notice, account_id=secret.account_id, locale=origin.locale)
        audit.append(connection, "password_reset", origin, account_id=secret.account_id)
        if record:
            record(connection, None)
    resources.hand_over([notice.id])
    count("password_reset")
    log_event("password_reset", account_id=secret.account_id)


def change_password(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    *,
    current_password: str,
    new_password: str,
    end_other_sessions: bool,
    record: Record[None] | None = None,
) -> None:
    """Change the password of who is signed in and knows it, in two round trips (ASVS 6.2.3, 7.4.3).

    Raises:
        InvalidFields: the current password is wrong, or the new one breaks the policy.
        TooManyAttempts: the account was guessed at too often.
        SessionEnded: the session ended, or the password changed meanwhile.
    """
    credentials = check_password(resources, origin, claims, current_password, pointer="/current_password")
    try:
        _check_policy(resources, new_password, credentials, pointer="/new_password")
    except InvalidFields:
        with resources.database.one_trip() as connection:  # the guess was right
            rate_limits.clear(connection, rate_limits.account_key(claims.sub))
        raise
    password_hash = resources.passwords.hash(new_password)
    notice = NewMessage(new_id(), Kind.PASSWORD_CHANGED, origin.now)
    with resources.database.one_trip() as connection:
        require_live_session(connection, claims, origin.now)
        rate_limits.clear(connection, rate_limits.account_key(claims.sub))
        accounts_store.require_password_unchanged(
            connection, claims.sub, credentials.password_changed_at, otherwise=SessionEnded()
        )
        accounts_store.set_password_hash(connection, claims.sub, password_hash, origin.now)
        if end_other_sessions:
            sessions_store.end_sessions(
                connection, claims.sub, except_for=claims.sid, reason="password_changed", now=origin.now
            )
        one_time_secrets.retire(connection, claims.sub, OVER_WITH_THE_PASSWORD, now=origin.now)
        outbox.add_to_account(connection, notice, account_id=claims.sub, locale=origin.locale)
        audit.append(connection, "password_changed", origin, account_id=claims.sub, session_id=claims.sid)
        if record:
            record(connection, None)
    resources.hand_over([notice.id])
    count("password_changed")
    log_event("password_changed", account_id=claims.sub)


def _check_policy(resources: Resources, password: str, credentials: Credentials, *, pointer: str) -> None:
    account = credentials.account
    resources.passwords.check_policy(password, context=[account.email, account.username], pointer=pointer)

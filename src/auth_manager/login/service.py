"""Logging in: limit, account, password, session; two round trips, whatever the outcome.

Every outcome costs the same: an unknown identifier is looked up, counted, hashed against and written to the
audit trail like a known one (ASVS 6.3.8).
"""

from datetime import timedelta

from auth_manager import audit, known_devices, lockouts, rate_limits
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.errors import (
    AccountDisabled,
    AuthError,
    EmailNotVerified,
    InvalidCredentials,
    NotFound,
    TooManyAttempts,
)
from auth_manager.idempotency import Record
from auth_manager.identifiers import normalize_email, normalize_username
from auth_manager.login import store
from auth_manager.login.store import Attempt
from auth_manager.observability import count, log_event
from auth_manager.rate_limits import Limit
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import TokenGrant, issue_tokens, new_session
from auth_manager.settings import Settings

PASSWORD_AMR = ("pwd",)
"""RFC 8176."""
SINGLE_FACTOR_ACR = "aal1"
"""NIST SP 800-63B authentication assurance level 1."""


def log_in(
    resources: Resources,
    origin: Origin,
    *,
    identifier: str,
    password: str,
    record: Record[TokenGrant] | None = None,
) -> TokenGrant:
    """Check a password and open a session.

    Raises:
        TooManyAttempts: too many failures of this account, or from this address; nothing was checked.
        InvalidCredentials: no such account, or another password.
        AccountDisabled, EmailNotVerified: only after the right password.
    """
    attempt = _reserve(resources, origin, identifier)
    verification = resources.passwords.verify_and_upgrade(password, attempt.password_hash)
    account = attempt.account
    if account is None or attempt.password_changed_at is None or not verification.ok:
        raise _fail(resources, origin, attempt, InvalidCredentials(), guessed=True)
    if account.disabled_at is not None:
        raise _fail(resources, origin, attempt, AccountDisabled())
    if resources.settings.require_verified_email and account.email_verified_at is None:
        # Who registers an address and then logs in with that password learns by a 403 that it was free.
        if resources.settings.reveal_unverified_email:
            raise _fail(resources, origin, attempt, EmailNotVerified())
        # Counted like a guess: otherwise the limit would tell what the answer does not.
        raise _fail(resources, origin, attempt, InvalidCredentials(), guessed=True)

    session, line = new_session(resources, origin, account.id, amr=PASSWORD_AMR, acr=SINGLE_FACTOR_ACR)
    tokens = issue_tokens(resources, origin, session=session, line=line, account=account)
    try:
        with resources.database.one_trip() as connection:
            rate_limits.give_back(connection, _address_key(origin))
            rate_limits.clear(connection, rate_limits.account_key(account.id))
            if verification.new_hash:
                accounts_store.upgrade_password_hash(
                    connection,
                    account.id,
                    new_hash=verification.new_hash,
                    password_changed_at=attempt.password_changed_at,
                )
            sessions_store.insert(connection, session, line, password_changed_at=attempt.password_changed_at)
            known_devices.greet(connection, resources.settings, origin, account.id)
            audit.append(connection, "logged_in", origin, account_id=account.id, session_id=session.id)
            if record:
                record(connection, tokens)
    except InvalidCredentials as error:  # the account changed while the password was being checked
        raise _fail(resources, origin, attempt, error, guessed=True) from None
    count("login_succeeded")
    log_event("login_succeeded", account_id=account.id, session_id=session.id)
    return tokens


def _reserve(resources: Resources, origin: Origin, identifier: str) -> Attempt:
    email, username = _normalize(identifier)
    with resources.database.one_trip() as connection:
        attempt = store.reserve_attempt(
            connection,
            email_normalized=email,
            username_normalized=username,
            address_key=_address_key(origin),
            unknown_key=rate_limits.unknown_key(email or username or identifier),
            by_address=_address_limit(resources.settings),
            by_account=rate_limits.account_limit(resources.settings),
            now=origin.now,
        )
    if attempt.retry_at is not None:
        count("login_failed")
        log_event("login_refused", reason="too_many_attempts", address=origin.address)
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(attempt.retry_at, origin.now))
    return attempt


def _fail(
    resources: Resources, origin: Origin, attempt: Attempt, error: AuthError, *, guessed: bool = False
) -> AuthError:
    """Write a failed login down and return its error; the reservation stands for the failure."""
    account_id = attempt.account.id if attempt.account else None
    locked = guessed and lockouts.is_reached(resources.settings, attempt.failures)
    with resources.database.one_trip() as connection:
        if not guessed and account_id:
            # The password was right: this was no guess, and must not lock the person out.
            rate_limits.give_back(connection, _address_key(origin))
            rate_limits.clear(connection, rate_limits.account_key(account_id))
        audit.append(connection, "logged_in", origin, account_id=account_id, failure=error.code)
        if locked:
            lockouts.record(connection, origin, account_id, failures=attempt.failures)
    count("login_failed")
    log_event("login_failed", reason=error.code, account_id=account_id, address=origin.address)
    return error


def _normalize(identifier: str) -> tuple[str | None, str | None]:
    """Return the e-mail or the username to look for; neither for text that can be no identifier."""
    try:
        if "@" in identifier:
            return normalize_email(identifier), None
        return None, normalize_username(identifier)
    except ValueError:
        return None, None


def _address_key(origin: Origin) -> str:
    return rate_limits.address_key("login", origin.address)


def _address_limit(settings: Settings) -> Limit:
    return Limit(
        maximum=settings.login_attempts_per_address, window=timedelta(seconds=settings.login_address_window)
    )


def unlock(resources: Resources, origin: Origin, identifier: str) -> None:
    """Forget the failed logins of an account, on an operator's word.

    Raises:
        NotFound: nobody has this identifier.
    """
    email, username = _normalize(identifier)
    with resources.database.transaction() as connection:
        account_id = accounts_store.find_id(connection, email_normalized=email, username_normalized=username)
        if account_id is None:
            raise NotFound("No account has this e-mail address or username.")
        rate_limits.clear(connection, rate_limits.account_key(account_id))
        audit.append(connection, "account_unlocked", origin, account_id=account_id)

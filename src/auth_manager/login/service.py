"""Logging in: limit, account, password, session; two round trips, whatever the outcome.

Every outcome costs the same: an unknown identifier is looked up, counted, hashed against and written to the
audit trail like a known one (ASVS 6.3.8).
"""

from uuid import UUID

from auth_manager import audit, lockouts, rate_limits
from auth_manager.accounts import Account
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import (
    AccountDisabled,
    AuthError,
    EmailNotVerified,
    FormerSystemUnavailable,
    InvalidCredentials,
    TooManyAttempts,
)
from auth_manager.factors import trusted_devices
from auth_manager.idempotency import Record
from auth_manager.identifiers import parse_identifier
from auth_manager.lazy_migration import FormerUser
from auth_manager.login import store
from auth_manager.login.store import Attempt
from auth_manager.observability import count, log_event
from auth_manager.passwords import LAZY_HASH, MAXIMUM_BYTES, REFUSED, Verification
from auth_manager.resources import Resources
from auth_manager.sessions.service import TokenGrant
from auth_manager.sign_ins import FirstFactor, FirstMethod, sign_in


def log_in(
    resources: Resources,
    origin: Origin,
    *,
    identifier: str,
    password: str,
    device_token: str | None = None,
    record: Record[TokenGrant] | None = None,
) -> TokenGrant:
    """Check a password and open a session, or ask for the second factor.

    `device_token` is what an earlier sign-in left on a trusted device: it stands for the second factor.

    Raises:
        TooManyAttempts: too many failures of this account, or from this address; nothing was checked.
        InvalidCredentials: no such account, or another password.
        AccountDisabled, EmailNotVerified, MfaRequired, MfaEnrolmentRequired: only after the right password.
        FormerSystemUnavailable: only the system that the account came from knows its password, and is away.
    """
    device_id = trusted_devices.parse_token(resources.secret_keys, device_token)
    attempt = _reserve(resources, origin, identifier, device_id)
    verification = resources.passwords.verify_and_upgrade(password, attempt.password_hash)
    account = attempt.account
    if account is not None and attempt.password_hash == LAZY_HASH and resources.check_elsewhere:
        verification = _verify_elsewhere(resources, origin, attempt, account, password)
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

    password_changed_at = attempt.password_changed_at

    def upgrade(connection: Connection) -> None:
        if verification.new_hash:
            accounts_store.upgrade_password_hash(
                connection,
                account.id,
                new_hash=verification.new_hash,
                password_changed_at=password_changed_at,
            )

    first = FirstFactor(
        account=account,
        password_changed_at=password_changed_at,
        factors_changed_at=attempt.factors_changed_at,
        factors=attempt.factors,
        method=FirstMethod.PASSWORD,
        trusted_device=device_id if attempt.trusts_device else None,
    )
    try:
        return sign_in(
            resources,
            origin,
            first,
            before=lambda connection: rate_limits.give_back(connection, _address_key(origin)),
            writes=upgrade,
            record=record,
        )
    except InvalidCredentials as error:  # the account changed while the password was being checked
        raise _fail(resources, origin, attempt, error, guessed=True) from None


def _verify_elsewhere(
    resources: Resources, origin: Origin, attempt: Attempt, account: Account, password: str
) -> Verification:
    """Ask the former system of an imported account, once: its answer, if it is yes, becomes our own hash.

    No transaction is open meanwhile. An attempt that got no answer counts like a wrong one, or a system that
    is slow would be asked without end.

    Raises:
        FormerSystemUnavailable: it did not say.
    """
    if resources.check_elsewhere is None or len(password.encode("utf-8", "replace")) > MAXIMUM_BYTES:
        return REFUSED
    user = FormerUser(account.id, account.email, account.username)
    try:
        is_right = resources.check_elsewhere(user, password)
    except FormerSystemUnavailable as error:
        raise _fail(resources, origin, attempt, error, guessed=True) from None
    if not is_right:
        return REFUSED
    count("lazily_migrated")
    log_event("lazily_migrated", account_id=account.id)
    return Verification(ok=True, new_hash=resources.passwords.hash(password))


def _reserve(resources: Resources, origin: Origin, identifier: str, device_id: UUID | None) -> Attempt:
    email, username = parse_identifier(identifier)
    with resources.database.one_trip() as connection:
        attempt = store.reserve_attempt(
            connection,
            email_normalized=email,
            username_normalized=username,
            address_key=_address_key(origin),
            unknown_key=rate_limits.unknown_key(email or username or identifier),
            by_address=rate_limits.sign_in_limit(resources.settings),
            by_account=rate_limits.account_limit(resources.settings),
            device_id=device_id,
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


def _address_key(origin: Origin) -> str:
    return rate_limits.address_key("login", origin.address)

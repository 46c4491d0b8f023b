"""Proving that one reads the mail of an address: asking for a one-time secret, and presenting it."""

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from auth_manager import audit, lockouts, one_time_secrets, outbox, rate_limits
from auth_manager.audit import Origin
from auth_manager.errors import (
    FieldError,
    InvalidFields,
    InvalidOneTimeSecret,
    TooManyAttempts,
    TooManyRequests,
)
from auth_manager.idempotency import Record
from auth_manager.identifiers import normalize_email
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_live_session
from auth_manager.observability import log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.resources import Resources
from auth_manager.settings import Settings
from auth_manager.tokens import AccessClaims


@dataclass(frozen=True, slots=True)
class Proof:
    """What a person presents: the token of a link, or the code together with the request it was sent for."""

    token: str | None = field(default=None, repr=False)
    request: UUID | None = None
    code: str | None = field(default=None, repr=False)


def lifetime(settings: Settings, purpose: Purpose) -> timedelta:
    """Return for how long a secret of this purpose is good."""
    seconds = {
        Purpose.VERIFY_EMAIL: settings.verification_lifetime,
        Purpose.CHANGE_EMAIL: settings.verification_lifetime,
        Purpose.RESET_PASSWORD: settings.reset_lifetime,
        Purpose.EMAIL_LOGIN: settings.email_login_lifetime,
        Purpose.REAUTHENTICATE: settings.email_login_lifetime,
        Purpose.INVITATION: settings.invitation_lifetime,
        Purpose.KEEP_ACCOUNT: settings.erasure_grace,
        Purpose.SECOND_FACTOR: settings.mfa_token_lifetime,
        Purpose.ENROL_FACTOR: settings.mfa_token_lifetime,
        Purpose.PASSKEY_REGISTRATION: settings.mfa_token_lifetime,
        Purpose.PASSKEY_AUTHENTICATION: settings.mfa_token_lifetime,
    }
    return timedelta(seconds=seconds[purpose])


def parse_email(email: str) -> str:
    """Return the normalised form of an address.

    Raises:
        InvalidFields: it is none.
    """
    try:
        return normalize_email(email)
    except ValueError as error:
        raise InvalidFields(errors=[FieldError("/email", "email_invalid", str(error))]) from None


def reserve_mail(
    resources: Resources,
    origin: Origin,
    purpose: Purpose,
    recipient: str,
    *,
    claims: AccessClaims | None = None,
) -> None:
    """Count a mail before it is written, in one round trip.

    Args:
        resources: of this process.
        origin: who asks for it.
        purpose: of its secret.
        recipient: a normalised address, or the id of an account.
        claims: of who is signed in, where one must be: a session that ended counts nothing.

    Raises:
        TooManyRequests: too many to this recipient, or asked for by this client.
        SessionEnded: the session of `claims` did.
    """
    with resources.database.one_trip() as connection:
        if claims:
            require_live_session(connection, claims, origin.now)
        retry_at = rate_limits.reserve_mail(
            connection,
            resources.settings,
            purpose=purpose.value,
            address=origin.address,
            recipient=recipient,
            now=origin.now,
        )
    if retry_at is not None:
        log_event("mail_limited", purpose=purpose.value, address=origin.address)
        raise TooManyRequests(
            "Too many mails were asked for.", retry_after=rate_limits.seconds_until(retry_at, origin.now)
        )


def request_by_mail(
    resources: Resources,
    origin: Origin,
    email: str,
    *,
    purpose: Purpose,
    unverified_only: bool = False,
    record: Record[UUID] | None = None,
) -> UUID:
    """Mail a secret to whoever has this address; return its request, in two round trips.

    The answer and the work are the same for an address that nobody has (ASVS 6.3.8).

    Raises:
        InvalidFields: it is no address.
        TooManyRequests: too many to this address, or asked for by this client.
    """
    email_normalized = parse_email(email)
    reserve_mail(resources, origin, purpose, email_normalized)
    secret_id = new_id()
    message = NewMessage(new_id(), Kind(purpose.value), origin.now, secret_id=secret_id)
    with resources.database.one_trip() as connection:
        one_time_secrets.add_for_address(
            connection,
            secret_id=secret_id,
            purpose=purpose,
            email_normalized=email_normalized,
            unverified_only=unverified_only,
            now=origin.now,
            expires_at=origin.now + lifetime(resources.settings, purpose),
        )
        outbox.add_to_owner(
            connection,
            message,
            email_normalized=email_normalized,
            locale=origin.locale,
            unverified_only=unverified_only,
        )
        audit.append(connection, f"{purpose}_requested", origin, owner_of=email_normalized)
        if record:
            record(connection, secret_id)
    resources.hand_over([message.id])
    log_event("mail_requested", purpose=purpose.value)
    return secret_id


def look_at(resources: Resources, origin: Origin, token: str, *purposes: Purpose) -> OneTimeSecret:
    """Return the secret of a link's token while it is good, in one round trip; nothing is used up.

    Raises:
        InvalidOneTimeSecret: it is not ours, was used, or expired.
    """
    secret_id, purpose = resources.one_time_secrets.parse(token, purposes)
    with resources.database.one_trip() as connection:
        secret = one_time_secrets.find_live(connection, secret_id, purpose, now=origin.now)
    if secret is None or (secret.account_id is None and secret.purpose is not Purpose.INVITATION):
        raise InvalidOneTimeSecret
    return secret


def prove(resources: Resources, origin: Origin, proof: Proof, *purposes: Purpose) -> OneTimeSecret:
    """Check what a person presents, in one round trip; `one_time_secrets.use` then uses it up.

    A guess of a code is counted before it is looked at: five for each secret, and against the account's own
    limit, which stands for all its secrets together (ASVS 6.3.1, 6.6.3).

    Raises:
        InvalidOneTimeSecret: for every reason alike.
        TooManyAttempts: the account, or the address that nobody has, was guessed at too often.
    """
    if proof.token is not None:
        return look_at(resources, origin, proof.token, *purposes)
    if proof.request is None or proof.code is None:
        raise InvalidOneTimeSecret
    with resources.database.one_trip() as connection:
        guess = one_time_secrets.reserve_guess(
            connection,
            proof.request,
            purposes,
            by_account=rate_limits.account_limit(resources.settings),
            now=origin.now,
        )
    if guess.retry_at is not None:
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(guess.retry_at, origin.now))
    secret = guess.secret
    if (
        secret is None
        or not resources.one_time_secrets.is_code(secret.purpose, secret.id, proof.code)
        or secret.account_id is None
    ):
        _record_failure(resources, origin, guess)
        raise InvalidOneTimeSecret
    return secret


def give_back(resources: Resources, secret: OneTimeSecret) -> None:
    """Undo the counting of a right guess after which nothing was done, so that it can be presented again."""
    with resources.database.one_trip() as connection:
        one_time_secrets.give_back_guess(connection, secret.id)
        rate_limits.give_back(connection, secret.limit_key)


def _record_failure(resources: Resources, origin: Origin, guess: one_time_secrets.Guess) -> None:
    """Write a wrong guess down: the same statements whether the address belongs to somebody or not.

    A guess at no open request is in the log alone: no limit counts it, and it would fill the audit trail.
    That it is answered sooner tells that the request is made up, used or over, and nothing of an address:
    one that nobody has gets a request like any other.
    """
    secret = guess.secret
    if secret is None:
        log_event("code_refused", purpose="unknown", account_id=None)
        return
    purpose, account_id = secret.purpose.value, secret.account_id
    with resources.database.one_trip() as connection:
        audit.append(connection, "code_presented", origin, account_id=account_id, failure=purpose)
        if lockouts.is_reached(resources.settings, guess.failures):
            lockouts.record(connection, origin, account_id, failures=guess.failures)
    log_event("code_refused", purpose=purpose, account_id=account_id)

"""Proving an e-mail address by what was mailed to it, and changing it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import UUID

from auth_manager import audit, one_time_secrets, outbox, rate_limits
from auth_manager.accounts import Account
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import InvalidOneTimeSecret
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_recent_authentication, require_step_up
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.proofs import Proof, lifetime, parse_email, prove, request_by_mail, reserve_mail
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims

OF_THE_OLD_ADDRESS = (
    Purpose.VERIFY_EMAIL,
    Purpose.RESET_PASSWORD,
    Purpose.EMAIL_LOGIN,
    Purpose.CHANGE_EMAIL,
    Purpose.SECOND_FACTOR,
    Purpose.ENROL_FACTOR,
)
"""What was mailed to an address, or came of it, and must not count once the account has another."""


def resend(resources: Resources, origin: Origin, email: str, *, record: Record[UUID] | None = None) -> UUID:
    """Mail another verification to an account that is not verified; the same answer for everyone.

    Raises:
        InvalidFields, TooManyRequests: as for proofs.request_by_mail.
    """
    return request_by_mail(
        resources,
        origin,
        email,
        purpose=Purpose.VERIFY_EMAIL,
        unverified_only=True,
        record=record,
    )


def verify_email(
    resources: Resources, origin: Origin, proof: Proof, *, record: Record[Account] | None = None
) -> Account:
    """Take an address as proven: the account's own, or the one it changes to. Two round trips.

    Raises:
        InvalidOneTimeSecret: used, expired, foreign; or the account has another address by now.
        TooManyAttempts: as for proofs.prove.
        EmailTaken: another account has the new address by now; nothing was used up.
    """
    secret = prove(resources, origin, proof, Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL)
    if secret.account_id is None or secret.email is None or secret.email_normalized is None:
        raise InvalidOneTimeSecret
    changes = secret.purpose is Purpose.CHANGE_EMAIL
    notice = NewMessage(
        new_id(), Kind.EMAIL_CHANGED, origin.now, details={"new_email_masked": mask(secret.email)}
    )
    trip: Callable[[], AbstractContextManager[Connection]] = (
        resources.database.transaction if record else resources.database.one_trip
    )
    with trip() as connection:
        one_time_secrets.use(connection, secret.id, use_id=new_id(), now=origin.now)
        if proof.code is not None:
            rate_limits.give_back(connection, secret.limit_key)
        if changes:
            accounts_store.require_enabled(connection, secret.account_id, otherwise=InvalidOneTimeSecret())
            # Before the change: to the old address.
            outbox.add_to_account(connection, notice, account_id=secret.account_id, locale=origin.locale)
            accounts_store.change_email(
                connection,
                secret.account_id,
                email=secret.email,
                email_normalized=secret.email_normalized,
                now=origin.now,
            )
            one_time_secrets.retire(connection, secret.account_id, OF_THE_OLD_ADDRESS, now=origin.now)
            audit.append(connection, "email_changed", origin, account_id=secret.account_id)
        else:
            accounts_store.require_enabled(
                connection,
                secret.account_id,
                email_normalized=secret.email_normalized,
                otherwise=InvalidOneTimeSecret(),
            )
            accounts_store.mark_verified(connection, secret.account_id, secret.email_normalized, origin.now)
            audit.append(connection, "email_verified", origin, account_id=secret.account_id)
        account = accounts_store.fetch(connection, secret.account_id)
        if account is None:  # the guard holds its row
            raise InvalidOneTimeSecret
        if record:
            record(connection, account)
    if changes:
        resources.hand_over([notice.id])
    count("email_changed" if changes else "email_verified")
    log_event("email_proven", purpose=secret.purpose.value, account_id=account.id)
    return account


def change_email(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    email: str,
    *,
    record: Record[UUID] | None = None,
) -> UUID:
    """Mail a proof to a new address; the old one stays until it is presented, and is told. Two round trips.

    Whether the new address is free shows to nobody but its owner. Only the last request counts.

    Raises:
        InvalidFields: it is no address.
        RecentAuthenticationRequired: the sign-in is too old (ASVS 7.5.1).
        TooManyRequests: too many mails to this address, or asked for by this client.
        SessionEnded: the session ended.
    """
    require_recent_authentication(claims, origin.now, resources.settings.recent_authentication)
    email_normalized = parse_email(email)
    reserve_mail(resources, origin, Purpose.CHANGE_EMAIL, email_normalized, claims=claims)
    secret = OneTimeSecret(
        id=new_id(),
        purpose=Purpose.CHANGE_EMAIL,
        account_id=claims.sub,
        email=email,
        email_normalized=email_normalized,
        details={},
        limit_key=rate_limits.account_key(claims.sub),
        expires_at=origin.now + lifetime(resources.settings, Purpose.CHANGE_EMAIL),
    )
    proof = NewMessage(new_id(), Kind.CHANGE_EMAIL, origin.now, secret_id=secret.id)
    notice = NewMessage(
        new_id(), Kind.EMAIL_CHANGE_REQUESTED, origin.now, details={"new_email_masked": mask(email)}
    )
    with resources.database.one_trip() as connection:
        require_step_up(connection, claims, origin.now, maximum_age=resources.settings.recent_authentication)
        one_time_secrets.retire(
            connection, claims.sub, [Purpose.CHANGE_EMAIL], except_for=secret.id, now=origin.now
        )
        one_time_secrets.add(connection, secret, now=origin.now)
        outbox.add_new_address(
            connection,
            proof,
            wanted_by=claims.sub,
            email=email,
            email_normalized=email_normalized,
            locale=origin.locale,
        )
        outbox.add_to_account(connection, notice, account_id=claims.sub, locale=origin.locale)
        audit.append(
            connection, "change_email_requested", origin, account_id=claims.sub, session_id=claims.sid
        )
        if record:
            record(connection, secret.id)
    resources.hand_over([proof.id, notice.id])
    return secret.id


def mask(email: str) -> str:
    """Return an address as a notice to another one shows it: `n…@example.com`."""
    local, _, domain = email.rpartition("@")
    return f"{local[:1]}…@{domain}"

"""Signing in by a code or a link that was mailed, instead of a password."""

from dataclasses import replace
from uuid import UUID

from auth_manager import audit, known_devices, one_time_secrets, rate_limits
from auth_manager.accounts import Account
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.errors import AccountDisabled, InvalidCredentials, InvalidOneTimeSecret, TooManyAttempts
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind
from auth_manager.passwords import UNUSABLE_HASH
from auth_manager.proofs import Proof, prove, request_by_mail
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import TokenGrant, issue_tokens, new_session

MAILED_CODE_AMR = ("otp",)
"""RFC 8176 has no value for mail; this is a one-time password."""
SINGLE_FACTOR_ACR = "aal1"


def start(resources: Resources, origin: Origin, email: str, *, record: Record[UUID] | None = None) -> UUID:
    """Mail a link and a code to sign in with; the same answer for everyone (ASVS 6.3.8).

    Raises:
        InvalidFields, TooManyRequests: as for proofs.request_by_mail.
    """
    return request_by_mail(
        resources, origin, email, purpose=Purpose.EMAIL_LOGIN, kind=Kind.EMAIL_LOGIN, record=record
    )


def log_in(
    resources: Resources, origin: Origin, proof: Proof, *, record: Record[TokenGrant] | None = None
) -> TokenGrant:
    """Open a session by what was mailed, in three round trips.

    It proves the address. If nobody had proven it before, whoever registered the account may have been
    somebody else: their password stops working, and their sessions and pending change of address end.

    Raises:
        InvalidOneTimeSecret: used, expired, foreign; or the account has another address by now.
        TooManyAttempts: the account is locked or must wait, for links as for codes (ASVS 6.3.4).
        AccountDisabled: the account is.
    """
    secret = prove(resources, origin, proof, Purpose.EMAIL_LOGIN)
    if secret.account_id is None or secret.email_normalized is None:
        raise InvalidOneTimeSecret
    if proof.token is not None:
        _reserve(resources, origin, secret)
    with resources.database.one_trip() as connection:
        credentials = accounts_store.find_credentials(connection, secret.account_id)
    if credentials is None:
        raise InvalidOneTimeSecret
    account = credentials.account
    if account.disabled_at is not None:
        _record_refusal(resources, origin, account)
        raise AccountDisabled

    first_proof = account.email_verified_at is None
    if first_proof:
        account = replace(account, email_verified_at=origin.now)
    session, line = new_session(resources, origin, account.id, amr=MAILED_CODE_AMR, acr=SINGLE_FACTOR_ACR)
    tokens = issue_tokens(resources, origin, session=session, line=line, account=account)
    try:
        with resources.database.one_trip() as connection:
            one_time_secrets.use(connection, secret.id, use_id=new_id(), now=origin.now)
            # Before the account's row is locked, as at a login.
            rate_limits.clear(connection, rate_limits.account_key(account.id))
            accounts_store.require_enabled(
                connection,
                account.id,
                email_normalized=secret.email_normalized,
                otherwise=InvalidOneTimeSecret(),
            )
            if first_proof:
                sessions_store.end_sessions(
                    connection, account.id, reason="address_proven_by_another", now=origin.now
                )
            sessions_store.insert(
                connection, session, line, password_changed_at=credentials.password_changed_at
            )
            if first_proof:
                accounts_store.mark_verified(connection, account.id, secret.email_normalized, origin.now)
                accounts_store.set_password_hash(connection, account.id, UNUSABLE_HASH, origin.now)
                # The other way back in: an address that the other one asked to change to.
                one_time_secrets.retire(connection, account.id, [Purpose.CHANGE_EMAIL], now=origin.now)
            one_time_secrets.retire(connection, account.id, [Purpose.EMAIL_LOGIN], now=origin.now)
            known_devices.greet(connection, resources.settings, origin, account.id)
            audit.append(
                connection, "logged_in_by_mail", origin, account_id=account.id, session_id=session.id
            )
            if record:
                record(connection, tokens)
    except InvalidCredentials:  # the password changed while we looked: whoever did that decides
        raise InvalidOneTimeSecret from None
    count("login_succeeded")
    log_event("login_succeeded", account_id=account.id, session_id=session.id, method="mail")
    return tokens


def _reserve(resources: Resources, origin: Origin, secret: OneTimeSecret) -> None:
    """Hold the account's lock against links too; what is counted here is cleared with the session."""
    with resources.database.one_trip() as connection:
        retry_at = rate_limits.reserve(
            connection, secret.limit_key, rate_limits.account_limit(resources.settings), origin.now
        )
    if retry_at is not None:
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(retry_at, origin.now))


def _record_refusal(resources: Resources, origin: Origin, account: Account) -> None:
    with resources.database.one_trip() as connection:
        audit.append(
            connection, "logged_in_by_mail", origin, account_id=account.id, failure=AccountDisabled.code
        )
    count("login_failed")
    log_event("login_failed", reason=AccountDisabled.code, account_id=account.id)

"""Signing in by a code or a link that was mailed, instead of a password."""

from dataclasses import replace
from uuid import UUID

from auth_manager import audit, one_time_secrets, rate_limits
from auth_manager.accounts import Account
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.store import Credentials, later
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import AccountDisabled, InvalidCredentials, InvalidOneTimeSecret, TooManyAttempts
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import Purpose
from auth_manager.passwords import UNUSABLE_HASH
from auth_manager.proofs import Proof, prove, request_by_mail
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.sessions.service import TokenGrant
from auth_manager.sign_ins import FirstFactor, FirstMethod, sign_in


def start(resources: Resources, origin: Origin, email: str, *, record: Record[UUID] | None = None) -> UUID:
    """Mail a link and a code to sign in with; the same answer for everyone (ASVS 6.3.8).

    Raises:
        InvalidFields, TooManyRequests: as for proofs.request_by_mail.
    """
    return request_by_mail(resources, origin, email, purpose=Purpose.EMAIL_LOGIN, record=record)


def log_in(
    resources: Resources, origin: Origin, proof: Proof, *, record: Record[TokenGrant] | None = None
) -> TokenGrant:
    """Open a session by what was mailed, in three round trips, or ask for the second factor.

    It proves the address. If nobody had proven it before, whoever registered the account may have been
    somebody else: their password stops working, and their sessions and pending change of address end.

    Raises:
        InvalidOneTimeSecret: used, expired, foreign; or the account has another address by now.
        TooManyAttempts: the account is locked or must wait, for links as for codes (ASVS 6.3.4).
        AccountDisabled: the account is.
        MfaRequired, MfaEnrolmentRequired: as for `sign_in`; what was mailed is used up.
    """
    secret = prove(resources, origin, proof, Purpose.EMAIL_LOGIN)
    if secret.account_id is None or secret.email_normalized is None:
        raise InvalidOneTimeSecret
    credentials = _read(resources, origin, secret.account_id, reserve=proof.token is not None)
    account, email = credentials.account, secret.email_normalized
    if account.disabled_at is not None:
        _record_refusal(resources, origin, account)
        raise AccountDisabled

    first_proof = account.email_verified_at is None
    password_changed_at = credentials.password_changed_at
    if first_proof:
        account = replace(account, email_verified_at=origin.now)
        password_changed_at = later(origin.now, password_changed_at)

    def write(connection: Connection) -> None:
        accounts_store.require_enabled(
            connection, account.id, email_normalized=email, otherwise=InvalidOneTimeSecret()
        )
        accounts_store.require_password_unchanged(
            connection, account.id, credentials.password_changed_at, otherwise=InvalidOneTimeSecret()
        )
        if first_proof:
            sessions_store.end_sessions(
                connection, account.id, reason="address_proven_by_another", now=origin.now
            )
            accounts_store.mark_verified(connection, account.id, email, origin.now)
            accounts_store.set_password_hash(connection, account.id, UNUSABLE_HASH, origin.now)
            # The other way back in: an address that the other one asked to change to.
            one_time_secrets.retire(connection, account.id, [Purpose.CHANGE_EMAIL], now=origin.now)
        one_time_secrets.retire(connection, account.id, [Purpose.EMAIL_LOGIN], now=origin.now)

    first = FirstFactor(
        account=account,
        password_changed_at=password_changed_at,
        factors_changed_at=credentials.factors_changed_at,
        factors=credentials.factors,
        method=FirstMethod.MAIL,
    )
    try:
        return sign_in(
            resources,
            origin,
            first,
            before=lambda connection: one_time_secrets.use(
                connection, secret.id, use_id=new_id(), now=origin.now
            ),
            writes=write,
            record=record,
        )
    except InvalidCredentials:  # the account changed while we looked: whoever did that decides
        raise InvalidOneTimeSecret from None


def _read(resources: Resources, origin: Origin, account_id: UUID, *, reserve: bool) -> Credentials:
    """Read the account; with `reserve` count an attempt, which holds its lock against links too.

    The guess of a code was counted before. What is counted is given back with the sign-in.
    """
    with resources.database.one_trip() as connection:
        if reserve:
            credentials = accounts_store.reserve_attempt(
                connection,
                account_id,
                by_account=rate_limits.account_limit(resources.settings),
                now=origin.now,
            )
        else:
            credentials = accounts_store.find_credentials(connection, account_id)
    if credentials is None:
        raise InvalidOneTimeSecret
    if credentials.retry_at is not None:
        raise TooManyAttempts(retry_after=rate_limits.seconds_until(credentials.retry_at, origin.now))
    return credentials


def _record_refusal(resources: Resources, origin: Origin, account: Account) -> None:
    with resources.database.one_trip() as connection:
        audit.append(
            connection, "logged_in_by_mail", origin, account_id=account.id, failure=AccountDisabled.code
        )
    count("login_failed")
    log_event("login_failed", reason=AccountDisabled.code, account_id=account.id)

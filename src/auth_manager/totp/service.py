"""Setting up one-time passwords of an authenticator app, and removing them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from auth_manager import rate_limits, sealed_values
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.errors import FactorNeeded, FieldError, InvalidFields, NotFound, SessionEnded
from auth_manager.factors import MULTI_FACTOR_ACR, recovery_codes, totp
from auth_manager.factors.changes import (
    Change,
    Enrolee,
    end_what_stood_in,
    enrolee_of,
    note,
    require_proven_address,
)
from auth_manager.factors.totp import Totp
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.resources import Resources
from auth_manager.sealed_values import CannotOpen
from auth_manager.sessions import store as sessions_store
from auth_manager.sign_ins import must_have_factor
from auth_manager.tokens import AccessClaims

AMR = ("mfa", "otp")
"""RFC 8176, of a session whose owner just confirmed an authenticator app."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app takes: the base32 secret, the otpauth URI with it, its QR code as SVG."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)
    qr_svg: str = field(repr=False)


def start(
    resources: Resources, origin: Origin, enrolee: Enrolee, *, record: Record[Enrolment] | None = None
) -> Enrolment:
    """Make a secret, in one round trip; it counts for nothing until a code of it was presented.

    One that waits already is replaced.

    Raises:
        TooManyFactors: the account has an authenticator app.
        EmailNotVerified: the address must be proven first.
        NotFound: the account is gone.
        AuthError: what the enrolee's guard raises.
    """
    secret = totp.generate_secret()
    sealed = sealed_values.seal(
        resources.secret_keys, totp.PURPOSE, secret.encode(), bound_to=enrolee.account_id.bytes
    )
    with resources.database.transaction() if record else resources.database.one_trip() as connection:
        enrolee.guard(connection)
        require_proven_address(connection, resources.settings, enrolee.account_id)
        totp.add_pending(connection, new_id(), enrolee.account_id, sealed_secret=sealed, now=origin.now)
        account = accounts_store.fetch(connection, enrolee.account_id)
        if account is None:  # the guard just saw it
            raise NotFound
        uri = totp.provisioning_uri(
            secret, issuer=resources.settings.product_name, account_name=account.email
        )
        enrolment = Enrolment(secret, uri, totp.render_qr(uri))
        if record:
            record(connection, enrolment)
    return enrolment


def confirm(
    resources: Resources,
    origin: Origin,
    enrolee: Enrolee,
    code: str,
    *,
    record: Record[Sequence[str]] | None = None,
) -> Sequence[str]:
    """Take the app as a factor by its first code, in two round trips; return recovery codes.

    They are new where the account has none left, and none otherwise. The code is used up. The session of the
    enrolee has two factors from now on; the tokens say so with the next refresh.

    Raises:
        InvalidFields: the code is wrong, at `/code`.
        NotFound: nothing waits to be confirmed.
        TooManyFactors: another app was confirmed in the same moment.
        TooManyRequests: tried too often.
        AuthError: what the enrolee's guard raises.
    """
    with resources.database.one_trip() as connection:
        enrolee.guard(connection)
        rate_limits.require_factor_change(connection, enrolee.account_id, origin.now)
        pending = totp.find_pending(connection, enrolee.account_id)
    if pending is None:
        raise NotFound
    secret = _open(resources, enrolee.account_id, pending.totp)
    step = totp.matching_step(secret, code, last_step=None, now=origin.now)
    if step is None:
        detail = "This is not the code that the app shows now."
        raise InvalidFields(errors=[FieldError("/code", "code_wrong", detail)])
    codes = [] if pending.recovery_codes_left else recovery_codes.generate()
    made = recovery_codes.hash_codes(resources.passwords, codes)
    with resources.database.one_trip() as connection:
        enrolee.guard(connection)
        require_proven_address(connection, resources.settings, enrolee.account_id)
        note(connection, origin, enrolee.account_id, Change.TOTP_ADDED, session_id=enrolee.session_id)
        totp.confirm(
            connection, pending.totp.id, enrolee.account_id, step=step, use_id=new_id(), now=origin.now
        )
        if codes:
            recovery_codes.add_first(connection, enrolee.account_id, made, now=origin.now)
        if record:
            record(connection, codes)
        if enrolee.session_id:
            sessions_store.renew_authentication(
                connection, enrolee.session_id, amr=AMR, acr=MULTI_FACTOR_ACR, now=origin.now
            )
    log_event("totp_added", account_id=enrolee.account_id)
    return codes


def remove(resources: Resources, origin: Origin, claims: AccessClaims) -> None:
    """Remove the caller's authenticator app, in two round trips.

    With the last factor go what stands in for one: recovery codes and trusted devices.

    Raises:
        NotFound: there is none.
        FactorNeeded: AUTH_MFA_POLICY asks this account for a factor, and there is no other.
        RecentAuthenticationRequired: the session was not stepped up (ASVS 7.5.1).
        SessionEnded: the session ended.
    """
    with resources.database.transaction() as connection:
        enrolee_of(resources, origin, claims).guard(connection)
        # Locked, so that of two removals at once the second sees what the first left.
        accounts_store.require_exists(connection, claims.sub, otherwise=SessionEnded())
        credentials = accounts_store.find_credentials(connection, claims.sub)
        if credentials is None or "totp" not in credentials.factors:
            raise NotFound
        is_last = "passkey" not in credentials.factors
        if is_last and must_have_factor(resources.settings, credentials.account.permissions):
            raise FactorNeeded
        totp.remove_all(connection, claims.sub)
        if is_last:
            end_what_stood_in(connection, claims.sub)
        note(connection, origin, claims.sub, Change.TOTP_REMOVED, session_id=claims.sid)
    log_event("totp_removed", account_id=claims.sub)


@dataclass(frozen=True, slots=True)
class Rewrapping:
    """How many secrets the first key has taken over, and how many no key opens."""

    rewrapped: int
    unreadable: int


def rewrap_secrets(resources: Resources, *, batch: int = 500) -> Rewrapping:
    """Wrap the data key of every secret with the first of AUTH_SECRET_KEYS, two round trips a batch.

    Nothing changes for those that it wrapped before. What a server seals meanwhile with an older key is left
    out: it must know the new one first.
    """
    rewrapped = unreadable = 0
    after: UUID | None = None
    while True:
        with resources.database.one_trip() as connection:
            found = totp.list_sealed(connection, after=after, limit=batch)
        if not found:
            return Rewrapping(rewrapped, unreadable)
        after = found[-1].id
        with resources.database.one_trip() as connection:
            for item in found:
                if sealed_values.is_current(resources.secret_keys, totp.PURPOSE, item.sealed_secret):
                    continue
                try:
                    sealed = sealed_values.rewrap(resources.secret_keys, totp.PURPOSE, item.sealed_secret)
                except CannotOpen:
                    unreadable += 1
                    continue
                totp.reseal(connection, item, sealed)
                rewrapped += 1


def _open(resources: Resources, account_id: UUID, item: Totp) -> str:
    try:
        return sealed_values.open_value(
            resources.secret_keys, totp.PURPOSE, item.sealed_secret, bound_to=account_id.bytes
        ).decode()
    except CannotOpen:
        # Its key was retired in between. Another start makes another secret.
        count("totp_secret_unreadable")
        log_event("totp_secret_unreadable", account_id=account_id)
        raise NotFound from None

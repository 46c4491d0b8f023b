"""What every change of an account's factors brings with it: a note, an event, and a mail to its owner."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from auth_manager import audit, one_time_secrets, outbox
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import AuthError, EmailNotVerified
from auth_manager.factors import SINGLE_FACTOR_ACR, recovery_codes, trusted_devices
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_step_up
from auth_manager.one_time_secrets import Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.settings import Settings
from auth_manager.tokens import AccessClaims


class Change(StrEnum):
    """What changed; the audit trail's event, and what the mail says."""

    TOTP_ADDED = "totp_added"
    TOTP_REMOVED = "totp_removed"
    PASSKEY_ADDED = "passkey_added"
    PASSKEY_REMOVED = "passkey_removed"
    RECOVERY_CODES_MADE = "recovery_codes_made"
    RECOVERY_CODE_USED = "recovery_code_used"
    MFA_RESET = "mfa_reset"


@dataclass(frozen=True, slots=True)
class Enrolee:
    """Who sets a factor up: an account, and the guard that must hold for it.

    `guard` queues that the session lives and was stepped up, or that the enrolment token is good. `context`
    binds a passkey's challenge to either.
    """

    account_id: UUID
    context: str
    guard: Callable[[Connection], None]
    session_id: UUID | None = None


def enrolee_of(resources: Resources, origin: Origin, claims: AccessClaims) -> Enrolee:
    """Return who is signed in, as who sets a factor up.

    Raises:
        RecentAuthenticationRequired, SessionEnded: by the guard, as for live_sessions.require_step_up.
    """

    def guard(connection: Connection) -> None:
        require_step_up(connection, claims, origin.now, maximum_age=resources.settings.recent_authentication)

    return Enrolee(claims.sub, f"registration:{claims.sid}", guard, session_id=claims.sid)


def note(
    connection: Connection,
    origin: Origin,
    account_id: UUID,
    change: Change,
    *,
    session_id: UUID | None = None,
    name: str = "",
) -> None:
    """Queue all of it. Sign-ins that are being decided right now are decided anew.

    `name` is that of the passkey.
    """
    accounts_store.note_factor_change(connection, account_id, origin.now)
    # Whoever was in the account before may wait for it at another address.
    one_time_secrets.retire(connection, account_id, [Purpose.CHANGE_EMAIL], now=origin.now)
    tell(connection, origin, account_id, change, session_id=session_id, name=name)


def tell(
    connection: Connection,
    origin: Origin,
    account_id: UUID,
    change: Change,
    *,
    session_id: UUID | None = None,
    name: str = "",
) -> None:
    """Queue the event and the mail, which the relay hands over."""
    message = NewMessage(
        new_id(),
        Kind.FACTORS_CHANGED,
        origin.now,
        details={
            "change": change.value,
            "name": name,
            "at": origin.now.isoformat(),
            "address": origin.address,
        },
        handed_over=False,
    )
    outbox.add_to_account(connection, message, account_id=account_id, locale=origin.locale)
    audit.append(connection, change.value, origin, account_id=account_id, session_id=session_id)


def end_what_stood_in(connection: Connection, account_id: UUID) -> None:
    """Queue what goes with the last factor: recovery codes, trusted devices, and the rank of sessions."""
    recovery_codes.remove_all(connection, account_id)
    trusted_devices.revoke_all(connection, account_id)
    sessions_store.lower_assurance(connection, account_id, acr=SINGLE_FACTOR_ACR)


def require_proven_address(connection: Connection, settings: Settings, account_id: UUID) -> None:
    """Queue the guard: where mail is sent, only an account whose address was proven gets factors.

    Whoever registers with somebody else's address could otherwise leave a passkey of theirs on the account,
    for when its owner comes.
    """
    if settings.mail_transport == "none":
        return
    connection.add(
        """
        SELECT require(EXISTS (
            SELECT FROM accounts WHERE id = %(account_id)s AND email_verified_at IS NOT NULL
        ), 'email_not_verified')
        """,
        {"account_id": account_id},
        refused={"email_not_verified": EmailNotVerified()},
    )


def require_no_factors(connection: Connection, account_id: UUID, *, otherwise: AuthError) -> None:
    """Queue the guard: the round trip raises `otherwise` when the account has a second factor."""
    connection.add(
        "SELECT require(cardinality(factors_of(%(account_id)s)) = 0, 'factors_enrolled')",
        {"account_id": account_id},
        refused={"factors_enrolled": otherwise},
    )


def require_factors(connection: Connection, account_id: UUID, *, otherwise: AuthError) -> None:
    """Queue the guard: the round trip raises `otherwise` unless the account has a second factor."""
    connection.add(
        "SELECT require(cardinality(factors_of(%(account_id)s)) > 0, 'no_factors')",
        {"account_id": account_id},
        refused={"no_factors": otherwise},
    )

"""Leaving: a copy of everything that is held, and erasure, at once or after a time to change one's mind."""

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from auth_manager import audit, known_devices, one_time_secrets, outbox, rate_limits
from auth_manager.accounts import store as accounts_store
from auth_manager.audit import Origin
from auth_manager.database import Connection, Database
from auth_manager.errors import InvalidOneTimeSecret, SessionEnded
from auth_manager.factors import passkeys, recovery_codes, totp, trusted_devices
from auth_manager.factors.passkeys import Passkey
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.live_sessions import require_step_up
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.permissions import keep_an_administrator
from auth_manager.proofs import look_at
from auth_manager.resources import Resources
from auth_manager.sessions import store as sessions_store
from auth_manager.tokens import AccessClaims

EXPORTED_ROWS = 2000
"""The latest of each list: an answer of Lambda holds 6 MB."""

REST = timedelta(days=30)
"""Within which what an erasure had no time for in the audit trail is done: far more hours than it takes."""


def export(resources: Resources, origin: Origin, claims: AccessClaims) -> dict[str, Any]:
    """Return everything that is held about the caller, but no secret and no hash of one (GDPR art. 15, 20).

    Raises:
        RecentAuthenticationRequired: the sign-in is too old: a stolen token shall not take it all.
        SessionEnded: the session ended.
    """
    with resources.database.transaction() as connection:
        require_step_up(connection, claims, origin.now, maximum_age=resources.settings.recent_authentication)
        audit.append(connection, "exported", origin, account_id=claims.sub, session_id=claims.sid)
        account = accounts_store.fetch(connection, claims.sub)
        if account is None:
            raise SessionEnded
        exported = {
            "exported_at": origin.now,
            "account": asdict(account),
            "sessions": sessions_store.list_all(connection, claims.sub, limit=EXPORTED_ROWS),
            "devices": known_devices.list_of(connection, claims.sub, limit=EXPORTED_ROWS),
            "trusted_devices": trusted_devices.list_all(connection, claims.sub, limit=EXPORTED_ROWS),
            "factors": {
                "totp": totp.list_of(connection, claims.sub, limit=EXPORTED_ROWS),
                "passkeys": [_describe(passkey) for passkey in passkeys.list_of(connection, claims.sub)],
                "recovery_codes": recovery_codes.list_of(connection, claims.sub, limit=EXPORTED_ROWS),
            },
            "requests": one_time_secrets.list_of(connection, claims.sub, limit=EXPORTED_ROWS),
            "messages": outbox.list_of(connection, claims.sub, limit=EXPORTED_ROWS),
            "security_events": audit.list_of(connection, claims.sub, limit=EXPORTED_ROWS),
        }
    log_event("exported", account_id=claims.sub)
    return exported


def _describe(passkey: Passkey) -> dict[str, Any]:
    """Return what its owner can read in it; not the id by which browsers find it."""
    return {name: value for name, value in asdict(passkey).items() if name not in {"id", "credential_id"}}


def delete_own_account(resources: Resources, origin: Origin, claims: AccessClaims) -> datetime | None:
    """Erase the caller's account, in one round trip: None; or schedule it, and return for when.

    With AUTH_ERASURE_GRACE it is disabled until then, its sessions end, and a mail says how to keep it.

    Raises:
        RecentAuthenticationRequired: the sign-in is older than the setting allows (ASVS 7.5.1).
        LastAdministrator: nobody else could administer.
        SessionEnded: the session ended, or the account was disabled or deleted.
    """
    if resources.settings.erasure_grace:
        return _schedule(resources, origin, claims)
    goodbye = new_id()
    with resources.database.one_trip() as connection:
        require_step_up(connection, claims, origin.now, maximum_age=resources.settings.recent_authentication)
        keep_an_administrator(connection, [claims.sub])
        erase(connection, origin, claims.sub, goodbye)
    resources.hand_over([goodbye])
    count("account_erased")
    log_event("account_deleted", account_id=claims.sub)
    return None


def _schedule(resources: Resources, origin: Origin, claims: AccessClaims) -> datetime:
    erase_after = origin.now + timedelta(seconds=resources.settings.erasure_grace)
    secret = OneTimeSecret(
        id=new_id(),
        purpose=Purpose.KEEP_ACCOUNT,
        account_id=claims.sub,
        email=None,
        email_normalized=None,
        details={"scheduled_at": origin.now.isoformat()},
        limit_key=rate_limits.account_key(claims.sub),
        expires_at=erase_after,
    )
    message = NewMessage(
        new_id(),
        Kind.ERASURE_SCHEDULED,
        origin.now,
        secret_id=secret.id,
        details={"erase_after": erase_after.isoformat()},
    )
    with resources.database.one_trip() as connection:
        require_step_up(connection, claims, origin.now, maximum_age=resources.settings.recent_authentication)
        keep_an_administrator(connection, [claims.sub])
        accounts_store.schedule_erasure(connection, claims.sub, erase_after=erase_after, now=origin.now)
        sessions_store.end_sessions(connection, claims.sub, reason="account_deleted", now=origin.now)
        one_time_secrets.retire(connection, claims.sub, list(Purpose), now=origin.now)
        one_time_secrets.add(connection, secret, now=origin.now)
        outbox.add_to_account(
            connection, message, account_id=claims.sub, locale=origin.locale, verified_only=False
        )
        audit.append(connection, "erasure_scheduled", origin, account_id=claims.sub, session_id=claims.sid)
    resources.hand_over([message.id])
    log_event("erasure_scheduled", account_id=claims.sub)
    return erase_after


def keep(resources: Resources, origin: Origin, token: str, *, record: Record[None] | None = None) -> None:
    """Keep an account whose erasure was scheduled; its owner then signs in as before.

    By the token alone: its mail has no code.

    Raises:
        InvalidOneTimeSecret: used, expired, foreign; or nothing is scheduled.
    """
    secret = look_at(resources, origin, token, Purpose.KEEP_ACCOUNT)
    if secret.account_id is None:
        raise InvalidOneTimeSecret
    with resources.database.one_trip() as connection:
        one_time_secrets.use(connection, secret.id, use_id=new_id(), now=origin.now)
        accounts_store.cancel_erasure(
            connection,
            secret.account_id,
            scheduled_at=datetime.fromisoformat(secret.details["scheduled_at"]),
            now=origin.now,
            otherwise=InvalidOneTimeSecret(),
        )
        audit.append(connection, "erasure_cancelled", origin, account_id=secret.account_id)
        if record:
            record(connection, None)
    log_event("erasure_cancelled", account_id=secret.account_id)


def erase_due(database: Database, origin: Origin, *, limit: int) -> int:
    """Erase accounts whose time to be kept is over, in one transaction; return how many.

    Then, in another, some of what earlier erasures had no time for in the audit trail.
    """
    with database.transaction() as connection:
        due = accounts_store.claim_to_erase(connection, now=origin.now, limit=limit)
        for account_id in due:
            erase(connection, origin, account_id, new_id())
    with database.one_trip() as connection:
        audit.anonymise_rest(connection, erased_since=origin.now - REST)
    if due:
        count("account_erased", len(due))
    return len(due)


def erase(
    connection: Connection,
    origin: Origin,
    account_id: UUID,
    goodbye: UUID,
    *,
    actor_id: UUID | None = None,
    session_id: UUID | None = None,
) -> None:
    """Queue the erasure: what is left is the bare id in the audit trail, and the mail that says so.

    `actor_id` and `session_id` are those of the administrator who does it.
    """
    nobody = replace(origin, address=None, user_agent="")
    audit.append(
        connection,
        "account_deleted",
        nobody,
        account_id=account_id,
        session_id=session_id,
        actor_id=actor_id,
    )
    audit.anonymise(connection, account_id)
    outbox.forget(connection, account_id)
    one_time_secrets.forget(connection, account_id)
    outbox.add_to_account(
        connection,
        NewMessage(goodbye, Kind.ACCOUNT_ERASED, origin.now),
        account_id=account_id,
        locale=origin.locale,
        keep=True,
    )
    rate_limits.forget_account(connection, account_id)
    accounts_store.delete(connection, account_id)

"""What follows when an account's failures reach a limit: an event, a metric, and a mail to its owner."""

from uuid import UUID

from auth_manager import audit, outbox
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.outbox import Kind, NewMessage
from auth_manager.settings import Settings


def is_reached(settings: Settings, failures: int) -> bool:
    """Tell whether exactly this many consecutive failures begin the delays, or the lock."""
    return failures in {settings.login_failures_before_delay, settings.login_failures_before_lock}


def record(
    connection: Connection,
    origin: Origin,
    account_id: UUID | None,
    *,
    failures: int,
    of_factors: bool = False,
) -> None:
    """Queue the event, and for an account that exists the notice to its owner; count and log it.

    An identifier that nobody has is locked like an account, for the same statements. `of_factors`: whoever it
    was has the password, the mailbox or a session, and neither time nor a new password lifts the lock.
    """
    audit.append(connection, "account_locked", origin, account_id=account_id, failure=f"{failures}")
    outbox.add_to_account(
        connection,
        NewMessage(
            new_id(),
            Kind.ACCOUNT_LOCKED,
            origin.now,
            details={
                "at": origin.now.isoformat(),
                "address": origin.address,
                "failures": failures,
                "of_factors": of_factors,
            },
            handed_over=False,
        ),
        account_id=account_id or new_id(),
        locale=origin.locale,
    )
    count("account_locked")
    log_event("account_locked", account_id=account_id, failures=failures)

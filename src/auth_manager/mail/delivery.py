"""Delivery: who takes a message from the outbox, sends it, and notes what came of it.

At least once: a message that was written is sent, or its row says why not. At most one send for each time
that it is taken, and it is taken by one at a time. A crash between the mail server's answer and our note
makes a second copy, with the same Message-ID (docs/decisions/0017-mail.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from auth_manager import outbox
from auth_manager.database import Database
from auth_manager.loops import POLL, Loop, MayGoOn
from auth_manager.mail import Email, MailRefused, MailUnavailable, Send
from auth_manager.observability import count, log_event
from auth_manager.outbox import OutboxMessage, Taken

FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=1)


class Compose(Protocol):
    """Composer.compose: the mail of a message, or MailRefused."""

    def __call__(self, message: OutboxMessage, *, now: datetime) -> Email:
        """Compose one."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What delivering takes."""

    database: Database
    compose: Compose
    send: Send


def deliver_one(delivery: Delivery, message_id: UUID, *, now: datetime) -> bool:
    """Send the mail that a queue named, unless that was done: then nothing happens. False: it is a webhook.

    Raises:
        MailUnavailable: it must come again: nobody can send it now, or somebody else does, or died doing so.
        ValueError: its row is of a kind that we do not know.
    """
    with delivery.database.one_trip() as connection:
        taken, message = outbox.take(connection, message_id, now=now)
    if taken is Taken.BUSY:
        raise MailUnavailable("busy")
    if message is not None:
        # The queue says when it comes again.
        _deliver(delivery, message, now=now, wait=timedelta())
    return taken is not Taken.WEBHOOK


def deliver_waiting(
    delivery: Delivery, *, clock: Callable[[], datetime], may_go_on: Callable[[], bool] = lambda: True
) -> int:
    """Send what is due, the oldest first; return how many were dealt with.

    Raises:
        MailUnavailable: one could not be sent now. It is due again after a minute, and each time after twice
            as long, up to an hour.
    """
    dealt_with = 0
    while may_go_on():
        with delivery.database.one_trip() as connection:
            message = outbox.take_next(connection, now=clock())
        if message is None:
            break
        _deliver(delivery, message, now=clock(), wait=wait_after(message.tries))
        dealt_with += 1
    return dealt_with


def wait_after(tries: int) -> timedelta:
    """Return how long a message waits after so many failures."""
    doublings = min(tries - 1, 10)
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)


def _deliver(delivery: Delivery, message: OutboxMessage, *, now: datetime, wait: timedelta) -> None:
    """Compose and send with no transaction open, and note the outcome."""
    try:
        delivery.send(delivery.compose(message, now=now))
    except MailRefused as error:
        with delivery.database.one_trip() as connection:
            outbox.give_up(connection, message.id, reason=error.reason, now=now)
        count("mail_refused")
        log_event("mail_refused", message_id=message.id, kind=message.kind, reason=error.reason)
    except MailUnavailable:
        with delivery.database.one_trip() as connection:
            outbox.put_back(connection, message.id, wait=wait)
        raise
    else:
        with delivery.database.one_trip() as connection:
            outbox.mark_sent(connection, message.id, now=now)
        count("mail_sent")
        log_event("mail_sent", message_id=message.id, kind=message.kind)


class DeliveryLoop(Loop):
    """Delivers in a thread, where there is no queue."""

    def __init__(
        self,
        delivery: Delivery,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        poll: float = POLL,
    ) -> None:
        def deliver(may_go_on: MayGoOn) -> None:
            try:
                deliver_waiting(delivery, clock=clock, may_go_on=may_go_on)
            except MailUnavailable as error:
                log_event("mail_delayed", reason=error.reason)

        super().__init__("mail-delivery", deliver, poll=poll)

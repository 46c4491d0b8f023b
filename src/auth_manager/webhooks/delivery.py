"""Delivery: who takes a message, posts it, and notes what came of it.

At least once, under the same `webhook-id` each time. A failure is tried again on the schedule that Standard
Webhooks suggests, and then given up; an endpoint that fails for days is disabled. One that is slow is given a
rest after each attempt, so that others' messages, and mails, are not held up by it.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from auth_manager import __version__, audit, sealed_values, standard_webhooks
from auth_manager.audit import Origin
from auth_manager.database import Database
from auth_manager.loops import POLL, Loop, MayGoOn
from auth_manager.observability import count, log_event, log_failure, request_id
from auth_manager.outbound_http import Answer, CannotPost
from auth_manager.sealed_values import CannotOpen
from auth_manager.secret_keys import SecretKeys
from auth_manager.webhooks import SECRET_PURPOSE, messages, store
from auth_manager.webhooks.messages import Message, Outcome

RETRIES = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""After each failure, until the next attempt: three days in all."""

JITTER = 0.1
"""By how much of itself a wait grows at random, so that an endpoint that comes back is not run over."""

FAILING = timedelta(days=5)
"""After so long without a success an endpoint is disabled."""

SLOW = timedelta(seconds=1)
"""An attempt that takes longer is followed by a pause."""

PAUSE_AFTER_SUCCESS = 1
PAUSE_AFTER_FAILURE = 6
"""Times the duration of the attempt: an endpoint that times out has a seventh of a sender's time at most."""

_GONE = 410
_SUCCESS = range(200, 300)


class Post(Protocol):
    """Outbound.post: the answer, or CannotPost."""

    def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Post once."""


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """What delivering takes. `chance` returns a number from 0 to 1, for the jitter; `stopwatch` seconds."""

    database: Database
    secret_keys: SecretKeys
    post: Post
    chance: Callable[[], float] = random.random
    stopwatch: Callable[[], float] = time.monotonic


def deliver_one(delivery: WebhookDelivery, message_id: UUID, *, now: datetime) -> None:
    """Post the message that a queue named, if it is due; what fails is handed over again when it is."""
    with delivery.database.one_trip() as connection:
        message = messages.take(connection, message_id, now=now)
    if message is not None:
        _deliver(delivery, message, now=now)


def deliver_waiting(
    delivery: WebhookDelivery, *, clock: Callable[[], datetime], may_go_on: MayGoOn = lambda: True
) -> int:
    """Post what is due, what is due longest first; return how many attempts were made."""
    attempts = 0
    while may_go_on():
        with delivery.database.one_trip() as connection:
            message = messages.take_next(connection, now=clock())
        if message is None:
            break
        _deliver(delivery, message, now=clock())
        attempts += 1
    return attempts


def wait_after(tries: int, chance: float) -> timedelta | None:
    """Return how long a message waits after so many attempts, None: there is no further one."""
    if tries > len(RETRIES):
        return None
    return RETRIES[tries - 1] * (1 + JITTER * chance)


def open_loop(delivery: WebhookDelivery, *, poll: float = POLL) -> Loop:
    """Return what delivers in a thread of its own, where there is no queue."""

    def deliver(may_go_on: MayGoOn) -> None:
        deliver_waiting(delivery, clock=lambda: datetime.now(UTC), may_go_on=may_go_on)

    return Loop("webhook-delivery", deliver, poll=poll)


def _deliver(delivery: WebhookDelivery, message: Message, *, now: datetime) -> None:
    """Post with no transaction open, and note the outcome."""
    started = delivery.stopwatch()
    status, error = _attempt(delivery, message, now)
    took = timedelta(seconds=delivery.stopwatch() - started)
    factor = PAUSE_AFTER_FAILURE if error else PAUSE_AFTER_SUCCESS
    outcome = Outcome(
        at=now,
        duration=round(took / timedelta(milliseconds=1)),
        status=status,
        error=error,
        pause=took * factor if took > SLOW else None,
    )
    facts: dict[str, Any] = {
        "message_id": message.id,
        "webhook_id": message.endpoint_id,
        "milliseconds": outcome.duration,
    }
    if error is None:
        with delivery.database.one_trip() as connection:
            messages.mark_delivered(connection, message, outcome)
        count("webhook_sent")
        log_event("webhook_sent", **facts)
        return
    wait = wait_after(message.tries, delivery.chance())
    with delivery.database.one_trip() as connection:
        failing_since = messages.mark_failed(connection, message, outcome, wait=wait)
    if wait is None:
        count("webhook_failed")
        log_event("webhook_failed", reason=error, status=status, **facts)
    else:
        log_event("webhook_delayed", reason=error, status=status, tries=message.tries, **facts)
    if status == _GONE:
        _disable(delivery, message.endpoint_id, "gone", now)
    elif failing_since is not None and now - failing_since >= FAILING:
        _disable(delivery, message.endpoint_id, "failing", now)


def _attempt(delivery: WebhookDelivery, message: Message, now: datetime) -> tuple[int | None, str | None]:
    """Return the answer's status, if there is an answer, and why it is a failure, if it is one."""
    try:
        status = _sign_and_post(delivery, message, now)
    except CannotOpen:
        return None, "secret_unreadable"
    except CannotPost as error:
        return None, error.reason
    except Exception as error:  # noqa: BLE001 -- a defect of ours counts as a failure, or it would come for ever
        log_failure("webhook_broken", error, message_id=message.id, webhook_id=message.endpoint_id)
        return None, "internal_error"
    return status, None if status in _SUCCESS else f"status_{status}"


def _sign_and_post(delivery: WebhookDelivery, message: Message, now: datetime) -> int:
    secrets = [
        sealed_values.open_value(
            delivery.secret_keys, SECRET_PURPOSE, sealed, bound_to=message.endpoint_id.bytes
        ).decode()
        for sealed in message.sealed_secrets
    ]
    body = json.dumps(message.payload, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Auth-Manager/{__version__}",
        **standard_webhooks.headers(secrets, str(message.id), now, body),
    }
    return delivery.post(message.url, headers, body).status


def _disable(delivery: WebhookDelivery, endpoint_id: UUID, reason: str, now: datetime) -> None:
    origin = Origin(address=None, user_agent="", request_id=request_id.get(), now=now)
    with delivery.database.transaction() as connection:
        if not store.disable(connection, endpoint_id, reason=reason, now=now):
            return
        details = {"webhook_id": str(endpoint_id), "reason": reason}
        audit.append(connection, "webhook_disabled", origin, details=details)
    count("webhook_disabled")
    log_event("webhook_disabled", webhook_id=endpoint_id, reason=reason)

"""The Lambda function behind the queue: sends the mails and webhooks that the messages name.

Only what is done leaves the queue: sent, given up, or gone with its account. Everything else is named in the
answer, comes again later each time, and after the fifth time waits in the dead-letter queue. No mail is lost:
its row stays in the table `outbox`, too.

A webhook always leaves the queue: its row says when it is due again, and the relay hands it over then.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from auth_manager import observability
from auth_manager.app import connect_database
from auth_manager.aws.queues import postpone
from auth_manager.aws.secrets import fetch_secret
from auth_manager.entrypoints.mail_delivery import open_delivery, open_webhook_delivery
from auth_manager.ids import new_id
from auth_manager.mail import Email, MailUnavailable
from auth_manager.mail.compose import Composer
from auth_manager.mail.delivery import Delivery, deliver_one
from auth_manager.one_time_secrets import OneTimeSecrets
from auth_manager.secret_keys import open_secret_keys
from auth_manager.settings import Settings, load_settings
from auth_manager.webhooks import delivery as webhooks_delivery

DELAYS = (60, 300, 1500, 7200)
"""Seconds until a message comes again, after its first, second ... failure: two and a half hours in all. None
is shorter than outbox.SENDING, after which a message whose sender died can be taken again."""

RESERVE_MILLISECONDS = 15_000
"""What is left of the function's time when nothing further begins: what is cut off may be sent twice. More
than outbound_http.DEADLINE and the round trips around it."""

Deliver = Callable[[UUID], None]
"""Sends one message, or raises: then it comes again."""

Open = Callable[[Settings], Deliver]

Answer = dict[str, list[dict[str, str]]]


class OutOfTime(Exception):
    """The function would be stopped in the middle of it."""


def open_worker(settings: Settings) -> Deliver:
    """Return what sends, with its connection to the database.

    Raises:
        ConfigurationError: a setting is missing or cannot be used.
        ServiceUnavailable: a secret cannot be fetched now.
    """
    secret_keys = open_secret_keys(settings, fetch_secret)
    secrets = OneTimeSecrets(secret_keys)
    database = connect_database(settings, pool_size=1, fetch_secret=fetch_secret)
    if settings.mail_transport == "none":
        # Nobody hands mails over then; one that was handed over before comes again until it is a dead letter.
        mails = Delivery(database, Composer(settings, secrets).compose, _refuse_to_send)
    else:
        mails = open_delivery(settings, database, secrets, fetch_secret=fetch_secret)
    webhooks = open_webhook_delivery(settings, database, secret_keys)

    def deliver(message_id: UUID) -> None:
        if not deliver_one(mails, message_id, now=datetime.now(UTC)):
            webhooks_delivery.deliver_one(webhooks, message_id, now=datetime.now(UTC))

    return deliver


def _refuse_to_send(_email: Email) -> None:
    raise MailUnavailable("no_transport")


def build_handler(open_: Open = open_worker) -> Callable[[Any, Any], Answer]:
    """Return a handler that starts with its first batch, and with the next one where it cannot.

    A start that fails is no error of the function: Lambda would report nothing of the batch, and start anew.
    """
    started: list[Deliver] = []

    def handle(event: Any, context: Any) -> Answer:  # noqa: ANN401 -- Lambda's own types
        """Deliver each record; return the ids of those that must come again (ReportBatchItemFailures)."""
        token = observability.request_id.set(getattr(context, "aws_request_id", None) or str(new_id()))
        try:
            settings = load_settings()
            observability.configure_logging(settings)
            observability.enable_metrics()
            deliver = _start(started, partial(open_, settings))
            failed = [record for record in event["Records"] if not _deliver(record, deliver, context)]
            for record in failed:
                _postpone(settings.outbox_queue_url, record)
            return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in failed]}
        finally:
            observability.flush_metrics()
            observability.request_id.reset(token)

    return handle


def _start(started: list[Deliver], open_: Callable[[], Deliver]) -> Deliver:
    """Return what delivers; while it cannot start, what fails each message by the same error."""
    if not started:
        try:
            started.append(open_())
        except Exception as error:  # noqa: BLE001 -- whatever it is, no message may be lost
            observability.log_failure("worker_not_started", error)
            return partial(_fail, error)
    return started[0]


def _fail(error: Exception, _message_id: UUID) -> None:
    raise error


def _deliver(record: Mapping[str, Any], deliver: Deliver, context: Any) -> bool:  # noqa: ANN401 -- as above
    """Tell whether a record is done with."""
    try:
        message_id = UUID(json.loads(record["body"])["id"])
    except (ValueError, LookupError, TypeError, AttributeError):
        observability.count("outbox_failed")
        observability.log_event("message_is_poison", sqs_message_id=record["messageId"])
        return False
    try:
        if not _has_time(context):
            raise OutOfTime  # noqa: TRY301 -- reported like every other failure
        deliver(message_id)
    except MailUnavailable as error:
        observability.count("outbox_failed")
        observability.log_event("mail_delayed", message_id=message_id, reason=error.reason)
        return False
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other messages of the batch go on
        observability.count("outbox_failed")
        observability.log_failure("message_not_delivered", error, message_id=message_id)
        return False
    return True


def _has_time(context: Any) -> bool:  # noqa: ANN401 -- as above
    return context is None or context.get_remaining_time_in_millis() > RESERVE_MILLISECONDS


def _postpone(queue_url: str, record: Mapping[str, Any]) -> None:
    """Let a message come again later each time; without AUTH_OUTBOX_QUEUE_URL when the queue does it."""
    received = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
    if queue_url:
        postpone(queue_url, record["receiptHandle"], seconds=DELAYS[min(received, len(DELAYS)) - 1])


handler = build_handler()

"""The Lambda function behind the queue: delivers messages of the outbox, one batch an invocation.

Only what was delivered leaves the queue. Everything else is named in the answer, comes again, and in the end
waits in the dead-letter queue: what is no message of ours, and today every message, because there is no mail
transport yet. No mail is lost: the row stays in the table `outbox`, too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from auth_manager import observability
from auth_manager.ids import new_id
from auth_manager.outbox import OutboxMessage, parse_message
from auth_manager.settings import load_settings

Deliver = Callable[[OutboxMessage], None]
"""Delivers one message, or raises: then it comes again. It may see a message twice, under the same id."""

Answer = dict[str, list[dict[str, str]]]


class NoMailTransport(Exception):
    """Nothing is configured that could send mail: the message is kept."""


def refuse_delivery(_message: OutboxMessage) -> None:
    """Stand in for a mail transport, without pretending to be one.

    Raises:
        NoMailTransport: always.
    """
    raise NoMailTransport


def build_handler(deliver: Deliver) -> Callable[[Any, Any], Answer]:
    """Return a handler that delivers by `deliver`."""

    def handle(event: Any, context: Any) -> Answer:  # noqa: ANN401 -- Lambda's own types
        """Deliver each record; return the ids of those that must come again (ReportBatchItemFailures)."""
        token = observability.request_id.set(getattr(context, "aws_request_id", None) or str(new_id()))
        try:
            observability.configure_logging(load_settings())
            observability.enable_metrics()
            failed = [record["messageId"] for record in event["Records"] if not _deliver(record, deliver)]
            return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failed]}
        finally:
            observability.flush_metrics()
            observability.request_id.reset(token)

    return handle


def _deliver(record: Mapping[str, Any], deliver: Deliver) -> bool:
    try:
        message = parse_message(record["body"])
    except ValueError:
        observability.count("outbox_failed")
        observability.log_event("message_is_poison", sqs_message_id=record["messageId"])
        return False
    try:
        deliver(message)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other messages of the batch go on
        observability.count("outbox_failed")
        observability.log_failure("message_not_delivered", error, message_id=message.id, kind=message.kind)
        return False
    observability.log_event("message_delivered", message_id=message.id, kind=message.kind)
    return True


handler = build_handler(refuse_delivery)

"""AWS SQS."""

from collections.abc import Collection, Sequence
from uuid import UUID

from auth_manager.errors import ServiceUnavailable
from auth_manager.observability import log_event
from auth_manager.outbox import OutboxMessage


def send_messages(queue_url: str, messages: Sequence[OutboxMessage]) -> Collection[UUID]:
    """Put up to 10 messages into a queue; return the ids of those that it took.

    Raises:
        ServiceUnavailable: SQS refused all of them, or did not answer: it may have some.
    """
    import boto3  # noqa: PLC0415 -- costs as much as FastAPI
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        answer = boto3.client("sqs", config=config).send_message_batch(
            QueueUrl=queue_url,
            Entries=[{"Id": str(message.id), "MessageBody": message.to_json()} for message in messages],
        )
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable("The queue did not take the messages.") from error
    for refused in answer.get("Failed", []):
        log_event("message_refused", message_id=refused["Id"], reason=refused["Code"])
    return [UUID(taken["Id"]) for taken in answer.get("Successful", [])]

"""AWS SQS. What travels is `{"id": "<uuid>"}`, the id of a message of the outbox, and nothing else."""

import json
import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from auth_manager.aws.signature_v4 import AwsRefused, call_json, environment_credentials
from auth_manager.errors import ServiceUnavailable
from auth_manager.observability import count, log_event, trace

BATCH = 10
"""Messages of one SendMessageBatch, at most."""

HAND_OVER_TIMEOUT = 1.0
"""Seconds to connect, and again for the answer: somebody waits, and the relay does it otherwise."""


def hand_over(queue_url: str, ids: Sequence[UUID]) -> None:
    """Tell the worker of messages that were committed, right after the commit.

    Never raises: what does not get there is handed over by the scheduled relay.
    """
    with trace("sqs"):
        for start in range(0, len(ids), BATCH):
            try:
                _hand_over(queue_url, ids[start : start + BATCH])
            except (AwsRefused, ServiceUnavailable) as error:
                count("hand_over_failed")
                log_event("hand_over_failed", reason=getattr(error, "code", "") or "no answer")


def send_ids(queue_url: str, ids: Sequence[UUID]) -> Collection[UUID]:
    """Put up to 10 messages into a queue; return the ids of those that it took.

    Raises:
        ServiceUnavailable: SQS refused all of them, or did not answer: it may have some.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- boto3 costs as much as FastAPI

    try:
        answer = _client(total_max_attempts=3).send_message_batch(QueueUrl=queue_url, Entries=_entries(ids))
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable("The queue did not take the messages.") from error
    return _taken(answer)


def postpone(queue_url: str, receipt_handle: str, *, seconds: int) -> None:
    """Let a message that was received come again after so long, 12 hours at most.

    Never raises: it comes again after the queue's own visibility timeout then.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- as above

    try:
        _client(total_max_attempts=1).change_message_visibility(
            QueueUrl=queue_url, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds
        )
    except (BotoCoreError, ClientError) as error:
        log_event("message_not_postponed", reason=type(error).__name__)


def _hand_over(queue_url: str, ids: Sequence[UUID]) -> None:
    """As cheap as it gets in Lambda: boto3 would cost the first registration of a sandbox half a second."""
    credentials = environment_credentials()
    if credentials is None:
        send_ids(queue_url, ids)
        return
    answer = call_json(
        "sqs",
        "AmazonSQS.SendMessageBatch",
        {"QueueUrl": queue_url, "Entries": _entries(ids)},
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "",
        credentials=credentials,
        now=datetime.now(UTC),
        timeout=HAND_OVER_TIMEOUT,
        version="1.0",
    )
    _taken(answer)


def _entries(ids: Sequence[UUID]) -> Any:  # noqa: ANN401 -- a list of boto3's own typed dictionaries
    return [{"Id": str(one), "MessageBody": json.dumps({"id": str(one)})} for one in ids]


def _taken(answer: Any) -> list[UUID]:  # noqa: ANN401 -- as above, or JSON
    for refused in answer.get("Failed", []):
        log_event("message_refused", message_id=refused["Id"], reason=refused["Code"])
    return [UUID(taken["Id"]) for taken in answer.get("Successful", [])]


def _client(*, total_max_attempts: int) -> Any:  # noqa: ANN401 -- the stubs are not there at run time
    import boto3  # noqa: PLC0415 -- as above
    from botocore.config import Config  # noqa: PLC0415

    retries: Any = {"mode": "standard", "total_max_attempts": total_max_attempts}
    return boto3.client("sqs", config=Config(connect_timeout=2, read_timeout=5, retries=retries))

"""SQS, against moto."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from auth_manager.aws.queues import send_messages
from auth_manager.errors import ServiceUnavailable
from auth_manager.ids import new_id
from auth_manager.outbox import OutboxMessage, parse_message


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield boto3.client("sqs")


def message(recipient: str = "ü@example.com") -> OutboxMessage:
    return OutboxMessage(new_id(), "verify_email", recipient, new_id(), None, datetime.now(UTC))


class TestSendMessages:
    def test_what_arrives_can_be_read(self, sqs: Any) -> None:
        url = sqs.create_queue(QueueName="outbox")["QueueUrl"]
        sent = [message() for _ in range(10)]

        assert set(send_messages(url, sent)) == {one.id for one in sent}
        received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        assert {parse_message(one["Body"]).id for one in received} == {one.id for one in sent}
        assert parse_message(received[0]["Body"]) in sent
        assert set(json.loads(received[0]["Body"])) == {
            "id",
            "kind",
            "recipient",
            "account_id",
            "locale",
            "created_at",
        }

    def test_a_queue_that_is_not_there_is_unavailable(self, sqs: Any) -> None:
        url = sqs.create_queue(QueueName="outbox")["QueueUrl"]

        with pytest.raises(ServiceUnavailable):
            send_messages(url + "-none", [message()])

"""Mail as it goes on AWS: commit, hand-over, queue, worker, mail server; and what a crash does to it.

The queue is moto's, the rest is real.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from fastapi.testclient import TestClient
from moto import mock_aws
from tests.mail.scenes import MailServer, body, let_go, serve_mail

from auth_manager.app import build_resources, create_app
from auth_manager.aws import queues
from auth_manager.database import Database
from auth_manager.entrypoints import lambda_maintenance, lambda_worker
from auth_manager.settings import Settings

RELAY = {"action": "relay_outbox"}
PERSON = {"email": "test@example.com", "password": "a long and dull passphrase"}


class Cloud:
    """A queue, and what is behind it; `batch` receives from the queue and answers as Lambda does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqs: Any = boto3.client("sqs")
        self.worker = lambda_worker.build_handler()

    def batch(self) -> list[str]:
        """Let the worker have what is in the queue; return the messages that come again."""
        received = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": {"ApproximateReceiveCount": "1"},
            }
            for message in received.get("Messages", [])
        ]
        failed = {
            item["itemIdentifier"] for item in self.worker({"Records": records}, None)["batchItemFailures"]
        }
        for record in records:
            if record["messageId"] not in failed:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=record["receiptHandle"])
        return sorted(failed)


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with serve_mail() as server:
        yield server


@pytest.fixture
def cloud(
    database_url: str, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch, make_settings: Any
) -> Iterator[Cloud]:
    settings: Settings = make_settings()
    with mock_aws():
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        url = boto3.client("sqs").create_queue(QueueName="outbox")["QueueUrl"]
        for name, value in {
            "PUBLIC_URL": settings.public_url,
            "DATABASE_URL": database_url,
            "SECRET_KEYS": settings.secret_keys[0].get_secret_value(),
            "OUTBOX_QUEUE_URL": url,
            "MAIL_TRANSPORT": "smtp",
            "MAIL_FROM": "no-reply@example.com",
            "SMTP_URL": mail_server.url,
        }.items():
            monkeypatch.setenv(f"AUTH_{name}", value)
        # moto answers boto3, and not our own signed requests: test_queues has those.
        monkeypatch.setattr(queues, "environment_credentials", lambda: None)
        yield Cloud(url)


@pytest.fixture
def api(database: Database, make_settings: Callable[..., Settings]) -> Iterator[Callable[..., TestClient]]:  # noqa: ARG001
    """An API that hands over by the function it is given."""
    made: list[Any] = []

    def make(hand_over: Callable[[Any], None]) -> TestClient:
        made.append(build_resources(make_settings(), hand_over=hand_over))
        return TestClient(create_app(made[-1]), base_url="https://auth.example.com")

    yield make
    for resources in made:
        resources.database.close()


def age_messages(database: Database) -> None:
    """Let the minute pass after which a message is the relay's to hand over."""
    with database.one_trip() as connection:
        connection.add("UPDATE outbox SET relay_after = now() - interval '1 s' WHERE relay_after IS NOT NULL")


def message_ids(mail_server: MailServer) -> list[str]:
    return [str(content["Message-ID"]) for _, content in mail_server.received]


class TestQueue:
    def test_register_and_the_mail_arrives(
        self, api: Callable[..., TestClient], cloud: Cloud, mail_server: MailServer
    ) -> None:
        client = api(lambda ids: queues.hand_over(cloud.url, ids))
        assert client.post("/auth/register", json=PERSON).status_code == 201
        assert cloud.batch() == []
        [(recipient, content)] = mail_server.received
        assert recipient == "test@example.com"
        assert "https://auth.example.com/account/verify-email?token=ot_" in body(content, "plain")

    def test_a_crash_between_commit_and_hand_over_loses_nothing(
        self, api: Callable[..., TestClient], cloud: Cloud, mail_server: MailServer, database: Database
    ) -> None:
        client = api(lambda _ids: None)  # as far as the queue sees
        client.post("/auth/register", json=PERSON)
        assert lambda_maintenance.handler(RELAY, None)["relayed"] == 0
        age_messages(database)
        assert lambda_maintenance.handler(RELAY, None)["relayed"] == 1
        assert cloud.batch() == []
        assert len(mail_server.received) == 1

    def test_handed_over_by_both_it_is_sent_once(
        self, api: Callable[..., TestClient], cloud: Cloud, mail_server: MailServer, database: Database
    ) -> None:
        client = api(lambda ids: queues.hand_over(cloud.url, ids))
        client.post("/auth/register", json=PERSON)
        age_messages(database)
        assert lambda_maintenance.handler(RELAY, None)["relayed"] == 1
        assert cloud.batch() == []
        assert len(mail_server.received) == 1
        assert lambda_maintenance.handler(RELAY, None)["relayed"] == 0

    def test_what_is_sent_is_not_relayed(
        self, api: Callable[..., TestClient], cloud: Cloud, database: Database
    ) -> None:
        client = api(lambda ids: queues.hand_over(cloud.url, ids))
        client.post("/auth/register", json=PERSON)
        cloud.batch()
        age_messages(database)
        assert lambda_maintenance.handler(RELAY, None)["relayed"] == 0

    def test_an_account_that_was_erased_gets_no_more_mail(
        self, api: Callable[..., TestClient], cloud: Cloud, mail_server: MailServer, database: Database
    ) -> None:
        client = api(lambda ids: queues.hand_over(cloud.url, ids))
        client.post("/auth/register", json=PERSON)
        with database.one_trip() as connection:
            connection.add("DELETE FROM outbox")
        assert cloud.batch() == []
        assert mail_server.received == []


KILLED = """\
import os, signal, sys
from uuid import UUID
from auth_manager.mail import smtp
send = smtp.send
def send_and_die(server, email):
    send(server, email)
    os.kill(os.getpid(), signal.SIGKILL)
smtp.send = send_and_die
from auth_manager.entrypoints import lambda_worker
lambda_worker.handler({"Records": [{"messageId": "1", "receiptHandle": "", "body": sys.argv[1]}]}, None)
"""


class TestKill:
    def test_a_worker_that_is_killed_after_sending_makes_a_copy_with_the_same_id(
        self, api: Callable[..., TestClient], cloud: Cloud, mail_server: MailServer, database: Database
    ) -> None:
        handed_over: list[Any] = []
        api(handed_over.extend).post("/auth/register", json=PERSON)
        [message_id] = handed_over
        done = subprocess.run(
            [sys.executable, "-c", KILLED, json.dumps({"id": str(message_id)})],
            env={name: value for name, value in os.environ.items() if name != "AUTH_OUTBOX_QUEUE_URL"},
            check=False,
            timeout=60,
        )
        assert done.returncode == -signal.SIGKILL
        assert len(mail_server.received) == 1
        queues.hand_over(cloud.url, [message_id])
        assert len(cloud.batch()) == 1, "the dead may still be sending"
        let_go(database, message_id)
        queues.hand_over(cloud.url, [message_id])
        assert cloud.batch() == []
        assert message_ids(mail_server) == [f"<{message_id}@example.com>"] * 2

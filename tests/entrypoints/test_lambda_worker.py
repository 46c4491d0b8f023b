"""The worker function, through its handler: real database, real mail server, AWS by moto."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID  # type: ignore[attr-defined]
from moto.sqs.models import sqs_backends
from tests.entrypoints.functions import Context, event_of
from tests.mail.scenes import MailServer, queued, serve_mail, write

from auth_manager.aws import secrets as secrets_of_aws
from auth_manager.database import Database
from auth_manager.entrypoints import lambda_worker
from auth_manager.ids import new_id

pytestmark = pytest.mark.usefixtures("function_environment")


def record_of(body: str, *, message_id: str = "1", receipt: str = "AQEBexample", received: int = 1) -> Any:
    attributes = {"ApproximateReceiveCount": str(received)}
    return {"messageId": message_id, "receiptHandle": receipt, "body": body, "attributes": attributes}


def failures(answer: Any) -> list[str]:
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


class TestWorker:
    @pytest.fixture
    def mail_server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
        """A real one, that the environment of the function names."""
        with serve_mail() as server:
            monkeypatch.setenv("AUTH_MAIL_TRANSPORT", "smtp")
            monkeypatch.setenv("AUTH_MAIL_FROM", "Example <no-reply@example.com>")
            monkeypatch.setenv("AUTH_SMTP_URL", server.url)
            yield server

    def test_one_poison_in_ten_comes_again_alone(self) -> None:
        delivered: list[UUID] = []
        event = event_of("sqs-batch")
        assert len(event["Records"]) == 10
        answer = lambda_worker.build_handler(lambda _settings: delivered.append)(event, Context())
        assert failures(answer) == ["poison-not-json"]
        assert len(delivered) == 9

    @pytest.mark.parametrize(
        "body",
        ["", "null", "[]", "{}", "7", '{"id": null}', '{"id": 7}', '{"id": "7"}', '{"id": ["x"]}', "\ud800"],
    )
    def test_what_is_no_message_of_ours_is_poison(self, body: str) -> None:
        delivered: list[UUID] = []
        handler = lambda_worker.build_handler(lambda _settings: delivered.append)
        assert failures(handler({"Records": [record_of(body)]}, Context())) == ["1"]
        assert delivered == []

    def test_the_mail_of_each_message_is_sent_once(
        self, database: Database, database_url: str, mail_server: MailServer
    ) -> None:
        """With duplicates in the batch, and the whole batch twice."""
        assert database_url
        ids = [write(database, now=datetime.now(UTC)) for _ in range(3)]
        records = [record_of(queued(one), message_id=str(n)) for n, one in enumerate(ids * 3)]
        records.append(record_of(queued(new_id()), message_id="of an erased account"))
        handler = lambda_worker.build_handler()
        assert failures(handler({"Records": records}, Context())) == []
        assert failures(handler({"Records": records}, Context())) == []
        assert [content["Message-ID"] for _, content in mail_server.received] == [
            f"<{one}@example.com>" for one in ids
        ]

    def test_a_kind_of_tomorrow_is_poison(
        self, database: Database, mail_server: MailServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        good, bad = write(database, now=datetime.now(UTC)), write(database)
        with database.one_trip() as connection:
            connection.add("UPDATE outbox SET kind = 'of_tomorrow' WHERE id = %(id)s", {"id": bad})
        records = [record_of(queued(bad), message_id="bad"), record_of(queued(good), message_id="good")]
        assert failures(lambda_worker.build_handler()({"Records": records}, Context())) == ["bad"]
        assert len(mail_server.received) == 1
        assert '"outbox_failed":[1.0]' in capsys.readouterr().out

    def test_a_mail_server_that_is_down_gets_it_later(
        self, database: Database, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        message_id = write(database, now=datetime.now(UTC))
        event = {"Records": [record_of(queued(message_id))]}
        monkeypatch.setenv("AUTH_SMTP_URL", "smtp://u:canary@127.0.0.1:1?tls=none")
        assert failures(lambda_worker.build_handler()(event, Context())) == ["1"]
        monkeypatch.setenv("AUTH_SMTP_URL", mail_server.url)
        assert failures(lambda_worker.build_handler()(event, Context())) == []
        assert len(mail_server.received) == 1

    @pytest.mark.parametrize(
        "environment",
        [
            {"AUTH_MAIL_TRANSPORT": "smtp", "AUTH_MAIL_FROM": "a@example.com", "AUTH_SMTP_URL": "canary"},
            {
                "AUTH_MAIL_TRANSPORT": "smtp",
                "AUTH_MAIL_FROM": "a@example.com",
                "AUTH_SMTP_URL_SECRET_ARN": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:none",
            },
            {"AUTH_MAIL_TRANSPORT": "ses", "AUTH_MAIL_FROM": "nobody"},
        ],
        ids=["no server", "no secret", "no sender"],
    )
    def test_while_it_cannot_start_every_message_comes_again(
        self,
        environment: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(secrets_of_aws, "environment_credentials", lambda: None)
        event = event_of("sqs-batch")
        answer = lambda_worker.build_handler()(event, Context())
        assert failures(answer) == [record["messageId"] for record in event["Records"]]
        output = capsys.readouterr().out
        assert "worker_not_started" in output
        assert "canary" not in output

    def test_it_starts_as_soon_as_it_can(
        self, database: Database, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler, event = (
            lambda_worker.build_handler(),
            {"Records": [record_of(queued(write(database, now=datetime.now(UTC))))]},
        )
        monkeypatch.setenv("AUTH_SMTP_URL", "canary")
        assert failures(handler(event, Context())) == ["1"]
        monkeypatch.setenv("AUTH_SMTP_URL", mail_server.url)
        assert failures(handler(event, Context())) == []
        assert len(mail_server.received) == 1

    def test_without_a_transport_a_mail_is_not_lost(
        self, database: Database, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        event = {"Records": [record_of(queued(write(database, now=datetime.now(UTC))))]}
        monkeypatch.setenv("AUTH_MAIL_TRANSPORT", "none")
        assert failures(lambda_worker.build_handler()(event, Context())) == ["1"]
        monkeypatch.setenv("AUTH_MAIL_TRANSPORT", "smtp")
        assert failures(lambda_worker.build_handler()(event, Context())) == []
        assert len(mail_server.received) == 1

    def test_the_url_of_the_mail_server_can_be_a_secret(
        self, database: Database, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(secrets_of_aws, "environment_credentials", lambda: None)
        client = boto3.client("secretsmanager")
        arn = client.create_secret(Name="smtp", SecretString=mail_server.url)["ARN"]
        monkeypatch.delenv("AUTH_SMTP_URL")
        monkeypatch.setenv("AUTH_SMTP_URL_SECRET_ARN", arn)
        event = {"Records": [record_of(queued(write(database, now=datetime.now(UTC))))]}
        assert failures(lambda_worker.build_handler()(event, Context())) == []
        assert len(mail_server.received) == 1

    def test_nothing_begins_that_could_be_cut_off(self) -> None:
        delivered: list[UUID] = []
        handler = lambda_worker.build_handler(lambda _settings: delivered.append)
        assert failures(handler({"Records": [record_of(queued(new_id()))]}, Context(5_000))) == ["1"]
        assert delivered == []

    @pytest.mark.parametrize(("received", "delay"), [(1, 60), (2, 300), (3, 1500), (4, 7200), (5, 7200)])
    def test_it_comes_again_later_each_time(
        self, monkeypatch: pytest.MonkeyPatch, received: int, delay: int
    ) -> None:
        """As far as moto tells: it is invisible, and its new time-out is the one that was asked for."""
        sqs = boto3.client("sqs")
        url = sqs.create_queue(QueueName="outbox")["QueueUrl"]
        monkeypatch.setenv("AUTH_OUTBOX_QUEUE_URL", url)
        sqs.send_message(QueueUrl=url, MessageBody="poison")
        [message] = sqs.receive_message(QueueUrl=url, VisibilityTimeout=1)["Messages"]
        record = record_of("poison", receipt=message["ReceiptHandle"], received=received)
        before = time.time()
        lambda_worker.build_handler(lambda _settings: lambda _id: None)({"Records": [record]}, Context())
        [queue] = sqs_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"].queues.values()
        [held] = queue._messages
        assert held.visible_at / 1000 - before == pytest.approx(delay, abs=5)

    def test_no_recipient_and_no_password_is_logged(
        self,
        database: Database,
        mail_server: MailServer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        url = mail_server.url.replace("smtp://", "smtp://canary:canary@")
        monkeypatch.setenv("AUTH_SMTP_URL", url)  # a server that knows no AUTH: it cannot be used
        ids = [write(database, recipient="canary@example.com", now=datetime.now(UTC)) for _ in range(2)]
        lambda_worker.build_handler()({"Records": [record_of(queued(ids[0]))]}, Context())
        monkeypatch.setenv("AUTH_SMTP_URL", mail_server.url)
        mail_server.at_recipient = {"canary@example.com": "550 canary@example.com is not here"}
        lambda_worker.build_handler()({"Records": [record_of(queued(ids[1]))]}, Context())
        output = capsys.readouterr().out
        assert "mail_delayed" in output
        assert "recipient_refused_550" in output
        assert "canary" not in output

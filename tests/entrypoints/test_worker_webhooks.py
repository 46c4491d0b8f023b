"""Webhooks through the worker function, beside mails: a failure never stays in the queue."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook
from tests.entrypoints.functions import Context
from tests.mail.scenes import MailServer, queued, serve_mail, write
from tests.webhooks.conftest import ALLOWED, Hooks, open_hooks
from tests.webhooks.receivers import Receiver, serve

from auth_manager.entrypoints import lambda_worker
from auth_manager.ids import new_id
from auth_manager.outbound_http import DEADLINE
from auth_manager.resources import Resources

pytestmark = pytest.mark.usefixtures("function_environment")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serve() as one:
        yield one


@pytest.fixture
def hooks(make_resources: Callable[..., Resources]) -> Hooks:
    return open_hooks(make_resources)


@pytest.fixture
def mail_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """A real one, that the environment of the function names."""
    monkeypatch.setenv("AUTH_WEBHOOK_ALLOWED_NETWORKS", ",".join(ALLOWED["webhook_allowed_networks"]))
    with serve_mail() as server:
        monkeypatch.setenv("AUTH_MAIL_TRANSPORT", "smtp")
        monkeypatch.setenv("AUTH_MAIL_FROM", "Example <no-reply@example.com>")
        monkeypatch.setenv("AUTH_SMTP_URL", server.url)
        yield server


def batch(*ids: object) -> Any:
    return {
        "Records": [
            {"messageId": str(n), "receiptHandle": "AQEBexample", "body": queued(one)}  # type: ignore[arg-type]
            for n, one in enumerate(ids)
        ]
    }


class TestWorker:
    def test_mails_and_webhooks_in_one_batch(
        self, hooks: Hooks, receiver: Receiver, mail_server: MailServer
    ) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        mail = write(hooks.database, now=datetime.now(UTC))
        [message] = hooks.messages()
        event = batch(message["id"], mail, message["id"], new_id())
        handler = lambda_worker.build_handler()
        for _ in range(2):
            assert handler(event, Context()) == {"batchItemFailures": []}
        assert len(mail_server.received) == 1
        [received] = receiver.received
        assert Webhook(made.secret).verify(received.body, received.headers)

    def test_a_failure_leaves_the_queue_and_waits_in_its_row(
        self, hooks: Hooks, receiver: Receiver, mail_server: MailServer
    ) -> None:
        hooks.create(receiver.url)
        hooks.happen()
        receiver.answers = [503]
        [message] = hooks.messages()
        handler = lambda_worker.build_handler()
        for _ in range(2):
            assert handler(batch(message["id"]), Context()) == {"batchItemFailures": []}
        assert len(receiver.received) == 1
        [message] = hooks.messages()
        assert (message["sent_at"], message["failed_at"], message["tries"]) == (None, None, 1)
        hooks.wait()
        handler(batch(message["id"]), Context())
        assert len(receiver.received) == 2
        assert mail_server.received == []

    def test_none_begins_that_could_be_cut_off(self) -> None:
        assert lambda_worker.RESERVE_MILLISECONDS > 1000 * DEADLINE

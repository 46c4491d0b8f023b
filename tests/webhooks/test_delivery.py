"""From the outbox to a receiver on this machine: signed, once, again, late, never."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError
from tests.mail.scenes import write
from tests.webhooks.conftest import Hooks, operator
from tests.webhooks.receivers import Receiver, serve, serve_badly

from auth_manager import outbox, sealed_values
from auth_manager.entrypoints import server
from auth_manager.maintenance import relay_outbox
from auth_manager.outbound_http import Answer, CannotPost
from auth_manager.resources import Resources
from auth_manager.secret_keys import SecretKeys
from auth_manager.webhooks import SECRET_PURPOSE, Endpoint, messages, service
from auth_manager.webhooks.delivery import (
    FAILING,
    JITTER,
    RETRIES,
    deliver_one,
    deliver_waiting,
    open_loop,
    wait_after,
)
from auth_manager.webhooks.messages import CLAIM, SENDING


def now() -> datetime:
    return datetime.now(UTC)


def deliver(hooks: Hooks, at: datetime | None = None) -> int:
    return deliver_waiting(hooks.delivery, clock=lambda: at or now())


def endpoint_of(hooks: Hooks, endpoint_id: UUID) -> Endpoint:
    return service.get(hooks.resources, operator(), None, endpoint_id)


def log_of(hooks: Hooks, endpoint_id: UUID) -> list[tuple[str, int, int | None, str | None]]:
    page = service.list_deliveries(hooks.resources, operator(), None, endpoint_id, limit=50, cursor=None)
    return [(item.state, item.attempts, item.status, item.error) for item in page.items]


def wait_until(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


class TestSignature:
    def test_the_library_of_standard_webhooks_takes_it(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        account_id = hooks.happen("email_verified")
        assert deliver(hooks) == 1
        [received] = receiver.received
        told = Webhook(made.secret).verify(received.body, received.headers)
        assert (told["type"], told["data"]["user_id"]) == ("user.verified", str(account_id))
        assert received.headers["content-type"] == "application/json"
        assert received.headers["user-agent"].startswith("Auth-Manager/")
        [message] = hooks.messages()
        assert received.headers["webhook-id"] == str(message["id"])

    def test_what_was_changed_on_the_way_is_none(self, hooks: Hooks, receiver: Receiver) -> None:
        made, other = hooks.create(receiver.url), hooks.create("https://hooks.example.com/", "user.deleted")
        hooks.happen()
        deliver(hooks)
        [received] = receiver.received
        for secret, body, headers in (
            (other.secret, received.body, received.headers),
            (made.secret, received.body + b" ", received.headers),
            (made.secret, received.body, {**received.headers, "webhook-id": "another"}),
        ):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(body, headers)

    def test_two_secrets_live_while_one_takes_over(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        rotated = service.rotate_secret(hooks.resources, operator(), None, made.endpoint.id)
        assert rotated.secret != made.secret
        hooks.happen()
        deliver(hooks)
        [received] = receiver.received
        assert len(received.headers["webhook-signature"].split(" ")) == 2
        for secret in (made.secret, rotated.secret):
            assert Webhook(secret).verify(received.body, received.headers)

    def test_no_longer_than_that(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        before = operator(now() - timedelta(days=1, seconds=1))
        rotated = service.rotate_secret(hooks.resources, before, None, made.endpoint.id)
        hooks.happen()
        deliver(hooks)
        [received] = receiver.received
        assert Webhook(rotated.secret).verify(received.body, received.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(made.secret).verify(received.body, received.headers)

    def test_a_third_secret_ends_the_first(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        second, third = (
            service.rotate_secret(hooks.resources, operator(), None, made.endpoint.id) for _ in range(2)
        )
        hooks.happen()
        deliver(hooks)
        [received] = receiver.received
        for secret in (second.secret, third.secret):
            assert Webhook(secret).verify(received.body, received.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(made.secret).verify(received.body, received.headers)

    def test_a_defect_of_ours_is_a_failure(self, hooks: Hooks, receiver: Receiver) -> None:
        def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
            raise ZeroDivisionError(url, headers, body)

        made = hooks.create(receiver.url)
        hooks.happen()
        hooks.delivery = replace(hooks.delivery, post=post)
        deliver(hooks)
        assert log_of(hooks, made.endpoint.id) == [("pending", 1, None, "internal_error")]

    @pytest.mark.parametrize("stored", [b"\xff\xfe", b"whsec_none"], ids=["no text", "no secret"])
    def test_a_secret_that_is_none_is_a_failure(
        self, hooks: Hooks, receiver: Receiver, stored: bytes
    ) -> None:
        """It would come for ever otherwise, and hold up those behind it."""
        made = hooks.create(receiver.url)
        sealed = sealed_values.seal(
            hooks.delivery.secret_keys, SECRET_PURPOSE, stored, bound_to=made.endpoint.id.bytes
        )
        hooks.query("UPDATE webhook_endpoints SET secret = %(sealed)s RETURNING 1", {"sealed": sealed})
        hooks.happen()
        deliver(hooks)
        assert receiver.received == []
        assert log_of(hooks, made.endpoint.id) == [("pending", 1, None, "internal_error")]

    def test_secrets_are_sealed(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        [row] = hooks.query("SELECT webhook_endpoints::text AS text, secret FROM webhook_endpoints")
        assert made.secret not in row["text"]
        assert made.secret.encode() not in bytes(row["secret"])

    def test_one_that_cannot_be_opened_is_a_failure(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        other = SecretKeys([SecretStr("another-secret-0123456789-abcdefghijkl")])
        hooks.delivery = replace(hooks.delivery, secret_keys=other)
        deliver(hooks)
        assert receiver.received == []
        assert log_of(hooks, made.endpoint.id) == [("pending", 1, None, "secret_unreadable")]


class TestRetries:
    def test_the_schedule(self) -> None:
        assert [wait_after(tries, 0) for tries in range(1, 11)] == [*RETRIES, None]
        assert wait_after(1, 1) == timedelta(seconds=5) * (1 + JITTER)
        assert timedelta(days=3) < sum(RETRIES, timedelta()) < timedelta(days=4)

    def test_a_failure_is_due_again_and_says_the_same(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        receiver.answers = [500, 404, 302, 200]
        for attempt, (status, wait) in enumerate(zip(receiver.answers[:3], RETRIES, strict=False), start=1):
            assert deliver(hooks) == 1
            assert deliver(hooks) == 0
            assert log_of(hooks, made.endpoint.id) == [("pending", attempt, status, f"status_{status}")]
            [message] = hooks.messages()
            left = hooks.wait_of(message["id"])
            assert wait - timedelta(seconds=5) < left <= wait * (1 + JITTER)
            assert endpoint_of(hooks, made.endpoint.id).failing_since
            hooks.wait()
        assert deliver(hooks) == 1
        assert log_of(hooks, made.endpoint.id) == [("delivered", 4, 200, None)]
        assert endpoint_of(hooks, made.endpoint.id).failing_since is None
        assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
        assert len({received.body for received in receiver.received}) == 1
        for received in receiver.received:
            Webhook(made.secret).verify(received.body, received.headers)
        assert deliver(hooks) == 0

    def test_after_the_last_one_it_is_given_up(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        receiver.answers = [500] * 20
        for _ in range(15):
            deliver(hooks)
            hooks.wait()
        assert len(receiver.received) == len(RETRIES) + 1
        assert log_of(hooks, made.endpoint.id) == [("failed", 10, 500, "status_500")]

    def test_a_redirect_to_the_metadata_is_a_failure(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        receiver.answers, receiver.location = [302], "http://169.254.169.254/latest/meta-data/"
        deliver(hooks)
        assert len(receiver.received) == 1
        assert log_of(hooks, made.endpoint.id) == [("pending", 1, 302, "status_302")]

    def test_a_name_that_leads_inside_is_a_failure(self, hooks: Hooks) -> None:
        """Its URL was fine when the endpoint was made."""
        refusing = service.create(hooks.resources, operator(), None, url="https://localhost/")
        with hooks.database.one_trip() as connection:
            connection.add("UPDATE webhook_endpoints SET url = 'https://169.254.169.254/'")
        hooks.happen()
        deliver(hooks)
        assert log_of(hooks, refusing.endpoint.id) == [("pending", 1, None, "invalid_url")]

    def test_gone_is_gone(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        hooks.happen()
        receiver.answers = [410]
        assert deliver(hooks) == 1
        endpoint = endpoint_of(hooks, made.endpoint.id)
        assert (endpoint.disabled_at is not None, endpoint.disabled_reason) == (True, "gone")
        [event] = hooks.query("SELECT outcome, details FROM audit_events WHERE event = 'webhook_disabled'")
        assert event["details"] == {"webhook_id": str(endpoint.id), "reason": "gone"}
        hooks.happen()
        hooks.wait()
        assert deliver(hooks) == 0
        assert len(hooks.messages()) == 2

    def test_an_endpoint_that_fails_for_days_is_disabled(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        receiver.answers = [500] * 3
        first = now()
        deliver(hooks, first)
        hooks.wait()
        deliver(hooks, first + FAILING - timedelta(seconds=1))
        assert endpoint_of(hooks, made.endpoint.id).disabled_at is None
        hooks.wait()
        deliver(hooks, first + FAILING)
        assert endpoint_of(hooks, made.endpoint.id).disabled_reason == "failing"
        assert len(hooks.query("SELECT 1 FROM audit_events WHERE event = 'webhook_disabled'")) == 1

    def test_enabled_again_it_gets_what_waited(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        for enabled, delivered in ((False, 0), (True, 1)):
            service.change(hooks.resources, operator(), None, made.endpoint.id, {"enabled": enabled})
            assert deliver(hooks) == delivered
        endpoint = endpoint_of(hooks, made.endpoint.id)
        assert (endpoint.disabled_at, endpoint.disabled_reason, endpoint.failing_since) == (None, None, None)

    def test_what_waits_goes_to_the_new_url(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create("http://127.0.0.1:1024/")
        hooks.happen()
        deliver(hooks)
        assert log_of(hooks, made.endpoint.id) == [("pending", 1, None, "not_connected")]
        service.change(hooks.resources, operator(), None, made.endpoint.id, {"url": receiver.url})
        hooks.wait()
        assert deliver(hooks) == 1
        assert len(receiver.received) == 1

    def test_of_a_deleted_endpoint_nothing_is_sent(self, hooks: Hooks, receiver: Receiver) -> None:
        made = hooks.create(receiver.url)
        hooks.happen()
        service.delete(hooks.resources, operator(), None, made.endpoint.id)
        [message] = hooks.messages()
        deliver_one(hooks.delivery, message["id"], now=now())
        assert deliver(hooks) == 0
        assert receiver.received == []

    def test_a_sender_that_died_leaves_it_to_others(self, hooks: Hooks, receiver: Receiver) -> None:
        hooks.create(receiver.url)
        hooks.happen()
        [message] = hooks.messages()
        with hooks.database.one_trip() as connection:
            assert messages.take(connection, message["id"], now=now())
        deliver_one(hooks.delivery, message["id"], now=now())
        assert receiver.received == []
        assert timedelta() < hooks.wait_of(message["id"]) <= SENDING
        hooks.wait()
        deliver_one(hooks.delivery, message["id"], now=now())
        assert len(receiver.received) == 1


class TestOnce:
    def test_ten_senders_of_one_message(self, hooks: Hooks, receiver: Receiver) -> None:
        hooks.create(receiver.url)
        hooks.happen()
        [message] = hooks.messages()
        begin = threading.Barrier(10)

        def work() -> None:
            begin.wait()
            deliver_one(hooks.delivery, message["id"], now=now())

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(receiver.received) == 1

    @pytest.mark.parametrize("answer", [204, 500])
    @pytest.mark.parametrize("attempt", [1, 10], ids=["first", "last"])
    def test_a_replay_during_an_attempt_is_not_lost(self, hooks: Hooks, answer: int, attempt: int) -> None:
        """What becomes of that attempt is no word on the one that was asked for meanwhile."""
        made = hooks.create("https://hooks.example.com/")
        hooks.happen()
        [message] = hooks.messages()
        hooks.query("UPDATE outbox SET tries = %(tries)s RETURNING 1", {"tries": attempt - 1})

        def replay_then(url: str, headers: dict[str, str], body: bytes) -> Answer:
            del url, headers, body
            service.replay(hooks.resources, operator(), None, made.endpoint.id, message["id"])
            return Answer(answer)

        deliver_one(replace(hooks.delivery, post=replay_then), message["id"], now=now())
        assert log_of(hooks, made.endpoint.id)[0][:2] == ("pending", 0)
        deliver_one(replace(hooks.delivery, post=lambda *_: Answer(204)), message["id"], now=now())
        assert log_of(hooks, made.endpoint.id) == [("delivered", 1, 204, None)]

    def test_two_that_take_what_is_due(self, hooks: Hooks, receiver: Receiver) -> None:
        hooks.create(receiver.url)
        for _ in range(20):
            hooks.happen()
        threads = [threading.Thread(target=deliver, args=(hooks,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deliver(hooks)
        assert len(receiver.received) == 20
        assert len({received.headers["webhook-id"] for received in receiver.received}) == 20

    def test_the_oldest_first(self, hooks: Hooks, receiver: Receiver) -> None:
        hooks.create(receiver.url)
        accounts = [str(hooks.happen()) for _ in range(5)]
        deliver(hooks)
        told = [json.loads(received.body)["data"]["user_id"] for received in receiver.received]
        assert told == accounts


class Slow:
    """An endpoint that takes seconds, without the test taking them."""

    def __init__(self, seconds: float, failure: str | None) -> None:
        self.posted: list[str] = []
        self.clock = 0.0
        self._seconds = seconds
        self._failure = failure

    def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        assert headers
        assert body
        self.posted.append(url)
        if "slow" in url:
            self.clock += self._seconds
            if self._failure:
                raise CannotPost(self._failure)
        return Answer(200)


class TestSlow:
    @pytest.mark.parametrize(
        ("failure", "pause"), [("timeout", timedelta(seconds=60)), (None, timedelta(seconds=10))]
    )
    def test_one_has_a_pause_and_others_go_on(
        self, hooks: Hooks, failure: str | None, pause: timedelta
    ) -> None:
        slow = hooks.create("https://slow.example.com/").endpoint
        hooks.create("https://quick.example.com/")
        for _ in range(5):
            hooks.happen()
        scene = Slow(10, failure)
        hooks.delivery = replace(hooks.delivery, post=scene.post, stopwatch=lambda: scene.clock)
        assert deliver(hooks) == 6
        assert scene.posted.count("https://slow.example.com/") == 1
        assert scene.posted.count("https://quick.example.com/") == 5
        [row] = hooks.query(
            "SELECT paused_until - clock_timestamp() AS pause FROM webhook_endpoints WHERE id = %(id)s",
            {"id": slow.id},
        )
        assert pause - timedelta(seconds=5) < row["pause"] <= pause

    def test_what_a_queue_names_meanwhile_waits_without_a_try(self, hooks: Hooks) -> None:
        hooks.create("https://slow.example.com/")
        for _ in range(3):
            hooks.happen()
        scene = Slow(10, "timeout")
        hooks.delivery = replace(hooks.delivery, post=scene.post, stopwatch=lambda: scene.clock)
        for message in hooks.messages():
            deliver_one(hooks.delivery, message["id"], now=now())
        assert len(scene.posted) == 1
        assert sorted(row["tries"] for row in hooks.messages()) == [0, 0, 1]
        assert all(row["relay_after"] is None for row in hooks.messages())
        assert all(hooks.wait_of(row["id"]) > timedelta() for row in hooks.messages())

    def test_no_mail_waits_for_it(self, hooks: Hooks) -> None:
        """A mail is taken as if no webhook were there."""
        hooks.create("https://slow.example.com/")
        for _ in range(3):
            hooks.happen()
        mail = write(hooks.database, now=now())
        with hooks.database.one_trip() as connection:
            taken = outbox.take_next(connection, now=now() + timedelta(seconds=1))
        assert taken is not None
        assert taken.id == mail
        with hooks.database.one_trip() as connection:
            assert outbox.take_next(connection, now=now() + timedelta(seconds=1)) is None


class Queue:
    """What was handed over."""

    def __init__(self) -> None:
        self.ids: list[UUID] = []

    def take(self, ids: Sequence[UUID]) -> Sequence[UUID]:
        self.ids += ids
        return ids


class TestRelay:
    def test_mails_go_first(self, hooks: Hooks) -> None:
        hooks.create("https://hooks.example.com/")
        hooks.happen()
        mail, queue = write(hooks.database, now=now()), Queue()
        relay_outbox(hooks.database, queue.take, now=now() + outbox.CLAIM)
        [message] = hooks.messages()
        assert queue.ids == [mail, message["id"]]

    def test_what_failed_is_handed_over_when_it_is_due(self, hooks: Hooks, receiver: Receiver) -> None:
        """Also when the queue is told after the attempt: the relay's own note comes last then."""
        hooks.create(receiver.url)
        hooks.happen()
        receiver.answers = [500]
        queue = Queue()

        def take_at_once(ids: Sequence[UUID]) -> Sequence[UUID]:
            for one in ids:
                deliver_one(hooks.delivery, one, now=now())
            return queue.take(ids)

        relay_outbox(hooks.database, take_at_once, now=now())
        relay_outbox(hooks.database, take_at_once, now=now())
        assert len(receiver.received) == len(queue.ids) == 1
        hooks.wait()
        relay_outbox(hooks.database, take_at_once, now=now())
        assert len(receiver.received) == 2
        hooks.wait()
        assert relay_outbox(hooks.database, take_at_once, now=now())["relayed"] == 0

    def test_what_the_queue_lost_is_handed_over_again(self, hooks: Hooks) -> None:
        hooks.create("https://hooks.example.com/")
        hooks.happen()
        queue, at = Queue(), now()
        for later, known in ((timedelta(), 1), (CLAIM / 2, 1), (CLAIM, 2)):
            relay_outbox(hooks.database, queue.take, now=at + later)
            assert len(queue.ids) == known

    def test_nothing_of_an_endpoint_that_gets_nothing(self, hooks: Hooks) -> None:
        slow, disabled = (hooks.create("https://hooks.example.com/").endpoint for _ in range(2))
        hooks.happen()
        service.change(hooks.resources, operator(), None, disabled.id, {"enabled": False})
        with hooks.database.one_trip() as connection:
            connection.add(
                "UPDATE webhook_endpoints SET paused_until = now() + interval '1 minute' WHERE id = %(id)s",
                {"id": slow.id},
            )
        queue = Queue()
        relay_outbox(hooks.database, queue.take, now=now())
        assert queue.ids == []

    def test_many(self, hooks: Hooks) -> None:
        hooks.create("https://hooks.example.com/")
        for _ in range(25):
            hooks.happen()
        queue = Queue()
        assert relay_outbox(hooks.database, queue.take, now=now()) == {"relayed": 25, "failed": 0}
        assert queue.ids == [row["id"] for row in hooks.messages()]


class TestLoop:
    def test_it_delivers_in_the_background(self, hooks: Hooks, receiver: Receiver) -> None:
        hooks.create(receiver.url)
        hooks.happen()
        loop = open_loop(hooks.delivery, poll=0.02)
        loop.start()
        try:
            wait_until(lambda: len(receiver.received) == 1)
            hooks.happen()
            wait_until(lambda: len(receiver.received) == 2)
        finally:
            loop.stop()

    def test_a_receiver_that_hangs_holds_up_no_mail(
        self, make_resources: Callable[..., Resources], tmp_path: Path
    ) -> None:
        """Each has a thread of its own."""
        laptop = make_resources(mode="local", mail_transport="mailbox", mail_from="a@example.com")
        posted = threading.Event()

        def hang(_connection: object) -> None:
            posted.set()
            time.sleep(3)

        with serve_badly(hang) as port, ExitStack() as stack:
            url = f"http://127.0.0.1:{port}/"
            made = service.create(laptop, operator(), None, url=url)
            resources = server._deliver(laptop, stack, tmp_path)
            service.send_test(resources, operator(), None, made.endpoint.id)
            assert posted.wait(10)
            mail, begun = write(laptop.database, now=now()), time.monotonic()
            resources.hand_over([mail])
            wait_until(lambda: list(tmp_path.iterdir()))
            assert time.monotonic() - begun < 2

    def test_the_server_delivers_without_mail(self, hooks: Hooks, tmp_path: Path) -> None:
        """And at once when it is told that something was committed."""
        with serve() as receiver, ExitStack() as stack:
            resources = server._deliver(hooks.resources, stack, tmp_path)
            made = hooks.create(receiver.url)
            message_id = service.send_test(resources, operator(), None, made.endpoint.id)
            wait_until(lambda: receiver.received)
        [received] = receiver.received
        assert received.headers["webhook-id"] == str(message_id)
        assert Webhook(made.secret).verify(received.body, received.headers)["type"] == "webhook.test"

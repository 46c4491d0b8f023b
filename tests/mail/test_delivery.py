"""From the outbox to a mail server, on a real database: once, again, late, never."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest
from tests.mail.scenes import NOW, MailServer, let_go, row_of, serve_mail, write

from auth_manager.database import Database
from auth_manager.errors import DatabaseUnavailable
from auth_manager.mail import Email, MailRefused, MailUnavailable, Send
from auth_manager.mail.compose import Composer
from auth_manager.mail.delivery import Delivery, DeliveryLoop, deliver_one, deliver_waiting, wait_after
from auth_manager.mail.smtp import parse_url, send
from auth_manager.outbox import Kind

MakeDelivery = Callable[[Send], Delivery]


class Killed(BaseException):
    """SIGKILL leaves no more behind than this."""


class Transport:
    """What was sent; `failure` is raised before, or after the fact."""

    def __init__(self) -> None:
        self.sent: list[Email] = []
        self.failure: BaseException | None = None
        self.after = False

    def __call__(self, email: Email) -> None:
        if self.failure and not self.after:
            raise self.failure
        self.sent.append(email)
        if self.failure:
            raise self.failure


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def make_delivery(database: Database, make_composer: Callable[..., Composer]) -> MakeDelivery:
    return lambda send: Delivery(database, make_composer().compose, send)


@pytest.fixture
def delivery(make_delivery: MakeDelivery, transport: Transport) -> Delivery:
    return make_delivery(transport)


class TestDeliverOne:
    def test_it_arrives_and_is_noted(
        self, database: Database, make_delivery: MakeDelivery, mail_server: MailServer
    ) -> None:
        message_id = write(database)
        delivery = make_delivery(partial(send, parse_url(mail_server.url, local=False)))
        deliver_one(delivery, message_id, now=NOW)
        [(recipient, content)] = mail_server.received
        assert (recipient, content["Message-ID"]) == ("test@example.com", f"<{message_id}@example.com>")
        row = row_of(database, message_id)
        assert (row["sent_at"], row["failed_at"], row["tries"]) == (NOW, None, 1)

    def test_ten_deliveries_of_one_message_are_one_mail(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        message_id = write(database)
        for _ in range(10):
            deliver_one(delivery, message_id, now=NOW)
        assert len(transport.sent) == 1

    def test_ten_at_once_too(self, database: Database, make_delivery: MakeDelivery) -> None:
        message_id, begin, sent = write(database), threading.Barrier(10), list[Email]()
        outcomes: list[str] = []

        def send_slowly(email: Email) -> None:
            time.sleep(0.1)
            sent.append(email)

        delivery = make_delivery(send_slowly)

        def work() -> None:
            begin.wait()
            try:
                deliver_one(delivery, message_id, now=NOW)
                outcomes.append("done")
            except MailUnavailable as error:
                outcomes.append(error.reason)

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sent) == 1
        assert len(outcomes) == 10
        assert set(outcomes) <= {"done", "busy"}

    def test_an_unavailable_server_leaves_it_for_later(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        message_id, transport.failure = write(database), MailUnavailable("smtp_no_connection")
        for _ in range(3):
            with pytest.raises(MailUnavailable):
                deliver_one(delivery, message_id, now=NOW)
        transport.failure = None
        deliver_one(delivery, message_id, now=NOW)
        assert len(transport.sent) == 1
        assert row_of(database, message_id)["tries"] == 4

    def test_a_refused_mail_is_given_up_with_its_reason(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        message_id, transport.failure = write(database), MailRefused("recipient_refused_550")
        for _ in range(2):
            deliver_one(delivery, message_id, now=NOW)
        row = row_of(database, message_id)
        assert (row["failed_at"], row["failure"], row["tries"]) == (NOW, "recipient_refused_550", 1)

    def test_a_mail_that_comes_too_late_is_given_up(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        message_id = write(database, Kind.RESET_PASSWORD)
        deliver_one(delivery, message_id, now=NOW + timedelta(minutes=30))
        assert transport.sent == []
        assert row_of(database, message_id)["failure"] == "too_late"

    @pytest.mark.parametrize("failure", [Killed(), RuntimeError("a defect")])
    def test_a_crash_after_sending_makes_a_copy_that_can_be_told_as_such(
        self, database: Database, delivery: Delivery, transport: Transport, failure: BaseException
    ) -> None:
        """The one way to two mails: the server has it, and nobody could note that."""
        message_id, transport.failure, transport.after = write(database), failure, True
        with pytest.raises(type(failure)):
            deliver_one(delivery, message_id, now=NOW)
        transport.failure = None
        with pytest.raises(MailUnavailable, match="busy"):
            deliver_one(delivery, message_id, now=NOW)
        assert len(transport.sent) == 1
        let_go(database, message_id)
        deliver_one(delivery, message_id, now=NOW + timedelta(minutes=2))
        first, second = (email.content for email in transport.sent)
        assert first["Message-ID"] == second["Message-ID"]
        assert first.as_bytes() == second.as_bytes()

    def test_an_erased_account_gets_nothing(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        message_id = write(database)
        with database.one_trip() as connection:
            connection.add("DELETE FROM outbox")
        deliver_one(delivery, message_id, now=NOW)
        assert transport.sent == []

    def test_the_message_of_nobody(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        """Handed over for an address that nobody has, so that both cost the same."""
        message_id = write(database)
        with database.one_trip() as connection:
            connection.add("UPDATE outbox SET kind = 'nothing', recipient = '', sent_at = now()")
        deliver_one(delivery, message_id, now=NOW)
        assert transport.sent == []

    def test_a_kind_of_tomorrow_is_left_alone(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        message_id = write(database)
        with database.one_trip() as connection:
            connection.add("UPDATE outbox SET kind = 'of_tomorrow'")
        with pytest.raises(ValueError, match="of_tomorrow"):
            deliver_one(delivery, message_id, now=NOW)
        assert transport.sent == []
        assert row_of(database, message_id)["failed_at"] is None


class TestDeliverWaiting:
    def test_the_oldest_comes_first_and_each_once(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        ids = [str(write(database, now=NOW - timedelta(seconds=n))) for n in range(5)]
        assert deliver_waiting(delivery, clock=lambda: NOW) == 5
        assert [email.id for email in transport.sent] == ids[::-1]
        assert deliver_waiting(delivery, clock=lambda: NOW) == 0

    def test_what_fails_waits_longer_each_time(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        message_id, transport.failure = write(database), MailUnavailable("x")
        waits = []
        for _ in range(3):
            with pytest.raises(MailUnavailable):
                deliver_waiting(delivery, clock=lambda: NOW)
            assert deliver_waiting(delivery, clock=lambda: NOW) == 0
            with database.one_trip() as connection:
                [row] = connection.fetch_all("SELECT sending_until - clock_timestamp() AS wait FROM outbox")
            waits.append(round(row["wait"] / timedelta(minutes=1)))
            let_go(database, message_id)
        assert waits == [1, 2, 4]

    def test_waits_end_at_an_hour(self) -> None:
        assert wait_after(6) == timedelta(minutes=32)
        assert {wait_after(tries) for tries in (7, 20, 10_000)} == {timedelta(hours=1)}

    def test_one_that_is_refused_does_not_hold_up_the_others(
        self, database: Database, delivery: Delivery, transport: Transport
    ) -> None:
        write(database, recipient="no address", now=NOW - timedelta(seconds=1))
        write(database)
        assert deliver_waiting(delivery, clock=lambda: NOW) == 2
        assert [email.recipient for email in transport.sent] == ["test@example.com"]


def wait_until(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


class TestDeliveryLoop:
    @pytest.fixture
    def run(self) -> Iterator[Callable[..., DeliveryLoop]]:
        loops: list[DeliveryLoop] = []

        def start(delivery: Delivery, *, poll: float = 60) -> DeliveryLoop:
            loops.append(DeliveryLoop(delivery, clock=lambda: NOW, poll=poll))
            loops[-1].start()
            return loops[-1]

        yield start
        for loop in loops:
            loop.stop()

    def test_it_begins_with_what_waited_and_wakes_for_more(
        self, database: Database, delivery: Delivery, transport: Transport, run: Callable[..., DeliveryLoop]
    ) -> None:
        write(database)
        loop = run(delivery)
        wait_until(lambda: len(transport.sent) == 1)
        write(database)
        loop.wake()
        wait_until(lambda: len(transport.sent) == 2)

    def test_it_looks_by_itself(
        self, database: Database, delivery: Delivery, transport: Transport, run: Callable[..., DeliveryLoop]
    ) -> None:
        run(delivery, poll=0.05)
        write(database)
        wait_until(lambda: transport.sent)

    def test_a_server_that_is_down_gets_it_later(
        self, database: Database, make_delivery: MakeDelivery, run: Callable[..., DeliveryLoop]
    ) -> None:
        with serve_mail() as server:
            port = server.port
        message_id = write(database)
        url = parse_url(f"smtp://localhost:{port}?tls=none", local=False)
        failures: list[MailUnavailable] = []

        def send_or_note(email: Email) -> None:
            try:
                send(url, email)
            except MailUnavailable as error:
                failures.append(error)
                raise

        loop = run(make_delivery(send_or_note))
        wait_until(lambda: failures)
        with serve_mail(port=port) as server:

            def is_there() -> bool:
                let_go(database, message_id)  # again: the loop may only now be putting it back
                loop.wake()
                return bool(server.received)

            wait_until(is_there)
        assert len(server.received) == 1
        assert row_of(database, message_id)["tries"] == len(failures) + 1

    @pytest.mark.parametrize("failure", [DatabaseUnavailable(), MemoryError(), KeyError("x")])
    def test_it_survives_whatever_happens(
        self,
        database: Database,
        make_delivery: MakeDelivery,
        run: Callable[..., DeliveryLoop],
        failure: Exception,
    ) -> None:
        failures, sent = [failure, failure], list[Email]()

        def send_at_last(email: Email) -> None:
            if failures:
                raise failures.pop()
            sent.append(email)

        message_id = write(database)
        loop = run(make_delivery(send_at_last), poll=0.02)
        for left in (1, 0):
            wait_until(lambda: len(failures) == left)  # noqa: B023 -- awaited before the next one
            let_go(database, message_id)
            loop.wake()
        wait_until(lambda: sent)

    def test_a_database_that_is_down_is_asked_again(
        self, database: Database, make_composer: Callable[..., Composer], transport: Transport
    ) -> None:
        down = Database("postgresql://nobody@127.0.0.1:1/none", connect_timeout=0.2, deadline=0.5)
        loop = DeliveryLoop(Delivery(down, make_composer().compose, transport), poll=0.02)
        loop.start()
        write(database)
        time.sleep(0.3)
        assert loop._thread.is_alive()
        started = time.monotonic()
        loop.stop()
        assert not loop._thread.is_alive()
        assert time.monotonic() - started < 3
        down.close()

    def test_it_stops_at_once_when_idle(self, delivery: Delivery, run: Callable[..., DeliveryLoop]) -> None:
        loop = run(delivery)
        started = time.monotonic()
        loop.stop()
        assert time.monotonic() - started < 2

    def test_stopping_one_that_never_started(self, delivery: Delivery) -> None:
        DeliveryLoop(delivery).stop()

"""Messages that wait for delivery."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from auth_manager import outbox
from auth_manager.database import Connection, Database, Row
from auth_manager.ids import new_id
from auth_manager.outbox import CLAIM, Kind, NewMessage, Taken

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNER, NEWCOMER = UUID(int=1), UUID(int=2)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A transaction in which OWNER has Owner@Example.com."""
    with database.transaction() as connection:
        connection.add(
            """
            INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at,
                                  created_at, updated_at)
            VALUES (%(id)s, 'Owner@Example.com', 'owner@example.com', '!', now(), now(), now())
            """,
            {"id": OWNER},
        )
        yield connection


def new() -> NewMessage:
    return NewMessage(new_id(), Kind.PASSWORD_CHANGED, NOW, details={"a": [1]})


def add(connection: Connection) -> UUID:
    message = new()
    outbox.add(connection, message, recipient="a@example.com")
    return message.id


def messages(connection: Connection) -> list[Row]:
    return connection.fetch_all("SELECT kind, recipient, account_id, created_at FROM outbox ORDER BY id")


class TestRegistrationNotice:
    @pytest.mark.parametrize(
        ("account_id", "typed", "kind", "recipient", "about"),
        [
            (OWNER, "Owner@Example.com", "verify_email", "Owner@Example.com", OWNER),
            (NEWCOMER, "OWNER@example.com", "already_registered", "Owner@Example.com", OWNER),
            (NEWCOMER, "New@Example.com", "username_taken", "New@Example.com", None),
        ],
    )
    def test_it_goes_to_the_owner_of_the_address(
        self,
        connection: Connection,
        account_id: UUID,
        typed: str,
        kind: str,
        recipient: str,
        about: UUID | None,
    ) -> None:
        message_id, secret_id = new_id(), new_id()
        returned = outbox.add_registration_notice(
            connection,
            message_id,
            account_id=account_id,
            secret_id=secret_id,
            email=typed,
            email_normalized=typed.lower(),
            locale="fr",
            now=NOW,
        )
        assert returned == kind
        assert messages(connection) == [
            {"kind": kind, "recipient": recipient, "account_id": about, "created_at": NOW}
        ]
        [row] = connection.fetch_all("SELECT id, secret_id, locale FROM outbox")
        carried = secret_id if kind == "verify_email" else None
        assert row == {"id": message_id, "secret_id": carried, "locale": "fr"}


class TestAdd:
    def test_sent_twice_it_is_written_once(self, connection: Connection) -> None:
        message = NewMessage(new_id(), Kind.INVITATION, NOW, details={"invited_by": "Ada"})
        for _ in range(2):
            outbox.add(connection, message, recipient="New@Example.com")
        assert len(messages(connection)) == 1

    def test_to_an_account_it_goes_where_that_is_now(self, connection: Connection) -> None:
        """If that was proven, and in the account's own language."""
        outbox.add_to_account(connection, new(), account_id=OWNER, locale="en")
        assert messages(connection) == []
        connection.add("UPDATE accounts SET email_verified_at = now()")
        outbox.add_to_account(connection, new(), account_id=OWNER, locale="en")
        connection.add("UPDATE accounts SET locale = 'fr'")
        outbox.add_to_account(connection, new(), account_id=OWNER, locale="en")
        outbox.add_to_account(connection, new(), account_id=NEWCOMER, locale="en")
        rows = connection.fetch_all("SELECT recipient, locale FROM outbox ORDER BY id")
        assert [row["locale"] for row in rows] == ["en", "fr"]
        assert {row["recipient"] for row in rows} == {"Owner@Example.com"}

    @pytest.mark.parametrize(
        ("address", "disabled", "kind", "recipient"),
        [
            ("owner@example.com", False, "password_changed", "Owner@Example.com"),
            ("owner@example.com", True, "nothing", ""),
            ("nobody@example.com", False, "nothing", ""),
        ],
    )
    def test_for_nobody_a_row_of_nothing_is_written(
        self, connection: Connection, address: str, kind: str, recipient: str, *, disabled: bool
    ) -> None:
        if disabled:
            connection.add("UPDATE accounts SET disabled_at = now()")
        outbox.add_to_owner(connection, new(), email_normalized=address, locale=None)
        [row] = connection.fetch_all("SELECT * FROM outbox")
        assert (row["kind"], row["recipient"]) == (kind, recipient)
        assert (row["sent_at"] is None) == (kind != "nothing")


class TestClaim:
    def test_what_its_writer_may_still_hand_over_is_left_to_it(self, connection: Connection) -> None:
        outbox.add(connection, new(), recipient="a@example.com")
        assert outbox.claim(connection, now=NOW + CLAIM / 2, limit=10) == []
        assert len(outbox.claim(connection, now=NOW + CLAIM, limit=10)) == 1
        assert outbox.claim(connection, now=NOW + CLAIM, limit=10) == []

    def test_no_more_than_asked_for(self, connection: Connection) -> None:
        ids = [add(connection) for _ in range(5)]
        assert sorted(outbox.claim(connection, now=NOW + CLAIM, limit=3)) == ids[:3]

    def test_what_is_sent_or_given_up_is_not_handed_over(self, connection: Connection) -> None:
        sent, given_up, waiting = (add(connection) for _ in range(3))
        outbox.mark_sent(connection, sent, now=NOW)
        outbox.give_up(connection, given_up, reason="too_late", now=NOW)
        assert outbox.claim(connection, now=NOW + CLAIM, limit=10) == [waiting]


class TestTake:
    def test_one_takes_it_and_others_find_it_busy(self, connection: Connection) -> None:
        message_id = add(connection)
        taken, message = outbox.take(connection, message_id, now=NOW)
        assert taken is Taken.TAKEN
        assert message is not None
        assert (message.id, message.kind, message.recipient) == (
            message_id,
            Kind.PASSWORD_CHANGED,
            "a@example.com",
        )
        assert (message.tries, message.details) == (1, {"a": [1]})
        assert "example.com" not in repr(message)
        assert outbox.take(connection, message_id, now=NOW) == (Taken.BUSY, None)
        assert outbox.take_next(connection, now=NOW) is None

    def test_put_back_it_can_be_taken_again(self, connection: Connection) -> None:
        message_id = add(connection)
        outbox.take(connection, message_id, now=NOW)
        outbox.put_back(connection, message_id, wait=timedelta())
        taken, message = outbox.take(connection, message_id, now=NOW)
        assert (taken, message and message.tries) == (Taken.TAKEN, 2)

    def test_what_is_over_stays_over(self, connection: Connection) -> None:
        message_id = add(connection)
        outbox.mark_sent(connection, message_id, now=NOW)
        outbox.put_back(connection, message_id, wait=timedelta())
        outbox.give_up(connection, message_id, reason="too_late", now=NOW)
        assert outbox.take(connection, message_id, now=NOW) == (Taken.DONE, None)
        assert outbox.take(connection, new_id(), now=NOW) == (Taken.DONE, None)
        [row] = connection.fetch_all("SELECT failed_at, failure FROM outbox")
        assert row == {"failed_at": None, "failure": None}


class TestForget:
    def test_what_waits_for_an_erased_account_is_dropped(self, connection: Connection) -> None:
        outbox.add(connection, new(), recipient="Owner@Example.com", account_id=OWNER)
        outbox.add(connection, new(), recipient="other@example.com", account_id=NEWCOMER)
        outbox.add(connection, new(), recipient="OWNER@example.com")
        assert len(messages(connection)) == 3
        outbox.forget(connection, OWNER)
        assert [row["recipient"] for row in messages(connection)] == ["other@example.com"]

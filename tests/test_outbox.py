"""Messages that wait for delivery."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from auth_manager import outbox
from auth_manager.database import Connection, Database, Row

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
        returned = outbox.add_registration_notice(
            connection, account_id=account_id, email=typed, email_normalized=typed.lower(), now=NOW
        )
        assert returned == kind
        assert messages(connection) == [
            {"kind": kind, "recipient": recipient, "account_id": about, "created_at": NOW}
        ]


class TestForget:
    def test_what_waits_for_an_erased_account_is_dropped(self, connection: Connection) -> None:
        outbox.add_verification(connection, "Owner@Example.com", account_id=OWNER, now=NOW)
        outbox.add_verification(connection, "other@example.com", account_id=NEWCOMER, now=NOW)
        connection.add(
            "INSERT INTO outbox (id, kind, recipient, created_at)"
            " VALUES (gen_random_uuid(), 'username_taken', 'OWNER@example.com', now())"
        )
        assert len(messages(connection)) == 3
        outbox.forget(connection, OWNER)
        assert [row["recipient"] for row in messages(connection)] == ["other@example.com"]

"""A round trip whose answer is lost with its connection is sent once more; it must not happen twice."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from auth_manager import audit, known_devices, one_time_secrets, outbox
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.store import NewAccount
from auth_manager.audit import Origin
from auth_manager.database import Connection, Database
from auth_manager.errors import InvalidOneTimeSecret
from auth_manager.ids import new_id
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.rate_limits import Limit
from auth_manager.sessions import RefreshLine, Session
from auth_manager.sessions import store as sessions_store
from auth_manager.settings import Settings

NOW = datetime.now(UTC)
ORIGIN = Origin(address="203.0.113.7", user_agent="test", request_id="r", now=NOW)


def new_account(name: str) -> NewAccount:
    return NewAccount(
        id=new_id(),
        email=f"{name}@example.com",
        email_normalized=f"{name}@example.com",
        email_verified_at=None,
        username=name,
        username_normalized=name,
        display_name=None,
        locale=None,
        attributes={},
        password_hash="!",
        created_at=NOW,
    )


def secret_of(account_id: UUID, purpose: Purpose) -> OneTimeSecret:
    return OneTimeSecret(
        id=new_id(),
        purpose=purpose,
        account_id=account_id,
        email="twice@example.com",
        email_normalized="twice@example.com",
        details={},
        limit_key="key",
        expires_at=NOW + timedelta(hours=1),
    )


def send_twice(connection: Connection) -> None:
    """What the pool does after a lost answer: the same bytes again."""
    connection._queued.extend(list(connection._queued))


def count(database: Database, table: str) -> int:
    with database.one_trip() as connection:
        row = connection.fetch_one(f"SELECT count(*) AS n FROM {table}")
    assert row
    return int(row["n"])


class TestSentTwice:
    def test_a_registration(self, database: Database) -> None:
        new = new_account("twice")
        with database.one_trip() as connection:
            accounts_store.insert(connection, new)
            secret = secret_of(new.id, Purpose.VERIFY_EMAIL)
            message = NewMessage(new_id(), Kind.VERIFY_EMAIL, NOW, secret_id=secret.id)
            one_time_secrets.add(connection, secret, now=NOW)
            outbox.add(connection, message, recipient=new.email, account_id=new.id)
            audit.append(connection, "registered", ORIGIN, account_id=new.id)
            send_twice(connection)

        tables = ("accounts", "one_time_secrets", "outbox", "audit_events")
        assert [count(database, table) for table in tables] == [1, 1, 1, 1]

    def test_a_message_within_a_limit(self, database: Database) -> None:
        """Sent again it may count once more; it neither fails nor is there twice."""
        new = new_account("twice")
        message = NewMessage(new_id(), Kind.VERIFY_EMAIL, NOW, secret_id=new_id())
        within = []
        for _ in range(2):
            with database.one_trip() as connection:
                accounts_store.insert(connection, new)
                written = outbox.add_within_limit(
                    connection,
                    message,
                    recipient=new.email,
                    account_id=new.id,
                    locale=None,
                    key="mail",
                    limit=Limit(maximum=1, window=timedelta(hours=1)),
                )
            within.append(written)

        assert within == [True, False]
        assert [count(database, table) for table in ("accounts", "outbox")] == [1, 1]

    def test_a_use_is_one_use(self, database: Database) -> None:
        new = new_account("twice")
        secret = secret_of(new.id, Purpose.VERIFY_EMAIL)
        with database.one_trip() as connection:
            accounts_store.insert(connection, new)
            one_time_secrets.add(connection, secret, now=NOW)
        with database.one_trip() as connection:
            one_time_secrets.use(connection, secret.id, use_id=new_id(), now=NOW)
            send_twice(connection)

        assert count(database, "one_time_secrets WHERE used_at IS NOT NULL") == 1
        with pytest.raises(InvalidOneTimeSecret), database.one_trip() as connection:
            one_time_secrets.use(connection, secret.id, use_id=new_id(), now=NOW)

    def test_a_new_request_does_not_retire_itself(self, database: Database) -> None:
        new = new_account("twice")
        older, newer = secret_of(new.id, Purpose.CHANGE_EMAIL), secret_of(new.id, Purpose.CHANGE_EMAIL)
        with database.one_trip() as connection:
            accounts_store.insert(connection, new)
            one_time_secrets.add(connection, older, now=NOW)
        with database.one_trip() as connection:
            one_time_secrets.retire(connection, new.id, [Purpose.CHANGE_EMAIL], except_for=newer.id, now=NOW)
            one_time_secrets.add(connection, newer, now=NOW)
            send_twice(connection)

        with database.transaction() as connection:
            found = [
                one_time_secrets.find_live(connection, each.id, Purpose.CHANGE_EMAIL, now=NOW)
                for each in (older, newer)
            ]
        assert found == [None, newer]

    def test_a_greeting(self, database: Database, make_settings: Callable[..., Settings]) -> None:
        new = replace(new_account("twice"), email_verified_at=NOW)
        with database.one_trip() as connection:
            accounts_store.insert(connection, new)
            known_devices.greet(connection, make_settings(), replace(ORIGIN, user_agent="old"), new.id)
        with database.one_trip() as connection:
            known_devices.greet(connection, make_settings(), replace(ORIGIN, user_agent="new"), new.id)
            send_twice(connection)

        assert (count(database, "known_devices"), count(database, "outbox")) == (2, 1)

    def test_a_login(self, database: Database) -> None:
        new = new_account("twice")
        session = Session(
            id=new_id(),
            account_id=new.id,
            created_at=NOW,
            last_used_at=NOW,
            expires_at=NOW + timedelta(days=1),
            authenticated_at=NOW,
            amr=("pwd",),
            acr="aal1",
            address=None,
            user_agent="",
        )
        with database.one_trip() as connection:
            accounts_store.insert(connection, new)
        with database.one_trip() as connection:
            sessions_store.insert(
                connection,
                session,
                RefreshLine(new_id(), "c", "s", 1),
                password_changed_at=NOW,
                factors_changed_at=None,
            )
            audit.append(connection, "logged_in", ORIGIN, account_id=new.id)
            send_twice(connection)

        assert [count(database, table) for table in ("sessions", "refresh_lines", "audit_events")] == [
            1,
            1,
            1,
        ]

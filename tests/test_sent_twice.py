"""A round trip whose answer is lost with its connection is sent once more; it must not happen twice."""

from datetime import UTC, datetime, timedelta

from auth_manager import audit, outbox
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.store import NewAccount
from auth_manager.audit import Origin
from auth_manager.database import Connection, Database
from auth_manager.ids import new_id
from auth_manager.sessions import RefreshLine, Session
from auth_manager.sessions import store as sessions_store

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
        attributes={},
        password_hash="!",
        created_at=NOW,
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
            outbox.add_verification(connection, new.email, account_id=new.id, now=NOW)
            audit.append(connection, "registered", ORIGIN, account_id=new.id)
            send_twice(connection)

        assert [count(database, table) for table in ("accounts", "outbox", "audit_events")] == [1, 1, 1]

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
                connection, session, RefreshLine(new_id(), "c", "s", 1), password_changed_at=NOW
            )
            audit.append(connection, "logged_in", ORIGIN, account_id=new.id)
            send_twice(connection)

        assert [count(database, table) for table in ("sessions", "refresh_lines", "audit_events")] == [
            1,
            1,
            1,
        ]

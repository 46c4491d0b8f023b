"""The audit trail: complete rows that nobody changes."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg2.errors
import pytest

from auth_manager import audit
from auth_manager.audit import Origin
from auth_manager.database import Database, Row

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def append(database: Database, **facts: Any) -> Row:
    origin = Origin("2001:db8::7", "browser/1", "request-1", NOW)
    with database.one_trip() as connection:
        audit.append(connection, "tested", origin, account_id=UUID(int=1), session_id=UUID(int=2), **facts)
    with database.one_trip() as connection:
        [row] = connection.fetch_all("SELECT * FROM audit_events")
    return row


def append_and_fail(database: Database) -> None:
    with database.one_trip() as connection:
        audit.append(connection, "tested", Origin(None, "", "r", NOW))
        connection.add("SELECT 1/0")


class TestAppend:
    def test_every_column_is_filled(self, database: Database) -> None:
        row = append(database)
        assert row.pop("id").version == 7
        assert row == {
            "occurred_at": NOW,
            "event": "tested",
            "outcome": "success",
            "reason": None,
            "account_id": UUID(int=1),
            "session_id": UUID(int=2),
            "address": "2001:db8::7",
            "user_agent": "browser/1",
            "request_id": "request-1",
            "actor_id": None,
            "operator": None,
            "details": {},
            # What the chain fills in later.
            "position": None,
            "previous_hash": None,
            "personal_salt": None,
            "personal_hash": None,
            "hash": None,
        }

    def test_who_did_it_and_what_it_was_are_kept(self, database: Database) -> None:
        row = append(database, actor_id=UUID(int=3), details={"role": "b"})
        assert (row["actor_id"], row["operator"], row["details"]) == (UUID(int=3), None, {"role": "b"})

    def test_a_failure_has_its_reason(self, database: Database) -> None:
        row = append(database, failure="invalid_credentials")
        assert (row["outcome"], row["reason"]) == ("failure", "invalid_credentials")

    def test_an_event_is_undone_with_what_it_is_about(self, database: Database) -> None:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            append_and_fail(database)
        with database.one_trip() as connection:
            assert connection.fetch_all("SELECT id FROM audit_events") == []


CHAINED = "position = 1, previous_hash = '', personal_hash = '', hash = ''"
UNCHAINED = "position = NULL, previous_hash = NULL, personal_hash = NULL, hash = NULL"


class TestAppendOnly:
    @pytest.mark.parametrize(
        "sql",
        [
            "UPDATE audit_events SET reason = 'x'",
            "UPDATE audit_events SET actor_id = id, address = NULL, user_agent = ''",
            "UPDATE audit_events SET operator = 'x', address = NULL, user_agent = ''",
            "UPDATE audit_events SET details = '{\"x\": 1}', address = NULL, user_agent = ''",
            "UPDATE audit_events SET address = NULL",
            "UPDATE audit_events SET address = '192.0.2.1', user_agent = ''",
            f"UPDATE audit_events SET {CHAINED}, reason = 'x'",
            f"UPDATE audit_events SET {CHAINED}, user_agent = 'x'",
            f"UPDATE audit_events SET {CHAINED}; UPDATE audit_events SET hash = 'x'",
            f"UPDATE audit_events SET {CHAINED}; UPDATE audit_events SET position = 2",
            f"UPDATE audit_events SET {CHAINED}; UPDATE audit_events SET personal_salt = 't'",
            f"UPDATE audit_events SET {CHAINED}; UPDATE audit_events SET {UNCHAINED}",
            "DELETE FROM audit_events",
            "TRUNCATE audit_events",
        ],
    )
    def test_nothing_is_changed_or_removed(self, database: Database, sql: str) -> None:
        row = append(database)
        with (
            pytest.raises(psycopg2.errors.RaiseException, match="append-only"),
            database.one_trip() as connection,
        ):
            connection.add(sql)
        with database.one_trip() as connection:
            assert connection.fetch_all("SELECT * FROM audit_events") == [row]

    def test_an_event_joins_the_chain_whole(self, database: Database) -> None:
        append(database)
        with (
            pytest.raises(psycopg2.errors.CheckViolation, match="audit_events_chained"),
            database.one_trip() as connection,
        ):
            connection.add("UPDATE audit_events SET position = 1, hash = ''")

    def test_an_erasure_by_an_older_image_drops_the_salt(self, database: Database) -> None:
        row = append(database)
        with database.one_trip() as connection:
            connection.add(f"UPDATE audit_events SET {CHAINED}, personal_salt = 's'")
        with database.one_trip() as connection:
            connection.add("UPDATE audit_events SET address = NULL, user_agent = ''")
        with database.one_trip() as connection:
            [erased] = connection.fetch_all("SELECT * FROM audit_events")
        changed = {name for name in row if erased[name] != row[name]}
        assert changed == {"address", "user_agent", "position", "previous_hash", "personal_hash", "hash"}
        assert erased["personal_salt"] is None


class TestAnonymise:
    def test_the_trail_is_not_read_from_its_beginning(self, database: Database) -> None:
        """What belongs to one account among many is found by the indexes."""
        with database.transaction() as connection:
            connection.add(
                "INSERT INTO audit_events"
                " (id, occurred_at, event, outcome, account_id, actor_id, address, user_agent, request_id)"
                " SELECT gen_random_uuid(), now(), CASE n % 100 WHEN 0 THEN 'account_deleted' ELSE 'x' END,"
                " 'success', gen_random_uuid(), CASE n % 3 WHEN 0 THEN gen_random_uuid() END, '192.0.2.1',"
                " '', '' FROM generate_series(1, 5000) AS n"
            )
            connection.add("ANALYZE audit_events")
            read = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'audit_events'"
            before = connection.fetch_all(read)
            audit.anonymise(connection, UUID(int=1))
            audit.anonymise_rest(connection, erased_since=NOW)
            assert connection.fetch_all(read) == before

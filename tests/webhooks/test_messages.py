"""What the trigger writes: who gets which event, and what it says."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from tests.webhooks.conftest import Hooks, operator

from auth_manager import audit, outbox
from auth_manager.database import Row
from auth_manager.ids import new_id
from auth_manager.webhooks import TYPES, service

URL = "https://hooks.example.com/"
OWNER, ACTOR, SESSION = UUID(int=1), UUID(int=2), UUID(int=3)


def payload(row: Row) -> dict[str, object]:
    details: dict[str, object] = row["details"]
    return details


class TestTypes:
    def test_the_database_knows_the_same(self) -> None:
        migration = Path(audit.__file__).parent / "migrations" / "0010_webhooks.sql"
        known = re.findall(r"WHEN '\w+' THEN '([\w.]+)'", migration.read_text())
        assert known
        assert set(known) == set(TYPES)

    def test_each_event_is_one_of_the_trail(self) -> None:
        """Of those that docs/operations.md lists."""
        root = Path(__file__).resolve().parents[2]
        migration = root / "src" / "auth_manager" / "migrations" / "0010_webhooks.sql"
        announced = set(re.findall(r"WHEN '(\w+)' THEN '[\w.]+'", migration.read_text()))
        documented = (root / "docs" / "operations.md").read_text()
        assert [event for event in sorted(announced) if f"`{event}`" not in documented] == []


class TestWho:
    def test_each_endpoint_that_asks_for_it(self, hooks: Hooks) -> None:
        everything = hooks.create(URL)
        some = hooks.create(URL, "user.updated", "user.deleted")
        hooks.create(URL, "session.created")
        disabled = hooks.create(URL)
        service.change(hooks.resources, operator(), None, disabled.endpoint.id, {"enabled": False})
        hooks.happen("profile_changed")
        rows = hooks.messages()
        assert {row["endpoint_id"] for row in rows} == {everything.endpoint.id, some.endpoint.id}
        assert {payload(row)["type"] for row in rows} == {"user.updated"}
        assert len({row["id"] for row in rows}) == 2

    @pytest.mark.parametrize(
        ("event", "failure", "type_"),
        [
            ("logged_in", None, "session.created"),
            ("logged_in", "invalid_credentials", None),
            ("account_locked", "100", "user.locked"),
            ("refresh_token_reused", "session_ended", "session.ended"),
            ("factor_presented", None, None),
            ("webhook_created", None, None),
            ("webhook_disabled", None, None),
            ("mfa_reset", None, "user.factors_changed"),
            ("account_deleted", None, "user.deleted"),
        ],
    )
    def test_what_is_announced(
        self, hooks: Hooks, event: str, failure: str | None, type_: str | None
    ) -> None:
        hooks.create(URL)
        hooks.happen(event, failure=failure)
        assert [payload(row)["type"] for row in hooks.messages()] == ([type_] if type_ else [])

    def test_it_is_undone_with_the_change(self, hooks: Hooks) -> None:
        hooks.create(URL)

        def fail_after_it() -> None:
            with hooks.database.transaction() as connection:
                audit.append(connection, "profile_changed", operator(), account_id=OWNER)
                connection.fetch_all("SELECT 1")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail_after_it()
        assert hooks.messages() == []

    def test_one_event_is_one_message(self, hooks: Hooks) -> None:
        """However often its row is written: the id follows from the event's and the endpoint's."""
        endpoint = hooks.create(URL).endpoint
        hooks.happen()
        [message] = hooks.messages()
        [event] = hooks.query("SELECT id FROM audit_events WHERE event = 'profile_changed'")
        [again] = hooks.query(
            "SELECT webhook_message_id(%(event)s, %(endpoint)s) AS id",
            {"event": event["id"], "endpoint": endpoint.id},
        )
        assert message["id"] == again["id"]
        assert message["id"].version == 7
        assert message["id"].variant == "specified in RFC 4122"
        assert message["id"].int >> 80 == event["id"].int >> 80


class TestWhat:
    def told(self, hooks: Hooks, event: str, **what: object) -> dict[str, object]:
        hooks.create(URL)
        hooks.happen(event, account_id=OWNER, **what)
        [row] = hooks.messages()
        data = payload(row)["data"]
        assert isinstance(data, dict)
        return data

    def test_the_envelope(self, hooks: Hooks) -> None:
        hooks.create(URL)
        origin = operator(datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC))
        with hooks.database.one_trip() as connection:
            audit.append(connection, "logged_in", origin, account_id=OWNER, session_id=SESSION)
        [row] = hooks.messages()
        assert payload(row) == {
            "type": "session.created",
            "timestamp": "2026-01-02T03:04:05.678Z",
            "data": {"event": "logged_in", "user_id": str(OWNER), "session_id": str(SESSION)},
        }
        assert (row["kind"], row["recipient"], row["account_id"]) == ("webhook", "", None)

    def test_who_did_it(self, hooks: Hooks) -> None:
        assert self.told(hooks, "account_disabled", actor_id=ACTOR, session_id=SESSION) == {
            "event": "account_disabled",
            "user_id": str(OWNER),
            "actor_id": str(ACTOR),
        }

    def test_which_session_ended(self, hooks: Hooks) -> None:
        told = self.told(hooks, "session_revoked", session_id=SESSION)
        assert told["session_id"] == str(SESSION)

    def test_which_session_an_administrator_ended(self, hooks: Hooks) -> None:
        """Not their own, by which they did it."""
        details = {"revoked_session_id": str(SESSION)}
        told = self.told(hooks, "session_revoked", session_id=new_id(), actor_id=ACTOR, details=details)
        assert told["session_id"] == str(SESSION)

    def test_which_session_stayed(self, hooks: Hooks) -> None:
        told = self.told(hooks, "logged_out_others", session_id=SESSION)
        assert (told["kept_session_id"], "session_id" in told) == (str(SESSION), False)

    def test_all_sessions(self, hooks: Hooks) -> None:
        assert set(self.told(hooks, "logged_out_all", session_id=SESSION)) == {"event", "user_id"}

    def test_which_roles(self, hooks: Hooks) -> None:
        told = self.told(hooks, "roles_changed", details={"added": ["support"], "removed": []})
        assert (told["added"], told["removed"]) == (["support"], [])

    def test_no_words_of_anybody(self, hooks: Hooks) -> None:
        """What an administrator gave as a reason may name a person."""
        told = self.told(
            hooks, "impersonation_started", session_id=SESSION, actor_id=ACTOR, details={"reason": "canary"}
        )
        assert told == {
            "event": "impersonation_started",
            "user_id": str(OWNER),
            "actor_id": str(ACTOR),
            "session_id": str(SESSION),
        }
        assert "canary" not in json.dumps([payload(row) for row in hooks.messages()])
        assert "olga" not in json.dumps([payload(row) for row in hooks.messages()])

    def test_it_stays_when_the_account_is_erased(self, hooks: Hooks) -> None:
        """It holds ids alone, and the receiver has to hear of it."""
        hooks.create(URL)
        hooks.happen("account_deleted", account_id=OWNER)
        with hooks.database.one_trip() as connection:
            outbox.forget(connection, OWNER)
        assert len(hooks.messages()) == 1

    def test_it_goes_with_the_retention(self, hooks: Hooks) -> None:
        hooks.create(URL)
        hooks.happen()
        with hooks.database.one_trip() as connection:
            assert outbox.delete_over(connection, before=datetime.now(UTC), limit=10) == 1
        assert hooks.messages() == []

    def test_no_export_of_a_person_has_it(self, hooks: Hooks) -> None:
        hooks.create(URL)
        hooks.happen(account_id=OWNER)
        with hooks.database.one_trip() as connection:
            assert outbox.list_of(connection, OWNER, limit=10) == []

"""Searching the trail, and an export from which every hash can be computed."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from auth_manager import audit
from auth_manager.audit import Origin
from auth_manager.audit_chain.chaining import extend
from auth_manager.audit_trail import Filters
from auth_manager.audit_trail.service import export, search_as_operator
from auth_manager.database import Database
from auth_manager.errors import InvalidFields
from auth_manager.resources import Resources

NOW = datetime.fromisoformat("2030-01-02T03:04:05.000006+00:00")
HOUR = timedelta(hours=1)
OWNER, OTHER, ADMINISTRATOR = UUID(int=1), UUID(int=2), UUID(int=3)

Names = Callable[..., list[str]]


def note(database: Database, name: str, *, hours: int = 0, **facts: Any) -> None:
    origin = Origin(
        address=facts.pop("address", "203.0.113.7"),
        user_agent="browser/\N{SNOWMAN}",
        request_id="r",
        now=NOW + hours * HOUR,
        operator=facts.pop("operator", None),
    )
    with database.one_trip() as connection:
        audit.append(connection, name, origin, **facts)


@pytest.fixture
def names(resources: Resources) -> Names:
    """The names of all events that match."""

    def search(**wanted: Any) -> list[str]:
        page = search_as_operator(resources, Filters(**wanted), limit=200, cursor=None)
        assert page.next_cursor is None
        return [row["event"] for row in page.items]

    return search


class TestSearch:
    @pytest.fixture(autouse=True)
    def _noted(self, database: Database) -> None:
        note(database, "login", account_id=OWNER)
        note(database, "login_failed", hours=1, account_id=OWNER, failure="invalid_credentials")
        note(
            database,
            "account_disabled",
            hours=2,
            account_id=OTHER,
            actor_id=ADMINISTRATOR,
            address="2001:db8::7",
        )
        note(database, "role_assigned", hours=3, account_id=OTHER, operator="olga", address=None)
        note(database, "login", hours=4, account_id=OTHER, address="203.0.114.1")

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({}, ["login", "role_assigned", "account_disabled", "login_failed", "login"]),
            ({"event": "login"}, ["login", "login"]),
            ({"outcome": "failure"}, ["login_failed"]),
            ({"account_id": OWNER}, ["login_failed", "login"]),
            ({"actor_id": ADMINISTRATOR}, ["account_disabled"]),
            ({"operator": "olga"}, ["role_assigned"]),
            ({"network": "203.0.113.7"}, ["login_failed", "login"]),
            ({"network": "203.0.112.0/22"}, ["login", "login_failed", "login"]),
            ({"network": "2001:db8::/32"}, ["account_disabled"]),
            ({"since": NOW + HOUR}, ["login", "role_assigned", "account_disabled", "login_failed"]),
            ({"until": NOW + HOUR}, ["login"]),
            ({"event": "login", "since": NOW + HOUR, "account_id": OTHER}, ["login"]),
            ({"event": "login", "outcome": "failure"}, []),
            ({"event": "log%"}, []),
            ({"operator": "x' OR true --"}, []),
        ],
        ids=str,
    )
    def test_what_matches_all_the_latest_first(
        self, names: Names, wanted: dict[str, Any], found: list[str]
    ) -> None:
        assert names(**wanted) == found

    @pytest.mark.parametrize("limit", [1, 2, 4])
    def test_pages(self, resources: Resources, limit: int) -> None:
        found: list[str] = []
        cursor = None
        while True:
            page = search_as_operator(resources, Filters(), limit=limit, cursor=cursor)
            assert len(page.items) <= limit
            found += [row["event"] for row in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == ["login", "role_assigned", "account_disabled", "login_failed", "login"]

    def test_pages_of_events_of_one_moment(self, resources: Resources, database: Database) -> None:
        for number in range(5):
            note(database, f"at once {number}", hours=9)
        first = search_as_operator(resources, Filters(), limit=3, cursor=None)
        second = search_as_operator(resources, Filters(), limit=2, cursor=first.next_cursor)
        found = [row["event"] for row in (*first.items, *second.items)]
        assert found == [f"at once {number}" for number in (4, 3, 2, 1, 0)]

    @pytest.mark.parametrize("cursor", ["x", "A" * 70, ""])
    def test_a_cursor_of_another_list(self, resources: Resources, cursor: str) -> None:
        foreign = cursor or resources.cursors.seal(bytes(24), context="sessions:x")
        with pytest.raises(InvalidFields):
            search_as_operator(resources, Filters(), limit=3, cursor=foreign)


class TestExport:
    def test_all_in_order_over_several_pages(self, database: Database) -> None:
        for number in range(7):
            note(database, f"event {number}", hours=number // 3)
        found = [line["event"] for line in export(database, Filters(), page=2)]
        assert found == [f"event {number}" for number in range(7)]
        assert [line["event"] for line in export(database, Filters(event="event 3"), page=2)] == ["event 3"]

    def test_a_line(self, database: Database) -> None:
        note(database, "login", account_id=OWNER, details={"roles": ["b"], "a": 1})
        [line] = export(database, Filters())
        assert UUID(line.pop("id")).version == 7
        assert json.loads(json.dumps(line)) == {
            "position": None,
            "occurred_at": "2030-01-02T03:04:05.000006Z",
            "event": "login",
            "outcome": "success",
            "reason": None,
            "account_id": str(OWNER),
            "session_id": None,
            "actor_id": None,
            "operator": None,
            "address": "203.0.113.7",
            "user_agent": "browser/\N{SNOWMAN}",
            "request_id": "r",
            "details": {"a": 1, "roles": ["b"]},
            "previous_hash": None,
            "personal_salt": None,
            "personal_hash": None,
            "hash": None,
        }

    def test_whoever_has_the_lines_can_verify_them(self, database: Database) -> None:
        """By the encoding as docs/security.md describes it, and nothing of ours."""
        note(
            database, "login", account_id=OWNER, details={"roles": ["é", 'q"\\'], "longer": None, "n": 10**20}
        )
        note(database, "login_failed", hours=1, address="2001:db8::7", failure="x", actor_id=OTHER)
        note(database, "role_assigned", hours=2, address=None, operator="olga", session_id=OTHER)
        extend(database)
        lines = [json.dumps(line, ensure_ascii=False) for line in export(database, Filters())]
        previous = bytes(32)
        for line in lines:
            event = json.loads(line)
            person = digest(
                "auth-manager audit person 1",
                bytes.fromhex(event["personal_salt"] or "") or None,
                event["address"],
                event["user_agent"],
            )
            occurred_at = datetime.fromisoformat(event["occurred_at"])
            own = digest(
                "auth-manager audit event 1",
                str(event["position"]),
                previous,
                event["id"],
                str(int(occurred_at.timestamp()) * 10**6 + occurred_at.microsecond),
                *(event[name] for name in ("event", "outcome", "reason", "account_id", "session_id")),
                *(event[name] for name in ("request_id", "actor_id", "operator")),
                json.dumps(event["details"], ensure_ascii=False),
                person,
            )
            assert (event["personal_hash"], event["hash"]) == (person.hex(), own.hex())
            previous = own


def digest(*fields: str | bytes | None) -> bytes:
    content = b""
    for field in fields:
        value = field.encode() if isinstance(field, str) else field
        content += b"\xff" * 4 if value is None else len(value).to_bytes(4) + value
    return hashlib.sha256(content).digest()

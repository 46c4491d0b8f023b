"""`auth-manager webhooks`, directly on the database."""

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from auth_manager.database import Database, Row
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console
from auth_manager.sealed_values import is_current
from auth_manager.secret_keys import open_secret_keys
from auth_manager.settings import load_settings
from auth_manager.webhooks import SECRET_PURPOSE

URL = "https://hooks.example.com/auth"
SECRET = "canary-0123456789-abcdefghijklmnop"


@dataclass(frozen=True)
class Done:
    """A command that ended; white space is folded."""

    status: int
    output: str
    errors: str

    @property
    def facts(self) -> Any:
        return json.loads(self.output)


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, database_url: str, signing_keys: str) -> None:
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET_KEYS", SECRET)
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)
    monkeypatch.setenv("SUDO_USER", "olga")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database: Database,  # noqa: ARG001 -- its tables are empty
) -> Run:
    """Runs `auth-manager webhooks` in this process."""
    monkeypatch.setattr(console, "output", Console(width=300))
    monkeypatch.setattr(console, "errors", Console(width=300, stderr=True))

    def invoke(*arguments: str, group: str = "webhooks") -> Done:
        monkeypatch.setattr(sys, "argv", ["auth-manager", group, *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        status = caught.value.code
        assert isinstance(status, int)
        return Done(status, " ".join(captured.out.split()), " ".join(captured.err.split()))

    return invoke


def query(database: Database, sql: str) -> list[Row]:
    with database.one_trip() as connection:
        return connection.fetch_all(sql)


def make(run: Run, *options: str) -> dict[str, Any]:
    made = run("create", URL, "--json", *options)
    assert made.status == 0, made.errors
    facts: dict[str, Any] = made.facts
    return facts


class TestTables:
    def test_a_secret_is_whole_where_there_is_little_room(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is told this once."""
        monkeypatch.setattr(console, "output", Console(width=40))
        made = run("create", URL)
        assert re.search(r"secret whsec_[A-Za-z0-9+/]{43}=$", made.output)

    def test_why_an_endpoint_is_disabled(self, run: Run) -> None:
        endpoint_id = make(run)["id"]
        run("change", endpoint_id, "--disable")
        listed = run("list").output
        assert "disabled_reason" in listed
        assert "administrator" in listed


class TestWebhooks:
    def test_from_the_first_to_the_last(self, run: Run, database: Database) -> None:
        made = make(run, "--type", "user.created", "--type", "user.deleted", "--description", "the shop")
        assert made["secret"].startswith("whsec_")
        endpoint_id = made["id"]
        listed = run("list", "--json").facts["items"]
        assert [(one["id"], one["types"], one["enabled"]) for one in listed] == [
            (endpoint_id, ["user.created", "user.deleted"], True)
        ]
        assert "secret" not in run("show", endpoint_id, "--json").facts
        changed = run("change", endpoint_id, "--disable", "--type", "*", "--json").facts
        assert (changed["enabled"], changed["types"], changed["url"]) == (False, ["*"], URL)
        assert run("change", endpoint_id, "--enable", "--json").facts["enabled"]
        rotated = run("rotate-secret", endpoint_id, "--yes", "--json").facts
        assert rotated["secret"] != made["secret"]
        assert rotated["previous_secret_until"]
        message_id = run("test", endpoint_id, "--json").facts["message_id"]
        [logged] = run("deliveries", endpoint_id, "--json").facts["items"]
        assert (logged["message_id"], logged["type"], logged["state"]) == (
            message_id,
            "webhook.test",
            "pending",
        )
        assert run("replay", endpoint_id, message_id, "--json").facts == {"message_id": message_id}
        assert run("delete", endpoint_id, "--yes", "--json").facts == {"deleted": endpoint_id}
        assert run("list", "--json").facts == {"items": [], "next_cursor": None}
        events = query(database, "SELECT event, operator, actor_id FROM audit_events ORDER BY id")
        assert [event["event"] for event in events] == [
            "webhook_created",
            "webhook_changed",
            "webhook_changed",
            "webhook_secret_rotated",
            "webhook_tested",
            "webhook_replayed",
            "webhook_deleted",
        ]
        assert {(event["operator"], event["actor_id"]) for event in events} == {("olga", None)}

    def test_tables_for_people(self, run: Run) -> None:
        endpoint_id = make(run)["id"]
        assert URL in run("list").output
        assert endpoint_id in run("show", endpoint_id).output
        run("test", endpoint_id)
        assert "webhook.test" in run("deliveries", endpoint_id).output

    def test_page_by_page(self, run: Run) -> None:
        made = [make(run)["id"] for _ in range(3)]
        first = run("list", "--limit", "2", "--json").facts
        second = run("list", "--limit", "2", "--cursor", first["next_cursor"], "--json").facts
        assert [one["id"] for one in first["items"] + second["items"]] == made[::-1]

    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (("create", "http://169.254.169.254/"), 1, "/url"),
            (("create", URL, "--type", "user.exploded"), 1, "/types"),
            (("show", str(uuid4())), 1, "nothing here"),
            (("show", "none"), 2, "UUID"),
            (("change", str(uuid4()), "--enable"), 1, "nothing here"),
            (("change", str(uuid4())), 2, "nothing to change"),
            (("delete", str(uuid4())), 2, "--yes"),
            (("delete", str(uuid4()), "--yes"), 1, "nothing here"),
            (("rotate-secret", str(uuid4())), 2, "--yes"),
            (("rotate-secret", str(uuid4()), "--yes"), 1, "nothing here"),
            (("deliveries", str(uuid4())), 1, "nothing here"),
            (("replay", str(uuid4()), str(uuid4())), 1, "nothing here"),
            (("test", str(uuid4())), 1, "nothing here"),
        ],
    )
    def test_what_is_refused(
        self, run: Run, database: Database, arguments: tuple[str, ...], status: int, said: str
    ) -> None:
        done = run(*arguments)
        assert (done.status, said in done.errors) == (status, True), done.errors
        assert query(database, "SELECT 1 FROM audit_events") == []

    def test_nothing_is_sent_to_one_that_is_disabled(self, run: Run) -> None:
        endpoint_id = make(run)["id"]
        run("change", endpoint_id, "--disable")
        refused = run("test", endpoint_id)
        assert (refused.status, "disabled" in refused.errors) == (1, True)


class TestRewrap:
    def test_secrets_of_endpoints_go_to_the_first_key(
        self, run: Run, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        endpoint_id = make(run)["id"]
        run("rotate-secret", endpoint_id, "--yes")
        monkeypatch.setenv("AUTH_SECRET_KEYS", f"another-0123456789-abcdefghijklmnop,{SECRET}")
        assert run("rewrap", "--json", group="keys").facts == {"rewrapped": 2, "unreadable": 0}
        assert run("rewrap", "--json", group="keys").facts == {"rewrapped": 0, "unreadable": 0}
        keys = open_secret_keys(load_settings())
        [row] = query(database, "SELECT secret, previous_secret FROM webhook_endpoints")
        for sealed in row.values():
            assert is_current(keys, SECRET_PURPOSE, bytes(sealed))

    def test_one_that_no_key_opens_is_said(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        make(run)
        monkeypatch.setenv("AUTH_SECRET_KEYS", "another-0123456789-abcdefghijklmnop")
        done = run("rewrap", "--json", group="keys")
        assert (done.status, done.facts) == (1, {"rewrapped": 0, "unreadable": 1})

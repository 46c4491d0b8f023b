"""auth-manager users: directly on the database, with the operator's name in the trail."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from auth_manager.database import Database, Row
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console

EMAIL = "person@example.com"
PASSWORD = "SecurePass123!"
NOBODY = "0191d6a0-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Run = Callable[..., Done]
Query = Callable[[str], list[Row]]


@pytest.fixture(autouse=True)
def _environment(
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    signing_keys: str,
    database: Database,  # noqa: ARG001 -- asked for its clean tables
) -> None:
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET_KEYS", "canary-0123456789-abcdefghijklmnop")
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)
    monkeypatch.setenv("SUDO_USER", "ann")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, without a terminal."""
    monkeypatch.setattr(console, "output", Console(width=300))
    monkeypatch.setattr(console, "errors", Console(width=300, stderr=True))

    def invoke(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["auth-manager", "users", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, " ".join(captured.out.split()), " ".join(captured.err.split()))

    return invoke


@pytest.fixture
def query(database: Database) -> Query:
    def fetch(sql: str) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql)

    return fetch


@pytest.fixture
def person(run: Run) -> str:
    """Somebody's id."""
    done = run("create", EMAIL, "--username", "person", "--verified", "--json")
    assert done.status == 0, done.errors
    return str(done.json["id"])


def open_session(query: Query, person: str) -> str:
    [row] = query(
        "INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at, authenticated_at,"
        f" amr, acr) VALUES (gen_random_uuid(), '{person}', now(), now(), now() + interval '1 day', now(),"
        " '{pwd}', 'aal1') RETURNING id"
    )
    return str(row["id"])


class TestCreate:
    def test_without_a_password(self, run: Run, query: Query) -> None:
        done = run(
            *("create", EMAIL, "--role", "admin", "--display-name", "P", "--locale", "fr"),
            *("--attributes", '{"team": 7}', "--json"),
        )
        assert (done.status, done.errors) == (0, "")
        shown = done.json
        assert (shown["roles"], shown["attributes"], shown["locale"]) == (["admin"], {"team": 7}, "fr")
        assert (shown["display_name"], shown["email_verified_at"]) == ("P", None)
        assert query("SELECT kind, recipient FROM outbox") == [{"kind": "reset_password", "recipient": EMAIL}]
        [event] = query("SELECT event, operator, actor_id, request_id FROM audit_events")
        assert (event["event"], event["operator"], event["actor_id"]) == ("account_created", "ann", None)
        assert event["request_id"].startswith("cli-")

    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (["no address"], 1, "/email"),
            (["x@example.com", "--role", "nonesuch"], 1, "no such role"),
            (["x@example.com", "--attributes", "[]"], 2, "a JSON object"),
            (["x@example.com", "--attributes", "{"], 2, "--attributes takes a JSON object"),
            (["x@example.com", "--attributes", "[" * 9999], 2, "--attributes takes a JSON object"),
            (["x@example.com", "--display-name", "\udcff"], 2, "argument 5 is not UTF-8"),
            ([EMAIL], 1, "exists"),
        ],
    )
    @pytest.mark.usefixtures("person")
    def test_what_is_refused(self, run: Run, arguments: list[str], status: int, said: str) -> None:
        done = run("create", *arguments)
        assert (done.status, done.output) == (status, "")
        assert said in done.errors


class TestListAndShow:
    def test_a_table_for_people(self, run: Run, person: str) -> None:
        done = run("list")
        assert done.status == 0
        assert person in done.output
        assert EMAIL in done.output

    def test_json_by_pages(self, run: Run, person: str) -> None:
        run("create", "other@example.com")
        first = run("list", "--limit", "1", "--json").json
        rest = run("list", "--limit", "1", "--json", "--cursor", first["next_cursor"]).json
        assert [page["items"][0]["email"] for page in (first, rest)] == ["other@example.com", EMAIL]
        assert rest["items"][0]["id"] == person
        assert rest["next_cursor"] is None

    @pytest.mark.usefixtures("person")
    def test_by_conditions(self, run: Run) -> None:
        for arguments, count in (
            (["--email", EMAIL.upper()], 1),
            (["--prefix", "per"], 1),
            (["--having-role", "admin"], 0),
            (["--status", "disabled"], 0),
            (["--status", "active", "--prefix", "x"], 0),
        ):
            assert len(run("list", "--json", *arguments).json["items"]) == count, arguments
        assert run("list", "--status", "asleep").status == 2

    def test_by_id_address_or_username(self, run: Run, person: str) -> None:
        for identifier in (person, EMAIL, EMAIL.upper(), "Person"):
            assert run("show", identifier, "--json").json["id"] == person
        assert EMAIL in run("show", "person").output

    @pytest.mark.parametrize("identifier", [NOBODY, "nobody@example.com", "nobody"])
    @pytest.mark.parametrize(
        "command",
        [["show"], ["sessions"], ["enable"], ["recover"], ["disable", "--yes"], ["delete", "--yes"],
         ["log-out", "--yes"], ["change", "--locale", "fr"]],
        ids=lambda command: command[0],
    )  # fmt: skip
    def test_nobody(self, run: Run, command: list[str], identifier: str) -> None:
        done = run(*command, identifier)
        assert (done.status, done.output) == (1, "")
        assert done.errors


class TestChange:
    def test_what_is_named(self, run: Run, person: str, query: Query) -> None:
        done = run("change", "person", "--display-name", "P", "--username", "", "--attributes", '{"a": 1}',
                   "--email", "new@example.com", "--verified", "--json")  # fmt: skip
        shown = done.json
        assert (shown["id"], shown["display_name"], shown["username"]) == (person, "P", None)
        assert (shown["attributes"], shown["email"]) == ({"a": 1}, "new@example.com")
        assert shown["email_verified_at"] is not None
        [event] = query("SELECT operator, details FROM audit_events WHERE event = 'account_changed'")
        assert event["operator"] == "ann"
        assert event["details"]["fields"] == [
            "attributes", "display_name", "email", "email_verified", "username",
        ]  # fmt: skip

    @pytest.mark.usefixtures("person")
    def test_nothing_named(self, run: Run) -> None:
        assert run("change", EMAIL) == Done(2, "", "Configuration: say what to change")


class TestDisable:
    def test_and_enable(self, run: Run, person: str, query: Query) -> None:
        open_session(query, person)
        assert run("disable", EMAIL, "--yes") == Done(0, f"disabled {person}", "")
        assert run("show", EMAIL, "--json").json["disabled_at"] is not None
        assert run("sessions", EMAIL, "--json").json["items"] == []
        assert run("enable", EMAIL) == Done(0, f"enabled {person}", "")
        assert run("show", EMAIL, "--json").json["disabled_at"] is None
        events = query("SELECT operator FROM audit_events WHERE event LIKE 'account_%abled'")
        assert [event["operator"] for event in events] == ["ann", "ann"]

    def test_the_last_administrator_stays(self, run: Run, query: Query) -> None:
        run("create", "admin@example.com", "--role", "admin")
        for command in ("disable", "delete"):
            done = run(command, "admin@example.com", "--yes")
            assert done == Done(1, "", "Somebody has to remain who may administer.")
        assert len(query("SELECT id FROM accounts WHERE disabled_at IS NULL")) == 1


class TestDelete:
    def test_nothing_is_left(self, run: Run, person: str, query: Query) -> None:
        assert run("delete", EMAIL, "--yes") == Done(0, f"erased {person}", "")
        assert query("SELECT id FROM accounts") == []
        [event] = query("SELECT account_id, operator FROM audit_events WHERE event = 'account_deleted'")
        assert event == {"account_id": UUID(person), "operator": "ann"}

    @pytest.mark.parametrize("command", [["delete"], ["disable"], ["log-out"]])
    def test_nobody_to_ask(self, run: Run, person: str, query: Query, command: list[str]) -> None:
        open_session(query, person)
        done = run(*command, EMAIL)
        assert done == Done(2, "", "Configuration: nobody can be asked here: say --yes to go ahead")
        assert query("SELECT disabled_at FROM accounts") == [{"disabled_at": None}]
        assert len(query("SELECT id FROM sessions WHERE ended_at IS NULL")) == 1


class TestRecover:
    @pytest.mark.usefixtures("person")
    def test_a_mail(self, run: Run, query: Query) -> None:
        assert run("recover", EMAIL).output.startswith("mailed ")
        assert len(query("SELECT id FROM outbox WHERE kind = 'reset_password'")) == 2


class TestSessions:
    def test_listed_and_ended(self, run: Run, person: str, query: Query) -> None:
        sessions = {open_session(query, person) for _ in range(3)}
        listed = run("sessions", EMAIL, "--json").json["items"]
        assert {session["id"] for session in listed} == sessions
        assert sessions.pop() in run("sessions", EMAIL).output
        one = listed[0]["id"]
        assert run("log-out", EMAIL, "--session", one, "--yes").status == 0
        assert run("log-out", EMAIL, "--session", one, "--yes").status == 1
        assert run("log-out", EMAIL, "--session", "x", "--yes").status == 2
        assert len(run("sessions", EMAIL, "--json").json["items"]) == 2
        assert run("log-out", EMAIL, "--yes", "--json").json == {"done": "logged out", "id": person}
        assert run("sessions", EMAIL, "--json").json["items"] == []


class TestBulk:
    def test_the_number_comes_first(self, run: Run, person: str, query: Query) -> None:
        run("create", "other@example.com")
        asked = run("bulk", "disable", "--all")
        assert asked.status == 2
        assert asked.errors.startswith("accounts: 2 Configuration: nobody can be asked")
        assert query("SELECT id FROM accounts WHERE disabled_at IS NOT NULL") == []
        done = run("bulk", "disable", "--user", EMAIL, "--yes", "--json")
        assert done.json == {"count": 1, "skipped": 0, "changed": 1, "done": True}
        assert done.errors == "accounts: 1"
        [row] = query("SELECT id FROM accounts WHERE disabled_at IS NOT NULL")
        assert str(row["id"]) == person
        [event] = query("SELECT operator, details FROM audit_events WHERE event = 'bulk_action'")
        assert (event["operator"], event["details"]["filter"]) == ("ann", ["ids"])

    def test_roles(self, run: Run, query: Query) -> None:
        for number in range(3):
            run("create", f"person{number}@example.com")
        done = run("bulk", "assign_role", "--role", "admin", "--prefix", "person", "--yes", "--json")
        assert done.json["changed"] == 3
        refused = run("bulk", "remove_role", "--role", "admin", "--having-role", "admin", "--yes")
        assert (refused.status, refused.errors) == (
            1,
            "accounts: 3 Somebody has to remain who may administer.",
        )
        assert len(query("SELECT 1 FROM account_roles")) == 3

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["disable"], "give conditions, or --all"),
            (["disable", "--all", "--prefix", "x"], "give conditions, or --all"),
            (["disable", "--role", "admin", "--all"], "need --role"),
            (["assign_role", "--all"], "need --role"),
            (["erase", "--all"], "erase"),
        ],
    )
    def test_what_says_nothing(self, run: Run, arguments: list[str], said: str) -> None:
        done = run("bulk", *arguments, "--yes")
        assert (done.status, done.output) == (2, "")
        assert said in done.errors

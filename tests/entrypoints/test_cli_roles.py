"""auth-manager roles: directly on the database, with the operator's name in the trail."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console

from auth_manager.database import Database, Row
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console

EMAIL = "person@example.com"
PASSWORD = "SecurePass123!"


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
    """Runs the command in this process."""
    monkeypatch.setattr(console, "output", Console(width=200))
    monkeypatch.setattr(console, "errors", Console(width=200, stderr=True))

    def invoke(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["auth-manager", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, captured.out, captured.err)

    return invoke


@pytest.fixture
def query(database: Database) -> Callable[[str], list[Row]]:
    def fetch(sql: str) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql)

    return fetch


def create_user(run: Run, *options: str, email: str = EMAIL) -> None:
    done = run("create-user", email, "--password-stdin", *options, stdin=f"{PASSWORD}\n")
    assert done.status == 0, done.errors


class TestRoles:
    def test_a_role_from_its_beginning_to_its_end(self, run: Run) -> None:
        made = run(
            *("roles", "create", "support", "--description", "Answers.", "--permission", "users:read"),
            *("--permission", "users:impersonate", "--claims", '{"plan": "gold"}', "--json"),
        )
        assert made.status == 0, made.errors
        role = made.json
        assert role["permissions"] == ["users:impersonate", "users:read"]
        assert (role["claims"], role["is_default"], role["is_built_in"]) == ({"plan": "gold"}, False, False)

        changed = run("roles", "change", "support", "--no-permissions", "--default", "--json").json
        assert changed == role | {
            "permissions": [],
            "is_default": True,
            "updated_at": changed["updated_at"],
        }
        assert run("roles", "show", "support", "--json").json == changed
        names = [one["name"] for one in run("roles", "list", "--json").json["items"]]
        assert names == ["admin", "support"]

        create_user(run)
        deleted = run("roles", "delete", "support", "--yes", "--json")
        assert deleted.json == {"deleted": "support", "holders": 1}
        assert run("roles", "show", "support").status == console.EXIT_REFUSED

    def test_tables_for_people(self, run: Run) -> None:
        assert run("roles", "create", "support").status == 0
        listed = run("roles", "list").output
        assert "support" in listed
        assert "admin" in listed
        assert run("roles", "delete", "support", "--yes").output == "deleted; 0 had it\n"

    def test_pages(self, run: Run) -> None:
        run("roles", "create", "support")
        first = run("roles", "list", "--limit", "1", "--json").json
        second = run("roles", "list", "--cursor", first["next_cursor"], "--json").json
        assert [one["name"] for one in (*first["items"], *second["items"])] == ["admin", "support"]
        assert second["next_cursor"] is None

    @pytest.mark.parametrize(
        "claims",
        [
            "[1]",
            "{",
            "plan",
            "[" * 9999,
            '{"a": NaN}',
            '{"a": 1e999}',
            '{"a": "\\u0000"}',
            '{"a": "\\ud800"}',
            '{"a": 1, "a": 2}',
            '{"a": ' + "[" * 32 + "]" * 32 + "}",
        ],
        ids=["list", "cut", "word", "deep", "nan", "infinite", "nul", "surrogate", "twice", "levels"],
    )
    def test_claims_that_are_no_object(self, run: Run, claims: str) -> None:
        done = run("roles", "create", "support", "--claims", claims)
        assert (done.status, done.output) == (console.EXIT_MISCONFIGURED, "")

    def test_permissions_and_none(self, run: Run) -> None:
        done = run("roles", "change", "admin", "--no-permissions", "--permission", "*")
        assert done.status == console.EXIT_MISCONFIGURED

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("create", "admin"), "exists"),
            (("create", "Support"), "/name"),
            (("create", "support", "--permission", "users:raed"), "/permissions"),
            (("create", "support", "--claims", '{"sub": 1}'), "reserved"),
            (("change", "admin", "--description", "x"), "built-in"),
            (("delete", "admin", "--yes"), "built-in"),
            (("delete", "nonesuch", "--yes"), "no such role"),
            (("grant", EMAIL, "admin"), "No account"),
        ],
    )
    def test_what_is_refused_says_why(self, run: Run, arguments: tuple[str, ...], says: str) -> None:
        done = run("roles", *arguments)
        assert (done.status, done.output) == (console.EXIT_REFUSED, "")
        assert says in done.errors

    def test_nobody_is_asked_where_nobody_is(self, run: Run) -> None:
        run("roles", "create", "support")
        create_user(run)
        assert run("roles", "delete", "support").status == console.EXIT_MISCONFIGURED
        assert run("roles", "revoke", EMAIL, "admin").status == console.EXIT_MISCONFIGURED
        assert run("roles", "show", "support").status == 0


class TestGrants:
    def test_given_and_taken(self, run: Run) -> None:
        run("roles", "create", "support")
        create_user(run)
        assert run("roles", "grant", EMAIL, "support", "--json").json["roles"] == ["support"]
        assert run("roles", "grant", EMAIL.upper(), "support", "--json").json["roles"] == ["support"]
        assert run("roles", "grant", EMAIL, "admin", "--json").json["roles"] == ["admin", "support"]
        assert run("roles", "revoke", EMAIL, "support", "--yes", "--json").json["roles"] == ["admin"]

    def test_the_last_administrator_stays(self, run: Run) -> None:
        create_user(run, "--admin")
        refused = run("roles", "revoke", EMAIL, "admin", "--yes")
        assert refused.status == console.EXIT_REFUSED
        create_user(run, "--admin", email="second@example.com")
        assert run("roles", "revoke", EMAIL, "admin", "--yes").status == 0

    def test_a_role_that_nobody_made(self, run: Run) -> None:
        create_user(run)
        for command in (("grant",), ("revoke", "--yes")):
            done = run("roles", *command, EMAIL, "nonesuch")
            assert done.status == console.EXIT_REFUSED
            assert "/roles" in done.errors

    def test_a_new_user_has_the_default_ones(self, run: Run) -> None:
        run("roles", "create", "member", "--default")
        create_user(run, "--admin")
        assert run("roles", "grant", EMAIL, "member", "--json").json["roles"] == ["admin", "member"]


class TestTrail:
    def test_it_names_the_operator(self, run: Run, query: Callable[[str], list[Row]]) -> None:
        create_user(run)
        for arguments in (
            ("create", "support"),
            ("change", "support", "--description", "x"),
            ("grant", EMAIL, "support"),
            ("revoke", EMAIL, "support", "--yes"),
            ("delete", "support", "--yes"),
        ):
            assert run("roles", *arguments).status == 0
        events = query("SELECT event, operator, actor_id, details FROM audit_events ORDER BY id")[1:]
        assert [event["event"] for event in events] == [
            "role_created",
            "role_changed",
            "roles_changed",
            "roles_changed",
            "role_deleted",
        ]
        assert {event["operator"] for event in events} == {"ann"}
        assert {event["actor_id"] for event in events} == {None}
        assert events[2]["details"] == {"added": ["support"], "removed": []}

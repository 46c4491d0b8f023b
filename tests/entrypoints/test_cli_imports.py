"""`auth-manager import`."""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from auth_manager.database import Database, Row
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console

SAMPLES = Path(__file__).parents[1] / "imports" / "samples"
SECRET = "canary-0123456789-abcdefghijklmnop"


HALF = '[{"email": "a@example.com"}, {"em'
CUT_OFF = '{"format": "auth-manager-export", "version": 1}\n{"email": "a@example.com"}\n'


@dataclass(frozen=True)
class Done:
    """A command that ended. White space is folded: tables and wrapping depend on the terminal."""

    status: int
    output: str
    errors: str


Run = Callable[..., Done]
Query = Callable[[str], list[Row]]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, database_url: str, signing_keys: str) -> None:
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET_KEYS", SECRET)
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database: Database,  # noqa: ARG001 -- its tables are empty
) -> Run:
    """Runs the command in this process."""
    monkeypatch.setattr(console, "output", Console(width=200))
    monkeypatch.setattr(console, "errors", Console(width=200, stderr=True))

    def invoke(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["auth-manager", "import", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        status = caught.value.code
        assert isinstance(status, int)
        return Done(status, " ".join(captured.out.split()), " ".join(captured.err.split()))

    return invoke


@pytest.fixture
def query(database: Database) -> Query:
    def fetch(sql: str) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql)

    return fetch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two users, the second one refused."""
    path = tmp_path / "users.jsonl"
    path.write_text('{"email": "a@example.com"}\n{"email": "nobody"}\n')
    return path


class TestImport:
    def test_what_became_of_a_file(self, run: Run, query: Query, file: Path) -> None:
        done = run(str(file), "--from", "json")
        assert (done.status, done.errors) == (0, "")
        assert done.output.startswith("2 records: 1 created, 1 refused")
        assert "email_invalid" in done.output
        rejects = file.with_name("users.jsonl.rejects.jsonl")
        assert done.output.endswith(f"the refused records are named in {rejects}")
        assert [json.loads(line)["record"] for line in rejects.read_text().splitlines()] == [2]
        assert rejects.stat().st_mode & 0o777 == 0o600
        assert [row["email"] for row in query("SELECT email FROM accounts")] == ["a@example.com"]
        [event] = query("SELECT operator, details FROM audit_events")
        assert event["operator"] == console.operating_system_user()
        assert event["details"]["count"] == 1

    def test_a_terminal_shows_how_far_it_is(
        self, run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(str(file), "--from", "json")  # `run` replaces the console: ours comes after
        terminal = Console(width=120, stderr=True, force_terminal=True, force_interactive=True)
        monkeypatch.setattr(console, "errors", terminal)
        monkeypatch.setattr(sys, "argv", ["auth-manager", "import", str(file), "--from", "json"])
        with pytest.raises(SystemExit):
            cli.main()
        shown = capsys.readouterr().err
        for part in ("2 records", "100%", "/s", "0:00:00"):
            assert part in shown

    def test_as_json(self, run: Run, file: Path, tmp_path: Path) -> None:
        rejects = tmp_path / "refused"
        done = run(str(file), "--from", "json", "--json", "--rejects", str(rejects))
        assert json.loads(done.output) == {
            "records": 2,
            "created": 1,
            "refused": 1,
            "reasons": {"email_invalid": 1},
            "usernames_dropped": 0,
            "resumed_at": 0,
            "dry_run": False,
            "rejects": str(rejects),
            "unreadable": None,
        }

    def test_a_dry_run_leaves_nothing(self, run: Run, query: Query, file: Path) -> None:
        done = run(str(file), "--from", "json", "--dry-run")
        assert done.output.startswith("2 records: 1 would be created, 1 refused")
        assert query("SELECT id FROM accounts") == []
        assert list(file.parent.iterdir()) == [file]

    def test_again_there_is_nothing_new(self, run: Run, file: Path) -> None:
        run(str(file), "--from", "json")
        done = run(str(file), "--from", "json", "--json")
        assert (done.status, done.errors) == (1, "No account was created: every record was refused.")
        again = json.loads(done.output)
        assert (again["created"], again["reasons"]) == (0, {"email_invalid": 1, "email_taken": 1})

    def test_options_of_systems(self, run: Run, query: Query, tmp_path: Path) -> None:
        firebase = ["--firebase-hash-config", str(SAMPLES / "firebase-hash-config.txt")]
        target = ["--json", "--rejects", str(tmp_path / "refused")]
        done = run(str(SAMPLES / "firebase.json"), "--from", "firebase", *firebase, *target)
        assert json.loads(done.output)["created"] == 3
        mapping = ["--mapping", str(SAMPLES / "plain-mapping.json")]
        done = run(str(SAMPLES / "plain.csv"), "--from", "csv", *mapping, *target)
        assert json.loads(done.output)["reasons"] == {"email_taken": 1}
        done = run(str(SAMPLES / "keycloak.json"), "--from", "keycloak", "--create-roles", "--lazy", *target)
        assert query("SELECT name FROM roles WHERE NOT is_built_in") == [{"name": "editor"}]

    def test_no_record_at_all_looks_like_a_mistake(self, run: Run) -> None:
        done = run(str(SAMPLES / "keycloak.json"), "--from", "cognito", "--dry-run")
        assert (done.status, done.errors) == (1, "There is no record in the file: is it another system's?")

    def test_what_was_refused_in_a_dry_run_is_no_failure(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "users.jsonl"
        file.write_text("x\n")
        assert run(str(file), "--from", "json", "--dry-run").status == 0
        assert run(str(file), "--from", "json").status == 1

    def test_what_is_left_out_on_request(self, run: Run, query: Query, tmp_path: Path) -> None:
        file = tmp_path / "users.jsonl"
        file.write_text('{"email": "a@example.com", "username": "John Smith", "roles": ["ADMIN"]}\n')
        assert run(str(file), "--from", "json").status == 1
        done = run(str(file), "--from", "json", "--ignore-roles", "--drop-usernames")
        assert done.output.endswith("1 of them without the username that they had")
        assert query("SELECT username FROM accounts") == [{"username": None}]

    @pytest.mark.parametrize(
        ("content", "options", "records", "reason", "before"),
        [
            (HALF, [], 1, "it is not JSON after record 1 of `item`", "What came before it is imported."),
            (HALF, ["--dry-run"], 1, "it is not JSON after record 1 of `item`", "This was a dry run."),
            ('[{"em', [], 0, "it is not JSON after record 0 of `item`", "Nothing of it is imported."),
            (CUT_OFF, [], 0, "the export is cut off: it has no trailer", "Nothing of it is imported."),
        ],
        ids=["half", "dry", "start", "own"],
    )
    def test_a_file_that_breaks_off(
        self, run: Run, query: Query, tmp_path: Path, content: str, options: list[str], records: int,
        reason: str, before: str,
    ) -> None:  # fmt: skip
        file = tmp_path / "users.json"
        file.write_text(content)
        for _ in range(2):  # the second run goes on where the first one was, and knows what that created
            done = run(str(file), "--from", "json", "--json", *options)
            where = " to its end" if records else ""
            assert (done.status, done.errors) == (1, f"The file cannot be read{where}: {reason}. {before}")
            facts = json.loads(done.output)
            assert (facts["records"], facts["created"]) == (records, records)
            assert facts["unreadable"] == reason
        assert len(query("SELECT id FROM accounts")) == (0 if options else records)

    @pytest.mark.parametrize(
        "options",
        [
            ["--from", "auth0", "--mapping", str(SAMPLES / "plain-mapping.json")],
            ["--from", "json", "--firebase-hash-config", str(SAMPLES / "firebase-hash-config.txt")],
            ["--from", "json", "--mapping", str(SAMPLES / "plain.csv")],
            ["--from", "firebase", "--firebase-hash-config", str(SAMPLES / "plain.csv")],
            ["--from", "json", "--rejects", "FILE"],
            ["--from", "json", "--rejects", "/dev/null"],
            ["--from", "json", "--rejects", "/nowhere/rejects"],
            ["--from", "json", "--rejects", "/dev/null/rejects"],
            ["--from", "json", "--mapping", "/"],
            ["--from", "firebase", "--firebase-hash-config", "/"],
            ["--from", "json", "--ignore-roles", "--create-roles"],
            ["--from", "json", "--ignore-roles", "--administrators"],
            ["--from", "nowhere"],
            [],
        ],
        ids=["mapping", "config", "no-mapping", "no-config", "itself", "device",
             "no-directory", "below-a-device", "mapping-directory", "config-directory", "create",
             "administer", "system", "no-system"],
    )  # fmt: skip
    def test_wrong_arguments_are_refused(self, run: Run, file: Path, options: list[str]) -> None:
        before = file.read_text()
        done = run(str(file), *(str(file) if option == "FILE" else option for option in options))
        assert (done.status, done.output) == (2, "")
        assert file.read_text() == before

    def test_a_pipe_is_refused(self, run: Run, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        done = run(str(tmp_path / "pipe"), "--from", "json")
        assert (done.status, done.output) == (2, "")
        assert "it has to be read more than once" in done.errors

    def test_a_database_that_is_away(self, run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_DATABASE_URL", "postgresql://auth:canary@127.0.0.1:1/auth")
        done = run(str(file), "--from", "json")
        assert (done.status, done.errors) == (1, "The database is not available right now.")

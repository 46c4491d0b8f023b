"""`auth-manager backup` and `auth-manager restore`."""

import io
import json
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from rich.console import Console
from tests.backups.conftest import contents, run_sql

from auth_manager.database import Database
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console

SECRET = "canary-0123456789-abcdefghijklmnop"
PASSWORD = "SecurePass123!"


FAILS_IN_ANALYZE = """
CREATE FUNCTION public.fails_in_analyze(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF starts_with(current_query(), 'ANALYZE') THEN
        RAISE 'no statistics today';
    END IF;
    RETURN $1;
END $$;
CREATE INDEX fails_in_analyze ON accounts (public.fails_in_analyze(email))
"""
"""An expression that PostgreSQL computes for each row that it looks at."""


@dataclass(frozen=True)
class Done:
    """A command that ended; `json` is what it printed, where that is JSON."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def _environment(
    monkeypatch: pytest.MonkeyPatch, database_url: str, signing_keys: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET_KEYS", SECRET)
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)
    monkeypatch.setenv("SUDO_USER", "olga")
    monkeypatch.chdir(tmp_path)


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
        status = caught.value.code
        assert isinstance(status, int)
        return Done(status, captured.out, " ".join(captured.err.split()))

    return invoke


@pytest.fixture
def user(database: Database, run: Run) -> None:
    assert database.round_trips == 0
    done = run("create-user", "anna@example.com", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert done.status == 0


@pytest.fixture
def empty_database(server_url: str) -> Iterator[str]:
    name = f"auth_manager_cli_{secrets.token_hex(4)}"
    run_sql(server_url, f"CREATE DATABASE {name}")
    yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.usefixtures("user")
class TestBackup:
    def test_by_default_it_goes_into_a_directory_of_its_own(self, run: Run, tmp_path: Path) -> None:
        done = run("backup", "--json")
        assert (done.status, done.errors) == (0, "")
        assert done.json["stored_in"] == str(tmp_path / "backups")
        assert done.json["deleted"] == []
        assert (tmp_path / "backups" / done.json["id"] / "manifest.json").exists()
        assert stat.S_IMODE((tmp_path / "backups").stat().st_mode) == 0o700

    @pytest.mark.parametrize("form", ["{0}", "file://{0}"])
    def test_it_goes_where_the_setting_says(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        monkeypatch.setenv("AUTH_BACKUP_URL", form.format(tmp_path / "here"))
        assert run("backup").status == 0
        assert [item["complete"] for item in run("backup", "list", "--json").json["items"]] == [True]
        assert len(list((tmp_path / "here").iterdir())) == 1

    @pytest.mark.parametrize("url", ["s3://", "ftp://x/y", "file://host/x", "s3://bucket/x?y"])
    def test_a_place_that_is_none(self, run: Run, url: str) -> None:
        done = run("backup", "--to", url)
        assert done.status == 2
        assert done.errors.startswith("Configuration: AUTH_BACKUP_URL: ")

    def test_the_retention_is_that_of_the_settings(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DAILY", "WEEKLY", "MONTHLY"):
            monkeypatch.setenv(f"AUTH_BACKUP_KEEP_{name}", "1" if name == "DAILY" else "0")
        first = run("backup", "--json").json["id"]
        second = run("backup", "--json").json
        assert second["deleted"] == [first]
        assert len(run("backup", "list", "--json").json["items"]) == 1

    def test_a_file_in_the_way(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "backups").write_text("x")
        done = run("backup")
        assert done.status == 1
        assert done.errors.startswith(f"Backup: {tmp_path / 'backups'}: File exists")

    def test_a_database_that_is_away(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_DATABASE_URL", "postgresql://auth:canary@127.0.0.1:1/auth")
        done = run("backup")
        assert (done.status, done.errors) == (1, "The database is not available right now.")


@pytest.mark.usefixtures("user")
class TestList:
    def test_one_that_is_not_complete_is_shown_as_such(self, run: Run, tmp_path: Path) -> None:
        first = run("backup", "--json").json["id"]
        (tmp_path / "backups" / first / "manifest.json").unlink()
        [item] = run("backup", "list", "--json").json["items"]
        assert (item["id"], item["complete"]) == (first, False)
        done = run("backup", "verify", first)
        assert done.status == 1
        assert "was not completed" in done.errors

    @pytest.mark.parametrize("command", ["list", "verify"])
    @pytest.mark.parametrize("option", [["--to", "elsewhere"], ["--json"]], ids=["to", "json"])
    def test_what_belongs_elsewhere_is_refused(self, run: Run, command: str, option: list[str]) -> None:
        """Rather than left out without a word: the backups of another place would be listed."""
        assert run("backup").status == 0
        done = run("backup", *option, command)
        assert (done.status, done.output) == (2, "")
        assert done.errors == f"Configuration: say --from and --json after `backup {command}`"

    def test_there_is_none(self, run: Run) -> None:
        assert run("backup", "list", "--json").json == {"items": [], "next_cursor": None}
        assert run("backup", "verify").status == 1


@pytest.mark.usefixtures("user")
class TestVerify:
    @pytest.mark.parametrize("options", [[], ["--checksums-only"]], ids=["restored", "checksums"])
    def test_an_intact_one(self, run: Run, options: list[str]) -> None:
        made = run("backup", "--json").json
        done = run("backup", "verify", "--json", *options)
        assert (done.status, done.errors) == (0, "")
        assert (done.json["id"], done.json["intact"]) == (made["id"], True)
        assert done.json["restored"] == (not options)

    @pytest.mark.parametrize("options", [[], ["--checksums-only"]], ids=["restored", "checksums"])
    def test_a_damaged_one(self, run: Run, tmp_path: Path, options: list[str]) -> None:
        made = run("backup", "--json").json
        part = tmp_path / "backups" / made["id"] / "accounts-00001.copy.gz"
        part.write_bytes(part.read_bytes()[:-1])
        done = run("backup", "verify", *options)
        assert (done.status, done.output) == (3, "")
        assert done.errors.startswith(f"Backup: {made['id']}/accounts-00001.copy.gz is cut short")


@pytest.mark.usefixtures("user")
class TestRestore:
    def test_into_an_empty_database(
        self, run: Run, database_url: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = run("backup", "--json").json
        monkeypatch.setenv("AUTH_DATABASE_URL", empty_database)
        done = run("restore", "--yes", "--json")
        assert (done.status, done.json["id"]) == (0, made["id"])
        assert "AUTH_SECRET_KEYS must have the keys of the backup's time" in done.errors
        assert contents(empty_database)["accounts"] == contents(database_url)["accounts"]
        [event] = run_sql(empty_database, "SELECT operator FROM audit_events WHERE event = 'restored'")
        assert event == {"operator": "olga"}

    def test_what_is_there_stays_without_force(self, run: Run, database_url: str) -> None:
        run("backup")
        run_sql(database_url, "UPDATE accounts SET display_name = 'changed since' RETURNING 1")
        before = contents(database_url)
        done = run("restore", "latest", "--yes")
        assert done.status == 1
        assert "the database is not empty" in done.errors
        assert contents(database_url) == before
        assert run("restore", "latest", "--yes", "--force").status == 0
        assert contents(database_url)["accounts"] != before["accounts"]

    def test_when_only_the_analysis_fails_it_is_restored(self, run: Run, database_url: str) -> None:
        run("backup")
        run_sql(database_url, "UPDATE accounts SET display_name = 'changed since' RETURNING 1")
        run_sql(database_url, FAILS_IN_ANALYZE)
        try:
            done = run("restore", "--yes", "--force", "--json")
        finally:
            run_sql(database_url, "DROP FUNCTION public.fails_in_analyze CASCADE")
        assert done.status == 0
        assert "It is restored. ANALYZE failed (PostgreSQL: no statistics today)" in done.errors
        assert run_sql(database_url, "SELECT display_name FROM accounts") == [{"display_name": None}]

    def test_somebody_has_to_say_yes(self, run: Run, database_url: str) -> None:
        run("backup")
        before = contents(database_url)
        done = run("restore", "latest", "--force")
        assert (done.status, done.output) == (2, "")
        assert "say --yes" in done.errors
        assert contents(database_url) == before

    def test_only_a_database_and_no_migrations_are_needed(
        self, run: Run, empty_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("backup")
        monkeypatch.setenv("AUTH_DATABASE_URL", empty_database)
        assert run("restore", "--yes").status == 0
        assert run("migrate", "status").status == 0

"""`auth-manager export`, and back by `auth-manager import`."""

import io
import json
import os
import resource
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyrage
import pytest
from rich.console import Console
from tests.backups.conftest import Service, run_sql

from auth_manager.app import build_resources
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console
from auth_manager.migrate import apply_migrations
from auth_manager.resources import Resources
from auth_manager.settings import Settings, load_settings

SECRET = "0123456789abcdefghijklmnopqrstuvwxyz-test-only"


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    output: str
    errors: str


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
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs the command in this process."""
    monkeypatch.setattr(console, "output", Console(width=200))
    monkeypatch.setattr(console, "errors", Console(width=200, stderr=True))

    def invoke(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["auth-manager", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capfdbinary.readouterr()
        status = caught.value.code
        assert isinstance(status, int)
        return Done(status, captured.out.decode(), " ".join(captured.err.decode().split()))

    return invoke


@pytest.fixture
def service(resources: Resources) -> Iterator[Service]:
    service = Service(resources)
    service.create("anna@example.com")
    service.create("boss@example.com", "admin")
    yield service
    service.client.close()


@pytest.mark.usefixtures("service")
class TestExport:
    def test_a_file_for_its_owner_alone(self, run: Run, tmp_path: Path, database_url: str) -> None:
        done = run("export", "users.jsonl", "--json")
        assert (done.status, done.errors) == (0, "")
        assert json.loads(done.output)["users"] == 2
        assert stat.S_IMODE((tmp_path / "users.jsonl").stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["users.jsonl"]
        [event] = run_sql(database_url, "SELECT operator FROM audit_events WHERE event = 'exported'")
        assert event == {"operator": "olga"}

    def test_standard_output_has_the_export_and_nothing_else(self, run: Run) -> None:
        done = run("export")
        assert (done.status, len(done.output.splitlines())) == (0, 4)
        assert json.loads(done.output.splitlines()[-1])["end"] is True
        assert "users=2" in done.errors

    def test_it_is_encrypted_on_its_way(self, run: Run, tmp_path: Path) -> None:
        identity = pyrage.x25519.Identity.generate()
        assert run("export", "users.age", "--encrypt-to", str(identity.to_public())).status == 0
        encrypted = (tmp_path / "users.age").read_bytes()
        assert b"example.com" not in encrypted
        assert b"anna@example.com" in pyrage.decrypt(encrypted, [identity])

    @pytest.mark.parametrize("key", ["age1x", "comments", "/dev/null", ""])
    @pytest.mark.parametrize("file", ["users.age", "-"])
    def test_a_bad_key_exports_nothing(
        self, run: Run, tmp_path: Path, database_url: str, key: str, file: str
    ) -> None:
        """Nor in plain text, where a file of keys has none."""
        (tmp_path / "comments").write_text("# public key: age1x\n")
        done = run("export", file, "--encrypt-to", key)
        assert (done.status, done.output) == (2, "")
        assert done.errors.startswith("Configuration: --encrypt-to: ")
        assert [path.name for path in tmp_path.iterdir()] == ["comments"]
        assert run_sql(database_url, "SELECT 1 FROM audit_events WHERE event = 'exported'") == []

    def test_a_file_that_is_there_stays_unless_somebody_says_yes(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "users.jsonl").write_text("precious")
        assert run("export", "users.jsonl").status == 2
        assert (tmp_path / "users.jsonl").read_text() == "precious"
        assert run("export", "users.jsonl", "--yes").status == 0
        assert "precious" not in (tmp_path / "users.jsonl").read_text()

    def test_a_place_that_is_none(self, run: Run) -> None:
        done = run("export", "missing/users.jsonl", "--yes")
        assert done.status == 1
        assert done.errors.startswith("missing/users.jsonl: No such file or directory; the export is not")
        done = run("export", ".", "--yes")
        assert (done.status, done.errors) == (2, "Configuration: . is a directory; name a file")

    def test_a_link_stays_and_leads_to_the_export(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "users.jsonl").symlink_to("elsewhere/users.jsonl")
        for options in ([], ["--yes"]):
            assert run("export", "users.jsonl", *options).status == 0
            assert (tmp_path / "users.jsonl").is_symlink()
            assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["users.jsonl"]
            assert b'"end":true' in (tmp_path / "elsewhere" / "users.jsonl").read_bytes()

    def test_a_device_or_a_pipe_is_refused_and_stays(
        self, run: Run, tmp_path: Path, database_url: str
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("pipe")
        terminal = os.openpty()
        for name in ("pipe", "link", os.ttyname(terminal[1])):
            done = run("export", name, "--yes")
            assert (done.status, done.output) == (2, "")
            assert done.errors.startswith(f"Configuration: {name} is no regular file; `-` is standard output")
        for descriptor in terminal:
            os.close(descriptor)
        assert (tmp_path / "pipe").is_fifo()
        assert (tmp_path / "link").is_symlink()
        assert run_sql(database_url, "SELECT 1 FROM audit_events WHERE event = 'exported'") == []

    def test_the_device_of_standard_output_is_standard_output(self, run: Run) -> None:
        done = run("export", "/dev/stdout")
        assert (done.status, len(done.output.splitlines())) == (0, 4)

    @pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
    def test_a_full_disk_leaves_nothing_behind(
        self, tmp_path: Path, database_url: str, *, encrypted: bool
    ) -> None:
        run_sql(
            database_url,
            """
            INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at, created_at,
                                  updated_at)
            SELECT gen_random_uuid(), n, n, '!', now(), now(), now() FROM generate_series(1, 2000) AS n
            RETURNING 1
            """,
        )
        options = ["--encrypt-to", str(pyrage.x25519.Identity.generate().to_public())] if encrypted else []
        ended = subprocess.run(
            [sys.executable, "-m", "auth_manager.entrypoints.cli", "export", "users", *options],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
            env=os.environ | {"COVERAGE_PROCESS_START": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        assert "users: File too large; the export is not complete" in ended.stderr
        assert list(tmp_path.iterdir()) == []


class TestThereAndBack:
    """From one database into another, on the command line."""

    def test_everybody_signs_in_there_as_here(
        self,
        run: Run,
        service: Service,
        server_url: str,
        monkeypatch: pytest.MonkeyPatch,
        make_settings: Callable[..., Settings],
        database_url: str,
    ) -> None:
        app = service.enrol("boss@example.com")
        assert run("export", "users.jsonl").status == 0
        name = f"auth_manager_there_{secrets.token_hex(4)}"
        run_sql(server_url, f"CREATE DATABASE {name}")
        url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
        apply_migrations(url)
        there = Service(build_resources(make_settings(database_url=url)))
        try:
            monkeypatch.setenv("AUTH_DATABASE_URL", url)
            done = run("import", "users.jsonl", "--from", "json", "--json")
            assert (done.status, json.loads(done.output)["created"]) == (0, 2), done
            assert json.loads(done.output)["refused"] == 0
            assert rows_of(url) == rows_of(database_url)
            assert there.log_in("anna@example.com").status_code == 200
            assert there.log_in_with("boss@example.com", app).status_code == 200
            code = app.recovery_codes[0]
            assert there.log_in_by_recovery_code("boss@example.com", code).status_code == 200
        finally:
            there.client.close()
            there.resources.database.close()
            run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")

    def test_a_file_that_was_cut_is_said_to_be(self, run: Run, service: Service, tmp_path: Path) -> None:
        assert service.log_in("anna@example.com").status_code == 200
        assert run("export", "users.jsonl").status == 0
        lines = (tmp_path / "users.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "users.jsonl").write_bytes(b"".join(lines[:-1]))
        done = run("import", "users.jsonl", "--from", "json")
        assert done.status == 1
        assert "cut off" in done.errors


def rows_of(url: str) -> Any:
    accounts = run_sql(
        url,
        """
        SELECT id, email, email_verified_at, username, display_name, locale, attributes, password_hash,
               disabled_at, created_at,
               ARRAY(SELECT role FROM account_roles WHERE account_id = id ORDER BY role) AS roles,
               ARRAY(SELECT encode(code_hash, 'hex') FROM recovery_codes
                     WHERE account_id = id ORDER BY 1) AS codes
        FROM accounts ORDER BY id
        """,
    )
    assert len(accounts) == 2
    return accounts


def test_the_settings_of_these_tests_are_those_of_the_command() -> None:
    """Or else the other database's keys would not be the same."""
    assert [key.get_secret_value() for key in load_settings().secret_keys] == [SECRET]

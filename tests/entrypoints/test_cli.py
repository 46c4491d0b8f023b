"""The `auth-manager` command."""

import getpass
import io
import json
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from pydantic import SecretStr
from rich.console import Console

from auth_manager import __version__
from auth_manager.database import Database, Row
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console
from auth_manager.factors import totp
from auth_manager.migrate import shipped_migrations
from auth_manager.sealed_values import seal
from auth_manager.secret_keys import SecretKeys
from auth_manager.settings import load_settings
from auth_manager.signing_keys import load_key_set

SECRET = "canary-0123456789-abcdefghijklmnop"
PASSWORD = "SecurePass123!"

Query = Callable[..., list[Row]]


@dataclass(frozen=True)
class Done:
    """A command that ended. White space is folded: tables and wrapping depend on the terminal."""

    status: int
    output: str
    errors: str


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, database_url: str, signing_keys: str) -> None:
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET_KEYS", SECRET)
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)


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
        return Done(status, " ".join(captured.out.split()), " ".join(captured.err.split()))

    return invoke


@pytest.fixture
def query(database: Database) -> Query:
    def fetch(sql: str) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql)

    return fetch


class TestVersionAndSettings:
    def test_version(self, run: Run) -> None:
        assert run("version") == Done(0, __version__, "")

    def test_settings_are_shown_without_secrets(self, run: Run, database_url: str, signing_keys: str) -> None:
        done = run("settings")
        assert done.status == 0
        for name in ("AUTH_PUBLIC_URL", "AUTH_DATABASE_URL", "AUTH_REFRESH_GRACE"):
            assert name in done.output
        assert '"https://auth.example.com"' in done.output
        assert "**********" in done.output
        password = urlsplit(database_url).password
        for secret in (SECRET, password, json.loads(signing_keys)["keys"][0]["d"][:20]):
            assert secret
            assert secret not in done.output

    @pytest.mark.parametrize(
        "command", [["settings"], ["serve"], ["unlock", "x"], ["create-user", "a@example.com"]]
    )
    def test_a_bad_setting_is_named_without_its_value(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]
    ) -> None:
        monkeypatch.setenv("AUTH_SECRET_KEYS", "canary-short")
        monkeypatch.setattr(getpass, "getpass", lambda _prompt: PASSWORD)
        done = run(*command)
        assert done == Done(2, "", "Configuration: AUTH_SECRET_KEYS: a key is under 32 bytes")

    def test_help_shows_no_values(self, run: Run, database_url: str) -> None:
        done = run("migrate", "--help")
        assert (done.status, "AUTH_DATABASE_URL" in done.output) == (0, True)
        assert str(urlsplit(database_url).password) not in done.output


class TestMigrate:
    @pytest.fixture
    def empty_database(self, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A database without a schema, in AUTH_DATABASE_URL."""
        name = f"auth_manager_cli_{secrets.token_hex(4)}"
        server = Database(server_url, deadline=30)
        with server.one_trip() as connection:
            connection.add(f"CREATE DATABASE {name}")
        monkeypatch.setenv("AUTH_DATABASE_URL", urlsplit(server_url)._replace(path=f"/{name}").geturl())
        yield
        with server.one_trip() as connection:
            connection.add(f"DROP DATABASE {name} WITH (FORCE)")
        server.close()

    @pytest.mark.usefixtures("empty_database")
    def test_it_applies_what_is_missing_once(self, run: Run) -> None:
        before = run("migrate", "status")
        assert (before.status, before.output.count("pending")) == (1, len(shipped_migrations()))
        applied = run("migrate")
        assert applied.status == 0
        assert applied.output.startswith("applied 0001_accounts applied 0002_sessions applied 0003_security")
        assert run("migrate") == Done(0, "nothing to do", "")
        after = run("migrate", "status")
        assert (after.status, after.output.count("pending")) == (0, 0)

    def test_only_the_database_is_needed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AUTH_PUBLIC_URL", "AUTH_SECRET_KEYS", "AUTH_SIGNING_KEYS"):
            monkeypatch.delenv(name)
        assert run("migrate").status == 0
        monkeypatch.delenv("AUTH_DATABASE_URL")
        assert run("migrate") == Done(2, "", "Configuration: AUTH_DATABASE_URL is not set")

    @pytest.mark.parametrize("command", [["migrate"], ["migrate", "status"]])
    def test_a_database_that_is_away(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]
    ) -> None:
        monkeypatch.setenv("AUTH_DATABASE_URL", "postgresql://auth:canary@127.0.0.1:1/auth")
        assert run(*command) == Done(1, "", "The database is not available right now.")

    def test_a_schema_that_is_not_ours_to_change(self, run: Run, query: Query) -> None:
        query("UPDATE schema_migrations SET checksum = 'x' || checksum WHERE version = 2 RETURNING 1")
        try:
            done = run("migrate")
        finally:
            query("UPDATE schema_migrations SET checksum = substr(checksum, 2) WHERE version = 2 RETURNING 1")
        assert (done.status, done.output) == (1, "")
        assert done.errors.startswith("Migration: 0002_sessions.sql is not the 0002_sessions.sql")


class TestGenerateKeys:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_the_printed_lines_are_settings(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, algorithm: str
    ) -> None:
        done = run("keys", "generate", "--algorithm", algorithm)
        assert done.status == 0
        signing_keys, secret_key = done.output.split("' AUTH_SECRET_KEYS='")
        monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys.removeprefix("AUTH_SIGNING_KEYS='"))
        monkeypatch.setenv("AUTH_SECRET_KEYS", secret_key.removesuffix("'"))
        monkeypatch.setenv("AUTH_SIGNING_ALGORITHM", algorithm)
        key_set = load_key_set(load_settings())
        assert key_set.current.algorithm == algorithm

    def test_files_are_for_the_owner_alone(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        directory = tmp_path / "made" / "keys"
        done = run("keys", "generate", "--directory", str(directory))
        assert done.status == 0
        files = [directory / "signing-keys.json", directory / "secret-keys"]
        assert done.output == " ".join(f"wrote {file}" for file in files)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        monkeypatch.delenv("AUTH_SIGNING_KEYS")
        monkeypatch.setenv("AUTH_SIGNING_KEYS_FILE", str(files[0]))
        monkeypatch.setenv("AUTH_SECRET_KEYS", files[1].read_text().strip())
        assert load_key_set(load_settings()).current.algorithm == "RS256"

    @pytest.mark.parametrize("existing", ["signing-keys.json", "secret-keys"])
    def test_nothing_is_overwritten(self, run: Run, tmp_path: Path, existing: str) -> None:
        (tmp_path / existing).write_text("precious")
        done = run("keys", "generate", "--algorithm", "ES256", "--directory", str(tmp_path))
        assert done.status != 0
        assert existing in done.errors
        assert (tmp_path / existing).read_text() == "precious"
        assert [path.name for path in tmp_path.iterdir()] == [existing]


class TestCreateUser:
    @pytest.mark.usefixtures("database")
    def test_an_admin_with_a_password_from_standard_input(self, run: Run, query: Query) -> None:
        done = run(
            "create-user", "boss@example.com", "--username", "boss", "--admin", "--password-stdin",
            stdin=f"{PASSWORD}\n",
        )  # fmt: skip
        assert (done.status, done.errors) == (0, "")
        [account] = query("SELECT id, email, username, email_verified_at FROM accounts")
        assert done.output == f"created {account['id']}"
        assert (account["email"], account["username"]) == ("boss@example.com", "boss")
        assert account["email_verified_at"] is not None
        assert query("SELECT role FROM account_roles") == [{"role": "admin"}]
        [event] = query("SELECT event, address, operator, request_id FROM audit_events")
        assert (event["event"], event["address"]) == ("account_created", None)
        assert event["operator"] == getpass.getuser()
        assert event["request_id"].startswith("cli-")

    def test_the_password_can_be_typed_twice(
        self, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(getpass, "getpass", lambda _prompt: PASSWORD)
        assert run("create-user", "user@example.com").status == 0
        assert query("SELECT role FROM account_roles") == []

    def test_two_typed_passwords_must_agree(
        self, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(getpass, "getpass", lambda prompt: PASSWORD + prompt)
        done = run("create-user", "user@example.com")
        assert done.status != 0
        assert "The passwords differ." in done.errors
        assert query("SELECT id FROM accounts") == []

    def test_what_is_taken_or_weak_is_said(self, run: Run, query: Query) -> None:
        create = ("create-user", "user@example.com", "--password-stdin")
        assert run(*create, stdin=PASSWORD).status == 0
        assert run(*create, stdin=PASSWORD) == Done(1, "", "An account with this e-mail address exists.")
        weak = run("create-user", "other@example.com", "--password-stdin", stdin="short")
        assert (weak.status, weak.output) == (1, "")
        assert "/password A password has at least 12 characters." in weak.errors
        assert len(query("SELECT id FROM accounts")) == 1


class TestJson:
    """What says a sentence says the same as one document."""

    def test_each_of_them(self, run: Run, query: Query, tmp_path: Path) -> None:
        created = run("create-user", "user@example.com", "--json", "--password-stdin", stdin=PASSWORD)
        [account] = query("SELECT id FROM accounts")
        assert json.loads(created.output) == {"id": str(account["id"])}
        assert json.loads(run("unlock", "user@example.com", "--json").output) == {
            "unlocked": "user@example.com"
        }
        assert json.loads(run("reset-mfa", "user@example.com", "--json").output) == {
            "reset": "user@example.com"
        }
        invited = json.loads(run("invite", "other@example.com", "--json").output)
        assert [invited["request"]] == [str(row["id"]) for row in query("SELECT id FROM one_time_secrets")]
        assert json.loads(run("migrate", "--json").output) == {"applied": []}
        status = json.loads(run("migrate", "status", "--json").output)
        assert [row["version"] for row in status["items"]][:2] == ["0001", "0002"]
        assert json.loads(run("version", "--json").output) == {"version": __version__}
        assert json.loads(run("settings", "--json").output)["AUTH_AUDIENCE"] == "auth-manager"
        assert json.loads(run("keys", "rewrap", "--json").output) == {"rewrapped": 0, "unreadable": 0}
        made = json.loads(run("keys", "generate", "--algorithm", "ES256", "--json").output)
        assert json.loads(made["AUTH_SIGNING_KEYS"])["keys"][0]["alg"] == "ES256"
        wrote = json.loads(run("keys", "generate", "--directory", str(tmp_path / "k"), "--json").output)
        assert [Path(name).name for name in wrote["wrote"]] == ["signing-keys.json", "secret-keys"]


class TestKeysRewrap:
    def test_an_old_key_can_go_afterwards(
        self, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("create-user", "user@example.com", "--password-stdin", stdin=PASSWORD)
        [row] = query("SELECT id FROM accounts")
        old, new = SecretKeys([SecretStr(SECRET)]), "newer-0123456789-abcdefghijklmnop"
        sealed = seal(old, totp.PURPOSE, b"secret", bound_to=row["id"].bytes)
        query(
            "INSERT INTO totp_factors (id, account_id, sealed_secret, created_at)"
            f" SELECT id, id, decode('{sealed.hex()}', 'hex'), now() FROM accounts RETURNING 1"
        )

        monkeypatch.setenv("AUTH_SECRET_KEYS", f"{new},{SECRET}")
        assert run("keys", "rewrap") == Done(0, "rewrapped 1", "")
        monkeypatch.setenv("AUTH_SECRET_KEYS", new)
        assert run("keys", "rewrap") == Done(0, "rewrapped 0", "")
        monkeypatch.setenv("AUTH_SECRET_KEYS", SECRET)
        assert run("keys", "rewrap") == Done(1, "rewrapped 0", "1 cannot be read with any of the keys")


class TestResetMfa:
    def test_the_factors_go_and_the_operator_is_named(self, run: Run, query: Query) -> None:
        run("create-user", "user@example.com", "--password-stdin", stdin=PASSWORD)
        query(
            "INSERT INTO totp_factors (id, account_id, sealed_secret, created_at, confirmed_at)"
            " SELECT id, id, '', now(), now() FROM accounts RETURNING 1"
        )
        done = run("reset-mfa", "user@example.com")
        assert done == Done(0, "removed; the account signs in without a second factor", "")
        assert query("SELECT id FROM totp_factors") == []
        [event] = query("SELECT operator FROM audit_events WHERE event = 'mfa_reset'")
        assert event["operator"] == getpass.getuser()

    def test_of_nobody(self, run: Run) -> None:
        done = run("reset-mfa", "nobody@example.com")
        assert done == Done(1, "", "No account has this id, e-mail address or username.")


class TestWho:
    """An operator names an account; nobody puts themselves in another one's place by their username."""

    def test_an_id_that_somebody_took_as_username_is_refused(self, run: Run, query: Query) -> None:
        run("create-user", "user@example.com", "--password-stdin", stdin=PASSWORD)
        [account] = query("SELECT id FROM accounts")
        taken = str(account["id"])
        assert run("unlock", taken.upper()).status == 0
        run("create-user", "other@example.com", "--username", taken, "--password-stdin", stdin=PASSWORD)
        done = run("reset-mfa", taken)
        assert done.status == 1
        assert "give its e-mail address" in done.errors
        assert run("reset-mfa", "user@example.com").status == 0

    def test_another_spelling_of_a_uuid_is_a_username(self, run: Run, query: Query) -> None:
        name = uuid4().hex
        run("create-user", "user@example.com", "--username", name, "--password-stdin", stdin=PASSWORD)
        assert run("unlock", name).status == 0
        assert len(query("SELECT id FROM audit_events WHERE event = 'account_unlocked'")) == 1


class TestUnlock:
    def test_an_account(self, run: Run, query: Query) -> None:
        run("create-user", "user@example.com", "--password-stdin", stdin=PASSWORD)
        query(
            "INSERT INTO rate_limits (key, count, updated_at)"
            " SELECT 'login:account:' || id, 100, now() FROM accounts RETURNING 1"
        )
        assert run("unlock", "USER@example.com") == Done(0, "unlocked", "")
        assert query("SELECT key FROM rate_limits") == []
        assert len(query("SELECT id FROM audit_events WHERE event = 'account_unlocked'")) == 1

    @pytest.mark.usefixtures("database")
    def test_nobody(self, run: Run) -> None:
        done = run("unlock", "nobody@example.com")
        assert done == Done(1, "", "No account has this id, e-mail address or username.")

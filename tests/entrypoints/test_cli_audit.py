"""`auth-manager audit`."""

import getpass
import io
import json
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from rich.console import Console

from auth_manager import audit
from auth_manager.audit import Origin
from auth_manager.database import Database, Row
from auth_manager.entrypoints import cli
from auth_manager.entrypoints.cli import console
from auth_manager.ids import new_id

SECRET = "canary-0123456789-abcdefghijklmnop"
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Done:
    """A command that ended. White space of errors is folded: wrapping depends on the terminal."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, database_url: str, signing_keys: str) -> None:
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET_KEYS", SECRET)
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `auth-manager audit` in this process."""
    monkeypatch.setattr(console, "output", Console(width=200))
    monkeypatch.setattr(console, "errors", Console(width=200, stderr=True))

    def invoke(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["auth-manager", "audit", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        status = caught.value.code
        assert isinstance(status, int)
        return Done(status, captured.out, " ".join(captured.err.split()))

    return invoke


@pytest.fixture
def events(database: Database) -> None:
    """Five events, an hour apart."""
    for hour in range(5):
        origin = Origin(
            "203.0.113.7", "b", "r", NOW + timedelta(hours=hour), operator="olga" if hour == 2 else None
        )
        with database.one_trip() as connection:
            audit.append(
                connection, f"event_{hour}", origin, account_id=new_id(), failure="x" if hour == 3 else None
            )


@pytest.fixture
def forge(database: Database) -> Callable[[str], list[Row]]:
    """Runs a statement without triggers."""

    def do(sql: str) -> list[Row]:
        with database.transaction() as connection:
            connection.add("SET LOCAL session_replication_role = replica")
            return connection.fetch_all(sql)

    return do


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where checkpoints are kept: a bucket in another region than ours."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AUTH_AUDIT_CHECKPOINT_URL", "s3://trail/stack/audit")
    with mock_aws():
        client = boto3.client("s3", region_name="eu-west-1")
        client.create_bucket(Bucket="trail", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


def keys(bucket: Any) -> list[str]:
    return [item["Key"] for item in bucket.list_objects_v2(Bucket="trail").get("Contents", [])]


@pytest.mark.usefixtures("events")
class TestList:
    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ([], ["event_4", "event_3", "event_2", "event_1", "event_0"]),
            (["--event", "event_2"], ["event_2"]),
            (["--outcome", "failure"], ["event_3"]),
            (["--operator", "olga"], ["event_2"]),
            (["--address", "203.0.113.0/24", "--limit", "2"], ["event_4", "event_3"]),
            (["--since", "2030-01-02T07:04:05", "--until", "2030-01-03"], ["event_4"]),
            (["--since", "2030-01-02T09:04:05+02:00"], ["event_4"]),
            (["--since", "2030-01-03T07:03:05+23:59"], ["event_4"]),
            (["--account", "0191d6a0-0000-7000-8000-000000000000"], []),
            (["--actor", "0191d6a0-0000-7000-8000-000000000000"], []),
        ],
        ids=str,
    )
    def test_what_matches(self, run: Run, options: list[str], found: list[str]) -> None:
        done = run("list", *options, "--json")
        assert (done.status, [item["event"] for item in done.json["items"]]) == (0, found)

    def test_pages_as_a_table(self, run: Run) -> None:
        first = run("list", "--limit", "3")
        assert first.status == 0
        assert "event_4" in first.output
        assert "event_1" not in first.output
        second = run("list", "--limit", "3", "--cursor", first.errors.split()[-1])
        assert ("event_1" in second.output, second.errors) == (True, "")

    @pytest.mark.parametrize(
        "options",
        [
            ["--since", "x"],
            ["--since", "0001-01-01T00:00:00+23:59"],
            ["--until", "9999-12-31T23:59:59-23:59"],
            ["--address", ""],
            ["--address", "x"],
            ["--address", "fe80::1%eth0"],
            ["--account", "x"],
            ["--outcome", "x"],
        ],
        ids=str,
    )
    def test_what_is_no_filter(self, run: Run, options: list[str]) -> None:
        assert run("list", *options).status == 2

    def test_a_cursor_of_something_else(self, run: Run) -> None:
        assert run("list", "--cursor", "x").status == 1


@pytest.mark.usefixtures("events")
class TestExport:
    def test_to_a_file_for_its_owner_alone(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "trail.jsonl"
        run("chain")
        assert run("export", str(file), "--json").json == {"exported": 5, "file": str(file)}
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["event"] for line in lines] == [f"event_{hour}" for hour in range(5)]
        assert [line["position"] for line in lines] == [1, 2, 3, 4, 5]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [file]

    def test_to_standard_output(self, run: Run) -> None:
        done = run("export", "-", "--event", "event_3")
        assert (done.status, done.json["reason"]) == (0, "x")

    def test_it_is_in_the_trail_itself(self, run: Run) -> None:
        run("export", "-")
        [last] = run("list", "--event", "audit_exported", "--json").json["items"]
        assert (last["operator"], last["details"]) == (getpass.getuser(), {"events": 5})

    def test_it_is_there_too_where_the_reader_stops(self, run: Run, database: Database) -> None:
        """As `auth-manager audit export - | head` does."""
        origin = Origin(None, "x" * 500, "r", NOW)
        with database.one_trip() as connection:
            audit.append_all(connection, "noted", origin, account_ids=[new_id() for _ in range(300)])
        command = [sys.executable, "-m", "auth_manager.entrypoints.cli", "audit", "export", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            process.stdout.close()
        assert process.returncode == 1
        [last] = run("list", "--event", "audit_exported", "--json").json["items"]
        assert 0 < last["details"]["events"] < 305

    def test_where_nothing_can_be_written(self, run: Run, tmp_path: Path) -> None:
        done = run("export", str(tmp_path / "none" / "trail.jsonl"))
        assert (done.status, done.output) == (2, "")
        assert "No such file or directory" in done.errors
        assert run("list", "--event", "audit_exported", "--json").json["items"] == []

    def test_a_failure_leaves_what_was_there(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "trail.jsonl"
        file.write_text("precious")
        monkeypatch.setenv("AUTH_DATABASE_URL", "postgresql://a@127.0.0.1:1/none")
        assert run("export", str(file)).status == 1
        assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.usefixtures("events")
class TestVerify:
    def test_a_sound_trail(self, run: Run) -> None:
        assert run("chain", "--json").json == {"chained": 5}
        taken = run("checkpoint", "--json").json
        assert (taken["position"], taken["kept_elsewhere"], len(taken["hash"])) == (5, False, 64)
        done = run("verify")
        assert (done.status, done.errors) == (0, "")
        assert "the audit trail is sound" in done.output
        facts = run("verify", "--json").json
        assert facts.pop("last_checkpoint").startswith(str(datetime.now(UTC).year))
        assert facts == {
            "sound": True,
            "events": 5,
            "unchained": 0,
            "erased": 0,
            "checkpoints": 1,
            "fault": None,
            "checkpoint_faults": [],
        }

    def test_events_that_wait(self, run: Run) -> None:
        facts = run("verify", "--json").json
        assert (facts["sound"], facts["events"], facts["unchained"]) == (True, 0, 5)

    def test_an_altered_event_is_named(self, run: Run, forge: Callable[[str], list[Row]]) -> None:
        run("checkpoint")
        [row] = forge("UPDATE audit_events SET event = 'forged' WHERE position = 3 RETURNING id")
        done = run("verify")
        assert done.status == 3
        assert f"altered: event {row['id']} at position 3:" in done.errors
        assert "the audit trail is BROKEN" in done.output
        facts = run("verify", "--json")
        assert (facts.status, facts.json["sound"], facts.json["events"]) == (3, False, 2)
        assert facts.json["fault"]["event_id"] == str(row["id"])

    def test_a_missing_event_and_a_checkpoint_that_is_not(
        self, run: Run, forge: Callable[[str], list[Row]]
    ) -> None:
        run("checkpoint")
        forge("DELETE FROM audit_events WHERE position = 5 RETURNING 1")
        done = run("verify")
        assert (done.status, "missing: an event at position 5" in done.errors) == (3, True)
        assert run("checkpoint").status == 3
        forge("UPDATE audit_checkpoints SET token = '' RETURNING 1")
        done = run("verify")
        assert "checkpoint at position 5: it is not what was signed" in done.errors


@pytest.mark.usefixtures("events")
class TestKeptElsewhere:
    def test_in_a_bucket(self, run: Run, bucket: Any) -> None:
        taken = run("checkpoint", "--json").json
        assert taken["kept_elsewhere"] is True
        key = f"stack/audit/{taken['taken_at'][:10]}-5.json"
        assert keys(bucket) == [key]
        assert bucket.head_object(Bucket="trail", Key=key)["ServerSideEncryption"] == "AES256"
        assert run("verify", "--from-checkpoint", f"s3://trail/{key}").status == 0

    def test_it_finds_what_was_removed_with_its_checkpoint(
        self, run: Run, bucket: Any, forge: Callable[[str], list[Row]]
    ) -> None:
        run("checkpoint")
        forge("DELETE FROM audit_checkpoints RETURNING 1")
        forge("DELETE FROM audit_events WHERE position > 3 RETURNING 1")
        assert run("verify").status == 0
        done = run("verify", "--from-checkpoint", f"s3://trail/{keys(bucket)[0]}")
        assert done.status == 3
        assert "missing: an event at position 4: there were 5" in done.errors

    def test_a_bucket_that_is_not_there(self, run: Run, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The checkpoint is in the database; the next run stores it."""
        monkeypatch.setenv("AUTH_AUDIT_CHECKPOINT_URL", "s3://none/x")
        refused = run("checkpoint")
        assert (refused.status, "NoSuchBucket" in refused.errors or "no such bucket" in refused.errors) == (
            1,
            True,
        )
        assert run("verify", "--json").json["checkpoints"] == 1
        monkeypatch.setenv("AUTH_AUDIT_CHECKPOINT_URL", "s3://trail/later")
        assert run("checkpoint").status == 0
        assert [key.split("/")[0] for key in keys(bucket)] == ["later"]

    def test_in_a_directory(self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("AUTH_AUDIT_CHECKPOINT_URL", str(tmp_path / "kept"))
        run("checkpoint")
        [file] = (tmp_path / "kept").iterdir()
        assert run("verify", "--from-checkpoint", str(file)).status == 0
        file.write_text("{}")
        refused = run("verify", "--from-checkpoint", str(file))
        assert (refused.status, "not a checkpoint" in refused.errors) == (2, True)
        refused = run("verify", "--from-checkpoint", str(tmp_path / "none"))
        assert (refused.status, "No such file" in refused.errors) == (2, True)

    def test_what_is_no_place(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_AUDIT_CHECKPOINT_URL", "ftp://example.com")
        refused = run("checkpoint")
        assert refused == Done(
            2, "", "Configuration: AUTH_AUDIT_CHECKPOINT_URL: a directory, or s3://bucket/prefix"
        )

    def test_an_object_that_is_not_there(self, run: Run, bucket: Any) -> None:
        assert bucket
        refused = run("verify", "--from-checkpoint", "s3://trail/none.json")
        assert (refused.status, "not there" in refused.errors) == (2, True)

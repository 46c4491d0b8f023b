"""kill -9 of a backup, a restore and an export, at 20 steps each: whole, or not there; never half."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.backups import killed
from tests.backups.conftest import START, MakeDatabase, contents, run_sql

from auth_manager.aws.backup_storage import Bucket, open_bucket
from auth_manager.backups import BackupError
from auth_manager.backups.reading import check_parts, open_manifest
from auth_manager.backups.retention import Keep, delete_old, find_backup, list_backups
from auth_manager.backups.storage import Directory
from auth_manager.backups.writing import back_up

POINTS = 20


class Program:
    """The command, killed at a step of one run after the other."""

    def __init__(self, log: Path, signing_keys: str) -> None:
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTH_")}
        ours = {
            "AUTH_PUBLIC_URL": "https://auth.example.com",
            "AUTH_SECRET_KEYS": "0123456789abcdefghijklmnopqrstuvwxyz-test-only",
            "AUTH_SIGNING_KEYS": signing_keys,
        }
        self._process = subprocess.Popen(
            [sys.executable, killed.__file__],
            env=inherited | ours,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, url: str, *arguments: str, at: int = 0) -> int:
        """Run it on a database up to a step, 0 for its end; return how many steps there were."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"at": at, "arguments": arguments, "log": str(self._log), "url": url}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        assert answer["status"] == (signal.SIGKILL if at else 0), self._log.read_text()
        return answer["steps"]

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def program(tmp_path: Path, signing_keys: str) -> Iterator[Program]:
    program = Program(tmp_path / "log", signing_keys)
    yield program
    program.close()


def points(steps: int) -> list[int]:
    """20 steps from the first to the last."""
    assert steps > POINTS
    return [1 + (steps - 1) * number // (POINTS - 1) for number in range(POINTS)]


class TestBackup:
    def test_what_has_a_manifest_is_whole(self, source: str, tmp_path: Path, program: Program) -> None:
        directory = tmp_path / "backups"
        place = Directory(directory)
        steps = program.run(source, "backup", "--to", str(tmp_path / "whole"))
        for point in points(steps):
            program.run(source, "backup", "--to", str(directory), at=point)
            for found in list_backups(place):
                if found.is_complete:
                    check_parts(place, open_manifest(place, found.id))
                else:
                    with pytest.raises(BackupError, match="not completed"):
                        find_backup(place, found.id)
        partial = [found.id for found in list_backups(place) if not found.is_complete]
        assert len(partial) > 5
        program.run(source, "backup", "--to", str(directory))
        program.run(source, "backup", "verify", "--from", str(directory))
        later = datetime.now(UTC) + timedelta(days=2)
        assert set(partial) <= set(delete_old(place, Keep(7, 5, 12), now=later))
        assert all(found.is_complete for found in list_backups(place))
        assert sorted(path.name for path in directory.iterdir()) == sorted(
            found.id for found in list_backups(place)
        )


class TestBackupToS3:
    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
        """A place in a moto server, which the program's environment names, too."""
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.Session().client("s3")
        client.create_bucket(Bucket="backups")
        yield open_bucket("backups", "stack", client=client)
        server.stop()

    @pytest.fixture
    def program(self, bucket: Bucket, tmp_path: Path, signing_keys: str) -> Iterator[Program]:
        assert bucket.url
        program = Program(tmp_path / "log", signing_keys)
        yield program
        program.close()

    def test_what_has_a_manifest_is_whole(self, source: str, bucket: Bucket, program: Program) -> None:
        """With a table that takes several chunks of an upload."""
        run_sql(
            source,
            """
            INSERT INTO idempotency_keys (key_hash, request_hash, claim_id, claimed_until, expires_at, answer)
            SELECT sha256(n::text::bytea), '', gen_random_uuid(), now(), now(),
                   (SELECT string_agg(sha256((n * 40000 + m)::text::bytea), '')
                    FROM generate_series(1, 32768) AS m)
            FROM generate_series(1, 14) AS n RETURNING 1
            """,
        )
        steps = program.run(source, "backup", "--to", "s3://backups/elsewhere")
        for point in points(steps):
            program.run(source, "backup", "--to", "s3://backups/stack", at=point)
            for found in list_backups(bucket):
                if found.is_complete:
                    check_parts(bucket, open_manifest(bucket, found.id))
                else:
                    with pytest.raises(BackupError, match="not completed"):
                        find_backup(bucket, found.id)
        assert self.unfinished(bucket)
        assert any(not found.is_complete for found in list_backups(bucket))
        program.run(source, "backup", "--to", "s3://backups/stack")
        program.run(source, "backup", "verify", "--from", "s3://backups/stack")
        delete_old(bucket, Keep(7, 5, 12), now=datetime.now(UTC) + timedelta(days=2))
        assert all(found.is_complete for found in list_backups(bucket))
        assert not self.unfinished(bucket)

    def unfinished(self, bucket: Bucket) -> list[Any]:
        found: list[Any] = bucket._client.list_multipart_uploads(Bucket="backups").get("Uploads", [])
        return found


class TestRestore:
    def states(
        self, program: Program, place: Directory, arguments: tuple[str, ...], make: Callable[[], str]
    ) -> list[Any]:
        """What a fresh database is after a kill at each point, and last of all without one.

        What was restored says so in its trail.
        """
        command = ("restore", "latest", "--from", place.url, "--yes", *arguments)
        url = make()
        steps = program.run(url, *command)
        after = [state(url)]
        assert is_told(url)
        for point in points(steps):
            url = make()
            program.run(url, *command, at=point)
            after.insert(-1, state(url))
            assert is_told(url) == (after[-2] == after[-1])
        return after

    def test_an_empty_database_is_empty_or_whole(
        self, source: str, place: Directory, program: Program, make_database: MakeDatabase
    ) -> None:
        back_up(source, place, now=START, part_bytes=5_000)
        after = self.states(program, place, (), make_database)
        whole = state(source)
        assert after[-1] == whole
        assert {repr(one) for one in after} == {repr(None), repr(whole)}

    def test_with_force_it_is_the_old_one_or_the_new_one(
        self,
        source: str,
        place: Directory,
        program: Program,
        make_database: MakeDatabase,
        server_url: str,
    ) -> None:
        back_up(source, place, now=START, part_bytes=5_000)
        before = make_database(migrated=True)
        run_sql(
            before,
            """
            INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at, created_at,
                                  updated_at)
            VALUES (gen_random_uuid(), 'old@example.com', 'old@example.com', '!', now(), now(), now())
            RETURNING 1
            """,
        )
        old = state(before)

        def copy() -> str:
            url = make_database()
            names = (urlsplit(url).path[1:], urlsplit(before).path[1:])
            run_sql(server_url, f"DROP DATABASE {names[0]}")
            run_sql(server_url, f"CREATE DATABASE {names[0]} TEMPLATE {names[1]}")
            return url

        after = self.states(program, place, ("--force",), copy)
        whole = state(source)
        assert after[-1] == whole
        assert {repr(one) for one in after} == {repr(old), repr(whole)}


def state(url: str) -> dict[str, tuple[int, str]] | None:
    """Every table but the trail, which has one event more; None for no schema."""
    tables = contents(url)
    tables.pop("audit_events", None)
    return tables or None


def is_told(url: str) -> bool:
    found = run_sql(url, "SELECT to_regclass('auth_manager.audit_events') AS trail")
    return found[0]["trail"] is not None and bool(
        run_sql(url, "SELECT 1 FROM audit_events WHERE event = 'restored'")
    )


class TestExport:
    def test_a_file_with_the_name_is_whole(self, source: str, tmp_path: Path, program: Program) -> None:
        steps = program.run(source, "export", str(tmp_path / "whole"))
        for point in points(steps):
            target = tmp_path / f"at-{point}"
            program.run(source, "export", str(target), at=point)
            assert not target.exists() or is_whole(target)
        assert is_whole(tmp_path / "whole")
        killed_first = tmp_path / f"at-{points(steps)[10]}"
        assert killed_first.with_name(killed_first.name + ".partial").exists()
        program.run(source, "export", str(killed_first))
        assert is_whole(killed_first)
        assert not killed_first.with_name(killed_first.name + ".partial").exists()
        events = run_sql(source, "SELECT operator FROM audit_events WHERE event = 'exported'")
        assert len(events) > POINTS // 2


def is_whole(path: Path) -> bool:
    *lines, last = path.read_bytes().splitlines(keepends=True)
    trailer = json.loads(last)
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    return (trailer["end"], trailer["users"], trailer["sha256"]) == (True, len(lines) - 1, digest)

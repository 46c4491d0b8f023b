"""Backups that are taken, checked and restored."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2.extensions
import pytest
from tests.backups.conftest import OPERATOR, START, MakeDatabase, Service, contents, run_sql

from auth_manager import migrate
from auth_manager.backups import BackupDamaged, BackupError, OutOfTime, StorageFailed
from auth_manager.backups.archive import Manifest, Part, read_manifest, write_manifest
from auth_manager.backups.reading import check_parts, open_manifest, read_part
from auth_manager.backups.restoring import NotEmpty, restore, verify
from auth_manager.backups.retention import list_backups
from auth_manager.backups.storage import Directory
from auth_manager.backups.writing import back_up
from auth_manager.database import Database
from auth_manager.errors import DatabaseUnavailable
from auth_manager.migrate import apply_migrations, shipped_migrations

SMALL = 20_000
"""Bytes of a part, so that there are several."""

MakeService = Callable[[str], Service]


def take(url: str, place: Directory, **options: object) -> Manifest:
    return back_up(url, place, now=START, part_bytes=SMALL, **options)  # type: ignore[arg-type]


def is_empty(url: str) -> bool:
    """Whether a database has nothing of ours."""
    return run_sql(url, "SELECT to_regnamespace('auth_manager') IS NULL AS empty") == [{"empty": True}]


class TestRestore:
    def test_an_empty_database_becomes_what_was_backed_up(
        self, source: str, place: Directory, make_database: MakeDatabase
    ) -> None:
        before = contents(source)
        manifest = take(source, place)
        assert {table.name: (table.rows, table.digest) for table in manifest.tables} == before
        assert len(next(table for table in manifest.tables if table.name == "accounts").parts) > 3
        target = make_database()

        done = restore(target, place, manifest.id, OPERATOR)

        after = contents(target)
        assert after["audit_events"][0] == before["audit_events"][0] + 1
        assert {**after, "audit_events": None} == {**before, "audit_events": None}
        assert (done.manifest, done.migrated) == (manifest, ())
        assert migrate.is_current(Database(target))

    def test_people_sign_in_with_what_they_have(
        self, make_database: MakeDatabase, make_service: MakeService, place: Directory
    ) -> None:
        source, target = make_database(migrated=True), make_database()
        before = make_service(source)
        before.create("anna@example.com")
        before.create("boss@example.com", "admin")
        app = before.enrol("boss@example.com")
        session = before.log_in("anna@example.com")
        manifest = take(source, place)

        done = restore(target, place, manifest.id, OPERATOR)

        after = make_service(target)
        assert done.sessions_ended == 2
        assert after.log_in("anna@example.com").status_code == 200
        assert after.log_in_with("boss@example.com", app).status_code == 200
        assert after.log_in_by_recovery_code("boss@example.com", app.recovery_codes[0]).status_code == 200
        wrong = after.client.post("/auth/login", json={"email": "anna@example.com", "password": "Wrong" * 4})
        assert wrong.status_code == 401
        assert after.refresh(session).status_code == 401

    def test_sessions_can_be_kept(
        self, make_database: MakeDatabase, make_service: MakeService, place: Directory
    ) -> None:
        source, target = make_database(migrated=True), make_database()
        before = make_service(source)
        before.create("anna@example.com")
        session = before.log_in("anna@example.com")
        manifest = take(source, place)
        assert restore(target, place, manifest.id, OPERATOR, keep_sessions=True).sessions_ended == 0
        assert make_service(target).refresh(session).status_code == 200

    def test_what_may_have_been_used_since_is_gone(
        self, make_database: MakeDatabase, place: Directory
    ) -> None:
        source, target = make_database(migrated=True), make_database()
        run_sql(
            source,
            """
            INSERT INTO outbox (id, kind, recipient, created_at, sent_at) VALUES
                (gen_random_uuid(), 'verify_email', 'sent@example.com', now(), now()),
                (gen_random_uuid(), 'verify_email', 'waits@example.com', now(), NULL),
                (gen_random_uuid(), 'webhook', '', now(), NULL);
            INSERT INTO one_time_secrets (id, purpose, limit_key, created_at, expires_at)
            VALUES (gen_random_uuid(), 'reset_password', 'k', now(), now() + interval '1 hour')
            RETURNING 1
            """,
        )
        restore(target, place, take(source, place).id, OPERATOR)
        rows = run_sql(target, "SELECT kind, recipient, failure FROM outbox ORDER BY recipient")
        assert [(row["recipient"], row["failure"]) for row in rows] == [
            ("", None), ("sent@example.com", None), ("waits@example.com", "restored")
        ]  # fmt: skip
        assert run_sql(target, "SELECT 1 FROM one_time_secrets") == []

    def test_the_audit_trail_names_the_operator(
        self, source: str, place: Directory, make_database: MakeDatabase
    ) -> None:
        target, manifest = make_database(), take(source, place)
        restore(target, place, manifest.id, OPERATOR)
        [event] = run_sql(target, "SELECT operator, details FROM audit_events WHERE event = 'restored'")
        assert event["operator"] == "olga"
        assert event["details"] == {"backup": manifest.id, "rows": manifest.rows, "sessions_ended": 0}

    def test_events_of_then_are_announced_to_nobody(
        self, make_database: MakeDatabase, place: Directory
    ) -> None:
        """A trigger writes a webhook's message with each event, and a load is no event."""
        source, target = make_database(migrated=True), make_database()
        run_sql(
            source,
            """
            INSERT INTO audit_events (id, occurred_at, event, outcome, request_id)
            SELECT gen_random_uuid(), now(), 'registered', 'success', '' FROM generate_series(1, 5);
            INSERT INTO webhook_endpoints (id, url, types, secret, created_at, updated_at)
            VALUES (gen_random_uuid(), 'https://example.com', '{*}', '', now(), now());
            INSERT INTO audit_events (id, occurred_at, event, outcome, request_id)
            VALUES (gen_random_uuid(), now(), 'registered', 'success', '') RETURNING 1
            """,
        )
        restore(target, place, take(source, place).id, OPERATOR)
        assert contents(target)["outbox"] == contents(source)["outbox"]
        assert contents(target)["outbox"][0] == 1

    def test_triggers_hold_again_afterwards(
        self, source: str, place: Directory, make_database: MakeDatabase
    ) -> None:
        target = make_database()
        restore(target, place, take(source, place).id, OPERATOR)
        with pytest.raises(psycopg2.Error, match="append-only"):
            run_sql(target, "DELETE FROM audit_events")

    def test_a_role_that_owns_its_database_is_enough(
        self, source: str, place: Directory, make_database: MakeDatabase, server_url: str
    ) -> None:
        """No superuser, who alone could switch foreign keys off."""
        target = make_database()
        name = urlsplit(target).path[1:]
        run_sql(server_url, f"CREATE ROLE {name}_owner LOGIN PASSWORD 'canary-1234'")
        try:
            run_sql(server_url, f"ALTER DATABASE {name} OWNER TO {name}_owner")
            parts = urlsplit(target)
            login = f"{name}_owner:canary-1234@{parts.netloc.rpartition('@')[2]}"
            url = parts._replace(netloc=login).geturl()
            manifest = take(source, place)
            restore(url, place, manifest.id, OPERATOR)
            assert contents(target)["accounts"] == contents(source)["accounts"]
            with pytest.raises(
                BackupError,
                match=r"no scratch database: .*permission denied to create database.*--checksums-only",
            ):
                verify(url, place, manifest.id, now=START, random=os.urandom(4))
        finally:
            run_sql(target, f"REASSIGN OWNED BY {name}_owner TO CURRENT_USER; DROP OWNED BY {name}_owner")
            run_sql(server_url, f"ALTER DATABASE {name} OWNER TO CURRENT_USER; DROP ROLE {name}_owner")


class TestNotEmpty:
    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO roles (name, created_at, updated_at) VALUES ('editor', now(), now()) RETURNING 1",
            "INSERT INTO rate_limits VALUES ('x', 0, NULL, NULL, now()) RETURNING 1",
            """
            INSERT INTO audit_events (id, occurred_at, event, outcome, request_id)
            VALUES (gen_random_uuid(), now(), 'x', 'success', '') RETURNING 1
            """,
        ],
        ids=["role", "limit", "event"],
    )
    def test_one_row_is_enough(
        self, source: str, place: Directory, make_database: MakeDatabase, statement: str
    ) -> None:
        target, manifest = make_database(migrated=True), take(source, place)
        run_sql(target, statement)
        before = contents(target)
        with pytest.raises(NotEmpty, match="--force"):
            restore(target, place, manifest.id, OPERATOR)
        assert contents(target) == before

    def test_a_migrated_database_is_empty(
        self, source: str, place: Directory, make_database: MakeDatabase
    ) -> None:
        target = make_database(migrated=True)
        restore(target, place, take(source, place).id, OPERATOR)
        assert contents(target)["accounts"] == contents(source)["accounts"]

    def test_force_replaces_everything(
        self, source: str, place: Directory, make_database: MakeDatabase, make_service: MakeService
    ) -> None:
        target, manifest = make_database(migrated=True), take(source, place)
        service = make_service(target)
        service.create("old@example.com")
        service.log_in("old@example.com")
        restore(target, place, manifest.id, OPERATOR, force=True)
        assert contents(target)["accounts"] == contents(source)["accounts"]
        assert contents(target)["sessions"][0] == 0
        assert service.log_in("old@example.com").status_code == 401

    def test_what_others_built_on_our_tables_stops_it(
        self, source: str, place: Directory, make_database: MakeDatabase
    ) -> None:
        target, manifest = make_database(migrated=True), take(source, place)
        run_sql(target, "CREATE TABLE public.theirs (id uuid REFERENCES accounts (id))")
        with pytest.raises(BackupError, match="cannot truncate a table referenced in a foreign key"):
            restore(target, place, manifest.id, OPERATOR)


class TestVersions:
    """Of the schema: the backup's, the database's, the package's."""

    @pytest.fixture
    def older(self, make_database: MakeDatabase) -> str:
        """A database of a package with three migrations less."""
        url = make_database()
        apply_migrations(url, migrations=shipped_migrations()[:-3])
        run_sql(
            url,
            """
            INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at, created_at,
                                  updated_at)
            VALUES (gen_random_uuid(), 'a@example.com', 'a@example.com', '!', now(), now(), now()) RETURNING 1
            """,
        )
        return url

    @pytest.mark.parametrize("there", [0, 2, -3, None], ids=["empty", "older", "same", "newer"])
    def test_an_older_backup_is_migrated(
        self, older: str, place: Directory, make_database: MakeDatabase, there: int | None
    ) -> None:
        target, manifest = make_database(), take(older, place)
        if there != 0:
            apply_migrations(target, migrations=shipped_migrations()[:there])
        done = restore(target, place, manifest.id, OPERATOR)
        assert done.migrated == tuple(one.file_name for one in shipped_migrations()[-3:])
        assert contents(target)["accounts"][0] == 1
        assert migrate.is_current(Database(target))

    def test_a_newer_backup_is_refused(
        self, source: str, place: Directory, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target, manifest = make_database(), take(source, place)
        known = shipped_migrations()[:-1]
        monkeypatch.setattr(migrate, "shipped_migrations", lambda: known)
        refusal = f"^{manifest.id} has schema .* this version has {len(known):04}: restore it with version"
        with pytest.raises(BackupError, match=refusal):
            restore(target, place, manifest.id, OPERATOR)
        assert is_empty(target)
        with pytest.raises(BackupError, match=refusal):
            verify(target, place, manifest.id, now=START, random=os.urandom(4))
        assert verify(None, place, manifest.id, now=START, random=b"") == manifest

    def test_another_history_is_refused(
        self, source: str, place: Directory, make_database: MakeDatabase, tmp_path: Path
    ) -> None:
        manifest = take(source, place)
        path = tmp_path / "backups" / manifest.id / "manifest.json"
        content = json.loads(path.read_text())
        content["migrations"][1]["checksum"] = "0" * 64
        path.write_bytes(write_manifest(read_manifest(manifest.id, signed(content))))
        with pytest.raises(BackupError, match="0002_sessions is another than this package's"):
            restore(make_database(), place, manifest.id, OPERATOR)


def signed(content: dict[str, object]) -> bytes:
    from auth_manager.backups.archive import _digest_of

    content.pop("sha256")
    return json.dumps(content | {"sha256": _digest_of(content)}).encode()


WRITE_ON = """
import sys
from auth_manager.database import Database

database = Database(sys.argv[1])
while True:
    with database.one_trip() as connection:
        connection.add(
            '''
            WITH made AS (
                INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at,
                                      created_at, updated_at)
                SELECT id, id::text, id::text, '!', now(), now(), now()
                FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 20)) AS ids
                RETURNING id
            )
            INSERT INTO account_roles SELECT id, 'admin', now() FROM made
            '''
        )
    print(flush=True)
"""


class TestSnapshot:
    def test_what_is_written_meanwhile_is_in_all_of_it_or_in_none(
        self, make_database: MakeDatabase, place: Directory
    ) -> None:
        """Each account comes with a role, in one transaction: so it is in the backup."""
        source = make_database(migrated=True)
        # A process of its own: a backup takes the deadlines off this one's connections.
        writer = subprocess.Popen([sys.executable, "-c", WRITE_ON, source], stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            counts = []
            for number in range(5):
                manifest = take(source, place, random=lambda _size, number=number: bytes([number] * 4))
                rows = {table.name: table.rows for table in manifest.tables}
                assert rows["accounts"] == rows["account_roles"]
                counts.append(rows["accounts"])
        finally:
            writer.terminate()
            writer.communicate()
        assert counts[-1] > counts[0] > 0

    def test_nobody_empties_a_table_meanwhile(self, source: str, place: Directory) -> None:
        """TRUNCATE, and what rewrites a table, does not ask a snapshot: its rows would be missing."""
        run_sql(source, "INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts RETURNING 1")
        refused: list[Exception] = []

        def empty() -> bool:
            if not refused:
                try:
                    run_sql(source, "SET LOCAL lock_timeout = '300ms'; TRUNCATE account_roles")
                except Exception as error:  # noqa: BLE001 -- whichever it is, the rows are counted below
                    refused.append(error)
                else:
                    refused.append(AssertionError("emptied"))
            return True

        before = {name: rows for name, (rows, _) in contents(source).items()}
        manifest = take(source, place, may_go_on=empty)
        assert {table.name: table.rows for table in manifest.tables} == before
        assert len(refused) == 1

    def test_sequences_are_where_they_were(self, make_database: MakeDatabase, place: Directory) -> None:
        source, target = make_database(migrated=True), make_database(migrated=True)
        for url in (source, target):
            run_sql(url, "CREATE SEQUENCE numbers")
        run_sql(source, "SELECT nextval('numbers') FROM generate_series(1, 41)")
        restore(target, place, take(source, place).id, OPERATOR)
        assert run_sql(target, "SELECT nextval('numbers') AS next") == [{"next": 42}]

    def test_the_deadlines_of_other_connections_come_back(self, source: str, place: Directory) -> None:
        before = psycopg2.extensions.get_wait_callback()
        assert before is not None
        take(source, place)
        assert psycopg2.extensions.get_wait_callback() is before


class Failing(Directory):
    """A place that is full, or gone, after so many calls."""

    def __init__(self, path: Path, *, after: int) -> None:
        super().__init__(path)
        self.left = after

    def create(self, name: str) -> object:  # type: ignore[override]
        self.left -= 1
        if self.left < 0:
            raise StorageFailed("full")
        return super().create(name)


class TestIncomplete:
    def test_out_of_time_there_is_no_backup(self, source: str, place: Directory, tmp_path: Path) -> None:
        asked = 0

        def may_go_on() -> bool:
            nonlocal asked
            asked += 1
            return asked < 8

        with pytest.raises(OutOfTime, match="the backup is not complete"):
            take(source, place, may_go_on=may_go_on)
        assert list_backups(place) == []
        assert [path for path in (tmp_path / "backups").rglob("*") if path.is_file()] == []

    def test_a_place_that_fails_at_any_object(self, source: str, tmp_path: Path) -> None:
        objects = sum(len(table.parts) for table in take(source, Directory(tmp_path / "whole")).tables) + 1
        for after in range(objects):
            with pytest.raises(StorageFailed, match="full"):
                take(source, Failing(tmp_path / "failing", after=after))
            assert list_backups(Directory(tmp_path / "failing")) == []
        take(source, Failing(tmp_path / "failing", after=objects))

    def test_a_database_without_our_schema(self, make_database: MakeDatabase, place: Directory) -> None:
        with pytest.raises(BackupError, match="nothing to back up"):
            take(make_database(), place)
        assert list_backups(place) == []

    def test_a_database_that_is_away(self, place: Directory) -> None:
        with pytest.raises(DatabaseUnavailable):
            take("postgresql://a:canary@127.0.0.1:1/none", place)

    def test_a_database_that_goes_away(self, source: str, place: Directory, server_url: str) -> None:
        name = urlsplit(source).path[1:]

        def may_go_on() -> bool:
            run_in_thread(
                lambda: run_sql(
                    server_url,
                    f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'",
                )
            )
            return True

        with pytest.raises((DatabaseUnavailable, BackupError)):
            take(source, place, may_go_on=may_go_on)
        assert list_backups(place) == []


def run_in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


Spoil = Callable[[Path], object]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_rows(path: Path) -> None:
    rows = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(rows[1:])))


SPOILT: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 10), "is cut short"),
    "empty": (lambda path: path.write_bytes(b""), "is cut short"),
    "changed": (flip, "was changed"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "was changed"),
    "a row less": (other_rows, "is cut short|was changed"),
    "no gzip": (lambda path: path.write_bytes(os.urandom(path.stat().st_size)), "was changed"),
}


class TestDamaged:
    @pytest.mark.parametrize("name", SPOILT)
    @pytest.mark.parametrize("number", ["00001", "00004"])
    def test_it_is_found_and_nothing_is_restored(
        self,
        source: str,
        place: Directory,
        make_database: MakeDatabase,
        tmp_path: Path,
        name: str,
        number: str,
    ) -> None:
        spoil, message = SPOILT[name]
        manifest, target = take(source, place), make_database()
        spoil(tmp_path / "backups" / manifest.id / f"accounts-{number}.copy.gz")
        with pytest.raises(BackupDamaged, match=rf"accounts-{number}.copy.gz ({message})"):
            check_parts(place, manifest)
        with pytest.raises(BackupDamaged, match=rf"accounts-{number}.copy.gz ({message})"):
            verify(source, place, manifest.id, now=START, random=os.urandom(4))
        with pytest.raises(BackupError):
            restore(target, place, manifest.id, OPERATOR)
        assert is_empty(target)

    def test_without_a_manifest_it_is_none(
        self, source: str, place: Directory, make_database: MakeDatabase, tmp_path: Path
    ) -> None:
        manifest, target = take(source, place), make_database()
        (tmp_path / "backups" / manifest.id / "manifest.json").unlink()
        with pytest.raises(BackupDamaged, match="no manifest"):
            restore(target, place, manifest.id, OPERATOR)
        assert is_empty(target)

    def test_a_part_that_blows_up_is_not_read_to_its_end(self, place: Directory) -> None:
        """Forged with its manifest: a row that never ends, and more than the manifest says."""
        row, rows = gzip.compress(bytes(600 << 20), 9), gzip.compress(b"\n" * (64 << 20), 9)
        for content, count, message in ((row, 1, "a row"), (rows, 3, "was changed")):
            part = Part("accounts-00001.copy.gz", count, len(content), hashlib.sha256(content).hexdigest())
            writer = place.create(f"id/{part.name}")
            writer.write(content)
            writer.commit()
            sizes: list[int] = []
            with pytest.raises(BackupDamaged, match=message):
                sizes.extend(map(len, read_part(place, "id", part)))
            assert sum(sizes) <= 65 << 20

    def test_parts_that_changed_places_are_found(self, source: str, place: Directory, tmp_path: Path) -> None:
        manifest = take(source, place)
        directory = tmp_path / "backups" / manifest.id
        (directory / "accounts-00001.copy.gz").rename(directory / "x")
        (directory / "accounts-00002.copy.gz").rename(directory / "accounts-00001.copy.gz")
        (directory / "x").rename(directory / "accounts-00002.copy.gz")
        with pytest.raises(BackupDamaged, match="accounts-00001"):
            check_parts(place, manifest)


class TestVerify:
    def scratch_databases(self, server_url: str) -> list[str]:
        rows = run_sql(
            server_url, "SELECT datname FROM pg_database WHERE datname LIKE 'auth\\_manager\\_verify\\_%'"
        )
        return [row["datname"] for row in rows]

    def test_it_comes_back_and_the_scratch_database_goes(
        self, source: str, place: Directory, server_url: str
    ) -> None:
        manifest = take(source, place)
        read: list[int] = []
        verified = verify(source, place, manifest.id, now=START, random=os.urandom(4), on_read=read.append)
        assert verified == manifest
        assert sum(read) == 2 * manifest.size
        assert self.scratch_databases(server_url) == []

    def test_checksums_need_no_database(self, source: str, place: Directory) -> None:
        manifest = take(source, place)
        assert verify(None, place, manifest.id, now=START, random=b"") == manifest

    def test_a_digest_that_no_restore_gives_is_found(
        self, source: str, place: Directory, tmp_path: Path, server_url: str
    ) -> None:
        manifest = take(source, place)
        path = tmp_path / "backups" / manifest.id / "manifest.json"
        content = json.loads(path.read_text())
        table = next(table for table in content["tables"] if table["name"] == "accounts")
        table["digest"] = "0" * 64
        path.write_bytes(signed(content))
        with pytest.raises(BackupDamaged, match="the rows of accounts"):
            verify(source, place, manifest.id, now=START, random=os.urandom(4))
        assert self.scratch_databases(server_url) == []

    def test_what_a_killed_one_left_is_dropped_after_a_day(
        self, source: str, place: Directory, server_url: str
    ) -> None:
        now = datetime(2026, 11, 22, 12, tzinfo=UTC)
        manifest = take(source, place)
        for age in (timedelta(hours=25), timedelta(hours=23)):
            run_sql(server_url, f"CREATE DATABASE auth_manager_verify_{now - age:%Y%m%d%H%M%S}_00000000")
        try:
            verify(source, place, manifest.id, now=now, random=os.urandom(4))
            assert self.scratch_databases(server_url) == ["auth_manager_verify_20261121130000_00000000"]
        finally:
            run_sql(server_url, "DROP DATABASE IF EXISTS auth_manager_verify_20261121130000_00000000")

    def test_the_manifest_that_was_read_is_the_one_that_was_written(
        self, source: str, place: Directory
    ) -> None:
        manifest = take(source, place)
        assert open_manifest(place, manifest.id) == manifest

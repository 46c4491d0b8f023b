"""Migrations: each once, in order, whole or not at all, and never onto a database that took another road."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from auth_manager.database import Database
from auth_manager.errors import DatabaseUnavailable
from auth_manager.migrate import (
    MIGRATIONS,
    Migration,
    MigrationError,
    apply_migrations,
    is_current,
    migration_status,
    read_migrations,
    shipped_migrations,
)


@pytest.fixture(scope="module")
def scratch_url(server_url: str) -> Iterator[str]:
    name = f"auth_manager_migrate_{secrets.token_hex(4)}"
    server = Database(server_url, deadline=30)
    with server.one_trip() as connection:
        connection.add(f"CREATE DATABASE {name}")
    yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    with server.one_trip() as connection:
        connection.add(f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


@pytest.fixture
def empty(scratch_url: str) -> Iterator[Database]:
    """A database without our schema."""
    database = Database(scratch_url)
    with database.one_trip() as connection:
        connection.add("SET client_min_messages = warning; DROP SCHEMA IF EXISTS auth_manager CASCADE")
    yield database
    database.close()


@pytest.fixture
def empty_url(empty: Database, scratch_url: str) -> str:
    """The URL of `empty`."""
    assert tables(empty) == set()
    return scratch_url


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two small migrations."""
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (id integer);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (id integer);")
    return tmp_path


def tables(database: Database) -> set[str]:
    with database.one_trip() as connection:
        rows = connection.fetch_all("SELECT tablename FROM pg_tables WHERE schemaname = 'auth_manager'")
    return {row["tablename"] for row in rows} - {"schema_migrations"}


def names(migrations: list[Migration]) -> list[str]:
    return [migration.file_name for migration in migrations]


class TestReadMigrations:
    def test_the_package_has_its_migrations(self) -> None:
        assert [m.file_name for m in shipped_migrations()] == sorted(p.name for p in MIGRATIONS.glob("*"))

    @pytest.mark.parametrize(
        ("file_name", "complaint"),
        [
            ("3_third.sql", r"3_third\.sql is not named"),
            ("0003-third.sql", r"0003-third\.sql is not named"),
            ("0002_twin.sql", r"0002_twin\.sql should have number 0003"),
            ("0004_fourth.sql", r"0004_fourth\.sql should have number 0003"),
        ],
    )
    def test_a_misnumbered_file_is_named(self, files: Path, file_name: str, complaint: str) -> None:
        (files / file_name).write_text("SELECT 1;")
        with pytest.raises(MigrationError, match=complaint):
            read_migrations(files)

    @pytest.mark.parametrize("statement", ["COMMIT;", "rollback ;", "  begin;"])
    def test_a_file_that_ends_its_transaction_is_refused(self, files: Path, statement: str) -> None:
        (files / "0003_third.sql").write_text(f"CREATE TABLE third ();\n{statement}\n")
        with pytest.raises(MigrationError, match=r"0003_third\.sql begins or ends a transaction"):
            read_migrations(files)

    def test_no_file_at_all_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(MigrationError, match="no migrations"):
            read_migrations(tmp_path)

    def test_line_ends_do_not_change_the_checksum(self, files: Path) -> None:
        before = read_migrations(files)[0].checksum
        (files / "0001_first.sql").write_bytes(b"CREATE TABLE first (\r\nid integer);")
        with_crlf = read_migrations(files)[0].checksum
        (files / "0001_first.sql").write_bytes(b"CREATE TABLE first (\nid integer);")
        assert with_crlf == read_migrations(files)[0].checksum != before


class TestApplyMigrations:
    def test_each_is_applied_once_and_in_order(self, empty_url: str) -> None:
        assert apply_migrations(empty_url) == list(shipped_migrations())
        assert apply_migrations(empty_url) == []

    def test_an_ordinary_role_that_owns_the_database_is_enough(self, empty: Database, empty_url: str) -> None:
        owner = f"owner_{secrets.token_hex(4)}"
        parts = urlsplit(empty_url)
        with empty.one_trip() as connection:
            connection.add(f"CREATE ROLE {owner} LOGIN PASSWORD 'owner'")
            connection.add(f"ALTER DATABASE {parts.path[1:]} OWNER TO {owner}")
        address = parts.netloc.rpartition("@")[2]
        try:
            url = parts._replace(netloc=f"{owner}:owner@{address}").geturl()
            assert apply_migrations(url) == list(shipped_migrations())
        finally:
            with empty.one_trip() as connection:
                connection.add(f"REASSIGN OWNED BY {owner} TO CURRENT_USER; DROP OWNED BY {owner}")
                connection.add(f"DROP ROLE {owner}")

    def test_only_what_is_new_is_applied(self, empty: Database, empty_url: str, files: Path) -> None:
        apply_migrations(empty_url, migrations=read_migrations(files)[:1])
        assert names(apply_migrations(empty_url, migrations=read_migrations(files))) == ["0002_second.sql"]
        assert tables(empty) == {"first", "second"}

    def test_a_failing_one_leaves_nothing_and_is_named(
        self, empty: Database, empty_url: str, files: Path
    ) -> None:
        (files / "0003_third.sql").write_text("CREATE TABLE third (); SELECT 1 / 0;")
        with pytest.raises(MigrationError, match=r"0003_third\.sql did not go through: division by zero"):
            apply_migrations(empty_url, migrations=read_migrations(files))
        assert tables(empty) == {"first", "second"}
        (files / "0003_third.sql").write_text("CREATE TABLE third ();")
        assert names(apply_migrations(empty_url, migrations=read_migrations(files))) == ["0003_third.sql"]

    def test_parallel_migrators_both_end_well(self, empty: Database, empty_url: str, files: Path) -> None:
        (files / "0001_first.sql").write_text("SELECT pg_sleep(0.3); CREATE TABLE first (id integer);")
        migrations = read_migrations(files)
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(apply_migrations, empty_url, migrations=migrations) for _ in range(4)]
            applied = [migration for run in runs for migration in run.result()]
        assert sorted(names(applied)) == ["0001_first.sql", "0002_second.sql"]
        assert tables(empty) == {"first", "second"}

    def test_a_comment_may_end_a_file_and_a_percent_sign_is_itself(
        self, empty: Database, empty_url: str, files: Path
    ) -> None:
        (files / "0003_third.sql").write_text(
            "CREATE FUNCTION third() RETURNS text LANGUAGE sql AS $$ SELECT format('%s %%', 1) $$ -- %(end)s"
        )
        apply_migrations(empty_url, migrations=read_migrations(files))
        with empty.one_trip() as connection:
            assert connection.fetch_one("SELECT third() AS text") == {"text": "1 %"}

    def test_a_table_in_use_is_not_waited_for(self, empty: Database, empty_url: str, files: Path) -> None:
        """Whoever waits for an ALTER TABLE lock keeps everyone behind it waiting."""
        migrations = read_migrations(files)
        apply_migrations(empty_url, migrations=migrations[:1])
        (files / "0002_second.sql").write_text("ALTER TABLE first ADD COLUMN name text;")
        migrations = read_migrations(files)
        with empty.transaction() as connection:
            connection.fetch_all("LOCK TABLE first IN ACCESS SHARE MODE")
            with pytest.raises(MigrationError, match=r"0002_second\.sql .* lock timeout"):
                apply_migrations(empty_url, migrations=migrations, lock_timeout=0.05)
        assert names(apply_migrations(empty_url, migrations=migrations)) == ["0002_second.sql"]

    def test_a_slow_statement_is_stopped_unless_it_may_take_longer(self, empty_url: str, files: Path) -> None:
        (files / "0003_third.sql").write_text("SELECT pg_sleep(0.2);")
        migrations = read_migrations(files)
        with pytest.raises(MigrationError, match=r"0003_third\.sql .* statement timeout"):
            apply_migrations(empty_url, migrations=migrations, statement_timeout=0.05)
        applied = apply_migrations(empty_url, migrations=migrations, statement_timeout=2)
        assert names(applied) == ["0003_third.sql"]

    def test_a_changed_file_is_refused(self, empty_url: str, files: Path) -> None:
        apply_migrations(empty_url, migrations=read_migrations(files))
        (files / "0001_first.sql").write_text("CREATE TABLE first (id bigint);")
        with pytest.raises(MigrationError, match=r"0001_first\.sql is not the .* that was applied"):
            apply_migrations(empty_url, migrations=read_migrations(files))

    def test_another_migration_under_the_same_number_is_refused(self, empty_url: str, files: Path) -> None:
        apply_migrations(empty_url, migrations=read_migrations(files))
        (files / "0002_second.sql").rename(files / "0002_other.sql")
        (files / "0002_other.sql").write_text("CREATE TABLE other ();")
        with pytest.raises(MigrationError, match=r"0002_other\.sql is not the 0002_second\.sql"):
            apply_migrations(empty_url, migrations=read_migrations(files))

    def test_a_database_ahead_of_the_package_is_left_alone(self, empty_url: str, files: Path) -> None:
        """The image that still runs starts again while the next one's migration is in (expand, deploy)."""
        migrations = read_migrations(files)
        apply_migrations(empty_url, migrations=migrations)
        assert apply_migrations(empty_url, migrations=migrations[:1]) == []

    def test_a_gap_in_the_database_is_refused(self, empty: Database, empty_url: str, files: Path) -> None:
        apply_migrations(empty_url, migrations=read_migrations(files))
        with empty.one_trip() as connection:
            connection.add("DELETE FROM schema_migrations WHERE version = 1")
        with pytest.raises(MigrationError, match=r"has 0002_second\.sql but not number 0001"):
            apply_migrations(empty_url, migrations=read_migrations(files))

    def test_a_role_without_rights_is_told_so(self, empty: Database, empty_url: str) -> None:
        role = f"stranger_{secrets.token_hex(4)}"
        parts = urlsplit(empty_url)
        with empty.one_trip() as connection:
            connection.add(f"CREATE ROLE {role} LOGIN PASSWORD 'stranger'")
        try:
            url = parts._replace(netloc=f"{role}:stranger@{parts.netloc.rpartition('@')[2]}").geturl()
            with pytest.raises(MigrationError, match="cannot be prepared: permission denied"):
                apply_migrations(url)
        finally:
            with empty.one_trip() as connection:
                connection.add(f"DROP ROLE {role}")

    def test_no_database_is_unavailable_not_broken(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseUnavailable):
            apply_migrations(f"postgresql://nobody@/nothing?host={tmp_path}")


class TestMigrationStatus:
    def test_before_anything_all_are_pending(self, empty_url: str) -> None:
        status = migration_status(empty_url)
        assert [(s.version, s.name, s.applied_at) for s in status] == [
            (m.version, m.name, None) for m in shipped_migrations()
        ]

    def test_applied_and_pending_are_told_apart(self, empty_url: str, files: Path) -> None:
        migrations = read_migrations(files)
        apply_migrations(empty_url, migrations=migrations[:1])
        first, second = migration_status(empty_url, migrations=migrations)
        assert (first.name, second.name) == ("first", "second")
        assert first.applied_at is not None
        assert first.applied_at.utcoffset() is not None
        assert second.applied_at is None

    def test_what_only_the_database_knows_is_listed(self, empty_url: str, files: Path) -> None:
        migrations = read_migrations(files)
        apply_migrations(empty_url, migrations=migrations)
        status = migration_status(empty_url, migrations=migrations[:1])
        assert [s.name for s in status if s.applied_at] == ["first", "second"]


class TestIsCurrent:
    def test_a_migrated_database_is_current_in_one_round_trip(self, database: Database) -> None:
        assert is_current(database)
        assert database.round_trips == 1

    def test_an_empty_database_is_not(self, empty: Database) -> None:
        assert not is_current(empty)

    def test_with_one_missing_it_is_not(self, empty: Database, empty_url: str) -> None:
        apply_migrations(empty_url, migrations=shipped_migrations()[:-1])
        assert not is_current(empty)
        apply_migrations(empty_url)
        assert is_current(empty)

    def test_with_another_checksum_it_is_not(self, empty: Database, empty_url: str) -> None:
        apply_migrations(empty_url)
        with empty.one_trip() as connection:
            connection.add("UPDATE schema_migrations SET checksum = 'other'")
        assert not is_current(empty)

    def test_a_database_ahead_of_the_package_is_current(self, empty: Database, empty_url: str) -> None:
        apply_migrations(empty_url)
        with empty.one_trip() as connection:
            connection.add(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'next', 'next')"
            )
        assert is_current(empty)

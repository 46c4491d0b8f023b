"""The real entry points in processes of their own: a Lambda sandbox, and a server.

Test modules take these classes' types from here under TYPE_CHECKING, and their instances by fixture.
"""

import json
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import httpx2
import pytest

from auth_manager.database import Database
from auth_manager.local.postgres import EmbeddedPostgres, start_embedded
from auth_manager.migrate import apply_migrations

EVENTS = Path(__file__).resolve().parents[2] / "events"
PASSWORD = "a long and dull passphrase"
DEPLOYMENT = {
    "AUTH_MODE": "deployed",
    "AUTH_PUBLIC_URL": "https://auth.example.com",
    "AUTH_SECRET_KEYS": "0123456789abcdefghijklmnopqrstuvwxyz-test-only",
    "AUTH_DOCS_ENABLED": "true",
    # The cheapest hash that the settings allow, so that a race is not a test of the machine.
    "AUTH_ARGON2_MEMORY_KIB": "19456",
    "AUTH_ARGON2_TIME_COST": "2",
}

SANDBOX = """\
import os, pickle, sys
answers = os.fdopen(int(sys.argv[1]), "wb")
from auth_manager.entrypoints.lambda_api import handler
pickle.dump("ready", answers)
answers.flush()
while True:
    try:
        event = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        answer = handler(event, None)
    except BaseException as error:
        answer = error
    pickle.dump(answer, answers)
    answers.flush()
"""


def environment_of(**settings: str) -> dict[str, str]:
    """Our environment with these AUTH_* settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTH_")}
    return {**inherited, **DEPLOYMENT, **settings}


def find_free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Sandbox:
    """One Lambda execution environment: the handler imported once, called with one event at a time."""

    def __init__(self, **settings: str) -> None:
        reading, writing = os.pipe()
        self._output = tempfile.TemporaryFile("w+b")  # noqa: SIM115 -- closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", SANDBOX, str(writing)],
            env=environment_of(**settings),
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            pass_fds=[writing],
        )
        os.close(writing)
        self._answers: IO[bytes] = os.fdopen(reading, "rb")
        try:
            assert pickle.load(self._answers) == "ready"  # noqa: S301 -- our own child
        except EOFError:
            raise RuntimeError(self.output()) from None

    def invoke(self, event: object) -> dict[str, Any]:
        """Return the handler's answer; what it raises is an error of Lambda, and raised here."""
        assert self._process.stdin
        pickle.dump(event, self._process.stdin)
        self._process.stdin.flush()
        answer = pickle.load(self._answers)  # noqa: S301 -- our own child
        if isinstance(answer, BaseException):
            raise answer
        json.dumps(answer)  # as Lambda does
        result: dict[str, Any] = answer
        return result

    def output(self) -> str:
        """Everything the process wrote so far, to standard output and standard error."""
        self._output.seek(0)
        return self._output.read().decode()

    def lines(self) -> list[dict[str, Any]]:
        """The output as the JSON lines it must consist of."""
        return [json.loads(line) for line in self.output().splitlines()]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)
        self._answers.close()
        self._output.close()


class Server:
    """`auth-manager serve` on a free port."""

    def __init__(self, database_url: str, signing_keys: str, **settings: str) -> None:
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115 -- closed in `close`
        started = {
            "AUTH_DATABASE_URL": database_url,
            "AUTH_SIGNING_KEYS": signing_keys,
            **settings,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "auth_manager.entrypoints.cli", "serve", "--port", str(port)],
            env=environment_of(**started),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._wait_until_it_listens(port)

    def _wait_until_it_listens(self, port: int) -> None:
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(self.log())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def client(self, *, timeout: float = 120) -> httpx2.Client:
        """A client with room for as many requests at a time as a test has threads."""
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
        return httpx2.Client(base_url=self.url, timeout=timeout, limits=limits)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def kill(self) -> None:
        """SIGKILL: nothing in the process gets to clean up."""
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()


def run_together(actions: list[Callable[[], httpx2.Response]]) -> list[httpx2.Response]:
    """Run every action in a thread of its own, all let go at once; return the answers in their order."""
    barrier = threading.Barrier(len(actions))
    answers: list[httpx2.Response | BaseException] = [RuntimeError("did not run")] * len(actions)

    def run(position: int) -> None:
        barrier.wait()
        try:
            answers[position] = actions[position]()
        except BaseException as error:  # noqa: BLE001 -- raised below, in the test's thread
            answers[position] = error

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if isinstance(answer, httpx2.Response)]


@pytest.fixture(scope="session")
def together() -> Callable[[list[Callable[[], httpx2.Response]]], list[httpx2.Response]]:
    """`run_together`, for modules that cannot import from a conftest."""
    return run_together


@pytest.fixture(scope="session")
def sandbox_type() -> type[Sandbox]:
    """`Sandbox`, for modules that make their own."""
    return Sandbox


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """`find_free_port`, likewise."""
    return find_free_port


@pytest.fixture(scope="session")
def server_environment() -> Callable[..., dict[str, str]]:
    """`environment_of`, likewise."""
    return environment_of


@pytest.fixture(scope="session")
def server_type() -> type[Server]:
    """`Server`, likewise."""
    return Server


@pytest.fixture
def make_sandbox(
    database: Database,  # noqa: ARG001 -- its tables are empty
    database_url: str,
    signing_keys: str,
) -> Iterator[Callable[..., Sandbox]]:
    """Sandboxes on the run's database; keyword arguments are AUTH_* settings, or other variables."""
    sandboxes: list[Sandbox] = []

    def make(**settings: str) -> Sandbox:
        values = {"AUTH_DATABASE_URL": database_url, "AUTH_SIGNING_KEYS": signing_keys, **settings}
        sandboxes.append(Sandbox(**values))
        return sandboxes[-1]

    yield make
    for sandbox in sandboxes:
        sandbox.close()


@pytest.fixture
def sandbox(make_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """A sandbox with the default settings."""
    return make_sandbox()


@pytest.fixture
def make_server(database_url: str, signing_keys: str) -> Iterator[Callable[..., Server]]:
    """Servers on the run's database; keyword arguments are AUTH_* settings."""
    servers: list[Server] = []

    def make(**settings: str) -> Server:
        servers.append(Server(settings.pop("url", database_url), signing_keys, **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


class OwnPostgres:
    """A PostgreSQL that a test may stop, freeze and start again, with a migrated database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.server: EmbeddedPostgres = start_embedded(directory, durable=False)
        self.url = self.server.url
        apply_migrations(self.url)

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        """Start it again, whether it was stopped or not."""
        self.stop()
        self.server = start_embedded(self._directory, durable=False)

    def backends(self) -> list[int]:
        """The processes that serve connections of ours."""
        rows = self.query(
            "SELECT pid FROM pg_stat_activity"
            " WHERE application_name = 'auth-manager' AND pid <> pg_backend_pid()"
        )
        return [row["pid"] for row in rows]

    def query(self, sql: str) -> list[dict[str, Any]]:
        database = Database(self.url)
        try:
            with database.one_trip() as connection:
                return connection.fetch_all(sql)
        finally:
            database.close()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[OwnPostgres]:
    """One for the tests of a module, each of which leaves it running."""
    with tempfile.TemporaryDirectory(prefix="auth-manager-test-") as directory:
        own = OwnPostgres(Path(directory))
        yield own
        own.stop()


def new_person() -> dict[str, str]:
    """Someone to register, whom nobody registered before."""
    return {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}


@pytest.fixture
def person() -> dict[str, str]:
    """Someone to register."""
    return new_person()


@pytest.fixture(scope="session")
def event_of() -> Callable[..., dict[str, Any]]:
    """Events to invoke with: a file's, with its place-holders replaced and parts overridden."""

    def make(
        name: str,
        *,
        address: str | None = None,
        headers: dict[str, str] | None = None,
        body: object = None,
        path: str | None = None,
        **tokens: str,
    ) -> dict[str, Any]:
        text = (EVENTS / f"{name}.json").read_text(encoding="utf-8")
        for token, value in tokens.items():
            text = text.replace(token.upper(), value)
        event: dict[str, Any] = json.loads(text)
        event["requestContext"]["requestId"] = secrets.token_urlsafe(11) + "="
        event["headers"] |= headers or {}
        http = event["requestContext"]["http"]
        if address:
            http["sourceIp"] = address
        if path:
            http["path"] = event["rawPath"] = path
        if body is not None:
            event["body"] = json.dumps(body)
            event["headers"] |= {"content-type": "application/json"}
        return event

    return make

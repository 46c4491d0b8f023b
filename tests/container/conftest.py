"""The built image, run the way Lambda runs it: under the runtime interface emulator, on a read-only file
system, as a user that exists nowhere, with a PostgreSQL of this machine to call.
"""

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from auth_manager.local.postgres import EmbeddedPostgres, start_embedded
from auth_manager.signing_keys import generate_signing_key, serialize_key_set

PROJECT = Path(__file__).resolve().parents[2]
EVENTS = PROJECT / "events"
IMAGE = "auth-manager:test"
GIT_SHA = "0123abc"
USER = "12345:12345"
READ_ONLY = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108

FIGURES: list[str] = []
"""What a run measured; printed at its end."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for figure in FIGURES:
        terminalreporter.write_line(figure)


def docker(*arguments: str, given: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run docker, given some text to read; return what it printed, standard error included."""
    process = subprocess.run(
        ["docker", *arguments],
        check=False,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        input=given,
        env=env,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


@dataclass(frozen=True, slots=True)
class Function:
    """A container whose function can be invoked."""

    name: str
    url: str

    def send(self, event: str) -> httpx2.Response:
        """Send an event as it is; return the emulator's answer."""
        return httpx2.post(self.url, content=event.encode(), timeout=60)

    def invoke(self, event: str) -> Any:
        """Send an event as it is; return what the function returned."""
        answer = self.send(event)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def output(self) -> str:
        """Everything it has written, with the emulator's own lines."""
        return docker("logs", self.name)


Start = Callable[..., Function]


@pytest.fixture(scope="session")
def sam_local() -> ModuleType:
    """scripts/sam_local.py."""
    spec = importlib.util.spec_from_file_location("sam_local", PROJECT / "scripts/sam_local.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sam_local"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def gateway(sam_local: ModuleType) -> str:
    address: str = sam_local.container_gateway()
    return address


@pytest.fixture(scope="session")
def image() -> str:
    """Built by `docker build`; the tag stays, so that the next run finds its layers."""
    started = time.monotonic()
    docker("build", "--tag", IMAGE, "--build-arg", f"GIT_SHA={GIT_SHA}", str(PROJECT))
    FIGURES.append(f"docker build: {time.monotonic() - started:.1f} s (cached layers included)")
    return IMAGE


@pytest.fixture(scope="session")
def postgres(gateway: str) -> Iterator[EmbeddedPostgres]:
    """Instead of the other tests' server: one that containers reach."""
    with (
        tempfile.TemporaryDirectory(prefix="auth-manager-test-") as directory,
        start_embedded(Path(directory), listen=(gateway, free_port(gateway)), durable=False) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def server_url(postgres: EmbeddedPostgres) -> str:
    return postgres.url


@pytest.fixture(scope="session")
def environment(database_url: str, postgres: EmbeddedPostgres, gateway: str) -> dict[str, str]:
    """What a deployed function is given; every secret in it is a canary."""
    tcp_url = (postgres.tcp_url or "").replace(gateway, "host.docker.internal")
    return {
        "AUTH_MODE": "deployed",
        "AUTH_PUBLIC_URL": "https://auth.example.com",
        "AUTH_DATABASE_URL": urlsplit(tcp_url)._replace(path=urlsplit(database_url).path).geturl(),
        "AUTH_SIGNING_KEYS": json.dumps(json.loads(serialize_key_set([generate_signing_key("RS256")]))),
        "AUTH_SECRET_KEYS": secrets.token_urlsafe(48),
    }


@pytest.fixture(scope="session")
def start(image: str, gateway: str) -> Iterator[Start]:
    """Starts functions; all are removed at the end."""
    with ExitStack() as stack:

        def start_function(
            environment: Mapping[str, str], *, user: str = USER, restrictions: tuple[str, ...] = READ_ONLY
        ) -> Function:
            name = f"auth-manager-test-{secrets.token_hex(4)}"
            stack.callback(docker, "rm", "--force", name)
            docker(
                *("run", "--detach", "--name", name, "--user", user, *restrictions),
                *("--publish", "127.0.0.1::8080", "--add-host", f"host.docker.internal:{gateway}"),
                *("--env", "AWS_LAMBDA_LOG_FORMAT=JSON"),  # LoggingConfig in template.yaml
                *(argument for variable in environment for argument in ("--env", variable)),
                image,
                # The values travel in the environment, not on a command line.
                env={**os.environ, **environment},
            )
            address = docker("port", name, "8080/tcp").split()[0]
            _wait_for_port(address)
            return Function(name, f"http://{address}/2015-03-31/functions/function/invocations")

        yield start_function


@pytest.fixture(scope="session")
def function(start: Start, environment: dict[str, str]) -> Function:
    """The deployed function; most tests share it, as requests share a sandbox."""
    return start(environment)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port


def run_python(image: str, code: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program inside the image, under the restrictions of a function."""
    variables = environment or {}
    return docker(
        *("run", "--rm", "--interactive", "--entrypoint", "python", "--user", USER, *READ_ONLY),
        *(argument for variable in variables for argument in ("--env", variable)),
        *(image, "-", *arguments),
        given=code,
        env={**os.environ, **variables},
    )


def _wait_for_port(address: str) -> None:
    host, port = address.rsplit(":", 1)
    give_up_at = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)
        else:
            return

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from moto import mock_aws

START_TIMEOUT = 60.0


@dataclass
class Running:
    """The command as a process of its own, and what it wrote so far."""

    process: subprocess.Popen[str]
    url: str
    written: list[str] = field(default_factory=list)

    @property
    def output(self) -> str:
        return "".join(self.written)

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return httpx2.request(method, self.url + path, timeout=20, **options)

    def wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT
        while self.process.poll() is None and time.monotonic() < give_up_at:
            with suppress(httpx2.TransportError):
                if self.call("GET", "/health/ready").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"it does not serve: {self.output}")

    def stop(self, number: int) -> float:
        """Signal it; return the seconds it took to end."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(20)
        return time.monotonic() - started


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `auth-manager <arguments> --port <a free one>`; keyword arguments are its AUTH_* variables."""
    running: list[Running] = []
    readers: list[threading.Thread] = []

    def run(*arguments: str, **variables: str) -> Running:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTH_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "auth_manager.entrypoints.cli", *arguments, "--port", str(port)],
            env=inherited | {f"AUTH_{name}": value for name, value in variables.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started = Running(process, f"http://127.0.0.1:{port}")
        running.append(started)
        assert process.stdout is not None
        readers.append(threading.Thread(target=started.written.extend, args=(process.stdout,)))
        readers[-1].start()
        started.wait_until_ready()
        return started

    yield run
    for each, reader in zip(running, readers, strict=True):
        if each.process.poll() is None:
            each.stop(signal.SIGINT)  # a kill would leave its PostgreSQL behind
        reader.join()
        assert each.process.stdout is not None
        each.process.stdout.close()


@pytest.fixture
def function_environment(
    monkeypatch: pytest.MonkeyPatch,
    database: object,  # noqa: ARG001 -- its tables are empty
    database_url: str,
) -> Iterator[None]:
    """What every function finds in its environment, and an AWS to talk to."""
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET_KEYS", "0123456789abcdefghijklmnopqrstuvwxyz-test-only")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield

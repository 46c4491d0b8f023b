"""`sam build` and `sam local start-api`, through scripts/sam_local.py as `make sam-local` runs it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from tests.container.conftest import FIGURES, PROJECT, docker, free_port

pytestmark = pytest.mark.container

# The two lines of docs/api.md, as they stand.
REGISTER = """curl -X POST $API/auth/register -H 'Content-Type: application/json' \
-d '{"email":"test@example.com","username":"testuser","password":"SecurePass123!"}'"""
LOG_IN = """curl -X POST $API/auth/login    -H 'Content-Type: application/json' \
-d '{"email":"test@example.com","password":"SecurePass123!"}'"""


@dataclass(frozen=True, slots=True)
class Served:
    """A running `make sam-local`."""

    process: subprocess.Popen[bytes]
    url: str
    state: Path
    log: Path

    def containers(self) -> list[str]:
        """The containers that sam said it made."""
        marked = (line.split() for line in self.log.read_text().splitlines() if "SAM_CONTAINER_ID:" in line)
        return [words[-1] for words in marked]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    port = free_port("127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="auth-manager-test-") as directory:
        state, log = Path(directory) / "state", Path(directory) / "log"
        command = [sys.executable, str(PROJECT / "scripts/sam_local.py")]
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port), "--state", str(state)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            while b"Ctrl-C stops everything" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() - started < 240, log.read_text()
                time.sleep(0.2)
            FIGURES.append(f"make sam-local until it answers: {time.monotonic() - started:.1f} s")
            yield Served(process, f"http://127.0.0.1:{port}", state, log)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


class TestSamLocal:
    def test_the_curl_lines_of_the_documentation_work(self, served: Served) -> None:
        assert _run(REGISTER, served.url) == (201, "test@example.com")
        assert _run(LOG_IN, served.url) == (200, "test@example.com")
        assert _run(REGISTER, served.url) == (409, "email_taken")

    def test_it_is_in_local_mode_and_ready(self, served: Served) -> None:
        assert httpx2.get(f"{served.url}/health/ready", timeout=30).status_code == 200
        assert httpx2.get(f"{served.url}/docs", timeout=30).status_code == 200
        discovered = httpx2.get(f"{served.url}/.well-known/openid-configuration", timeout=30).json()
        assert discovered["issuer"] == served.url

    def test_what_the_function_is_given_is_for_the_owner_alone(self, served: Served) -> None:
        variables = served.state / "env.json"
        assert variables.stat().st_mode & 0o077 == 0
        names = json.loads(variables.read_text())["ApiFunction"]
        assert "AUTH_DATABASE_URL" in names

    def test_sam_build_makes_the_same_image_as_docker_build(self, served: Served, image: str) -> None:  # noqa: ARG002
        """But for bytecode, which may differ where nothing else does, and the commit."""
        assert _files("apifunction:sam-local") == _files(image)

    def test_an_interrupt_stops_everything(self, served: Served) -> None:
        """The last test here: the containers, the API and PostgreSQL are gone, and it ended well."""
        containers = served.containers()
        assert containers
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 0
        running = docker("ps", "--all", "--quiet", "--no-trunc").split()
        assert not set(containers) & set(running)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(served.url)
        assert not (served.state / "postgres/data/postmaster.pid").exists()


def _run(line: str, api: str) -> tuple[int, str]:
    """Run a line in a shell; return the status, and the e-mail address or the error code of the answer."""
    line += r" --silent --show-error --write-out '\n%{http_code}'"
    output = subprocess.run(
        ["bash", "-c", line],
        check=True,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        env={**os.environ, "API": api},
    ).stdout
    text, status = output.rsplit("\n", 1)
    body = json.loads(text)
    return int(status), body.get("code") or body.get("email") or body["user"]["email"]


def _files(image: str) -> dict[str, str]:
    """Hashes by path."""
    command = "cd /var/task && find . -type f ! -name '*.pyc' -exec sha256sum {} +"
    listed = docker("run", "--rm", "--entrypoint", "sh", image, "-c", command)
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in listed.splitlines())}

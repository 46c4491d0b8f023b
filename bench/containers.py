"""The built image under the Lambda runtime interface emulator, with the share of a CPU that Lambda gives."""

import http.client
import json
import os
import secrets
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bench.report import PROJECT
from bench.service import Send, event_of, free_port, read_answer

PRODUCT = "auth-manager:bench"
HANDLERS = "auth-manager-bench-handlers"
INVOCATIONS = "/2015-03-31/functions/function/invocations"
RESTRICTIONS = ("--user", "12345:12345", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")  # noqa: S108

READ_PEAK = """\
import glob, os
others = {1, os.getpid()}  # the emulator, and this
print(max(
    int(open(path).read().split("VmHWM:")[1].split()[0])
    for path in glob.glob("/proc/[0-9]*/status") if int(path.split("/")[2]) not in others
))
"""
"""Prints the most KiB that the largest process of a container ever had resident."""


@dataclass(frozen=True, slots=True)
class Size:
    """A memory size and the share of a CPU that comes with it (one vCPU at 1,769 MB, in proportion below)."""

    memory_mb: int
    cpus: float


ONE_CPU = Size(1769, 1.0)
DEFAULT = Size(1024, 0.58)


@dataclass(frozen=True, slots=True)
class Handler:
    """What a container runs."""

    image: str
    command: str
    environment: Mapping[str, str]


def product(environment: Mapping[str, str]) -> Handler:
    """Return the product's own handler."""
    return Handler(PRODUCT, "auth_manager.entrypoints.lambda_api.handler", environment)


BARE = Handler(HANDLERS, "bare.handler", {})
EMPTY = Handler(HANDLERS, "empty.handler", {})


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds to the first 200.

    `of_runtime` counts from the start of the Python process, as Lambda's INIT does; `of_container` from the
    word to the engine, whose own work (a third of a second, the same for every handler) is in it.
    """

    of_container: float
    of_runtime: float


class Container:
    """A container, made but not started."""

    def __init__(self, name: str, port: int) -> None:
        self._name = name
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def start(self, event: Mapping[str, Any]) -> Start:
        """Start it, and send the first event.

        The emulator starts the runtime when the first event comes, which is sent when the emulator serves:
        packets sent earlier are lost, and come again a second later.
        """
        asked = time.perf_counter()
        docker("start", self._name)
        self._wait_for_emulator()
        sent = time.perf_counter()
        read_answer(self.invoke(event))
        answered = time.perf_counter()
        return Start(of_container=answered - asked, of_runtime=answered - sent)

    def invoke(self, event: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- JSON
        """Send an event; return what the function returned."""
        self._connection.request("POST", INVOCATIONS, json.dumps(event).encode())
        return json.loads(self._connection.getresponse().read())

    def sender(self) -> Send:
        """Return how requests reach the function."""

        def send(method: str, path: str, body: Mapping[str, object] | None, token: str | None) -> Any:  # noqa: ANN401
            return read_answer(self.invoke(event_of(method, path, body, token)))

        return send

    def peak_mib(self) -> float:
        """Return the most memory that the Python process had resident so far."""
        return int(docker("exec", self._name, "python", "-c", READ_PEAK)) / 1024

    def _wait_for_emulator(self) -> None:
        """Ask for a path that it does not have, which starts nothing."""
        give_up_at = time.monotonic() + 30
        while True:
            try:
                self._connection.request("GET", "/")
                self._connection.getresponse().read()
            except (ConnectionError, http.client.HTTPException):
                self._connection.close()
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.01)
            else:
                return


def docker(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run docker; return what it printed on standard output.

    Raises:
        CalledProcessError: it failed; `stderr` says why.
    """
    return subprocess.run(
        ["docker", *arguments],
        check=True,
        text=True,
        capture_output=True,
        env={**os.environ, **(env or {})},
    ).stdout


def is_available() -> bool:
    """Tell whether a Docker engine answers."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def build_images() -> None:
    """Build the product's image, and on its layers the one with the handlers it is compared with."""
    docker("build", "--quiet", "--tag", PRODUCT, str(PROJECT))
    docker(
        *("build", "--quiet", "--tag", HANDLERS, "--build-arg", f"PRODUCT={PRODUCT}"),
        str(PROJECT / "bench/handlers"),
    )


def image_mb() -> float:
    """Return the size of the product's image, base image included, in megabytes."""
    return int(docker("image", "inspect", PRODUCT, "--format", "{{.Size}}")) / 1e6


@contextmanager
def container(handler: Handler, size: Size, gateway: str) -> Generator[Container]:
    """Make a container of a handler; it is removed at the end, whatever happened."""
    name = f"auth-manager-bench-{secrets.token_hex(4)}"
    port = free_port()
    try:
        docker(
            *("create", "--name", name, *RESTRICTIONS),
            *("--cpus", str(size.cpus), "--memory", f"{size.memory_mb}m"),
            *("--publish", f"127.0.0.1:{port}:8080", "--add-host", f"host.docker.internal:{gateway}"),
            *("--env", "AWS_LAMBDA_LOG_FORMAT=JSON"),
            *("--env", f"AWS_LAMBDA_FUNCTION_MEMORY_SIZE={size.memory_mb}"),
            # The values travel in the environment, not on a command line.
            *(argument for variable in handler.environment for argument in ("--env", variable)),
            *(handler.image, handler.command),
            env=handler.environment,
        )
        yield Container(name, port)
    finally:
        with suppress(subprocess.CalledProcessError):  # interrupted before it was made
            docker("rm", "--force", name)


def reachable_by_containers(url: str, gateway: str) -> str:
    """Return a database URL as a container has to call it."""
    return url.replace(gateway, "host.docker.internal")

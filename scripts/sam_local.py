# ruff: noqa: INP001 -- a script is no package
"""`make sam-local`: the image that Lambda runs, behind `sam local start-api`, on a PostgreSQL of its own.

Everything is kept under `.local/sam-local/`: data, keys, the build, and what the function's environment is
given (readable by the owner only). Ctrl-C stops everything; the users stay.
"""

import argparse
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from auth_manager.entrypoints.local import FIRST_CALLS
from auth_manager.local.keys import load_or_generate_local_keys
from auth_manager.local.postgres import NotStarted, start_embedded
from auth_manager.migrate import MigrationError, apply_migrations

PROJECT = Path(__file__).resolve().parent.parent
FUNCTION = "ApiFunction"
"""Its logical id in template.yaml."""

THIS_MACHINE = "host.docker.internal"
"""How the function calls the machine it runs on; Docker Desktop's own name for it."""

LOOPBACK = "127.0.0.1"


def main() -> None:
    """Serve until Ctrl-C."""
    arguments = _parse_arguments()
    # Said outright: what was started without job control is born deaf to SIGINT, and so would sam be.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _interrupt)
    if shutil.which(arguments.sam) is None:
        sys.exit(
            f"sam-local: {arguments.sam} is not there: `make sam-local` installs it, or name yours with --sam"
        )
    try:
        serve(sam=arguments.sam, port=arguments.port, state=arguments.state.resolve())
    except KeyboardInterrupt:
        pass
    except (NotStarted, MigrationError, subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"sam-local: {error}")


def serve(*, sam: str, port: int, state: Path) -> None:
    """Start the database, migrate it, build the image, and serve it until sam ends or is interrupted.

    Raises:
        NotStarted: PostgreSQL did not.
        CalledProcessError: Docker is not there, or the build failed.
    """
    address = container_gateway()
    with start_embedded(state / "postgres", listen=(address, _free_port(address))) as postgres:
        apply_migrations(postgres.url)
        url = f"http://{LOOPBACK}:{port}"
        environment = function_environment(
            state=state, public_url=url, database_url=(postgres.tcp_url or "").replace(address, THIS_MACHINE)
        )
        variables = _write_privately(state / "env.json", json.dumps({FUNCTION: environment}))
        build = state / "build"
        _run_sam(sam, "build", "--build-dir", str(build), "--parameter-overrides", "GitSha=sam-local")
        command = [
            *("local", "start-api", "--template", str(build / "template.yaml")),
            *("--host", LOOPBACK, "--port", str(port), "--env-vars", str(variables)),
            *("--warm-containers", "EAGER"),
        ]
        if address != LOOPBACK:
            command += ["--add-host", f"{THIS_MACHINE}:{address}"]
        with _running([sam, *command]) as process:
            if _answers(f"{url}/health", process):
                sys.stdout.write("\n" + FIRST_CALLS.format(url=url, state=state))
                sys.stdout.flush()
            process.wait()


def function_environment(*, state: Path, public_url: str, database_url: str) -> dict[str, str]:
    """Return the AUTH_* variables of a function on this machine; the keys are made at the first call."""
    keys = load_or_generate_local_keys(state / "keys")
    signing_keys = json.loads(keys.signing_keys_file.read_text(encoding="ascii"))
    return {
        "AUTH_MODE": "local",
        "AUTH_PUBLIC_URL": public_url,
        "AUTH_DATABASE_URL": database_url,
        "AUTH_SIGNING_KEYS": json.dumps(signing_keys),
        "AUTH_SECRET_KEYS": ",".join(keys.secret_keys),
        "AUTH_DOCS_ENABLED": "true",
        # What the template refers to is not there.
        "AUTH_DATABASE_SECRET_ARN": "",
        "AUTH_SIGNING_KEYS_SECRET_ARN": "",
        "AUTH_SECRET_KEYS_SECRET_ARN": "",
        "AUTH_OUTBOX_QUEUE_URL": "",
    }


def container_gateway() -> str:
    """Return an address of this machine that containers reach, and nothing outside it does.

    On Linux it is the bridge's; where Docker runs in a virtual machine (Docker Desktop), the bridge is in
    there, and `host.docker.internal` leads to this machine's loopback.

    Raises:
        CalledProcessError: Docker does not answer.
    """
    inspected = subprocess.run(
        ["docker", "network", "inspect", "bridge"],  # noqa: S607 -- wherever the PATH has it
        check=True,
        stdout=subprocess.PIPE,
    )
    for pool in json.loads(inspected.stdout)[0]["IPAM"]["Config"]:
        gateway = pool.get("Gateway") or str(next(ipaddress.ip_network(pool["Subnet"]).hosts()))
        with suppress(OSError):  # not an address of this machine
            _free_port(gateway)
            return gateway
    return LOOPBACK


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=3000, help="port of the API (default: 3000)")
    parser.add_argument("--sam", default=str(PROJECT / ".venv-tools/bin/sam"), help="the sam command")
    parser.add_argument("--state", type=Path, default=PROJECT / ".local/sam-local", help="where all is kept")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port


def _write_privately(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def _sam_environment() -> dict[str, str]:
    """Return our environment with what sam wants: a region, though nothing here calls AWS."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "eu-central-1"
    return {
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_CONTAINER_CONNECTION_TIMEOUT": "60",
        **os.environ,
        "AWS_DEFAULT_REGION": region,
    }


def _run_sam(*command: str) -> None:
    subprocess.run(command, cwd=PROJECT, env=_sam_environment(), check=True)  # noqa: S603 -- no shell, our arguments


@contextmanager
def _running(command: Sequence[str]) -> Generator[subprocess.Popen[bytes]]:
    """Run sam until the block ends; it removes its containers when it is interrupted, once."""
    process = subprocess.Popen(  # noqa: S603 -- as above
        command,
        cwd=PROJECT,
        env=_sam_environment(),
        # Ctrl-C reaches us alone: a second interrupt would stop sam from cleaning up.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the API answers; False when sam ended first."""
    while process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(url, timeout=60).close()  # noqa: S310 -- http, on the loopback
            return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    main()

"""Server mode: latency of one client, throughput of eight, beside other services on the same PostgreSQL."""

import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from auth_manager.settings import Settings
from bench.peers.people import BetterAuth, FastapiUsers, Peer, auth_manager
from bench.report import PROJECT, RESULTS, Cell, Report, Table, Target, ratio
from bench.samples import Action, median_ms, take_turns
from bench.service import PASSWORD, create_database, default_hasher, environment_of, free_port, postgres

LATENCY = "Server mode, latency of one client"
THROUGHPUT = "Server mode, throughput of eight clients"
TABLES = (LATENCY, THROUGHPUT)

CLIENTS = 8
REQUESTS = ("me", "refresh", "log_in", "register")
OURS = "Auth Manager"
FASTAPI_USERS = "fastapi-users"
BETTER_AUTH = "better-auth"
HASH_LOOP = "hash loop of one thread"
POOL_SIZE: int = Settings.model_fields["database_pool_size"].default


@dataclass(frozen=True, slots=True)
class Service:
    """A running server; `arrive` makes a person of it, with a connection of their own."""

    name: str
    arrive: Callable[[], Peer]
    database_url: str = ""


def measure(*, quick: bool = False, peers: Sequence[str] = ()) -> Report:
    """Measure ours, fastapi-users, and the other peers asked for, round by round in turns."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        services = [
            stack.enter_context(auth_manager_server(server.url)),
            stack.enter_context(_fastapi_users(server.url)),
        ]
        skipped = []
        if BETTER_AUTH in peers:
            if shutil.which("npm") and shutil.which("node"):
                services.append(stack.enter_context(_better_auth(server.url)))
            else:
                skipped.append("better-auth: no node or npm here")
        latencies = _measure_latency(services, rounds=30 if quick else 150)
        throughputs = _measure_throughput(services, rounds=1 if quick else 5, seconds=1 if quick else 2)
    return _report([service.name for service in services], latencies, throughputs, skipped)


def _measure_latency(services: Sequence[Service], *, rounds: int) -> dict[str, list[float]]:
    people = {service.name: arrived(service) for service in services}
    actions = {
        f"{name}: {request}": getattr(person, request)
        for request in REQUESTS
        for name, person in people.items()
    }
    return take_turns(actions, rounds=rounds)


def _measure_throughput(
    services: Sequence[Service], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Return requests a second of each round; the hash loop has a turn in each, too."""
    hasher = default_hasher()
    stored = hasher.hash(PASSWORD)
    found: dict[str, list[float]] = {}
    people = {service.name: [arrived(service) for _ in range(CLIENTS)] for service in services}
    for _ in range(rounds):
        rate = rate_of([lambda: hasher.verify(stored, PASSWORD)], seconds)
        found.setdefault(HASH_LOOP, []).append(rate)
        for request in ("me", "refresh", "log_in"):
            for name, group in people.items():
                rate = rate_of([getattr(person, request) for person in group], seconds)
                found.setdefault(f"{name}: {request}", []).append(rate)
    return found


def rate_of(actions: Sequence[Action], seconds: float) -> float:
    """Repeat actions, each in a thread of its own; return how many a second all of them did."""
    ready = threading.Barrier(len(actions))

    def repeat(action: Action) -> float:
        ready.wait()
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            action()
            done += 1
        return done / elapsed

    with ThreadPoolExecutor(len(actions)) as threads:
        return sum(threads.map(repeat, actions))


def arrived(service: Service) -> Peer:
    """Return a new person of a server, who is logged in."""
    person = service.arrive()
    person.register()
    person.log_in()
    return person


@contextmanager
def auth_manager_server(server_url: str) -> Generator[Service]:
    """Run ours on a database of its own."""
    url = create_database(server_url, "auth_manager")
    with _serving("auth_manager.entrypoints.cli", "serve", environment=environment_of(url)) as port:
        yield Service(OURS, lambda: auth_manager(port), url)


@contextmanager
def _fastapi_users(server_url: str) -> Generator[Service]:
    url = create_database(server_url, "fastapi_users", migrated=False).replace("://", "+asyncpg://")
    factory = "bench.peers.fastapi_users_app:create_app"
    options = ("--factory", factory, "--no-access-log", "--log-level", "warning")
    with _serving("uvicorn", *options, environment={"PEER_DATABASE_URL": url}) as port:
        yield Service(FASTAPI_USERS, lambda: FastapiUsers(port))


@contextmanager
def _better_auth(server_url: str) -> Generator[Service]:
    """Install it under `.bench/` and run it."""
    directory = RESULTS / "better_auth"
    shutil.copytree(PROJECT / "bench/peers/better_auth", directory, dirs_exist_ok=True)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"],
        cwd=directory,
        check=True,
    )
    hasher, port = default_hasher(), free_port()
    environment = {
        "PEER_DATABASE_URL": create_database(server_url, "better_auth", migrated=False),
        "PEER_HASH": json.dumps(
            {
                "memory_kib": hasher.memory_cost,
                "time_cost": hasher.time_cost,
                "parallelism": hasher.parallelism,
            }
        ),
        "PEER_POOL_SIZE": str(POOL_SIZE),
        "PEER_SECRET": secrets.token_urlsafe(32),
        "PEER_URL": f"http://127.0.0.1:{port}",
        "NODE_ENV": "production",
    }
    with _running(["node", str(directory / "server.mjs")], environment, port):
        yield Service(BETTER_AUTH, lambda: BetterAuth(port))


@contextmanager
def _serving(module: str, *arguments: str, environment: Mapping[str, str]) -> Generator[int]:
    """Run a Python server until the block ends; return its port."""
    port = free_port()
    with _running([sys.executable, "-m", module, *arguments, "--port", str(port)], environment, port):
        yield port


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], port: int) -> Generator[None]:
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, **environment},
        # Ctrl-C is for us: clients are to be gone before their server is.
        start_new_session=True,
    )
    try:
        _wait_until_it_listens(process, port)
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)
        else:
            return


def _report(
    names: Sequence[str],
    latencies: Mapping[str, Sequence[float]],
    throughputs: Mapping[str, Sequence[float]],
    skipped: list[str],
) -> Report:
    milliseconds = {key: median_ms(found) for key, found in latencies.items()}
    rates = {key: statistics.median(found) for key, found in throughputs.items()}
    peers = [name for name in names if name != OURS]
    targets = [
        Target(
            f"{request}: latency of {peer} / ours",
            milliseconds[f"{peer}: {request}"] / milliseconds[f"{OURS}: {request}"],
            2,
            at_least=True,
        )
        for peer in peers
        for request in ("me", "refresh")
    ]
    logins = rates[f"{OURS}: log_in"] / rates[HASH_LOOP]
    targets.append(
        Target("logins a second of eight clients / hashes of one thread", logins, 1.8, at_least=True)
    )
    return Report(
        [
            Table(LATENCY, ("request", *_columns(names, "ms")), _rows(names, REQUESTS, milliseconds)),
            Table(
                THROUGHPUT,
                ("request", *_columns(names, "a second")),
                [
                    *_rows(names, ("me", "refresh", "log_in"), rates),
                    (HASH_LOOP, rates[HASH_LOOP], *[None] * 2 * len(peers)),
                ],
            ),
        ],
        targets,
        {f"latency, {key}": found for key, found in latencies.items()},
        skipped,
    )


def _columns(names: Sequence[str], unit: str) -> list[str]:
    return [
        f"{names[0]}, {unit}",
        *(column for name in names[1:] for column in (f"{name}, {unit}", "/ ours")),
    ]


def _rows(
    names: Sequence[str], requests: Sequence[str], figures: Mapping[str, float]
) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for request in requests:
        ours, *others = (figures[f"{name}: {request}"] for name in names)
        compared = [cell for other in others for cell in (other, ratio(other, ours))]
        rows.append((request, ours, *compared))
    return rows

"""Cold start: from the start of a container to its first 200, beside a bare handler and an empty FastAPI."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import containers
from bench.containers import BARE, DEFAULT, EMPTY, ONE_CPU, Handler, Size, Start
from bench.report import Cell, Report, Table, Target, ratio
from bench.samples import median_ms
from bench.service import (
    PASSWORD,
    create_database,
    default_hasher,
    environment_of,
    event_of,
    new_person,
    open_in_process,
    postgres,
)
from scripts.sam_local import container_gateway

COLD_START = "Cold start"
PEAK_MEMORY = "Peak memory of the function's process"
TABLES = (COLD_START, PEAK_MEMORY)

BARE_NAME = "bare handler"
EMPTY_NAME = "empty FastAPI + Mangum"
HEALTH_NAME = "Auth Manager, /health"
LOGIN_NAME = "Auth Manager, /auth/login"

HEALTH = event_of("GET", "/health", None, None)
MOST_MIB = 90


@dataclass(frozen=True, slots=True)
class Case:
    """A handler and the first event it gets."""

    handler: Handler
    event: Mapping[str, Any]


def measure(*, quick: bool = False) -> Report:
    """Start containers, one after the other and in turns; the first of each kind only warms the disk."""
    if not containers.is_available():
        return Report([], skipped=["cold start: no Docker engine answers"])
    containers.build_images()
    gateway = container_gateway()
    with postgres(gateway) as server:
        url = create_database(server.url, "cold_start")
        environment = environment_of(url)
        email = new_person(open_in_process(environment)).email
        tcp = (server.tcp_url or "").rsplit("/", 1)[0] + "/cold_start"
        product = containers.product(
            environment | {"AUTH_DATABASE_URL": containers.reachable_by_containers(tcp, gateway)}
        )
        log_in = event_of("POST", "/auth/login", {"email": email, "password": PASSWORD}, None)
        cases = {
            BARE_NAME: Case(BARE, HEALTH),
            EMPTY_NAME: Case(EMPTY, HEALTH),
            HEALTH_NAME: Case(product, HEALTH),
            LOGIN_NAME: Case(product, log_in),
        }
        return _measure(
            cases, gateway, sizes=(ONE_CPU,) if quick else (ONE_CPU, DEFAULT), rounds=3 if quick else 9
        )


def _measure(cases: Mapping[str, Case], gateway: str, *, sizes: tuple[Size, ...], rounds: int) -> Report:
    starts: dict[tuple[str, Size], list[Start]] = {(name, size): [] for name in cases for size in sizes}
    peaks: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for (name, size), found in starts.items():
            case = cases[name]
            with containers.container(case.handler, size, gateway) as container:
                start = container.start(case.event)
                if number:
                    found.append(start)
                    peaks[name].append(container.peak_mib())
    rows: list[tuple[Cell, ...]] = []
    targets = []
    for size in sizes:
        label = f"{size.memory_mb} MB, {size.cpus:g} vCPU"
        runtime = {name: median_ms([start.of_runtime for start in starts[name, size]]) for name in cases}
        whole = {name: median_ms([start.of_container for start in starts[name, size]]) for name in cases}
        rows += [
            (
                f"{name} ({label})",
                runtime[name],
                min(start.of_runtime for start in starts[name, size]) * 1000,
                ratio(runtime[name], runtime[BARE_NAME]),
                ratio(runtime[name], runtime[EMPTY_NAME]),
                whole[name],
                ratio(whole[name], whole[EMPTY_NAME]),
            )
            for name in cases
        ]
        for of, medians in (("container", whole), ("runtime", runtime)):
            over = medians[HEALTH_NAME] / medians[EMPTY_NAME]
            targets.append(Target(f"cold start from the {of}'s start / {EMPTY_NAME}, {label}", over, 1.15))
    hash_mib = default_hasher().memory_cost / 1024
    memory = {name: statistics.median(found) for name, found in peaks.items()}
    less_hash = memory[LOGIN_NAME] - hash_mib
    targets.append(Target("peak memory after a first login, less the hash's own, MiB", less_hash, MOST_MIB))
    columns = ("first 200 of", "median ms", "best ms", "/ bare", "/ empty", "with container ms", "/ empty")
    return Report(
        [
            Table(COLD_START, columns, rows),
            Table(
                PEAK_MEMORY,
                ("after the first 200 of", "MiB"),
                [*memory.items(), ("of these, one hash", hash_mib), ("the image, MB", containers.image_mb())],
            ),
        ],
        targets,
        {
            f"{name}, {size.memory_mb} MB": [start.of_runtime for start in found]
            for (name, size), found in starts.items()
        },
    )

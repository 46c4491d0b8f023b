"""The warm path: requests to a handler that has answered some already, in process and in the emulator."""

from collections.abc import Mapping
from contextlib import ExitStack

from bench import containers
from bench.report import Cell, Report, Table, Target, ratio
from bench.samples import Action, median_ms, percentile_ms, take_turns
from bench.service import (
    PASSWORD,
    Send,
    create_database,
    default_hasher,
    environment_of,
    event_of,
    new_person,
    open_in_process,
    postgres,
)
from scripts.sam_local import container_gateway

IN_PROCESS = "Warm path, in process"
EMULATOR = "Warm path, through the emulator at 1 vCPU"
TABLES = (IN_PROCESS, EMULATOR)

HASHED = ("/auth/login", "/auth/register")


def measure(*, quick: bool = False) -> Report:
    """Measure both."""
    rounds = 40 if quick else 250
    with ExitStack() as stack:
        docker = containers.is_available()
        gateway = container_gateway() if docker else None
        server = stack.enter_context(postgres(gateway))
        url = create_database(server.url, "warm_path")
        environment = environment_of(url)
        in_process = _measure_in_process(open_in_process(environment), rounds)
        if gateway is None:
            return _report(in_process, {}, ["warm path through the emulator: no Docker engine answers"])
        containers.build_images()
        tcp = (server.tcp_url or "").rsplit("/", 1)[0] + "/warm_path"
        reachable = {"AUTH_DATABASE_URL": containers.reachable_by_containers(tcp, gateway)}
        emulated = _measure_emulated(containers.product(environment | reachable), gateway, rounds)
        return _report(in_process, emulated, [])


def _requests(send: Send) -> dict[str, Action]:
    """Return the requests of one person, and the registrations of many others."""
    person, others = new_person(send), new_person(send)
    return {
        "/health": person.health,
        "/auth/me": person.me,
        "/auth/refresh": person.refresh,
        "/auth/sessions": person.sessions,
        "/auth/login": new_person(send).log_in,
        "/auth/register": others.register,
    }


def _measure_in_process(send: Send, rounds: int) -> dict[str, list[float]]:
    hasher = default_hasher()
    stored = hasher.hash(PASSWORD)
    return take_turns(
        {"bare hash": lambda: hasher.verify(stored, PASSWORD), **_requests(send)}, rounds=rounds, warm_up=10
    )


def _measure_emulated(product: containers.Handler, gateway: str, rounds: int) -> dict[str, list[float]]:
    hasher = default_hasher()
    asked = {
        "hash": {
            "memory_kib": hasher.memory_cost,
            "time_cost": hasher.time_cost,
            "parallelism": hasher.parallelism,
        }
    }
    with (
        containers.container(containers.BARE, containers.ONE_CPU, gateway) as bare,
        containers.container(product, containers.ONE_CPU, gateway) as function,
    ):
        bare.start({})
        function.start(event_of("GET", "/health", None, None))
        return take_turns(
            {
                "bare invocation": lambda: bare.invoke({}),
                "bare invocation with a hash": lambda: bare.invoke(asked),
                **_requests(function.sender()),
            },
            rounds=rounds,
            warm_up=10,
        )


def _report(
    in_process: Mapping[str, list[float]], emulated: Mapping[str, list[float]], skipped: list[str]
) -> Report:
    tables = [_table(IN_PROCESS, in_process, "bare hash", "bare hash")]
    targets = [
        Target(f"{name} / bare hash, in process", _ratio(in_process, name, "bare hash"), 1.12)
        for name in HASHED
    ]
    if emulated:
        tables.append(_table(EMULATOR, emulated, "bare invocation", "bare invocation with a hash"))
        targets += [
            Target(
                f"{name} / bare invocation with a hash, emulator",
                _ratio(emulated, name, "bare invocation with a hash"),
                1.20,
            )
            for name in HASHED
        ]
    samples = {f"in process {name}": found for name, found in in_process.items()}
    samples |= {f"emulator {name}": found for name, found in emulated.items()}
    return Report(tables, targets, samples, skipped)


def _ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    return median_ms(seconds[name]) / median_ms(seconds[base])


def _table(title: str, seconds: Mapping[str, list[float]], light: str, hashed: str) -> Table:
    """Compare what hashes with `hashed`, the rest with `light`."""
    rows: list[tuple[Cell, ...]] = []
    for name, found in seconds.items():
        base = hashed if name in HASHED else light
        over = ratio(median_ms(found), median_ms(seconds[base]))
        rows.append((name, median_ms(found), percentile_ms(found, 95), over, base))
    return Table(title, ("request", "median ms", "p95 ms", "ratio", "over"), rows)

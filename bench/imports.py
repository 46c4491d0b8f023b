"""`make bench-import`: users from a file, and back into one, beside a bare COPY of the same rows."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from rich.console import Console

from auth_manager.database import Database
from bench import report
from bench.report import Cell, Report, Table, Target
from bench.service import create_database, default_hasher, environment_of, postgres

TABLE = "Moving in and out"
MEMORY_MIB = 200
RATIO = 3.0
USERS = 1_000_000
SAMPLE = 0.1
"""Seconds between two looks at a program's memory."""


def main() -> None:
    """Measure, print, and write `.bench/imports.json`."""
    parser = argparse.ArgumentParser(prog="python -m bench.imports", description=(__doc__ or "").strip())
    parser.add_argument("--users", type=int, default=USERS, help="users of the file (default: 1,000,000)")
    arguments = parser.parse_args()
    machine = report.describe_machine()
    console = Console()
    console.print("  ".join(f"{name}: {value}" for name, value in machine.items()), highlight=False)
    found = measure(arguments.users)
    report.show(console, found)
    report.show_targets(console, found.targets)
    report.write("imports", found, machine=machine, options=vars(arguments))


def measure(users: int) -> Report:
    """Import a file, copy the rows it led to into an empty database, and export them."""
    with postgres() as server, tempfile.TemporaryDirectory(prefix="auth-manager-bench-") as name:
        directory = Path(name)
        directory.chmod(0o777)  # the server is another user
        users_file = str(directory / "users.jsonl")
        write_users(Path(users_file), users)
        imported_to = create_database(server.url, "bench_imported")
        environment = os.environ | environment_of(imported_to)
        imported = run(
            server.pid, ["import", str(directory / "users.jsonl"), "--from", "json", "--json"], environment
        )
        created = json.loads(imported.output)["created"]
        if created != users:
            raise RuntimeError(f"{created} of {users} users were imported: {imported.output}")
        execute(imported_to, f"COPY auth_manager.accounts TO '{directory / 'rows'}'")
        # Twice, and the faster counts: what else the machine did meanwhile shall not flatter the import.
        copies = [
            time_bare_copy(
                server.pid, create_database(server.url, f"bench_copied_{number}"), directory / "rows"
            )
            for number in range(2)
        ]
        exported = run(server.pid, ["export", str(directory / "back.jsonl"), "--json"], environment)
    copied = min(copies, key=lambda copy: copy.seconds)
    slower = max(copies, key=lambda copy: copy.seconds)
    named = (("COPY, faster", copied), ("COPY, slower", slower), ("import", imported), ("export", exported))
    rows = [(what, *figures(done, users, copied)) for what, done in named]
    columns = (
        "what", "seconds", "users/s", "to COPY", "own CPU s", "server CPU s", "CPU to COPY",
        "early MiB", "MiB",
    )  # fmt: skip
    return Report(
        tables=[Table(f"{TABLE}: {users:,} users", columns, rows)],
        targets=[
            Target("import to a bare COPY of the same rows", imported.seconds / copied.seconds, RATIO),
            Target("memory of the import, MiB", imported.peak_mib, MEMORY_MIB),
            Target("memory of the export, MiB", exported.peak_mib, MEMORY_MIB),
        ],
    )


@dataclass(frozen=True, slots=True)
class Done:
    """What ended: processor time is the command's own and the server's, which other programs change less."""

    seconds: float
    own_cpu: float
    server_cpu: float
    output: str = ""
    early_peak_mib: float | None = None
    peak_mib: float = 0.0


def run(server_pid: int, arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    """Run an `auth-manager` command to its end; its memory is that of its children, too."""
    own, server, started = os.times(), _cpu_of_server(server_pid), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "auth_manager.entrypoints.cli", *arguments],
        env=dict(environment),
        stdout=subprocess.PIPE,
        text=True,
    )
    resident = [0.0]
    while process.poll() is None:
        resident.append(_resident_mib(process.pid))
        time.sleep(SAMPLE)
    seconds, after = time.monotonic() - started, os.times()
    output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"auth-manager {arguments[0]} ended with {process.returncode}: {output}")
    return Done(
        seconds,
        own_cpu=after.children_user + after.children_system - own.children_user - own.children_system,
        server_cpu=_cpu_of_server(server_pid) - server,
        output=output,
        early_peak_mib=max(resident[: max(len(resident) // 3, 1)]),
        peak_mib=max(resident),
    )


def _resident_mib(pid: int) -> float:
    try:
        own = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (own, *own.children(recursive=True))) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def _cpu_of_server(pid: int) -> float:
    """Return the processor seconds of the server and all its processes, those that ended included."""
    own = psutil.Process(pid)
    ended = own.cpu_times()
    total = ended.user + ended.system + ended.children_user + ended.children_system
    for child in own.children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system
    return total


def figures(done: Done, users: int, copied: Done) -> tuple[Cell, ...]:
    """Return the columns of what ended."""
    return (
        done.seconds,
        users / done.seconds,
        done.seconds / copied.seconds,
        done.own_cpu,
        done.server_cpu,
        (done.own_cpu + done.server_cpu) / copied.server_cpu,
        done.early_peak_mib,
        done.peak_mib or None,
    )


def time_bare_copy(server_pid: int, database_url: str, rows: Path) -> Done:
    """Copy from a file of the server's own: nothing travels."""
    server, started = _cpu_of_server(server_pid), time.monotonic()
    execute(database_url, f"COPY auth_manager.accounts FROM '{rows}'")
    seconds = time.monotonic() - started
    time.sleep(1)  # its process ends, and is waited for
    return Done(seconds, own_cpu=0.0, server_cpu=_cpu_of_server(server_pid) - server)


def execute(database_url: str, sql: str) -> None:
    """Run a statement that may take minutes."""
    database = Database(database_url, deadline=1800, session_options=False)
    with database.one_trip() as connection:
        connection.add(sql)
    database.close()


def write_users(path: Path, users: int) -> None:
    """Write users as an export has them, the same in every run, in no order that an index would like."""
    numbers = random.Random(7)  # noqa: S311 -- the same in every run
    password_hash = default_hasher().hash("SecurePass123!")
    start = datetime(2020, 1, 1, tzinfo=UTC)
    names = list(range(users))
    numbers.shuffle(names)
    with path.open("w", encoding="utf-8") as file:
        for number, name in enumerate(names):
            created = start + timedelta(minutes=2 * number)
            user = {
                "email": f"Person.{name:07}@{numbers.choice(('example.com', 'mail.example.org'))}",
                "email_verified_at": (created + timedelta(hours=1)).isoformat(),
                "username": f"person{name:07}",
                "display_name": f"Zoë Person {name}",
                "locale": numbers.choice(("en", "fr", "de-CH")),
                "attributes": {"plan": numbers.choice(("free", "paid")), "seats": numbers.randrange(50)},
                "created_at": created.isoformat(),
                "password_hash": password_hash,
            }
            file.write(json.dumps(user, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""`make profile`: what a cold start imports, and where a warm request spends its time."""

import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from pyinstrument import Profiler
from pyinstrument.renderers import HTMLRenderer
from rich.console import Console

from bench.report import PROJECT, RESULTS, Report, Table, show
from bench.service import create_database, environment_of, new_person, open_in_process, postgres

IMPORTS = "Largest import costs of a cold start"
TABLES = (IMPORTS,)

ENTRY_POINT = "auth_manager.entrypoints.lambda_api"
LARGEST = 10
RUNS = 5
SECONDS = 3.0
"""Of each request in the flame graph; they have equal shares."""


def main() -> None:
    """Write `.bench/imports.txt`, `.bench/modules.txt` and `.bench/flame-*.html`."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as terminal:
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / "service.log").open("wb") as log:
            os.dup2(log.fileno(), 1)
        console = Console(file=terminal)
        with postgres() as server:
            environment = environment_of(create_database(server.url, "profile"))
            show(console, Report([_write_imports(environment)]))
            for path in _write_flames(environment):
                console.print(f"wrote {path.relative_to(PROJECT)}", highlight=False)


def _write_imports(environment: Mapping[str, str]) -> Table:
    """Write the import tree; return the projects whose modules take longest, medians of a few runs."""
    costs: defaultdict[str, list[float]] = defaultdict(list)
    tree = ""
    for _ in range(RUNS):
        tree = _import_tree(environment)
        for project, microseconds in _cost_of_projects(tree).items():
            costs[project].append(microseconds)
    (RESULTS / "imports.txt").write_text(tree, encoding="utf-8")
    modules = sorted(line.rsplit("|", 1)[1].strip() for line in tree.splitlines()[1:])
    (RESULTS / "modules.txt").write_text("\n".join(modules) + "\n", encoding="utf-8")
    medians = {project: sorted(found)[len(found) // 2] / 1000 for project, found in costs.items()}
    largest = sorted(medians.items(), key=lambda item: -item[1])[:LARGEST]
    return Table(
        IMPORTS,
        ("project", "its own modules, ms"),
        [*largest, (f"all, {len(modules)} modules", sum(medians.values()))],
    )


def _import_tree(environment: Mapping[str, str]) -> str:
    """Return what `-X importtime` says of the entry point."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {ENTRY_POINT}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stderr


def _cost_of_projects(tree: str) -> Counter[str]:
    """Add up the microseconds of each project's own modules; Python's own count as one."""
    costs: Counter[str] = Counter()
    for line in tree.splitlines()[1:]:
        own, _, name = line.removeprefix("import time:").split("|")
        project = name.strip().partition(".")[0]
        costs["Python's own" if project in sys.stdlib_module_names else project] += int(own)
    return costs


def _write_flames(environment: Mapping[str, str]) -> list[Path]:
    """Write a flame graph of each request (open the file, choose "Timeline")."""
    person = new_person(open_in_process(environment))
    paths = []
    for name, action in {"me": person.me, "refresh": person.refresh, "login": person.log_in}.items():
        action()
        profiler = Profiler(interval=0.0002, async_mode="disabled")
        with profiler:
            stop_at = time.monotonic() + SECONDS
            while time.monotonic() < stop_at:
                action()
        paths.append(RESULTS / f"flame-{name}.html")
        paths[-1].write_text(profiler.output(HTMLRenderer()), encoding="utf-8")
    return paths


if __name__ == "__main__":
    main()

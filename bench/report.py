"""Results: tables on the terminal, and the same as JSON under `.bench/`."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table as RichTable

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / ".bench"

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures; the unit of each column is in its name, None is printed as a dash."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and the limit that docs/performance.md sets it; limits are never on absolute times."""

    what: str
    figure: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure keeps the limit."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


@dataclass(frozen=True, slots=True)
class Report:
    """What one section measured; `samples` are seconds a call."""

    tables: list[Table]
    targets: list[Target] = field(default_factory=list)
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def describe_machine() -> dict[str, Cell]:
    """Return what figures depend on."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        **{name: version(name) for name in ("fastapi", "pydantic", "psycopg2-binary", "uvicorn")},
    }


def show(console: Console, report: Report) -> None:
    """Print a section."""
    for table in report.tables:
        rendered = RichTable(title=table.title, title_justify="left", title_style="bold")
        for number, column in enumerate(table.columns):
            rendered.add_column(column, justify="left" if number == 0 else "right")
        for row in table.rows:
            rendered.add_row(*(_text(cell) for cell in row))
        console.print(rendered)
    for reason in report.skipped:
        console.print(f"skipped: {reason}", highlight=False, markup=False)


def show_targets(console: Console, targets: Sequence[Target]) -> None:
    """Print what was asked for beside what was found."""
    rendered = RichTable(title="Targets", title_justify="left", title_style="bold")
    for column in ("target", "limit", "figure", "met"):
        rendered.add_column(column, justify="left" if column == "target" else "right")
    for target in targets:
        limit = f"{'>=' if target.at_least else '<='} {_text(target.limit)}"
        rendered.add_row(target.what, limit, _text(target.figure), "yes" if target.met else "NO")
    console.print(rendered)


def write(name: str, report: Report, *, machine: Mapping[str, Cell], options: Mapping[str, object]) -> Path:
    """Write a section as `.bench/NAME.json`; the last run's is replaced."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"machine": machine, "options": options, **asdict(report)}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def ratio(figure: float, base: float) -> str:
    """Return a ratio as the tables show it."""
    return f"{figure / base:.2f} x"


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.2f}" if abs(cell) < 100 else f"{cell:.0f}"  # noqa: PLR2004 -- three digits tell enough
    return str(cell)


def _processor() -> str:
    found = subprocess.run(["lscpu"], capture_output=True, text=True, check=False) if _has_lscpu() else None
    for line in (found.stdout if found else "").splitlines():
        if line.startswith("Model name:"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _has_lscpu() -> bool:
    return Path("/usr/bin/lscpu").exists()

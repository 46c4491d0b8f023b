"""`make bench`: measure every section, print tables, write `.bench/*.json`."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NoReturn, TextIO

from rich.console import Console

from bench import audit_chain, cold_start, growth, report, server_mode, warm_path
from bench.report import RESULTS, Report, Target

SECTIONS = {
    "cold-start": cold_start,
    "warm-path": warm_path,
    "server-mode": server_mode,
    "growth": growth,
    "audit-chain": audit_chain,
}


def main() -> None:
    """Measure what the command line asks for."""
    arguments = _parse_arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    terminal = _keep_the_terminal()
    console = Console(file=terminal, width=None if terminal.isatty() else 120)
    machine = report.describe_machine()
    console.print("  ".join(f"{name}: {value}" for name, value in machine.items()), highlight=False)
    measures: Mapping[str, Callable[[], Report]] = {
        "cold-start": lambda: cold_start.measure(quick=arguments.quick),
        "warm-path": lambda: warm_path.measure(quick=arguments.quick),
        "server-mode": lambda: server_mode.measure(quick=arguments.quick, peers=arguments.peer),
        "growth": lambda: growth.measure(quick=arguments.quick, largest=arguments.users),
        "audit-chain": lambda: audit_chain.measure(quick=arguments.quick),
    }
    targets: list[Target] = []
    try:
        for name in arguments.only or SECTIONS:
            with console.status(name):
                found = measures[name]()
            report.show(console, found)
            report.write(name, found, machine=machine, options=vars(arguments))
            targets += found.targets
    except KeyboardInterrupt:
        sys.exit(130)
    report.show_targets(console, targets)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller databases, 1 vCPU alone")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; again for another")
    parser.add_argument(
        "--users", type=int, default=None, help="of the largest database (default: 1,000,000)"
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=["better-auth"],
        default=[],
        help="compare with it, too (needs Node)",
    )
    return parser.parse_args()


def _keep_the_terminal() -> TextIO:
    """Return the terminal, and send what the service logs to standard output into a file instead."""
    sys.stdout.flush()
    terminal = os.fdopen(os.dup(1), "w", encoding="utf-8")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "service.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
    return terminal


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()

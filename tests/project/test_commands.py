"""The command line: what docs/cli.md says of it, and what every command keeps to."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from auth_manager.entrypoints.cli import app

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_JSON = {"local", "serve"}
"""Commands that run until they are stopped."""

DESTRUCTIVE = {"delete", "disable", "restore", "log-out", "bulk", "revoke"}
"""Last words of commands that cannot be undone."""


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by its full name."""
    below = getattr(command, "commands", {})
    if name and (not below or getattr(command, "invoke_without_command", False)):
        yield name, command
    for part, one in below.items():
        yield from commands(one, f"{name} {part}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))


def options(name: str) -> set[str]:
    return {word for one in COMMANDS[name].params for word in one.opts}


def test_the_reference_is_up_to_date() -> None:
    """`make commands` writes it."""
    written: str = runpy.run_path(str(ROOT / "scripts" / "write_commands.py"))["render"]()
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == written


@pytest.mark.parametrize("name", COMMANDS)
class TestEveryCommand:
    def test_it_says_what_it_does(self, name: str) -> None:
        assert (COMMANDS[name].help or "").strip().endswith((".", ")"))
        for one in COMMANDS[name].params:
            if one.name not in {"as_json", "help"}:
                assert one.help, one.name

    def test_it_speaks_json(self, name: str) -> None:
        assert ("--json" in options(name)) == (name not in WITHOUT_JSON)

    def test_what_cannot_be_undone_asks(self, name: str) -> None:
        if name.rpartition(" ")[2] in DESTRUCTIVE:
            assert "--yes" in options(name)

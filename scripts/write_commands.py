# ruff: noqa: INP001 -- a script is no package
"""Write the reference of commands into docs/cli.md, below its mark, or print the file with `--print`."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from auth_manager.entrypoints.cli import app

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
MARK = "<!-- Below this line `make commands` writes. -->\n"


def render() -> str:
    """Return docs/cli.md as it should be: the text above the mark as it is, and every command below."""
    above, mark, _ = TARGET.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{TARGET} lost its mark")
    return above + mark + "".join(_describe(typer.main.get_command(app), "auth-manager"))


def _describe(command: Any, name: str) -> Iterator[str]:  # noqa: ANN401 -- click's, by whatever name typer has it
    """Yield the sections of a command and of those below it."""
    below = getattr(command, "commands", {})
    if not below or getattr(command, "invoke_without_command", False):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        usage = " ".join([name, *map(_usage, arguments)])
        yield f"\n## {name}\n\n{_fill(command.help)}\n\n```\n{usage}\n```\n"
        if arguments or options:
            yield "\n" + "".join([*map(_argument, arguments), *map(_option, options)])
    for part in sorted(below):
        yield from _describe(below[part], f"{name} {part}")


def _usage(argument: Any) -> str:  # noqa: ANN401 -- as above
    word = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _argument(argument: Any) -> str:  # noqa: ANN401 -- as above
    return _fill(f"- {argument.name.upper()}: {argument.help or ''}", indent="  ") + "\n"


def _option(option: Any) -> str:  # noqa: ANN401 -- as above
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    help_ = (option.help or "").rstrip()
    return _fill(f"- {names}: {help_}{' Required.' if option.required else ''}", indent="  ") + "\n"


def _fill(text: str | None, indent: str = "") -> str:
    paragraphs = (text or "").replace("\b", "").split("\n\n")
    return "\n\n".join(
        textwrap.fill(" ".join(one.split()), 118, subsequent_indent=indent, break_long_words=False)
        for one in paragraphs
    )


def main() -> None:
    """Write the file, or print it."""
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(render())
        return
    TARGET.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()

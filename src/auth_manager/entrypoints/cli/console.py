"""What the commands share: the terminal, tables or JSON, confirmations, exit codes, the operator's name."""

import getpass
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer
from rich.console import Console
from rich.prompt import Confirm
from rich.table import Column, Table
from rich.text import Text

from auth_manager import __version__, migrate
from auth_manager.app import build_resources
from auth_manager.audit import Origin
from auth_manager.errors import AuthError, ConfigurationError
from auth_manager.ids import new_id
from auth_manager.resources import Resources
from auth_manager.settings import load_settings
from auth_manager.web import strict_json

_UNWRAPPED = 100_000
"""Columns of what is no terminal: a row stays a line there, for `grep` and for files."""

output = Console(width=None if sys.stdout.isatty() else _UNWRAPPED)
errors = Console(stderr=True)

EXIT_REFUSED = 1
"""What was asked for cannot be done; nothing was changed unless the message says so."""
EXIT_MISCONFIGURED = 2
"""Wrong arguments or settings (what typer exits with, too)."""
EXIT_DIFFERS = 3
"""A verification found a difference."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def refuse(message: str, exit_code: int = EXIT_REFUSED) -> NoReturn:
    """Say why nothing was done, on standard error, and exit."""
    errors.print(_printable(message), style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(exit_code)


def say(message: str) -> None:
    """Print a line as it is: no markup, no wrapping, nothing that a terminal would obey."""
    output.print(_printable(message), markup=False, highlight=False, soft_wrap=True)


def report(message: str, facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Say what was done: in a sentence, or as a JSON object of the same facts."""
    if as_json:
        show_json(facts)
    else:
        say(message)


def show_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    next_cursor: str | None = None,
) -> None:
    """Print a list: as a table of these columns, or as JSON `{"items": [...], "next_cursor": ...}`, whole."""
    items = list(rows)
    if as_json:
        show_json({"items": items, "next_cursor": next_cursor})
        return
    table = Table(*(Column(column, overflow="fold") for column in columns))
    for row in items:
        table.add_row(*(Text(_line(row.get(column))) for column in columns))
    output.print(table)
    if next_cursor:
        errors.print(f"more: --cursor {next_cursor}", markup=False, highlight=False, soft_wrap=True)


def show_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing: a line for each fact, or a JSON object."""
    if as_json:
        show_json(facts)
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        say(f"{name:<{width}}  {_line(value)}".rstrip())


def show_json(value: object) -> None:
    """Print JSON on one line, for another program; a terminal gets ASCII, as it obeys more than ESC."""
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=sys.stdout.isatty()) + "\n")


def require_text(arguments: Iterable[str]) -> None:
    """Refuse arguments that are no text, before anything is done: a shell hands on any bytes.

    Raises:
        ConfigurationError: one is not UTF-8.
    """
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"argument {number} is not UTF-8") from None


def parse_object(option: str, text: str | None) -> dict[str, Any] | None:
    """Return the JSON object that an option has, read as strictly as the body of a request; None: none.

    Raises:
        ConfigurationError: it is none.
    """
    if text is None:
        return None
    try:
        value = strict_json.parse(text.encode())
    except (AuthError, UnicodeEncodeError):
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"{option} takes a JSON object: no key twice, no NaN, no NUL, no half of a surrogate pair,"
            f" at most {strict_json.MAXIMUM_DEPTH} levels"
        )
    return value


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone; without a terminal `--yes` has to say so.

    Raises:
        ConfigurationError: nobody can be asked.
        typer.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody can be asked here: say --yes to go ahead")
    if not Confirm.ask(Text(question), console=errors, default=False, stream=sys.stdin):
        raise typer.Abort


@contextmanager
def open_resources(build: Callable[..., Resources] = build_resources) -> Generator[Resources]:
    """Build what services work with, over a database that is at this version."""
    resources = build(load_settings(), pool_size=1)
    try:
        if not migrate.is_current(resources.database):
            raise ConfigurationError("the database is not at this version; run `auth-manager migrate`")
        yield resources
    finally:
        resources.database.close()


def operator() -> Origin:
    """Name who works on the command line, for the audit trail."""
    return Origin(
        address=None,
        user_agent=f"auth-manager {__version__} cli",
        request_id=f"cli-{new_id()}",
        now=datetime.now(UTC),
        operator=operating_system_user(),
    )


def operating_system_user() -> str:
    """Return the name of the user that runs this; through sudo, the one who called it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in the password database
        return f"uid {os.getuid()}"


def _line(value: object) -> str:
    """Return a value on one line, without what a terminal would obey."""
    return _printable(_text(value).replace("\n", "\ufffd"))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, Mapping):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return str(value)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")

"""`auth-manager export`."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from auth_manager.aws.database_access import open_database_url
from auth_manager.aws.secrets import fetch_secret
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson, Yes
from auth_manager.errors import ConfigurationError
from auth_manager.exports.encryption import Recipient, encrypt, read_recipient
from auth_manager.exports.writing import Report, export, record_export

app = typer.Typer()

STANDARD_OUTPUT = "-"
_ITS_DEVICE = "/dev/stdout"


@app.command("export")
def export_command(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Where to; `-` is standard output.")] = "-",
    encrypt_to: Annotated[
        list[str] | None,
        typer.Option(help="A public key of age or SSH, or a file of them or of an RSA key (PEM)."),
    ] = None,
    *,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Write every account as JSON Lines, with hashes and factors, so that nobody is locked in here."""
    recipients = [key for value in encrypt_to for key in read_recipient(value)] if encrypt_to else None
    file = STANDARD_OUTPUT if file == _ITS_DEVICE else file
    if file == STANDARD_OUTPUT and recipients is None and sys.stdout.isatty():
        console.refuse("This holds the secrets of everybody: name a file, or a program to pipe it to.")
    if file != STANDARD_OUTPUT:
        _check_place(Path(file), yes=yes)
    report = Report()
    with (
        console.open_resources() as resources,
        Progress(
            TextColumn("exporting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console.errors,
            transient=True,
        ) as progress,
    ):
        task = progress.add_task("exporting", total=None)
        record_export(resources, console.operator(), encrypted=recipients is not None)
        pieces = export(
            open_database_url(resources.settings, fetch_secret).url(),
            resources.secret_keys,
            report,
            now=datetime.now(UTC),
            on_start=lambda count: progress.update(task, total=count),
            on_written=lambda count: progress.advance(task, count),
        )
        try:
            _write(pieces, file, recipients)
        except OSError as error:
            where = "standard output" if file == STANDARD_OUTPUT else file
            console.refuse(f"{where}: {error.strerror or type(error).__name__}; the export is not complete")
    _report(report, as_json=as_json, to_errors=file == STANDARD_OUTPUT)


def _check_place(path: Path, *, yes: bool) -> None:
    """Ask before a file is replaced; refuse what a file cannot replace.

    Raises:
        ConfigurationError: it is a directory, a device or a pipe.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path} is a directory; name a file")
    if path.exists() and not path.is_file():
        raise ConfigurationError(
            f"{path} is no regular file; `-` is standard output, which a pipe may lead on"
        )
    if path.exists():
        console.confirm(f"Replace {path}?", yes=yes)


def _write(pieces: Iterator[bytes], file: str, recipients: Sequence[Recipient] | None) -> None:
    if file == STANDARD_OUTPUT:
        _send(pieces, sys.stdout.buffer, recipients)
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(file))  # a link stays, and leads to the export
    unfinished = path.with_name(path.name + ".partial")
    unfinished.unlink(missing_ok=True)  # of an export that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(unfinished, flags, 0o600), "wb") as target:
            _send(pieces, target, recipients)
            target.flush()
            os.fsync(target.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _send(pieces: Iterator[bytes], target: BinaryIO, recipients: Sequence[Recipient] | None) -> None:
    """Write in plain text only where no key was asked for; a list of none is refused."""
    if recipients is None:
        target.writelines(pieces)
    else:
        encrypt(pieces, target, recipients)


def _report(report: Report, *, as_json: bool, to_errors: bool) -> None:
    """Say what was written; on standard error where the export itself is on standard output."""
    if to_errors:
        line = " ".join(f"{name}={value}" for name, value in asdict(report).items())
        console.errors.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        console.show_facts(asdict(report), as_json=as_json)
    if report.totp_unreadable:
        console.errors.print(
            f"{report.totp_unreadable} authenticator apps are missing: no key of AUTH_SECRET_KEYS fits.",
            style="yellow",
        )

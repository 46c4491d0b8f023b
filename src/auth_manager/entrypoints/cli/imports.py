"""`auth-manager import`: users of another system, from a file."""

import gc
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from auth_manager.app import build_resources
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson
from auth_manager.errors import ConfigurationError, DatabaseUnavailable
from auth_manager.imports import batches
from auth_manager.imports.batches import Order
from auth_manager.imports.dry_run import try_file
from auth_manager.imports.firebase import HashConfig, parse_hash_config
from auth_manager.imports.load import import_file
from auth_manager.imports.mapping import parse_mapping
from auth_manager.imports.refusals import FileUnreadable
from auth_manager.imports.sources import System, open_source
from auth_manager.resources import Resources
from auth_manager.settings import Settings

app = typer.Typer()

BATCH_DEADLINE = 60.0
"""Seconds for a batch: nobody waits for an answer here."""

NOTHING = batches.Progress(position=0, created=0, refused={}, resumed_at=0, bytes_read=0, size=0)
"""How far a run is that has not begun."""

COLLECT_AFTER = 200_000
"""Containers, a handful of which a record takes."""


@app.command("import")
def import_users(
    file: Annotated[Path, typer.Argument(help="The export.", exists=True, dir_okay=False, readable=True)],
    system: Annotated[System, typer.Option("--from", help="Whose export it is.")],
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="For json and csv: a JSON object from our members to theirs.", exists=True, dir_okay=False
        ),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where refused records go. [default: FILE.rejects.jsonl]")
    ] = None,
    firebase_hash_config: Annotated[
        Path | None,
        typer.Option(help="The hash parameters that Firebase's console shows.", exists=True, dir_okay=False),
    ] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be refused and why; write no account.")
    ] = False,
    create_roles: Annotated[
        bool, typer.Option("--create-roles", help="Make roles that do not exist, without permissions.")
    ] = False,
    ignore_roles: Annotated[
        bool, typer.Option("--ignore-roles", help="Give nobody the roles that the file names.")
    ] = False,
    administrators: Annotated[
        bool,
        typer.Option(
            "--administrators", help="Also give roles that administer this service, such as `admin`."
        ),
    ] = False,
    drop_usernames: Annotated[
        bool,
        typer.Option("--drop-usernames", help="Import without it who has a username that is none here."),
    ] = False,
    assume_verified: Annotated[
        bool, typer.Option("--assume-verified", help="Take every address as proven.")
    ] = False,
    lazy: Annotated[
        bool | None,
        typer.Option(
            help="Let the former system check the password of who comes without a hash."
            " [default: for cognito alone]"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import users; the same command again goes on where a stopped one was, and changes no account."""
    if mapping and system not in {System.JSON, System.CSV}:
        raise ConfigurationError("--mapping is for --from json and csv")
    if firebase_hash_config and system is not System.FIREBASE:
        raise ConfigurationError("--firebase-hash-config is for --from firebase")
    if ignore_roles and (create_roles or administrators):
        raise ConfigurationError("--ignore-roles gives nobody the roles that another option is for")
    _require_files(file, rejects)
    source = open_source(
        system,
        members=_read_mapping(mapping) if mapping else None,
        hash_config=_read_hash_config(firebase_hash_config) if firebase_hash_config else None,
        is_lazy=lazy,
    )
    if rejects is None and not dry_run:
        rejects = file.with_name(f"{file.name}.rejects.jsonl")
    order = Order(
        file,
        source,
        rejects,
        create_roles=create_roles,
        ignore_roles=ignore_roles,
        administrators=administrators,
        drop_usernames=drop_usernames,
        assume_verified=assume_verified,
    )
    outcome, unreadable = _run(order, dry_run=dry_run, quiet=as_json)
    _report(outcome, rejects, dry_run=dry_run, unreadable=unreadable, as_json=as_json)
    if unreadable:
        _refuse_rest(unreadable, outcome, dry_run=dry_run)
    if outcome.position == 0:
        console.refuse("There is no record in the file: is it another system's?")
    if outcome.refused and not outcome.created and not dry_run:
        console.refuse("No account was created: every record was refused.")


def _run(order: Order, *, dry_run: bool, quiet: bool) -> tuple[batches.Progress, FileUnreadable | None]:
    """Import, or try to; return how far that got, and why no further."""
    so_far = NOTHING
    with (
        console.open_resources(_build) as resources,
        _progress_bar(quiet=quiet) as show,
        _rare_collections(),
    ):

        def follow(progress: batches.Progress) -> None:
            nonlocal so_far
            so_far = progress
            show(progress)

        run = try_file if dry_run else import_file
        try:
            return run(resources, console.operator(), order, on_progress=follow), None
        except FileUnreadable as error:
            return so_far, error
        except DatabaseUnavailable as error:
            console.refuse(f"{error.detail} The same command goes on where this one was.")
        except OSError as error:
            console.refuse(f"{error.strerror}. The same command goes on where this one was.")


def _report(
    outcome: batches.Progress,
    rejects: Path | None,
    *,
    dry_run: bool,
    unreadable: FileUnreadable | None,
    as_json: bool,
) -> None:
    refused = sum(outcome.refused.values())
    facts = {
        "records": outcome.position,
        "created": outcome.created,
        "refused": refused,
        "reasons": dict(sorted(outcome.refused.items())),
        "usernames_dropped": outcome.usernames_dropped,
        "resumed_at": outcome.resumed_at,
        "dry_run": dry_run,
        "rejects": str(rejects) if rejects and refused else None,
        "unreadable": str(unreadable) if unreadable else None,
    }
    if as_json:
        console.show_json(facts)
        return
    console.say(
        f"{outcome.position} records: {outcome.created} {'would be ' if dry_run else ''}created, "
        f"{refused} refused"
    )
    if outcome.usernames_dropped:
        console.say(f"{outcome.usernames_dropped} of them without the username that they had")
    if outcome.refused:
        rows = [{"reason": code, "records": count} for code, count in sorted(outcome.refused.items())]
        console.show_rows(rows, ["reason", "records"], as_json=False)
    if facts["rejects"]:
        console.say(f"the refused records are named in {rejects}")


def _refuse_rest(unreadable: FileUnreadable, so_far: batches.Progress, *, dry_run: bool) -> NoReturn:
    """Say why the file was not read to its end, and what that means for what came before."""
    if so_far.position == 0:
        console.refuse(f"The file cannot be read: {unreadable}. Nothing of it is imported.")
    before = "This was a dry run" if dry_run else "What came before it is imported"
    console.refuse(f"The file cannot be read to its end: {unreadable}. {before}.")


def _require_files(file: Path, rejects: Path | None) -> None:
    """Refuse what is no file: the export is read more than once, and rejects are cut off and written on.

    Raises:
        ConfigurationError: one is none, or both are the same.
    """
    if not file.is_file():
        raise ConfigurationError(f"{file} is no file: it has to be read more than once")
    try:
        if rejects is None or not rejects.exists():
            return
        if rejects.samefile(file):
            raise ConfigurationError("--rejects names the file that is imported")
        if not rejects.is_file():
            raise ConfigurationError("--rejects names what is no file")
    except OSError as error:
        raise ConfigurationError(f"--rejects {rejects}: {error.strerror}") from None


def _build(settings: Settings, **options: Any) -> Resources:  # noqa: ANN401 -- build_resources' own
    """Build resources whose transactions may take as long as a batch does."""
    return build_resources(settings.model_copy(update={"database_deadline": BATCH_DEADLINE}), **options)


@contextmanager
def _rare_collections() -> Generator[None]:
    """Look for cycles once in some batches: what these are made of has none, and looking took a third."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _progress_bar(*, quiet: bool) -> Generator[Callable[[batches.Progress], None]]:
    """Show how far an import is, how fast, and how long it will take, where there is a terminal."""
    columns = (
        TextColumn("{task.fields[records]} records"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}/s"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console.errors, disable=quiet or not console.errors.is_terminal) as bar:
        task = bar.add_task("import", total=None, records=0, rate=0)

        def show(progress: batches.Progress) -> None:
            seconds = max(time.monotonic() - started, 0.001)
            rate = round((progress.position - progress.resumed_at) / seconds)
            bar.update(
                task,
                total=progress.size,
                completed=progress.bytes_read,
                records=progress.position,
                rate=rate,
            )

        yield show


def _read_mapping(path: Path) -> Any:  # noqa: ANN401 -- JSON
    try:
        return parse_mapping(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _read_hash_config(path: Path) -> HashConfig:
    try:
        return parse_hash_config(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None

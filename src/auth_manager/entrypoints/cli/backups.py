"""`auth-manager backup` and `auth-manager restore`."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from auth_manager.aws.database_access import open_database_url
from auth_manager.aws.secrets import fetch_secret
from auth_manager.backups import BackupDamaged, BackupError
from auth_manager.backups.archive import Manifest
from auth_manager.backups.reading import open_manifest
from auth_manager.backups.restoring import restore, verify
from auth_manager.backups.retention import Keep, delete_old, find_backup, list_backups
from auth_manager.backups.storage import Storage
from auth_manager.backups.writing import back_up
from auth_manager.entrypoints.backup_places import open_place
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import EXIT_DIFFERS, AsJson, Yes
from auth_manager.errors import ConfigurationError
from auth_manager.settings import Settings, load_settings

app = typer.Typer(invoke_without_command=True, help="Back up the database, and look after backups.")
restore_app = typer.Typer()

Place = Annotated[
    str, typer.Option("--to", help="A directory, file:///path or s3://bucket/prefix; else AUTH_BACKUP_URL.")
]
FromPlace = Annotated[
    str, typer.Option("--from", help="A directory, file:///path or s3://bucket/prefix; else AUTH_BACKUP_URL.")
]
Wanted = Annotated[str, typer.Argument(metavar="[ID]", help="The id of a backup; the youngest complete one.")]

KEYS_NOTE = (
    "AUTH_SECRET_KEYS must have the keys of the backup's time: without them authenticator apps "
    "and the secrets of webhooks cannot be read."
)


@app.callback()
def backup(context: typer.Context, to: Place = "", *, as_json: AsJson = False) -> None:
    """Store a snapshot of the whole database, then delete the backups that are no longer kept."""
    if context.invoked_subcommand is not None:
        if to or as_json:
            raise ConfigurationError(f"say --from and --json after `backup {context.invoked_subcommand}`")
        return
    settings = load_settings()
    with _refusals():
        storage = _open(settings, to)
        manifest = back_up(_database_url(settings), storage, now=datetime.now(UTC))
        keep = Keep(settings.backup_keep_daily, settings.backup_keep_weekly, settings.backup_keep_monthly)
        deleted = delete_old(storage, keep, now=datetime.now(UTC))
    facts = _facts(manifest) | {"stored_in": storage.url, "deleted": deleted}
    console.show_facts(facts, as_json=as_json)


@app.command("list")
def backup_list(from_: FromPlace = "", *, as_json: AsJson = False) -> None:
    """List the backups of a place, youngest first; one that is not complete cannot be restored."""
    with _refusals():
        found = list_backups(_open(load_settings(), from_))
    rows = [
        {"id": one.id, "created_at": one.created_at, "complete": one.is_complete, "bytes": one.size}
        for one in found
    ]
    console.show_rows(rows, ["id", "created_at", "complete", "bytes"], as_json=as_json)


@app.command("verify")
def backup_verify(
    wanted: Wanted = "latest",
    from_: FromPlace = "",
    *,
    checksums_only: Annotated[
        bool, typer.Option("--checksums-only", help="Read everything, and create no scratch database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a backup with its checksums, and restore it into a scratch database (dropped afterwards)."""
    settings = load_settings()
    with _refusals():
        storage = _open(settings, from_)
        chosen = find_backup(storage, wanted)
        size = open_manifest(storage, chosen.id).size
        with _progress("verifying", size if checksums_only else 2 * size) as on_read:
            manifest = verify(
                None if checksums_only else _database_url(settings),
                storage,
                chosen.id,
                now=datetime.now(UTC),
                random=os.urandom(4),
                on_read=on_read,
            )
    console.show_facts(_facts(manifest) | {"restored": not checksums_only, "intact": True}, as_json=as_json)


@restore_app.command("restore")
def restore_command(
    wanted: Wanted = "latest",
    from_: FromPlace = "",
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace everything in the database.")] = False,
    keep_sessions: Annotated[
        bool,
        typer.Option("--keep-sessions", help="Leave sessions, trusted devices and mailed links usable."),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into AUTH_DATABASE_URL: all of it, or nothing. Sessions of then end."""
    settings = load_settings()
    with _refusals():
        storage = _open(settings, from_)
        chosen = find_backup(storage, wanted)
        size = open_manifest(storage, chosen.id).size
        replaced = " and replace everything in the database" if force else ""
        console.confirm(f"Restore {chosen.id} from {storage.url}{replaced}?", yes=yes)
        with _progress("restoring", size) as on_read:
            done = restore(
                _database_url(settings),
                storage,
                chosen.id,
                console.operator(),
                force=force,
                keep_sessions=keep_sessions,
                on_read=on_read,
            )
    facts = _facts(done.manifest) | {"sessions_ended": done.sessions_ended, "migrated": list(done.migrated)}
    console.show_facts(facts, as_json=as_json)
    if done.not_analyzed is not None:
        note = f"It is restored. ANALYZE failed ({done.not_analyzed}): run it, or queries may be slow."
        console.errors.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.errors.print(KEYS_NOTE, markup=False, highlight=False, soft_wrap=True)


def _open(settings: Settings, url: str) -> Storage:
    return open_place(url or settings.backup_url, kms_key=settings.backup_kms_key)


def _database_url(settings: Settings) -> str:
    return open_database_url(settings, fetch_secret).url()


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "created_at": manifest.created_at,
        "schema": manifest.schema_version,
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "bytes": manifest.size,
    }


@contextmanager
def _progress(what: str, size: int) -> Generator[Any]:
    """Show how far it is, on standard error; yield what is told of the bytes that were read."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.errors, transient=True) as progress:
        task = progress.add_task(what, total=size)
        yield lambda read: progress.advance(task, read)


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except BackupDamaged as error:
        console.refuse(f"Backup: {error}", EXIT_DIFFERS)
    except BackupError as error:
        console.refuse(f"Backup: {error}")

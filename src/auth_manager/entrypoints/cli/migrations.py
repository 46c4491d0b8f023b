"""`auth-manager migrate`."""

from typing import Annotated

import typer

from auth_manager import migrate
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import EXIT_REFUSED, AsJson
from auth_manager.errors import ConfigurationError

app = typer.Typer(invoke_without_command=True, help="Apply database migrations.")

DatabaseUrl = Annotated[
    str, typer.Option(envvar="AUTH_DATABASE_URL", show_envvar=True, help="Of the owner of the schema.")
]


@app.callback()
def migrate_up(context: typer.Context, database_url: DatabaseUrl = "", *, as_json: AsJson = False) -> None:
    """Apply what is missing. Of all settings only AUTH_DATABASE_URL is needed."""
    if not database_url:
        raise ConfigurationError("AUTH_DATABASE_URL is not set")
    context.obj = database_url
    if context.invoked_subcommand is not None:
        return
    applied = [
        f"{migration.version:04d}_{migration.name}" for migration in migrate.apply_migrations(database_url)
    ]
    sentence = "\n".join(f"applied {name}" for name in applied) or "nothing to do"
    console.report(sentence, {"applied": applied}, as_json=as_json)


@app.command("status")
def migrate_status(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the migrations and when each was applied; exit 1 when one is missing."""
    entries = migrate.migration_status(context.obj)
    rows = [
        {
            "version": f"{entry.version:04d}",
            "name": entry.name,
            "applied": entry.applied_at or (None if as_json else "pending"),
        }
        for entry in entries
    ]
    console.show_rows(rows, ["version", "name", "applied"], as_json=as_json)
    if any(entry.applied_at is None for entry in entries):
        raise typer.Exit(EXIT_REFUSED)

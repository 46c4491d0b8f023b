"""The `auth-manager` command: one module for each group of commands, each with an `app`."""

import sys

import typer

from auth_manager.entrypoints.cli import (
    audit,
    backups,
    console,
    exports,
    imports,
    keys,
    migrations,
    people,
    programs,
    roles,
    users,
    webhooks,
)
from auth_manager.errors import AuthError, ConfigurationError
from auth_manager.migrate import MigrationError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Run and look after Auth Manager.",
)
app.add_typer(programs.app)
app.add_typer(people.app)
app.add_typer(migrations.app, name="migrate")
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")
app.add_typer(roles.app, name="roles")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(audit.app, name="audit")
app.add_typer(backups.app, name="backup")
app.add_typer(backups.restore_app)
app.add_typer(exports.app)
app.add_typer(imports.app)


def main() -> None:
    """Run the command line; a failure we know is one line on standard error, never a stack trace."""
    try:
        console.require_text(sys.argv[1:])
        app()
    except ConfigurationError as error:
        console.refuse(f"Configuration: {error}", console.EXIT_MISCONFIGURED)
    except MigrationError as error:
        console.refuse(f"Migration: {error}")
    except AuthError as error:
        console.refuse("\n".join([error.detail, *(f"{item.pointer} {item.detail}" for item in error.errors)]))

"""The `auth-manager` command: one module for each group of commands, each with an `app`."""

import typer

from auth_manager.entrypoints.cli import console, keys, migrations, people, programs
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


def main() -> None:
    """Run the command line; a failure we know is one line on standard error, never a stack trace."""
    try:
        app()
    except ConfigurationError as error:
        console.refuse(f"Configuration: {error}", console.EXIT_MISCONFIGURED)
    except MigrationError as error:
        console.refuse(f"Migration: {error}")
    except AuthError as error:
        console.refuse("\n".join([error.detail, *(f"{item.pointer} {item.detail}" for item in error.errors)]))

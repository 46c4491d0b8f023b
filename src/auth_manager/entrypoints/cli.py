"""The `auth-manager` command."""

import getpass
import json
import os
import secrets
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from auth_manager import __version__, migrate
from auth_manager.accounts import service as accounts_service
from auth_manager.accounts.service import Registration
from auth_manager.app import build_resources
from auth_manager.audit import Origin
from auth_manager.errors import AuthError, ConfigurationError
from auth_manager.ids import new_id
from auth_manager.invitations import service as invitations_service
from auth_manager.login import service as login_service
from auth_manager.mfa import service as mfa_service
from auth_manager.resources import Resources
from auth_manager.settings import load_settings
from auth_manager.signing_keys import Algorithm, generate_signing_key, serialize_key_set
from auth_manager.totp import service as totp_service

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Run and look after Auth Manager.",
)
migrate_app = typer.Typer(invoke_without_command=True, help="Apply database migrations.")
keys_app = typer.Typer(no_args_is_help=True, help="Signing and secret keys.")
app.add_typer(migrate_app, name="migrate")
app.add_typer(keys_app, name="keys")

output = Console()
errors = Console(stderr=True)

EXIT_REFUSED = 1
EXIT_MISCONFIGURED = 2


def main() -> None:
    """Run the command line; a failure we know is one line on standard error, never a stack trace."""
    try:
        app()
    except ConfigurationError as error:
        _refuse(f"Configuration: {error}", EXIT_MISCONFIGURED)
    except migrate.MigrationError as error:
        _refuse(f"Migration: {error}", EXIT_REFUSED)
    except AuthError as error:
        lines = [error.detail, *(f"{item.pointer} {item.detail}" for item in error.errors)]
        _refuse("\n".join(lines), EXIT_REFUSED)


def _refuse(message: str, exit_code: int) -> NoReturn:
    errors.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(exit_code)


@app.command()
def version() -> None:
    """Print the version."""
    output.print(__version__, highlight=False)


@app.command()
def settings() -> None:
    """Print the effective settings, secrets masked."""
    table = Table("setting", "value")
    for name, value in sorted(load_settings().model_dump(mode="json").items()):
        table.add_row(f"AUTH_{name.upper()}", json.dumps(value))
    output.print(table)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Serve HTTP until Ctrl-C."""
    from auth_manager.entrypoints import server  # noqa: PLC0415 -- uvicorn, for this command alone

    server.serve(load_settings(), host=host, port=port)


@app.command()
def local(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    state: Annotated[Path, typer.Option(help="Where the database and the keys are kept.")] = Path(".local"),
) -> None:
    """Serve on this laptop, with an embedded PostgreSQL and generated keys."""
    from auth_manager.entrypoints import local as laptop  # noqa: PLC0415 -- the embedded database

    laptop.run(host=host, port=port, state=state)


DatabaseUrl = Annotated[
    str, typer.Option(envvar="AUTH_DATABASE_URL", show_envvar=True, help="Of the owner of the schema.")
]


@migrate_app.callback()
def migrate_up(context: typer.Context, database_url: DatabaseUrl = "") -> None:
    """Apply what is missing. Of all settings only AUTH_DATABASE_URL is needed."""
    if not database_url:
        raise ConfigurationError("AUTH_DATABASE_URL is not set")
    context.obj = database_url
    if context.invoked_subcommand is not None:
        return
    applied = migrate.apply_migrations(database_url)
    for migration in applied:
        output.print(f"applied {migration.version:04d}_{migration.name}", highlight=False, soft_wrap=True)
    if not applied:
        output.print("nothing to do")


@migrate_app.command("status")
def migrate_status(context: typer.Context) -> None:
    """List the migrations and when each was applied; exit 1 when one is missing."""
    table = Table("version", "name", "applied")
    pending = 0
    for entry in migrate.migration_status(context.obj):
        pending += entry.applied_at is None
        applied = entry.applied_at.isoformat(timespec="seconds") if entry.applied_at else "pending"
        table.add_row(f"{entry.version:04d}", entry.name, applied)
    output.print(table)
    if pending:
        raise typer.Exit(EXIT_REFUSED)


@keys_app.command("generate")
def keys_generate(
    algorithm: Annotated[Algorithm, typer.Option(help="RS256 or ES256.")] = "RS256",
    directory: Annotated[
        Path | None, typer.Option(help="Write signing-keys.json and secret-keys here instead of printing.")
    ] = None,
) -> None:
    """Make a signing key set (AUTH_SIGNING_KEYS) and a secret key (AUTH_SECRET_KEYS)."""
    signing_keys = serialize_key_set([generate_signing_key(algorithm)])
    secret_key = secrets.token_urlsafe(48)
    if directory is None:
        # One assignment a line, quoted for a shell: the JSON has no single quote.
        sys.stdout.write(f"AUTH_SIGNING_KEYS='{signing_keys}'\nAUTH_SECRET_KEYS='{secret_key}'\n")
        return
    files = {directory / "signing-keys.json": signing_keys, directory / "secret-keys": secret_key}
    for path in files:
        if path.exists():
            raise ConfigurationError(f"{path} exists; keys that may be in use are not overwritten")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, content in files.items():
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(content + "\n", encoding="ascii")
        output.print(f"wrote {path}", highlight=False, soft_wrap=True)


@keys_app.command("rewrap")
def keys_rewrap() -> None:
    """Move what is encrypted to the first of AUTH_SECRET_KEYS, so that an old one can be taken out."""
    with _migrated_resources() as resources:
        outcome = totp_service.rewrap_secrets(resources)
    output.print(f"rewrapped {outcome.rewrapped}", highlight=False)
    if outcome.unreadable:
        errors.print(f"{outcome.unreadable} cannot be read with any of the keys", style="red")
        raise typer.Exit(EXIT_REFUSED)


@app.command("create-user")
def create_user(
    email: Annotated[str, typer.Argument(help="E-mail address; counts as verified.")],
    username: Annotated[str | None, typer.Option(help="Optional username.")] = None,
    *,
    admin: Annotated[bool, typer.Option("--admin", help="Give the role `admin`.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Create a user directly in the database, with the same rules as registration."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else _ask_password()
    registration = Registration(email=email, password=password, username=username)
    roles = ("admin",) if admin else ()
    with _migrated_resources() as resources:
        account = accounts_service.create_verified(resources, _operator(), registration, roles=roles)
    output.print(f"created {account.id}", highlight=False)


@app.command()
def unlock(identifier: Annotated[str, typer.Argument(help="E-mail address or username.")]) -> None:
    """Forget an account's failed logins, so that its owner can try again at once."""
    with _migrated_resources() as resources:
        login_service.unlock(resources, _operator(), identifier)
    output.print("unlocked")


@app.command("reset-mfa")
def reset_mfa(identifier: Annotated[str, typer.Argument(help="E-mail address or username.")]) -> None:
    """Remove all second factors of an account, for an owner who lost them; its sessions end."""
    with _migrated_resources() as resources:
        mfa_service.reset(resources, _operator(), identifier)
    output.print("removed; the account signs in without a second factor")


@app.command()
def invite(
    email: Annotated[str, typer.Argument(help="E-mail address of the person.")],
    role: Annotated[list[str] | None, typer.Option(help="A role of the account; may be given again.")] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the mail, as en or fr.")] = None,
    invited_by: Annotated[str | None, typer.Option(help="Your name, for the mail.")] = None,
) -> None:
    """Mail an invitation to an account; needed where AUTH_SIGN_UP is closed."""
    with _migrated_resources() as resources:
        invitations_service.invite(
            resources, _operator(), email, roles=role or (), locale=locale, invited_by=invited_by
        )
    output.print("invited; the mail is in the outbox")


@contextmanager
def _migrated_resources() -> Generator[Resources]:
    """Build what services work with, over a database that is at this version."""
    resources = build_resources(load_settings(), pool_size=1)
    try:
        if not migrate.is_current(resources.database):
            raise ConfigurationError("the database is not at this version; run `auth-manager migrate`")
        yield resources
    finally:
        resources.database.close()


def _ask_password() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConfigurationError("The passwords differ.")
    return password


def _operator() -> Origin:
    """Name the command line in the audit trail."""
    return Origin(
        address=None,
        user_agent=f"auth-manager {__version__} cli ({_operating_system_user()})",
        request_id=f"cli-{new_id()}",
        now=datetime.now(UTC),
    )


def _operating_system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in the password database
        return f"uid {os.getuid()}"


if __name__ == "__main__":
    main()

"""Commands for one person: create-user, invite, unlock, reset-mfa."""

import getpass
import sys
from typing import Annotated

import typer

from auth_manager.accounts import service as accounts_service
from auth_manager.accounts.service import Registration
from auth_manager.admin import service as admin_service
from auth_manager.directory import service as directory_service
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson
from auth_manager.errors import ConfigurationError
from auth_manager.invitations import service as invitations_service

app = typer.Typer()

Identifier = Annotated[str, typer.Argument(help="Id, e-mail address or username.")]


@app.command("create-user")
def create_user(
    email: Annotated[str, typer.Argument(help="E-mail address; counts as verified.")],
    username: Annotated[str | None, typer.Option(help="Optional username.")] = None,
    *,
    admin: Annotated[bool, typer.Option("--admin", help="Give the role `admin`.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a user directly in the database, with the same rules as registration."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else _ask_password()
    registration = Registration(email=email, password=password, username=username)
    roles = ("admin",) if admin else ()
    with console.open_resources() as resources:
        account = accounts_service.create_verified(resources, console.operator(), registration, roles=roles)
    console.report(f"created {account.id}", {"id": account.id}, as_json=as_json)


@app.command()
def unlock(identifier: Identifier, *, as_json: AsJson = False) -> None:
    """Forget an account's failed logins, so that its owner can try again at once."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        admin_service.unlock(resources, console.operator(), None, account_id)
    console.report("unlocked", {"unlocked": identifier}, as_json=as_json)


@app.command("reset-mfa")
def reset_mfa(identifier: Identifier, *, as_json: AsJson = False) -> None:
    """Remove all second factors of an account, for an owner who lost them; its sessions end."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        admin_service.reset_mfa(resources, console.operator(), None, account_id)
    console.report(
        "removed; the account signs in without a second factor", {"reset": identifier}, as_json=as_json
    )


@app.command()
def invite(
    email: Annotated[str, typer.Argument(help="E-mail address of the person.")],
    role: Annotated[list[str] | None, typer.Option(help="A role of the account; may be given again.")] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the mail, as en or fr.")] = None,
    invited_by: Annotated[str | None, typer.Option(help="Your name, for the mail.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Mail an invitation to an account; needed where AUTH_SIGN_UP is closed."""
    with console.open_resources() as resources:
        request = invitations_service.invite(
            resources, console.operator(), email, roles=role or (), locale=locale, invited_by=invited_by
        )
    console.report("invited; the mail is in the outbox", {"request": request}, as_json=as_json)


def _ask_password() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConfigurationError("The passwords differ.")
    return password

"""`auth-manager users`: find, create, change, disable and erase accounts."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer

from auth_manager.accounts.service import ProfilePatch
from auth_manager.admin import service as admin_service
from auth_manager.bulk_actions import Action
from auth_manager.bulk_actions import service as bulk_service
from auth_manager.bulk_actions.service import BulkAction
from auth_manager.directory import Entry, Filter, Status
from auth_manager.directory import service as directory_service
from auth_manager.directory.service import EntryPatch, NewEntry
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson, Yes
from auth_manager.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="Accounts, one or many.")

Identifier = Annotated[str, typer.Argument(help="Id, e-mail address or username.")]
Email = Annotated[str | None, typer.Option(help="A whole address.")]
Prefix = Annotated[str | None, typer.Option(help="How the address or the username begins.")]
HavingRole = Annotated[str | None, typer.Option("--having-role", help="Who has this role.")]
OfStatus = Annotated[Status | None, typer.Option("--status", help="Active: not disabled.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many at most.")]
Cursor = Annotated[str | None, typer.Option(help="Where the page before ended.")]
Username = Annotated[str | None, typer.Option(help="A username; '' takes it away.")]
DisplayName = Annotated[str | None, typer.Option(help="A name to show; '' takes it away.")]
Locale = Annotated[str | None, typer.Option(help="Language of mails, as en or fr; '' takes it away.")]
Attributes = Annotated[str | None, typer.Option(help="A JSON object that replaces the attributes.")]

COLUMNS = ("id", "email", "username", "roles", "email_verified_at", "disabled_at", "created_at")


@app.command("list")
def list_users(
    *,
    email: Email = None,
    prefix: Prefix = None,
    having_role: HavingRole = None,
    status: OfStatus = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List accounts that every condition holds for, newest first."""
    wanted = Filter(email=email, prefix=prefix, role=having_role, status=status)
    with console.open_resources() as resources:
        page = directory_service.list_entries(
            resources, console.operator(), None, wanted, limit=limit, cursor=cursor
        )
    rows = [_facts(entry) for entry in page.items]
    console.show_rows(rows, COLUMNS, as_json=as_json, next_cursor=page.next_cursor)


@app.command()
def show(identifier: Identifier, *, as_json: AsJson = False) -> None:
    """Show an account."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        entry = directory_service.get_entry(resources, console.operator(), None, account_id)
    console.show_facts(_facts(entry), as_json=as_json)


@app.command()
def create(
    email: Annotated[str, typer.Argument(help="E-mail address.")],
    *,
    verified: Annotated[bool, typer.Option("--verified", help="You vouch for the address.")] = False,
    username: Username = None,
    display_name: DisplayName = None,
    locale: Locale = None,
    attributes: Attributes = None,
    role: Annotated[list[str] | None, typer.Option(help="A role; may be given again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an account without a password; a mailed link sets it."""
    new = NewEntry(
        email=email,
        email_verified=verified,
        username=username,
        display_name=display_name,
        locale=locale,
        attributes=console.parse_object("--attributes", attributes),
        roles=tuple(role or ()),
    )
    with console.open_resources() as resources:
        entry = directory_service.create_entry(resources, console.operator(), None, new)
    console.show_facts(_facts(entry), as_json=as_json)


@app.command()
def change(
    identifier: Identifier,
    *,
    email: Annotated[str | None, typer.Option(help="Another address; the old one is told.")] = None,
    verified: Annotated[
        bool | None, typer.Option("--verified/--not-verified", help="Whether you vouch for the address.")
    ] = None,
    username: Username = None,
    display_name: DisplayName = None,
    locale: Locale = None,
    attributes: Attributes = None,
    as_json: AsJson = False,
) -> None:
    """Change an account; what is not named stays."""
    values = {"username": username, "display_name": display_name, "locale": locale}
    given = {name: value or None for name, value in values.items() if value is not None}
    fields = {*given, *(["attributes"] if attributes is not None else [])}
    if not fields and email is None and verified is None:
        raise ConfigurationError("say what to change")
    replaced = console.parse_object("--attributes", attributes)
    profile = ProfilePatch(frozenset(fields), attributes=replaced, **given)
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        entry = directory_service.change_entry(
            resources, console.operator(), None, account_id, EntryPatch(profile, email, verified)
        )
    console.show_facts(_facts(entry), as_json=as_json)


@app.command()
def disable(identifier: Identifier, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Disable an account and end its sessions."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        console.confirm(f"Disable {identifier}?", yes=yes)
        admin_service.disable(resources, console.operator(), None, account_id)
    _report("disabled", account_id, as_json=as_json)


@app.command()
def enable(identifier: Identifier, *, as_json: AsJson = False) -> None:
    """Let an account sign in again; an erasure that its owner asked for is called off."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        admin_service.enable(resources, console.operator(), None, account_id)
    _report("enabled", account_id, as_json=as_json)


@app.command()
def delete(identifier: Identifier, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Erase an account at once and for good; a last mail says so."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        console.confirm(f"Erase {identifier} for good?", yes=yes)
        directory_service.delete_entry(resources, console.operator(), None, account_id)
    _report("erased", account_id, as_json=as_json)


@app.command()
def recover(identifier: Identifier, *, as_json: AsJson = False) -> None:
    """Mail the owner of an account a link to set a password with."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        admin_service.start_recovery(resources, console.operator(), None, account_id)
    _report("mailed", account_id, as_json=as_json)


@app.command("log-out")
def log_out(
    identifier: Identifier,
    *,
    session: Annotated[UUID | None, typer.Option(help="The id of one session; without it all end.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End the sessions of an account, or one of them."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        console.confirm(f"End {session or 'every session'} of {identifier}?", yes=yes)
        if session is None:
            admin_service.log_out(resources, console.operator(), None, account_id)
        else:
            admin_service.revoke_session(resources, console.operator(), None, account_id, session)
    _report("logged out", account_id, as_json=as_json)


@app.command()
def sessions(
    identifier: Identifier, *, limit: Limit = 50, cursor: Cursor = None, as_json: AsJson = False
) -> None:
    """List the live sessions of an account, newest first."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        page = admin_service.list_sessions(
            resources, console.operator(), None, account_id, limit=limit, cursor=cursor
        )
    columns = ("id", "created_at", "last_used_at", "expires_at", "address", "user_agent", "impersonator_id")
    rows = [{name: getattr(session, name) for name in columns} for session in page.items]
    console.show_rows(rows, columns, as_json=as_json, next_cursor=page.next_cursor)


@app.command()
def bulk(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    *,
    role: Annotated[str | None, typer.Option(help="Of assign_role and remove_role.")] = None,
    identifier: Annotated[
        list[str] | None, typer.Option("--user", help="Id, address or username; may be given again.")
    ] = None,
    email: Email = None,
    prefix: Prefix = None,
    having_role: HavingRole = None,
    status: OfStatus = None,
    everybody: Annotated[bool, typer.Option("--all", help="Where there is no condition.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Do one thing to all accounts that every condition holds for; their number is shown first."""
    if (role is not None) != action.endswith("_role"):
        raise ConfigurationError("assign_role and remove_role need --role, and no other action takes it")
    wanted = Filter(email=email, prefix=prefix, role=having_role, status=status)
    if (wanted != Filter() or identifier is not None) == everybody:
        raise ConfigurationError("give conditions, or --all")
    with console.open_resources() as resources:
        if identifier is not None:
            ids = tuple(directory_service.find_id(resources, one) for one in identifier)
            wanted = Filter(ids, wanted.email, wanted.prefix, wanted.role, wanted.status)
        meant = BulkAction(action, wanted, role)
        counted = bulk_service.count(resources, console.operator(), None, meant)
        console.errors.print(f"accounts: {counted.count}", markup=False, highlight=False)
        console.confirm(f"{action} for {counted.count} accounts?", yes=yes)
        outcome = bulk_service.act(resources, console.operator(), None, meant, expected_count=counted.count)
    console.show_facts(asdict(outcome), as_json=as_json)


def _report(done: str, account_id: UUID, *, as_json: bool) -> None:
    if as_json:
        console.show_json({"done": done, "id": account_id})
    else:
        console.say(f"{done} {account_id}")


def _facts(entry: Entry) -> dict[str, Any]:
    account = entry.account
    return {
        "id": account.id,
        "email": account.email,
        "email_verified_at": account.email_verified_at,
        "username": account.username,
        "display_name": account.display_name,
        "locale": account.locale,
        "attributes": account.attributes,
        "roles": list(account.roles),
        "factors": list(entry.factors),
        "disabled_at": account.disabled_at,
        "erase_after": entry.erase_after,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }

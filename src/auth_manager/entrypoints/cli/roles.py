"""auth-manager roles: what roles there are, and who has them."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from auth_manager.directory import service as directory_service
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson, Yes
from auth_manager.errors import ConfigurationError
from auth_manager.roles import service
from auth_manager.roles.service import RoleFields, RolePatch

app = typer.Typer(no_args_is_help=True, help="What roles there are, and who has them.")

Name = Annotated[str, typer.Argument(help="Name of the role.")]
Identifier = Annotated[str, typer.Argument(help="Id, e-mail address or username.")]
Description = Annotated[str | None, typer.Option(help="For people.")]
Permissions = Annotated[
    list[str] | None,
    typer.Option(
        "--permission", help="As users:read, orders:refund, or * for all of ours; may be given again."
    ),
]
Claims = Annotated[str | None, typer.Option(help="JSON object: what access tokens of its holders say.")]
IsDefault = Annotated[
    bool | None, typer.Option("--default/--no-default", help="Whether every new account has it.")
]


@app.command("list")
def list_roles(
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the list before ended.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the roles by name."""
    with console.open_resources() as resources:
        page = service.list_roles(resources, console.operator(), None, limit=limit, cursor=cursor)
    columns = ("name", "description", "permissions", "claims", "is_default", "is_built_in")
    rows = [asdict(role) for role in page.items]
    console.show_rows(rows, columns, as_json=as_json, next_cursor=page.next_cursor)


@app.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show a role."""
    with console.open_resources() as resources:
        role = service.get_role(resources, console.operator(), None, name)
    console.show_facts(asdict(role), as_json=as_json)


@app.command()
def create(
    name: Name,
    description: Description = None,
    permission: Permissions = None,
    claims: Claims = None,
    *,
    default: IsDefault = None,
    as_json: AsJson = False,
) -> None:
    """Create a role."""
    fields = RoleFields(description or "", permission or (), _claims(claims) or {}, default or False)
    with console.open_resources() as resources:
        role = service.create_role(resources, console.operator(), None, name, fields)
    console.show_facts(asdict(role), as_json=as_json)


@app.command()
def change(
    name: Name,
    description: Description = None,
    permission: Permissions = None,
    claims: Claims = None,
    *,
    no_permissions: Annotated[
        bool, typer.Option("--no-permissions", help="Take all permissions from it.")
    ] = False,
    default: IsDefault = None,
    as_json: AsJson = False,
) -> None:
    """Change a role: what is given replaces what it has, the rest stays."""
    if permission and no_permissions:
        raise ConfigurationError("--permission and --no-permissions exclude each other")
    permissions = () if no_permissions else (permission or None)
    patch = RolePatch(description, permissions, _claims(claims), default)
    with console.open_resources() as resources:
        role = service.change_role(resources, console.operator(), None, name, patch)
    console.show_facts(asdict(role), as_json=as_json)


@app.command()
def delete(name: Name, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a role and take it from all who have it."""
    with console.open_resources() as resources:
        console.confirm(f"Delete the role {name} and take it from all who have it?", yes=yes)
        holders = service.delete_role(resources, console.operator(), None, name)
    if as_json:
        console.show_json({"deleted": name, "holders": holders})
    else:
        console.say(f"deleted; {holders} had it")


@app.command()
def grant(identifier: Identifier, role: Name, *, as_json: AsJson = False) -> None:
    """Give a role to an account."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        roles = service.grant_role(resources, console.operator(), account_id, role)
    console.show_facts({"id": account_id, "roles": roles}, as_json=as_json)


@app.command()
def revoke(identifier: Identifier, role: Name, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Take a role from an account; not the role admin from the last who has it."""
    with console.open_resources() as resources:
        account_id = directory_service.find_id(resources, identifier)
        console.confirm(f"Take the role {role} from {identifier}?", yes=yes)
        roles = service.revoke_role(resources, console.operator(), account_id, role)
    console.show_facts({"id": account_id, "roles": roles}, as_json=as_json)


def _claims(text: str | None) -> dict[str, Any] | None:
    return console.parse_object("--claims", text)

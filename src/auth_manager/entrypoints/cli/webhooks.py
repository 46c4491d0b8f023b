"""`auth-manager webhooks`: where events are posted to, and how that went."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer

from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson, Yes
from auth_manager.errors import ConfigurationError
from auth_manager.webhooks import EVERY_TYPE, TYPES, Endpoint, service

app = typer.Typer(no_args_is_help=True, help="Where events are posted to, and how that went.")

EndpointId = Annotated[UUID, typer.Argument(help="Id of the endpoint.")]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", help=f"Which messages it gets; may be given again. {', '.join(TYPES)}, or *."),
]
Description = Annotated[str | None, typer.Option(help="For people.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="At most so many.")]
Cursor = Annotated[str | None, typer.Option(help="Where the list before ended.")]


@app.command("list")
def list_webhooks(limit: Limit = 50, cursor: Cursor = None, *, as_json: AsJson = False) -> None:
    """List the endpoints, the newest first."""
    with console.open_resources() as resources:
        page = service.list_endpoints(resources, console.operator(), None, limit=limit, cursor=cursor)
    columns = ("id", "url", "types", "description", "enabled", "disabled_reason", "failing_since")
    rows = [_facts(endpoint) for endpoint in page.items]
    console.show_rows(rows, columns, as_json=as_json, next_cursor=page.next_cursor)


@app.command()
def show(endpoint_id: EndpointId, *, as_json: AsJson = False) -> None:
    """Show an endpoint; its secret is told only when it is made."""
    with console.open_resources() as resources:
        endpoint = service.get(resources, console.operator(), None, endpoint_id)
    console.show_facts(_facts(endpoint), as_json=as_json)


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="Where messages are posted to.")],
    type_: Types = None,
    description: Description = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make an endpoint, and print its secret: keep it, it is not told again."""
    with console.open_resources() as resources:
        made = service.create(
            resources,
            console.operator(),
            None,
            url=url,
            types=type_ or (EVERY_TYPE,),
            description=description or "",
        )
    console.show_facts(_facts(made.endpoint) | {"secret": made.secret}, as_json=as_json)


@app.command()
def change(
    endpoint_id: EndpointId,
    url: Annotated[str | None, typer.Option(help="Where messages are posted to.")] = None,
    type_: Types = None,
    description: Description = None,
    *,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it gets anything.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint: what is given replaces what it has, the rest stays."""
    given = {"url": url, "types": type_, "description": description, "enabled": enabled}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise ConfigurationError("nothing to change was given")
    with console.open_resources() as resources:
        endpoint = service.change(resources, console.operator(), None, endpoint_id, changes)
    console.show_facts(_facts(endpoint), as_json=as_json)


@app.command()
def delete(endpoint_id: EndpointId, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete an endpoint; what waits for it is never sent."""
    with console.open_resources() as resources:
        console.confirm(f"Delete the endpoint {endpoint_id}, and what waits for it?", yes=yes)
        service.delete(resources, console.operator(), None, endpoint_id)
    console.report("deleted", {"deleted": endpoint_id}, as_json=as_json)


@app.command("rotate-secret")
def rotate_secret(endpoint_id: EndpointId, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Give an endpoint a new secret, and print it; the old one signs too for AUTH_WEBHOOK_SECRET_OVERLAP."""
    with console.open_resources() as resources:
        console.confirm(f"Give {endpoint_id} a new secret? One that is being replaced now ends.", yes=yes)
        rotated = service.rotate_secret(resources, console.operator(), None, endpoint_id)
    console.show_facts(_facts(rotated.endpoint) | {"secret": rotated.secret}, as_json=as_json)


@app.command()
def deliveries(
    endpoint_id: EndpointId, limit: Limit = 50, cursor: Cursor = None, *, as_json: AsJson = False
) -> None:
    """Print an endpoint's log: its messages, newest first, and how each fared."""
    with console.open_resources() as resources:
        page = service.list_deliveries(
            resources, console.operator(), None, endpoint_id, limit=limit, cursor=cursor
        )
    columns = ("message_id", "type", "state", "attempts", "status", "duration", "error", "next_attempt_at")
    rows = [asdict(logged) for logged in page.items]
    console.show_rows(rows, columns, as_json=as_json, next_cursor=page.next_cursor)


@app.command()
def replay(
    endpoint_id: EndpointId,
    message_id: Annotated[UUID, typer.Argument(help="Id of a message of its log.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Send a message again, under the same id, whether it was delivered or given up."""
    with console.open_resources() as resources:
        service.replay(resources, console.operator(), None, endpoint_id, message_id)
    console.report("queued", {"message_id": message_id}, as_json=as_json)


@app.command("test")
def send_test(endpoint_id: EndpointId, *, as_json: AsJson = False) -> None:
    """Send a message of the type webhook.test; the log says how it fared."""
    with console.open_resources() as resources:
        message_id = service.send_test(resources, console.operator(), None, endpoint_id)
    console.report(f"queued {message_id}", {"message_id": message_id}, as_json=as_json)


def _facts(endpoint: Endpoint) -> dict[str, Any]:
    return asdict(endpoint) | {"enabled": endpoint.disabled_at is None}

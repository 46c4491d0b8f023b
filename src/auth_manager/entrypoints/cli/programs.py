"""Commands that run something, and those that say what it is: serve, local, settings, version."""

import json
from pathlib import Path
from typing import Annotated

import typer

from auth_manager import __version__
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson
from auth_manager.settings import load_settings

app = typer.Typer()


@app.command()
def version(*, as_json: AsJson = False) -> None:
    """Print the version."""
    console.report(__version__, {"version": __version__}, as_json=as_json)


@app.command()
def settings(*, as_json: AsJson = False) -> None:
    """Print the effective settings, secrets masked."""
    effective = load_settings().model_dump(mode="json")
    if as_json:
        console.show_json({f"AUTH_{name.upper()}": value for name, value in sorted(effective.items())})
        return
    rows = [
        {"setting": f"AUTH_{name.upper()}", "value": json.dumps(value)}
        for name, value in sorted(effective.items())
    ]
    console.show_rows(rows, ["setting", "value"], as_json=False)


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

"""`auth-manager keys`: signing and secret keys."""

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import AsJson
from auth_manager.errors import ConfigurationError
from auth_manager.signing_keys import Algorithm, generate_signing_key, serialize_key_set
from auth_manager.totp import service as totp_service
from auth_manager.webhooks import service as webhooks_service

app = typer.Typer(no_args_is_help=True, help="Signing and secret keys.")


@app.command("generate")
def keys_generate(
    algorithm: Annotated[Algorithm, typer.Option(help="RS256 or ES256.")] = "RS256",
    directory: Annotated[
        Path | None, typer.Option(help="Write signing-keys.json and secret-keys here instead of printing.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a signing key set (AUTH_SIGNING_KEYS) and a secret key (AUTH_SECRET_KEYS)."""
    signing_keys = serialize_key_set([generate_signing_key(algorithm)])
    secret_key = secrets.token_urlsafe(48)
    if directory is None and as_json:
        console.show_json({"AUTH_SIGNING_KEYS": signing_keys, "AUTH_SECRET_KEYS": secret_key})
        return
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
        if not as_json:
            console.say(f"wrote {path}")
    if as_json:
        console.show_json({"wrote": [str(path) for path in files]})


@app.command("rewrap")
def keys_rewrap(*, as_json: AsJson = False) -> None:
    """Move what is encrypted to the first of AUTH_SECRET_KEYS, so that an old one can be taken out."""
    with console.open_resources() as resources:
        outcomes = (totp_service.rewrap_secrets(resources), webhooks_service.rewrap_secrets(resources))
    rewrapped = sum(outcome.rewrapped for outcome in outcomes)
    unreadable = sum(outcome.unreadable for outcome in outcomes)
    facts = {"rewrapped": rewrapped, "unreadable": unreadable}
    console.report(f"rewrapped {rewrapped}", facts, as_json=as_json)
    if unreadable:
        console.refuse(f"{unreadable} cannot be read with any of the keys")

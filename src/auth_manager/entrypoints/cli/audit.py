"""`auth-manager audit`: search, export and verify the audit trail."""

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TextIO
from uuid import UUID

import typer

from auth_manager import audit, maintenance
from auth_manager.audit_chain import verification
from auth_manager.audit_chain.checkpoints import ChainBroken
from auth_manager.audit_chain.verification import Verified
from auth_manager.audit_trail import Filters, parse_network, service, to_utc
from auth_manager.backups import StorageFailed
from auth_manager.database import Database
from auth_manager.entrypoints import checkpoint_places
from auth_manager.entrypoints.cli import console
from auth_manager.entrypoints.cli.console import EXIT_DIFFERS, AsJson
from auth_manager.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="Search, export and verify the audit trail.")

COLUMNS = ("occurred_at", "event", "outcome", "reason", "account_id", "actor_id", "operator", "address")


def _time(text: str) -> datetime:
    """Read an ISO 8601 time; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text)
        return to_utc(time if time.tzinfo else time.replace(tzinfo=UTC))
    except ValueError:
        raise typer.BadParameter("as in 2030-01-31 or 2030-01-31T12:00:00+01:00") from None


def _network(text: str) -> str:
    try:
        return parse_network(text)
    except ValueError:
        raise typer.BadParameter("an IP address, or a network as in 203.0.113.0/24") from None


Event = Annotated[str | None, typer.Option(help="By its name, as in logged_in.")]
Outcome = Annotated[Literal["success", "failure"] | None, typer.Option(help="How it ended.")]
Account = Annotated[UUID | None, typer.Option(help="The id of the account that it concerns.")]
Actor = Annotated[UUID | None, typer.Option(help="The id of who did it, if not the account's owner.")]
Operator = Annotated[str | None, typer.Option(help="Who did it on the command line.")]
Address = Annotated[str | None, typer.Option(parser=_network, help="An IP address or a network.")]
Since = Annotated[datetime | None, typer.Option(parser=_time, help="Then or later, in UTC.")]
Until = Annotated[datetime | None, typer.Option(parser=_time, help="Before that, in UTC.")]


@app.command("list")
def audit_list(
    event: Event = None,
    outcome: Outcome = None,
    account: Account = None,
    actor: Actor = None,
    operator: Operator = None,
    address: Address = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Events of a page.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Of the page before.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List events that match all that is given, the latest first."""
    filters = Filters(event, outcome, account, actor, operator, address, since, until)
    with console.open_resources() as resources:
        page = service.search_as_operator(resources, filters, limit=limit, cursor=cursor)
    console.show_rows(page.items, COLUMNS, as_json=as_json, next_cursor=page.next_cursor)


@app.command("export")
def audit_export(
    file: Annotated[Path, typer.Argument(help="To write; - is standard output.")],
    event: Event = None,
    outcome: Outcome = None,
    account: Account = None,
    actor: Actor = None,
    operator: Operator = None,
    address: Address = None,
    since: Since = None,
    until: Until = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Write events as JSON Lines, the first ones first, with their places in the chain and its hashes."""
    filters = Filters(event, outcome, account, actor, operator, address, since, until)
    with console.open_resources() as resources:
        written = 0
        try:
            with _writing(file) as output:
                for line in service.export(resources.database, filters):
                    output.write(json.dumps(line, ensure_ascii=False) + "\n")
                    written += 1
        except BaseException:
            if written:  # whoever stopped reading has what was written
                _note_export(resources.database, written)
            raise
        _note_export(resources.database, written)
    if str(file) != "-":
        console.show_facts({"exported": written, "file": str(file)}, as_json=as_json)


def _note_export(database: Database, events: int) -> None:
    with database.one_trip() as connection:
        audit.append(connection, "audit_exported", console.operator(), details={"events": events})


@app.command("chain")
def audit_chain(*, as_json: AsJson = False) -> None:
    """Chain the events that wait for it; the maintenance function does so every hour."""
    with console.open_resources() as resources:
        chained = maintenance.chain_audit(resources.database)
    console.show_facts({"chained": chained}, as_json=as_json)


@app.command("checkpoint")
def audit_checkpoint(*, as_json: AsJson = False) -> None:
    """Chain, sign where the chain stands, and keep that at AUTH_AUDIT_CHECKPOINT_URL, too."""
    with _refusals(), console.open_resources() as resources:
        keep = checkpoint_places.keeper(resources.settings)
        checkpoint = maintenance.checkpoint_audit(
            resources.database,
            resources.signing_keys.get(),
            issuer=resources.settings.issuer,
            now=datetime.now(UTC),
            keep=keep,
        )
    facts = {
        "position": checkpoint.position if checkpoint else 0,
        "hash": checkpoint.hash.hex() if checkpoint else None,
        "taken_at": checkpoint.taken_at if checkpoint else None,
        "kept_elsewhere": bool(checkpoint and keep),
    }
    console.show_facts(facts, as_json=as_json)


@app.command("verify")
def audit_verify(
    from_checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="A file, or s3://bucket/prefix/name.json: kept elsewhere, so taken at its word."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Walk the whole chain; name the first event that was altered, removed or put in, and exit 3."""
    with _refusals(), console.open_resources() as resources:
        outside = [checkpoint_places.read(place) for place in from_checkpoint or ()]
        found = verification.verify(resources.database, resources.signing_keys.get(), outside=outside)
    _show_verified(found, as_json=as_json)
    if not found.is_sound:
        raise typer.Exit(EXIT_DIFFERS)


def _show_verified(found: Verified, *, as_json: bool) -> None:
    if as_json:
        console.show_json({"sound": found.is_sound, **asdict(found)})
        return
    facts = {
        "events verified": found.events,
        "not chained yet": found.unchained,
        "of erased accounts": found.erased,
        "checkpoints": found.checkpoints,
        "last checkpoint": found.last_checkpoint,
    }
    console.show_facts(facts, as_json=False)
    if found.fault:
        fault = found.fault
        who = f"event {fault.event_id}" if fault.event_id else "an event"
        console.errors.print(
            f"{fault.kind}: {who} at position {fault.position}: {fault.reason}",
            style="red", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    for damaged in found.checkpoint_faults:
        console.errors.print(
            f"checkpoint at position {damaged.position}: {damaged.reason}",
            style="red", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.say("the audit trail is sound" if found.is_sound else "the audit trail is BROKEN")


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except ChainBroken as error:
        console.refuse(f"The audit trail is BROKEN: {error}; see `auth-manager audit verify`", EXIT_DIFFERS)
    except StorageFailed as error:
        console.refuse(str(error))


@contextmanager
def _writing(file: Path) -> Generator[TextIO]:
    """Open standard output, or a file for its owner alone that has its name once it is whole."""
    if str(file) == "-":
        yield sys.stdout
        return
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600, exist_ok=False)
        with partial.open("w", encoding="utf-8") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        partial.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)

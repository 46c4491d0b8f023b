"""Searching the audit trail, and handing all of it over."""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from auth_manager.audit import Origin
from auth_manager.audit_trail import Filters, store
from auth_manager.database import Connection, Database, Row
from auth_manager.permissions import require_administrator
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims

PAGE = 1000
"""Events of one statement of an export."""

_CURSOR = "audit"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_BYTES = 8
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, the latest first, and where the next page begins; None at the end."""

    items: list[Row]
    next_cursor: str | None


def search(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims,
    filters: Filters,
    *,
    limit: int,
    cursor: str | None,
) -> EventPage:
    """Return a page for an administrator, in one round trip.

    Raises:
        Forbidden: the caller lacks audit:read (by now), or acts for somebody else.
        RecentAuthenticationRequired: the caller's session was not stepped up.
        InvalidFields: the cursor is not one of this list.
        SessionEnded: the caller's session ended.
    """
    with resources.database.one_trip() as connection:
        require_administrator(resources, connection, origin, claims, "audit:read")
        return _search(resources, connection, filters, limit=limit, cursor=cursor)


def search_as_operator(
    resources: Resources, filters: Filters, *, limit: int, cursor: str | None
) -> EventPage:
    """Return a page for whoever may read the database.

    Raises:
        InvalidFields: the cursor is not one of this list.
    """
    with resources.database.one_trip() as connection:
        return _search(resources, connection, filters, limit=limit, cursor=cursor)


def export(database: Database, filters: Filters, *, page: int = PAGE) -> Generator[dict[str, Any]]:
    """Read the trail, the first events first, as lines of an export, from which each hash can be computed.

    In pages, so that memory is flat and no transaction is long. An event that is committed meanwhile may be
    left out, as may one that is younger than the export.
    """
    after: store.Place | None = None
    while True:
        with database.one_trip() as connection:
            rows = store.read_on(connection, filters, after=after, limit=page)
        yield from map(_line, rows)
        if len(rows) < page:
            return
        after = rows[-1]["time"], UUID(rows[-1]["id"])


def _search(
    resources: Resources, connection: Connection, filters: Filters, *, limit: int, cursor: str | None
) -> EventPage:
    before = _read_place(resources.cursors.open(cursor, context=_CURSOR)) if cursor else None
    # One more than asked tells whether there is a next page.
    found = store.search(connection, filters, before=before, limit=limit + 1)
    items = found[:limit]
    more = len(found) > limit
    return EventPage(items, resources.cursors.seal(_place(items[-1]), context=_CURSOR) if more else None)


def _place(row: Row) -> bytes:
    microseconds: int = (row["occurred_at"] - _EPOCH) // _MICROSECOND
    identifier: UUID = row["id"]
    return microseconds.to_bytes(_TIME_BYTES, signed=True) + identifier.bytes


def _read_place(place: bytes) -> store.Place:
    microseconds = int.from_bytes(place[:_TIME_BYTES], signed=True)
    return _EPOCH + microseconds * _MICROSECOND, UUID(bytes=place[_TIME_BYTES:])


def _line(row: Row) -> dict[str, Any]:
    """Return an event as a line has it: `details` in the order that its hash covers, bytes in hexadecimal."""
    details: Mapping[str, Any] = json.loads(row["details"])
    return {
        "position": row["position"],
        "id": row["id"],
        "occurred_at": row["time"].astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        **{name: row[name] for name in ("event", "outcome", "reason", "account_id", "session_id")},
        **{name: row[name] for name in ("actor_id", "operator", "address", "user_agent", "request_id")},
        "details": details,
        **{
            name: _hexadecimal(row[name])
            for name in ("previous_hash", "personal_salt", "personal_hash", "hash")
        },
    }


def _hexadecimal(value: object) -> str | None:
    return bytes(value).hex() if isinstance(value, memoryview | bytes) else None

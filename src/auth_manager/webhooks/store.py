"""SQL on endpoints."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from auth_manager import entity_tags
from auth_manager.database import Connection, Row
from auth_manager.errors import AuthError, NotFound, PreconditionFailed, TooManyWebhooks
from auth_manager.webhooks import MOST_ENDPOINTS, Endpoint, NewEndpoint


def insert(connection: Connection, new: NewEndpoint) -> None:
    """Queue the row of an endpoint; the round trip raises TooManyWebhooks if there are as many as may be."""
    connection.add("LOCK TABLE webhook_endpoints IN SHARE ROW EXCLUSIVE MODE")  # or two could be the last one
    connection.add(
        """
        SELECT require((SELECT count(*) FROM webhook_endpoints WHERE id <> %(id)s) < %(most)s,
                       'too_many_webhooks')
        """,
        {"id": new.id, "most": MOST_ENDPOINTS},
        refused={"too_many_webhooks": TooManyWebhooks()},
    )
    connection.add(
        """
        INSERT INTO webhook_endpoints (id, url, types, description, secret, created_at, updated_at)
        VALUES (%(id)s, %(url)s, %(types)s, %(description)s, %(secret)s, %(now)s, %(now)s)
        ON CONFLICT ON CONSTRAINT webhook_endpoints_pkey DO NOTHING -- sent twice, written once
        """,
        {
            "id": new.id,
            "url": new.url,
            "types": list(new.types),
            "description": new.description,
            "secret": new.sealed_secret,
            "now": new.created_at,
        },
    )


def require_endpoint(connection: Connection, endpoint_id: UUID) -> None:
    """Queue the guard: the round trip raises NotFound if there is no such endpoint."""
    connection.add(
        "SELECT require(EXISTS (SELECT FROM webhook_endpoints WHERE id = %(id)s), 'webhook_not_found')",
        {"id": endpoint_id},
        refused={"webhook_not_found": NotFound()},
    )


def require_tag(connection: Connection, endpoint_id: UUID, tags: Sequence[str]) -> None:
    """Queue the guard: the round trip raises PreconditionFailed unless one of these is the endpoint's tag.

    It locks the endpoint's row: the tag is still its own when it is changed.
    """
    connection.add(
        f"""
        SELECT require((
            SELECT {entity_tags.SQL} FROM webhook_endpoints WHERE id = %(id)s FOR UPDATE
        ) = ANY (%(tags)s), 'changed_since')
        """,  # noqa: S608 -- a constant
        {"id": endpoint_id, "tags": list(tags)},
        refused={"changed_since": PreconditionFailed()},
    )


def require_enabled(connection: Connection, endpoint_id: UUID, *, otherwise: AuthError) -> None:
    """Queue the guard: the round trip raises `otherwise` if messages to the endpoint wait."""
    connection.add(
        """
        SELECT require(EXISTS (
            SELECT FROM webhook_endpoints WHERE id = %(id)s AND disabled_at IS NULL), 'webhook_disabled')
        """,
        {"id": endpoint_id},
        refused={"webhook_disabled": otherwise},
    )


def list_endpoints(
    connection: Connection, *, now: datetime, before: UUID | None, limit: int
) -> list[Endpoint]:
    """Return endpoints, the newest first, from the one before a position."""
    rows = connection.fetch_all(
        """
        SELECT * FROM webhook_endpoints WHERE %(before)s::uuid IS NULL OR id < %(before)s
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"before": before, "limit": limit},
    )
    return [_endpoint_from(row, now) for row in rows]


def fetch(connection: Connection, endpoint_id: UUID, *, now: datetime) -> Endpoint | None:
    """Return an endpoint."""
    row = connection.fetch_one("SELECT * FROM webhook_endpoints WHERE id = %(id)s", {"id": endpoint_id})
    return _endpoint_from(row, now) if row else None


def update(
    connection: Connection, endpoint_id: UUID, changes: Mapping[str, Any], *, now: datetime
) -> Endpoint | None:
    """Change `url`, `types`, `description` and `enabled`, those that are named; return what it is now.

    Enabled again, it counts as one that never failed.
    """
    row = connection.fetch_one(
        """
        UPDATE webhook_endpoints SET
            url = COALESCE(%(url)s, url),
            types = COALESCE(%(types)s, types),
            description = COALESCE(%(description)s, description),
            disabled_at = CASE WHEN %(enabled)s THEN NULL
                               WHEN NOT %(enabled)s THEN COALESCE(disabled_at, %(now)s)
                               ELSE disabled_at END,
            disabled_reason = CASE WHEN %(enabled)s THEN NULL
                                   WHEN NOT %(enabled)s THEN COALESCE(disabled_reason, 'administrator')
                                   ELSE disabled_reason END,
            failing_since = CASE WHEN %(enabled)s THEN NULL ELSE failing_since END,
            paused_until = CASE WHEN %(enabled)s THEN NULL ELSE paused_until END,
            updated_at = GREATEST(%(now)s, updated_at + interval '1 microsecond')
        WHERE id = %(id)s
        RETURNING *
        """,
        {
            "id": endpoint_id,
            "now": now,
            "url": changes.get("url"),
            "types": changes.get("types"),
            "description": changes.get("description"),
            "enabled": changes.get("enabled"),
        },
    )
    return _endpoint_from(row, now) if row else None


def delete(connection: Connection, endpoint_id: UUID) -> None:
    """Queue the removal of an endpoint; its messages are never sent, and go with the outbox's retention."""
    connection.add("DELETE FROM webhook_endpoints WHERE id = %(id)s", {"id": endpoint_id})


def replace_secret(
    connection: Connection, endpoint_id: UUID, sealed_secret: bytes, *, overlap: timedelta, now: datetime
) -> None:
    """Queue a new secret; the one of now signs too for the time of `overlap`, the one before it no more."""
    connection.add(
        """
        UPDATE webhook_endpoints
        SET previous_secret = secret, previous_until = %(until)s, secret = %(secret)s,
            updated_at = GREATEST(%(now)s, updated_at + interval '1 microsecond')
        WHERE id = %(id)s AND secret <> %(secret)s -- sent twice, done once
        """,
        {"id": endpoint_id, "secret": sealed_secret, "until": now + overlap, "now": now},
    )


def list_secrets(connection: Connection) -> list[Row]:
    """Return every endpoint's `id`, `secret` and `previous_secret`, sealed."""
    return connection.fetch_all("SELECT id, secret, previous_secret FROM webhook_endpoints ORDER BY id")


def store_rewrapped(connection: Connection, endpoint_id: UUID, *, old: bytes, new: bytes) -> None:
    """Queue the same secret, wrapped anew, wherever it is the one it was."""
    connection.add(
        """
        UPDATE webhook_endpoints SET
            secret = CASE WHEN secret = %(old)s THEN %(new)s ELSE secret END,
            previous_secret = CASE WHEN previous_secret = %(old)s THEN %(new)s ELSE previous_secret END
        WHERE id = %(id)s
        """,
        {"id": endpoint_id, "old": old, "new": new},
    )


def disable(connection: Connection, endpoint_id: UUID, *, reason: str, now: datetime) -> bool:
    """Disable an endpoint; return whether it was enabled."""
    row = connection.fetch_one(
        """
        UPDATE webhook_endpoints SET disabled_at = %(now)s, disabled_reason = %(reason)s,
            updated_at = GREATEST(%(now)s, updated_at + interval '1 microsecond')
        WHERE id = %(id)s AND disabled_at IS NULL
        RETURNING id
        """,
        {"id": endpoint_id, "reason": reason, "now": now},
    )
    return row is not None


def _endpoint_from(row: Row, now: datetime) -> Endpoint:
    until = row["previous_until"]
    return Endpoint(
        id=row["id"],
        url=row["url"],
        types=tuple(row["types"]),
        description=row["description"],
        disabled_at=row["disabled_at"],
        disabled_reason=row["disabled_reason"],
        failing_since=row["failing_since"],
        previous_secret_until=until if until and until > now else None,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )

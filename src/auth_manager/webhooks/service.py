"""Endpoints of webhooks, their secrets and their log: for administrators, and for the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from auth_manager import audit, sealed_values
from auth_manager.administrators import actor, authorize
from auth_manager.audit import Origin
from auth_manager.errors import FieldError, InvalidFields, NotFound, WebhookDisabled
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.observability import log_event
from auth_manager.outbound_http import InvalidUrl, Outbound
from auth_manager.resources import Resources
from auth_manager.standard_webhooks import generate_secret
from auth_manager.tokens import AccessClaims
from auth_manager.webhooks import (
    EVERY_TYPE,
    SECRET_PURPOSE,
    TYPES,
    Endpoint,
    LoggedDelivery,
    NewEndpoint,
    messages,
    store,
)

READ = "webhooks:read"
WRITE = "webhooks:write"


@dataclass(frozen=True, slots=True)
class EndpointWithSecret:
    """An endpoint that was made, or got a new secret: the one time that it is told."""

    endpoint: Endpoint
    secret: str


@dataclass(frozen=True, slots=True)
class EndpointPage:
    """Some of the endpoints, and the cursor of what follows, None at their end."""

    items: Sequence[Endpoint]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Some of a log, and the cursor of what follows, None at its end."""

    items: Sequence[LoggedDelivery]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """How many secrets were moved to the first of AUTH_SECRET_KEYS, and how many nobody can read."""

    rewrapped: int
    unreadable: int


def create(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    *,
    url: str,
    types: Sequence[str] = (EVERY_TYPE,),
    description: str = "",
    record: Record[EndpointWithSecret] | None = None,
) -> EndpointWithSecret:
    """Make an endpoint, in one round trip. Without `claims` by the operator of the command line, as below.

    Raises:
        InvalidFields: nothing is posted to that URL, or there is no such type.
        TooManyWebhooks: there are as many as may be.
        Forbidden, RecentAuthenticationRequired, SessionEnded: as for `authorize`; so do all the others here.
    """
    _refuse_invalid(resources, url=url, types=types)
    endpoint_id, secret = new_id(), generate_secret()
    sealed = _seal(resources, endpoint_id, secret)
    new = NewEndpoint(endpoint_id, url, tuple(types), description, sealed, origin.now)
    made = EndpointWithSecret(
        Endpoint(
            id=new.id,
            url=new.url,
            types=new.types,
            description=new.description,
            disabled_at=None,
            disabled_reason=None,
            failing_since=None,
            previous_secret_until=None,
            created_at=origin.now,
            updated_at=origin.now,
        ),
        secret,
    )
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, WRITE)
        store.insert(connection, new)
        audit.append(connection, "webhook_created", origin, **actor(claims), details=_told(endpoint_id))
        if record:
            record(connection, made)
    log_event("webhook_created", webhook_id=endpoint_id)
    return made


def list_endpoints(
    resources: Resources, origin: Origin, claims: AccessClaims | None, *, limit: int, cursor: str | None
) -> EndpointPage:
    """Return endpoints, the newest first, in one round trip.

    Raises:
        InvalidFields: the cursor is not one of this list.
    """
    context = "webhooks"
    before = UUID(bytes=resources.cursors.open(cursor, context=context)) if cursor else None
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, READ)
        found = store.list_endpoints(connection, now=origin.now, before=before, limit=limit + 1)
    items = found[:limit]
    more = len(found) > limit
    return EndpointPage(items, resources.cursors.seal(items[-1].id.bytes, context=context) if more else None)


def get(resources: Resources, origin: Origin, claims: AccessClaims | None, endpoint_id: UUID) -> Endpoint:
    """Return an endpoint, in one round trip.

    Raises:
        NotFound: there is none.
    """
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, READ)
        endpoint = store.fetch(connection, endpoint_id, now=origin.now)
    if endpoint is None:
        raise NotFound
    return endpoint


def change(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    endpoint_id: UUID,
    changes: dict[str, Any],
    *,
    tags: Sequence[str] | None = None,
) -> Endpoint:
    """Change `url`, `types`, `description` or `enabled`, in one round trip.

    With `tags` only while one of them is its own. What is pending goes to the new URL.

    Raises:
        InvalidFields: as for `create`.
        NotFound: there is no such endpoint.
        PreconditionFailed: it was changed since it was read.
    """
    _refuse_invalid(resources, url=changes.get("url"), types=changes.get("types"))
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, WRITE)
        store.require_endpoint(connection, endpoint_id)
        if tags is not None:
            store.require_tag(connection, endpoint_id, tags)
        audit.append(
            connection,
            "webhook_changed",
            origin,
            **actor(claims),
            details=_told(endpoint_id, fields=sorted(changes)),
        )
        endpoint = store.update(connection, endpoint_id, changes, now=origin.now)
    if endpoint is None:  # deleted after the guard, in the same moment
        raise NotFound
    log_event("webhook_changed", webhook_id=endpoint_id)
    return endpoint


def delete(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    endpoint_id: UUID,
    *,
    tags: Sequence[str] | None = None,
) -> None:
    """Delete an endpoint, in one round trip; what is pending is never sent.

    Raises:
        NotFound: there is none.
        PreconditionFailed: as for `change`.
    """
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, WRITE)
        store.require_endpoint(connection, endpoint_id)
        if tags is not None:
            store.require_tag(connection, endpoint_id, tags)
        store.delete(connection, endpoint_id)
        audit.append(connection, "webhook_deleted", origin, **actor(claims), details=_told(endpoint_id))
    log_event("webhook_deleted", webhook_id=endpoint_id)


def rotate_secret(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    endpoint_id: UUID,
    *,
    record: Record[EndpointWithSecret] | None = None,
) -> EndpointWithSecret:
    """Give an endpoint a new secret, in two round trips.

    The one of now signs too for AUTH_WEBHOOK_SECRET_OVERLAP; a still older one no more.

    Raises:
        NotFound: there is no such endpoint.
    """
    secret = generate_secret()
    sealed = _seal(resources, endpoint_id, secret)
    overlap = timedelta(seconds=resources.settings.webhook_secret_overlap)
    with resources.database.transaction() as connection:
        authorize(resources, connection, origin, claims, WRITE)
        store.require_endpoint(connection, endpoint_id)
        store.replace_secret(connection, endpoint_id, sealed, overlap=overlap, now=origin.now)
        audit.append(
            connection, "webhook_secret_rotated", origin, **actor(claims), details=_told(endpoint_id)
        )
        endpoint = store.fetch(connection, endpoint_id, now=origin.now)
        if endpoint is None:  # the change holds its row
            raise NotFound
        rotated = EndpointWithSecret(endpoint, secret)
        if record:
            record(connection, rotated)
    log_event("webhook_secret_rotated", webhook_id=endpoint_id)
    return rotated


def list_deliveries(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    endpoint_id: UUID,
    *,
    limit: int,
    cursor: str | None,
) -> DeliveryPage:
    """Return an endpoint's log, newest first, in one round trip.

    Raises:
        InvalidFields: the cursor is not one of this list.
        NotFound: there is no such endpoint.
    """
    context = f"webhook deliveries:{endpoint_id}"
    before = UUID(bytes=resources.cursors.open(cursor, context=context)) if cursor else None
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, READ)
        store.require_endpoint(connection, endpoint_id)
        found = messages.list_deliveries(connection, endpoint_id, before=before, limit=limit + 1)
    items = found[:limit]
    more = len(found) > limit
    position = items[-1].message_id.bytes if more else b""
    return DeliveryPage(items, resources.cursors.seal(position, context=context) if more else None)


def replay(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    endpoint_id: UUID,
    message_id: UUID,
    *,
    record: Record[UUID] | None = None,
) -> UUID:
    """Send a message of the log again, in one round trip, under the same id: delivered or not.

    Raises:
        NotFound: the endpoint's log has no such message.
        WebhookDisabled: nothing is sent to it.
    """
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, WRITE)
        store.require_endpoint(connection, endpoint_id)
        store.require_enabled(connection, endpoint_id, otherwise=WebhookDisabled())
        messages.replay(connection, endpoint_id, message_id)
        audit.append(
            connection,
            "webhook_replayed",
            origin,
            **actor(claims),
            details=_told(endpoint_id, message_id=str(message_id)),
        )
        if record:
            record(connection, message_id)
    resources.hand_over([message_id])
    return message_id


def send_test(
    resources: Resources,
    origin: Origin,
    claims: AccessClaims | None,
    endpoint_id: UUID,
    *,
    record: Record[UUID] | None = None,
) -> UUID:
    """Send a message of type `webhook.test`, in one round trip; return its id.

    Raises:
        NotFound: there is no such endpoint.
        WebhookDisabled: nothing is sent to it.
    """
    message_id = new_id()
    with resources.database.one_trip() as connection:
        authorize(resources, connection, origin, claims, WRITE)
        store.require_endpoint(connection, endpoint_id)
        store.require_enabled(connection, endpoint_id, otherwise=WebhookDisabled())
        messages.add_test(connection, message_id, endpoint_id, now=origin.now)
        audit.append(
            connection,
            "webhook_tested",
            origin,
            **actor(claims),
            details=_told(endpoint_id, message_id=str(message_id)),
        )
        if record:
            record(connection, message_id)
    resources.hand_over([message_id])
    return message_id


def rewrap_secrets(resources: Resources) -> Rewrapped:
    """Move every secret to the first of AUTH_SECRET_KEYS, so that an old one can be taken out."""
    keys = resources.secret_keys
    with resources.database.one_trip() as connection:
        rows = store.list_secrets(connection)
    rewrapped = unreadable = 0
    for row in rows:
        for sealed in filter(None, (row["secret"], row["previous_secret"])):
            old = bytes(sealed)
            if sealed_values.is_current(keys, SECRET_PURPOSE, old):
                continue
            try:
                new = sealed_values.rewrap(keys, SECRET_PURPOSE, old)
            except sealed_values.CannotOpen:
                unreadable += 1
                continue
            with resources.database.one_trip() as connection:
                store.store_rewrapped(connection, row["id"], old=old, new=new)
            rewrapped += 1
    return Rewrapped(rewrapped, unreadable)


def _seal(resources: Resources, endpoint_id: UUID, secret: str) -> bytes:
    return sealed_values.seal(
        resources.secret_keys, SECRET_PURPOSE, secret.encode(), bound_to=endpoint_id.bytes
    )


def _refuse_invalid(resources: Resources, *, url: str | None, types: Sequence[str] | None) -> None:
    """Refuse what can be seen at once; whether a name leads into a private network, only its look-up says."""
    errors = []
    if url is not None:
        try:
            Outbound(allowed_networks=resources.settings.webhook_networks).check(url)
        except InvalidUrl as error:
            errors.append(FieldError("/url", "invalid_url", f"The URL {error}."))
    if types is not None and not set(types) <= {EVERY_TYPE, *TYPES}:
        errors.append(FieldError("/types", "unknown_type", f"The types are {', '.join(TYPES)}, or *."))
    if errors:
        raise InvalidFields(errors=errors)


def _told(endpoint_id: UUID, **more: object) -> dict[str, object]:
    return {"webhook_id": str(endpoint_id), **more}

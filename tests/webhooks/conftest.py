"""An administrator, endpoints on this machine, and what delivers to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from tests.mfa.test_routes import bearer, create, log_in
from tests.webhooks.receivers import Receiver, serve

from auth_manager import audit
from auth_manager.audit import Origin
from auth_manager.database import Database, Row
from auth_manager.entrypoints.mail_delivery import open_webhook_delivery
from auth_manager.ids import new_id
from auth_manager.resources import Resources
from auth_manager.webhooks import service
from auth_manager.webhooks.delivery import WebhookDelivery
from auth_manager.webhooks.service import EndpointWithSecret

ADMINISTRATOR = "admin@example.com"
ALLOWED = {"webhook_allowed_networks": ("127.0.0.0/8", "::1/128")}


def operator(now: datetime | None = None) -> Origin:
    """Somebody on the command line."""
    return Origin(None, "auth-manager cli", "cli-1", now or datetime.now(UTC), operator="olga")


@dataclass
class Hooks:
    """What the tests of deliveries do."""

    resources: Resources
    delivery: WebhookDelivery

    @property
    def database(self) -> Database:
        return self.resources.database

    def create(self, url: str, *types: str) -> EndpointWithSecret:
        return service.create(self.resources, operator(), None, url=url, types=types or ("*",))

    def happen(self, event: str = "profile_changed", **what: Any) -> UUID:
        """Write an event of the trail; the id of its account."""
        account_id: UUID = what.pop("account_id", None) or new_id()
        with self.database.one_trip() as connection:
            audit.append(connection, event, operator(), account_id=account_id, **what)
        return account_id

    def query(self, sql: str, parameters: dict[str, object] | None = None) -> list[Row]:
        with self.database.one_trip() as connection:
            return connection.fetch_all(sql, parameters)

    def messages(self) -> list[Row]:
        return self.query("SELECT * FROM outbox WHERE endpoint_id IS NOT NULL ORDER BY id")

    def wait(self) -> None:
        """Until everything that waits is due, and no endpoint has a pause."""
        with self.database.one_trip() as connection:
            connection.add("UPDATE outbox SET sending_until = now() WHERE sending_until > now()")
            connection.add("UPDATE webhook_endpoints SET paused_until = NULL")

    def wait_of(self, message_id: UUID) -> timedelta:
        """How long a message still waits."""
        [row] = self.query(
            "SELECT sending_until - clock_timestamp() AS wait FROM outbox WHERE id = %(id)s",
            {"id": message_id},
        )
        wait: timedelta = row["wait"]
        return wait


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serve() as one:
        yield one


def open_hooks(make_resources: Callable[..., Resources]) -> Hooks:
    resources = make_resources(**ALLOWED)
    delivery = open_webhook_delivery(resources.settings, resources.database, resources.secret_keys)
    return Hooks(resources, delivery)


@pytest.fixture
def hooks(make_resources: Callable[..., Resources]) -> Hooks:
    return open_hooks(make_resources)


@pytest.fixture
def api(make_client: Callable[..., TestClient]) -> TestClient:
    """A client of an administrator who just signed in."""
    client = make_client(**ALLOWED)
    create(client, "admin", email=ADMINISTRATOR)
    client.headers |= bearer(log_in(client, ADMINISTRATOR))
    return client

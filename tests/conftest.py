"""What every test may use: one PostgreSQL a run, a clean database a test.

AUTH_TEST_DATABASE_URL names another PostgreSQL (15 or newer, superuser, URI); a database is created there and
dropped at the end. Tests that stop or freeze the server need the embedded one, and are skipped then.
"""

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient

from auth_manager import observability
from auth_manager.app import build_resources, create_app
from auth_manager.database import Database
from auth_manager.local.postgres import EmbeddedPostgres, start_embedded
from auth_manager.migrate import apply_migrations
from auth_manager.resources import Resources
from auth_manager.settings import Settings
from auth_manager.signing_keys import generate_signing_key, serialize_key_set

EXTERNAL_DATABASE_URL = os.environ.get("AUTH_TEST_DATABASE_URL", "")


@pytest.fixture(autouse=True)
def _own_telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sinks of each test alone: Powertools keeps one set of metrics a process, and one logger a name."""
    monkeypatch.setenv("AUTH_SERVICE_NAME", f"auth-manager-{secrets.token_hex(4)}")
    for sink in ("service", "logger", "readable", "metrics", "tracer"):
        monkeypatch.setattr(observability._Telemetry, sink, getattr(observability._Telemetry, sink))
    yield
    logging.getLogger(observability._Telemetry.service).handlers.clear()
    if observability._Telemetry.metrics is not None:
        observability._Telemetry.metrics.clear_metrics()


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The run's own server, for tests that also signal it."""
    if EXTERNAL_DATABASE_URL:
        pytest.skip("AUTH_TEST_DATABASE_URL: that server is not ours to signal")
    with (
        tempfile.TemporaryDirectory(prefix="auth-manager-test-") as directory,
        start_embedded(Path(directory), durable=False) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """A superuser's URL of the server, for tests that create roles and databases."""
    if EXTERNAL_DATABASE_URL:
        return EXTERNAL_DATABASE_URL
    server: EmbeddedPostgres = request.getfixturevalue("postgres")
    return server.url


@pytest.fixture(scope="session")
def database_url(server_url: str) -> Iterator[str]:
    """A migrated database that lives as long as the run; `database` cleans it."""
    name = f"auth_manager_test_{secrets.token_hex(4)}"
    server = Database(server_url, deadline=30)
    with server.one_trip() as connection:
        connection.add(f"CREATE DATABASE {name}")
    url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
    apply_migrations(url)
    yield url
    with server.one_trip() as connection:
        connection.add(f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


@pytest.fixture(scope="session")
def _cleaning(database_url: str) -> str:
    """SQL that empties every table. DELETE beats TRUNCATE on tables as small as a test's."""
    database = Database(database_url)
    with database.one_trip() as connection:
        rows = connection.fetch_all(
            "SELECT format('DELETE FROM %I.%I', schemaname, tablename) AS sql FROM pg_tables"
            " WHERE schemaname = 'auth_manager' AND tablename NOT IN ('schema_migrations', 'roles')"
        )
    database.close()
    # As a replica, PostgreSQL fires no triggers: audit_events would refuse.
    roles = "DELETE FROM auth_manager.roles WHERE NOT is_built_in"
    return ";".join(["SET LOCAL session_replication_role = replica", *(row["sql"] for row in rows), roles])


@pytest.fixture
def database(database_url: str, _cleaning: str) -> Iterator[Database]:
    """A pool of four connections to empty tables."""
    database = Database(database_url, pool_size=4)
    with database.transaction() as connection:
        connection.fetch_all(_cleaning)
    database.round_trips = 0
    yield database
    database.close()


@pytest.fixture(scope="session")
def signing_keys() -> str:
    """One generated RSA key for the run, as AUTH_SIGNING_KEYS takes it."""
    return serialize_key_set([generate_signing_key("RS256")])


@pytest.fixture
def make_settings(database_url: str, signing_keys: str) -> Callable[..., Settings]:
    """Settings of a deployment against the run's database; keyword arguments override."""

    def make(**overrides: Any) -> Settings:
        values: dict[str, Any] = {
            "mode": "deployed",
            "public_url": "https://auth.example.com",
            "database_url": database_url,
            "signing_keys": signing_keys,
            "secret_keys": ("0123456789abcdefghijklmnopqrstuvwxyz-test-only",),
            "docs_enabled": True,
        }
        return Settings(**values | overrides)

    return make


@pytest.fixture
def make_resources(
    make_settings: Callable[..., Settings],
    database: Database,  # noqa: ARG001 -- asked for its clean tables
) -> Iterator[Callable[..., Resources]]:
    """Resources over a clean database; keyword arguments override settings."""
    made: list[Resources] = []

    def make(**overrides: Any) -> Resources:
        made.append(build_resources(make_settings(**overrides)))
        return made[-1]

    yield make
    for resources in made:
        resources.database.close()


@pytest.fixture
def resources(make_resources: Callable[..., Resources]) -> Resources:
    """Resources with the default settings."""
    return make_resources()


@pytest.fixture
def make_client(make_resources: Callable[..., Resources]) -> Iterator[Callable[..., TestClient]]:
    """HTTP clients of an application in this process; keyword arguments override settings."""
    clients: list[TestClient] = []

    def make(**overrides: Any) -> TestClient:
        app = create_app(make_resources(**overrides))
        clients.append(TestClient(app, base_url="https://auth.example.com", client=("203.0.113.7", 5000)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    """An HTTP client of an application with the default settings."""
    return make_client()

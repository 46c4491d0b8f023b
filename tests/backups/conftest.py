"""Databases of a test's own, and people in them."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from tests.mfa.factors import STEP, Authenticator

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.app import build_resources, create_app
from auth_manager.audit import Origin
from auth_manager.backups import store
from auth_manager.backups.archive import RowsDigest
from auth_manager.backups.storage import Directory
from auth_manager.database import Database
from auth_manager.migrate import apply_migrations
from auth_manager.resources import Resources
from auth_manager.settings import Settings

PASSWORD = "SecurePass123!"
START = datetime(2026, 11, 22, 12, tzinfo=UTC)
OPERATOR = Origin(None, "auth-manager cli", "cli-1", START, operator="olga")

MakeDatabase = Callable[..., str]


def run_sql(url: str, statement: str) -> list[dict[str, Any]]:
    """Run a statement, with the schema in the search path."""
    database = Database(url, deadline=30)
    try:
        with database.one_trip() as connection:
            return connection.fetch_all(statement)
    finally:
        database.close()


def contents(url: str) -> dict[str, tuple[int, str]]:
    """Rows and digest of each table."""
    with store.connect(url) as session:
        store.begin_snapshot(session)
        found = {}
        for table in store.list_tables(session):
            digest = RowsDigest()
            session.copy_out(table, _Digesting(digest))
            found[table.name] = (digest.rows, digest.hexdigest())
    return found


class _Digesting:
    def __init__(self, digest: RowsDigest) -> None:
        self.write = digest.add


class Service:
    """The service over one database, by HTTP."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.client = TestClient(
            create_app(resources), base_url="https://auth.example.com", client=("203.0.113.7", 5000)
        )

    def create(self, email: str, *roles: str) -> None:
        origin = Origin(None, "", "", datetime.now(UTC))
        registration = Registration(
            email=email,
            password=PASSWORD,
            username=email.partition("@")[0],
            attributes={"a": [1.10, "é\t\\"]},
        )
        accounts.create_verified(self.resources, origin, registration, roles=roles)

    def log_in(self, email: str) -> Response:
        return self.client.post("/auth/login", json={"email": email, "password": PASSWORD})

    def refresh(self, answer: Response) -> Response:
        return self.client.post("/auth/refresh", json={"refresh_token": answer.json()["refresh_token"]})

    def enrol(self, email: str) -> Authenticator:
        headers = {"Authorization": f"Bearer {self.log_in(email).json()['access_token']}"}
        app = Authenticator(self.client.post("/auth/mfa/totp", headers=headers).json()["secret"])
        confirmed = self.client.post(
            "/auth/mfa/totp/confirm", headers=headers, json={"code": app.at(datetime.now(UTC))}
        )
        app.recovery_codes = confirmed.json()["recovery_codes"]
        return app

    def log_in_with(self, email: str, app: Authenticator) -> Response:
        token = self.log_in(email).json()["mfa_token"]
        code = app.at(datetime.now(UTC) + timedelta(seconds=STEP))
        return self.client.post("/auth/login/mfa", json={"mfa_token": token, "totp": code})

    def log_in_by_recovery_code(self, email: str, code: str) -> Response:
        token = self.log_in(email).json()["mfa_token"]
        return self.client.post("/auth/login/mfa", json={"mfa_token": token, "recovery_code": code})


@pytest.fixture
def make_database(server_url: str) -> Iterator[MakeDatabase]:
    """Creates databases, migrated or empty; returns their URLs. They are dropped afterwards."""
    names = []

    def make(*, migrated: bool = False) -> str:
        names.append(f"auth_manager_backup_{secrets.token_hex(4)}")
        run_sql(server_url, f"CREATE DATABASE {names[-1]}")
        url = urlsplit(server_url)._replace(path=f"/{names[-1]}").geturl()
        if migrated:
            apply_migrations(url)
        return url

    yield make
    for name in names:
        run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def make_service(make_settings: Callable[..., Settings]) -> Iterator[Callable[[str], Service]]:
    """Serves a database."""
    services: list[Service] = []

    def make(url: str) -> Service:
        services.append(Service(build_resources(make_settings(database_url=url))))
        return services[-1]

    yield make
    for service in services:
        service.client.close()
        service.resources.database.close()


@pytest.fixture
def source(make_database: MakeDatabase) -> str:
    """A migrated database with accounts that nobody can sign in to, some of them with hostile text."""
    url = make_database(migrated=True)
    run_sql(
        url,
        r"""
        INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at, created_at,
                              updated_at, display_name, attributes)
        SELECT gen_random_uuid(), n || '@example.com', n || '@example.com', md5(n::text), now(), now(), now(),
               E'a\\N\tb\n\r\\.\n' || chr(233 + n), jsonb_build_object('n', n + 0.10, 't', E'\u0001\\')
        FROM generate_series(1, 3000) AS n
        RETURNING 1
        """,
    )
    run_sql(
        url,
        """
        INSERT INTO roles (name, permissions, created_at, updated_at)
        VALUES ('editor', '{users:read}', now(), now()) RETURNING 1
        """,
    )
    return url


@pytest.fixture
def place(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "backups")

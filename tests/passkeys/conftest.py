from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.passkeys.visitors import Query, Visitor

from auth_manager.database import Database, Row


@pytest.fixture
def query(database: Database) -> Query:
    """Runs one statement of SQL with named parameters, and returns its rows."""

    def run(sql: str, **parameters: Any) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql, parameters)

    return run


@pytest.fixture
def visitor(client: TestClient) -> Visitor:
    return Visitor(client)

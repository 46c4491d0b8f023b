"""Every administrative POST takes an Idempotency-Key: a retry gets the same bytes and changes nothing.

Until whoever retries may not do it any more.
"""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from tests.mfa.test_routes import bearer, create, log_in
from tests.project.test_authorization import BODIES, OPERATIONS, grant

from auth_manager.resources import Resources

POSTS = [name for name in OPERATIONS if name.startswith("POST /admin/")]

BULK = {"action": "logout", "filter": {"ids": ["{account_id}"]}, "expected_count": 1}
COUNTED = "accounts", "sessions", "roles", "outbox", "audit_events", "one_time_secrets", "webhook_endpoints"


class Office:
    """An administrator who may do everything, somebody to act on, and an endpoint with a message."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        administrator = create(client, "admin", email="boss@example.com")
        grant(client, administrator, "users:impersonate")
        self.headers = bearer(log_in(client, email="boss@example.com"))
        self.ids = {"account_id": create(client)}
        log_in(client)
        endpoint = {"url": "https://hooks.example.com/", "types": ["user.created"]}
        self.ids["endpoint_id"] = self.post("/admin/webhooks", endpoint).json()["id"]
        tested = self.post(f"/admin/webhooks/{self.ids['endpoint_id']}/test", None).json()
        self.ids["message_id"] = tested["message_id"]

    def post(self, path: str, body: object, **headers: str) -> Response:
        return self.client.post(path, json=body, headers=self.headers | headers)

    def fill(self, text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self.ids[found[1]], text)

    def query(self, sql: str) -> list[Any]:
        resources: Resources = self.client.app.state.resources  # type: ignore[attr-defined]
        with resources.database.one_trip() as connection:
            return connection.fetch_all(sql)

    def state(self) -> list[str]:
        sql = " UNION ALL ".join(
            f"SELECT '{table}' || row_to_json({table})::text AS row FROM {table}" for table in COUNTED
        )
        return sorted(row["row"] for row in self.query(sql))


@pytest.mark.parametrize("operation", POSTS)
def test_a_retry_is_the_same_bytes_and_nothing_happens_twice(client: TestClient, operation: str) -> None:
    office = Office(client)
    path = office.fill(operation.split(" ")[1])
    body: Any = BODIES.get(operation)
    if operation == "POST /admin/users/bulk":
        body = BULK | {"filter": {"ids": [office.ids["account_id"]]}}
    if operation.endswith("/enable"):
        office.query("UPDATE accounts SET disabled_at = now() WHERE email LIKE 'person@%' RETURNING 1")
    if operation.endswith("/replay"):
        office.query("UPDATE outbox SET sent_at = now() WHERE endpoint_id IS NOT NULL RETURNING 1")
    before = office.state()

    first = office.post(path, body, **{"Idempotency-Key": "once"})
    after = office.state()
    again = [office.post(path, body, **{"Idempotency-Key": "once"}) for _ in range(2)]

    assert first.status_code in {200, 201, 202, 204}, first.text
    assert [(answer.status_code, answer.content) for answer in again] == [
        (first.status_code, first.content)
    ] * 2
    assert before != after == office.state()

    office.query("DELETE FROM account_roles RETURNING 1")
    assert office.post(path, body, **{"Idempotency-Key": "once"}).status_code == 403
    office.query("UPDATE accounts SET disabled_at = now() WHERE email LIKE 'boss@%' RETURNING 1")
    assert office.post(path, body, **{"Idempotency-Key": "once"}).status_code == 401


def test_every_one_takes_the_header(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    without = {
        path
        for path, methods in paths.items()
        if path.startswith("/admin/") and "post" in methods
        if "Idempotency-Key" not in {one["name"] for one in methods["post"].get("parameters", [])}
    }
    assert without == set()

"""How each administrative route of users is driven, for the budgets in test_round_trips.py."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.project.factor_scenarios import SOMEBODY, Caller

Measure = Callable[..., Any]

REASON = {"reason": "a test"}
BULK = {"action": "logout", "filter": {"prefix": "somebody"}}


def somebody(api: Caller) -> tuple[dict[str, str], str]:
    """The header of an administrator who may also impersonate, and the id of somebody else."""
    administrator = api.log_in()
    with api.database.one_trip() as connection:
        connection.add(
            "INSERT INTO roles (name, permissions, created_at, updated_at)"
            " VALUES ('all', '{*,users:impersonate}', now(), now()) ON CONFLICT DO NOTHING;"
            " INSERT INTO account_roles SELECT id, 'all', now() FROM accounts"
        )
    person = api.call(201, "POST", "/auth/register", json=SOMEBODY)["id"]
    return {"Authorization": f"Bearer {administrator['access_token']}"}, person


def drive(status: int, method: str, path: str, api: Caller, measured: Measure, **options: Any) -> None:
    headers, person = somebody(api)
    measured(status, method, path.format(id=person), headers=headers | options.pop("headers", {}), **options)


def ended_session(api: Caller, measured: Measure) -> None:
    headers, person = somebody(api)
    session = api.log_in(SOMEBODY)["session_id"]
    measured(204, "DELETE", f"/admin/users/{person}/sessions/{session}", headers=headers)


VARIANTS = {
    "PATCH /admin/users/{account_id}, new address": 1,
    "PATCH /admin/users/{account_id}, changed since": 1,
    "POST /admin/users, idempotent": 3,
    "POST /admin/users/{account_id}/disable, nobody": 1,
    "POST /admin/users/bulk, counted": 1,
}

PERSON = "/admin/users/{id}"
NEW = {"email": "new@example.com"}

SCENARIOS: dict[str, Callable[[Any, Measure], object]] = {
    "GET /admin/users": partial(drive, 200, "GET", "/admin/users?prefix=some"),
    "POST /admin/users": partial(drive, 201, "POST", "/admin/users", json=NEW),
    "POST /admin/users, idempotent": partial(
        drive, 201, "POST", "/admin/users", json=NEW, headers={"Idempotency-Key": "key"}
    ),
    "GET /admin/users/{account_id}": partial(drive, 200, "GET", PERSON),
    "PATCH /admin/users/{account_id}": partial(drive, 200, "PATCH", PERSON, json={"display_name": "X"}),
    "PATCH /admin/users/{account_id}, new address": partial(drive, 200, "PATCH", PERSON, json=NEW),
    "PATCH /admin/users/{account_id}, changed since": partial(
        drive, 412, "PATCH", PERSON, json=NEW, headers={"If-Match": '"other"'}
    ),
    "DELETE /admin/users/{account_id}": partial(drive, 204, "DELETE", PERSON),
    **{
        f"POST /admin/users/{{account_id}}/{act}": partial(drive, 204, "POST", f"{PERSON}/{act}")
        for act in ("disable", "enable", "unlock", "recovery", "logout")
    },
    "POST /admin/users/{account_id}/disable, nobody": partial(
        drive, 404, "POST", "/admin/users/0191d6a0-0000-7000-8000-000000000000/disable"
    ),
    "POST /admin/users/{account_id}/impersonate": partial(
        drive, 201, "POST", f"{PERSON}/impersonate", json=REASON
    ),
    "GET /admin/users/{account_id}/sessions": partial(drive, 200, "GET", f"{PERSON}/sessions"),
    "DELETE /admin/users/{account_id}/sessions/{session_id}": ended_session,
    "POST /admin/users/bulk": partial(
        drive, 200, "POST", "/admin/users/bulk", json=BULK | {"expected_count": 1}
    ),
    "POST /admin/users/bulk, counted": partial(drive, 200, "POST", "/admin/users/bulk", json=BULK),
    "POST /admin/invitations": partial(drive, 201, "POST", "/admin/invitations", json=NEW),
}

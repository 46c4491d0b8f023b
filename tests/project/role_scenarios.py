"""How the routes of roles are driven, for test_round_trips.py."""

from collections.abc import Callable
from typing import Any, Protocol

from auth_manager.database import Database

Measure = Callable[..., Any]


class Caller(Protocol):
    """What these use of the Api there."""

    database: Database

    def call(self, status: int, method: str, path: str, **options: Any) -> Any: ...
    def log_in(self, who: dict[str, Any] | None = None) -> dict[str, Any]: ...


def administrator(api: Caller) -> dict[str, str]:
    """The header of somebody who may do everything; everybody who is there may."""
    headers = {"Authorization": f"Bearer {api.log_in()['access_token']}"}
    with api.database.one_trip() as connection:
        connection.add("INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts")
        connection.add("DELETE FROM roles WHERE NOT is_built_in")
    return headers


def created(api: Caller, measured: Measure) -> dict[str, str]:
    headers = administrator(api)
    body = {"name": "support", "permissions": ["users:read"], "claims": {"team": "care"}}
    measured(201, "POST", "/admin/roles", headers=headers, json=body)
    return headers


def listed(api: Caller, measured: Measure) -> None:
    measured(200, "GET", "/admin/roles", headers=administrator(api))


def read(api: Caller, measured: Measure) -> None:
    measured(200, "GET", "/admin/roles/admin", headers=administrator(api))


def changed(api: Caller, measured: Measure) -> None:
    headers = created(api, api.call)
    measured(200, "PATCH", "/admin/roles/support", headers=headers, json={"description": "Answers."})


def deleted(api: Caller, measured: Measure) -> None:
    measured(204, "DELETE", "/admin/roles/support", headers=created(api, api.call))


def given(api: Caller, measured: Measure) -> None:
    headers = created(api, api.call)
    account = api.call(200, "GET", "/auth/me", headers=headers)["id"]
    body = {"roles": ["admin", "support"]}
    measured(200, "PUT", f"/admin/users/{account}/roles", headers=headers, json=body)


SCENARIOS: dict[str, Callable[[Any, Measure], object]] = {
    "GET /admin/roles": listed,
    "POST /admin/roles": created,
    "GET /admin/roles/{name}": read,
    "PATCH /admin/roles/{name}": changed,
    "DELETE /admin/roles/{name}": deleted,
    "PUT /admin/users/{account_id}/roles": given,
}

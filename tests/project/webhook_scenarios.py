"""How the routes of webhooks are driven, for test_round_trips.py."""

from collections.abc import Callable
from typing import Any

from tests.project.role_scenarios import Caller, Measure, administrator

URL = "https://hooks.example.com/"


def created(api: Caller, measured: Measure) -> tuple[dict[str, str], str]:
    """The header of an administrator, and the path of an endpoint."""
    headers = administrator(api)
    made = measured(201, "POST", "/admin/webhooks", headers=headers, json={"url": URL})
    return headers, f"/admin/webhooks/{made['id']}"


def listed(api: Caller, measured: Measure) -> None:
    measured(200, "GET", "/admin/webhooks", headers=administrator(api))


def read(api: Caller, measured: Measure) -> None:
    headers, path = created(api, api.call)
    measured(200, "GET", path, headers=headers)


def changed(api: Caller, measured: Measure) -> None:
    headers, path = created(api, api.call)
    measured(200, "PATCH", path, headers=headers, json={"enabled": False})


def deleted(api: Caller, measured: Measure) -> None:
    headers, path = created(api, api.call)
    measured(204, "DELETE", path, headers=headers)


def rotated(api: Caller, measured: Measure) -> None:
    headers, path = created(api, api.call)
    measured(200, "POST", f"{path}/rotate-secret", headers=headers)


def tested(api: Caller, measured: Measure) -> None:
    headers, path = created(api, api.call)
    measured(202, "POST", f"{path}/test", headers=headers)


def logged(api: Caller, measured: Measure) -> None:
    headers, path = created(api, api.call)
    measured(200, "GET", f"{path}/deliveries", headers=headers)


def replayed(api: Caller, measured: Measure) -> None:
    headers, path = created(api, api.call)
    message = api.call(202, "POST", f"{path}/test", headers=headers)["message_id"]
    measured(202, "POST", f"{path}/deliveries/{message}/replay", headers=headers)


SCENARIOS: dict[str, Callable[[Any, Measure], object]] = {
    "GET /admin/webhooks": listed,
    "POST /admin/webhooks": created,
    "GET /admin/webhooks/{endpoint_id}": read,
    "PATCH /admin/webhooks/{endpoint_id}": changed,
    "DELETE /admin/webhooks/{endpoint_id}": deleted,
    "POST /admin/webhooks/{endpoint_id}/rotate-secret": rotated,
    "POST /admin/webhooks/{endpoint_id}/test": tested,
    "GET /admin/webhooks/{endpoint_id}/deliveries": logged,
    "POST /admin/webhooks/{endpoint_id}/deliveries/{message_id}/replay": replayed,
}

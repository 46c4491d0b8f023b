"""How each route of second factors is driven, for the budgets in test_round_trips.py."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import pyotp

Measure = Callable[..., Any]


class Caller(Protocol):
    """What test_round_trips.Api is."""

    database: Any

    def call(self, status: int, method: str, path: str, **options: Any) -> Any: ...

    def register(self, **fields: str) -> dict[str, Any]: ...

    def log_in(self, who: dict[str, Any] | None = None) -> dict[str, Any]: ...

    def bearer(self) -> dict[str, str]: ...


def code(secret: str, *, steps: int = 0) -> str:
    """The code of now, or of so many steps later; one later is accepted."""
    return pyotp.TOTP(secret).at(datetime.now(UTC) + timedelta(seconds=30 * steps))


def enrol(api: Caller, headers: dict[str, str]) -> tuple[str, list[str]]:
    secret = api.call(201, "POST", "/auth/mfa/totp", headers=headers)["secret"]
    confirmed = api.call(200, "POST", "/auth/mfa/totp/confirm", headers=headers, json={"code": code(secret)})
    return secret, confirmed["recovery_codes"]


def second_step(api: Caller, measured: Measure, *, factor: str = "totp", right: bool = True) -> Any:
    """Sign in with two factors; the second step is what is measured."""
    who = api.register()
    headers = {"Authorization": f"Bearer {api.log_in(who)['access_token']}"}
    secret, recovery_codes = enrol(api, headers)
    token = api.call(403, "POST", "/auth/login", json=who)["mfa_token"]
    presented = {"totp": code(secret, steps=1), "recovery_code": recovery_codes[0]}[factor]
    if not right:
        presented = {"totp": code(secret, steps=5), "recovery_code": "00000-00000"}[factor]
    body = {"mfa_token": token, factor: presented, "trust_device": True}
    return measured(200 if right else 401, "POST", "/auth/login/mfa", json=body)


def first_step(api: Caller, measured: Measure) -> None:
    who = api.register()
    enrol(api, {"Authorization": f"Bearer {api.log_in(who)['access_token']}"})
    measured(403, "POST", "/auth/login", json=who)


def enrolment_ticket(api: Caller) -> dict[str, str]:
    return {"mfa_token": api.call(403, "POST", "/auth/login", json=api.register())["mfa_token"]}


def finished_enrolment(api: Caller, measured: Measure) -> None:
    ticket = enrolment_ticket(api)
    secret = api.call(201, "POST", "/auth/login/mfa/enrolment", json=ticket)["secret"]
    measured(200, "POST", "/auth/login/mfa/enrolment/confirm", json=ticket | {"code": code(secret)})


def signed_in(api: Caller) -> dict[str, str]:
    """The header of a session of two factors that trusts a device."""
    granted = second_step(api, api.call)
    return {"Authorization": f"Bearer {granted['access_token']}"}


def revoked_device(api: Caller, measured: Measure) -> None:
    headers = signed_in(api)
    [device] = api.call(200, "GET", "/auth/mfa/devices", headers=headers)["items"]
    measured(204, "DELETE", f"/auth/mfa/devices/{device['id']}", headers=headers)


def reset(api: Caller, measured: Measure) -> None:
    administrator = api.log_in()
    with api.database.one_trip() as connection:
        connection.add("INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts")
    somebody = UUID(api.call(201, "POST", "/auth/register", json=SOMEBODY)["id"])
    headers = {"Authorization": f"Bearer {administrator['access_token']}"}
    measured(204, "POST", f"/admin/users/{somebody}/mfa-reset", headers=headers)


def reauthentication(api: Caller, measured: Measure, *, right: bool = True) -> None:
    headers = api.bearer()
    secret, _ = enrol(api, headers)
    body = {"totp": code(secret, steps=1 if right else 5)}
    measured(200 if right else 422, "POST", "/auth/reauthenticate", headers=headers, json=body)


SOMEBODY = {"email": "somebody@example.com", "password": "a long and dull passphrase"}

VARIANTS = {
    "POST /auth/login, second factor needed": 2,
    "POST /auth/login/mfa, wrong": 2,
    "POST /auth/login/mfa, recovery code": 2,
    "POST /auth/login/mfa, wrong recovery code": 3,
    "POST /auth/login/mfa, forged token": 0,
    "POST /auth/reauthenticate, by factor": 2,
    "POST /auth/reauthenticate, wrong factor": 2,
}

SCENARIOS: dict[str, Callable[[Any, Measure], object]] = {
    "POST /auth/login, second factor needed": first_step,
    "POST /auth/login/mfa": second_step,
    "POST /auth/login/mfa, wrong": lambda api, measured: second_step(api, measured, right=False),
    "POST /auth/login/mfa, recovery code": lambda api, measured: second_step(
        api, measured, factor="recovery_code"
    ),
    "POST /auth/login/mfa, wrong recovery code": lambda api, measured: second_step(
        api, measured, factor="recovery_code", right=False
    ),
    "POST /auth/login/mfa, forged token": lambda _, measured: measured(
        401, "POST", "/auth/login/mfa", json={"mfa_token": "ot_" + "A" * 64, "totp": "000000"}
    ),
    "POST /auth/login/mfa/enrolment": lambda api, measured: measured(
        201, "POST", "/auth/login/mfa/enrolment", json=enrolment_ticket(api)
    ),
    "POST /auth/login/mfa/enrolment/confirm": finished_enrolment,
    "GET /auth/mfa": lambda api, measured: measured(200, "GET", "/auth/mfa", headers=api.bearer()),
    "POST /auth/mfa/recovery-codes": lambda api, measured: measured(
        200, "POST", "/auth/mfa/recovery-codes", headers=signed_in(api)
    ),
    "GET /auth/mfa/devices": lambda api, measured: measured(
        200, "GET", "/auth/mfa/devices", headers=signed_in(api)
    ),
    "DELETE /auth/mfa/devices/{device_id}": revoked_device,
    "POST /admin/users/{account_id}/mfa-reset": reset,
    "POST /auth/reauthenticate, by factor": reauthentication,
    "POST /auth/reauthenticate, wrong factor": lambda api, measured: reauthentication(
        api, measured, right=False
    ),
}

SETTINGS: dict[str, dict[str, object]] = {
    "POST /auth/login/mfa/enrolment": {"mfa_policy": "required"},
    "POST /auth/login/mfa/enrolment/confirm": {"mfa_policy": "required"},
}

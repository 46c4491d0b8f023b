"""How each route of passkeys is driven, for the budgets in test_round_trips.py."""

from collections.abc import Callable
from typing import Any

from tests.passkeys.authenticator import Authenticator
from tests.project.factor_scenarios import Caller

Measure = Callable[..., Any]
OPTIONS, VERIFY = ("/auth/passkeys/authentication/options", "/auth/passkeys/authentication/verify")
REGISTRATION = ("/auth/passkeys/registration/options", "/auth/passkeys/registration/verify")


class Owner:
    """Somebody who signed in and has an authenticator."""

    def __init__(self, api: Caller) -> None:
        self.api = api
        self.who = api.register()
        self.headers = {"Authorization": f"Bearer {api.log_in(self.who)['access_token']}"}
        self.authenticator = Authenticator()

    def new_passkey(self) -> dict[str, Any]:
        """What the browser sends to register one."""
        options = self.api.call(200, "POST", REGISTRATION[0], headers=self.headers)
        credential = self.authenticator.create(options["publicKey"])
        return {"request": options["request"], "credential": credential}

    def add_passkey(self) -> str:
        """Register one and return its path."""
        added = self.api.call(201, "POST", REGISTRATION[1], json=self.new_passkey(), headers=self.headers)
        return f"/auth/passkeys/{added['passkey']['id']}"

    def presented(self, **how: Any) -> dict[str, Any]:
        """What the browser sends to sign in."""
        options = self.api.call(200, "POST", OPTIONS)
        credential = self.authenticator.get(options["publicKey"], **how)
        return {"request": options["request"], "credential": credential}


def register(api: Caller, measured: Measure, **options: Any) -> None:
    owner = Owner(api)
    headers = owner.headers | options.get("headers", {})
    measured(201, "POST", REGISTRATION[1], json=owner.new_passkey(), headers=headers)


def refused(api: Caller, measured: Measure) -> None:
    owner = Owner(api)
    owner.authenticator.origin = "https://evil.example.com"
    measured(422, "POST", REGISTRATION[1], json=owner.new_passkey(), headers=owner.headers)


def sign_in(api: Caller, measured: Measure, *, status: int = 200, **how: Any) -> None:
    owner = Owner(api)
    owner.add_passkey()
    measured(status, "POST", VERIFY, json=owner.presented(**how))


def unknown(api: Caller, measured: Measure) -> None:
    owner = Owner(api)
    owner.new_passkey()  # and never sent
    measured(401, "POST", VERIFY, json=owner.presented())


def clone(api: Caller, measured: Measure) -> None:
    owner = Owner(api)
    owner.add_passkey()
    api.call(200, "POST", VERIFY, json=owner.presented())
    owner.authenticator.passkeys[0].sign_count = 0
    measured(401, "POST", VERIFY, json=owner.presented())


def second_factor_options(api: Caller, measured: Measure) -> None:
    owner = Owner(api)
    owner.add_passkey()
    token = api.call(403, "POST", "/auth/login", json=owner.who)["mfa_token"]
    measured(200, "POST", OPTIONS, json={"mfa_token": token})


def second_factor(api: Caller, measured: Measure) -> None:
    owner = Owner(api)
    owner.add_passkey()
    token = api.call(403, "POST", "/auth/login", json=owner.who)["mfa_token"]
    options = api.call(200, "POST", OPTIONS, json={"mfa_token": token})
    body = {
        "mfa_token": token,
        "passkey": owner.authenticator.get(options["publicKey"]),
        "passkey_request": options["request"],
    }
    measured(200, "POST", "/auth/login/mfa", json=body)


def on_passkey(status: int, method: str, api: Caller, measured: Measure, **options: Any) -> None:
    owner = Owner(api)
    path = owner.add_passkey()
    measured(status, method, path, headers=owner.headers, **options)


VARIANTS = {
    "POST /auth/passkeys/registration/verify, idempotent": 3,
    "POST /auth/passkeys/registration/verify, refused": 1,
    "POST /auth/passkeys/authentication/options, second factor": 1,
    "POST /auth/passkeys/authentication/options, signed in": 1,
    "POST /auth/passkeys/authentication/verify, wrong": 2,
    "POST /auth/passkeys/authentication/verify, unknown": 1,
    "POST /auth/passkeys/authentication/verify, clone": 3,
    "POST /auth/login/mfa, passkey": 2,
}

SCENARIOS: dict[str, Callable[[Any, Measure], object]] = {
    "POST /auth/passkeys/registration/options": lambda api, measured: measured(
        200, "POST", REGISTRATION[0], headers=api.bearer()
    ),
    "POST /auth/passkeys/registration/verify": register,
    "POST /auth/passkeys/registration/verify, idempotent": lambda api, measured: register(
        api, measured, headers={"Idempotency-Key": "key"}
    ),
    "POST /auth/passkeys/registration/verify, refused": refused,
    "POST /auth/passkeys/authentication/options": lambda _, measured: measured(200, "POST", OPTIONS),
    "POST /auth/passkeys/authentication/options, second factor": second_factor_options,
    "POST /auth/passkeys/authentication/options, signed in": lambda api, measured: measured(
        200, "POST", OPTIONS, headers=api.bearer()
    ),
    "POST /auth/passkeys/authentication/verify": sign_in,
    "POST /auth/passkeys/authentication/verify, wrong": lambda api, measured: sign_in(
        api, measured, status=401, type_="webauthn.create"
    ),
    "POST /auth/passkeys/authentication/verify, unknown": unknown,
    "POST /auth/passkeys/authentication/verify, clone": clone,
    "POST /auth/login/mfa, passkey": second_factor,
    "GET /auth/passkeys": lambda api, measured: measured(200, "GET", "/auth/passkeys", headers=api.bearer()),
    "GET /auth/passkeys/{passkey_id}": lambda api, measured: on_passkey(200, "GET", api, measured),
    "PATCH /auth/passkeys/{passkey_id}": lambda api, measured: on_passkey(
        200, "PATCH", api, measured, json={"name": "Laptop"}
    ),
    "DELETE /auth/passkeys/{passkey_id}": lambda api, measured: on_passkey(204, "DELETE", api, measured),
}

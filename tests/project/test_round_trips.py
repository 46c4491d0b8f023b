"""What each request costs in round trips to PostgreSQL, the unit of cost of this service.

budgets.py is the one table of routes; VARIANTS says what they cost otherwise. A route that is not named there
fails here, and so does one that got dearer, or cheaper, than they say.
"""

import dataclasses
import os
import re
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import psycopg2.extensions
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from pyotp import TOTP
from tests.project import (
    factor_scenarios,
    passkey_scenarios,
    role_scenarios,
    user_scenarios,
    webhook_scenarios,
)

from auth_manager.app import create_app
from auth_manager.audit import Origin
from auth_manager.budgets import BUDGETS, Budget
from auth_manager.database import Database
from auth_manager.invitations.service import invite
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources
from auth_manager.web.calls import run_inline

PASSWORD = "a long and dull passphrase"

VARIANTS = {
    "POST /auth/register, without verified mode": 2,
    "POST /auth/register, idempotent": 3,
    "POST /auth/register, replayed": 1,
    "POST /auth/register, address taken": 3,
    "POST /auth/register, limited": 1,
    "POST /auth/register, verified mode and taken": 3,
    "POST /auth/login, wrong password": 2,
    "POST /auth/login, unknown user": 2,
    "POST /auth/login, limited": 1,
    "POST /auth/login, older hash": 2,
    "POST /auth/login, idempotent": 3,
    "POST /auth/login, idempotent and wrong": 4,
    "POST /auth/refresh, repeated": 1,
    "POST /auth/refresh, reused": 2,
    "POST /auth/refresh, forged": 0,
    "POST /auth/refresh, idempotent": 3,
    "POST /auth/logout, idempotent": 2,
    "GET /auth/me, without a token": 0,
    "GET /auth/me, forged token": 0,
    "PATCH /auth/me, username taken": 1,
    "DELETE /auth/sessions/{session_id}, not one's own": 1,
    "POST /auth/verify-email/resend, nobody": 2,
    "POST /auth/password/forgot, nobody": 2,
    "POST /auth/password/forgot, limited": 1,
    "POST /auth/password/forgot, idempotent": 3,
    "POST /auth/email-login, nobody": 2,
    "POST /auth/verify-email, new address": 2,
    "POST /auth/verify-email, by code": 2,
    "POST /auth/verify-email, wrong code": 2,
    "POST /auth/verify-email, forged link": 0,
    "POST /auth/verify-email, idempotent": 4,
    "POST /auth/reauthenticate, by code": 2,
    "POST /auth/reauthenticate, wrong password": 2,
    "POST /auth/mfa/totp, idempotent": 3,
    "POST /auth/mfa/totp/confirm, wrong code": 1,
    "POST /auth/mfa/totp/confirm, idempotent": 3,
    "POST /auth/password/change, wrong password": 2,
    "POST /auth/password/reset, common password": 0,
    "POST /auth/email-login/verify, by code": 3,
    **factor_scenarios.VARIANTS,
    **passkey_scenarios.VARIANTS,
    **user_scenarios.VARIANTS,
}
"""What a route costs by another way than the one of budgets.py."""

BUDGET = {route: budget.round_trips for route, budget in BUDGETS.items()} | VARIANTS


class Api:
    """A client of one application with one connection that is open already, and what its last call cost."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.database = resources.database
        self.secrets = resources.one_time_secrets
        self.http = TestClient(
            create_app(resources, runner=run_inline),
            base_url="https://auth.example.com",
            client=("203.0.113.7", 5000),
        )
        self.call(200, "GET", "/health/ready")

    def call(self, status: int, method: str, path: str, **options: Any) -> Any:
        response = self.http.request(method, path, **options)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    def register(self, **fields: str) -> dict[str, Any]:
        body = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD, **fields}
        self.call(201, "POST", "/auth/register", json=body)
        return {name: body[name] for name in ("email", "password")}

    def log_in(self, who: dict[str, Any] | None = None) -> dict[str, Any]:
        granted: dict[str, Any] = self.call(200, "POST", "/auth/login", json=who or self.register())
        return granted

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.log_in()['access_token']}"}

    def ask(self, path: str, **options: Any) -> UUID:
        """Ask for a mail; return its request."""
        return UUID(self.call(202, "POST", path, **options)["request"])

    def token(self, purpose: Purpose, request: UUID) -> dict[str, str]:
        return {"token": self.secrets.token(purpose, request)}

    def code(self, purpose: Purpose, request: UUID) -> dict[str, str]:
        return {"request": str(request), "code": self.secrets.code(purpose, request)}


Measure = Callable[..., Any]
Scenario = Callable[[Api, Measure], object]


def replayed_registration(api: Api, measured: Measure) -> None:
    body = {"email": "again@example.com", "password": PASSWORD}
    options: dict[str, Any] = {"json": body, "headers": {"Idempotency-Key": "k"}}
    api.call(201, "POST", "/auth/register", **options)
    measured(201, "POST", "/auth/register", **options)


def reused_refresh(api: Api, measured: Measure) -> None:
    token = {"refresh_token": api.log_in()["refresh_token"]}
    api.call(200, "POST", "/auth/refresh", json=token)
    with api.database.one_trip() as connection:
        connection.add("UPDATE refresh_lines SET rotated_at = rotated_at - interval '1 hour'")
    measured(401, "POST", "/auth/refresh", json=token)


def older_hash(api: Api, measured: Measure) -> None:
    who = api.register()
    older = PasswordHasher(time_cost=3, memory_cost=19_456, parallelism=1).hash(PASSWORD)
    with api.database.one_trip() as connection:
        connection.add("UPDATE accounts SET password_hash = %(hash)s", {"hash": older})
    measured(200, "POST", "/auth/login", json=who)


def new_address(api: Api, measured: Measure) -> None:
    body = {"email": "another@example.com"}
    request = api.ask("/auth/email/change", json=body, headers=api.bearer())
    token = api.secrets.token(Purpose.CHANGE_EMAIL, request)
    measured(200, "POST", "/auth/verify-email", json={"token": token})


def repeated_refresh(api: Api, measured: Measure) -> None:
    token = {"refresh_token": api.log_in()["refresh_token"]}
    api.call(200, "POST", "/auth/refresh", json=token)
    measured(200, "POST", "/auth/refresh", json=token)


def limited_login(api: Api, measured: Measure) -> None:
    who = {**api.register(), "password": "not that one"}
    for _ in range(3):
        api.call(401, "POST", "/auth/login", json=who)
    measured(429, "POST", "/auth/login", json=who)


def taken_username(api: Api, measured: Measure) -> None:
    api.register(username="taken")
    measured(409, "PATCH", "/auth/me", json={"username": "taken"}, headers=api.bearer())


def revoked_session(api: Api, measured: Measure) -> None:
    who = api.register()
    other = api.log_in(who)["session_id"]
    headers = {"Authorization": f"Bearer {api.log_in(who)['access_token']}"}
    measured(204, "DELETE", f"/auth/sessions/{other}", headers=headers)


def limited_registration(api: Api, measured: Measure) -> None:
    api.register()
    api.register()
    measured(429, "POST", "/auth/register", json={"email": "third@example.com", "password": PASSWORD})


def known(path: str, api: Api, measured: Measure) -> None:
    measured(202, "POST", path, json=just_the_address(api.register()))


def unknown(path: str, _: Api, measured: Measure) -> None:
    measured(202, "POST", path, json=NOBODY)


def limited_mail(api: Api, measured: Measure) -> None:
    api.ask("/auth/password/forgot", json=NOBODY)
    measured(429, "POST", "/auth/password/forgot", json=NOBODY)


def verified(api: Api, measured: Measure, form: str, **options: Any) -> None:
    request = api.ask("/auth/verify-email/resend", json=just_the_address(api.register()))
    body = api.token(Purpose.VERIFY_EMAIL, request)
    if form != "link":
        body = api.code(Purpose.VERIFY_EMAIL, request)
    if form == "wrong":
        body["code"] = f"{(int(body['code']) + 1) % 10**6:06}"
    measured(400 if form == "wrong" else 200, "POST", "/auth/verify-email", json=body, **options)


def reset(api: Api, measured: Measure) -> None:
    request = api.ask("/auth/password/forgot", json=just_the_address(api.register()))
    body = {**api.token(Purpose.RESET_PASSWORD, request), "password": "another dull passphrase"}
    measured(204, "POST", "/auth/password/reset", json=body)


def mailed_login(api: Api, measured: Measure, form: Callable[[Api, Purpose, UUID], dict[str, str]]) -> None:
    request = api.ask("/auth/email-login", json=just_the_address(api.register()))
    measured(200, "POST", "/auth/email-login/verify", json=form(api, Purpose.EMAIL_LOGIN, request))


def mailed_reauthentication(api: Api, measured: Measure) -> None:
    headers = api.bearer()
    request = api.ask("/auth/reauthenticate/mail", headers=headers)
    body = api.code(Purpose.REAUTHENTICATE, request)
    measured(200, "POST", "/auth/reauthenticate", json=body, headers=headers)


def accepted_invitation(api: Api, measured: Measure) -> None:
    origin = Origin(None, "", "request", datetime.now(UTC), operator="tester")
    request = invite(api.resources, origin, f"{secrets.token_hex(8)}@example.com")
    body = {**api.token(Purpose.INVITATION, request), "password": PASSWORD}
    measured(201, "POST", "/auth/invitations/accept", json=body)


def kept_account(api: Api, measured: Measure) -> None:
    api.call(202, "DELETE", "/auth/me", headers=api.bearer())
    with api.database.one_trip() as connection:
        row = connection.fetch_one("SELECT id FROM one_time_secrets WHERE purpose = 'keep_account'")
    assert row
    measured(204, "POST", "/auth/me/keep", json=api.token(Purpose.KEEP_ACCOUNT, row["id"]))


def confirmed_app(api: Api, measured: Measure, **options: Any) -> None:
    me = api.bearer()
    body = {"code": TOTP(api.call(201, "POST", "/auth/mfa/totp", headers=me)["secret"]).now()}
    measured(200, "POST", "/auth/mfa/totp/confirm", json=body, headers=me | options.get("headers", {}))


def wrong_first_code(api: Api, measured: Measure) -> None:
    me = api.bearer()
    api.call(201, "POST", "/auth/mfa/totp", headers=me)
    measured(422, "POST", "/auth/mfa/totp/confirm", json={"code": "12345"}, headers=me)


def removed_app(api: Api, measured: Measure) -> None:
    me = api.bearer()
    code = TOTP(api.call(201, "POST", "/auth/mfa/totp", headers=me)["secret"]).now()
    api.call(200, "POST", "/auth/mfa/totp/confirm", json={"code": code}, headers=me)
    measured(204, "DELETE", "/auth/mfa/totp", headers=me)


def searched_audit(api: Api, measured: Measure) -> None:
    headers = api.bearer()
    with api.database.one_trip() as connection:
        connection.add("INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts")
    measured(200, "GET", "/admin/audit?outcome=success", headers=headers)


def just_the_address(who: dict[str, Any]) -> dict[str, Any]:
    return {"email": who["email"]}


NOBODY = {"email": "nobody@example.com"}
NEW = {"email": "new@example.com", "username": "newcomer", "password": PASSWORD}
IDEMPOTENT = {"Idempotency-Key": "key"}
CHANGE = ("POST", "/auth/password/change")
LOG_IN, REGISTER, REFRESH = ("POST", "/auth/login"), ("POST", "/auth/register"), ("POST", "/auth/refresh")

SCENARIOS: dict[str, Scenario] = {
    "GET /health": lambda _, measured: measured(200, "GET", "/health"),
    "GET /health/ready": lambda _, measured: measured(200, "GET", "/health/ready"),
    "GET /.well-known/jwks.json": lambda _, measured: measured(200, "GET", "/.well-known/jwks.json"),
    "GET /.well-known/openid-configuration": lambda _, measured: measured(
        200, "GET", "/.well-known/openid-configuration"
    ),
    "POST /auth/register": lambda _, measured: measured(202, *REGISTER, json=NEW),
    "POST /auth/register, without verified mode": lambda _, measured: measured(201, *REGISTER, json=NEW),
    "POST /auth/register, idempotent": lambda _, measured: measured(
        201, *REGISTER, json=NEW, headers=IDEMPOTENT
    ),
    "POST /auth/register, replayed": replayed_registration,
    "POST /auth/register, address taken": lambda api, measured: measured(409, *REGISTER, json=api.register()),
    "POST /auth/register, limited": limited_registration,
    "POST /auth/register, verified mode and taken": lambda api, measured: (
        api.call(202, *REGISTER, json=NEW),
        measured(202, *REGISTER, json=NEW),
    ),
    "POST /auth/login": lambda api, measured: measured(200, *LOG_IN, json=api.register()),
    "POST /auth/login, wrong password": lambda api, measured: measured(
        401, *LOG_IN, json={**api.register(), "password": "not that one"}
    ),
    "POST /auth/login, unknown user": lambda _, measured: measured(
        401, *LOG_IN, json={"email": "nobody@example.com", "password": PASSWORD}
    ),
    "POST /auth/login, limited": limited_login,
    "POST /auth/login, older hash": older_hash,
    "POST /auth/login, idempotent": lambda api, measured: measured(
        200, *LOG_IN, json=api.register(), headers=IDEMPOTENT
    ),
    "POST /auth/login, idempotent and wrong": lambda api, measured: measured(
        401, *LOG_IN, json={**api.register(), "password": "not that one"}, headers=IDEMPOTENT
    ),
    "POST /auth/refresh": lambda api, measured: measured(
        200, *REFRESH, json={"refresh_token": api.log_in()["refresh_token"]}
    ),
    "POST /auth/refresh, repeated": repeated_refresh,
    "POST /auth/refresh, reused": reused_refresh,
    "POST /auth/refresh, forged": lambda _, measured: measured(
        401, *REFRESH, json={"refresh_token": "rt_" + "A" * 76}
    ),
    "POST /auth/refresh, idempotent": lambda api, measured: measured(
        200, *REFRESH, json={"refresh_token": api.log_in()["refresh_token"]}, headers=IDEMPOTENT
    ),
    "POST /auth/logout": lambda api, measured: measured(204, "POST", "/auth/logout", headers=api.bearer()),
    "POST /auth/logout, idempotent": lambda api, measured: measured(
        204, "POST", "/auth/logout", headers=api.bearer() | IDEMPOTENT
    ),
    "GET /auth/me": lambda api, measured: measured(200, "GET", "/auth/me", headers=api.bearer()),
    "GET /auth/me, without a token": lambda _, measured: measured(401, "GET", "/auth/me"),
    "GET /auth/me, forged token": lambda _, measured: measured(
        401, "GET", "/auth/me", headers={"Authorization": "Bearer a.b.c"}
    ),
    "PATCH /auth/me": lambda api, measured: measured(
        200, "PATCH", "/auth/me", json={"display_name": "New"}, headers=api.bearer()
    ),
    "PATCH /auth/me, username taken": taken_username,
    "DELETE /auth/me": lambda api, measured: measured(204, "DELETE", "/auth/me", headers=api.bearer()),
    "GET /auth/sessions": lambda api, measured: measured(200, "GET", "/auth/sessions", headers=api.bearer()),
    "DELETE /auth/sessions/{session_id}": revoked_session,
    "DELETE /auth/sessions/{session_id}, not one's own": lambda api, measured: measured(
        404, "DELETE", f"/auth/sessions/{api.log_in()['session_id']}", headers=api.bearer()
    ),
    **{
        f"POST {path}": partial(known, path)
        for path in ("/auth/verify-email/resend", "/auth/password/forgot", "/auth/email-login")
    },
    **{
        f"POST {path}, nobody": partial(unknown, path)
        for path in ("/auth/verify-email/resend", "/auth/password/forgot", "/auth/email-login")
    },
    "POST /auth/password/forgot, limited": limited_mail,
    "POST /auth/password/forgot, idempotent": lambda _, measured: measured(
        202, "POST", "/auth/password/forgot", json=NOBODY, headers=IDEMPOTENT
    ),
    "POST /auth/email/change": lambda api, measured: measured(
        202, "POST", "/auth/email/change", json=NOBODY, headers=api.bearer()
    ),
    "POST /auth/reauthenticate/mail": lambda api, measured: measured(
        202, "POST", "/auth/reauthenticate/mail", headers=api.bearer()
    ),
    "POST /auth/verify-email": lambda api, measured: verified(api, measured, "link"),
    "POST /auth/verify-email, new address": new_address,
    "POST /auth/verify-email, by code": lambda api, measured: verified(api, measured, "code"),
    "POST /auth/verify-email, wrong code": lambda api, measured: verified(api, measured, "wrong"),
    "POST /auth/verify-email, forged link": lambda _, measured: measured(
        400, "POST", "/auth/verify-email", json={"token": "ot_" + "A" * 64}
    ),
    "POST /auth/verify-email, idempotent": lambda api, measured: verified(
        api, measured, "link", headers=IDEMPOTENT
    ),
    "POST /auth/invitations/accept": accepted_invitation,
    "POST /auth/me/keep": kept_account,
    "POST /auth/reauthenticate": lambda api, measured: measured(
        200, "POST", "/auth/reauthenticate", json={"password": PASSWORD}, headers=api.bearer()
    ),
    "POST /auth/reauthenticate, by code": mailed_reauthentication,
    "POST /auth/reauthenticate, wrong password": lambda api, measured: measured(
        422, "POST", "/auth/reauthenticate", json={"password": "not that one"}, headers=api.bearer()
    ),
    "POST /auth/password/change": lambda api, measured: measured(
        204,
        *CHANGE,
        json={"current_password": PASSWORD, "new_password": "another dull passphrase"},
        headers=api.bearer(),
    ),
    "POST /auth/password/change, wrong password": lambda api, measured: measured(
        422,
        *CHANGE,
        json={"current_password": "not that one", "new_password": "another dull passphrase"},
        headers=api.bearer(),
    ),
    "POST /auth/password/reset": reset,
    "POST /auth/password/reset, common password": lambda _, measured: measured(
        422, "POST", "/auth/password/reset", json={"token": "ot_" + "A" * 64, "password": "passwordpassword"}
    ),
    "POST /auth/email-login/verify": lambda api, measured: mailed_login(api, measured, Api.token),
    "POST /auth/email-login/verify, by code": lambda api, measured: mailed_login(api, measured, Api.code),
    "POST /auth/mfa/totp": lambda api, measured: measured(
        201, "POST", "/auth/mfa/totp", headers=api.bearer()
    ),
    "POST /auth/mfa/totp, idempotent": lambda api, measured: measured(
        201, "POST", "/auth/mfa/totp", headers=api.bearer() | IDEMPOTENT
    ),
    "POST /auth/mfa/totp/confirm": confirmed_app,
    "POST /auth/mfa/totp/confirm, wrong code": wrong_first_code,
    "POST /auth/mfa/totp/confirm, idempotent": partial(confirmed_app, headers=IDEMPOTENT),
    "DELETE /auth/mfa/totp": removed_app,
    "GET /auth/me/export": lambda api, measured: measured(
        200, "GET", "/auth/me/export", headers=api.bearer()
    ),
    "GET /admin/audit": searched_audit,
    **factor_scenarios.SCENARIOS,
    **passkey_scenarios.SCENARIOS,
    **user_scenarios.SCENARIOS,
    **role_scenarios.SCENARIOS,
    **webhook_scenarios.SCENARIOS,
}

SETTINGS: dict[str, dict[str, object]] = {
    "POST /auth/register": {"require_verified_email": True},
    "POST /auth/register, verified mode and taken": {"require_verified_email": True},
    "POST /auth/register, limited": {"registrations_per_address": 2},
    "POST /auth/login, limited": {"login_failures_before_delay": 3},
    "POST /auth/password/forgot, limited": {"mails_per_recipient": 1},
    "POST /auth/me/keep": {"erasure_grace": 86_400},
    **factor_scenarios.SETTINGS,
}


class TestBudget:
    def test_every_variant_is_one_of_a_route(self) -> None:
        assert not VARIANTS.keys() & BUDGETS.keys()
        assert {name.partition(", ")[0] for name in VARIANTS} <= BUDGETS.keys()

    def test_every_line_is_driven(self) -> None:
        assert SCENARIOS.keys() == BUDGET.keys()

    @pytest.mark.parametrize("name", BUDGET)
    def test_it_is_what_the_route_costs(self, make_resources: Callable[..., Resources], name: str) -> None:
        api = Api(make_resources(database_pool_size=1, **SETTINGS.get(name, {})))
        costs: list[int] = []

        def measured(*args: Any, **options: Any) -> Any:
            before = api.database.round_trips
            answer = api.call(*args, **options)
            costs.append(api.database.round_trips - before)
            return answer

        SCENARIOS[name](api, measured)

        assert costs == [BUDGET[name]]


DEAREST = {
    "PATCH /admin/users/{account_id}": "PATCH /admin/users/{account_id}, new address",
    "POST /auth/verify-email": "POST /auth/verify-email, new address",
    "POST /auth/login": "POST /auth/login, older hash",
    "POST /auth/login/mfa": "POST /auth/login/mfa, recovery code",
}
"""Where the dearest success of a route is not its plain one."""

LOCAL_COSTS = re.compile(r'db;dur=[\d.]+;desc="(\d+)", hash;dur=[\d.]+;desc="(\d+)", aws;')


class TestDeclaredBudgets:
    """budgets.py, against what Server-Timing says; a hand-over stands for a call to the queue."""

    def test_every_route_has_one(self, resources: Resources) -> None:
        paths = create_app(resources).openapi()["paths"]

        assert set(BUDGETS) == {f"{method.upper()} {path}" for path in paths for method in paths[path]}

    @pytest.mark.parametrize("route", BUDGETS)
    def test_it_is_what_the_route_spends(self, make_resources: Callable[..., Resources], route: str) -> None:
        name = DEAREST.get(route, route)
        handed: list[Sequence[UUID]] = []
        settings = {"database_pool_size": 1, "mode": "local", **SETTINGS.get(name, {})}
        api = Api(dataclasses.replace(make_resources(**settings), hand_over=handed.append))
        spent: list[Budget] = []

        def measured(status: int, method: str, path: str, **options: Any) -> Any:
            handed.clear()
            response = api.http.request(method, path, **options)
            assert response.status_code == status, response.text
            costs = LOCAL_COSTS.match(response.headers["Server-Timing"])
            assert costs
            spent.append(Budget(int(costs[1]), hashes=int(costs[2]), aws_calls=len(handed)))
            return response.json() if response.content else None

        SCENARIOS[name](api, measured)

        assert spent == [BUDGETS[route]]


class Wire:
    """A proxy in front of PostgreSQL that counts what needs an answer, message by message."""

    def __init__(self, server_url: str) -> None:
        self._server = psycopg2.extensions.parse_dsn(server_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.queries = 0
        """Simple queries ("Q") and what an extended query ends with ("S")."""
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self) -> str:
        user, password = quote(self._server["user"]), quote(self._server["password"], safe="")
        address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        return f"postgresql://{user}:{password}@{address}/{self._server['dbname']}?sslmode=disable"

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self.connections += 1
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._return, args=(server, client), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._server["host"], int(self._server.get("port", "5432"))
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(os.fspath(Path(host) / f".s.PGSQL.{port}"))
        return server

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Protocol documentation, "Message Formats": the first message alone has no type byte."""
        with suppress(OSError), client.makefile("rb") as stream:
            kind = b""
            while header := stream.read(len(kind) + 4):
                kind = header[:-4]
                [length] = struct.unpack("!I", header[-4:])
                self.queries += kind in {b"Q", b"S"}
                server.sendall(header + stream.read(length - 4))
                kind = b"?"

    def _return(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)


@pytest.fixture
def wire(database_url: str) -> Iterator[Wire]:
    wire = Wire(database_url)
    yield wire
    wire.close()


class TestCounter:
    """`Database.round_trips` counts what goes over the wire, seen from outside of this process's code."""

    def test_it_is_what_the_wire_carries(self, wire: Wire, make_resources: Callable[..., Resources]) -> None:
        resources = make_resources(
            database_url=wire.url(), database_pool_size=1, login_failures_before_delay=3
        )
        api = Api(resources)
        database: Database = resources.database
        wire.queries = database.round_trips = 0
        drivable = [name for name in SCENARIOS if name not in SETTINGS]

        for name in drivable:
            SCENARIOS[name](api, api.call)
            with database.one_trip() as connection:  # keys and limits of the scenario before
                connection.add(
                    "DELETE FROM idempotency_keys; DELETE FROM accounts; DELETE FROM rate_limits;"
                    " DELETE FROM one_time_secrets; DELETE FROM outbox"
                )

        assert wire.queries == database.round_trips > len(drivable)
        assert wire.connections == 1, "and one connection serves them all"

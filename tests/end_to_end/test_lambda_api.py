"""The Lambda handler, in a process of its own, driven with the events of API Gateway and of its enemies."""

import base64
import copy
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from tests.hostile_events import HOSTILE_STATUSES

from auth_manager.database import Database

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Sandbox

Answer = dict[str, Any]
EventOf = Callable[..., dict[str, Any]]
MakeSandbox = Callable[..., "Sandbox"]

EVENTS = Path(__file__).resolve().parents[2] / "events"
PASSWORD = "a long and dull passphrase"

EXPECTED = {
    "health": 200,
    "ready": 200,
    "jwks": 200,
    "discovery": 200,
    "openapi": 200,
    "docs": 200,
    "register": 201,
    "login": 200,
    "me": 200,
    "patch-me": 200,
    "refresh": 200,
    "sessions": 200,
    "session-delete": 404,
    "logout": 204,
    "delete-me": 204,
}
"""The statuses of events/*.json, after a login where one is needed."""


def body_of(answer: Answer) -> Any:
    assert answer["isBase64Encoded"] is False
    return json.loads(answer["body"])


def assert_is_clean(answer: Answer) -> None:
    """An answer of ours, whatever the event was: never an unhandled one, and readable as it stands."""
    status = answer["statusCode"]
    assert 200 <= status < 500 or status == 503, answer
    assert answer["isBase64Encoded"] is False
    assert answer["headers"]["x-request-id"]
    if status >= 400:
        assert answer["headers"]["content-type"] == "application/problem+json"
        problem = json.loads(answer["body"])
        assert problem["status"] == status
        assert problem["request_id"] == answer["headers"]["x-request-id"]


def names(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*.json")}


class TestEvents:
    def test_every_file_has_an_expectation(self) -> None:
        assert names(EVENTS) == set(EXPECTED)
        assert names(EVENTS / "hostile") == set(HOSTILE_STATUSES)

    def test_each_is_answered_as_expected(self, sandbox: "Sandbox", event_of: EventOf) -> None:
        """One after the other: each needs what the ones before it did."""
        tokens: dict[str, str] = {}
        for name, status in EXPECTED.items():
            event = event_of(name, **tokens)

            answer = sandbox.invoke(event)

            assert answer["statusCode"] == status, (name, answer)
            assert_is_clean(answer)
            assert answer["headers"]["x-request-id"] == event["requestContext"]["requestId"]
            if name == "logout":
                tokens = tokens_of(sandbox.invoke(event_of("login")))
            elif name in {"login", "refresh"}:
                tokens = tokens_of(answer)

    @pytest.mark.parametrize("name", HOSTILE_STATUSES)
    def test_a_hostile_one_is_refused_in_good_form(self, shared_sandbox: "Sandbox", name: str) -> None:
        event = json.loads((EVENTS / "hostile" / f"{name}.json").read_text(encoding="utf-8"))

        answer = shared_sandbox.invoke(event)

        assert answer["statusCode"] == HOSTILE_STATUSES[name]
        assert_is_clean(answer)


def tokens_of(answer: Answer) -> dict[str, str]:
    granted = body_of(answer)
    return {name: granted[name] for name in ("access_token", "refresh_token")}


@pytest.fixture(scope="module")
def module_sandbox(
    database_url: str, signing_keys: str, sandbox_type: type["Sandbox"]
) -> Iterator["Sandbox"]:
    sandbox = sandbox_type(
        AUTH_DATABASE_URL=database_url, AUTH_SIGNING_KEYS=signing_keys, AUTH_REGISTRATIONS_PER_ADDRESS="9999"
    )
    yield sandbox
    sandbox.close()


@pytest.fixture
def shared_sandbox(module_sandbox: "Sandbox", database: Database) -> "Sandbox":  # noqa: ARG001 -- empty
    """One sandbox for the tests that leave nothing behind in it."""
    return module_sandbox


class TestLife:
    def test_from_registration_to_deletion(self, sandbox: "Sandbox", event_of: EventOf) -> None:
        def call(name: str, **options: Any) -> Answer:
            return sandbox.invoke(event_of(name, **options))

        user = body_of(call("register"))
        first = body_of(call("login"))
        assert first["user"]["id"] == user["id"]
        assert body_of(call("me", access_token=first["access_token"]))["username"] == "testuser"
        changed = body_of(call("patch-me", access_token=first["access_token"]))
        assert changed["display_name"] == "Test User"
        second = body_of(call("refresh", refresh_token=first["refresh_token"]))
        assert second["session_id"] == first["session_id"]
        assert second["refresh_token"] != first["refresh_token"]

        other = body_of(call("login", address="198.51.100.20"))
        listed = body_of(call("sessions", access_token=second["access_token"]))["items"]
        assert [item["id"] for item in listed] == [other["session_id"], first["session_id"]]
        assert [item["address"] for item in listed] == ["198.51.100.20", "203.0.113.10"]
        revoked = call(
            "session-delete",
            path=f"/auth/sessions/{other['session_id']}",
            access_token=second["access_token"],
        )
        assert revoked["statusCode"] == 204
        assert call("me", access_token=other["access_token"])["statusCode"] == 401
        assert call("refresh", refresh_token=other["refresh_token"])["statusCode"] == 401

        assert call("logout", access_token=second["access_token"])["statusCode"] == 204
        assert call("me", access_token=second["access_token"])["statusCode"] == 401
        assert call("refresh", refresh_token=second["refresh_token"])["statusCode"] == 401

        last = body_of(call("login"))
        assert call("delete-me", access_token=last["access_token"])["statusCode"] == 204
        assert call("me", access_token=last["access_token"])["statusCode"] == 401
        assert call("login")["statusCode"] == 401
        assert call("register")["statusCode"] == 201


GARBAGE: list[Any] = [None, [], {}, "", "event", 0, 7, 1.5, True, b"bytes", {"version": "2.0"}, ["2.0"]]


class TestPages:
    """Payload format 2.0 carries cookies outside the headers, both ways."""

    def test_a_person_signs_in_and_is_known_by_the_cookie(
        self, sandbox: "Sandbox", event_of: EventOf
    ) -> None:
        person = {"email": "page@example.com", "password": PASSWORD}
        assert sandbox.invoke(event_of("register", body=person))["statusCode"] == 201
        form = event_of("login", path="/account/sign-in")
        form["headers"] |= {"content-type": "application/x-www-form-urlencoded"}
        form["body"] = f"identifier=page%40example.com&password={PASSWORD.replace(' ', '+')}"

        entered = sandbox.invoke(form)

        assert (entered["statusCode"], entered["headers"]["location"]) == (303, "/account")
        [cookie] = entered["cookies"]
        assert cookie.startswith("__Host-auth=")
        page = event_of("health", path="/account") | {"cookies": ["theme=dark", cookie.partition(";")[0]]}
        shown = sandbox.invoke(page)
        assert shown["statusCode"] == 200
        assert shown["headers"]["content-type"].startswith("text/html")
        assert "page@example.com" in shown["body"]
        assert "page@example.com" not in sandbox.invoke(event_of("health", path="/account"))["body"]


class TestHostileEvents:
    @pytest.mark.parametrize("event", GARBAGE, ids=repr)
    def test_what_is_no_event_is_refused(self, shared_sandbox: "Sandbox", event: object) -> None:
        answer = shared_sandbox.invoke(event)

        assert answer["statusCode"] == 400
        assert_is_clean(answer)
        UUID(answer["headers"]["x-request-id"])

    @pytest.mark.parametrize("seed", range(6))
    def test_no_mutation_of_a_good_event_is_unhandled(
        self, shared_sandbox: "Sandbox", event_of: EventOf, seed: int
    ) -> None:
        chance = random.Random(seed)  # noqa: S311 -- the same events every time
        names_of_good = [name for name in EXPECTED if name not in {"docs", "openapi"}]
        for _ in range(75):
            event = event_of(chance.choice(names_of_good))
            for _ in range(chance.randint(1, 3)):
                event = mutated(event, chance)

            answer = shared_sandbox.invoke(event)

            assert_is_clean(answer)

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:443",
            "evil.example:99999",
            "auth.example.com.evil.example",
            "evil.example/public?x=",
            "evil.example/health#",
            "evil.example\\@auth.example.com",
            "user@evil.example",
            "[::1]",
            "[::1]:443",
            "evil.example:80:80",
            "evil.example:",
            ":443",
            "",
            " ",
            "evil.example, auth.example.com",
            "evil.example\r\nx-injected: 1",
            "évil.example",
            "%65vil.example",
        ],
        ids=repr,
    )
    def test_no_host_changes_the_route_or_a_link(
        self, shared_sandbox: "Sandbox", event_of: EventOf, host: str
    ) -> None:
        """Starlette CVE-2026-48710 and its like: `request.url` is built from Host, so nothing reads it."""
        discovery = shared_sandbox.invoke(event_of("discovery", headers={"host": host}))
        protected = shared_sandbox.invoke(event_of("me", headers={"host": host}))

        assert discovery["statusCode"] in {200, 400}
        if discovery["statusCode"] == 200:
            assert body_of(discovery)["issuer"] == "https://auth.example.com"
            assert body_of(discovery)["jwks_uri"].startswith("https://auth.example.com/")
        assert protected["statusCode"] in {400, 401}
        for answer in (discovery, protected):
            assert_is_clean(answer)
            assert "evil" not in json.dumps(answer)

    def test_no_forwarding_header_changes_a_link(self, shared_sandbox: "Sandbox", event_of: EventOf) -> None:
        plain = body_of(shared_sandbox.invoke(event_of("discovery")))
        headers = {
            "Forwarded": "host=evil.example;proto=http",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Port": "1",
            "X-Original-Host": "evil.example",
        }

        assert body_of(shared_sandbox.invoke(event_of("discovery", headers=headers))) == plain

    @pytest.mark.parametrize(
        "path",
        ["/auth/me/", "//auth/me", "/auth//me", "/auth/%6de/", "/AUTH/ME", "/auth/me%00", "/auth/./me"],
    )
    def test_a_path_is_what_it_is(self, shared_sandbox: "Sandbox", event_of: EventOf, path: str) -> None:
        answer = shared_sandbox.invoke(event_of("health", path=path))

        assert answer["statusCode"] == 404
        assert_is_clean(answer)

    def test_a_base64_body_is_the_same_body(self, shared_sandbox: "Sandbox", event_of: EventOf) -> None:
        event = event_of("register")
        event["body"] = base64.b64encode(event["body"].encode()).decode()
        event["isBase64Encoded"] = True

        assert shared_sandbox.invoke(event)["statusCode"] == 201

    def test_a_body_over_the_limit_is_refused(self, shared_sandbox: "Sandbox", event_of: EventOf) -> None:
        answer = shared_sandbox.invoke(event_of("register", body={"email": "a" * 70_000}))

        assert answer["statusCode"] == 413
        assert_is_clean(answer)


TEXTS = [
    "",
    "\x00",
    "\ud800",
    "\r\nx: y",
    "\u017fs@example.com",
    "%00%ff",
    "../..",
    "\uff11\uff12\uff13",
    "\u202e",
    "9" * 5000,
    "null",
    "::1",
    "é",
    "2.0",
    "POST",
    "/auth/login",
]
VALUES: list[Any] = [None, True, 0, -1, 1e308, [], {}, [None], {"a": {"b": []}}, *TEXTS]


def mutated(event: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return the event with one thing changed: a value replaced, a key deleted, renamed or added."""
    event = copy.deepcopy(event)
    holders = [event]
    for holder in holders:
        holders.extend(value for value in holder.values() if isinstance(value, dict))
    holder = chance.choice([each for each in holders if each])
    key = chance.choice(sorted(holder, key=str))
    match chance.choice(("replace", "delete", "rename", "add", "body")):
        case "replace":
            holder[key] = chance.choice(VALUES)
        case "delete":
            del holder[key]
        case "rename":
            holder[chance.choice(TEXTS)] = holder.pop(key)
        case "add":
            holder[chance.choice([*TEXTS, "elb", "resource", "cookies", "Host"])] = chance.choice(VALUES)
        case "body":
            body = list(event.get("body") or "{}") if isinstance(event.get("body"), str) else ["{", "}"]
            position = chance.randrange(len(body) + 1)
            body[position : position + chance.randint(0, 3)] = chance.choice(TEXTS)
            event["body"] = "".join(body)
            event.setdefault("headers", {})
            if isinstance(event["headers"], dict):
                event["headers"]["content-type"] = "application/json"
    return event


class TestAddress:
    def test_it_is_the_gateways_and_no_headers(
        self, sandbox: "Sandbox", event_of: EventOf, database: Database
    ) -> None:
        spoofed = {
            "X-Forwarded-For": "198.51.100.66",
            "X-Real-IP": "198.51.100.66",
            "Forwarded": "for=198.51.100.66",
            "True-Client-IP": "198.51.100.66",
            "CF-Connecting-IP": "198.51.100.66",
        }
        sandbox.invoke(event_of("register", headers=spoofed, address="2001:db8::7"))
        sandbox.invoke(event_of("login", headers=spoofed, address="2001:db8::7"))

        with database.one_trip() as connection:
            rows = connection.fetch_all(
                "SELECT host(address) AS address FROM audit_events UNION ALL"
                " SELECT host(address) FROM sessions"
            )
        assert [row["address"] for row in rows] == ["2001:db8::7"] * 3

    def test_a_forged_one_does_not_outrun_the_limit(
        self, make_sandbox: MakeSandbox, event_of: EventOf
    ) -> None:
        sandbox = make_sandbox(AUTH_LOGIN_ATTEMPTS_PER_ADDRESS="3")

        statuses = [
            sandbox.invoke(
                event_of(
                    "login",
                    body={"email": f"{n}@example.com", "password": PASSWORD},
                    headers={"X-Forwarded-For": f"198.51.100.{n}"},
                )
            )["statusCode"]
            for n in range(5)
        ]

        assert statuses == [401, 401, 401, 429, 429]


class TestLocalMode:
    """It takes keys made for a laptop: not where the internet is."""

    def test_lambda_does_not_start_in_it(
        self, server_environment: Callable[..., dict[str, str]], database_url: str, signing_keys: str
    ) -> None:
        environment = server_environment(
            AUTH_MODE="local",
            AUTH_DATABASE_URL=database_url,
            AUTH_SIGNING_KEYS=signing_keys,
            AWS_LAMBDA_INITIALIZATION_TYPE="on-demand",
        )
        started = subprocess.run(
            [sys.executable, "-c", "import auth_manager.entrypoints.lambda_api"],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert started.returncode != 0
        assert "AUTH_MODE=local is for a laptop" in started.stderr

    @pytest.mark.parametrize(
        "where",
        [{}, {"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_SAM_LOCAL": "true"}],
        ids=["emulator", "sam local"],
    )
    def test_a_laptop_does(self, make_sandbox: MakeSandbox, event_of: EventOf, where: dict[str, str]) -> None:
        sandbox = make_sandbox(AUTH_MODE="local", AUTH_PUBLIC_URL="http://127.0.0.1:3000", **where)
        assert sandbox.invoke(event_of("health"))["statusCode"] == 200

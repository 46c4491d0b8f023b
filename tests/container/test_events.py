"""Every file in events/, sent to the image as API Gateway would send it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.container.conftest import EVENTS, Function
from tests.hostile_events import HOSTILE_STATUSES

from auth_manager.database import Database

pytestmark = pytest.mark.container

PASSWORD = "SecurePass123!"

# As they stand, against an empty database: the placeholders ACCESS_TOKEN and REFRESH_TOKEN are no tokens.
STATUSES = {
    "delete-me": 401,
    "discovery": 200,
    "docs": 404,
    "health": 200,
    "jwks": 200,
    "login": 401,
    "logout": 401,
    "me": 401,
    "openapi": 404,
    "patch-me": 401,
    "ready": 200,
    "refresh": 401,
    "register": 201,
    "session-delete": 401,
    "sessions": 401,
}


def send(function: Function, name: str, replacements: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Send events/NAME.json; return the function's answer, its body decoded."""
    event = (EVENTS / f"{name}.json").read_text(encoding="utf-8")
    for placeholder, value in (replacements or {}).items():
        assert placeholder in event
        event = event.replace(placeholder, value)
    answer: dict[str, Any] = function.invoke(event)
    assert not {"errorMessage", "errorType", "stackTrace"} & answer.keys()
    # What API Gateway takes in payload format 2.0; text is never base64.
    assert type(answer["statusCode"]) is int
    assert all(type(value) is str for value in answer["headers"].values())
    assert answer["isBase64Encoded"] is False
    if "json" in answer["headers"].get("content-type", "") and answer["body"]:
        answer["body"] = json.loads(answer["body"])
    return answer


def assert_is_problem(answer: Mapping[str, Any]) -> None:
    """RFC 9457, with what api.md adds to it."""
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert answer["body"]["status"] == answer["statusCode"]
    assert answer["body"]["request_id"] == answer["headers"]["x-request-id"]
    if answer["statusCode"] == 401:
        assert answer["headers"]["www-authenticate"].startswith("Bearer")


class TestEveryEvent:
    def test_none_is_forgotten(self) -> None:
        assert {path.stem for path in EVENTS.glob("*.json")} == STATUSES.keys()
        assert {path.stem for path in EVENTS.glob("hostile/*.json")} == HOSTILE_STATUSES.keys()

    @pytest.mark.parametrize(("name", "status"), STATUSES.items())
    @pytest.mark.usefixtures("database")
    def test_a_real_event_is_answered(self, function: Function, name: str, status: int) -> None:
        answer = send(function, name)
        assert answer["statusCode"] == status
        if status >= 400:
            assert_is_problem(answer)

    @pytest.mark.parametrize(("name", "status"), HOSTILE_STATUSES.items())
    def test_a_hostile_event_is_answered_too(self, function: Function, name: str, status: int) -> None:
        answer = send(function, f"hostile/{name}")
        assert answer["statusCode"] == status
        if status >= 400:
            assert_is_problem(answer)


@pytest.mark.usefixtures("database")
class TestASession:
    def test_from_registration_to_log_out(self, function: Function) -> None:
        user = send(function, "register")["body"]
        opened = send(function, "login")["body"]
        assert opened["user"]["id"] == user["id"]
        access = {"ACCESS_TOKEN": opened["access_token"]}
        assert send(function, "me", access)["body"]["email"] == "test@example.com"
        assert send(function, "patch-me", access)["body"]["attributes"] == {"theme": "dark"}

        refreshed = send(function, "refresh", {"REFRESH_TOKEN": opened["refresh_token"]})["body"]
        assert refreshed["session_id"] == opened["session_id"]
        assert refreshed["refresh_token"] != opened["refresh_token"]
        access = {"ACCESS_TOKEN": refreshed["access_token"]}
        [session] = send(function, "sessions", access)["body"]["items"]
        assert session["current"] is True
        assert session["address"] == "203.0.113.10"

        assert send(function, "logout", access)["statusCode"] == 204
        assert send(function, "me", access)["body"]["code"] == "session_ended"
        ended = send(function, "refresh", {"REFRESH_TOKEN": refreshed["refresh_token"]})
        assert ended["statusCode"] == 401

    def test_another_session_ends_and_then_the_account(self, function: Function) -> None:
        send(function, "register")
        first, second = (send(function, "login")["body"] for _ in range(2))
        placeholder = json.loads((EVENTS / "session-delete.json").read_text())["rawPath"].rsplit("/", 1)[1]
        access = {"ACCESS_TOKEN": second["access_token"]}
        ended = send(function, "session-delete", access | {placeholder: first["session_id"]})
        assert ended["statusCode"] == 204
        assert send(function, "me", {"ACCESS_TOKEN": first["access_token"]})["statusCode"] == 401

        assert send(function, "delete-me", access)["statusCode"] == 204
        assert send(function, "me", access)["statusCode"] == 401
        assert send(function, "login")["statusCode"] == 401


class TestOutput:
    """What CloudWatch would be given."""

    @pytest.fixture
    def opened(self, function: Function, database: Database) -> dict[str, Any]:  # noqa: ARG002 -- empties it
        send(function, "login")
        send(function, "register")
        body: dict[str, Any] = send(function, "login")["body"]
        send(function, "me", {"ACCESS_TOKEN": body["access_token"]})
        send(function, "refresh", {"REFRESH_TOKEN": body["refresh_token"]})
        send(function, "hostile/host-two-colons")
        send(function, "hostile/body-not-base64")
        return body

    @pytest.mark.usefixtures("opened")
    def test_each_line_of_the_function_is_json(self, function: Function) -> None:
        lines = [line for line in function.output().splitlines() if line and not _is_the_emulators(line)]
        entries = [json.loads(line) for line in lines]
        assert all(entry.get("message") or entry.get("_aws") for entry in entries)
        assert {"request", "hostile_event"} <= {entry.get("message") for entry in entries}

    @pytest.mark.usefixtures("opened")
    def test_metrics_are_in_the_embedded_metric_format(self, function: Function) -> None:
        counted: dict[str, int] = {}
        for line in function.output().splitlines():
            if not line.startswith('{"_aws"'):
                continue
            entry = json.loads(line)
            [directive] = entry["_aws"]["CloudWatchMetrics"]
            assert directive["Namespace"] == "AuthManager"
            assert directive["Dimensions"] == [["service"]]
            for metric in directive["Metrics"]:
                counted[metric["Name"]] = counted.get(metric["Name"], 0) + sum(entry[metric["Name"]])
        assert counted["registered"] >= 1
        assert counted["login_succeeded"] >= 1
        assert counted["login_failed"] >= 1

    def test_no_secret_is_in_it(
        self, function: Function, environment: dict[str, str], opened: dict[str, Any]
    ) -> None:
        """ASVS 16.2.5."""
        output = function.output()
        key = json.loads(environment["AUTH_SIGNING_KEYS"])["keys"][0]
        database_password = environment["AUTH_DATABASE_URL"].split(":")[2].split("@")[0]
        canaries = {
            "password": PASSWORD,
            "access token": opened["access_token"].split(".")[2],
            "refresh token": opened["refresh_token"],
            "e-mail address": "test@example.com",
            "secret key": environment["AUTH_SECRET_KEYS"],
            "signing key": key["d"],
            "database password": database_password,
        }
        assert [name for name, value in canaries.items() if value in output] == []


def _is_the_emulators(line: str) -> bool:
    return line.startswith(("START ", "END ", "REPORT ")) or " (rapid) " in line

"""The API behind the edge: who is let in, and whose address counts (entrypoints/lambda_edge.py)."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from auth_manager.cached_secret import LIFETIME, RETRY_AFTER
from auth_manager.database import Database
from auth_manager.entrypoints.lambda_edge import read_secrets, viewer_address
from auth_manager.entrypoints.lambda_hook import rehearse
from auth_manager.errors import ConfigurationError

Start = Callable[[], ModuleType]
Answer = dict[str, Any]

FIRST, SECOND, THIRD = (
    f"{n}-origin-secret-canary-0123456789abcdefghij" for n in ("first", "second", "third")
)
PERSON = {"email": "edge@example.com", "password": "a long and dull passphrase"}
GATEWAY, VIEWER = "203.0.113.7", "198.51.100.10"


def event(
    path: str = "/health", *, body: object = None, by_gateway: bool = True, **headers: str
) -> dict[str, Any]:
    context: dict[str, Any] = {
        "http": {"method": "GET" if body is None else "POST", "path": path, "sourceIp": GATEWAY}
    }
    if by_gateway:
        context |= {"apiId": "a1b2c3d4e5", "domainName": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"}
    return {
        "version": "2.0",
        "headers": {"content-type": "application/json"}
        | {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": context,
        "body": None if body is None else json.dumps(body),
    }


def through_edge(secret: str, viewer: str = f"{VIEWER}:46532", **what: Any) -> dict[str, Any]:
    return event(**what, X_Origin_Secret=secret, CloudFront_Viewer_Address=viewer)


class Origin:
    """The secret between CloudFront and the service."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint
        self.arn: str = endpoint.create("auth-manager-origin", self._text(FIRST))

    def rotate_to(self, value: str) -> None:
        self._endpoint.client.put_secret_value(SecretId=self.arn, SecretString=self._text(value))

    def _text(self, value: str) -> str:
        return json.dumps({"value": value})


@pytest.fixture(autouse=True)
def _environment(
    database: object,  # noqa: ARG001 -- its tables are empty
    database_url: str,
    signing_keys: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTH_PUBLIC_URL", "https://auth.example.com")
    monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)
    monkeypatch.setenv("AUTH_SECRET_KEYS", "0123456789abcdefghijklmnopqrstuvwxyz-test-only")


@pytest.fixture
def origin(secrets_endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> Origin:
    origin = Origin(secrets_endpoint)
    monkeypatch.setenv("AUTH_ORIGIN_SECRET_ARN", origin.arn)
    return origin


def status(answer: Answer) -> int:
    code: int = answer["statusCode"]
    return code


def addresses(database: Database) -> set[str]:
    """Where registrations came from, by the record of what happened."""
    with database.one_trip() as connection:
        return {row["a"] for row in connection.fetch_all("SELECT host(address) AS a FROM audit_events")}


class TestWithoutTheSetting:
    def test_the_edges_headers_are_not_believed(
        self, start: Start, database: Database, secrets_endpoint: Any
    ) -> None:
        handler = start().handler
        assert status(handler(through_edge(FIRST, path="/auth/register", body=PERSON), None)) == 201
        assert addresses(database) == {GATEWAY}
        assert secrets_endpoint.calls == 0, "nothing more is fetched at a cold start"


@pytest.mark.usefixtures("origin")
class TestAroundTheEdge:
    @pytest.mark.parametrize(
        "path", ["/health", "/health/ready", "/.well-known/jwks.json", "/auth/me", "/nowhere"]
    )
    def test_every_path_is_refused(self, start: Start, path: str) -> None:
        answer = start().handler(event(path), None)
        assert status(answer) == 403
        assert answer["headers"]["content-type"] == "application/problem+json"
        assert answer["headers"]["cache-control"] == "no-store"
        problem = json.loads(answer["body"])
        assert problem["code"] == "origin_refused"
        assert problem["request_id"] == answer["headers"]["x-request-id"]

    @pytest.mark.parametrize(
        "secret", ["", "x", FIRST[:-1], FIRST + "x", FIRST.upper(), f"{FIRST},{FIRST}", "\u00e9" * 40]
    )
    def test_a_guess_is_refused_and_registers_nobody(
        self, start: Start, database: Database, secret: str
    ) -> None:
        handler = start().handler
        assert status(handler(through_edge(secret, path="/auth/register", body=PERSON), None)) == 403
        assert addresses(database) == set()

    def test_guesses_cost_no_more_than_one_look_in_ten_seconds(
        self, start: Start, secrets_endpoint: Any, clock: Any
    ) -> None:
        handler = start().handler
        asked = secrets_endpoint.calls
        assert asked == 2, "the current and the previous version"
        for _ in range(50):
            clock.later += RETRY_AFTER / 20
            assert status(handler(through_edge("x" * 40), None)) == 403
        assert secrets_endpoint.calls <= asked + 3 * 2

    def test_without_a_secret_nobody_looks(self, start: Start, secrets_endpoint: Any, clock: Any) -> None:
        handler = start().handler
        asked = secrets_endpoint.calls
        clock.later = RETRY_AFTER
        assert status(handler(event(), None)) == 403
        assert secrets_endpoint.calls == asked


@pytest.mark.usefixtures("origin")
class TestThroughTheEdge:
    @pytest.mark.parametrize(
        ("viewer", "address"),
        [
            ("198.51.100.10:46532", "198.51.100.10"),
            ("2001:db8::7:46532", "2001:db8::7"),
            ("", GATEWAY),
            ("198.51.100.10", GATEWAY),
            ("canary", GATEWAY),
        ],
    )
    def test_the_address_is_the_viewers(
        self, start: Start, database: Database, viewer: str, address: str
    ) -> None:
        handler = start().handler
        answer = handler(through_edge(FIRST, viewer, path="/auth/register", body=PERSON), None)
        assert status(answer) == 201
        assert addresses(database) == {address}

    def test_limits_are_the_viewers(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_LOGIN_ATTEMPTS_PER_ADDRESS", "2")
        handler = start().handler

        def guess(n: int, viewer: str) -> int:
            body = {"email": f"{n}@example.com", "password": "a guess and no more"}
            return status(handler(through_edge(FIRST, f"{viewer}:{n}", path="/auth/login", body=body), None))

        assert [guess(n, VIEWER) for n in range(3)] == [401, 401, 429]
        assert guess(9, "198.51.100.11") == 401

    def test_neither_the_secret_nor_a_guess_is_logged(
        self, start: Start, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handler = start().handler
        handler(through_edge(FIRST, path="/auth/register", body=PERSON), None)
        handler(through_edge(SECOND, path="/auth/register", body=PERSON), None)
        written = "".join(capsys.readouterr())
        assert "origin_refused" in written
        assert "canary" not in written


class TestRotation:
    def test_current_and_previous_are_let_in_and_no_older_one(
        self, start: Start, origin: Origin, clock: Any
    ) -> None:
        handler = start().handler
        origin.rotate_to(SECOND)
        clock.later = LIFETIME
        assert [status(handler(through_edge(secret), None)) for secret in (FIRST, SECOND)] == [200, 200]
        origin.rotate_to(THIRD)
        clock.later = 2 * LIFETIME
        after = [status(handler(through_edge(secret), None)) for secret in (FIRST, SECOND, THIRD)]
        assert after == [403, 200, 200]

    def test_a_younger_secret_is_asked_about(
        self, start: Start, origin: Origin, clock: Any, secrets_endpoint: Any
    ) -> None:
        handler = start().handler
        asked = secrets_endpoint.calls
        origin.rotate_to(SECOND)
        clock.later = RETRY_AFTER
        assert [status(handler(through_edge(SECOND), None)) for _ in range(5)] == [200] * 5
        assert status(handler(through_edge(FIRST), None)) == 200
        assert secrets_endpoint.calls == asked + 2


@pytest.mark.usefixtures("origin")
class TestSecretsManagerDown:
    def test_warm_it_goes_on_and_stays_shut(self, start: Start, secrets_endpoint: Any, clock: Any) -> None:
        handler = start().handler
        secrets_endpoint.fails_with, secrets_endpoint.fails = "ThrottlingException", 10_000
        clock.later = 3600
        assert status(handler(through_edge(FIRST), None)) == 200
        assert status(handler(through_edge(SECOND), None)) == 403

    def test_cold_it_is_503_and_not_open(self, start: Start, secrets_endpoint: Any) -> None:
        secrets_endpoint.fails_with, secrets_endpoint.fails = "AccessDeniedException", 10_000
        handler = start().handler
        assert [status(handler(asks, None)) for asks in (through_edge(FIRST), event())] == [503, 503]


@pytest.mark.usefixtures("origin")
class TestInvokedDirectly:
    """By lambda:InvokeFunction: no client can leave out what API Gateway adds."""

    def test_the_hook_before_traffic_passes(self, start: Start) -> None:
        handler = start().handler
        steps: list[str] = []
        rehearse(lambda request: handler(json.loads(json.dumps(request)), None), steps)
        assert steps[-1] == "delete"

    def test_an_address_in_a_header_is_not_believed(self, start: Start, database: Database) -> None:
        handler = start().handler
        asks = through_edge(FIRST, path="/auth/register", body=PERSON, by_gateway=False)
        assert status(handler(asks, None)) == 201
        assert addresses(database) == {GATEWAY}


class TestReadSecrets:
    def test_a_previous_one_need_not_be_any(self) -> None:
        current = json.dumps({"value": FIRST})
        for previous in (None, "", "{}", "canary", '{"value": "short"}', '{"value": 1}', "[]"):
            assert read_secrets(json.dumps([current, previous])) == (FIRST.encode(),)

    @pytest.mark.parametrize("text", ["", "{}", "canary", '{"value": ""}', '{"value": "canary"}', "[]"])
    def test_a_current_one_must_be_long(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="AUTH_ORIGIN_SECRET_ARN") as caught:
            read_secrets(json.dumps([text, json.dumps({"value": FIRST})]))
        assert "canary" not in str(caught.value)


class TestViewerAddress:
    @pytest.mark.parametrize(
        "header",
        ["", ":", "198.51.100.10", "198.51.100.10:", "198.51.100.10:x", "1.2.3.4,5.6.7.8:1", "a:1", "::"],
    )
    def test_what_is_no_address_and_port_is_none(self, header: str) -> None:
        assert viewer_address(header) is None

    def test_each_address_has_one_text(self) -> None:
        assert viewer_address("2001:0DB8:0:0:0:0:0:0007:443") == "2001:db8::7"

"""The API's handler with its secrets in Secrets Manager: well, slow, throttled, down; cold and warm."""

import json
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import snapshot_restore_py

from auth_manager.aws import secrets
from auth_manager.errors import ConfigurationError
from auth_manager.signing_keys import generate_signing_key, serialize_key_set

SECRET_KEYS = "0123456789abcdefghijklmnopqrstuvwxyz-test-only"
Start = Callable[[], ModuleType]


def event(method: str, path: str, body: object = None, token: str | None = None) -> dict[str, Any]:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    return {
        "version": "2.0",
        "headers": headers,
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "203.0.113.7"}},
        "body": None if body is None else json.dumps(body),
    }


@pytest.fixture(autouse=True)
def arns(
    secrets_endpoint: Any,
    database: object,  # noqa: ARG001 -- its tables are empty
    database_url: str,
    signing_keys: str,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """The three secrets, by setting; the environment has their ARNs and nothing else that is secret."""
    made = {
        "AUTH_DATABASE_SECRET_ARN": secrets_endpoint.create("database", database_url),
        "AUTH_SIGNING_KEYS_SECRET_ARN": secrets_endpoint.create("signing-keys", signing_keys),
        "AUTH_SECRET_KEYS_SECRET_ARN": secrets_endpoint.create(
            "secret-keys", json.dumps({"keys": [SECRET_KEYS]})
        ),
    }
    for name, value in (made | {"AUTH_PUBLIC_URL": "https://auth.example.com"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(secrets, "TIMEOUT", 0.3)
    return made


def assert_is_unavailable(answer: dict[str, Any]) -> None:
    assert answer["statusCode"] == 503
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert int(answer["headers"]["retry-after"]) >= 1
    assert json.loads(answer["body"])["code"] == "service_unavailable"


class TestCold:
    def test_three_secrets_cost_three_calls(self, start: Start, secrets_endpoint: Any) -> None:
        handler = start().handler
        assert handler(event("GET", "/health/ready"), None)["statusCode"] == 200
        assert secrets_endpoint.calls == 3

    @pytest.mark.parametrize("illness", ["throttled", "slow", "refused"])
    def test_every_event_is_answered_503_until_it_is_well(
        self, start: Start, secrets_endpoint: Any, illness: str
    ) -> None:
        if illness == "slow":
            secrets_endpoint.delay = 0.8
        else:
            code = "ThrottlingException" if illness == "throttled" else "AccessDeniedException"
            secrets_endpoint.fails_with, secrets_endpoint.fails = code, 10_000
        handler = start().handler
        body = {"email": "test@example.com", "password": "SecurePass123!"}
        asked = secrets_endpoint.calls
        for asks in (
            event("GET", "/health"),
            event("POST", "/auth/login", body),
            event("GET", "/.well-known/jwks.json"),
            event("GET", "/auth/me", token="forged"),
        ):
            assert_is_unavailable(handler(asks, None))
        assert secrets_endpoint.calls == asked, "it asks again at most once a second"

        time.sleep(1.05)
        assert_is_unavailable(handler(event("GET", "/health"), None))
        assert secrets_endpoint.calls > asked

        secrets_endpoint.delay, secrets_endpoint.fails = 0.0, 0
        time.sleep(1.05)
        assert handler(event("GET", "/health/ready"), None)["statusCode"] == 200

    def test_a_secret_that_cannot_be_used_refuses_the_start(
        self, start: Start, secrets_endpoint: Any, arns: dict[str, str]
    ) -> None:
        secrets_endpoint.client.put_secret_value(
            SecretId=arns["AUTH_SIGNING_KEYS_SECRET_ARN"], SecretString="{}"
        )
        with pytest.raises(ConfigurationError, match="AUTH_SIGNING_KEYS_SECRET_ARN: not a JWK set"):
            start()

    def test_plain_variables_win(
        self,
        start: Start,
        secrets_endpoint: Any,
        monkeypatch: pytest.MonkeyPatch,
        database_url: str,
        signing_keys: str,
    ) -> None:
        parts = urlsplit(database_url)
        if not parts.password:
            host = parts.netloc.rpartition("@")[2]
            database_url = parts._replace(netloc=f"{parts.username or 'postgres'}:x@{host}").geturl()
        monkeypatch.setenv("AUTH_DATABASE_URL", database_url)
        monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)
        monkeypatch.setenv("AUTH_SECRET_KEYS", SECRET_KEYS)
        assert start().handler(event("GET", "/health/ready"), None)["statusCode"] == 200
        assert secrets_endpoint.calls == 0


class TestWarm:
    def test_it_serves_from_its_cache_while_secrets_manager_is_down(
        self, start: Start, secrets_endpoint: Any, clock: Any
    ) -> None:
        handler = start().handler
        person = {"email": "warm@example.com", "password": "a long and dull passphrase"}
        assert handler(event("POST", "/auth/register", person), None)["statusCode"] == 201
        secrets_endpoint.fails_with, secrets_endpoint.fails = "ThrottlingException", 10_000
        clock.later = 3600
        asked = secrets_endpoint.calls
        login = handler(event("POST", "/auth/login", person), None)
        assert login["statusCode"] == 200
        token = json.loads(login["body"])["access_token"]
        assert handler(event("GET", "/auth/me", token=token), None)["statusCode"] == 200
        assert asked < secrets_endpoint.calls <= asked + 4, "two attempts each, then ten seconds of rest"

    def test_a_refresh_token_of_a_younger_secret_key_is_traded(
        self, start: Start, secrets_endpoint: Any, arns: dict[str, str], clock: Any
    ) -> None:
        """AUTH_SECRET_KEYS is rotated without a deploy; another sandbox noticed first."""
        behind = start().handler
        person = {"email": "turn@example.com", "password": "a long and dull passphrase"}
        assert behind(event("POST", "/auth/register", person), None)["statusCode"] == 201
        old = json.loads(behind(event("POST", "/auth/login", person), None)["body"])["refresh_token"]
        secrets_endpoint.client.put_secret_value(
            SecretId=arns["AUTH_SECRET_KEYS_SECRET_ARN"],
            SecretString=json.dumps({"keys": [SECRET_KEYS[::-1], SECRET_KEYS]}),
        )
        ahead = start().handler
        clock.later = 11

        def trade(handler: Any, token: str) -> Any:
            return handler(event("POST", "/auth/refresh", {"refresh_token": token}), None)

        by_ahead = trade(ahead, old)
        assert by_ahead["statusCode"] == 200
        assert trade(behind, json.loads(by_ahead["body"])["refresh_token"])["statusCode"] == 200
        assert trade(behind, "rt_" + "A" * 76)["statusCode"] == 401

    def test_a_token_of_a_younger_key_set_is_verified(
        self, start: Start, secrets_endpoint: Any, arns: dict[str, str], signing_keys: str, clock: Any
    ) -> None:
        """Another sandbox already signs with a key that this one has never seen."""
        behind = start().handler
        person = {"email": "young@example.com", "password": "a long and dull passphrase"}
        assert behind(event("POST", "/auth/register", person), None)["statusCode"] == 201
        [old] = json.loads(signing_keys)["keys"]
        young = serialize_key_set([generate_signing_key("RS256"), old | {"state": "previous"}])
        secrets_endpoint.client.put_secret_value(
            SecretId=arns["AUTH_SIGNING_KEYS_SECRET_ARN"], SecretString=young
        )
        ahead = start().handler
        login = ahead(event("POST", "/auth/login", person), None)
        token = json.loads(login["body"])["access_token"]
        asked = secrets_endpoint.calls

        def seen_by(handler: Any) -> int:
            status: int = handler(event("GET", "/auth/me", token=token), None)["statusCode"]
            return status

        # Too soon after its start for this sandbox to ask; ten seconds later it does, once.
        assert seen_by(behind) == 401
        assert secrets_endpoint.calls == asked
        clock.later = 11
        assert seen_by(behind) == 200
        assert [seen_by(behind) for _ in range(5)] == [200] * 5
        assert secrets_endpoint.calls == asked + 1


def restore() -> None:
    """Take a snapshot and restore it, as Lambda's runtime does."""
    for registered in reversed(snapshot_restore_py.get_before_snapshot()):
        registered[0](*registered[1], **registered[2])
    for registered in snapshot_restore_py.get_after_restore():
        registered[0](*registered[1], **registered[2])


class TestRestored:
    """SnapStart: secrets are those of now, and not those of the day the snapshot was taken."""

    @pytest.fixture(autouse=True)
    def _snap_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
        monkeypatch.setattr(snapshot_restore_py, "_before_snapshot_registry", [])
        monkeypatch.setattr(snapshot_restore_py, "_after_restore_registry", [])

    def test_a_key_withdrawn_meanwhile_signs_nothing(
        self, start: Start, secrets_endpoint: Any, arns: dict[str, str]
    ) -> None:
        handler = start().handler
        jwks = event("GET", "/.well-known/jwks.json")
        [withdrawn] = json.loads(handler(jwks, None)["body"])["keys"]
        secrets_endpoint.client.put_secret_value(
            SecretId=arns["AUTH_SIGNING_KEYS_SECRET_ARN"],
            SecretString=serialize_key_set([generate_signing_key("RS256")]),
        )

        restore()

        [published] = json.loads(handler(jwks, None)["body"])["keys"]
        assert published["kid"] != withdrawn["kid"]

    def test_while_secrets_manager_is_down_it_is_cold_and_not_warm(
        self, start: Start, secrets_endpoint: Any
    ) -> None:
        handler = start().handler
        assert handler(event("GET", "/health/ready"), None)["statusCode"] == 200
        secrets_endpoint.fails_with, secrets_endpoint.fails = "AccessDeniedException", 10_000

        restore()

        assert_is_unavailable(handler(event("GET", "/health/ready"), None))
        secrets_endpoint.fails = 0
        time.sleep(1.05)
        assert handler(event("GET", "/health/ready"), None)["statusCode"] == 200

    def test_it_asks_for_each_secret_once(self, start: Start, secrets_endpoint: Any) -> None:
        handler = start().handler
        asked = secrets_endpoint.calls
        restore()
        assert handler(event("GET", "/health/ready"), None)["statusCode"] == 200
        assert secrets_endpoint.calls == asked + 3

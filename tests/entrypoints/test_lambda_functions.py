"""The maintenance and hook functions, through their handlers."""

import asyncio
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from tests.entrypoints.functions import Context, event_of

from auth_manager.backups import OutOfTime, StorageFailed
from auth_manager.database import Database
from auth_manager.entrypoints import lambda_hook, lambda_maintenance
from auth_manager.entrypoints.lambda_hook import Unexpected, rehearse
from auth_manager.entrypoints.lambda_maintenance import UnknownEvent
from auth_manager.errors import ConfigurationError, ServiceUnavailable
from auth_manager.ids import new_id
from auth_manager.key_rotation import RotationOutOfOrder, RotationTooSoon
from auth_manager.signing_keys import parse_key_set

API = "auth_manager.entrypoints.lambda_api"
pytestmark = pytest.mark.usefixtures("function_environment")


def add_message(database: Database, kind: str = "verify_email") -> None:
    with database.one_trip() as connection:
        connection.add(
            "INSERT INTO outbox (id, kind, recipient, created_at) VALUES (%(id)s, %(kind)s, 'a@b.c', now())",
            {"id": new_id(), "kind": kind},
        )


class TestMaintenance:
    def test_migrate_applies_what_is_missing(self) -> None:
        assert lambda_maintenance.handler(event_of("migrate"), Context()) == {"applied": []}

    def test_clean_up(self, database: Database) -> None:
        with database.one_trip() as connection:
            connection.add("INSERT INTO rate_limits VALUES ('x', 0, NULL, NULL, now() - interval '1 day')")
        assert lambda_maintenance.handler(event_of("clean-up"), Context(5_000))["removed"]["rate_limits"] == 0
        assert lambda_maintenance.handler(event_of("clean-up"), Context())["removed"]["rate_limits"] == 1

    def test_without_a_queue_messages_wait(self, database: Database) -> None:
        add_message(database)
        answer = lambda_maintenance.handler(event_of("relay-outbox"), None)
        assert (answer["relayed"], answer["failed"]) == (0, 0)

    def test_messages_go_to_the_queue(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        sqs = boto3.client("sqs")
        url = sqs.create_queue(QueueName="outbox")["QueueUrl"]
        monkeypatch.setenv("AUTH_OUTBOX_QUEUE_URL", url)
        add_message(database)
        # Nothing can send it yet: it waits in the table.
        assert lambda_maintenance.handler(event_of("relay-outbox"), Context())["relayed"] == 0
        monkeypatch.setenv("AUTH_MAIL_TRANSPORT", "ses")
        monkeypatch.setenv("AUTH_MAIL_FROM", "no-reply@example.com")
        assert lambda_maintenance.handler(event_of("relay-outbox"), Context())["relayed"] == 1
        [received] = sqs.receive_message(QueueUrl=url)["Messages"]
        with database.one_trip() as connection:
            [row] = connection.fetch_all("SELECT id FROM outbox")
        assert json.loads(received["Body"]) == {"id": str(row["id"])}

    @pytest.mark.parametrize("event", [None, [], {}, {"action": "x"}, {"action": []}, {"Step": "x"}])
    def test_anything_else_is_refused(self, event: object) -> None:
        with pytest.raises(UnknownEvent):
            lambda_maintenance.handler(event, Context())

    def test_a_failure_is_the_functions_failure(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AUTH_DATABASE_URL", "postgresql://a:canary@127.0.0.1:1/none")
        with pytest.raises(ServiceUnavailable):
            lambda_maintenance.handler(event_of("clean-up"), Context())
        output = capsys.readouterr().out
        assert "maintenance_failed" in output
        assert "canary" not in output


class TestBackUp:
    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        client = boto3.client("s3")
        client.create_bucket(
            Bucket="backups", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        monkeypatch.setenv("AUTH_BACKUP_URL", "s3://backups/stack/backups")
        return client

    def keys(self, bucket: Any) -> list[str]:
        return [item["Key"] for item in bucket.list_objects_v2(Bucket="backups").get("Contents", [])]

    def test_it_is_stored_counted_and_the_old_one_goes(
        self, bucket: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("DAILY", "WEEKLY", "MONTHLY"):
            monkeypatch.setenv(f"AUTH_BACKUP_KEEP_{name}", "1" if name == "DAILY" else "0")
        first = lambda_maintenance.handler(event_of("back-up"), Context())
        assert f"stack/backups/{first['id']}/manifest.json" in self.keys(bucket)
        assert first["deleted"] == []
        second = lambda_maintenance.handler(event_of("back-up"), Context())
        assert second["deleted"] == [first["id"]]
        assert {key.split("/")[2] for key in self.keys(bucket)} == {second["id"]}
        output = capsys.readouterr().out
        assert '"backup_completed":[1.0]' in output
        assert '"backed_up"' in output

    def test_without_time_there_is_none(self, bucket: Any, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(OutOfTime):
            lambda_maintenance.handler(event_of("back-up"), Context(9_000))
        assert self.keys(bucket) == []
        assert '"backup_failed":[1.0]' in capsys.readouterr().out

    def test_without_a_bucket_it_fails(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AUTH_BACKUP_URL", "s3://nowhere/x")
        with pytest.raises(StorageFailed, match="no such bucket"):
            lambda_maintenance.handler(event_of("back-up"), Context())
        assert '"backup_failed":[1.0]' in capsys.readouterr().out

    def test_without_a_place_there_is_nothing_to_do(self) -> None:
        assert lambda_maintenance.handler(event_of("back-up"), Context())["id"] is None

    def test_a_directory_would_not_outlive_the_function(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("AUTH_BACKUP_URL", str(tmp_path))
        with pytest.raises(ConfigurationError, match="AUTH_BACKUP_URL"):
            lambda_maintenance.handler(event_of("back-up"), Context())


class TestRotation:
    @pytest.fixture
    def arn(self, monkeypatch: pytest.MonkeyPatch, signing_keys: str) -> str:
        arn = boto3.client("secretsmanager").create_secret(Name="keys", SecretString=signing_keys)["ARN"]
        monkeypatch.setenv("AUTH_SIGNING_KEYS_SECRET_ARN", arn)
        return arn

    def states(self, arn: str) -> list[str]:
        client = boto3.client("secretsmanager")
        text = client.get_secret_value(SecretId=arn, VersionStage="AWSCURRENT")["SecretString"]
        return sorted(key.state for key in parse_key_set(text, algorithm="RS256", local=False).keys)

    def test_the_events_of_secrets_manager(self, arn: str) -> None:
        for step in ("create", "set", "test", "finish"):
            event = event_of(f"rotation-{step}-secret") | {"SecretId": arn}
            lambda_maintenance.handler(event, Context())
        assert self.states(arn) == ["current", "next"]

    def test_out_of_order_it_fails_and_is_counted(self, arn: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(RotationOutOfOrder):
            lambda_maintenance.handler(event_of("rotation-finish-secret") | {"SecretId": arn}, Context())
        assert '"key_rotation_failed":[1.0]' in capsys.readouterr().out
        assert self.states(arn) == ["current"]

    def test_another_secret_is_none_of_ours(self, arn: str) -> None:
        with pytest.raises(UnknownEvent, match="another secret"):
            lambda_maintenance.handler(event_of("rotation-create-secret") | {"SecretId": arn + "x"}, None)

    def test_by_hand_at_once_and_not_too_soon(self, arn: str) -> None:
        lambda_maintenance.handler(event_of("rotate-signing-keys"), Context())
        assert self.states(arn) == ["current", "next"]
        with pytest.raises(RotationTooSoon):
            lambda_maintenance.handler(event_of("rotate-signing-keys"), Context())
        answer = lambda_maintenance.handler(event_of("rotate-signing-keys") | {"emergency": True}, Context())
        assert answer["emergency"] is True
        assert self.states(arn) == ["current", "next"]

    def test_without_a_secret_there_is_nothing_to_rotate(self) -> None:
        with pytest.raises(ConfigurationError):
            lambda_maintenance.handler(event_of("rotate-signing-keys"), Context())


Handler = Callable[[Any, Any], Any]


@pytest.fixture
def api(signing_keys: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Handler]]:
    """Imports the API's handler anew, with the environment as it is then."""
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)

    def start() -> Handler:
        sys.modules.pop(API, None)
        module: ModuleType = importlib.import_module(API)
        handler: Handler = module.handler
        return handler

    yield start
    sys.modules.pop(API, None)
    _close_the_loop_of_mangum()


def _close_the_loop_of_mangum() -> None:
    """Mangum leaves one set in the main thread, for as long as a sandbox lives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.get_event_loop().close()
    asyncio.set_event_loop_policy(None)


class TestRehearse:
    def test_a_good_version(self, api: Callable[[], Handler], database: Database) -> None:
        handler, steps = api(), list[str]()
        rehearse(lambda event: handler(event, None), steps)
        assert steps[2:] == [
            "register",
            "login",
            "refresh",
            "me",
            "logout",
            "logged out",
            "login to delete",
            "delete",
        ]
        with database.one_trip() as connection:
            assert connection.fetch_all("SELECT 1 FROM accounts") == []

    def test_where_addresses_must_be_verified(
        self, api: Callable[[], Handler], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AUTH_REQUIRE_VERIFIED_EMAIL", "true")
        handler, steps = api(), list[str]()
        rehearse(lambda event: handler(event, None), steps)
        assert steps == ["ready", "jwks", "register", "addresses must be verified: no login"]

    def test_where_everybody_must_have_a_second_factor(
        self, api: Callable[[], Handler], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AUTH_MFA_POLICY", "required")
        handler, steps = api(), list[str]()
        rehearse(lambda event: handler(event, None), steps)
        assert steps[2:] == ["register", "login", "a second factor must be set up: no login"]

    def test_a_login_that_is_forbidden_for_another_reason_is_found(self, api: Callable[[], Handler]) -> None:
        handler = api()

        def broken(event: Any) -> object:
            hit = event["requestContext"]["http"]["path"] == "/auth/login"
            return (
                {"statusCode": 403, "body": '{"code": "account_disabled"}'} if hit else handler(event, None)
            )

        with pytest.raises(Unexpected, match="login: 403"):
            rehearse(broken, [])

    @pytest.mark.parametrize(
        ("path", "step"),
        [
            ("/health/ready", "ready"),
            ("/.well-known/jwks.json", "jwks"),
            ("/auth/register", "register"),
            ("/auth/login", "login"),
            ("/auth/refresh", "refresh"),
            ("/auth/logout", "logout"),
        ],
    )
    @pytest.mark.parametrize("answer", [{"statusCode": 500, "body": "{}"}, None, {"errorMessage": "x"}])
    def test_a_broken_route_is_found(
        self, api: Callable[[], Handler], path: str, step: str, answer: object
    ) -> None:
        handler = api()

        def broken(event: Any) -> object:
            hit = event["requestContext"]["http"]["path"] == path
            return answer if hit else handler(event, None)

        with pytest.raises(Unexpected, match=step):
            rehearse(broken, [])


class TestHook:
    @pytest.fixture
    def reported(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What CodeDeploy was told: moto has no lifecycle hooks."""
        reported: list[str] = []
        monkeypatch.setattr(lambda_hook, "report_hook", lambda *values: reported.append(" ".join(values)))
        monkeypatch.setenv("AUTH_HOOK_TARGET", "arn:aws:lambda:eu-central-1:123456789012:function:api:7")
        return reported

    def test_a_good_version_gets_traffic(
        self, api: Callable[[], Handler], reported: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler = api()
        monkeypatch.setattr(lambda_hook, "invoke_function", lambda _target, event: handler(event, None))
        assert lambda_hook.handler(event_of("code-deploy"), None)["status"] == "Succeeded"
        assert reported == ["d-EXAMPLE01 example-execution-id Succeeded"]

    def test_a_version_whose_login_is_broken_gets_none(
        self, api: Callable[[], Handler], reported: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The deliberately broken handler: whoever logs in is told that the password is wrong."""
        handler = api()

        def broken(_target: str, event: Any) -> object:
            if event["requestContext"]["http"]["path"] == "/auth/login":
                event = event | {"body": json.dumps(json.loads(event["body"]) | {"password": "another one"})}
            return handler(event, None)

        monkeypatch.setattr(lambda_hook, "invoke_function", broken)
        answer = lambda_hook.handler(event_of("code-deploy"), None)
        assert (answer["status"], answer["failure"]) == ("Failed", "login: 401")
        assert reported == ["d-EXAMPLE01 example-execution-id Failed"]

    def test_a_version_that_does_not_start_gets_none(self, reported: list[str]) -> None:
        """The function that moto does not have stands for one that cannot be invoked."""
        assert lambda_hook.handler(event_of("code-deploy"), None)["failure"] == "ServiceUnavailable"
        assert reported == ["d-EXAMPLE01 example-execution-id Failed"]

    def test_without_a_target_it_fails(self, reported: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AUTH_HOOK_TARGET")
        lambda_hook.handler(event_of("code-deploy"), None)
        assert reported == ["d-EXAMPLE01 example-execution-id Failed"]

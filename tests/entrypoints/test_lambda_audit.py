"""The maintenance function chains the audit trail, signs it, and keeps that in a bucket."""

import json
from datetime import UTC, datetime

import boto3
import pytest
from tests.entrypoints.functions import Context, event_of

from auth_manager import audit
from auth_manager.audit import Origin
from auth_manager.audit_chain.checkpoints import ChainBroken, list_checkpoints
from auth_manager.audit_chain.verification import verify
from auth_manager.database import Database
from auth_manager.entrypoints import lambda_maintenance
from auth_manager.errors import ConfigurationError
from auth_manager.settings import load_settings
from auth_manager.signing_keys import load_key_set

pytestmark = pytest.mark.usefixtures("function_environment")


@pytest.fixture(autouse=True)
def _events(database: Database, monkeypatch: pytest.MonkeyPatch, signing_keys: str) -> None:
    monkeypatch.setenv("AUTH_SIGNING_KEYS", signing_keys)
    for _ in range(3):
        with database.one_trip() as connection:
            audit.append(connection, "noted", Origin(None, "", "r", datetime.now(UTC)))


def waiting(database: Database) -> int:
    with database.one_trip() as connection:
        return len(connection.fetch_all("SELECT id FROM audit_events WHERE position IS NULL"))


class TestChainAudit:
    @pytest.mark.parametrize("event", ["chain-audit", "clean-up"])
    def test_what_waits_is_chained(self, database: Database, event: str) -> None:
        lambda_maintenance.handler(event_of(event), Context())
        assert waiting(database) == 0

    def test_without_time_it_is_left(self, database: Database) -> None:
        assert lambda_maintenance.handler(event_of("chain-audit"), Context(5_000)) == {"chained": 0}
        assert waiting(database) == 3
        assert lambda_maintenance.handler(event_of("chain-audit"), None) == {"chained": 3}


class TestCheckpointAudit:
    def test_in_the_database_and_in_the_bucket(
        self, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="trail")
        monkeypatch.setenv("AUTH_AUDIT_CHECKPOINT_URL", "s3://trail/stack/audit")
        assert lambda_maintenance.handler(event_of("checkpoint-audit"), Context()) == {"position": 3}
        [checkpoint] = list_checkpoints(database)
        [kept] = s3.list_objects_v2(Bucket="trail")["Contents"]
        assert kept["Key"] == f"stack/audit/{checkpoint.file_name}"
        content = s3.get_object(Bucket="trail", Key=kept["Key"])["Body"].read()
        assert json.loads(content)["checkpoint"] == checkpoint.token
        assert verify(database, load_key_set(load_settings())).is_sound
        assert '"audit_events_chained":[3' in capsys.readouterr().out.replace(" ", "")

    def test_in_the_database_alone(self, database: Database) -> None:
        lambda_maintenance.handler(event_of("checkpoint-audit"), Context())
        assert [checkpoint.position for checkpoint in list_checkpoints(database)] == [3]

    def test_a_directory_would_not_outlive_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_AUDIT_CHECKPOINT_URL", "checkpoints")
        with pytest.raises(ConfigurationError, match="AUTH_AUDIT_CHECKPOINT_URL"):
            lambda_maintenance.handler(event_of("checkpoint-audit"), Context())

    def test_a_trail_that_is_another_one_is_the_functions_failure(
        self, database: Database, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lambda_maintenance.handler(event_of("checkpoint-audit"), Context())
        with database.transaction() as connection:
            connection.add("SET LOCAL session_replication_role = replica")
            connection.fetch_all("DELETE FROM audit_events WHERE position = 3")
        with pytest.raises(ChainBroken):
            lambda_maintenance.handler(event_of("checkpoint-audit"), Context())
        assert '"audit_chain_broken":[1' in capsys.readouterr().out.replace(" ", "")

    def test_nothing_at_all(self, database: Database) -> None:
        with database.transaction() as connection:
            connection.add("SET LOCAL session_replication_role = replica")
            connection.fetch_all("DELETE FROM audit_events")
        answer = lambda_maintenance.handler(event_of("checkpoint-audit"), Context())
        assert answer == {"position": None}

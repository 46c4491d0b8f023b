"""Secrets Manager, against moto."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from auth_manager.aws.secrets import fetch_secret
from auth_manager.errors import ServiceUnavailable


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield


class TestFetchSecret:
    def test_the_text_of_the_current_version(self) -> None:
        client = boto3.client("secretsmanager")
        arn = client.create_secret(Name="signing-keys", SecretString="first")["ARN"]
        client.put_secret_value(SecretId=arn, SecretString="second")

        assert fetch_secret(arn) == "second"

    def test_an_unknown_secret_fails_closed(self) -> None:
        with pytest.raises(ServiceUnavailable):
            fetch_secret("arn:aws:secretsmanager:eu-central-1:123456789012:secret:none-abcdef")

    def test_a_service_that_does_not_answer_fails_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

        with pytest.raises(ServiceUnavailable):
            fetch_secret("arn:aws:secretsmanager:eu-central-1:123456789012:secret:none-abcdef")

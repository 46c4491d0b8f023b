"""Secrets Manager, against moto: over our own signed request, and over boto3."""

import socket
from typing import Any

import pytest

from auth_manager.aws import secrets
from auth_manager.aws.secrets import fetch_previous_secret, fetch_secret
from auth_manager.errors import ServiceUnavailable


@pytest.fixture(params=["signed request", "boto3"])
def client(request: pytest.FixtureRequest, secrets_endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Moto's client; `fetch_secret` finds its credentials in the environment, or elsewhere."""
    if request.param == "boto3":
        monkeypatch.setattr(secrets, "environment_credentials", lambda: None)
        monkeypatch.delenv("AWS_ENDPOINT_URL")
    return secrets_endpoint.client


class TestFetchSecret:
    def test_the_text_of_the_current_version(self, client: Any) -> None:
        arn = client.create_secret(Name="signing-keys", SecretString="first")["ARN"]
        client.put_secret_value(SecretId=arn, SecretString="second")

        assert fetch_secret(arn) == "second"

    def test_of_the_region_that_the_arn_names(self, client: Any, secrets_endpoint: Any) -> None:
        """The edge's secret is in us-east-1, wherever the function is."""
        there = secrets_endpoint.clients["us-east-1"]
        arn = there.create_secret(Name="origin", SecretString="far away")["ARN"]
        assert client.meta.region_name != "us-east-1"

        assert fetch_secret(arn) == "far away"

    def test_an_unknown_secret_fails_closed(self, client: Any) -> None:  # noqa: ARG002 -- either way
        with pytest.raises(ServiceUnavailable):
            fetch_secret("arn:aws:secretsmanager:eu-central-1:123456789012:secret:none-abcdef")

    def test_bytes_are_no_text(self, client: Any) -> None:
        arn = client.create_secret(Name="bytes", SecretBinary=b"bytes")["ARN"]

        with pytest.raises(ServiceUnavailable):
            fetch_secret(arn)

    def test_a_throttled_call_is_made_once_more(self, secrets_endpoint: Any) -> None:
        arn = secrets_endpoint.create("one", "text")
        secrets_endpoint.fails_with, secrets_endpoint.fails = "ThrottlingException", 1

        assert fetch_secret(arn) == "text"
        assert secrets_endpoint.calls == 2

    def test_throttled_for_good_it_fails_closed(self, secrets_endpoint: Any) -> None:
        arn = secrets_endpoint.create("one", "text")
        secrets_endpoint.fails_with, secrets_endpoint.fails = "ThrottlingException", 9

        with pytest.raises(ServiceUnavailable):
            fetch_secret(arn)
        assert secrets_endpoint.calls == 2

    def test_what_a_second_call_cannot_mend_is_asked_once(self, secrets_endpoint: Any) -> None:
        arn = secrets_endpoint.create("one", "text")
        secrets_endpoint.fails_with, secrets_endpoint.fails = "AccessDeniedException", 9

        with pytest.raises(ServiceUnavailable):
            fetch_secret(arn)
        assert secrets_endpoint.calls == 1

    def test_a_slow_service_fails_closed_in_time(
        self, secrets_endpoint: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(secrets, "TIMEOUT", 0.2)
        arn = secrets_endpoint.create("one", "text")
        secrets_endpoint.delay = 0.6

        with pytest.raises(ServiceUnavailable):
            fetch_secret(arn)
        assert secrets_endpoint.calls == 2

    def test_the_time_limit_fits_into_the_init_of_lambda(self) -> None:
        assert secrets.ATTEMPTS * 2 * secrets.TIMEOUT + secrets.PAUSE < 8

    def test_a_service_that_is_down_fails_closed(
        self, secrets_endpoint: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arn = secrets_endpoint.create("one", "text")
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))  # and does not listen
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{reserved.getsockname()[1]}")

            with pytest.raises(ServiceUnavailable):
                fetch_secret(arn)


class TestFetchPreviousSecret:
    def test_the_text_of_the_version_before(self, client: Any) -> None:
        arn = client.create_secret(Name="origin", SecretString="first")["ARN"]
        client.put_secret_value(SecretId=arn, SecretString="second")

        assert fetch_previous_secret(arn) == "first"

    def test_before_a_rotation_there_is_none(self, client: Any) -> None:
        arn = client.create_secret(Name="origin", SecretString="first")["ARN"]

        assert fetch_previous_secret(arn) is None

    def test_refused_it_fails_closed(self, secrets_endpoint: Any) -> None:
        arn = secrets_endpoint.create("origin", "first")
        secrets_endpoint.fails_with, secrets_endpoint.fails = "AccessDeniedException", 9

        with pytest.raises(ServiceUnavailable):
            fetch_previous_secret(arn)

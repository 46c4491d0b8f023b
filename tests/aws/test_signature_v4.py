"""Signatures, each held against botocore's own for the same moment."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch

import botocore.auth
import botocore.session
import pytest
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.signers import generate_db_auth_token

from auth_manager.aws.signature_v4 import (
    AwsRefused,
    Credentials,
    call_json,
    environment_credentials,
    rds_token,
    sign_headers,
)

SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION = "eu-central-1"
MOMENTS = [
    datetime(2026, 11, 22, 6, 40, 8, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
]
TOKENS = [None, "IQoJb3JpZ2luX2VjEA8=/+ token=="]


def credentials(token: str | None) -> Credentials:
    return Credentials("AKIDEXAMPLE", SECRET_KEY, token)


def authorization_of_botocore(
    url: str, headers: dict[str, str], body: bytes, service: str, token: str | None, at: datetime
) -> str:
    request = botocore.awsrequest.AWSRequest("POST", url, data=body, headers=headers)
    signer = botocore.auth.SigV4Auth(BotocoreCredentials("AKIDEXAMPLE", SECRET_KEY, token), service, REGION)
    with frozen(at):
        signer.add_auth(request)
    return str(request.headers["Authorization"])


def frozen(at: datetime) -> Any:
    """Stop the clock that botocore signs with."""
    return patch.object(botocore.auth, "get_current_datetime", lambda **_: at.replace(tzinfo=None))


class TestSignHeaders:
    @pytest.mark.parametrize("at", MOMENTS, ids=str)
    @pytest.mark.parametrize("token", TOKENS, ids=["user", "role"])
    @pytest.mark.parametrize("body", [b"{}", b'{"SecretId": "\xc3\xa9"}', b""], ids=["{}", "utf-8", "empty"])
    def test_the_signature_is_botocores(self, at: datetime, token: str | None, body: bytes) -> None:
        host = "secretsmanager.eu-central-1.amazonaws.com"
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": "secretsmanager.GetSecretValue",
        }

        signed = sign_headers(
            host=host,
            headers=headers,
            body=body,
            service="secretsmanager",
            region=REGION,
            credentials=credentials(token),
            now=at,
        )

        expected = authorization_of_botocore(f"https://{host}/", headers, body, "secretsmanager", token, at)
        assert signed["authorization"] == expected
        assert signed.get("x-amz-security-token") == token

    def test_a_port_that_is_not_the_schemes_own_is_signed(self) -> None:
        at = MOMENTS[0]

        signed = sign_headers(
            host="localhost:4577",
            headers={},
            body=b"{}",
            service="sqs",
            region=REGION,
            credentials=credentials(None),
            now=at,
        )

        expected = authorization_of_botocore("http://localhost:4577/", {}, b"{}", "sqs", None, at)
        assert signed["authorization"] == expected


class TestRdsToken:
    @pytest.mark.parametrize("at", MOMENTS, ids=str)
    @pytest.mark.parametrize("token", TOKENS, ids=["user", "role"])
    @pytest.mark.parametrize("user", ["auth_api", "a user@proxy+x"])
    def test_it_is_botocores(self, at: datetime, token: str | None, user: str) -> None:
        host = "db.cluster-abc.eu-central-1.rds.amazonaws.com"
        session = botocore.session.get_session()
        client = session.create_client(
            "rds",
            region_name=REGION,
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key=SECRET_KEY,
            aws_session_token=token,
        )
        with frozen(at):
            expected = generate_db_auth_token(client, host, 5432, user)

        made = rds_token(
            host=host, port=5432, user=user, region=REGION, credentials=credentials(token), now=at
        )

        # The order of the parameters is free: what is signed is sorted.
        assert made.partition("?")[0] == expected.partition("?")[0]
        assert sorted(made.partition("?")[2].split("&")) == sorted(expected.partition("?")[2].split("&"))


@pytest.fixture
def sandbox_credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What gives a SnapStart sandbox its credentials, others each time; the requests it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"GET {self.path} {self.headers['Authorization']}")
            n = len(asked)
            found = {"AccessKeyId": f"AKID{n}", "SecretAccessKey": f"secret-{n}", "Token": f"session-{n}"}
            content = json.dumps(found | {"Expiration": "2030-01-01T00:00:00Z"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        uri = f"http://127.0.0.1:{server.server_port}/creds"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "lambda-token")
        yield asked
        server.shutdown()
        thread.join()


class TestEnvironmentCredentials:
    def test_what_lambda_sets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_SESSION_TOKEN", "token")

        assert environment_credentials() == credentials("token")

    @pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    def test_half_of_it_is_none(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.delenv(missing)

        assert environment_credentials() is None

    def test_under_snap_start_they_are_asked_for_each_time(
        self, sandbox_credentials: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They come from inside the sandbox, and the environment is as old as the snapshot."""
        first, second = environment_credentials(), environment_credentials()

        assert first == Credentials("AKID1", "secret-1", "session-1")
        assert second == Credentials("AKID2", "secret-2", "session-2")
        assert sandbox_credentials == ["GET /creds lambda-token"] * 2
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        assert environment_credentials() == Credentials("AKIDEXAMPLE", SECRET_KEY, None)

    @pytest.mark.parametrize(
        "uri",
        [
            "",
            "https://127.0.0.1/x",
            "http://169.254.170.23/x",
            "http://example.com/x",
            "http://127.0.0.1:1/x",
        ],
    )
    def test_other_places_are_for_boto3(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)

        assert environment_credentials() is None

    def test_they_are_not_printed(self) -> None:
        assert SECRET_KEY not in repr(credentials("token"))
        assert "token=" not in repr(credentials("token="))


class TestCallJson:
    def call(self, **payload: object) -> dict[str, Any]:
        return call_json(
            "secretsmanager",
            "secretsmanager.GetSecretValue",
            payload,
            region=REGION,
            credentials=credentials("token"),
            now=datetime.now(UTC),
            timeout=0.5,
        )

    def test_an_answer(self, secrets_endpoint: Any) -> None:
        arn = secrets_endpoint.create("one", "text")

        assert self.call(SecretId=arn)["SecretString"] == "text"

    def test_an_error_has_the_name_that_aws_gives_it(self, secrets_endpoint: Any) -> None:
        with pytest.raises(AwsRefused) as caught:
            self.call(SecretId="none")

        assert caught.value.code == "ResourceNotFoundException"
        assert secrets_endpoint.calls == 1

    def test_no_answer_in_time_has_no_name(self, secrets_endpoint: Any) -> None:
        secrets_endpoint.delay = 0.8

        with pytest.raises(AwsRefused) as caught:
            self.call(SecretId="one")

        assert caught.value.code == ""

    @pytest.mark.parametrize("answer", [b"not json", b"[]"])
    def test_an_answer_of_something_else_is_refused(
        self, secrets_endpoint: Any, monkeypatch: pytest.MonkeyPatch, answer: bytes
    ) -> None:
        monkeypatch.setattr(secrets_endpoint, "answer", lambda *_: (502, json.loads(answer or b"[]")))
        if answer == b"not json":
            monkeypatch.setattr(secrets_endpoint, "answer", lambda *_: 1 / 0)

        with pytest.raises(AwsRefused):
            self.call(SecretId="one")

"""A Secrets Manager on loopback: what it stores is moto's, how it fails is ours.

It refuses a request that botocore would have signed otherwise, so that nothing passes here that AWS refuses.
"""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from moto import mock_aws

REGION = "eu-central-1"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def authorization_of(
    url: str, headers: dict[str, str], body: bytes, at: datetime, token: str | None = None
) -> str:
    """The Authorization that botocore computes for a POST with these headers at this time."""
    request = AWSRequest("POST", url, data=body, headers=headers)
    request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "secretsmanager", REGION)
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    return (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"
    )


class SecretsEndpoint:
    """Answers GetSecretValue; set `fails_with`, `fails` or `delay` to make it ill."""

    def __init__(self) -> None:
        self.fails_with = ""
        self.fails = 0
        self.delay = 0.0
        self.calls = 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = endpoint.answer(dict(self.headers.items()), body)
                content = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client has given up, as it should

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.client = boto3.client("secretsmanager", region_name=REGION)

    def create(self, name: str, text: str) -> str:
        """Store a secret; return its ARN."""
        return self.client.create_secret(Name=name, SecretString=text)["ARN"]

    def answer(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        self.calls += 1
        time.sleep(self.delay)
        lowered = {name.lower(): value for name, value in headers.items()}
        signed = {name: lowered[name] for name in ("content-type", "x-amz-target")}
        at = datetime.strptime(lowered["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        token = lowered.get("x-amz-security-token")
        if lowered["authorization"] != authorization_of(self.url + "/", signed, body, at, token):
            return 400, {"__type": "InvalidSignatureException"}
        if self.fails_with and self.fails > 0:
            self.fails -= 1
            return 400, {"__type": f"com.amazonaws#{self.fails_with}"}
        assert lowered["x-amz-target"] == "secretsmanager.GetSecretValue"
        try:
            found = self.client.get_secret_value(**json.loads(body))
        except ClientError as error:
            return 400, {"__type": error.response["Error"]["Code"]}
        return 200, {name: found[name] for name in ("ARN", "SecretString") if name in found}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def secrets_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretsEndpoint]:
    """One that the environment of this process points to, as Lambda's points to the real one."""
    with mock_aws():
        endpoint = SecretsEndpoint()
        monkeypatch.setenv("AWS_REGION", REGION)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        # Only our own requests go there: moto answers boto3 in this process.
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        yield endpoint
        endpoint.close()

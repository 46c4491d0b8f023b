"""A Secrets Manager on loopback: what it stores is moto's, how it fails is ours.

It refuses a request that botocore would have signed otherwise, so that nothing passes here that AWS refuses.
"""

import asyncio
import importlib
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from moto import mock_aws

from auth_manager.cached_secret import CachedSecret

API = "auth_manager.entrypoints.lambda_api"
REGION = "eu-central-1"
EDGE_REGION = "us-east-1"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def authorization_of(
    url: str,
    headers: dict[str, str],
    body: bytes,
    at: datetime,
    token: str | None = None,
    region: str = REGION,
) -> str:
    """The Authorization that botocore computes for a POST with these headers at this time."""
    request = AWSRequest("POST", url, data=body, headers=headers)
    request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "secretsmanager", region)
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
        self.clients = {
            region: boto3.client("secretsmanager", region_name=region) for region in (REGION, EDGE_REGION)
        }
        self.client = self.clients[REGION]

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
        region = lowered["authorization"].split("/")[2]
        if lowered["authorization"] != authorization_of(self.url + "/", signed, body, at, token, region):
            return 400, {"__type": "InvalidSignatureException"}
        if self.fails_with and self.fails > 0:
            self.fails -= 1
            return 400, {"__type": f"com.amazonaws#{self.fails_with}"}
        assert lowered["x-amz-target"] == "secretsmanager.GetSecretValue"
        try:
            found = self.clients[region].get_secret_value(**json.loads(body))
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


class Clock:
    """What the caches take for the time; the rest of the service goes by the real one."""

    def __init__(self) -> None:
        self.later = 0.0

    def __call__(self) -> float:
        return time.time() + self.later


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setitem(CachedSecret.__init__.__kwdefaults__ or {}, "clock", clock)
    return clock


@pytest.fixture
def start(secrets_endpoint: object) -> Iterator[Callable[[], ModuleType]]:
    """Imports the API's entry point anew, as a new sandbox does; the sinks that it opens are closed."""
    assert secrets_endpoint

    def begin() -> ModuleType:
        sys.modules.pop(API, None)
        return importlib.import_module(API)

    yield begin
    sys.modules.pop(API, None)
    _close_the_loop_of_mangum()


def _close_the_loop_of_mangum() -> None:
    """Mangum leaves one set in the main thread, for as long as a sandbox lives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.get_event_loop().close()
    asyncio.set_event_loop_policy(None)

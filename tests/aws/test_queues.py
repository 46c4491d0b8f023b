"""SQS: by boto3 against moto, and by our own signature against moto behind a socket."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto import mock_aws

from auth_manager import observability
from auth_manager.aws import queues
from auth_manager.aws.queues import hand_over, postpone, send_ids
from auth_manager.errors import ServiceUnavailable
from auth_manager.ids import new_id

REGION = "eu-central-1"
ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_REGION", REGION)
    with mock_aws():
        yield boto3.client("sqs")


@pytest.fixture
def queue_url(sqs: Any) -> str:
    url: str = sqs.create_queue(QueueName="outbox")["QueueUrl"]
    return url


def received(sqs: Any, queue_url: str) -> list[Any]:
    """The bodies of everything in the queue."""
    bodies: list[Any] = []
    while messages := sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages"):
        bodies += [json.loads(message["Body"]) for message in messages]
    return bodies


class TestSendIds:
    def test_what_arrives_is_the_id_alone(self, sqs: Any, queue_url: str) -> None:
        ids = [new_id() for _ in range(10)]
        assert send_ids(queue_url, ids) == ids
        assert sorted(body["id"] for body in received(sqs, queue_url)) == sorted(map(str, ids))

    def test_a_queue_that_is_not_there_is_unavailable(self, queue_url: str) -> None:
        with pytest.raises(ServiceUnavailable):
            send_ids(queue_url + "-none", [new_id()])


class TestPostpone:
    def test_it_comes_again_later(self, sqs: Any, queue_url: str) -> None:
        send_ids(queue_url, [new_id()])
        [message] = sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=0)["Messages"]
        [again] = sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=0)["Messages"]
        assert again["MessageId"] == message["MessageId"]
        postpone(queue_url, again["ReceiptHandle"], seconds=300)
        assert "Messages" not in sqs.receive_message(QueueUrl=queue_url)

    def test_its_failure_is_harmless(self, queue_url: str) -> None:
        postpone(queue_url, "no-such-handle", seconds=60)


class QueueEndpoint:
    """SQS on loopback: refuses what botocore would have signed otherwise; set `status` or `delay`."""

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.calls = 0
        self.refuses: set[str] = set()
        self.client = boto3.client("sqs", region_name=REGION)
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(endpoint.delay)
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

    def answer(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        self.calls += 1
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["content-type"] == "application/x-amz-json-1.0"
        assert headers["x-amz-target"] == "AmazonSQS.SendMessageBatch"
        if headers["authorization"] != self._expected(headers, body):
            return 403, {"__type": "com.amazon.coral.service#InvalidSignatureException"}
        if self.status != 200:
            return self.status, {"__type": "com.amazon.coral.service#ThrottlingException"}
        asked = json.loads(body)
        entries = [entry for entry in asked["Entries"] if entry["Id"] not in self.refuses]
        answer = self.client.send_message_batch(QueueUrl=asked["QueueUrl"], Entries=entries)
        failed = [{"Id": one, "Code": "InternalError", "SenderFault": False} for one in self.refuses]
        return 200, {"Successful": answer["Successful"], "Failed": failed}

    def _expected(self, headers: dict[str, str], body: bytes) -> str:
        signed = {name: headers[name] for name in ("content-type", "x-amz-target")}
        request = AWSRequest("POST", self.url + "/", data=body, headers=signed)
        request.context["timestamp"] = headers["x-amz-date"]
        signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "sqs", REGION)
        request.headers["X-Amz-Date"] = headers["x-amz-date"]
        signature = signer.signature(
            signer.string_to_sign(request, signer.canonical_request(request)), request
        )
        names = signer.signed_headers(signer.headers_to_sign(request))
        scope = signer.scope(request)
        return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def endpoint(sqs: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueEndpoint]:  # noqa: ARG001
    endpoint = QueueEndpoint()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    # Only our own requests go there: moto answers boto3 in this process.
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    yield endpoint
    endpoint.close()


@pytest.fixture
def counted() -> Callable[[], dict[str, Any]]:
    """What was counted since."""
    observability.enable_metrics()
    metrics: Any = observability._Telemetry.metrics
    return lambda: {name: sum(metric["Value"]) for name, metric in metrics.metric_set.items()}


class TestHandOver:
    def test_a_signed_request_hands_over(self, sqs: Any, queue_url: str, endpoint: QueueEndpoint) -> None:
        ids = [new_id() for _ in range(12)]
        hand_over(queue_url, ids)
        assert endpoint.calls == 2
        assert sorted(body["id"] for body in received(sqs, queue_url)) == sorted(map(str, ids))

    def test_nothing_is_nothing(self, queue_url: str, endpoint: QueueEndpoint) -> None:
        hand_over(queue_url, [])
        assert endpoint.calls == 0

    @pytest.mark.parametrize("status", [400, 403, 500, 503])
    def test_a_refusal_is_counted_and_not_raised(
        self,
        queue_url: str,
        endpoint: QueueEndpoint,
        counted: Callable[[], dict[str, Any]],
        status: int,
    ) -> None:
        endpoint.status = status
        hand_over(queue_url, [new_id()])
        assert counted() == {"hand_over_failed": 1}

    def test_a_queue_that_hangs_costs_a_second(
        self,
        queue_url: str,
        endpoint: QueueEndpoint,
        counted: Callable[[], dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        assert queues.HAND_OVER_TIMEOUT <= 1
        monkeypatch.setattr(queues, "HAND_OVER_TIMEOUT", 0.1)
        endpoint.delay = 1.0
        started = time.monotonic()
        hand_over(queue_url, [new_id()])
        assert time.monotonic() - started < 0.9
        assert counted() == {"hand_over_failed": 1}

    def test_one_of_a_batch_may_be_refused(self, sqs: Any, queue_url: str, endpoint: QueueEndpoint) -> None:
        taken, refused = new_id(), new_id()
        endpoint.refuses = {str(refused)}
        hand_over(queue_url, [taken, refused])
        assert [UUID(body["id"]) for body in received(sqs, queue_url)] == [taken]

    def test_without_credentials_in_the_environment_boto3_finds_them(
        self, sqs: Any, queue_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queues, "environment_credentials", lambda: None)
        message_id = new_id()
        hand_over(queue_url, [message_id])
        assert received(sqs, queue_url) == [{"id": str(message_id)}]

    def test_not_even_boto3_raises(
        self, queue_url: str, monkeypatch: pytest.MonkeyPatch, counted: Callable[[], dict[str, Any]]
    ) -> None:
        monkeypatch.setattr(queues, "environment_credentials", lambda: None)
        hand_over(queue_url + "-none", [new_id()])
        assert counted() == {"hand_over_failed": 1}

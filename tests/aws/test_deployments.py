"""Lambda and CodeDeploy on loopback: moto runs no functions and knows no lifecycle hooks."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from auth_manager.aws.deployments import invoke_function, report_hook
from auth_manager.errors import ServiceUnavailable


class Endpoint:
    """Answers every POST with `status`, `headers` and `body`; keeps what was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append((self.path, dict(self.headers.items()), content))
                self.send_response(endpoint.status)
                for name, value in endpoint.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(endpoint.body)))
                self.end_headers()
                self.wfile.write(endpoint.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    endpoint = Endpoint()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{endpoint.server.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()
    endpoint.thread.join()


class TestInvokeFunction:
    def test_the_event_goes_in_and_the_answer_comes_out(self, endpoint: Endpoint) -> None:
        endpoint.body = b'{"statusCode": 200}'
        assert invoke_function("api:7", {"version": "2.0"}) == {"statusCode": 200}
        [(path, _, content)] = endpoint.asked
        assert path == "/2015-03-31/functions/api%3A7/invocations"
        assert content == {"version": "2.0"}

    def test_a_function_that_failed_is_unavailable(self, endpoint: Endpoint) -> None:
        endpoint.headers = {"X-Amz-Function-Error": "Unhandled"}
        with pytest.raises(ServiceUnavailable):
            invoke_function("api:7", {})

    @pytest.mark.parametrize(("status", "body"), [(404, b"{}"), (200, b"no json")])
    def test_what_is_no_answer_is_unavailable(self, endpoint: Endpoint, status: int, body: bytes) -> None:
        endpoint.status, endpoint.body = status, body
        with pytest.raises(ServiceUnavailable):
            invoke_function("api:7", {})


class TestReportHook:
    @pytest.mark.parametrize("status", ["Succeeded", "Failed"])
    def test_code_deploy_hears_of_it(self, endpoint: Endpoint, status: Any) -> None:
        report_hook("d-1", "e-1", status)
        [(_, headers, content)] = endpoint.asked
        assert headers["X-Amz-Target"] == "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus"
        assert content == {"deploymentId": "d-1", "lifecycleEventHookExecutionId": "e-1", "status": status}

    def test_a_refusal_is_unavailable(self, endpoint: Endpoint) -> None:
        endpoint.status = 400
        with pytest.raises(ServiceUnavailable):
            report_hook("d-1", "e-1", "Succeeded")

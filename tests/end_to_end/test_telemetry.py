"""What the Lambda handler tells about itself: metrics, logs and traces, and what it keeps to itself."""

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from auth_manager.database import Database
from auth_manager.observability import METRICS

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Sandbox

Answer = dict[str, Any]
EventOf = Callable[..., dict[str, Any]]
MakeSandbox = Callable[..., "Sandbox"]

PERSON = {"email": "test@example.com", "password": "SecurePass123!"}
"""As in events/*.json."""


def body_of(answer: Answer) -> Any:
    return json.loads(answer["body"])


def metrics_of(sandbox: "Sandbox") -> list[dict[str, Any]]:
    return [line for line in sandbox.lines() if "_aws" in line]


class TestMetrics:
    def test_each_is_counted_once_under_the_service_alone(
        self, make_sandbox: MakeSandbox, event_of: EventOf, database: Database
    ) -> None:
        sandbox = make_sandbox(AUTH_LOGIN_FAILURES_BEFORE_DELAY="3")
        sandbox.invoke(event_of("register"))
        granted = body_of(sandbox.invoke(event_of("login")))
        for _ in range(2):
            sandbox.invoke(event_of("refresh", refresh_token=granted["refresh_token"]))
            with database.one_trip() as connection:
                connection.add("UPDATE refresh_lines SET rotated_at = rotated_at - interval '1 hour'")
        for _ in range(3):
            sandbox.invoke(event_of("login", body={**PERSON, "password": "not that one"}))
        broken = make_sandbox(AUTH_DATABASE_URL="postgresql://nobody:x@127.0.0.1:1/none")
        broken.invoke(event_of("login"))

        emitted = metrics_of(sandbox) + metrics_of(broken)

        counted: Counter[str] = Counter()
        for line in emitted:
            [directive] = line["_aws"]["CloudWatchMetrics"]
            assert directive["Namespace"] == "AuthManager"
            assert directive["Dimensions"] == [["service"]]
            measured = {metric["Name"]: metric for metric in directive["Metrics"]}
            assert all(metric["Unit"] == "Count" for metric in measured.values())
            assert line.keys() == {"_aws", "service", *measured}, "and nothing that names a person"
            assert line["service"] == "auth-manager"
            counted.update({name: sum(line[name]) for name in measured})
        assert counted == {
            "registered": 1,
            "login_succeeded": 1,
            "refresh_token_reused": 1,
            "login_failed": 3,
            "account_locked": 1,
            "db_connection_failed": 1,
            "round_trips": 13,
            "hashes": 5,
        }
        assert counted.keys() <= set(METRICS)

    def test_two_stacks_keep_their_own(self, make_sandbox: MakeSandbox, event_of: EventOf) -> None:
        sandbox = make_sandbox(AUTH_SERVICE_NAME="auth-prod")
        sandbox.invoke(event_of("register"))

        assert [line["service"] for line in metrics_of(sandbox)] == ["auth-prod"]
        assert {line["service"] for line in sandbox.lines()} == {"auth-prod"}


CANARIES = {
    "email": "canary-mailbox@canary.example",
    "username": "canary-username",
    "password": "canary password of great length",
}


def drive_with_canaries(sandbox: "Sandbox", event_of: EventOf) -> list[str]:
    """Use secrets in every way there is, right and wrong; return each that must not be found anywhere."""
    secrets = list(CANARIES.values())
    by_email = {name: CANARIES[name] for name in ("email", "password")}
    sandbox.invoke(event_of("register", body=CANARIES))
    sandbox.invoke(event_of("register", body=CANARIES))
    sandbox.invoke(event_of("register", body={**CANARIES, "email": "canary-not-an-address"}))
    sandbox.invoke(event_of("register", body={**CANARIES, CANARIES["password"]: 1}))
    sandbox.invoke(event_of("register", body={**CANARIES, "username": "canary\x00"}))
    tokens: dict[str, str] = {}
    for _ in range(2):
        granted = body_of(sandbox.invoke(event_of("login", body=by_email)))
        tokens = {name: granted[name] for name in ("access_token", "refresh_token")}
        secrets += tokens.values()
        for name in ("me", "patch-me", "refresh", "refresh", "sessions", "session-delete"):
            sandbox.invoke(event_of(name, **tokens))
        sandbox.invoke(event_of("me", access_token=tokens["access_token"][:-4] + "canary"))
        sandbox.invoke(event_of("refresh", refresh_token=tokens["refresh_token"][:-6] + "canary"))
    key = {"Idempotency-Key": "canary-idempotency-key"}
    sandbox.invoke(event_of("login", body=by_email, headers=key))
    sandbox.invoke(event_of("login", body={**by_email, "password": "canary, but wrong"}))
    sandbox.invoke(event_of("health", headers={"cookie": "canary-cookie", "host": "canary/host"}))
    sandbox.invoke(event_of("logout", **tokens))
    return [*secrets, "canary"]


class TestLogs:
    def test_each_line_has_the_gateways_request_id(self, sandbox: "Sandbox", event_of: EventOf) -> None:
        hostile = event_of("health", headers={"host": "a:b:c"})
        events = [event_of("register"), event_of("login"), event_of("me"), hostile]

        for event in events:
            before = len(sandbox.lines())
            sandbox.invoke(event)
            logged = [line for line in sandbox.lines()[before:] if "_aws" not in line]

            assert logged
            assert {line["request_id"] for line in logged} == {event["requestContext"]["requestId"]}
            assert all(line["service"] == "auth-manager" for line in logged)

    def test_no_secret_and_no_address_of_mail_is_in_them(
        self, make_sandbox: MakeSandbox, event_of: EventOf
    ) -> None:
        sandbox = make_sandbox(AUTH_LOG_LEVEL="DEBUG")

        canaries = drive_with_canaries(sandbox, event_of)

        assert len(sandbox.lines()) > 20
        assert [canary for canary in canaries if canary in sandbox.output()] == []

    def test_line_breaks_cannot_forge_a_line(self, sandbox: "Sandbox", event_of: EventOf) -> None:
        """ASVS 16.4.1."""
        forged = 'x\r\n{"level": "INFO", "message": "login_succeeded", "forged": true}'
        sandbox.invoke(event_of("login", body={"username": forged, "password": PERSON["password"]}))
        sandbox.invoke(event_of("login", headers={"user-agent": forged, "x-request-id": forged}))

        assert not any(line.get("forged") for line in sandbox.lines())

    def test_a_defect_of_ours_is_500_without_its_message(
        self, sandbox: "Sandbox", event_of: EventOf, database: Database
    ) -> None:
        with database.one_trip() as connection:
            connection.add("ALTER TABLE accounts RENAME TO canary_accounts")
        try:
            answer = sandbox.invoke(event_of("login", body=PERSON))
        finally:
            with database.one_trip() as connection:
                connection.add("ALTER TABLE canary_accounts RENAME TO accounts")

        assert answer["statusCode"] == 500
        assert body_of(answer)["code"] == "internal_error"
        assert set(body_of(answer)) == {"type", "title", "status", "detail", "code", "request_id"}
        [failure] = [line for line in sandbox.lines() if line.get("message") == "unhandled_error"]
        assert failure["sqlstate"] == "42P01"
        assert PERSON["email"] not in sandbox.output()
        assert sandbox.invoke(event_of("login", body=PERSON))["statusCode"] == 401


class Daemon:
    """What listens where the X-Ray daemon would: each datagram is a header line and a segment."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self._socket.settimeout(0.5)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def received(self) -> list[str]:
        segments: list[str] = []
        with suppress(TimeoutError):
            while True:
                segments.append(self._socket.recv(65536).decode())
        return segments

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


def make_traced(make_sandbox: MakeSandbox, daemon: Daemon, **settings: str) -> "Sandbox":
    """A sandbox as Lambda makes one for a sampled request; the SDK sends only there."""
    return make_sandbox(
        AUTH_TRACING_ENABLED="true",
        LAMBDA_TASK_ROOT="/var/task",
        _X_AMZN_TRACE_ID="Root=1-69215a11-3c9e1f7a5b2d4e6f8a0b1c2d;Parent=53995c3f42cd8ad8;Sampled=1",
        AWS_XRAY_DAEMON_ADDRESS=daemon.address,
        **settings,
    )


class TestTracing:
    def test_it_shows_the_handler_and_each_round_trip(
        self, make_sandbox: MakeSandbox, event_of: EventOf, daemon: Daemon
    ) -> None:
        sandbox = make_traced(make_sandbox, daemon)
        sandbox.invoke(event_of("register"))
        daemon.received()

        assert sandbox.invoke(event_of("login"))["statusCode"] == 200

        segments = [json.loads(text.split("\n", 1)[1]) for text in daemon.received()]
        assert Counter(segment["name"] for segment in segments) == {"## handle": 1, "postgresql": 2}
        assert all(not segment.get("fault") for segment in segments)

    def test_a_failure_is_a_flag_without_a_message(
        self, make_sandbox: MakeSandbox, event_of: EventOf, daemon: Daemon
    ) -> None:
        """PostgreSQL's own message would quote the address of mail that is taken."""
        sandbox = make_traced(make_sandbox, daemon)
        sandbox.invoke(event_of("register"))
        daemon.received()

        assert sandbox.invoke(event_of("register"))["statusCode"] == 409

        received = daemon.received()
        faults = [json.loads(text.split("\n", 1)[1]) for text in received]
        assert [segment["name"] for segment in faults if segment.get("fault")] == ["postgresql"]
        assert "exceptions" not in "".join(received)
        assert PERSON["email"] not in "".join(received)

    def test_no_secret_is_in_a_trace(
        self, make_sandbox: MakeSandbox, event_of: EventOf, daemon: Daemon
    ) -> None:
        """ASVS 16.2.5."""
        canaries = drive_with_canaries(make_traced(make_sandbox, daemon), event_of)

        received = "".join(daemon.received())
        assert received
        assert [canary for canary in canaries if canary in received] == []

    def test_a_lost_database_is_still_503(
        self, make_sandbox: MakeSandbox, event_of: EventOf, daemon: Daemon
    ) -> None:
        sandbox = make_traced(
            make_sandbox, daemon, AUTH_DATABASE_URL="postgresql://nobody:hunter2@127.0.0.1:1/none"
        )

        answer = sandbox.invoke(event_of("login"))

        assert answer["statusCode"] == 503
        assert "hunter2" not in "".join(daemon.received()) + sandbox.output()

    def test_the_service_does_not_miss_a_daemon(
        self, make_sandbox: MakeSandbox, event_of: EventOf, daemon: Daemon
    ) -> None:
        daemon.close()

        assert make_traced(make_sandbox, daemon).invoke(event_of("register"))["statusCode"] == 201

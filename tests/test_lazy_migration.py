"""Accounts whose password only their former system can check, at their first login."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from standardwebhooks import Webhook

from auth_manager import lazy_migration, standard_webhooks
from auth_manager.app import build_resources
from auth_manager.audit import Origin
from auth_manager.database import Database, Row
from auth_manager.errors import ConfigurationError, FormerSystemUnavailable
from auth_manager.ids import new_id
from auth_manager.lazy_migration import FormerUser
from auth_manager.login.service import log_in as log_in_service
from auth_manager.passwords import LAZY_HASH
from auth_manager.resources import Resources
from auth_manager.settings import Settings

SECRET = standard_webhooks.generate_secret()
PASSWORD = "Correct-Horse-7!"
EMAIL = "ada@example.com"

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class FormerSystem:
    """A callback on this machine, and what it was asked."""

    server: ThreadingHTTPServer
    answer: Answer
    asked: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/check?x=1"


def check_password(request: BaseHTTPRequestHandler) -> None:
    body = json.loads(request.rfile.peek())  # type: ignore[attr-defined]  # a BufferedReader
    status(204 if body["password"] == PASSWORD else 401)(request)


def status(code: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def drip(request: BaseHTTPRequestHandler) -> None:
    for _ in range(100):
        request.wfile.write(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n"[:1])
        request.wfile.flush()
        time.sleep(0.2)


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.connection.close()


@pytest.fixture
def former() -> Iterator[FormerSystem]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.peek(int(self.headers["content-length"]))  # type: ignore[attr-defined]
            system.asked.append((body, {name.lower(): value for name, value in self.headers.items()}))
            try:
                system.answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    system = FormerSystem(server, check_password)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield system
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(make_client: Callable[..., TestClient], former: FormerSystem, database: Database) -> TestClient:
    client = make_client(mode="local", lazy_migration_url=former.url, lazy_migration_secret=SECRET)
    add_account(database)
    return client


def add_account(database: Database, *, email: str = EMAIL, disabled: bool = False) -> None:
    with database.one_trip() as connection:
        connection.add(
            """
            INSERT INTO accounts (id, email, email_normalized, username, username_normalized, password_hash,
                                  password_changed_at, disabled_at, created_at, updated_at)
            VALUES (gen_random_uuid(), %(email)s, %(email)s, 'ada', 'ada', %(hash)s, now(),
                    CASE WHEN %(disabled)s THEN now() END, now(), now())
            """,
            {"email": email, "hash": LAZY_HASH, "disabled": disabled},
        )


def account(database: Database) -> Row:
    with database.one_trip() as connection:
        [row] = connection.fetch_all("SELECT * FROM accounts")
    return row


def log_in(client: TestClient, password: str = PASSWORD, identifier: str = EMAIL) -> tuple[int, str | None]:
    answer = client.post("/auth/login", json={"identifier": identifier, "password": password})
    return answer.status_code, answer.json().get("code")


class TestRoundTrips:
    def test_two_as_for_everybody(
        self, make_resources: Callable[..., Resources], former: FormerSystem, database: Database
    ) -> None:
        resources = make_resources(mode="local", lazy_migration_url=former.url, lazy_migration_secret=SECRET)
        add_account(database)
        origin = Origin(address="203.0.113.7", user_agent="", request_id="1", now=datetime.now(UTC))
        for asked in (1, 1):
            resources.database.round_trips = 0
            log_in_service(resources, origin, identifier=EMAIL, password=PASSWORD)
            assert (resources.database.round_trips, len(former.asked)) == (2, asked)


class TestLogIn:
    def test_the_right_password_is_kept_and_nobody_is_asked_again(
        self, client: TestClient, former: FormerSystem, database: Database
    ) -> None:
        assert log_in(client) == (200, None)
        assert account(database)["password_hash"].startswith("$argon2id$")
        assert log_in(client, identifier="ADA") == (200, None)
        assert log_in(client, "wrong") == (401, "invalid_credentials")
        assert len(former.asked) == 1

    def test_the_question_is_signed_as_standard_webhooks_are(
        self, client: TestClient, former: FormerSystem, database: Database
    ) -> None:
        log_in(client)
        [(body, headers)] = former.asked
        assert Webhook(SECRET).verify(body, headers) == {
            "user_id": str(account(database)["id"]),
            "email": EMAIL,
            "username": "ada",
            "password": PASSWORD,
        }
        assert headers["content-type"] == "application/json"

    def test_a_wrong_password_is_refused_and_asked_about_again(
        self, client: TestClient, former: FormerSystem, database: Database
    ) -> None:
        for _ in range(2):
            assert log_in(client, "wrong") == (401, "invalid_credentials")
        assert len(former.asked) == 2
        assert account(database)["password_hash"] == LAZY_HASH

    @pytest.mark.parametrize("code", [401, 403, 404])
    def test_what_says_no(self, client: TestClient, former: FormerSystem, code: int) -> None:
        former.answer = status(code)
        assert log_in(client) == (401, "invalid_credentials")

    @pytest.mark.parametrize(
        "answer",
        [
            status(200),
            status(500),
            status(302, Location="http://169.254.169.254/"),
            status(429),
            hang_up,
            drip,
        ],
        ids=["200", "500", "redirect", "429", "hangs-up", "drips"],
    )
    def test_what_says_nothing_is_503_and_never_401(
        self, client: TestClient, former: FormerSystem, database: Database, answer: Answer
    ) -> None:
        former.answer = answer
        started = time.monotonic()
        assert log_in(client) == (503, "former_system_unavailable")
        assert time.monotonic() - started < lazy_migration.DEADLINE + 1
        assert account(database)["password_hash"] == LAZY_HASH
        with database.one_trip() as connection:
            [event] = connection.fetch_all("SELECT event, reason FROM audit_events")
        assert event == {"event": "logged_in", "reason": "former_system_unavailable"}

    def test_a_system_that_is_away(self, make_client: Callable[..., TestClient], database: Database) -> None:
        client = make_client(
            mode="local", lazy_migration_url="http://127.0.0.1:1/", lazy_migration_secret=SECRET
        )
        add_account(database)
        assert log_in(client) == (503, "former_system_unavailable")

    def test_attempts_count_whatever_the_answer(
        self, make_client: Callable[..., TestClient], former: FormerSystem, database: Database
    ) -> None:
        client = make_client(
            mode="local",
            lazy_migration_url=former.url,
            lazy_migration_secret=SECRET,
            login_failures_before_delay=4,
        )
        add_account(database)
        for answer in (check_password, status(500)):
            former.answer = answer
            for _ in range(2):
                log_in(client, "wrong")
        assert log_in(client) == (429, "too_many_attempts")
        assert len(former.asked) == 4

    def test_a_disabled_account_stays_shut(
        self, make_client: Callable[..., TestClient], former: FormerSystem, database: Database
    ) -> None:
        client = make_client(mode="local", lazy_migration_url=former.url, lazy_migration_secret=SECRET)
        add_account(database, disabled=True)
        assert log_in(client) == (403, "account_disabled")
        assert log_in(client, "wrong") == (401, "invalid_credentials")

    @pytest.mark.parametrize("password", ["x" * 1_025, LAZY_HASH])
    def test_passwords_that_are_none(self, client: TestClient, password: str) -> None:
        assert log_in(client, password)[0] in {401, 422}

    def test_nobody_is_asked_about_others(
        self, client: TestClient, former: FormerSystem, database: Database
    ) -> None:
        log_in(client)
        former.asked.clear()
        assert log_in(client, identifier="nobody@example.com")[0] == 401
        with database.one_trip() as connection:
            connection.add("UPDATE accounts SET password_hash = '!'")
        assert log_in(client)[0] == 401
        assert former.asked == []

    def test_no_transaction_is_open_meanwhile(
        self, client: TestClient, former: FormerSystem, database: Database
    ) -> None:
        open_ones: list[int] = []

        def look(request: BaseHTTPRequestHandler) -> None:
            with database.one_trip() as connection:
                row = connection.fetch_one(
                    "SELECT count(*) AS open FROM pg_stat_activity WHERE datname = current_database()"
                    " AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
                )
            open_ones.append(row["open"] if row else -1)
            check_password(request)

        former.answer = look
        assert log_in(client) == (200, None)
        assert open_ones == [0]


class TestOpenCallback:
    def test_an_address_in_the_clear_is_refused(self, make_settings: Callable[..., Settings]) -> None:
        with pytest.raises(ValidationError, match="https"):
            make_settings(lazy_migration_url="http://old.example.com/", lazy_migration_secret=SECRET)

    def test_without_a_secret(self, make_settings: Callable[..., Settings]) -> None:
        with pytest.raises(ValidationError, match="AUTH_LAZY_MIGRATION_SECRET"):
            make_settings(lazy_migration_url="https://old.example.com/")

    def test_two_systems(self, make_settings: Callable[..., Settings]) -> None:
        with pytest.raises(ValidationError, match="two systems"):
            make_settings(
                lazy_migration_url="https://old.example.com/",
                lazy_migration_secret=SECRET,
                lazy_migration_cognito="eu-central-1_AbCdEf/client",
            )

    def test_a_weak_secret(self, make_settings: Callable[..., Settings]) -> None:
        settings = make_settings(
            lazy_migration_url="https://old.example.com/", lazy_migration_secret="whsec_AA=="
        )
        with pytest.raises(ConfigurationError, match="24 to 64"):
            build_resources(settings)

    def test_a_secret_of_the_secrets_manager(
        self, make_settings: Callable[..., Settings], former: FormerSystem
    ) -> None:
        settings = make_settings(
            mode="local", lazy_migration_url=former.url, lazy_migration_secret_arn="arn:secret"
        )
        check = build_resources(
            settings, fetch_secret={"arn:secret": f"{SECRET}\n"}.__getitem__
        ).check_elsewhere
        assert check is not None
        assert check(FormerUser(new_id(), EMAIL, None), PASSWORD)
        with pytest.raises(ConfigurationError, match="cannot be read here"):
            build_resources(settings)

    def test_a_certificate_that_nobody_vouches_for(
        self, make_settings: Callable[..., Settings], former: FormerSystem
    ) -> None:
        """What listens there speaks no TLS at all: the password is not sent."""
        url = former.url.replace("http://", "https://")
        check = build_resources(
            make_settings(lazy_migration_url=url, lazy_migration_secret=SECRET)
        ).check_elsewhere
        assert check is not None
        with pytest.raises(FormerSystemUnavailable):
            check(FormerUser(new_id(), EMAIL, None), PASSWORD)
        assert former.asked == []

    def test_without_settings_nobody_is_asked(self, make_settings: Callable[..., Settings]) -> None:
        assert build_resources(make_settings()).check_elsewhere is None

"""A real server while its database, its clock or its keys fail it: 503 in time, and nothing half-written."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import psutil
import pytest

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.audit import Origin
from auth_manager.database import Database
from auth_manager.errors import (
    DatabaseUnavailable,
    InvalidRefreshToken,
    InvalidToken,
    RefreshTokenReused,
    SessionEnded,
)
from auth_manager.login import service as login
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.signing_keys import generate_signing_key, serialize_key_set

if TYPE_CHECKING:
    from starlette.testclient import TestClient
    from tests.end_to_end.conftest import OwnPostgres, Server

pytestmark = pytest.mark.alone

PASSWORD = "a long and dull passphrase"
NOBODY = {"email": "nobody@example.com", "password": PASSWORD}
DOWN, FROZEN = 3.0, 5.0
"""Seconds until a 503, at most, where nothing listens and where nothing answers (security.md)."""


@pytest.fixture(scope="module")
def server(own_postgres: "OwnPostgres", signing_keys: str, server_type: type["Server"]) -> Iterator["Server"]:
    """One server for every fault: each test shows that it got over the one before."""
    with server_type(
        own_postgres.url,
        signing_keys,
        AUTH_REGISTRATIONS_PER_ADDRESS="100000",
        AUTH_LOGIN_ATTEMPTS_PER_ADDRESS="100000",
        AUTH_LOGIN_FAILURES_BEFORE_DELAY="100",
        # With a queue no thread of its own looks for messages: the connections are those of the requests.
        AUTH_OUTBOX_QUEUE_URL="https://sqs.eu-central-1.amazonaws.com/123456789012/none",
    ) as server:
        yield server


@pytest.fixture
def http(server: "Server") -> Iterator[httpx2.Client]:
    with server.client(timeout=30) as client:
        yield client


def attempt(http: httpx2.Client) -> httpx2.Response:
    return http.post("/auth/login", json=NOBODY)


def assert_unavailable(call: Callable[[], httpx2.Response], *, within: float) -> None:
    started = time.monotonic()
    answer = call()
    elapsed = time.monotonic() - started

    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert elapsed < within


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def hang_up(own_postgres: "OwnPostgres") -> int:
    """End every connection of the server's from the other side, and return how many there were."""
    backends = own_postgres.backends()
    for backend in backends:
        own_postgres.query(f"SELECT pg_terminate_backend({backend}, 5000)")
    return len(backends)


class TestDatabaseDown:
    def test_at_start_it_is_503_until_it_comes_up(
        self, own_postgres: "OwnPostgres", signing_keys: str, server_type: type["Server"]
    ) -> None:
        own_postgres.stop()
        try:
            with server_type(own_postgres.url, signing_keys) as server, server.client(timeout=30) as http:
                assert_unavailable(lambda: attempt(http), within=DOWN)
                assert_unavailable(lambda: http.get("/health/ready"), within=DOWN)
                assert http.get("/health").status_code == 200

                own_postgres.start()

                assert attempt(http).status_code == 401
                assert http.get("/health/ready").status_code == 200
        finally:
            own_postgres.start()

    def test_a_restart_is_noticed_by_nobody_after_it(
        self, own_postgres: "OwnPostgres", http: httpx2.Client
    ) -> None:
        assert attempt(http).status_code == 401

        own_postgres.stop()
        assert_unavailable(lambda: attempt(http), within=DOWN)
        own_postgres.start()

        assert attempt(http).status_code == 401


class TestDatabaseFrozen:
    def test_the_postmaster_alone(self, own_postgres: "OwnPostgres", http: httpx2.Client) -> None:
        """Nobody accepts: a new connection waits in the listen queue."""
        hang_up(own_postgres)

        with stopped(own_postgres.server.pid):
            assert_unavailable(lambda: attempt(http), within=FROZEN)

        assert attempt(http).status_code == 401

    def test_the_backend_alone(self, own_postgres: "OwnPostgres", http: httpx2.Client) -> None:
        """The deadline gives that connection up, and the next request opens another."""
        assert attempt(http).status_code == 401

        with stopped(*own_postgres.backends()):
            assert_unavailable(lambda: attempt(http), within=FROZEN)
            assert attempt(http).status_code == 401

    @pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "frozen"}], ids=["plain", "idempotent"])
    def test_everything(
        self,
        own_postgres: "OwnPostgres",
        http: httpx2.Client,
        person: dict[str, str],
        headers: dict[str, str],
    ) -> None:
        assert attempt(http).status_code == 401
        processes = psutil.Process(own_postgres.server.pid).children(recursive=True)

        with stopped(own_postgres.server.pid, *(process.pid for process in processes)):
            assert_unavailable(
                lambda: http.post("/auth/register", json=person, headers=headers), within=FROZEN
            )

        assert attempt(http).status_code == 401


class TestConnections:
    def test_one_killed_while_idle_costs_nothing(
        self, own_postgres: "OwnPostgres", http: httpx2.Client
    ) -> None:
        assert attempt(http).status_code == 401
        backends = own_postgres.backends()
        assert backends

        for backend in backends:
            own_postgres.query(f"SELECT pg_terminate_backend({backend}, 5000)")

        assert attempt(http).status_code == 401

    def test_too_many_are_503_until_there_are_fewer(
        self, own_postgres: "OwnPostgres", http: httpx2.Client
    ) -> None:
        hang_up(own_postgres)
        crowd = Database(own_postgres.url, pool_size=1000, deadline=30)
        with suppress(DatabaseUnavailable), ExitStack() as held:
            while True:
                held.enter_context(crowd.transaction()).fetch_all("SELECT")
        try:  # every connection there can be is open now, and idle in the crowd's pool
            assert_unavailable(lambda: attempt(http), within=DOWN)
        finally:
            crowd.close()
        wait_for_room(own_postgres)

        assert attempt(http).status_code == 401


def wait_for_room(own_postgres: "OwnPostgres") -> None:
    """PostgreSQL notices closed connections in its own time."""
    give_up_at = time.monotonic() + 10
    while len(psutil.Process(own_postgres.server.pid).children()) > 50:
        assert time.monotonic() < give_up_at, "the connections were not given back"
        time.sleep(0.05)


class TestTimeouts:
    """A slow server answers before we hang up: the connection stays usable and nothing is kept."""

    def test_a_held_lock(
        self, own_postgres: "OwnPostgres", http: httpx2.Client, person: dict[str, str]
    ) -> None:
        headers = sign_in(http, person)
        holder = Database(own_postgres.url, deadline=30)
        with holder.transaction() as connection:
            connection.fetch_all("SELECT FROM accounts WHERE email = %(email)s FOR UPDATE", person)

            assert_unavailable(
                lambda: http.patch("/auth/me", json={"display_name": "Late"}, headers=headers), within=FROZEN
            )
        holder.close()

        assert http.get("/auth/me", headers=headers).json()["display_name"] is None
        [kept] = own_postgres.query("SELECT count(*) FROM audit_events WHERE event = 'profile_changed'")
        assert kept["count"] == 0
        done = http.patch("/auth/me", json={"display_name": "In time"}, headers=headers)
        assert done.json()["display_name"] == "In time"

    def test_a_slow_statement(
        self, own_postgres: "OwnPostgres", http: httpx2.Client, person: dict[str, str]
    ) -> None:
        own_postgres.query(
            "CREATE FUNCTION auth_manager.dawdle() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN PERFORM pg_sleep(20); RETURN NEW; END $$;"
            "CREATE TRIGGER dawdle BEFORE INSERT ON auth_manager.outbox"
            " FOR EACH ROW EXECUTE FUNCTION auth_manager.dawdle()"
        )
        try:
            assert_unavailable(lambda: http.post("/auth/register", json=person), within=FROZEN)
        finally:
            own_postgres.query(
                "DROP TRIGGER dawdle ON auth_manager.outbox; DROP FUNCTION auth_manager.dawdle()"
            )

        assert http.post("/auth/login", json=person).status_code == 401
        assert http.post("/auth/register", json=person).status_code == 201


def sign_in(http: httpx2.Client, person: dict[str, str]) -> dict[str, str]:
    assert http.post("/auth/register", json=person).status_code == 201
    return {"Authorization": f"Bearer {http.post('/auth/login', json=person).json()['access_token']}"}


@pytest.fixture
def origin() -> Origin:
    return Origin(address="203.0.113.7", user_agent="", request_id="r", now=datetime.now(UTC))


def later(origin: Origin, **by: float) -> Origin:
    return replace(origin, now=origin.now + timedelta(**by))


class TestClocks:
    """Two sandboxes that disagree about the time: each `origin` is what one of them believes."""

    @pytest.fixture
    def grant(self, resources: Resources, origin: Origin) -> Callable[[Origin], sessions.TokenGrant]:
        accounts.register(resources, origin, Registration(email="clock@example.com", password=PASSWORD))

        def log_in(when: Origin) -> sessions.TokenGrant:
            return login.log_in(resources, when, identifier="clock@example.com", password=PASSWORD)

        return log_in

    @pytest.mark.parametrize("seconds", [-59, 59])
    def test_a_minute_changes_nothing(
        self,
        resources: Resources,
        origin: Origin,
        grant: Callable[[Origin], sessions.TokenGrant],
        seconds: int,
    ) -> None:
        tokens = grant(origin)
        other = later(origin, seconds=seconds)

        claims = resources.access_tokens.verify(tokens.access_token, now=other.now)
        assert accounts.get_profile(resources, other, claims).email == "clock@example.com"
        rotated = sessions.refresh(resources, other, tokens.refresh_token)
        claims = resources.access_tokens.verify(rotated.access_token, now=origin.now)
        repeated = sessions.refresh(resources, origin, tokens.refresh_token)
        assert repeated.refresh_token == rotated.refresh_token
        sessions.log_out(resources, origin, claims, "this")

    @pytest.mark.parametrize("hours", [-1, 1])
    def test_an_access_token_of_an_hour_off_is_refused(
        self, resources: Resources, origin: Origin, grant: Callable[[Origin], sessions.TokenGrant], hours: int
    ) -> None:
        tokens = grant(later(origin, hours=hours))

        with pytest.raises(InvalidToken):
            resources.access_tokens.verify(tokens.access_token, now=origin.now)

    @pytest.mark.parametrize("hours", [-1, 0, 1])
    def test_what_ended_stays_ended(
        self, resources: Resources, origin: Origin, grant: Callable[[Origin], sessions.TokenGrant], hours: int
    ) -> None:
        tokens = grant(origin)
        claims = resources.access_tokens.verify(tokens.access_token, now=origin.now)
        sessions.log_out(resources, origin, claims, "this")
        other = later(origin, hours=hours)

        with pytest.raises(SessionEnded):
            sessions.refresh(resources, other, tokens.refresh_token)
        with pytest.raises(SessionEnded):
            accounts.get_profile(resources, other, claims)

    def test_a_clock_behind_revives_nothing(
        self, resources: Resources, origin: Origin, grant: Callable[[Origin], sessions.TokenGrant]
    ) -> None:
        """Expired by the clock of the database, alive by that of a sandbox an hour behind."""
        behind = later(origin, hours=-1)
        tokens = grant(later(origin, minutes=-70))
        claims = resources.access_tokens.verify(tokens.access_token, now=behind.now)
        with pytest.raises(SessionEnded):
            accounts.get_profile(resources, behind, claims)
        with pytest.raises(SessionEnded):
            sessions.list_sessions(resources, behind, claims, limit=1, cursor=None)

        with resources.database.one_trip() as connection:
            connection.add("UPDATE sessions SET expires_at = now() - interval '30 minutes'")
        with pytest.raises(InvalidRefreshToken):
            sessions.refresh(resources, behind, tokens.refresh_token)

    @pytest.mark.parametrize("hours", [-1, 0, 1])
    def test_no_clock_of_ours_stretches_the_grace(
        self, resources: Resources, origin: Origin, grant: Callable[[Origin], sessions.TokenGrant], hours: int
    ) -> None:
        tokens = grant(origin)
        sessions.refresh(resources, later(origin, hours=hours), tokens.refresh_token)
        with resources.database.one_trip() as connection:
            connection.add("UPDATE refresh_lines SET rotated_at = rotated_at - interval '11 seconds'")

        with pytest.raises(RefreshTokenReused):
            sessions.refresh(resources, origin, tokens.refresh_token)


class TestKeyRotation:
    def test_no_verification_fails_on_the_way(
        self, make_client: Callable[..., "TestClient"], person: dict[str, str]
    ) -> None:
        """Sandboxes of two neighbouring states serve at once, so each verifies what the other signed."""
        old, new = generate_signing_key("ES256"), generate_signing_key("ES256")
        states: list[list[dict[str, Any]]] = [
            [{**old, "state": "current"}],
            [{**old, "state": "current"}, {**new, "state": "next"}],
            [{**old, "state": "previous"}, {**new, "state": "current"}],
            [{**new, "state": "current"}],
        ]
        apps = [
            make_client(signing_keys=serialize_key_set(keys), signing_algorithm="ES256") for keys in states
        ]
        assert apps[0].post("/auth/register", json=person).status_code == 201

        def token_of(app: "TestClient") -> dict[str, str]:
            granted = app.post("/auth/login", json=person).json()
            return {"Authorization": f"Bearer {granted['access_token']}"}

        def accepts(app: "TestClient", headers: dict[str, str]) -> bool:
            return app.get("/auth/me", headers=headers).status_code == 200

        tokens = [token_of(app) for app in apps]

        for before, after in ((0, 1), (1, 2)):
            assert accepts(apps[before], tokens[after])
            assert accepts(apps[after], tokens[before])
        assert accepts(apps[2], tokens[0]), "the first token lives until it expires"
        assert accepts(apps[3], tokens[2])
        assert not accepts(apps[3], tokens[0]), "and no longer than its key"

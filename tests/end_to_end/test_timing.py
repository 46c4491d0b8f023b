"""Whether an identifier is known cannot be told from the time of an answer (ASVS 6.3.8).

Measured in this process, call by call in turn, so that whatever slows the machine slows both kinds alike.
"""

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from auth_manager.app import create_app
from auth_manager.database import Database
from auth_manager.resources import Resources
from auth_manager.web.calls import run_inline

pytestmark = pytest.mark.alone

CALLS = 200
ROUNDS = 3
LOWEST, HIGHEST = 0.95, 1.05
PASSWORD = "a long and dull passphrase"
GENEROUS: dict[str, Any] = {
    "database_pool_size": 1,
    "login_attempts_per_address": 1_000_000,
    "registrations_per_address": 1_000_000,
    "login_failures_before_delay": 100,
    "mails_per_recipient": 1_000_000,
    "mail_requests_per_address": 1_000_000,
}
KNOWN = 40
"""Accounts, so that no one of them comes near its limit of failures."""


@pytest.fixture
def make_http(make_resources: Callable[..., Resources]) -> Callable[..., TestClient]:
    def make(**settings: Any) -> TestClient:
        app = create_app(make_resources(**GENEROUS, **settings), runner=run_inline)
        return TestClient(app, base_url="https://auth.example.com")

    return make


def measure(call: Callable[[int], None], number: int) -> float:
    started = time.perf_counter()
    call(number)
    return time.perf_counter() - started


def ratio_of_medians(one: Callable[[int], None], other: Callable[[int], None], start: int) -> float:
    """Call both in turn, each going first every other time, and compare CALLS calls of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for n in range(start, start + CALLS):
        for kind in (0, 1) if n % 2 else (1, 0):
            times[kind].append(measure((one, other)[kind], n))
    return statistics.median(times[0]) / statistics.median(times[1])


def assert_indistinguishable(one: Callable[[int], None], other: Callable[[int], None]) -> None:
    """A real difference shows in every round; a busy machine does not."""
    for n in range(10):
        one(10_000 + n)
        other(10_000 + n)
    ratios: list[float] = []
    while not ratios or (not LOWEST <= ratios[-1] <= HIGHEST and len(ratios) < ROUNDS):
        ratios.append(ratio_of_medians(one, other, len(ratios) * CALLS))

    assert LOWEST <= ratios[-1] <= HIGHEST, ratios


class TestLogIn:
    def test_unknown_user_and_wrong_password_take_as_long(self, make_http: Callable[..., TestClient]) -> None:
        http = make_http()
        for n in range(KNOWN):
            body = {"email": f"known{n}@example.com", "password": PASSWORD}
            assert http.post("/auth/register", json=body).status_code == 201
        bodies: set[tuple[int, str]] = set()

        def attempt(email: str) -> None:
            answer = http.post("/auth/login", json={"email": email, "password": "not that one"})
            problem = answer.json()
            del problem["request_id"]
            bodies.add((answer.status_code, str(problem)))

        assert_indistinguishable(
            lambda n: attempt(f"known{n % KNOWN}@example.com"),
            lambda n: attempt(f"other{n % KNOWN}@example.com"),
        )
        assert len(bodies) == 1, "and look the same"
        assert bodies.pop()[0] == 401


class TestRegister:
    def test_free_and_taken_take_as_long_in_verified_mode(self, make_http: Callable[..., TestClient]) -> None:
        http = make_http(require_verified_email=True)
        looks: set[str] = set()

        def register(email: str) -> None:
            answer = http.post("/auth/register", json={"email": email, "password": PASSWORD})
            looks.add(look_of(answer))

        register("taken-000000@example.com")
        assert_indistinguishable(
            lambda n: register(f"free-{n:06}@example.com"), lambda _: register("taken-000000@example.com")
        )
        assert len(looks) == 1, "and look the same"
        assert looks.pop().startswith("202")


class TestMails:
    """What is asked for with an address alone."""

    @pytest.mark.parametrize(
        "path", ["/auth/password/forgot", "/auth/email-login", "/auth/verify-email/resend"]
    )
    @pytest.mark.parametrize("account", ["unverified", "verified", "disabled"])
    def test_known_and_unknown_take_as_long(
        self, make_http: Callable[..., TestClient], database: Database, path: str, account: str
    ) -> None:
        http = make_http()
        for n in range(KNOWN):
            body = {"email": f"known-{n:06}@example.com", "password": PASSWORD}
            assert http.post("/auth/register", json=body).status_code == 201
        column = {"verified": "email_verified_at", "disabled": "disabled_at"}.get(account)
        if column:
            with database.one_trip() as connection:
                connection.add(f"UPDATE accounts SET {column} = now()")
        looks: set[str] = set()

        def ask(email: str) -> None:
            looks.add(look_of(http.post(path, json={"email": email})))

        assert_indistinguishable(
            lambda n: ask(f"known-{n % KNOWN:06}@example.com"),
            lambda n: ask(f"other-{n % KNOWN:06}@example.com"),
        )
        assert len(looks) == 1, "and look the same"
        assert looks.pop().startswith("202")


def look_of(answer: httpx2.Response) -> str:
    """Status, headers and body, without what is new in each answer."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
    return UUIDS.sub("<uuid>", f"{answer.status_code} {sorted(headers.items())} {answer.text}")


UUIDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


FIRST_LOGIN = """\
import sys, time
from starlette.testclient import TestClient
from auth_manager.app import build_resources, create_app
from auth_manager.settings import load_settings
from auth_manager.web.calls import run_inline
http = TestClient(create_app(build_resources(load_settings(), pool_size=1), runner=run_inline))
assert http.get("/health/ready").status_code == 200
started = time.process_time()
answer = http.post("/auth/login", json={"email": sys.argv[1], "password": "not that one"})
elapsed = time.process_time() - started
assert answer.status_code == 401, answer.text
print(elapsed)
"""


class TestColdStart:
    def test_the_first_login_of_a_process_tells_no_more(
        self,
        make_http: Callable[..., TestClient],
        server_environment: Callable[..., dict[str, str]],
        database_url: str,
        signing_keys: str,
    ) -> None:
        """Nothing is loaded, compiled or hashed for the one and not for the other.

        Processor time, because a fresh process is at the mercy of whatever else runs; few, so a wide bound.
        """
        make_http().post("/auth/register", json={"email": "known@example.com", "password": PASSWORD})
        environment = server_environment(AUTH_DATABASE_URL=database_url, AUTH_SIGNING_KEYS=signing_keys)

        def first(email: str) -> float:
            command = [sys.executable, "-c", FIRST_LOGIN, email]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return float(done.stdout)

        known, unknown = [], []
        for n in range(5):
            known.append(first("known@example.com"))
            unknown.append(first(f"unknown{n}@example.com"))

        ratio = statistics.median(known) / statistics.median(unknown)
        assert 0.75 <= ratio <= 1.35, (known, unknown)

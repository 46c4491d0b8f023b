"""Many requests at once against a real server: what must hold whichever of them comes first."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from auth_manager.database import Database

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Server

Together = Callable[[list[Callable[[], httpx2.Response]]], list[httpx2.Response]]
Person = dict[str, str]

PASSWORD = "a long and dull passphrase"
LIMIT = 10
"""Failures until the first delay, the default; stated again so that the test does not follow a weaker one."""


@pytest.fixture(scope="module")
def server(database_url: str, signing_keys: str, server_type: type["Server"]) -> Iterator["Server"]:
    """One server whose limits by address, which all requests here share, are out of the way."""
    with server_type(
        database_url,
        signing_keys,
        AUTH_REGISTRATIONS_PER_ADDRESS="100000",
        AUTH_LOGIN_ATTEMPTS_PER_ADDRESS="100000",
    ) as server:
        yield server


@pytest.fixture
def http(server: "Server", database: Database) -> Iterator[httpx2.Client]:  # noqa: ARG001 -- empty tables
    with server.client() as client:
        yield client


@pytest.fixture
def registered(http: httpx2.Client, person: Person) -> Person:
    assert http.post("/auth/register", json=person).status_code == 201
    return person


def log_in(http: httpx2.Client, person: Person) -> dict[str, Any]:
    answer = http.post("/auth/login", json=person)
    assert answer.status_code == 200, answer.text
    granted: dict[str, Any] = answer.json()
    return granted


def bearer(granted: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {granted['access_token']}"}


def refresh(http: httpx2.Client, granted: dict[str, Any]) -> httpx2.Response:
    return http.post("/auth/refresh", json={"refresh_token": granted["refresh_token"]})


def statuses(answers: list[httpx2.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def count(database: Database, sql: str) -> int:
    with database.one_trip() as connection:
        row = connection.fetch_one(f"SELECT count(*) AS n FROM {sql}")
    assert row
    return int(row["n"])


class TestRegister:
    def test_a_thousand_duplicates_make_one_account(
        self, server: "Server", http: httpx2.Client, database: Database
    ) -> None:
        assert http.get("/health/ready").status_code == 200

        async def register_all() -> list[httpx2.Response]:
            limits = httpx2.Limits(max_connections=250)
            async with httpx2.AsyncClient(base_url=server.url, timeout=240, limits=limits) as client:
                bodies = [
                    {"email": email, "username": name, "password": PASSWORD}
                    for email in ("same@example.com", "Same@Example.com")
                    for name in ("samename", "SameName")
                ]
                requests = (client.post("/auth/register", json=bodies[n % 4]) for n in range(1000))
                return await asyncio.gather(*requests)

        answers = asyncio.run(register_all())

        assert statuses(answers) == {201: 1, 409: 999}
        assert count(database, "accounts") == 1
        assert count(database, "outbox") == 1
        assert count(database, "audit_events WHERE outcome = 'success'") == 1
        assert count(database, "audit_events WHERE outcome = 'failure'") == 999

    def test_one_idempotency_key_makes_one_account(
        self, http: httpx2.Client, person: Person, together: Together, database: Database
    ) -> None:
        headers = {"Idempotency-Key": "same"}

        answers = together([lambda: http.post("/auth/register", json=person, headers=headers)] * 20)

        assert set(statuses(answers)) <= {201, 409}
        assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"idempotency_key_in_progress"}
        assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
        assert count(database, "accounts") == 1


class TestRefresh:
    def test_a_hundred_at_once_get_the_one_successor(
        self, http: httpx2.Client, registered: Person, together: Together, database: Database
    ) -> None:
        granted = log_in(http, registered)

        answers = together([lambda: refresh(http, granted)] * 100)

        assert statuses(answers) == {200: 100}
        [successor] = {answer.json()["refresh_token"] for answer in answers}
        assert successor != granted["refresh_token"]
        assert count(database, "refresh_lines WHERE counter = 2") == 1
        assert count(database, "sessions WHERE ended_at IS NULL") == 1

        with database.one_trip() as connection:
            connection.add("UPDATE refresh_lines SET rotated_at = rotated_at - interval '11 seconds'")
        reuse = refresh(http, granted)
        assert (reuse.status_code, reuse.json()["code"]) == (401, "refresh_token_reused")
        assert refresh(http, {"refresh_token": successor}).status_code == 401
        assert http.get("/auth/me", headers=bearer(answers[0].json())).status_code == 401

    def test_none_succeeds_after_a_log_out(
        self, http: httpx2.Client, registered: Person, together: Together
    ) -> None:
        for _ in range(15):
            granted = log_in(http, registered)

            def log_out(granted: dict[str, Any] = granted) -> httpx2.Response:
                return http.post("/auth/logout", headers=bearer(granted))

            def rotate(granted: dict[str, Any] = granted) -> httpx2.Response:
                return refresh(http, granted)

            answers = together([rotate, log_out, rotate, rotate, log_out, rotate])

            assert set(statuses(answers)) <= {200, 204, 401}
            assert statuses(answers)[204] >= 1
            for each in [granted, *(answer.json() for answer in answers if answer.status_code == 200)]:
                assert refresh(http, each).status_code == 401
                assert http.get("/auth/me", headers=bearer(each)).status_code == 401


class TestLogin:
    def test_no_more_guesses_are_verified_than_the_limit(
        self, http: httpx2.Client, registered: Person, together: Together, database: Database
    ) -> None:
        """ASVS 6.3.1. A refused guess is 429, whatever it was: the right password is refused as well."""
        wrong = {**registered, "password": "not that one"}

        answers = together([lambda: http.post("/auth/login", json=wrong)] * 500)

        assert statuses(answers) == {401: LIMIT, 429: 500 - LIMIT}
        assert all(int(a.headers["Retry-After"]) > 0 for a in answers if a.status_code == 429)
        assert count(database, "audit_events WHERE reason = 'invalid_credentials'") == LIMIT
        assert http.post("/auth/login", json=registered).status_code == 429

    def test_the_right_password_among_them_changes_little(
        self, http: httpx2.Client, registered: Person, together: Together
    ) -> None:
        """It ends a run of failures, so that at most one more run is verified."""
        wrong = {**registered, "password": "not that one"}
        bodies = [registered if n == 5 else wrong for n in range(100)]

        answers = together([partial(http.post, "/auth/login", json=body) for body in bodies])

        counted = statuses(answers)
        assert set(counted) <= {200, 401, 429}
        assert counted[401] <= LIMIT * (1 + counted[200])

    def test_neither_do_more_for_somebody_unknown(
        self, http: httpx2.Client, person: Person, together: Together
    ) -> None:
        answers = together([lambda: http.post("/auth/login", json=person)] * 60)

        assert statuses(answers) == {401: LIMIT, 429: 60 - LIMIT}


class TestProfile:
    def test_one_of_sixteen_gets_the_name(
        self, http: httpx2.Client, together: Together, database: Database
    ) -> None:
        everyone = [{"email": f"{n}@example.com", "password": PASSWORD} for n in range(16)]
        assert {http.post("/auth/register", json=each).status_code for each in everyone} == {201}
        tokens = [bearer(log_in(http, each)) for each in everyone]

        name = {"username": "wanted"}
        answers = together([partial(http.patch, "/auth/me", json=name, headers=token) for token in tokens])

        assert statuses(answers) == {200: 1, 409: 15}
        assert count(database, "accounts WHERE username = 'wanted'") == 1
        assert count(database, "audit_events WHERE event = 'profile_changed'") == 1


class TestDelete:
    def test_nothing_remains_whatever_else_happens(
        self, http: httpx2.Client, together: Together, database: Database
    ) -> None:
        for n in range(12):
            person = {"email": f"{n}@example.com", "password": PASSWORD}
            assert http.post("/auth/register", json=person).status_code == 201
            granted, other = log_in(http, person), log_in(http, person)

            def delete(granted: dict[str, Any] = granted) -> httpx2.Response:
                return http.delete("/auth/me", headers=bearer(granted))

            def rotate(other: dict[str, Any] = other) -> httpx2.Response:
                return refresh(http, other)

            def change(other: dict[str, Any] = other) -> httpx2.Response:
                return http.patch("/auth/me", json={"display_name": "x"}, headers=bearer(other))

            def enter(person: Person = person) -> httpx2.Response:
                return http.post("/auth/login", json=person)

            answers = together([rotate, enter, delete, rotate, change, enter, rotate, delete, change])

            assert set(statuses(answers)) <= {200, 204, 401}
            assert statuses(answers)[204] >= 1, "two that crossed may both say it is gone"
            for table in ("accounts", "sessions", "refresh_lines", "account_roles", "outbox"):
                assert count(database, table) == 0, table

"""Idempotency-Key: what a retry gets, what two at once get, and what the table gives away."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from auth_manager import idempotency
from auth_manager.database import Database, Row
from auth_manager.errors import IdempotencyKeyInProgress, IdempotencyKeyReused
from auth_manager.idempotency import CLAIM_LEASE, LIFETIME, Claim, Replay

Query = Callable[..., list[Row]]

PASSWORD = "SecurePass123!"
LOGIN = {"email": "test@example.com", "password": PASSWORD}
KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
SECRET = bytes(range(32))
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def query(database: Database) -> Query:
    """Runs one statement of SQL with named parameters, and returns its rows."""

    def run(sql: str, **parameters: Any) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql, parameters)

    return run


def post(client: TestClient, path: str, body: object, *, key: str = KEY, token: str = "") -> Any:
    headers = {"Idempotency-Key": key} | ({"Authorization": f"Bearer {token}"} if token else {})
    return client.post(path, json=body, headers=headers)


class TestReplay:
    def test_a_registration_is_answered_byte_for_byte(self, client: TestClient, query: Query) -> None:
        first, second = (post(client, "/auth/register", LOGIN) for _ in range(2))
        assert (first.status_code, first.content) == (201, second.content)
        assert second.status_code == 201
        assert first.headers["content-type"] == second.headers["content-type"]
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
        assert query("SELECT count(*) AS n FROM outbox") == [{"n": 1}]

    def test_a_login_gets_the_same_tokens_and_opens_one_session(
        self, client: TestClient, query: Query
    ) -> None:
        client.post("/auth/register", json=LOGIN)
        first, second = (post(client, "/auth/login", LOGIN) for _ in range(2))
        assert (first.status_code, first.content) == (200, second.content)
        assert query("SELECT count(*) AS n FROM sessions") == [{"n": 1}]

    def test_a_refresh_is_answered_after_the_grace_too(self, client: TestClient, query: Query) -> None:
        client.post("/auth/register", json=LOGIN)
        token = {"refresh_token": client.post("/auth/login", json=LOGIN).json()["refresh_token"]}
        first = post(client, "/auth/refresh", token)
        query("UPDATE refresh_lines SET rotated_at = rotated_at - interval '1 hour' RETURNING 1")
        assert post(client, "/auth/refresh", token).content == first.content
        assert first.status_code == 200
        assert query("SELECT counter FROM refresh_lines") == [{"counter": 2}]

    def test_a_log_out_is_answered_though_the_session_ended(self, client: TestClient) -> None:
        client.post("/auth/register", json=LOGIN)
        token = client.post("/auth/login", json=LOGIN).json()["access_token"]
        answers = [post(client, "/auth/logout", {"scope": "all"}, token=token) for _ in range(2)]
        assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
        assert post(client, "/auth/logout", {"scope": "all"}, token=token, key="new").status_code == 401

    def test_a_key_logs_out_each_session_for_itself(self, client: TestClient) -> None:
        client.post("/auth/register", json=LOGIN)
        tokens = [client.post("/auth/login", json=LOGIN).json()["access_token"] for _ in range(2)]
        answers = [post(client, "/auth/logout", {"scope": "this"}, token=token) for token in tokens]

        assert [answer.status_code for answer in answers] == [204, 204]
        for token in tokens:
            me = client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
            assert me.json()["code"] == "session_ended"

    def test_a_silent_registration_is_replayed(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        client = make_client(require_verified_email=True)
        answers = [post(client, "/auth/register", LOGIN) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert query("SELECT kind FROM outbox") == [{"kind": "verify_email"}]

    def test_another_body_is_refused(self, client: TestClient, query: Query) -> None:
        post(client, "/auth/register", LOGIN)
        answer = post(client, "/auth/register", LOGIN | {"email": "other@example.com"})
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        assert query("SELECT count(*) AS n FROM accounts") == [{"n": 1}]

    def test_another_endpoint_is_another_key(self, client: TestClient) -> None:
        assert post(client, "/auth/register", LOGIN).status_code == 201
        assert post(client, "/auth/login", LOGIN).status_code == 200

    def test_another_person_is_another_key(self, client: TestClient) -> None:
        for email in ("a@example.com", "b@example.com"):
            login = {"email": email, "password": PASSWORD}
            client.post("/auth/register", json=login)
            token = client.post("/auth/login", json=login).json()["access_token"]
            assert post(client, "/auth/logout", {}, token=token).status_code == 204
            me = client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
            assert me.status_code == 401

    def test_a_replay_needs_a_token_that_verifies(self, client: TestClient) -> None:
        client.post("/auth/register", json=LOGIN)
        token = client.post("/auth/login", json=LOGIN).json()["access_token"]
        post(client, "/auth/logout", {}, token=token)
        assert post(client, "/auth/logout", {}, token=token[:-4] + "AAAA").status_code == 401
        assert post(client, "/auth/logout", {}).status_code == 401

    def test_without_a_key_nothing_is_kept(self, client: TestClient, query: Query) -> None:
        assert client.post("/auth/register", json=LOGIN).status_code == 201
        assert client.post("/auth/register", json=LOGIN).status_code == 409
        assert query("SELECT 1 FROM idempotency_keys") == []


class TestFailures:
    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("/auth/register", LOGIN | {"password": "short"}, 422),
            ("/auth/register", LOGIN | {"email": "taken@example.com"}, 409),
            ("/auth/login", LOGIN | {"password": "wrong"}, 401),
            ("/auth/refresh", {"refresh_token": "rt_garbage"}, 401),
        ],
    )
    def test_they_are_not_kept(
        self, client: TestClient, query: Query, path: str, body: dict[str, str], status: int
    ) -> None:
        client.post("/auth/register", json=LOGIN | {"email": "taken@example.com"})
        for _ in range(2):
            assert post(client, path, body).status_code == status
        assert query("SELECT 1 FROM idempotency_keys") == []

    def test_the_key_is_free_for_what_is_right(self, client: TestClient) -> None:
        assert post(client, "/auth/register", LOGIN | {"password": "short"}).status_code == 422
        assert post(client, "/auth/register", LOGIN).status_code == 201

    @pytest.mark.parametrize("key", ["", "two words", "tab\t", "ü", "x" * 256])
    def test_a_key_is_1_to_255_visible_ascii_characters(self, client: TestClient, key: str) -> None:
        answer = client.post("/auth/register", json=LOGIN, headers={b"Idempotency-Key": key.encode()})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["Idempotency-Key"]

    def test_the_longest_key_is_good(self, client: TestClient) -> None:
        assert post(client, "/auth/register", LOGIN, key="~" * 255).status_code == 201


class TestAtOnce:
    def test_sixteen_of_one_key_make_one_account(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        clients = [make_client(), make_client()]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: post(clients[n % 2], "/auth/register", LOGIN), range(16)))
        created = [answer for answer in answers if answer.status_code == 201]
        running = [answer for answer in answers if answer.status_code != 201]
        assert created
        assert len({answer.content for answer in created}) == 1
        assert {(a.status_code, a.json()["code"]) for a in running} <= {(409, "idempotency_key_in_progress")}
        assert {answer.headers["retry-after"] for answer in running} <= {"1"}
        assert query("SELECT count(*) AS n FROM accounts") == [{"n": 1}]


class TestStoredRow:
    def test_neither_the_key_nor_the_answer_can_be_read(self, client: TestClient, query: Query) -> None:
        client.post("/auth/register", json=LOGIN)
        answer = post(client, "/auth/login", LOGIN)
        [row] = query("SELECT * FROM idempotency_keys")
        stored = b"".join(bytes(value) for value in row.values() if isinstance(value, memoryview))
        tokens = [answer.json()[name] for name in ("access_token", "refresh_token", "session_id")]
        for secret in (KEY, PASSWORD, "test@example.com", *tokens):
            assert secret.encode() not in stored
        assert re.search(rb"[ -~]{16}", stored) is None

    def test_the_same_answer_is_never_stored_as_the_same_bytes(self, database: Database) -> None:
        held = claim(database)
        assert isinstance(held, Claim)
        assert idempotency._encrypt(held.cipher_key, b"x") != idempotency._encrypt(held.cipher_key, b"x")


def claim(database: Database, seconds: float = 0, *, scope: str = "POST /x ", **what: Any) -> Claim | Replay:
    """Claim KEY for the body b"{}", unless `what` says otherwise."""
    values: dict[str, Any] = {"key": KEY, "request": b"{}", "secrets": [SECRET]} | what
    secrets = values.pop("secrets")
    return idempotency.claim(database, secrets, scope=scope, now=NOW + timedelta(seconds=seconds), **values)


def take(database: Database, seconds: float = 0) -> Claim:
    held = claim(database, seconds)
    assert isinstance(held, Claim)
    return held


WORK = "INSERT INTO rate_limits (key, count, updated_at) VALUES ('work', 1, now())"
"""What a request does before it completes its claim."""


def complete(database: Database, held: Claim, answer: bytes = b"200ok", *, work: str = "") -> None:
    with database.one_trip() as connection:
        connection.add(work)
        idempotency.complete(connection, held, answer)


class TestClaim:
    def test_while_the_first_runs_the_second_waits(self, database: Database) -> None:
        take(database)
        with pytest.raises(IdempotencyKeyInProgress) as caught:
            claim(database, 59)
        assert caught.value.retry_after == 1

    def test_a_claim_whose_holder_died_is_taken_over_once(self, database: Database) -> None:
        dead = take(database)
        successor = take(database, CLAIM_LEASE.total_seconds())
        assert successor.claim_id != dead.claim_id
        with pytest.raises(IdempotencyKeyInProgress):
            claim(database, CLAIM_LEASE.total_seconds() + 59)

    def test_another_body_neither_takes_it_over_nor_prolongs_it(self, database: Database) -> None:
        take(database)
        with pytest.raises(IdempotencyKeyReused):
            claim(database, 61, request=b"other")
        take(database, 61)

    def test_a_holder_that_lost_its_claim_cannot_commit(self, database: Database, query: Query) -> None:
        lost = take(database)
        successor = take(database, 60)
        with pytest.raises(IdempotencyKeyInProgress):
            complete(database, lost, b"200lost", work=WORK)
        assert query("SELECT 1 FROM rate_limits") == []
        complete(database, successor, work=WORK)
        assert len(query("SELECT 1 FROM rate_limits")) == 1
        assert claim(database, 61) == Replay(b"200ok")
        with pytest.raises(IdempotencyKeyInProgress):
            complete(database, lost, b"200late")
        assert claim(database, 61) == Replay(b"200ok")

    def test_a_holder_that_lost_its_claim_cannot_release_it(self, database: Database) -> None:
        lost = take(database)
        successor = take(database, 60)
        idempotency.release(database, lost)
        complete(database, successor)

    def test_a_released_claim_is_free_and_an_answer_stays(self, database: Database) -> None:
        held = take(database)
        idempotency.release(database, held)
        held = take(database)
        complete(database, held)
        idempotency.release(database, held)
        assert claim(database) == Replay(b"200ok")

    def test_an_answer_lives_a_day(self, database: Database) -> None:
        complete(database, take(database))
        day = LIFETIME.total_seconds()
        assert day == 86_400
        assert claim(database, day - 1) == Replay(b"200ok")
        with pytest.raises(IdempotencyKeyReused):
            claim(database, day - 1, request=b"other")
        fresh = claim(database, day, request=b"other")
        assert isinstance(fresh, Claim)
        with pytest.raises(IdempotencyKeyReused):
            claim(database, day)
        complete(database, fresh, b"200new")
        assert claim(database, 2 * day - 1, request=b"other") == Replay(b"200new")

    def test_an_unanswered_claim_of_yesterday_is_free(self, database: Database) -> None:
        take(database)
        assert isinstance(claim(database, 86_400, request=b"other"), Claim)

    @pytest.mark.parametrize(
        "other",
        [{"scope": "POST /y "}, {"scope": "POST /x a"}, {"key": "other"}, {"secrets": [bytes(32)]}],
        ids=str,
    )
    def test_scope_key_and_server_secret_make_the_row(
        self, database: Database, other: dict[str, Any]
    ) -> None:
        complete(database, take(database))
        assert isinstance(claim(database, **other), Claim)

    def test_a_record_of_an_older_secret_is_found(self, database: Database) -> None:
        newest = bytes(32)
        complete(database, take(database))
        assert claim(database, secrets=[newest, SECRET]) == Replay(b"200ok")
        with pytest.raises(IdempotencyKeyReused):
            claim(database, secrets=[newest, SECRET], request=b"other")
        assert isinstance(claim(database, secrets=[newest]), Claim)

    def test_while_secrets_change_a_claim_is_still_one(self, database: Database) -> None:
        """One process knows the old secret alone, the other both."""
        newest = bytes(32)
        take(database)
        with pytest.raises(IdempotencyKeyInProgress):
            claim(database, 1, secrets=[newest, SECRET])
        held = claim(database, CLAIM_LEASE.total_seconds(), secrets=[newest, SECRET])
        assert isinstance(held, Claim)
        complete(database, held)
        assert claim(database, 61) == Replay(b"200ok")

    def test_a_new_record_is_made_with_the_first_secret(self, database: Database) -> None:
        newest = bytes(32)
        held = claim(database, secrets=[newest, SECRET])
        assert isinstance(held, Claim)
        complete(database, held)
        assert claim(database, secrets=[newest]) == Replay(b"200ok")

    def test_scope_and_key_do_not_run_into_each_other(self, database: Database) -> None:
        assert isinstance(claim(database, scope="ab", key="c"), Claim)
        assert isinstance(claim(database, scope="a", key="bc"), Claim)


class TestLostClaim:
    def test_nothing_of_a_registration_that_lost_its_claim_is_kept(
        self, make_client: Callable[..., TestClient], query: Query
    ) -> None:
        """Another took the claim over while the password was being hashed."""
        client = make_client(hash_concurrency=1)
        slots = client.app.state.resources.passwords._slots  # type: ignore[attr-defined]
        answers = []
        with slots:
            thread = threading.Thread(target=lambda: answers.append(post(client, "/auth/register", LOGIN)))
            thread.start()
            while not query("SELECT 1 FROM rate_limits"):
                time.sleep(0.005)
            query("UPDATE idempotency_keys SET claim_id = gen_random_uuid() RETURNING 1")
        thread.join()
        assert [(a.status_code, a.json()["code"]) for a in answers] == [(409, "idempotency_key_in_progress")]
        for table in ("accounts", "outbox", "audit_events"):
            assert query(f"SELECT 1 FROM {table}") == []
        assert len(query("SELECT 1 FROM idempotency_keys WHERE answer IS NULL")) == 1

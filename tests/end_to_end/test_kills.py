"""SIGKILL in the middle of a registration: a user is written whole or not at all, and a retry works.

AUTH_TEST_KILLS says how often; the default fits a test run.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2
import pytest

from auth_manager.database import Database

KILLS = int(os.environ.get("AUTH_TEST_KILLS", "40"))
PASSWORD = "a long and dull passphrase"

# Importing costs a second and is not what is under test, so each server is a fork of one that has imported.
SERVERS = """\
import os, sys
from auth_manager.entrypoints.server import serve
from auth_manager.settings import load_settings
settings = load_settings()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        serve(settings, port=int(line))
        os._exit(1)
    print(child, flush=True)
    os.waitpid(child, 0)
"""


class Servers:
    """Serves on one port, and again each time it was killed."""

    def __init__(self, environment: dict[str, str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._child: int | None = None
        self._parent = subprocess.Popen(
            [sys.executable, "-c", SERVERS],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def start(self) -> None:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.write(f"{self._port}\n")
        self._parent.stdin.flush()
        self._child = int(self._parent.stdout.readline())
        give_up_at = time.monotonic() + 20
        while time.monotonic() < give_up_at:
            with suppress(httpx2.TransportError):
                httpx2.get(f"{self.url}/health/ready").raise_for_status()
                return
            time.sleep(0.01)
        raise TimeoutError("the server did not start")

    def kill(self) -> None:
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            self._child = None

    def close(self) -> None:
        os.killpg(self._parent.pid, signal.SIGKILL)
        self._parent.communicate(timeout=10)


@pytest.fixture
def servers(
    database: Database,  # noqa: ARG001 -- its tables are empty
    database_url: str,
    signing_keys: str,
    server_environment: Callable[..., dict[str, str]],
    free_port: Callable[[], int],
) -> Iterator[Servers]:
    environment = server_environment(
        AUTH_DATABASE_URL=database_url,
        AUTH_SIGNING_KEYS=signing_keys,
        AUTH_REGISTRATIONS_PER_ADDRESS="100000",
    )
    servers = Servers(environment, free_port())
    yield servers
    servers.close()


def half_written(database: Database) -> list[dict[str, object]]:
    """Return each account that lacks its message or its trace, and each of those that lacks its account."""
    with database.one_trip() as connection:
        return connection.fetch_all(
            """
            WITH registered AS (
                SELECT * FROM audit_events WHERE event = 'registered' AND outcome = 'success'
            )
            SELECT coalesce(accounts.id, outbox.account_id, registered.account_id) AS id
            FROM accounts
            FULL JOIN outbox ON outbox.account_id = accounts.id
            FULL JOIN registered ON registered.account_id = coalesce(accounts.id, outbox.account_id)
            WHERE accounts.id IS NULL OR outbox.id IS NULL OR registered.id IS NULL
            """
        )


class TestKill:
    @pytest.mark.timeout(1800)
    def test_leaves_no_half_written_user(self, servers: Servers, database: Database) -> None:
        chance = random.Random(7)  # noqa: S311 -- where to strike
        servers.start()
        usual = self.duration_of_a_registration(servers)
        outcomes: Counter[str] = Counter()
        for n in range(KILLS):
            person = {"email": f"{n}@example.com", "username": f"user{n}", "password": PASSWORD}
            headers = {"Idempotency-Key": f"{n}"} if n % 2 else {}
            answers: list[int] = []
            thread = threading.Thread(target=self.register, args=(servers, person, headers, answers))
            thread.start()
            time.sleep(chance.uniform(0, 1.3 * usual))
            servers.kill()
            thread.join()
            servers.start()

            retry = httpx2.post(f"{servers.url}/auth/register", json=person, headers=headers)
            if headers and retry.json().get("code") == "idempotency_key_in_progress":
                self.let_leases_run_out(database)
                retry = httpx2.post(f"{servers.url}/auth/register", json=person, headers=headers)

            assert retry.status_code in ({201} if headers else {201, 409}), retry.text
            outcomes["answered" if answers else "cut off"] += 1

        assert half_written(database) == []
        with database.one_trip() as connection:
            [accounts] = connection.fetch_all(
                "SELECT count(*) AS n FROM accounts WHERE username LIKE 'user%'"
            )
        assert accounts["n"] == KILLS
        assert outcomes["cut off"] > 0, "no kill struck"

    @staticmethod
    def duration_of_a_registration(servers: Servers) -> float:
        started = time.monotonic()
        for n in range(3):
            person = {"email": f"{n}@example.org", "password": PASSWORD}
            httpx2.post(f"{servers.url}/auth/register", json=person).raise_for_status()
        return (time.monotonic() - started) / 3

    @staticmethod
    def register(
        servers: Servers, person: dict[str, str], headers: dict[str, str], answers: list[int]
    ) -> None:
        with suppress(httpx2.TransportError):
            answer = httpx2.post(f"{servers.url}/auth/register", json=person, headers=headers)
            answers.append(answer.status_code)

    @staticmethod
    def let_leases_run_out(database: Database) -> None:
        with database.one_trip() as connection:
            connection.add("UPDATE idempotency_keys SET claimed_until = now() - interval '1 second'")

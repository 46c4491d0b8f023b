"""`auth-manager local`, as a real process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.end_to_end.conftest import find_free_port

from auth_manager.database import Database

if TYPE_CHECKING:
    from tests.entrypoints.conftest import Running

Start = Callable[..., "Running"]

CURL = re.compile(r"curl -X POST (\S+) +-H 'Content-Type: application/json' -d '(.*)'")
CLI = "auth_manager.entrypoints.cli"
SECRET = "local-0123456789-abcdefghijklmnop"
PASSWORD = "SecurePass123!"
LOGIN = {"email": "test@example.com", "password": PASSWORD}


def processes_of(state: Path) -> list[int]:
    """Return the processes that name this directory: ours, and PostgreSQL's."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(state) in argument for argument in process.info["cmdline"] or [])
    ]


class TestLocal:
    def test_the_first_calls_work_and_the_users_outlive_it(self, start: Start, tmp_path: Path) -> None:
        first = start("local", "--state", str(tmp_path))
        printed = CURL.findall(first.output)
        assert [(url, json.loads(body)) for url, body in printed] == [
            (f"{first.url}/auth/register", LOGIN | {"username": "testuser"}),
            (f"{first.url}/auth/login", LOGIN),
        ]
        headers = {"Content-Type": "application/json"}
        answers = [
            first.call("POST", url.removeprefix(first.url), content=body, headers=headers)
            for url, body in printed
        ]
        assert [answer.status_code for answer in answers] == [201, 200]
        assert first.call("GET", "/docs").status_code == 200
        assert first.call("GET", "/openapi.json").status_code == 200
        assert len(processes_of(tmp_path)) >= 2
        assert first.stop(signal.SIGINT) < 10
        assert first.process.returncode == 0
        assert processes_of(tmp_path) == []

        second = start("local", "--state", str(tmp_path), PUBLIC_URL=first.url)
        token = {"Authorization": f"Bearer {answers[1].json()['access_token']}"}
        registered = answers[0].json()
        del registered["verification_request"]
        assert second.call("GET", "/auth/me", headers=token).json() == registered
        refresh = {"refresh_token": answers[1].json()["refresh_token"]}
        assert second.call("POST", "/auth/refresh", json=refresh).status_code == 200
        assert second.call("POST", "/auth/login", json=LOGIN).status_code == 200
        second.stop(signal.SIGINT)
        assert "Traceback" not in first.output + second.output

    def test_logs_are_for_people_and_without_secrets(
        self, start: Start, tmp_path: Path, signing_keys: str
    ) -> None:
        laptop = start("local", "--state", str(tmp_path), SIGNING_KEYS=signing_keys, SECRET_KEYS=SECRET)
        laptop.call("POST", "/auth/register", json=LOGIN)
        tokens = laptop.call("POST", "/auth/login", json=LOGIN).json()
        laptop.call("POST", "/auth/login", json=LOGIN | {"password": "wrong-canary"})
        assert laptop.stop(signal.SIGTERM) < 10
        assert processes_of(tmp_path) == []
        logged = [line for line in laptop.written if re.match(r"\d\d:\d\d:\d\d INFO ", line)]
        assert any('request method="POST"' in line and "status=200" in line for line in logged)
        assert any('login_failed reason="invalid_credentials"' in line for line in logged)
        for secret in ("wrong-canary", SECRET, tokens["refresh_token"], tokens["access_token"]):
            assert secret not in laptop.output
        assert all(PASSWORD not in line and "@" not in line for line in logged)

    def test_a_database_of_ones_own_is_used(
        self, start: Start, tmp_path: Path, database: Database, database_url: str
    ) -> None:
        laptop = start("local", "--state", str(tmp_path), DATABASE_URL=database_url)
        assert laptop.call("POST", "/auth/register", json=LOGIN).status_code == 201
        assert [path.name for path in tmp_path.iterdir()] == ["keys"]
        with database.one_trip() as connection:
            assert connection.fetch_all("SELECT email FROM accounts") == [{"email": "test@example.com"}]
        laptop.stop(signal.SIGINT)

    def test_its_pages_have_passkeys_at_localhost(
        self, start: Start, tmp_path: Path, signing_keys: str
    ) -> None:
        """No browser has any for 127.0.0.1."""
        laptop = start("local", "--state", str(tmp_path), SIGNING_KEYS=signing_keys, SECRET_KEYS=SECRET)
        door = laptop.call("GET", "/")
        assert (door.status_code, door.headers["location"]) == (303, "/account")
        origin = laptop.url.replace("127.0.0.1", "localhost")
        page = laptop.call("GET", "/account").text
        assert f'data-origins="{origin}"' in page
        assert f'<a href="{origin}/account">' in page
        own = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        ceremony = laptop.call("POST", "/account/sign-in/passkey/options", headers=own).json()
        assert ceremony["options"]["rpId"] == "localhost"
        assert laptop.stop(signal.SIGTERM) < 10

    def test_mail_ends_in_a_mailbox(self, start: Start, tmp_path: Path, signing_keys: str) -> None:
        laptop = start("local", "--state", str(tmp_path), SIGNING_KEYS=signing_keys, SECRET_KEYS=SECRET)
        assert f"{laptop.url}/dev/mailbox" in laptop.output
        assert "No mail yet" in laptop.call("GET", "/dev/mailbox").text
        laptop.call("POST", "/auth/register", json=LOGIN, headers={"Accept-Language": "fr"})
        give_up_at = time.monotonic() + 20
        while not (found := re.search("/dev/mailbox/[0-9a-f-]{36}", laptop.call("GET", "/dev/mailbox").text)):
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        mail = laptop.call("GET", found[0]).text
        assert "Confirmez votre adresse e-mail" in mail
        assert f"{laptop.url}/account/verify-email?token=ot_" in mail
        assert len(list((tmp_path / "mailbox").glob("*.eml"))) == 1
        assert laptop.stop(signal.SIGTERM) < 10
        assert "ot_" not in laptop.output

    def test_an_interrupt_that_its_caller_ignores_stops_it_before_it_serves(self, tmp_path: Path) -> None:
        """As when it is started in the background without job control."""
        arguments = ["local", "--port", str(find_free_port()), "--state", str(tmp_path)]
        with subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", CLI, *arguments],
            env={name: value for name, value in os.environ.items() if not name.startswith("AUTH_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as laptop:
            try:
                give_up_at = time.monotonic() + 60
                while not (tmp_path / "postgres/data/postmaster.pid").exists():
                    assert laptop.poll() is None
                    assert time.monotonic() < give_up_at
                    time.sleep(0.01)
                laptop.send_signal(signal.SIGINT)
                output, _ = laptop.communicate(timeout=20)
            finally:
                laptop.terminate()
        assert processes_of(tmp_path) == []
        assert "Traceback" not in output

    def test_a_second_one_in_the_same_place_says_so(
        self, start: Start, tmp_path: Path, signing_keys: str
    ) -> None:
        keys = {"SIGNING_KEYS": signing_keys, "SECRET_KEYS": SECRET}
        start("local", "--state", str(tmp_path), **keys)
        with pytest.raises(AssertionError, match="another process runs PostgreSQL") as caught:
            start("local", "--state", str(tmp_path), **keys)
        assert "Traceback" not in str(caught.value)

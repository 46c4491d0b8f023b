"""scripts/smoke-test.sh against servers that work and servers that do not."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.deploy.ministack import PROJECT
from tests.end_to_end.conftest import Server, find_free_port

from auth_manager.database import Database


def smoke_test(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scripts/smoke-test.sh", *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def accounts(database: Database) -> int:
    with database.one_trip() as connection:
        [row] = connection.fetch_all("SELECT count(*) FROM accounts")
    number: int = row["count"]
    return number


@contextmanager
def renamed(database: Database, table: str) -> Iterator[None]:
    """While it lasts, nothing that needs the table works."""
    with database.one_trip() as connection:
        connection.add(f"ALTER TABLE {table} RENAME TO gone")
    try:
        yield
    finally:
        with database.one_trip() as connection:
            connection.add(f"ALTER TABLE gone RENAME TO {table}")


@contextmanager
def parked_domain() -> Iterator[str]:
    """A web server that answers everything with 200 and a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<h1>Buy this domain</h1>")

        do_POST = do_GET  # noqa: N815 -- the name that http.server looks for

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 -- the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def server(database: Database, database_url: str, signing_keys: str) -> Iterator[Server]:  # noqa: ARG001 -- an empty one
    with Server(database_url, signing_keys) as running:
        yield running


class TestUsage:
    def test_help_is_shown(self) -> None:
        shown = smoke_test("--help")
        assert (shown.returncode, shown.stdout) == (0, "")
        assert "scripts/smoke-test.sh URL" in shown.stderr

    @pytest.mark.parametrize("arguments", [(), ("one", "two")], ids=["none", "two"])
    def test_one_url_is_wanted(self, arguments: tuple[str, ...]) -> None:
        assert smoke_test(*arguments).returncode == 2


class TestSmokeTest:
    def test_a_working_server_passes_and_keeps_no_account(self, server: Server, database: Database) -> None:
        passed = smoke_test(f"{server.url}/")
        assert passed.returncode == 0, passed.stderr
        assert passed.stdout.endswith(f"smoke-test: {server.url} works\n")
        for step in ("register", "log in", "refresh", "log out", "delete the account", "the account is gone"):
            assert f"ok  {step}\n" in passed.stdout
        assert accounts(database) == 0

    def test_a_server_that_wants_verified_addresses_passes_up_to_there(
        self, database: Database, database_url: str, signing_keys: str
    ) -> None:
        with Server(database_url, signing_keys, AUTH_REQUIRE_VERIFIED_EMAIL="true") as server:
            passed = smoke_test(server.url)
        assert passed.returncode == 0, passed.stderr
        assert "ok  a login before verification is refused\n" in passed.stdout
        assert passed.stdout.endswith(" stays, unverified\n")
        assert accounts(database) == 1

    def test_a_server_that_wants_second_factors_passes_up_to_there(
        self, database: Database, database_url: str, signing_keys: str
    ) -> None:
        with Server(database_url, signing_keys, AUTH_MFA_POLICY="required") as server:
            passed = smoke_test(server.url)
        assert passed.returncode == 0, passed.stderr
        assert passed.stdout.endswith(" nobody without a second factor\n")
        assert " stays\n" in passed.stderr
        assert accounts(database) == 1

    def test_nothing_that_answers_is_named(self) -> None:
        url = f"http://127.0.0.1:{find_free_port()}"
        failed = smoke_test(url)
        assert failed.returncode == 1
        assert f"smoke-test: the process answers: {url} does not answer" in failed.stderr

    def test_a_page_is_no_api(self) -> None:
        with parked_domain() as url:
            failed = smoke_test(url)
        assert failed.returncode == 1
        assert (
            failed.stderr
            == "smoke-test: public keys are listed: not the JSON of this API: <h1>Buy this domain</h1>\n"
        )

    def test_a_broken_login_is_named_with_the_account_that_stays(
        self, server: Server, database: Database
    ) -> None:
        with renamed(database, "refresh_lines"):
            failed = smoke_test(server.url)
        assert failed.returncode == 1
        assert "smoke-test: log in: POST /auth/login answered 500 instead of 200: {" in failed.stderr
        assert re.search(r"smoke-test: the account \S+@\S+ stays\n", failed.stderr)
        assert accounts(database) == 1

    def test_a_failure_after_the_login_keeps_no_account(self, server: Server, database: Database) -> None:
        with database.one_trip() as connection:
            connection.add(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'refresh is broken'; END $$;"
                "CREATE TRIGGER refuse BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        try:
            failed = smoke_test(server.url)
        finally:
            with database.one_trip() as connection:
                connection.add("DROP TRIGGER refuse ON sessions; DROP FUNCTION refuse()")
        assert failed.returncode == 1
        assert "smoke-test: refresh: POST /auth/refresh answered 500" in failed.stderr
        assert accounts(database) == 0

    def test_no_secret_is_in_the_output(self, server: Server) -> None:
        passed = smoke_test(server.url)
        assert passed.returncode == 0, passed.stderr
        assert "eyJ" not in passed.stdout + passed.stderr
        assert "password" not in passed.stdout + passed.stderr

"""Starting: as anyone, without a database, and not at all where a key is missing or weak."""

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container.conftest import EVENTS, FIGURES, Function, Start, free_port

from auth_manager.local.keys import load_or_generate_local_keys
from auth_manager.local.postgres import start_embedded
from auth_manager.migrate import apply_migrations

pytestmark = pytest.mark.container

HEALTH = (EVENTS / "health.json").read_text()
READY = (EVENTS / "ready.json").read_text()
REGISTER = (EVENTS / "register.json").read_text()


@pytest.fixture(scope="module")
def local_keys() -> Iterator[dict[str, str]]:
    """Keys that `make local` made."""
    with tempfile.TemporaryDirectory() as directory:
        keys = load_or_generate_local_keys(Path(directory))
        yield {
            "AUTH_SIGNING_KEYS": json.dumps(json.loads(keys.signing_keys_file.read_text())),
            "AUTH_SECRET_KEYS": keys.secret_keys[0],
        }


class TestAnyUser:
    @pytest.mark.parametrize("user", ["0:0", "993:990", "65534:65534"])
    def test_it_runs_as(self, start: Start, environment: dict[str, str], user: str) -> None:
        assert start(environment, user=user).invoke(READY)["statusCode"] == 200

    def test_it_needs_no_file_system_to_write_to(self, start: Start, environment: dict[str, str]) -> None:
        function = start(environment, restrictions=("--read-only", "--cap-drop", "ALL"))
        assert function.invoke(READY)["statusCode"] == 200

    def test_a_cold_start_is_measured(self, start: Start, environment: dict[str, str]) -> None:
        function = start(environment)
        started = time.monotonic()
        assert function.invoke(HEALTH)["statusCode"] == 200
        FIGURES.append(f"first answer of a cold function: {time.monotonic() - started:.2f} s")


class TestTracing:
    @pytest.mark.usefixtures("database")
    def test_it_serves_with_x_ray_on(self, start: Start, environment: dict[str, str]) -> None:
        """Patched psycopg2 included."""
        function = start(environment | {"AUTH_TRACING_ENABLED": "true"})
        assert function.invoke(REGISTER)["statusCode"] == 201
        assert function.invoke(READY)["statusCode"] == 200
        assert "Traceback" not in function.output()


class TestRefusesToStart:
    """ASVS 6.3.2: the reason is in the log, the value is not."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"AUTH_SIGNING_KEYS": ""}, "no signing key"),
            ({"AUTH_SECRET_KEYS": ""}, "AUTH_SECRET_KEYS is not set"),
            ({"AUTH_SECRET_KEYS": "Weak-Key-8c1d"}, "a key is under 32 bytes"),
            ({"AUTH_SECRET_KEYS": "abc" * 16}, "a key is not random"),
            (
                {"AUTH_SIGNING_KEYS": "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----"},
                "AUTH_SIGNING_KEYS: ",
            ),
            ({"AUTH_PUBLIC_URL": "http://auth.example.com"}, "must be an https:// URL"),
            ({"AUTH_DATABASE_URL": ""}, "AUTH_DATABASE_URL is not set"),
        ],
        ids=[
            "no signing key",
            "no secret key",
            "short secret key",
            "repeated secret key",
            "broken signing key",
            "plain http",
            "no database",
        ],
    )
    def test_a_configuration_that_is(
        self, start: Start, environment: dict[str, str], change: dict[str, str], reason: str
    ) -> None:
        self._assert_refused(start, environment | change, reason)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("AUTH_SECRET_KEYS", "made for local mode"), ("AUTH_SIGNING_KEYS", "local")],
        ids=["secret key", "signing key"],
    )
    def test_a_key_made_for_a_laptop(
        self,
        start: Start,
        environment: dict[str, str],
        local_keys: dict[str, str],
        name: str,
        reason: str,
    ) -> None:
        self._assert_refused(start, environment | {name: local_keys[name]}, reason)

    @staticmethod
    def _assert_refused(start: Start, environment: dict[str, str], reason: str) -> None:
        function = start(environment)
        assert "statusCode" not in function.send(HEALTH).text
        output = function.output()
        assert "ConfigurationError" in output
        assert reason in output
        for name in ("AUTH_DATABASE_URL", "AUTH_SIGNING_KEYS", "AUTH_SECRET_KEYS"):
            assert not environment[name] or environment[name] not in output


class TestDatabaseDown:
    def test_it_answers_503_soon_and_recovers_by_itself(
        self, start: Start, environment: dict[str, str], gateway: str
    ) -> None:
        port = free_port(gateway)
        with tempfile.TemporaryDirectory(prefix="auth-manager-test-") as directory:
            # Started once for its password, which the function must know from the beginning.
            with start_embedded(Path(directory), durable=False) as server:
                apply_migrations(server.url)
                password = server.url.split("@")[0]
            function = start(
                environment | {"AUTH_DATABASE_URL": f"{password}@host.docker.internal:{port}/postgres"}
            )
            self._assert_unavailable(function, "refused connection")
            with start_embedded(Path(directory), listen=(gateway, port), durable=False):
                assert function.invoke(REGISTER)["statusCode"] == 201
                assert function.invoke(READY)["statusCode"] == 200
            self._assert_unavailable(function, "lost server")
            with start_embedded(Path(directory), listen=(gateway, port), durable=False):
                assert function.invoke(REGISTER)["statusCode"] == 409

    def test_a_server_that_never_answers_is_given_up(
        self, start: Start, environment: dict[str, str], gateway: str
    ) -> None:
        """The kernel accepts the connection, and then nothing comes."""
        with socket.create_server((gateway, 0)) as silent:
            port = silent.getsockname()[1]
            url = f"postgresql://nobody:nothing@host.docker.internal:{port}/postgres"
            function = start(environment | {"AUTH_DATABASE_URL": url})
            assert function.invoke(HEALTH)["statusCode"] == 200
            self._assert_unavailable(function, "silent server")

    @staticmethod
    def _assert_unavailable(function: Function, what: str) -> None:
        started = time.monotonic()
        answer = function.invoke(REGISTER)
        seconds = time.monotonic() - started
        FIGURES.append(f"503 for a {what}: {seconds:.2f} s")
        assert answer["statusCode"] == 503
        assert int(answer["headers"]["retry-after"]) >= 1
        assert json.loads(answer["body"])["code"] == "database_unavailable"
        assert seconds < 3

"""The service does what /openapi.json says: generated requests find no 5xx and nothing undocumented."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from auth_manager.database import Database

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Server

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
    "negative_data_rejection",
)
ENDS_THE_SESSION = ("POST /auth/logout", "DELETE /auth/me")
"""Driven with a session of their own, which the first success ends."""


@pytest.fixture(scope="module")
def server(database_url: str, signing_keys: str, server_type: type["Server"]) -> Iterator["Server"]:
    with server_type(
        database_url,
        signing_keys,
        AUTH_REGISTRATIONS_PER_ADDRESS="1000000",
        AUTH_LOGIN_ATTEMPTS_PER_ADDRESS="1000000",
    ) as server:
        yield server


@pytest.fixture
def http(server: "Server", database: Database) -> Iterator[httpx2.Client]:  # noqa: ARG001 -- empty tables
    with server.client() as client:
        yield client


def run(server: "Server", http: httpx2.Client, person: dict[str, str], tmp_path: Path, *options: str) -> str:
    """Run the command with a session of `person`; return what it printed, or fail with it."""
    http.post("/auth/register", json=person)
    token = http.post("/auth/login", json=person).json()["access_token"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {token}"),
            *("--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "40", "--generation-deterministic"),
            *("--workers", "1", "--no-color", "--warnings", "off", "--continue-on-failure"),
            *options,
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("AUTH_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestOpenApi:
    def test_generated_requests_find_nothing_undocumented(
        self, server: "Server", http: httpx2.Client, person: dict[str, str], tmp_path: Path
    ) -> None:
        excluded = [f"--exclude-name={name}" for name in ENDS_THE_SESSION]

        report = run(server, http, person, tmp_path, *excluded)

        operations = len([m for path in http.get("/openapi.json").json()["paths"].values() for m in path])
        assert re.search(rf"Selected: *{operations - len(ENDS_THE_SESSION)}/{operations}", report), report

    @pytest.mark.parametrize("name", ENDS_THE_SESSION)
    def test_nor_do_those_that_end_the_session(
        self, server: "Server", http: httpx2.Client, person: dict[str, str], tmp_path: Path, name: str
    ) -> None:
        report = run(server, http, person, tmp_path, f"--include-name={name}")

        assert re.search(r"Selected: *1/", report), report

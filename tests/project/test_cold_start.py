"""What the Lambda entry point loads before the first request: every module is paid for by someone who waits.

The list is a snapshot, so that a new import is a decision and not an accident.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

EXPECTED = [
    "annotated_doc",
    "annotated_types",
    "anyio",
    "argon2",
    "aws_lambda_powertools",
    "bcrypt",
    "botocore",
    "cryptography",
    "dotenv",
    "email_validator",
    "fastapi",
    "idna",
    "jmespath",
    "jwt",
    "mangum",
    "psycopg2",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "starlette",
    "typing_extensions",
    "typing_inspection",
    "uuid6",
]
"""Projects of others that the cold start loads, some of them only in part: of botocore its version, of bcrypt
what cryptography looks for. FastAPI itself loads email_validator where it is installed."""

WHERE_INSTALLED = {"opentelemetry"}
"""What FastAPI loads when it is there; the tools of the tests bring it, the image does not."""

MOST_MODULES = 720
"""Python's own included: 654 with Python 3.11, and a tenth of room for the others."""

LAZY = {
    "aws_xray_sdk": "with AUTH_TRACING_ENABLED alone",
    "boto3": "to read a secret from Secrets Manager; costs as much as FastAPI",
    "botocore.session": "likewise",
    "dns": "never: addresses are not looked up",
    "http.server": "never",
    "jinja2": "to render a mail",
    "passlib": "to verify an imported hash",
    "psutil": "on a laptop alone",
    "rich": "on the command line alone",
    "typer": "on the command line alone",
    "uvicorn": "in server mode alone",
    "webauthn": "with the first passkey",
    "xml.etree": "never",
}
"""What must not be loaded at cold start, and when it is instead."""

PROBE = """\
import json, sys
from auth_manager.entrypoints.lambda_api import handler
after_import = sorted(sys.modules)
event = {
    "version": "2.0",
    "headers": {"content-type": "application/json"},
    "requestContext": {"http": {"method": "POST", "path": "/auth/login", "sourceIp": "203.0.113.7"}},
    "body": json.dumps({"email": "nobody@cold.example.com", "password": "SecurePass123!"}),
}
status = handler(event, None)["statusCode"]
print(json.dumps({"import": after_import, "login": sorted(sys.modules), "status": status}))
"""


@pytest.fixture(scope="module")
def loaded(database_url: str, signing_keys: str) -> dict[str, Any]:
    """Names of all modules after the import, and after a first login."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTH_", "AWS_", "POWERTOOLS_", "COVERAGE_", "COV_"))
    }
    settings = {
        "AUTH_PUBLIC_URL": "https://auth.example.com",
        "AUTH_DATABASE_URL": database_url,
        "AUTH_SIGNING_KEYS": signing_keys,
        "AUTH_SECRET_KEYS": "0123456789abcdefghijklmnopqrstuvwxyz-test-only",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=inherited | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def of_others(modules: list[str]) -> set[str]:
    """Return the top-level names that are neither ours nor Python's nor the test environment's own."""
    ours = {"auth_manager", "__main__", "__mp_main__"}
    environment = {name for name in {m.partition(".")[0] for m in modules} if name.startswith("_")}
    return {m.partition(".")[0] for m in modules} - sys.stdlib_module_names - ours - environment


class TestImport:
    def test_it_loads_these_and_no_others(self, loaded: dict[str, Any]) -> None:
        found = of_others(loaded["import"])

        sys.stdout.write(f"{len(loaded['import'])} modules, of {len(found)} projects\n")
        assert sorted(found - WHERE_INSTALLED) == sorted(EXPECTED)

    @pytest.mark.parametrize("module", LAZY)
    def test_it_leaves_out(self, loaded: dict[str, Any], module: str) -> None:
        assert module not in loaded["import"], LAZY[module]

    def test_it_does_not_grow_unnoticed(self, loaded: dict[str, Any]) -> None:
        assert len(loaded["import"]) <= MOST_MODULES


class TestFirstLogin:
    def test_it_adds_nothing_of_others(self, loaded: dict[str, Any]) -> None:
        added = set(loaded["login"]) - set(loaded["import"])

        sys.stdout.write(f"{len(added)} more modules: {sorted(added)}\n")
        assert loaded["status"] == 401
        assert of_others(loaded["login"]) == of_others(loaded["import"])
        assert not added & LAZY.keys()

"""What the Lambda entry point loads before the first request: every module is paid for by someone who waits.

The list is a snapshot, so that a new import is a decision and not an accident.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from auth_manager.app import FEATURES, PAGES

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
    "fastapi",
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
what cryptography looks for."""

WHERE_INSTALLED = {"opentelemetry"}
"""What FastAPI loads when it is there; the tools of the tests bring it, the image does not."""

MOST_MODULES = 700
"""Python's own included: 637 with Python 3.11, and a tenth of room for the others."""

OF_ADDRESSES = {"email_validator", "idna"}
"""What the first e-mail address loads."""

LAZY = {
    "auth_manager.erasure": "with the first request for it, like most features",
    "auth_manager.pages": "likewise",
    "auth_manager.mail": "in the worker and the server alone",
    "aws_xray_sdk": "with AUTH_TRACING_ENABLED alone",
    "OpenSSL": "with the first attestation",
    "boto3": "to read a secret from Secrets Manager; costs as much as FastAPI",
    "botocore.session": "likewise",
    "cbor2": "with the first passkey",
    "dns": "never: addresses are not looked up",
    "email_validator": "with the first address; FastAPI would load it",
    "http.server": "never",
    "jinja2": "to render a mail",
    "passlib": "to verify an imported hash",
    "psutil": "on a laptop alone",
    "pydantic.v1": "never; FastAPI would load it",
    "pyotp": "with the first authenticator app",
    "rich": "on the command line alone",
    "segno": "to draw a QR code",
    "smtplib": "to send a mail",
    "typer": "on the command line alone",
    "uvicorn": "in server mode alone",
    "webauthn": "with the first passkey",
    "xml.etree": "never",
}
"""What must not be loaded at cold start, and when it is instead."""

PROBE = """\
import gc, json, sys
from auth_manager.entrypoints.lambda_api import handler
after_import = sorted(sys.modules)
frozen = gc.isenabled() and gc.get_freeze_count()
event = {
    "version": "2.0",
    "headers": {"content-type": "application/json"},
    "requestContext": {"http": {"method": "POST", "path": "/auth/login", "sourceIp": "203.0.113.7"}},
    "body": json.dumps({"email": "nobody@cold.example.com", "password": "SecurePass123!"}),
}
status = handler(event, None)["statusCode"]
after_login = sorted(sys.modules)
event["requestContext"]["http"]["path"] = "/auth/refresh"
event["body"] = json.dumps({"refresh_token": "rt_" + "A" * 76})
refreshed = handler(event, None)["statusCode"]
after_refresh = sorted(sys.modules)
event["requestContext"]["http"]["path"] = "/auth/password/forgot"
event["headers"]["accept-language"] = "fr"
event["body"] = json.dumps({"email": "nobody@cold.example.com"})
forgot = handler(event, None)["statusCode"]
print(json.dumps({"import": after_import, "login": after_login, "status": status, "forgot": forgot,
                  "refresh": after_refresh, "refreshed": refreshed,
                  "mail": sorted(sys.modules), "frozen": frozen}))
"""


def run(probe: str, settings: dict[str, str]) -> Any:
    """Run Python with these settings and no others; return the JSON of its last line."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTH_", "AWS_", "POWERTOOLS_", "COVERAGE_", "COV_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", probe], env=inherited | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def deployed(database_url: str, signing_keys: str) -> dict[str, str]:
    return {
        "AUTH_PUBLIC_URL": "https://auth.example.com",
        "AUTH_DATABASE_URL": database_url,
        "AUTH_SIGNING_KEYS": signing_keys,
        "AUTH_SECRET_KEYS": "0123456789abcdefghijklmnopqrstuvwxyz-test-only",
    }


@pytest.fixture(scope="module")
def loaded(deployed: dict[str, str]) -> dict[str, Any]:
    """Names of all modules after the import, after a first login, and after a first mail was asked for."""
    result: dict[str, Any] = run(PROBE, deployed)
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

    def test_no_collection_walks_through_it_again(self, loaded: dict[str, Any]) -> None:
        assert loaded["frozen"] > 10 * len(loaded["import"])


class TestStartAhead:
    def test_a_start_that_nobody_waits_for_loads_every_feature(self, deployed: dict[str, str]) -> None:
        probe = (
            "import json, sys; import auth_manager.entrypoints.lambda_api; print(json.dumps([*sys.modules]))"
        )

        found = run(probe, deployed | {"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"})

        assert {feature.module for feature in (*FEATURES, PAGES)} <= set(found)
        assert "pydantic.v1" not in found


class TestFirstLogin:
    def test_it_adds_nothing_of_others(self, loaded: dict[str, Any]) -> None:
        added = set(loaded["login"]) - set(loaded["import"])

        sys.stdout.write(f"{len(added)} more modules: {sorted(added)}\n")
        assert loaded["status"] == 401
        assert of_others(loaded["login"]) == of_others(loaded["import"]) | OF_ADDRESSES
        assert not (added - OF_ADDRESSES) & LAZY.keys()


class TestFirstRefresh:
    def test_it_adds_nothing(self, loaded: dict[str, Any]) -> None:
        assert loaded["refreshed"] == 401
        assert loaded["refresh"] == loaded["login"]


class TestFirstMail:
    def test_it_is_composed_elsewhere(self, loaded: dict[str, Any]) -> None:
        added = set(loaded["mail"]) - set(loaded["login"])

        assert loaded["forgot"] == 202
        assert of_others(loaded["mail"]) == of_others(loaded["login"])
        assert not added & LAZY.keys()
        assert not any(name.startswith(("smtplib", "auth_manager.mail")) for name in loaded["mail"])

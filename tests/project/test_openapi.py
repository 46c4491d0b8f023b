"""docs/openapi.json is what the application says of itself, and what it says of errors is complete."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from auth_manager.errors import AuthError

ROOT = Path(__file__).resolve().parents[2]
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

Operation = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rendered() -> str:
    """What `make openapi` would write now."""
    text: str = runpy.run_path(str(ROOT / "scripts" / "write_openapi.py"))["render"]()
    return text


@pytest.fixture(scope="module")
def document(rendered: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(rendered)
    return content


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> list[Operation]:
    found = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert found, "no operation to look at"
    return found


def error_responses(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}


def subclasses(kind: type[AuthError]) -> set[type[AuthError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


class TestSnapshot:
    def test_it_is_up_to_date(self, rendered: str) -> None:
        snapshot = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")

        assert rendered == snapshot, "docs/openapi.json is out of date: run `make openapi`, read the diff"

    def test_the_environment_changes_nothing(self, rendered: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_PRODUCT_NAME", "Another")
        monkeypatch.setenv("AUTH_MODE", "deployed")
        monkeypatch.setenv("AUTH_SIGNING_KEYS_FILE", "elsewhere.json")

        again = runpy.run_path(str(ROOT / "scripts" / "write_openapi.py"))["render"]()

        assert again == rendered


class TestOperations:
    def test_each_has_a_summary_and_a_description(self, operations: list[Operation]) -> None:
        without = [
            name
            for name, operation in operations
            if not operation.get("summary") or not operation.get("description")
        ]

        assert without == []

    def test_each_has_an_id_of_its_own(self, operations: list[Operation]) -> None:
        identifiers = [operation["operationId"] for _, operation in operations]

        assert len(set(identifiers)) == len(identifiers)

    def test_no_url_carries_a_secret(self, operations: list[Operation]) -> None:
        """ASVS 14.2.1: a new name here needs the question what would be in the access log."""
        names = {
            parameter["name"]
            for _, operation in operations
            for parameter in operation.get("parameters", [])
            if parameter["in"] in {"path", "query"}
        }

        of_the_trail = {"actor_id", "address", "event", "operator", "outcome", "since", "until"}
        of_users = {"email", "prefix", "role", "status"}  # personal, no secret; our own log has no query
        assert names - of_the_trail - of_users == {
            "account_id",
            "cursor",
            "device_id",
            "endpoint_id",
            "limit",
            "message_id",
            "name",
            "passkey_id",
            "session_id",
        }

    def test_a_token_can_be_refused(self, operations: list[Operation]) -> None:
        with_token = [(name, operation) for name, operation in operations if operation.get("security")]

        assert with_token
        for name, operation in with_token:
            assert "`invalid_token`" in operation["responses"]["401"]["description"], name
            assert "`missing_token`" in operation["responses"]["401"]["description"], name

    def test_a_body_can_be_refused(self, operations: list[Operation]) -> None:
        with_body = [(name, operation) for name, operation in operations if "requestBody" in operation]

        assert with_body
        for name, operation in with_body:
            assert {"400", "413", "415", "422"} <= operation["responses"].keys(), name

    def test_under_auth_the_database_can_be_gone(self, operations: list[Operation]) -> None:
        under_auth = [(name, operation) for name, operation in operations if " /auth/" in name]

        assert under_auth
        for name, operation in under_auth:
            assert "`database_unavailable`" in operation["responses"]["503"]["description"], name


class TestErrors:
    def test_every_error_is_a_problem(self, operations: list[Operation]) -> None:
        others = [
            (name, status)
            for name, operation in operations
            for status, answer in error_responses(operation).items()
            if answer.get("content") != PROBLEM
        ]

        assert others == []

    def test_every_code_exists_with_that_status_and_title(self, operations: list[Operation]) -> None:
        known = {(f"{kind.status}", kind.code, kind.title()) for kind in subclasses(AuthError)}
        named = {
            (status, *re.fullmatch(r"`(\w+)`: (.+)", line).groups())  # type: ignore[union-attr]  # or it fails
            for _, operation in operations
            for status, answer in error_responses(operation).items()
            for line in answer["description"].split("\n\n")
        }

        assert named
        assert named <= known

    def test_nothing_speaks_of_fastapis_own_errors(self, rendered: str, document: dict[str, Any]) -> None:
        assert "HTTPValidationError" not in rendered
        assert "ValidationError" not in document["components"]["schemas"]


class TestSchemas:
    def test_every_reference_leads_somewhere(self, rendered: str, document: dict[str, Any]) -> None:
        referenced = set(re.findall(r'"#/components/schemas/(\w+)"', rendered))

        assert referenced == set(document["components"]["schemas"])

    def test_requests_refuse_unknown_fields(
        self, operations: list[Operation], document: dict[str, Any]
    ) -> None:
        bodies = json.dumps([operation.get("requestBody") for _, operation in operations])
        names = set(re.findall(r"#/components/schemas/(\w+)", bodies))

        assert names
        for name in names:
            assert document["components"]["schemas"][name]["additionalProperties"] is False, name

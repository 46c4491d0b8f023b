"""How a client presents what was mailed: one form or the other, and nothing else."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from auth_manager.app import create_app
from auth_manager.audit import Origin
from auth_manager.invitations.service import invite
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

TOKEN = "ot_" + "A" * 64
REQUEST = "01a201d0-da97-7f7a-979e-e5fbb02a9aa5"
ROUTES: dict[str, dict[str, str]] = {
    "/auth/verify-email": {},
    "/auth/password/reset": {"password": "SecurePass123!"},
    "/auth/email-login/verify": {},
}
LINK_ROUTES: dict[str, dict[str, str]] = {
    "/auth/invitations/accept": {"password": "SecurePass123!"},
    "/auth/me/keep": {},
}
"""Whose mails have no code."""
every_route = pytest.mark.parametrize("path", ROUTES)
every_link_route = pytest.mark.parametrize("path", LINK_ROUTES)
BY_TOKEN = [{"token": TOKEN}, {"token": ""}]
BY_CODE = [{"request": REQUEST, "code": "123456"}, {"request": REQUEST, "code": ""}]
NEITHER: list[dict[str, Any]] = [
    {},
    {"token": None},
    {"request": REQUEST},
    {"code": "123456"},
    {"token": TOKEN, "request": REQUEST, "code": "123456"},
    {"token": TOKEN, "code": "123456"},
    {"token": TOKEN, "request": REQUEST},
    {"request": "1", "code": "123456"},
    {"request": REQUEST, "code": 123456},
    {"request": REQUEST, "code": "1" * 17},
    {"token": "A" * 257},
    {"token": [TOKEN]},
    {"token": TOKEN, "purpose": "verify_email"},
    {"token": TOKEN, "account_id": REQUEST},
]


class TestProofFields:
    @every_route
    @pytest.mark.parametrize("proof", BY_TOKEN + BY_CODE, ids=str)
    def test_either_form_is_looked_at(self, client: TestClient, path: str, proof: dict[str, str]) -> None:
        answer = client.post(path, json=ROUTES[path] | proof)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_one_time_secret")

    @every_route
    @pytest.mark.parametrize("proof", NEITHER, ids=str)
    def test_anything_else_is_refused_without_an_echo(
        self, client: TestClient, path: str, proof: dict[str, Any]
    ) -> None:
        answer = client.post(path, json=ROUTES[path] | proof)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")
        assert TOKEN not in answer.text
        assert "SecurePass123!" not in answer.text

    @every_route
    def test_the_specification_says_so(self, client: TestClient, path: str) -> None:
        schema = schema_of(client, path)
        assert schema["oneOf"] == [{"required": ["token"]}, {"required": ["request", "code"]}]
        assert schema["additionalProperties"] is False


class TestLinkFields:
    @every_link_route
    @pytest.mark.parametrize("proof", BY_TOKEN, ids=str)
    def test_a_token_is_looked_at(self, client: TestClient, path: str, proof: dict[str, str]) -> None:
        answer = client.post(path, json=LINK_ROUTES[path] | proof)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_one_time_secret")

    @every_link_route
    @pytest.mark.parametrize("proof", NEITHER + BY_CODE, ids=str)
    def test_anything_else_is_refused_without_an_echo(
        self, client: TestClient, path: str, proof: dict[str, Any]
    ) -> None:
        answer = client.post(path, json=LINK_ROUTES[path] | proof)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")
        assert TOKEN not in answer.text
        assert "SecurePass123!" not in answer.text

    @every_link_route
    def test_the_specification_says_so(self, client: TestClient, path: str) -> None:
        schema = schema_of(client, path)
        assert set(schema["required"]) == {"token", *LINK_ROUTES[path]}
        assert {"request", "code"}.isdisjoint(schema["properties"])
        assert schema["additionalProperties"] is False

    def test_the_code_that_an_invitation_would_have_opens_nothing(self, resources: Resources) -> None:
        """Not where invitations are accepted, nor anywhere else; no guess at it is even counted."""
        http = TestClient(create_app(resources), base_url="https://auth.example.com")
        origin = Origin(None, "", "request", datetime.now(UTC), operator="tester")
        request = invite(resources, origin, "invited@example.com")
        code = resources.one_time_secrets.code(Purpose.INVITATION, request)

        statuses = {
            path: http.post(path, json=fields | {"request": str(request), "code": code}).status_code
            for path, fields in (ROUTES | LINK_ROUTES).items()
        }

        assert statuses == {path: 422 if path in LINK_ROUTES else 400 for path in statuses}
        with resources.database.one_trip() as connection:
            [row] = connection.fetch_all("SELECT failures, used_at FROM one_time_secrets")
        assert (row["failures"], row["used_at"]) == (0, None)


def schema_of(client: TestClient, path: str) -> dict[str, Any]:
    """Return what the specification says about the body of a POST."""
    specification = client.get("/openapi.json").json()
    body = specification["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema: dict[str, Any] = specification["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    return schema


class TestByMail:
    @pytest.mark.parametrize(
        "path", ["/auth/password/forgot", "/auth/email-login", "/auth/verify-email/resend"]
    )
    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"email": None},
            {"email": 1},
            {"email": "a" * 321},
            {"email": "a@example.com", "role": "admin"},
        ],
        ids=str,
    )
    def test_it_takes_an_address_alone(self, client: TestClient, path: str, body: dict[str, Any]) -> None:
        assert client.post(path, json=body).status_code == 422

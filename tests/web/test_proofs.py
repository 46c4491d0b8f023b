"""How a client presents what was mailed: one form or the other, and nothing else."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

TOKEN = "ot_" + "A" * 64
REQUEST = "01a201d0-da97-7f7a-979e-e5fbb02a9aa5"
ROUTES: dict[str, dict[str, str]] = {
    "/auth/verify-email": {},
    "/auth/password/reset": {"password": "SecurePass123!"},
    "/auth/email-login/verify": {},
    "/auth/invitations/accept": {"password": "SecurePass123!"},
    "/auth/me/keep": {},
}
every_route = pytest.mark.parametrize("path", ROUTES)


class TestProofFields:
    @every_route
    @pytest.mark.parametrize(
        "proof",
        [
            {"token": TOKEN},
            {"token": ""},
            {"request": REQUEST, "code": "123456"},
            {"request": REQUEST, "code": ""},
        ],
        ids=str,
    )
    def test_either_form_is_looked_at(self, client: TestClient, path: str, proof: dict[str, str]) -> None:
        answer = client.post(path, json=ROUTES[path] | proof)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_one_time_secret")

    @every_route
    @pytest.mark.parametrize(
        "proof",
        [
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
        ],
        ids=str,
    )
    def test_anything_else_is_refused_without_an_echo(
        self, client: TestClient, path: str, proof: dict[str, Any]
    ) -> None:
        answer = client.post(path, json=ROUTES[path] | proof)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")
        assert TOKEN not in answer.text
        assert "SecurePass123!" not in answer.text

    @every_route
    def test_the_specification_says_so(self, client: TestClient, path: str) -> None:
        specification = client.get("/openapi.json").json()
        body = specification["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        schema = specification["components"]["schemas"][body["$ref"].rpartition("/")[2]]
        assert schema["oneOf"] == [{"required": ["token"]}, {"required": ["request", "code"]}]
        assert schema["additionalProperties"] is False


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

"""The Authorization header."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from auth_manager.resources import Resources

Ask = Callable[..., Any]

LOGIN = {"email": "test@example.com", "password": "SecurePass123!"}


@pytest.fixture
def token(client: TestClient) -> str:
    client.post("/auth/register", json=LOGIN)
    return str(client.post("/auth/login", json=LOGIN).json()["access_token"])


class TestBearer:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_the_scheme_has_no_case(self, client: TestClient, token: str, scheme: str) -> None:
        assert client.get("/auth/me", headers={"Authorization": f"{scheme} {token}"}).status_code == 200

    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Token {}", "Bearer{}"])
    def test_another_scheme_is_no_token(self, client: TestClient, token: str, header: str) -> None:
        response = client.get("/auth/me", headers={"Authorization": header.format(token)})
        assert (response.status_code, response.json()["code"]) == (401, "missing_token")
        assert response.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("header", ["Bearer x", "Bearer {}=", "Bearer {} ", "Bearer {},x", "Bearer {}.x"])
    def test_a_token_is_exact(self, client: TestClient, token: str, header: str) -> None:
        response = client.get("/auth/me", headers={"Authorization": header.format(token)})
        expected = 200 if header.endswith(" ") else 401  # HTTP itself drops white space at the end
        assert response.status_code == expected
        if expected == 401:
            assert response.json()["code"] == "invalid_token"
            assert 'error="invalid_token"' in response.headers["www-authenticate"]

    def test_two_headers_are_none(self, ask: Ask, token: str) -> None:
        header = (b"authorization", f"Bearer {token}".encode())
        assert ask("/auth/me", method="GET", headers=[header]).status == 200
        assert ask("/auth/me", method="GET", headers=[header, header]).status == 401
        assert ask("/auth/me", method="GET", headers=[header, (b"authorization", b"Basic x")]).status == 401

    def test_it_is_read_nowhere_else(self, client: TestClient, token: str) -> None:
        assert client.get(f"/auth/me?access_token={token}").status_code == 401
        assert client.get("/auth/me", headers={"Cookie": f"access_token={token}"}).status_code == 401
        assert client.post("/auth/logout", json={"access_token": token}).status_code == 401

    def test_an_invalid_token_comes_before_an_invalid_body(self, client: TestClient) -> None:
        assert client.patch("/auth/me", json={"unknown": 1}).status_code == 401

    def test_an_expired_token_is_invalid(self, client: TestClient, resources: Resources) -> None:
        now = datetime.now(UTC) - timedelta(hours=2)
        issued = resources.access_tokens.issue(
            account_id=UUID(int=1),
            session_id=UUID(int=2),
            token_id=UUID(int=3),
            client_id="auth-manager",
            scope="account",
            roles=[],
            authenticated_at=now,
            amr=["pwd"],
            acr="aal1",
            now=now,
            lifetime=timedelta(hours=1),
        )
        response = client.get("/auth/me", headers={"Authorization": f"Bearer {issued.token}"})
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")

    def test_a_token_of_another_deployment_is_invalid(
        self, make_client: Callable[..., TestClient], token: str
    ) -> None:
        for other in ({"public_url": "https://other.example.com"}, {"audience": "other"}):
            headers = {"Authorization": f"Bearer {token}"}
            assert make_client(**other).get("/auth/me", headers=headers).status_code == 401

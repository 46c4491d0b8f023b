"""Errors as RFC 9457 problem details."""

import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient

from auth_manager import errors
from auth_manager.errors import AuthError, FieldError
from auth_manager.observability import request_id
from auth_manager.web import problems
from auth_manager.web.problems import problem, responses


def every_error(kind: type[AuthError] = AuthError) -> Iterator[type[AuthError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every_error(child)


class TestProblem:
    @pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
    def test_each_error_renders(self, kind: type[AuthError]) -> None:
        token = request_id.set("the-request")
        response = problem(kind())
        request_id.reset(token)
        assert response.status_code == kind.status
        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(bytes(response.body)) == {
            "type": f"urn:auth-manager:problem:{kind.code}",
            "title": kind.title(),
            "status": kind.status,
            "detail": kind.title(),
            "code": kind.code,
            "request_id": "the-request",
        }
        assert ("www-authenticate" in response.headers) is (kind.status == 401)
        assert ("retry-after" in response.headers) is (kind.status == 503)

    def test_fields_are_listed(self) -> None:
        error = errors.InvalidFields(errors=[FieldError("/a", "b", "c")])
        body = json.loads(bytes(problem(error).body))
        assert body["errors"] == [{"pointer": "/a", "code": "b", "detail": "c"}]

    @pytest.mark.parametrize(
        ("error", "challenge"),
        [
            (errors.MissingToken(), "Bearer"),
            (errors.InvalidCredentials(), "Bearer"),
            (errors.InvalidRefreshToken(), "Bearer"),
            (
                errors.InvalidToken(),
                'Bearer error="invalid_token", error_description="The access token is not valid."',
            ),
            (
                errors.SessionEnded(),
                'Bearer error="invalid_token", error_description="The session has ended."',
            ),
            (errors.RecentAuthenticationRequired(headers={"WWW-Authenticate": "Bearer x"}), "Bearer x"),
        ],
        ids=lambda value: getattr(value, "code", ""),
    )
    def test_a_challenge_names_the_error_of_a_token_that_was_presented(
        self, error: AuthError, challenge: str
    ) -> None:
        assert problem(error).headers["www-authenticate"] == challenge

    def test_retry_after_is_in_seconds(self) -> None:
        assert problem(errors.TooManyAttempts(retry_after=30)).headers["retry-after"] == "30"


class TestInstall:
    @pytest.fixture
    def small(self) -> TestClient:
        """An application of another kind, with our errors."""
        app = FastAPI()
        problems.install(app)

        @app.get("/teapot")
        async def teapot() -> None:
            raise HTTPException(418, detail="canary")

        @app.get("/items/{number}")
        async def item(number: int, size: int = 0) -> int:
            return number + size

        @app.put("/items/{number}")
        async def put(number: int) -> int:
            return number

        return TestClient(app)

    def test_an_http_error_we_do_not_know_is_a_defect(self, small: TestClient) -> None:
        response = small.get("/teapot")
        assert (response.status_code, response.json()["code"]) == (500, "internal_error")
        assert "canary" not in response.text

    def test_a_path_that_can_be_nothing_is_not_found(self, small: TestClient) -> None:
        response = small.get("/items/canary")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert "canary" not in response.text

    def test_a_query_parameter_is_named(self, small: TestClient) -> None:
        response = small.get("/items/1?size=canary")
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == "?size"
        assert "canary" not in response.text

    def test_allow_lists_every_method_of_the_path(self, small: TestClient) -> None:
        response = small.post("/items/1")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, PUT")

    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [
            ("POST", "/auth/me", "DELETE, GET, PATCH"),
            ("GET", "/auth/login", "POST"),
            ("POST", "/auth/sessions", "GET"),
            ("GET", "/auth/sessions/1", "DELETE"),
            ("HEAD", "/health", "GET"),
        ],
    )
    def test_so_does_ours(self, client: TestClient, method: str, path: str, allow: str) -> None:
        response = client.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allow)

    @pytest.mark.parametrize("path", ["//", "/auth", "/auth/me/", "/Auth/me", "//auth/me", "/auth/login/x"])
    def test_there_is_nothing_else(self, client: TestClient, path: str) -> None:
        response = client.get(f"https://auth.example.com{path}", follow_redirects=False)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


class TestResponses:
    def test_errors_of_one_status_share_an_entry(self) -> None:
        described = responses(problems.WITH_TOKEN, errors.SessionEnded)
        assert described[401]["description"].splitlines() == [
            "`missing_token`: An access token is needed.",
            "",
            "`invalid_token`: The access token is not valid.",
            "",
            "`session_ended`: The session has ended.",
        ]
        # 403: whoever acts for somebody else.
        assert set(described) == {400, 401, 403, 422, 500}

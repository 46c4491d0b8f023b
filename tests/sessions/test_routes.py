"""POST /auth/refresh and /auth/logout, GET and DELETE /auth/sessions as a client sees them."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from auth_manager.database import Row

Query = Callable[..., list[Row]]

PASSWORD = "SecurePass123!"


class Member:
    """A registered person, and what their clients do."""

    def __init__(self, client: TestClient, email: str) -> None:
        self.client = client
        self.email = email
        response = client.post("/auth/register", json={"email": email, "password": PASSWORD})
        assert response.status_code == 201

    def log_in(self, agent: str = "browser/1") -> dict[str, Any]:
        body = {"email": self.email, "password": PASSWORD}
        response = self.client.post("/auth/login", json=body, headers={"User-Agent": agent})
        assert response.status_code == 200
        answer: dict[str, Any] = response.json()
        return answer

    def get(self, path: str, login: dict[str, Any], status: int = 200) -> Any:
        return self.call("GET", path, login, status)

    def call(self, method: str, path: str, login: dict[str, Any], status: int, body: object = None) -> Any:
        response = self.client.request(method, path, headers=bearer(login), json=body)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    def refresh(self, token: str, status: int = 200) -> dict[str, Any]:
        response = self.client.post("/auth/refresh", json={"refresh_token": token})
        assert response.status_code == status, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def is_alive(self, login: dict[str, Any]) -> bool:
        """Tell whether the access token and the refresh token of a login still work; they must agree."""
        me = self.client.get("/auth/me", headers=bearer(login))
        again = self.client.post("/auth/refresh", json={"refresh_token": login["refresh_token"]})
        assert me.status_code == again.status_code
        if me.status_code == 401:
            assert me.json()["code"] == again.json()["code"] == "session_ended"
        return me.status_code == 200


def bearer(login: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {login['access_token']}"}


def pass_grace(query: Query) -> None:
    """Let the grace of every rotation end; the database's clock decides it."""
    query("UPDATE refresh_lines SET rotated_at = rotated_at - interval '11 seconds' RETURNING 1")


@pytest.fixture
def member(client: TestClient) -> Member:
    return Member(client, "test@example.com")


@pytest.fixture
def stranger(client: TestClient) -> Member:
    return Member(client, "other@example.com")


class TestRefresh:
    def test_each_token_is_traded_for_the_next(self, member: Member) -> None:
        login = member.log_in()
        first = member.refresh(login["refresh_token"])
        second = member.refresh(first["refresh_token"])
        assert len({login["refresh_token"], first["refresh_token"], second["refresh_token"]}) == 3
        assert len({login["access_token"], first["access_token"], second["access_token"]}) == 3
        assert login["session_id"] == first["session_id"] == second["session_id"]
        assert second["user"] == login["user"]
        assert set(second) == set(login)
        member.get("/auth/me", second)

    def test_a_retry_within_the_grace_gets_the_same_successor(self, member: Member) -> None:
        token = member.log_in()["refresh_token"]
        successors = {member.refresh(token)["refresh_token"] for _ in range(3)}
        assert len(successors) == 1
        member.refresh(successors.pop())

    def test_a_reuse_after_the_grace_ends_the_session(self, member: Member, query: Query) -> None:
        login = member.log_in()
        newest = member.refresh(login["refresh_token"])
        pass_grace(query)
        assert member.refresh(login["refresh_token"], 401)["code"] == "refresh_token_reused"
        assert not member.is_alive(newest)
        assert member.refresh(login["refresh_token"], 401)["code"] == "session_ended"

    def test_the_newest_token_has_no_grace_to_lose(self, member: Member, query: Query) -> None:
        login = member.log_in()
        pass_grace(query)
        member.refresh(login["refresh_token"])

    @pytest.mark.parametrize("token", ["", "rt_", "x", "rt_" + "A" * 76, "x" * 60_000, "ü"], ids=len)
    def test_what_is_no_token_of_ours_is_invalid(self, client: TestClient, token: str) -> None:
        response = client.post("/auth/refresh", json={"refresh_token": token})
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_refresh_token"
        assert response.headers["www-authenticate"] == "Bearer"

    def test_one_changed_character_is_invalid(self, member: Member) -> None:
        token = member.log_in()["refresh_token"]
        changed = token[:-1] + ("A" if token[-1] != "A" else "B")
        assert member.refresh(changed, 401)["code"] == "invalid_refresh_token"
        assert member.refresh(member.log_in()["access_token"], 401)["code"] == "invalid_refresh_token"
        member.refresh(token)

    def test_the_token_of_a_deleted_account_is_invalid(self, member: Member) -> None:
        login = member.log_in()
        member.call("DELETE", "/auth/me", login, 204)
        assert member.refresh(login["refresh_token"], 401)["code"] == "invalid_refresh_token"

    def test_a_disabled_account_is_refused_and_keeps_its_session(self, member: Member, query: Query) -> None:
        login = member.log_in()
        query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        assert member.refresh(login["refresh_token"], 403)["code"] == "account_disabled"
        member.get("/auth/me", login, 401)
        query("UPDATE accounts SET disabled_at = NULL RETURNING 1")
        assert member.is_alive(login)

    @pytest.mark.parametrize(
        ("body", "pointer", "code"),
        [
            ({}, "/refresh_token", "missing"),
            ({"refresh_token": None}, "/refresh_token", "string_type"),
            ({"refresh_token": ["rt_canary"]}, "/refresh_token", "string_type"),
            ({"refresh_token": "rt_canary", "session_id": "canary"}, "", "unknown_field"),
            (["rt_canary"], "", "model_attributes_type"),
        ],
        ids=["empty", "null", "list", "extra", "no object"],
    )
    def test_the_body_is_one_token(self, client: TestClient, body: object, pointer: str, code: str) -> None:
        response = client.post("/auth/refresh", json=body)
        assert response.status_code == 422
        assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == [(pointer, code)]
        assert "canary" not in response.text


class TestLogOut:
    @pytest.mark.parametrize("body", [None, {}, {"scope": "this"}], ids=["no body", "default", "this"])
    def test_this_session_ends_at_once(self, member: Member, body: object) -> None:
        login, other = member.log_in(), member.log_in()
        member.call("POST", "/auth/logout", login, 204, body)
        assert not member.is_alive(login)
        assert member.is_alive(other)

    def test_the_others_end_and_this_one_stays(self, member: Member, stranger: Member) -> None:
        login, second, third = (member.log_in() for _ in range(3))
        foreign = stranger.log_in()
        member.call("POST", "/auth/logout", login, 204, {"scope": "others"})
        assert [member.is_alive(one) for one in (login, second, third)] == [True, False, False]
        assert stranger.is_alive(foreign)

    def test_all_end(self, member: Member, stranger: Member) -> None:
        logins = [member.log_in() for _ in range(3)]
        foreign = stranger.log_in()
        member.call("POST", "/auth/logout", logins[0], 204, {"scope": "all"})
        assert [member.is_alive(one) for one in logins] == [False, False, False]
        assert stranger.is_alive(foreign)

    def test_a_second_time_there_is_no_session(self, member: Member) -> None:
        login = member.log_in()
        member.call("POST", "/auth/logout", login, 204)
        assert member.call("POST", "/auth/logout", login, 401)["code"] == "session_ended"

    @pytest.mark.parametrize(
        ("body", "pointer", "code"),
        [
            ({"scope": "everyone"}, "/scope", "literal_error"),
            ({"scope": None}, "/scope", "literal_error"),
            ({"scope": "this", "user_id": str(UUID(int=7))}, "", "unknown_field"),
        ],
        ids=["other scope", "null", "extra"],
    )
    def test_only_the_three_scopes_exist(
        self, member: Member, body: dict[str, object], pointer: str, code: str
    ) -> None:
        login = member.log_in()
        answer = member.call("POST", "/auth/logout", login, 422, body)
        assert [(e["pointer"], e["code"]) for e in answer["errors"]] == [(pointer, code)]
        assert member.is_alive(login)


class TestListSessions:
    def test_each_shows_where_it_came_from(self, member: Member, stranger: Member) -> None:
        first, second = member.log_in("phone/1"), member.log_in("laptop/2")
        stranger.log_in()
        listed = member.get("/auth/sessions", first)
        assert listed["next_cursor"] is None
        assert [item["id"] for item in listed["items"]] == [second["session_id"], first["session_id"]]
        assert [item["user_agent"] for item in listed["items"]] == ["laptop/2", "phone/1"]
        assert [item["current"] for item in listed["items"]] == [False, True]
        item = listed["items"][0]
        assert (item["address"], item["factors"], item["impersonated"]) == ("203.0.113.7", ["pwd"], False)
        assert item["created_at"] == item["last_used_at"] < item["expires_at"]
        assert item["created_at"].endswith("Z")
        assert UUID(item["id"]).version == 7
        assert set(item) == {
            "id",
            "created_at",
            "last_used_at",
            "expires_at",
            "address",
            "user_agent",
            "factors",
            "current",
            "impersonated",
        }

    def test_a_refresh_is_a_use(self, member: Member) -> None:
        login = member.log_in()
        time.sleep(0.002)
        member.refresh(login["refresh_token"])
        [item] = member.get("/auth/sessions", login)["items"]
        assert item["created_at"] < item["last_used_at"]

    def test_ended_and_expired_sessions_are_not_shown(self, member: Member, query: Query) -> None:
        current, ended, expired = (member.log_in() for _ in range(3))
        member.call("POST", "/auth/logout", ended, 204)
        query(
            "UPDATE sessions SET expires_at = now() WHERE id = %(id)s RETURNING 1", id=expired["session_id"]
        )
        listed = member.get("/auth/sessions", current)["items"]
        assert [item["id"] for item in listed] == [current["session_id"]]
        assert member.get("/auth/me", expired, 401)["code"] == "session_ended"

    def test_pages_hold_every_session_once(self, member: Member) -> None:
        logins = [member.log_in() for _ in range(5)]
        pages: list[Any] = []
        path = "/auth/sessions?limit=2"
        while not pages or pages[-1]["next_cursor"]:
            pages.append(member.get(path, logins[0]))
            path = f"/auth/sessions?limit=2&cursor={pages[-1]['next_cursor']}"
        assert [len(page["items"]) for page in pages] == [2, 2, 1]
        seen = [item["id"] for page in pages for item in page["items"]]
        assert seen == [login["session_id"] for login in reversed(logins)]

    def test_a_page_that_is_just_full_is_the_last(self, member: Member) -> None:
        login, _ = member.log_in(), member.log_in()
        assert member.get("/auth/sessions?limit=2", login)["next_cursor"] is None

    @pytest.mark.parametrize("limit", [1, 200])
    def test_bounds_of_the_limit(self, member: Member, limit: int) -> None:
        login, _ = member.log_in(), member.log_in()
        assert len(member.get(f"/auth/sessions?limit={limit}", login)["items"]) == min(limit, 2)

    @pytest.mark.parametrize("limit", ["0", "201", "-1", "canary", "1.5", ""])
    def test_other_limits_are_refused(self, member: Member, limit: str) -> None:
        answer = member.get(f"/auth/sessions?limit={limit}", member.log_in(), 422)
        assert [error["pointer"] for error in answer["errors"]] == ["?limit"]
        assert "canary" not in str(answer)

    def test_a_cursor_that_was_changed_is_refused(self, member: Member) -> None:
        login, _ = member.log_in(), member.log_in()
        cursor = member.get("/auth/sessions?limit=1", login)["next_cursor"]
        for changed in (cursor[1:], cursor + "A", cursor[::-1], cursor[:-1] + "!", "canary", "x" * 600):
            answer = member.get(f"/auth/sessions?cursor={changed}", login, 422)
            assert [error["pointer"] for error in answer["errors"]] == ["?cursor"]
            assert "canary" not in str(answer)

    def test_the_cursor_of_another_is_refused(self, member: Member, stranger: Member) -> None:
        login, _ = member.log_in(), member.log_in()
        cursor = member.get("/auth/sessions?limit=1", login)["next_cursor"]
        answer = stranger.get(f"/auth/sessions?cursor={cursor}", stranger.log_in(), 422)
        assert answer["errors"][0]["code"] == "invalid_cursor"


class TestRevokeSession:
    def test_its_tokens_are_refused_at_once(self, member: Member) -> None:
        current, other = member.log_in(), member.log_in()
        member.call("DELETE", f"/auth/sessions/{other['session_id']}", current, 204)
        assert not member.is_alive(other)
        assert member.is_alive(current)

    def test_one_can_revoke_the_session_one_uses(self, member: Member) -> None:
        login = member.log_in()
        member.call("DELETE", f"/auth/sessions/{login['session_id']}", login, 204)
        assert not member.is_alive(login)

    def test_what_is_not_ones_own_does_not_exist(
        self, member: Member, stranger: Member, query: Query
    ) -> None:
        login, ended, foreign = member.log_in(), member.log_in(), stranger.log_in()
        member.call("POST", "/auth/logout", ended, 204)
        answers = [
            member.call("DELETE", f"/auth/sessions/{session}", login, 404)
            for session in (foreign["session_id"], ended["session_id"], uuid4(), "canary", "1")
        ]
        for answer in answers:
            del answer["request_id"]
        assert answers == [answers[0]] * len(answers)
        assert answers[0]["code"] == "not_found"
        assert stranger.is_alive(foreign)
        assert query("SELECT id FROM audit_events WHERE event = 'session_revoked'") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/auth/logout"), ("GET", "/auth/sessions"), ("DELETE", f"/auth/sessions/{UUID(int=7)}")],
)
class TestWithoutASession:
    def test_no_token(self, client: TestClient, method: str, path: str) -> None:
        response = client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (401, "missing_token")

    def test_no_live_session(self, member: Member, method: str, path: str) -> None:
        login = member.log_in()
        member.call("POST", "/auth/logout", login, 204)
        response = member.client.request(method, path, headers=bearer(login))
        assert (response.status_code, response.json()["code"]) == (401, "session_ended")
        assert response.headers["www-authenticate"].startswith('Bearer error="invalid_token"')

"""Endpoints over HTTP; who may call what, tests/project/test_authorization.py shows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from standardwebhooks import Webhook
from tests.mfa.test_routes import bearer, create, log_in
from tests.webhooks.conftest import ADMINISTRATOR, Hooks
from tests.webhooks.receivers import Receiver

from auth_manager.database import Row
from auth_manager.entrypoints.mail_delivery import open_webhook_delivery
from auth_manager.resources import Resources
from auth_manager.webhooks import MOST_ENDPOINTS
from auth_manager.webhooks.delivery import deliver_waiting

URL = "https://hooks.example.com/auth"


def make(api: TestClient, url: str = URL, **fields: Any) -> dict[str, Any]:
    answer = api.post("/admin/webhooks", json={"url": url, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def events(api: TestClient) -> list[Row]:
    with api.app.state.resources.database.one_trip() as connection:  # type: ignore[attr-defined]
        rows: list[Row] = connection.fetch_all(
            "SELECT event, actor_id, account_id, details FROM audit_events WHERE event LIKE 'webhook%' "
            "ORDER BY id"
        )
    return rows


@pytest.fixture
def hooks(api: TestClient) -> Hooks:
    """What delivers for this application."""
    resources: Resources = api.app.state.resources  # type: ignore[attr-defined]
    return Hooks(
        resources, open_webhook_delivery(resources.settings, resources.database, resources.secret_keys)
    )


def deliver(hooks: Hooks) -> None:
    deliver_waiting(hooks.delivery, clock=lambda: datetime.now(UTC))


class TestCreate:
    def test_the_secret_is_told_once(self, api: TestClient) -> None:
        made = make(api, types=["user.created", "user.created"], description="the shop")
        assert made["secret"].startswith("whsec_")
        assert (made["url"], made["types"], made["enabled"]) == (URL, ["user.created"], True)
        known = {name: value for name, value in made.items() if name != "secret"}
        assert api.get(f"/admin/webhooks/{made['id']}").json() == known
        assert api.get("/admin/webhooks").json() == {"items": [known], "next_cursor": None}

    def test_an_administrator_is_named_in_the_trail(self, api: TestClient) -> None:
        made = make(api)
        [event] = events(api)
        assert (event["event"], event["account_id"]) == ("webhook_created", None)
        assert event["actor_id"] is not None
        assert event["details"] == {"webhook_id": made["id"]}

    @pytest.mark.parametrize(
        ("body", "pointer", "reason"),
        [
            ({}, "/url", "missing"),
            ({"url": ""}, "/url", "invalid_url"),
            ({"url": "https://127.0.0.1:22/"}, "/url", "invalid_url"),
            ({"url": "http://169.254.169.254/latest"}, "/url", "invalid_url"),
            ({"url": "https://10.0.0.1/"}, "/url", "invalid_url"),
            ({"url": "https://2130706433/"}, "/url", "invalid_url"),
            ({"url": "https://0x7f.1/"}, "/url", "invalid_url"),
            ({"url": "https://localhost./"}, "/url", "invalid_url"),
            ({"url": "https://[::ffff:127.0.0.1]/"}, "/url", "invalid_url"),
            ({"url": "https://user:canary@example.com/"}, "/url", "invalid_url"),
            ({"url": URL, "types": []}, "/types", "too_short"),
            ({"url": URL, "types": ["user.exploded"]}, "/types", "unknown_type"),
            ({"url": URL, "types": ["user.created"] * 50}, "/types", "too_long"),
            ({"url": URL, "description": "x" * 501}, "/description", "string_too_long"),
            ({"url": URL, "secret": "whsec_canary"}, "", "unknown_field"),
        ],
    )
    def test_what_is_none(self, api: TestClient, body: dict[str, Any], pointer: str, reason: str) -> None:
        answer = api.post("/admin/webhooks", json=body)
        assert code(answer) == (422, "invalid_fields")
        assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, reason)]
        assert "canary" not in answer.text

    def test_no_private_address_unless_it_is_allowed(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client()
        create(client, "admin", email=ADMINISTRATOR)
        headers = bearer(log_in(client, ADMINISTRATOR))
        for url in ("http://hooks.example.com/", "https://localhost/", "https://127.0.0.1/"):
            answer = client.post("/admin/webhooks", headers=headers, json={"url": url})
            assert code(answer) == (422, "invalid_fields")

    def test_a_repeated_request_gets_the_same_secret(self, api: TestClient) -> None:
        answers = [
            api.post("/admin/webhooks", json={"url": URL}, headers={"Idempotency-Key": "k"}) for _ in range(2)
        ]
        assert answers[0].content == answers[1].content
        assert len(api.get("/admin/webhooks").json()["items"]) == 1

    def test_there_are_only_so_many(self, api: TestClient) -> None:
        made = [make(api) for _ in range(MOST_ENDPOINTS)]
        assert code(api.post("/admin/webhooks", json={"url": URL})) == (409, "too_many_webhooks")
        assert api.delete(f"/admin/webhooks/{made[0]['id']}").status_code == 204
        make(api)


class TestList:
    def test_page_by_page(self, api: TestClient) -> None:
        made = [make(api)["id"] for _ in range(3)]
        first = api.get("/admin/webhooks?limit=2").json()
        second = api.get("/admin/webhooks", params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
        assert second["next_cursor"] is None
        assert code(api.get("/admin/webhooks?cursor=AAAA")) == (422, "invalid_fields")


class TestChange:
    def test_what_is_named(self, api: TestClient) -> None:
        made = make(api, description="old")
        path = f"/admin/webhooks/{made['id']}"
        changed = api.patch(path, json={"description": "new", "types": ["*"]}).json()
        assert (changed["description"], changed["types"], changed["url"]) == ("new", ["*"], URL)
        disabled = api.patch(path, json={"enabled": False}).json()
        assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "administrator")
        assert disabled["description"] == "new"
        again = api.patch(path, json={"enabled": False}).json()
        assert again["disabled_at"] == disabled["disabled_at"]
        assert api.patch(path, json={"enabled": True}).json()["enabled"]
        assert [event["event"] for event in events(api)] == ["webhook_created", *["webhook_changed"] * 4]

    @pytest.mark.parametrize(
        "body", [{"url": "https://127.0.0.1:1/"}, {"types": []}, {"types": ["x"]}, {"url": None}, {"x": 1}]
    )
    def test_what_is_none(self, api: TestClient, body: dict[str, Any]) -> None:
        made = make(api)
        assert code(api.patch(f"/admin/webhooks/{made['id']}", json=body)) == (422, "invalid_fields")
        assert api.get(f"/admin/webhooks/{made['id']}").json()["url"] == URL


class TestIfMatch:
    """RFC 9110 section 13.1.1."""

    def test_only_what_was_read(self, api: TestClient) -> None:
        made = api.post("/admin/webhooks", json={"url": URL})
        path, old = f"/admin/webhooks/{made.json()['id']}", {"If-Match": made.headers["etag"]}
        assert api.get(path).headers["etag"] == made.headers["etag"]
        first = api.patch(path, headers=old, json={"description": "first"})
        assert first.status_code == 200
        assert code(api.patch(path, headers=old, json={"description": "second"})) == (
            412,
            "precondition_failed",
        )
        assert code(api.delete(path, headers=old)) == (412, "precondition_failed")
        assert api.get(path).json() == first.json()
        assert len(events(api)) == 2
        assert api.delete(path, headers={"If-Match": first.headers["etag"]}).status_code == 204

    def test_nobody_is_not_there_whatever_the_tag(self, api: TestClient) -> None:
        answer = api.patch(f"/admin/webhooks/{uuid4()}", headers={"If-Match": '"x"'}, json={})
        assert code(answer) == (404, "not_found")

    def test_another_secret_is_another_tag(self, api: TestClient) -> None:
        made = api.post("/admin/webhooks", json={"url": URL})
        path = f"/admin/webhooks/{made.json()['id']}"
        rotated = api.post(f"{path}/rotate-secret")
        assert rotated.headers["etag"] == api.get(path).headers["etag"] != made.headers["etag"]

    def test_a_repeated_request_has_the_tag_too(self, api: TestClient) -> None:
        answers = [
            api.post("/admin/webhooks", json={"url": URL}, headers={"Idempotency-Key": "k"}) for _ in range(2)
        ]
        assert answers[0].headers["etag"] == answers[1].headers["etag"]

    def test_a_failed_delivery_is_no_change(self, api: TestClient, hooks: Hooks, receiver: Receiver) -> None:
        made = make(api, receiver.url)
        path = f"/admin/webhooks/{made['id']}"
        tag = api.get(path).headers["etag"]
        receiver.answers = [500]
        api.post(f"{path}/test")
        deliver(hooks)
        assert api.get(path).json()["failing_since"]
        assert api.patch(path, headers={"If-Match": tag}, json={"enabled": True}).status_code == 200

    def test_of_parallel_changes_one_wins(self, api: TestClient) -> None:
        path = f"/admin/webhooks/{make(api)['id']}"
        for _ in range(3):
            tag = api.get(path).headers["etag"]

            def change(number: int, tag: str = tag) -> int:
                body = {"description": f"{number}"}
                return int(api.patch(path, headers={"If-Match": tag}, json=body).status_code)

            with ThreadPoolExecutor(8) as pool:
                assert sorted(pool.map(change, range(8))) == [200, *[412] * 7]


class TestNobody:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/rotate-secret"),
            ("POST", "/test"),
            ("GET", "/deliveries"),
            ("POST", f"/deliveries/{UUID(int=7)}/replay"),
        ],
    )
    def test_there_is_no_such_endpoint(self, api: TestClient, method: str, path: str) -> None:
        body: dict[str, str] | None = {} if method == "PATCH" else None
        for endpoint_id in (uuid4(), "none"):
            answer = api.request(method, f"/admin/webhooks/{endpoint_id}{path}", json=body)
            assert code(answer) == (404, "not_found")
        assert events(api) == []

    def test_a_message_of_another_endpoint(self, api: TestClient) -> None:
        one, other = make(api), make(api)
        message_id = api.post(f"/admin/webhooks/{one['id']}/test").json()["message_id"]
        answer = api.post(f"/admin/webhooks/{other['id']}/deliveries/{message_id}/replay")
        assert code(answer) == (404, "not_found")


class TestSecret:
    def test_the_old_one_lives_on_for_a_day(self, api: TestClient, hooks: Hooks, receiver: Receiver) -> None:
        made = make(api, receiver.url)
        rotated = api.post(f"/admin/webhooks/{made['id']}/rotate-secret").json()
        assert rotated["secret"] != made["secret"]
        assert rotated["previous_secret_until"] > rotated["updated_at"]
        api.post(f"/admin/webhooks/{made['id']}/test")
        deliver(hooks)
        [received] = receiver.received
        for secret in (made["secret"], rotated["secret"]):
            assert Webhook(secret).verify(received.body, received.headers)["type"] == "webhook.test"

    def test_a_repeated_request_rotates_once(self, api: TestClient) -> None:
        made = make(api)
        path = f"/admin/webhooks/{made['id']}/rotate-secret"
        answers = [api.post(path, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert [event["event"] for event in events(api)] == ["webhook_created", "webhook_secret_rotated"]


class TestLog:
    def test_an_account_from_the_first_request_to_the_receiver(
        self, api: TestClient, hooks: Hooks, receiver: Receiver
    ) -> None:
        """Registered over HTTP, delivered, logged."""
        made = make(api, receiver.url, types=["user.created"])
        user = api.post(
            "/auth/register", json={"email": "new@example.com", "password": "SecurePass123!"}
        ).json()
        path = f"/admin/webhooks/{made['id']}/deliveries"
        [pending] = api.get(path).json()["items"]
        assert (pending["state"], pending["attempts"], pending["status"]) == ("pending", 0, None)
        deliver(hooks)
        [received] = receiver.received
        told = Webhook(made["secret"]).verify(received.body, received.headers)
        assert told["data"]["user_id"] == user["id"]
        assert b"new@example.com" not in received.body
        [logged] = api.get(path).json()["items"]
        assert logged["message_id"] == received.headers["webhook-id"]
        assert (logged["type"], logged["state"], logged["attempts"]) == ("user.created", "delivered", 1)
        assert (logged["status"], logged["error"], logged["next_attempt_at"]) == (204, None, None)
        assert logged["duration"] >= 0
        assert logged["last_attempt_at"] >= logged["created_at"]

    def test_a_failure(self, api: TestClient, hooks: Hooks, receiver: Receiver) -> None:
        made = make(api, receiver.url)
        receiver.answers = [500]
        api.post(f"/admin/webhooks/{made['id']}/test")
        deliver(hooks)
        [logged] = api.get(f"/admin/webhooks/{made['id']}/deliveries").json()["items"]
        assert (logged["state"], logged["status"], logged["error"]) == ("pending", 500, "status_500")
        assert logged["next_attempt_at"] > logged["last_attempt_at"]
        assert api.get(f"/admin/webhooks/{made['id']}").json()["failing_since"]

    def test_page_by_page(self, api: TestClient) -> None:
        made, other = make(api), make(api)
        path = f"/admin/webhooks/{made['id']}"
        sent = [api.post(f"{path}/test").json()["message_id"] for _ in range(3)]
        first = api.get(f"{path}/deliveries?limit=2").json()
        rest = {"limit": 2, "cursor": first["next_cursor"]}
        second = api.get(f"{path}/deliveries", params=rest).json()
        assert [item["message_id"] for item in first["items"] + second["items"]] == sent[::-1]
        assert second["next_cursor"] is None
        refused = api.get(f"/admin/webhooks/{other['id']}/deliveries", params=rest)
        assert code(refused) == (422, "invalid_fields")


class TestReplay:
    @pytest.mark.parametrize("status", [204, 500])
    def test_it_comes_again_under_the_same_id(
        self, api: TestClient, hooks: Hooks, receiver: Receiver, status: int
    ) -> None:
        made = make(api, receiver.url)
        path = f"/admin/webhooks/{made['id']}"
        receiver.answers = [status]
        message_id = api.post(f"{path}/test").json()["message_id"]
        deliver(hooks)
        answer = api.post(f"{path}/deliveries/{message_id}/replay")
        assert (answer.status_code, answer.json()) == (202, {"message_id": message_id})
        deliver(hooks)
        assert [received.headers["webhook-id"] for received in receiver.received] == [message_id] * 2
        assert receiver.received[0].body == receiver.received[1].body
        [logged] = api.get(f"{path}/deliveries").json()["items"]
        assert (logged["state"], logged["attempts"]) == ("delivered", 1)
        assert events(api)[-1]["details"] == {"webhook_id": made["id"], "message_id": message_id}

    def test_nothing_is_sent_to_one_that_is_disabled(self, api: TestClient) -> None:
        made = make(api)
        path = f"/admin/webhooks/{made['id']}"
        message_id = api.post(f"{path}/test").json()["message_id"]
        api.patch(path, json={"enabled": False})
        for refused in (f"{path}/test", f"{path}/deliveries/{message_id}/replay"):
            assert code(api.post(refused)) == (409, "webhook_disabled")

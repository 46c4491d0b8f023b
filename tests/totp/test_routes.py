"""Setting up an authenticator app over HTTP."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from tests.factors.authenticator import App
from tests.verification.people import Browser, at

PATH = "/auth/mfa/totp"


@pytest.fixture
def browser(client: TestClient) -> Browser:
    browser = Browser(client)
    browser.register()
    return browser


def send(browser: Browser, method: str, path: str, headers: dict[str, str], **options: Any) -> Response:
    return browser.client.request(method, path, headers=headers, **options)


def started(browser: Browser, headers: dict[str, str]) -> App:
    return App(browser.post(PATH, 201, headers=headers)["secret"])


class TestEnrol:
    def test_start_confirm_remove(self, browser: Browser) -> None:
        me = browser.log_in()
        answer = send(browser, "POST", PATH, me)
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        assert set(answer.json()) == {"secret", "uri", "qr_svg"}
        app = App(answer.json()["secret"])

        confirmed = browser.post(f"{PATH}/confirm", 200, headers=me, code=app.code(at().now))

        assert set(confirmed) == {"recovery_codes"}
        assert len(set(confirmed["recovery_codes"])) == 10
        assert send(browser, "DELETE", PATH, me).status_code == 204
        assert send(browser, "DELETE", PATH, me).status_code == 404

    def test_a_wrong_code(self, browser: Browser) -> None:
        me = browser.log_in()
        app = started(browser, me)
        wrong = app.wrong_code(at().now)

        problem = browser.post(f"{PATH}/confirm", 422, headers=me, code=wrong)

        assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [("/code", "code_wrong")]
        assert wrong not in str(problem)

    def test_nothing_waits(self, browser: Browser) -> None:
        assert (
            browser.post(f"{PATH}/confirm", 404, headers=browser.log_in(), code="123456")["code"]
            == "not_found"
        )

    def test_already_there(self, browser: Browser) -> None:
        me = browser.log_in()
        app = started(browser, me)
        browser.post(f"{PATH}/confirm", 200, headers=me, code=app.code(at().now))

        assert browser.post(PATH, 409, headers=me)["code"] == "too_many_factors"

    def test_nobody(self, browser: Browser) -> None:
        for method, path in (("POST", PATH), ("POST", f"{PATH}/confirm"), ("DELETE", PATH)):
            answer = send(browser, method, path, {}, json={"code": "123456"})
            assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")

    @pytest.mark.parametrize("body", [{}, {"code": 123456}, {"code": "1" * 17}, {"code": "123456", "x": 1}])
    def test_bodies_that_are_none(self, browser: Browser, body: dict[str, Any]) -> None:
        answer = send(browser, "POST", f"{PATH}/confirm", browser.log_in(), json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")


class TestIdempotencyKey:
    def test_a_retry_of_start_gets_the_same_secret(self, browser: Browser) -> None:
        me = browser.log_in()
        keyed = me | {"Idempotency-Key": "k1"}
        first, retry = send(browser, "POST", PATH, keyed), send(browser, "POST", PATH, keyed)
        assert (first.status_code, first.content) == (retry.status_code, retry.content)

        app = App(first.json()["secret"])
        browser.post(f"{PATH}/confirm", 200, headers=me, code=app.code(at().now))

    def test_a_retry_of_confirm_gets_the_same_codes(self, browser: Browser) -> None:
        me = browser.log_in()
        code = started(browser, me).code(at().now)
        keyed = me | {"Idempotency-Key": "k2"}
        first = browser.post(f"{PATH}/confirm", 200, headers=keyed, code=code)
        assert browser.post(f"{PATH}/confirm", 200, headers=keyed, code=code) == first
        assert len(first["recovery_codes"]) == 10

    def test_what_is_kept_tells_no_secret(self, browser: Browser) -> None:
        me = browser.log_in()
        app = App(browser.post(PATH, 201, headers=me | {"Idempotency-Key": "k1"})["secret"])
        codes = browser.post(
            f"{PATH}/confirm", 200, headers=me | {"Idempotency-Key": "k2"}, code=app.code(at().now)
        )["recovery_codes"]

        kept = [bytes(row["answer"]) for row in browser.query("SELECT answer FROM idempotency_keys")]

        assert len(kept) == 2
        for secret in (app.secret, *codes):
            assert not any(secret.encode() in answer for answer in kept)

    def test_nobody_else_gets_the_answer(self, browser: Browser) -> None:
        key = {"Idempotency-Key": "k1"}
        mine = browser.post(PATH, 201, headers=browser.log_in() | key)
        theirs = browser.post(PATH, 201, headers=browser.log_in() | key)
        assert mine["secret"] != theirs["secret"]

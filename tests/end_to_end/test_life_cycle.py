"""The life of an account over HTTP: from the first mail to the last, through a real mail server."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
import pytest
from fastapi.testclient import TestClient
from tests.mail.scenes import SENDER, MailServer, body, serve_mail
from tests.verification.people import EMAIL, NEW_EMAIL, NEW_PASSWORD, PASSWORD, Browser

from auth_manager.audit import Origin
from auth_manager.database import Database
from auth_manager.invitations.service import invite
from auth_manager.one_time_secrets import Purpose

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Server

PATIENCE = 30.0
"""Seconds until a mail must have arrived."""


class Correspondent:
    """Somebody with a browser and a mailbox."""

    def __init__(self, http: httpx2.Client, mail: MailServer) -> None:
        self._http = http
        self._mail = mail
        self._read = 0

    def call(self, status: int, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._http.request(method, path, **options)
        assert answer.status_code == status, (path, answer.text)
        result: dict[str, Any] = answer.json() if answer.content else {}
        return result

    def post(
        self, status: int, path: str, headers: dict[str, str] | None = None, **json: str
    ) -> dict[str, Any]:
        return self.call(status, "POST", path, json=json, headers=headers)

    def log_in(self, email: str = EMAIL, password: str = PASSWORD) -> dict[str, str]:
        granted = self.post(200, "/auth/login", email=email, password=password)
        return {"Authorization": f"Bearer {granted['access_token']}"}

    def next_mail(self, recipient: str) -> str:
        """Wait for the next mail; return its text."""
        [(to, text)] = self._receive(1)
        assert to == recipient
        return text

    def two_mails(self) -> dict[str, str]:
        """Wait for two, whichever comes first; return their texts by recipient."""
        return dict(self._receive(2))

    def _receive(self, number: int) -> list[tuple[str, str]]:
        give_up_at = time.monotonic() + PATIENCE
        while len(self._mail.received) < self._read + number and time.monotonic() < give_up_at:
            time.sleep(0.02)
        new = self._mail.received[self._read : self._read + number]
        assert len(new) == number, "no mail came"
        self._read += number
        return [(to, body(content, "plain")) for to, content in new]

    def code_in(self, text: str) -> str:
        [code] = re.findall(r"\b([0-9]{3} ?[0-9]{3})\b", text)
        return str(code).replace(" ", "")

    def token_in(self, text: str) -> str:
        [token] = re.findall(r"https://auth\.example\.com/account/[a-z-]+\?token=(ot_[\w-]{64})", text)
        return str(token)


@pytest.fixture
def person(
    database: Database,  # noqa: ARG001 -- its tables are empty
    make_server: Callable[..., "Server"],
) -> Iterator[Correspondent]:
    with serve_mail() as mail:
        # `tls=none` is for laptops.
        server = make_server(
            AUTH_MODE="local",
            AUTH_MAIL_TRANSPORT="smtp",
            AUTH_SMTP_URL=mail.url,
            AUTH_MAIL_FROM=SENDER,
            AUTH_ERASURE_GRACE="0",
        )
        with server.client() as http:
            yield Correspondent(http, mail)


class TestLife:
    def test_from_the_first_mail_to_the_last(self, person: Correspondent, database: Database) -> None:
        asked = person.post(201, "/auth/register", email=EMAIL, password=PASSWORD)
        text = person.next_mail(EMAIL)
        proof = {"request": asked["verification_request"], "code": person.code_in(text)}
        assert person.post(200, "/auth/verify-email", **proof)["email_verified"] is True
        person.post(400, "/auth/verify-email", token=person.token_in(text))
        first = person.log_in()

        person.post(202, "/auth/password/forgot", email=EMAIL)
        token = person.token_in(person.next_mail(EMAIL))
        person.post(204, "/auth/password/reset", token=token, password=NEW_PASSWORD)
        person.next_mail(EMAIL)
        person.call(401, "GET", "/auth/me", headers=first)
        person.post(401, "/auth/login", email=EMAIL, password=PASSWORD)
        second = person.log_in(password=NEW_PASSWORD)

        asked = person.post(202, "/auth/email/change", second, email=NEW_EMAIL)
        texts = person.two_mails()
        assert texts.keys() == {EMAIL, NEW_EMAIL}
        person.log_in(EMAIL, NEW_PASSWORD)
        proof = {"request": asked["request"], "code": person.code_in(texts[NEW_EMAIL])}
        assert person.post(200, "/auth/verify-email", **proof)["email"] == NEW_EMAIL
        person.next_mail(EMAIL)

        asked = person.post(202, "/auth/email-login", email=NEW_EMAIL)
        proof = {"request": asked["request"], "code": person.code_in(person.next_mail(NEW_EMAIL))}
        granted = person.post(200, "/auth/email-login/verify", **proof)
        last = {"Authorization": f"Bearer {granted['access_token']}"}

        exported = person.call(200, "GET", "/auth/me/export", headers=last)
        assert exported["account"]["email"] == NEW_EMAIL
        assert "password_reset" in {event["event"] for event in exported["security_events"]}

        person.call(204, "DELETE", "/auth/me", headers=last)
        person.next_mail(NEW_EMAIL)
        person.call(401, "GET", "/auth/me", headers=last)
        with database.one_trip() as connection:
            left = connection.fetch_all("SELECT kind, recipient FROM outbox")
        assert left == [{"kind": "account_erased", "recipient": NEW_EMAIL}]


Body = dict[str, str]
Prepare = Callable[[Browser], tuple[Body, dict[str, str]]]


def registered(browser: Browser) -> dict[str, Any]:
    return browser.register()


def mailed(path: str, purpose: Purpose, **more: str) -> Prepare:
    def prepare(browser: Browser) -> tuple[Body, dict[str, str]]:
        registered(browser)
        request = browser.post(path, 202, email=EMAIL)["request"]
        return browser.code(purpose, request) | more, {}

    return prepare


def with_address(browser: Browser) -> tuple[Body, dict[str, str]]:
    registered(browser)
    return {"email": EMAIL}, {}


def signed_in(**more: str) -> Prepare:
    def prepare(browser: Browser) -> tuple[Body, dict[str, str]]:
        registered(browser)
        return more, browser.log_in()

    return prepare


def reauthenticating(browser: Browser) -> tuple[Body, dict[str, str]]:
    registered(browser)
    headers = browser.log_in()
    request = browser.post("/auth/reauthenticate/mail", 202, headers)["request"]
    return browser.code(Purpose.REAUTHENTICATE, request), headers


def changing_address(browser: Browser) -> tuple[Body, dict[str, str]]:
    registered(browser)
    request = browser.post("/auth/email/change", 202, browser.log_in(), email=NEW_EMAIL)["request"]
    return browser.token(Purpose.CHANGE_EMAIL, request), {}


def invited(browser: Browser) -> tuple[Body, dict[str, str]]:
    origin = Origin(None, "", "request", datetime.now(UTC), operator="tester")
    request = invite(browser.resources, origin, "invited@example.com")
    return browser.token(Purpose.INVITATION, str(request)) | {"password": PASSWORD}, {}


def leaving(browser: Browser) -> tuple[Body, dict[str, str]]:
    registered(browser)
    assert browser.client.delete("/auth/me", headers=browser.log_in()).status_code == 202
    [row] = browser.query("SELECT id FROM one_time_secrets WHERE purpose = 'keep_account'")
    return browser.token(Purpose.KEEP_ACCOUNT, str(row["id"])), {}


POSTS: dict[str, tuple[str, int, Prepare]] = {
    "verify": ("/auth/verify-email", 200, mailed("/auth/verify-email/resend", Purpose.VERIFY_EMAIL)),
    "verify a change": ("/auth/verify-email", 200, changing_address),
    "resend": ("/auth/verify-email/resend", 202, with_address),
    "change the address": ("/auth/email/change", 202, signed_in(email=NEW_EMAIL)),
    "forgot": ("/auth/password/forgot", 202, with_address),
    "reset": (
        "/auth/password/reset",
        204,
        mailed("/auth/password/forgot", Purpose.RESET_PASSWORD, password=NEW_PASSWORD),
    ),
    "change the password": (
        "/auth/password/change",
        204,
        signed_in(current_password=PASSWORD, new_password=NEW_PASSWORD),
    ),
    "sign-in by mail": ("/auth/email-login", 202, with_address),
    "sign in": ("/auth/email-login/verify", 200, mailed("/auth/email-login", Purpose.EMAIL_LOGIN)),
    "reauthenticate": ("/auth/reauthenticate", 200, signed_in(password=PASSWORD)),
    "reauthenticate by code": ("/auth/reauthenticate", 200, reauthenticating),
    "reauthentication mail": ("/auth/reauthenticate/mail", 202, signed_in()),
    "accept an invitation": ("/auth/invitations/accept", 201, invited),
    "keep the account": ("/auth/me/keep", 204, leaving),
}

COUNTED = "accounts", "sessions", "outbox", "audit_events", "one_time_secrets", "rate_limits", "known_devices"


class TestIdempotencyKey:
    def state(self, browser: Browser) -> list[Any]:
        """What is in the tables, whatever its order."""
        sql = " UNION ALL ".join(
            f"SELECT '{table}' || row_to_json({table})::text AS row FROM {table}" for table in COUNTED
        )
        return sorted(row["row"] for row in browser.query(sql))

    @pytest.mark.parametrize("name", POSTS)
    def test_a_retry_is_the_same_bytes_and_nothing_happens_twice(
        self, make_client: Callable[..., TestClient], name: str
    ) -> None:
        browser = Browser(make_client(erasure_grace=86_400))
        path, status, prepare = POSTS[name]
        body, headers = prepare(browser)
        headers |= {"Idempotency-Key": "once"}
        before = self.state(browser)

        first = browser.client.post(path, json=body, headers=headers)
        after = self.state(browser)
        again = [browser.client.post(path, json=body, headers=headers) for _ in range(2)]

        assert first.status_code == status, first.text
        assert [(answer.status_code, answer.content) for answer in again] == [(status, first.content)] * 2
        assert before != after == self.state(browser)
        other = browser.client.post(path, json=body | {"code": "000000"}, headers=headers)
        assert other.status_code == 422

    def test_they_are_all_there(self, make_client: Callable[..., TestClient]) -> None:
        """Every POST below /auth takes the header; those not named here have tests of their own."""
        paths = make_client().get("/openapi.json").json()["paths"]
        with_key = {
            path
            for path, methods in paths.items()
            for parameter in methods.get("post", {}).get("parameters", [])
            if parameter["name"] == "Idempotency-Key" and path.startswith("/auth/")
        }
        elsewhere = {
            "/auth/login",
            "/auth/login/mfa",
            "/auth/login/mfa/enrolment",
            "/auth/login/mfa/enrolment/confirm",
            "/auth/logout",
            "/auth/mfa/recovery-codes",
            "/auth/mfa/totp",
            "/auth/mfa/totp/confirm",
            "/auth/passkeys/authentication/verify",
            "/auth/passkeys/registration/verify",
            "/auth/refresh",
            "/auth/register",
        }
        assert with_key == {path for path, _, _ in POSTS.values()} | elsewhere
        posts = {path for path, methods in paths.items() if "post" in methods and path.startswith("/auth/")}
        # A challenge that is asked for again is another one, and nothing else has happened.
        assert with_key == {path for path in posts if not path.endswith("/options")}


class TestLanguage:
    @pytest.mark.parametrize(
        ("account", "header", "language"),
        [
            (None, "fr-CH, en;q=0.5", "fr"),
            (None, "de", None),
            ("en", "fr", "en"),
            ("fr-CA", "en", "fr-CA"),
        ],
    )
    def test_of_the_account_then_of_the_browser(
        self, client: TestClient, account: str | None, header: str, language: str | None
    ) -> None:
        browser = Browser(client)
        browser.post(
            "/auth/register",
            201,
            {"Accept-Language": header},
            **{"email": EMAIL, "password": PASSWORD} | ({"locale": account} if account else {}),
        )
        browser.post("/auth/password/forgot", 202, {"Accept-Language": header}, email=EMAIL)
        assert {row["locale"] for row in browser.query("SELECT locale FROM outbox")} == {language}


class TestEnumeration:
    @pytest.mark.parametrize(
        "path", ["/auth/password/forgot", "/auth/email-login", "/auth/verify-email/resend"]
    )
    def test_too_many_is_alike_for_known_and_unknown(self, client: TestClient, path: str) -> None:
        browser = Browser(client)
        registered(browser)
        looks = []
        for email in (EMAIL, "nobody@example.com"):
            for _ in range(5):
                browser.post(path, 202, email=email)
            answer = client.post(path, json={"email": email})
            problem = answer.json()
            UUID(problem.pop("request_id"))
            retry_after = int(answer.headers["retry-after"])
            assert 3500 < retry_after <= 3600
            looks.append((answer.status_code, problem))
        assert looks[0] == looks[1]
        assert (looks[0][0], looks[0][1]["code"]) == (429, "too_many_requests")

"""The pages as a person without JavaScript sees them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from auth_manager.app import create_app
from auth_manager.audit import Origin
from auth_manager.database import Row
from auth_manager.invitations.service import invite
from auth_manager.one_time_secrets import Purpose
from auth_manager.pages.routes import router
from auth_manager.resources import Resources

if TYPE_CHECKING:
    from tests.pages.conftest import Visitor

Query = Callable[..., list[Row]]
MakeVisitor = Callable[..., "Visitor"]

PASSWORD = "SecurePass123!"
NEW_PASSWORD = "quiet harbour, seven kites"
EMAIL = "test@example.com"
OWN_FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


def operator() -> Origin:
    return Origin(address=None, user_agent="", request_id="test", now=datetime.now(UTC), operator="tester")


def is_verified(visitor: "Visitor") -> bool:
    verified: bool = visitor.log_in().json()["user"]["email_verified"]
    return verified


class TestVerifyEmail:
    def test_the_button_verifies_once(self, visitor: "Visitor") -> None:
        token = visitor.token(Purpose.VERIFY_EMAIL)
        assert EMAIL in visitor.open(f"/account/verify-email?token={token}")
        assert not is_verified(visitor)
        assert "Address confirmed" in visitor.send()
        assert is_verified(visitor)
        visitor.open(f"/account/verify-email?token={token}", 400)

    def test_opening_the_link_uses_nothing_up(self, visitor: "Visitor", query: Query) -> None:
        path = f"/account/verify-email?token={visitor.token(Purpose.VERIFY_EMAIL)}"
        before = query("SELECT * FROM one_time_secrets ORDER BY id")
        for _ in range(5):
            visitor.open(path)
        assert query("SELECT * FROM one_time_secrets ORDER BY id") == before

    @pytest.mark.parametrize("query_string", ["", "?token=", "?token=ot_x", "?token=%00", "?token=é"])
    def test_what_is_no_token_gets_a_page_that_says_so(self, visitor: "Visitor", query_string: str) -> None:
        html = visitor.open(f"/account/verify-email{query_string}", 400)
        assert "not valid any more" in html
        assert visitor.page.action == ""

    def test_a_token_for_something_else_is_none(self, visitor: "Visitor") -> None:
        visitor.open("/account/forgot-password")
        visitor.send(email=EMAIL)
        token = visitor.token(Purpose.RESET_PASSWORD)
        visitor.open(f"/account/verify-email?token={token}", 400)
        visitor.open(f"/account/sign-in?token={token}", 400)
        visitor.open(f"/account/reset-password?token={token}")


class TestResetPassword:
    @pytest.fixture
    def token(self, visitor: "Visitor") -> str:
        visitor.open("/account/forgot-password")
        visitor.send(email=EMAIL)
        return visitor.token(Purpose.RESET_PASSWORD)

    def test_the_new_password_counts_and_the_old_session_ends(self, visitor: "Visitor", token: str) -> None:
        old = visitor.log_in().json()["refresh_token"]
        visitor.open(f"/account/reset-password?token={token}")
        assert visitor.page.inputs["password"]["autocomplete"] == "new-password"
        assert visitor.page.fields["username"] == EMAIL
        assert "Password changed" in visitor.send(password=NEW_PASSWORD)
        assert visitor.log_in().status_code == 401
        assert visitor.log_in(NEW_PASSWORD).status_code == 200
        assert visitor.client.post("/auth/refresh", json={"refresh_token": old}).status_code == 401
        visitor.open(f"/account/reset-password?token={token}", 400)

    def test_a_weak_password_uses_nothing_up(self, visitor: "Visitor", token: str) -> None:
        visitor.open(f"/account/reset-password?token={token}")
        html = visitor.send(422, password="test")
        assert html.count("A password has at least 12 characters.") == 2, "in the summary and at the field"
        field = visitor.page.inputs["password"]
        assert field["aria-invalid"] == "true"
        for name in (field["aria-describedby"] or "").split():
            assert f'id="{name}"' in html
        assert "#password" in visitor.page.links
        visitor.send(password=NEW_PASSWORD)

    def test_what_was_typed_does_not_come_back(self, visitor: "Visitor", token: str) -> None:
        visitor.open(f"/account/reset-password?token={token}")
        assert "canary-4711" not in visitor.send(422, password="canary-4711")


class TestForgotPassword:
    def test_everybody_gets_the_same_answer(self, visitor: "Visitor") -> None:
        answers = []
        for email in (EMAIL, "nobody@example.com"):
            visitor.open("/account/forgot-password")
            visitor.send(email=email)
            headers = {k: v for k, v in visitor.answer.headers.items() if k != "x-request-id"}
            answers.append((visitor.answer.text, headers))
        assert answers[0] == answers[1]

    @pytest.mark.parametrize("page", ["forgot-password", "email-sign-in"])
    def test_what_is_no_address_is_said_at_the_field(self, visitor: "Visitor", page: str) -> None:
        visitor.open(f"/account/{page}")
        html = visitor.send(422, email='"><script>alert(1)</script>')
        assert "This is not an e-mail address" in html
        assert "<script" not in html
        assert visitor.page.fields["email"] == '"><script>alert(1)</script>'

    def test_too_many_say_when_to_come_back(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(mails_per_recipient=1)
        visitor.open("/account/forgot-password")
        visitor.send(email=EMAIL)
        visitor.open("/account/forgot-password")
        assert "Wait 60 min" in visitor.send(429, email=EMAIL)
        assert int(visitor.answer.headers["retry-after"]) > 3000


class TestInvitation:
    @pytest.fixture
    def invited(self, visitor: "Visitor") -> "Visitor":
        invite(visitor.resources, operator(), "new@example.com", roles=["admin"])
        visitor.open(f"/account/invitation?token={visitor.token(Purpose.INVITATION)}")
        return visitor

    def test_it_creates_the_account(self, invited: "Visitor") -> None:
        assert "ready" in invited.send(display_name="Zoë", username="zoe", password=NEW_PASSWORD)
        answer = invited.log_in(NEW_PASSWORD, "new@example.com").json()["user"]
        assert (answer["username"], answer["display_name"], answer["roles"]) == ("zoe", "Zoë", ["admin"])
        assert answer["email_verified"] is True

    def test_only_the_password_is_needed(self, invited: "Visitor") -> None:
        invited.send(password=NEW_PASSWORD)
        assert invited.log_in(NEW_PASSWORD, "new@example.com").json()["user"]["username"] is None

    @pytest.mark.parametrize(
        ("fields", "status", "sentence"),
        [
            ({"password": "short"}, 422, "at least 12 characters"),
            ({"username": "a b"}, 422, "A username has 3 to 64"),
            ({"display_name": "x" * 201}, 422, "This name is too long"),
            ({"username": "taken"}, 409, "Somebody else has this username"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_what_breaks_a_rule_uses_nothing_up(
        self, invited: "Visitor", fields: dict[str, str], status: int, sentence: str
    ) -> None:
        body = {"email": "t@example.com", "username": "taken", "password": PASSWORD}
        assert invited.client.post("/auth/register", json=body).status_code == 201
        filled: dict[str, Any] = {"display_name": "Zoë", "password": NEW_PASSWORD} | fields
        assert sentence in invited.send(status, **filled)
        assert invited.page.fields["display_name"] == filled["display_name"]
        assert invited.page.fields["password"] == ""
        invited.send(username="free", display_name="", password=NEW_PASSWORD)


class TestKeep:
    def test_it_keeps_an_account_that_was_to_go(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(erasure_grace=86_400)
        visitor.register()
        bearer = {"Authorization": f"Bearer {visitor.log_in().json()['access_token']}"}
        answer = visitor.client.delete("/auth/me", headers=bearer)
        assert answer.status_code == 202, answer.text
        assert visitor.log_in().status_code == 403
        visitor.open(f"/account/keep?token={visitor.token(Purpose.KEEP_ACCOUNT)}")
        assert visitor.log_in().status_code == 403
        assert "Your account stays" in visitor.send()
        assert visitor.log_in().status_code == 200


FORMS = [
    route.path.replace("{passkey_id}", str(UUID(int=1)))
    for route in router.routes
    if isinstance(route, APIRoute) and route.methods == {"POST"}
]
"""Where every form of a page goes."""

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class TestForms:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 401),
            ({"Origin": "https://auth.example.com"}, 401),
            ({"Origin": "https://auth.example.com", "Sec-Fetch-Site": "same-origin"}, 401),
            ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 401),
            ({"Sec-Fetch-Site": "none"}, 401),
            ({"Origin": "null"}, 403),
            ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Origin": "https://auth.example.com", "Sec-Fetch-Site": "cross-site"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
            ({"Origin": "http://auth.example.com"}, 403),
            ({"Origin": "https://auth.example.com:8443"}, 403),
            ({"Origin": "https://auth.example.com.evil.example"}, 403),
            ({"Origin": ""}, 403),
        ],
        ids=str,
    )
    def test_another_site_sends_none(self, visitor: "Visitor", headers: dict[str, str], status: int) -> None:
        fields = {"identifier": EMAIL, "password": "wrong"}
        answer = visitor.client.post("/account/sign-in", data=fields, headers=headers)
        assert answer.status_code == status
        assert ("another site" in answer.text) == (status == 403)

    @pytest.mark.parametrize("path", FORMS)
    def test_its_address_leads_to_a_page(self, visitor: "Visitor", path: str) -> None:
        """Opened, or loaded again, after an answer that said what was wrong."""
        visitor.sign_in()
        answer = visitor.client.get(f"{path}?lang=fr")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.status_code in {200, 400, 404}
        assert '<html lang="fr">' in answer.text

    @pytest.mark.parametrize("path", FORMS)
    def test_every_form_is_guarded(self, visitor: "Visitor", query: Query, path: str) -> None:
        visitor.sign_in()
        before = query("SELECT count(*) FROM audit_events")
        cross_site = {"Sec-Fetch-Site": "cross-site"}
        answer = visitor.client.post(path, data={"email": EMAIL}, headers=cross_site, follow_redirects=False)
        assert answer.status_code == 403
        assert query("SELECT count(*) FROM audit_events") == before

    @pytest.mark.parametrize(
        ("body", "headers", "status"),
        [
            (b"identifier=a&identifier=b&password=x", FORM, 400),
            (b"identifier=%ff&password=x", FORM, 400),
            (b"identifier=a%00&password=x", FORM, 400),
            (b"identifier", FORM, 400),
            ("identifier=é".encode(), FORM, 400),
            (b"&".join(b"f%d=" % n for n in range(21)), FORM, 400),
            (b"identifier=" + b"x" * 70_000, FORM, 413),
            (b'{"identifier": "a"}', {"Content-Type": "application/json"}, 415),
            (b"identifier=a", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
            (b"identifier=a", {"Content-Type": "application/x-www-form-urlencoded; charset=latin-1"}, 415),
            (b"identifier=a", {}, 415),
            (b"identifier=a&password=x&role=admin", FORM, 401),
            (b"", {}, 401),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_a_body_is_a_form_that_a_browser_would_send(
        self, visitor: "Visitor", body: bytes, headers: dict[str, str], status: int
    ) -> None:
        answer = visitor.client.post("/account/sign-in", content=body, headers=headers)
        assert answer.status_code == status

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-origin"}, 401),
            ({"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-site"}, 403),
            ({"Origin": "https://app.example.com", "Sec-Fetch-Site": "none"}, 403),
            ({"Origin": "https://app.example.com"}, 403),
            ({"Origin": "https://other.example.com", "Sec-Fetch-Site": "same-origin"}, 403),
        ],
        ids=str,
    )
    def test_a_passkey_origin_is_ours_where_the_browser_says_so(
        self, make_visitor: MakeVisitor, headers: dict[str, str], status: int
    ) -> None:
        visitor = make_visitor(
            passkey_rp_id="example.com", passkey_origins="https://auth.example.com,https://app.example.com"
        )
        fields = {"identifier": EMAIL, "password": "wrong"}
        assert visitor.client.post("/account/sign-in", data=fields, headers=headers).status_code == status

    def test_the_api_takes_no_form(self, client: TestClient) -> None:
        answer = client.post("/auth/login", data={"email": EMAIL, "password": PASSWORD})
        assert answer.status_code == 415


class TestHeaders:
    @pytest.mark.parametrize(
        ("path", "status"), [("/account", 200), ("/account/verify-email?token=x", 400), ("/account/x", 404)]
    )
    def test_every_page_keeps_its_secrets(self, visitor: "Visitor", path: str, status: int) -> None:
        visitor.open(path, status)
        assert visitor.answer.headers["cache-control"] == "no-store"
        assert visitor.answer.headers["referrer-policy"] == "no-referrer"
        assert visitor.answer.headers["x-frame-options"] == "DENY"

    def test_a_page_may_do_next_to_nothing(self, visitor: "Visitor") -> None:
        assert "<script" not in visitor.open("/account/forgot-password")
        assert visitor.answer.headers["content-type"] == "text/html; charset=utf-8"
        assert visitor.answer.headers["content-security-policy"] == (
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )

    @pytest.mark.parametrize("path", ["/account", "/account/sign-in", "/account/security"])
    def test_where_there_are_passkeys_it_may_run_our_script_and_no_other(
        self, visitor: "Visitor", path: str
    ) -> None:
        if path == "/account/security":
            visitor.sign_in()
        html = visitor.open(path)
        assert visitor.answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert html.count("<script") == 1
        assert '<script src="/account/passkeys.js" defer></script>' in html
        visitor.open("/account/passkeys.js")
        assert visitor.answer.headers["content-type"] == "text/javascript; charset=utf-8"

    def test_the_logo_may_come_from_its_own_origin_alone(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(brand_logo_url="https://cdn.example.com/a/logo.svg")
        html = visitor.open("/account")
        assert '<img src="https://cdn.example.com/a/logo.svg" alt="Auth Manager">' in html
        policy = visitor.answer.headers["content-security-policy"]
        assert "img-src 'self' https://cdn.example.com;" in policy

    def test_the_host_changes_no_link(self, visitor: "Visitor") -> None:
        html = visitor.open("/account", headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
        assert "evil" not in html


class TestLanguage:
    def test_the_link_of_a_page_wins_and_stays(self, visitor: "Visitor") -> None:
        visitor.open("/account/sign-in?lang=fr", headers={"Accept-Language": "en"})
        assert visitor.page.language == "fr"
        assert "Mot de passe oublié" in visitor.answer.text
        assert visitor.page.action == "/account/sign-in?lang=fr"
        assert "Le mot de passe est faux" in visitor.send(401, identifier=EMAIL, password="x")
        visitor.send(303, identifier=EMAIL, password=PASSWORD)
        assert visitor.answer.headers["location"] == "/account?lang=fr"

    def test_the_browser_is_asked_next(self, visitor: "Visitor") -> None:
        visitor.open("/account", headers={"Accept-Language": "fr-CA,fr;q=0.9,en;q=0.8"})
        assert visitor.page.language == "fr"
        visitor.open("/account?lang=xx", headers={"Accept-Language": "de,en;q=0.5"})
        assert visitor.page.language == "en"

    def test_the_setting_decides_last(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(default_locale="fr")
        visitor.open("/account", headers={"Accept-Language": "de"})
        assert visitor.page.language == "fr"

    def test_mails_that_a_page_causes_are_in_its_language(self, visitor: "Visitor", query: Query) -> None:
        visitor.open("/account/forgot-password?lang=fr", headers={"Accept-Language": "en"})
        visitor.send(email=EMAIL)
        assert query("SELECT locale FROM outbox WHERE kind = 'reset_password'") == [{"locale": "fr"}]

    def test_the_token_stays_with_the_languages(self, visitor: "Visitor") -> None:
        token = visitor.token(Purpose.VERIFY_EMAIL)
        visitor.open(f"/account/verify-email?token={token}")
        visitor.open(f"/account/verify-email{visitor.page.links[-1]}")
        assert visitor.page.language == "fr"
        assert "Adresse confirmée" in visitor.send()


class TestFrontDoor:
    @pytest.mark.parametrize("base", ["", "/id"])
    def test_it_leads_to_the_account(self, make_visitor: MakeVisitor, base: str) -> None:
        visitor = make_visitor(public_url=f"https://auth.example.com{base}")
        visitor.open("/", 303)
        assert visitor.answer.headers["location"] == f"{base}/account"
        assert visitor.client.post("/").status_code == 405
        assert "/" not in visitor.client.app.openapi()["paths"]  # type: ignore[attr-defined]

    def test_a_lazy_application_has_it_too(self, make_resources: Callable[..., Resources]) -> None:
        client = TestClient(create_app(make_resources(), lazy=True))
        assert client.get("/", follow_redirects=False).headers["location"] == "/account"
        assert client.get("/account/security", follow_redirects=False).status_code == 303


class TestDisabled:
    @pytest.mark.parametrize(
        "path", ["/", "/account", "/account/security", "/account/sign-in", "/account/style.css"]
    )
    def test_there_is_nothing(self, make_visitor: MakeVisitor, path: str) -> None:
        visitor = make_visitor(pages_enabled=False)
        visitor.open(path, 404)
        assert visitor.answer.headers["content-type"] == "application/problem+json"
        answer = visitor.client.post(path, data={"identifier": EMAIL}, headers=OWN_FORM)
        assert answer.status_code in {404, 415}


class TestBasePath:
    def test_a_service_below_a_path_links_below_it(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(public_url="https://example.com/id")
        html = visitor.open("/account")
        assert visitor.page.action == "/id/account/sign-in"
        assert 'href="/id/account/style.css"' in html


class TestDatabaseGone:
    def test_a_page_says_so(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(database_url="postgresql://nobody@127.0.0.1:1/none")
        token = visitor.resources.one_time_secrets.token(Purpose.VERIFY_EMAIL, UUID(int=1))
        assert "not available right now" in visitor.open(f"/account/verify-email?token={token}", 503)
        assert visitor.answer.headers["retry-after"]

"""Signing in on the pages, in one step or two, and out again."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from tests.passkeys.authenticator import Authenticator

from auth_manager.database import Row
from auth_manager.one_time_secrets import Purpose

if TYPE_CHECKING:
    from tests.pages.conftest import Visitor

Query = Callable[..., list[Row]]
MakeVisitor = Callable[..., "Visitor"]

PASSWORD = "SecurePass123!"
EMAIL = "test@example.com"
OWN_FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


class TestSignIn:
    def test_by_password(self, visitor: "Visitor") -> None:
        visitor.open("/account/sign-in")
        assert visitor.page.inputs["identifier"]["autocomplete"] == "username"
        assert visitor.page.inputs["password"]["autocomplete"] == "current-password"
        visitor.send(303, identifier=EMAIL, password=PASSWORD)
        assert visitor.answer.headers["location"] == "/account"
        assert EMAIL in visitor.open("/account")

    def test_the_cookie_is_for_our_pages_alone(self, visitor: "Visitor") -> None:
        visitor.open("/account/sign-in")
        visitor.send(303, identifier=EMAIL, password=PASSWORD)
        name, _, rest = visitor.answer.headers["set-cookie"].partition("=")
        attributes = sorted(rest.split("; ")[1:])
        assert name == "__Host-auth"
        assert attributes == ["HttpOnly", "Max-Age=1209600", "Path=/", "SameSite=lax", "Secure"]
        assert visitor.client.get("/auth/me").status_code == 401, "the API reads no cookie"
        assert visitor.client.post("/auth/logout").status_code == 401

    def test_on_a_laptop_the_cookie_goes_over_http(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(mode="local", public_url="http://127.0.0.1:8000")
        visitor.register()
        visitor.open("/account/sign-in")
        visitor.send(303, identifier=EMAIL, password=PASSWORD)
        cookie = visitor.answer.headers["set-cookie"]
        assert cookie.startswith("auth=rt_")
        assert "Secure" not in cookie

    def test_a_wrong_password_is_refused(self, visitor: "Visitor") -> None:
        visitor.open("/account/sign-in")
        html = visitor.send(401, identifier=EMAIL, password="canary-4711")
        assert "not the right password" in html
        assert visitor.page.title.startswith("Error:")
        assert visitor.page.fields == {"identifier": EMAIL, "password": ""}
        assert "canary" not in html
        assert "set-cookie" not in visitor.answer.headers

    def test_an_unknown_name_gets_the_same_answer(self, visitor: "Visitor") -> None:
        answers = []
        for name in (EMAIL, "nobo@example.com"):
            visitor.open("/account/sign-in")
            answers.append(visitor.send(401, identifier=name, password="wrong").replace(name, "NAME"))
        assert answers[0] == answers[1]

    def test_by_link_after_a_look_at_who_it_is_for(self, visitor: "Visitor") -> None:
        visitor.open("/account/email-sign-in")
        visitor.send(email=EMAIL)
        token = visitor.token(Purpose.EMAIL_LOGIN)
        assert f"as {EMAIL}" in visitor.open(f"/account/sign-in?token={token}")
        assert "set-cookie" not in visitor.answer.headers
        visitor.send(303)
        assert EMAIL in visitor.open("/account")
        visitor.open(f"/account/sign-in?token={token}", 400)

    def test_a_disabled_account_is_refused(self, visitor: "Visitor", query: Query) -> None:
        query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        visitor.open("/account/sign-in")
        assert "disabled" in visitor.send(403, identifier=EMAIL, password=PASSWORD)


class TestEmailSignIn:
    def test_the_code_signs_in(self, visitor: "Visitor") -> None:
        visitor.open("/account/email-sign-in")
        visitor.send(email=EMAIL)
        assert visitor.page.inputs["code"]["autocomplete"] == "one-time-code"
        code = visitor.code(Purpose.EMAIL_LOGIN)
        visitor.send(303, code=f" {code[:3]} {code[3:]} ")
        assert EMAIL in visitor.open("/account")

    def test_a_wrong_code_can_be_corrected(self, visitor: "Visitor") -> None:
        visitor.open("/account/email-sign-in")
        visitor.send(email=EMAIL)
        right = visitor.code(Purpose.EMAIL_LOGIN)
        wrong = f"{(int(right) + 1) % 1_000_000:06}"
        assert "not valid any more" in visitor.send(400, code=wrong)
        visitor.send(303, code=right)

    def test_a_code_counts_for_its_own_request(self, visitor: "Visitor") -> None:
        visitor.open("/account/email-sign-in")
        visitor.send(email=EMAIL)
        first = visitor.page.fields["request"]
        visitor.open("/account/email-sign-in")
        visitor.send(email=EMAIL)
        code = visitor.code(Purpose.EMAIL_LOGIN)
        visitor.send(400, request=first, code=code)
        visitor.send(400, request="no request", code=code)

    def test_everybody_gets_the_same_page(
        self, visitor: "Visitor", without_ids: Callable[[str], str]
    ) -> None:
        answers = []
        for email in (EMAIL, "nobody@example.com"):
            visitor.open("/account/email-sign-in")
            answers.append(without_ids(visitor.send(email=email)))
        assert answers[0] == answers[1]
        visitor.send(400, code="123456")


class TestPasskey:
    @pytest.fixture
    def owner(self, visitor: "Visitor", authenticator: Authenticator) -> "Visitor":
        """Somebody with a passkey, who signed out."""
        visitor.sign_in()
        visitor.open("/account/security")
        found = visitor.run_script("/account/security/passkeys/options", "security/passkeys", authenticator)
        visitor.send(200, "security/passkeys", **found)
        visitor.client.cookies.clear()
        visitor.open("/account/sign-in")
        return visitor

    @pytest.fixture
    def authenticator(self) -> Authenticator:
        return Authenticator()

    def test_it_signs_in_without_a_name(self, owner: "Visitor", authenticator: Authenticator) -> None:
        found = owner.run_script(OPTIONS, "sign-in/passkey", authenticator)
        owner.send(303, "sign-in/passkey", **found)
        assert EMAIL in owner.open("/account")

    def test_one_that_was_used_is_refused(self, owner: "Visitor", authenticator: Authenticator) -> None:
        found = owner.run_script(OPTIONS, "sign-in/passkey", authenticator)
        owner.send(303, "sign-in/passkey", **found)
        owner.client.cookies.clear()
        owner.open("/account/sign-in")
        assert "was not accepted" in owner.send(401, "sign-in/passkey", **found)
        assert "set-cookie" not in owner.answer.headers

    @pytest.mark.parametrize("passkey", ["", "{", "[]", "{}", '{"rawId": 1}', "[" * 20_000])
    def test_what_is_none_is_refused(self, visitor: "Visitor", passkey: str) -> None:
        visitor.open("/account/sign-in")
        request = str(UUID(int=1))
        html = visitor.send(401, "sign-in/passkey", passkey_request=request, passkey=passkey)
        assert "was not accepted" in html

    def test_it_is_the_second_step_after_the_password(
        self, owner: "Visitor", authenticator: Authenticator
    ) -> None:
        authenticator.verifies_user = False
        html = owner.sign_in(200)
        assert '<script src="/account/passkeys.js"' in html
        assert "script-src 'self'" in owner.answer.headers["content-security-policy"]
        found = owner.run_script("/account/second-step/passkey", "second-step", authenticator)
        owner.send(303, **found)
        assert EMAIL in owner.open("/account")

    def test_without_its_user_verified_it_does_not_sign_in_alone(
        self, owner: "Visitor", authenticator: Authenticator
    ) -> None:
        authenticator.verifies_user = False
        found = owner.run_script(OPTIONS, "sign-in/passkey", authenticator)
        assert "was not accepted" in owner.send(401, "sign-in/passkey", **found)

    def test_a_wrong_one_can_be_corrected(self, owner: "Visitor", authenticator: Authenticator) -> None:
        owner.sign_in(200)
        authenticator.origin = "https://evil.example"
        found = owner.run_script("/account/second-step/passkey", "second-step", authenticator)
        assert "not valid" in owner.send(401, **found)
        authenticator.origin = "https://auth.example.com"
        found = owner.run_script("/account/second-step/passkey", "second-step", authenticator)
        owner.send(303, **found)

    def test_options_are_for_nobody_whose_sign_in_is_over(self, owner: "Visitor") -> None:
        owner.sign_in(200)
        fields = {"mfa_token": "ot_x"}
        answer = owner.client.post("/account/second-step/passkey", data=fields, headers=OWN_FORM)
        assert answer.status_code == 401
        assert "sign in again" in answer.text


OPTIONS = "/account/sign-in/passkey/options"


class TestSecondStep:
    @pytest.fixture
    def recovery_codes(self, visitor: "Visitor") -> list[str]:
        """Of somebody with an authenticator app, who signed out."""
        visitor.sign_in()
        codes = visitor.add_app()
        visitor.client.cookies.clear()
        return codes

    @pytest.fixture
    def halfway(self, visitor: "Visitor", recovery_codes: list[str]) -> "Visitor":
        assert len(recovery_codes) == 10
        visitor.sign_in(200)
        return visitor

    def test_the_password_alone_leads_to_it(self, halfway: "Visitor") -> None:
        assert halfway.page.title.startswith("One more step")
        assert halfway.page.inputs["totp"]["autocomplete"] == "one-time-code"
        assert "set-cookie" not in halfway.answer.headers
        assert "<script" not in halfway.answer.text, "there is no passkey"
        assert EMAIL not in halfway.open("/account")

    def test_the_code_of_the_app_signs_in(self, halfway: "Visitor", query: Query) -> None:
        code = halfway.app_code()
        halfway.send(303, totp=f"{code[:3]} {code[3:]}")
        assert halfway.answer.headers["location"] == "/account"
        assert EMAIL in halfway.open("/account")
        [session] = query("SELECT acr, amr FROM sessions ORDER BY id DESC LIMIT 1")
        assert session == {"acr": "aal2", "amr": ["mfa", "otp", "pwd"]}

    def test_a_wrong_code_can_be_corrected(self, halfway: "Visitor") -> None:
        html = halfway.send(401, totp=halfway.wrong_code(), recovery_code="")
        assert "not valid, or it was used before" in html
        assert halfway.page.title.startswith("Error:")
        assert "set-cookie" not in halfway.answer.headers
        assert {"totp", "recovery_code"} <= set(halfway.page.inputs)
        halfway.send(303, totp=halfway.app_code())

    def test_a_recovery_code_signs_in_once(self, halfway: "Visitor", recovery_codes: list[str]) -> None:
        halfway.send(303, recovery_code=recovery_codes[3].upper())
        assert EMAIL in halfway.open("/account")
        halfway.client.cookies.clear()
        halfway.sign_in(200)
        assert "used before" in halfway.send(401, recovery_code=recovery_codes[3])
        halfway.send(303, recovery_code=recovery_codes[4])

    def test_it_comes_after_a_mailed_code_and_link_too(self, halfway: "Visitor") -> None:
        halfway.open("/account/email-sign-in")
        halfway.send(email=EMAIL)
        assert "One more step" in halfway.send(code=halfway.code(Purpose.EMAIL_LOGIN))
        halfway.open("/account/email-sign-in")
        halfway.send(email=EMAIL)
        halfway.open(f"/account/sign-in?token={halfway.token(Purpose.EMAIL_LOGIN)}")
        assert "One more step" in halfway.send()
        halfway.send(303, totp=halfway.app_code())

    def test_a_sign_in_that_is_over_starts_again(self, halfway: "Visitor", query: Query) -> None:
        query("UPDATE one_time_secrets SET expires_at = now() WHERE purpose = 'second_factor' RETURNING 1")
        html = halfway.send(401, totp=halfway.app_code())
        assert "Please sign in again" in html
        assert halfway.page.action == "/account/sign-in"

    def test_its_token_is_in_no_address(self, halfway: "Visitor") -> None:
        """ASVS 14.2.1."""
        token = halfway.page.fields["mfa_token"]
        assert token.startswith("ot_")
        html = halfway.answer.text
        assert html.count(token) == 1
        assert token not in "".join(halfway.page.links) + halfway.page.action
        halfway.send(303, totp=halfway.app_code())
        assert halfway.answer.headers["location"] == "/account"

    def test_guesses_are_limited(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(login_failures_before_delay=3, login_failures_before_lock=5)
        visitor.register()
        visitor.sign_in()
        visitor.add_app()
        visitor.client.cookies.clear()
        visitor.sign_in(200)
        for _ in range(3):
            visitor.send(401, totp=visitor.wrong_code())
        assert "Too many failed attempts" in visitor.send(429, totp=visitor.app_code())
        assert visitor.answer.headers["retry-after"]

    def test_what_is_shown_again_is_what_we_know(self, halfway: "Visitor") -> None:
        html = halfway.send(401, factors="totp <b>", totp="000 000")
        assert "<b>" not in html
        assert "recovery_code" not in halfway.page.inputs

    def test_an_empty_form_is_no_failure(self, halfway: "Visitor", query: Query) -> None:
        before = query("SELECT count(*) FROM audit_events")
        assert "not valid" in halfway.send(401)
        assert query("SELECT count(*) FROM audit_events") == before
        halfway.send(303, totp=halfway.app_code())


class TestTrustedDevice:
    @pytest.fixture
    def halfway(self, visitor: "Visitor") -> "Visitor":
        visitor.sign_in()
        visitor.add_app()
        visitor.client.cookies.clear()
        visitor.sign_in(200)
        return visitor

    def test_it_needs_the_password_only(self, halfway: "Visitor") -> None:
        halfway.send(303, totp=halfway.app_code(), trust="yes")
        [cookie] = [
            value for value in halfway.answer.headers.get_list("set-cookie") if "auth-device" in value
        ]
        name, _, rest = cookie.partition("=")
        assert name == "__Host-auth-device"
        attributes = sorted(rest.split("; ")[1:])
        assert attributes == ["HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=lax", "Secure"]
        halfway.open("/account")
        halfway.send(303, scope="this")
        halfway.sign_in(303)
        assert EMAIL in halfway.open("/account")

    def test_nobody_is_trusted_unasked(self, halfway: "Visitor") -> None:
        halfway.send(303, totp=halfway.app_code())
        assert "auth-device" not in halfway.answer.headers["set-cookie"]
        halfway.client.cookies.clear()
        halfway.sign_in(200)

    def test_it_ends_on_the_security_page(self, halfway: "Visitor") -> None:
        halfway.send(303, totp=halfway.app_code(), trust="yes")
        html = halfway.open("/account/security")
        [device] = re.findall(r'name="device" value="([^"]+)"', html)
        halfway.send(303, "security/devices", device=device)
        assert 'name="device"' not in halfway.open("/account/security")
        halfway.sign_in(200)

    def test_where_the_setting_forbids_it_nobody_is_asked(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(trusted_device_lifetime=0)
        visitor.register()
        visitor.sign_in()
        visitor.add_app()
        visitor.client.cookies.clear()
        visitor.sign_in(200)
        assert "trust" not in visitor.page.inputs
        visitor.send(303, totp=visitor.app_code(), trust="yes")
        assert "auth-device" not in visitor.answer.headers["set-cookie"]

    def test_on_a_laptop_its_cookie_goes_over_http(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(mode="local", public_url="http://127.0.0.1:8000")
        visitor.register()
        visitor.sign_in()
        visitor.add_app()
        visitor.sign_in(200)
        visitor.send(303, totp=visitor.app_code(), trust="yes")
        assert "; auth-device=td_" in "; " + "; ".join(visitor.answer.headers.get_list("set-cookie"))


class TestEnrolment:
    """AUTH_MFA_POLICY: a second step that has to be set up before there is a session."""

    @pytest.fixture
    def obliged(self, make_visitor: MakeVisitor) -> "Visitor":
        visitor = make_visitor(mfa_policy="required")
        visitor.register()
        return visitor

    def test_an_app_is_set_up_and_signs_in(self, obliged: "Visitor") -> None:
        html = obliged.sign_in(200)
        assert "needs a second step" in html
        assert "<svg" in html
        assert "set-cookie" not in obliged.answer.headers
        codes = obliged.confirm_app(html)
        assert len(codes) == 10
        assert "/account" in obliged.page.links
        assert EMAIL in obliged.open("/account")
        assert codes[0] not in obliged.open("/account/security")
        obliged.client.cookies.clear()
        obliged.sign_in(200)
        obliged.send(303, totp=obliged.app_code())

    def test_a_wrong_code_can_be_corrected(self, obliged: "Visitor") -> None:
        html = obliged.sign_in(200)
        obliged.app_secret = re.findall(r"<code>([A-Z2-7]{32})</code>", html)[0]
        html = obliged.send(422, code=obliged.wrong_code())
        assert html.count("not the code that the app shows now") == 2, "in the summary and at the field"
        assert obliged.app_secret not in html
        assert "recovery" in obliged.send(code=obliged.app_code())
        assert EMAIL in obliged.open("/account")

    def test_its_token_is_in_no_address(self, obliged: "Visitor") -> None:
        html = obliged.sign_in(200)
        token = obliged.page.fields["mfa_token"]
        assert html.count(token) == 1
        assert token not in obliged.page.action + "".join(obliged.page.links)

    def test_one_that_is_over_starts_again(self, obliged: "Visitor") -> None:
        obliged.sign_in(200)
        assert "Please sign in again" in obliged.send(401, mfa_token="ot_x", code="123456")
        assert obliged.page.action == "/account/sign-in"

    def test_an_address_that_is_not_proven_is_said(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(mfa_policy="required", mail_transport="ses", mail_from="a@example.com")
        visitor.register()
        assert "not confirmed yet" in visitor.sign_in(403)
        assert visitor.page.action == "/account/sign-in"


class TestAccount:
    @pytest.fixture
    def signed_in(self, visitor: "Visitor") -> "Visitor":
        visitor.open("/account/sign-in")
        visitor.send(303, identifier=EMAIL, password=PASSWORD)
        visitor.open("/account")
        return visitor

    def test_nobody_is_asked_to_sign_in(self, visitor: "Visitor") -> None:
        visitor.open("/account")
        assert visitor.page.action == "/account/sign-in"
        assert {"/account/email-sign-in", "/account/forgot-password"} <= set(visitor.page.links)

    def test_it_lists_where_one_is_signed_in(self, visitor: "Visitor") -> None:
        visitor.client.headers["User-Agent"] = "<b>Browser</b>/1"
        visitor.open("/account/sign-in")
        visitor.send(303, identifier=EMAIL, password=PASSWORD)
        visitor.client.headers["User-Agent"] = "Telephone/2"
        visitor.log_in()
        html = visitor.open("/account")
        assert "&lt;b&gt;Browser&lt;/b&gt;/1" in html
        assert "Telephone/2" in html
        assert html.count("From 203.0.113.7") == 2
        assert html.count("this one") == 1

    def test_it_says_where_an_administrator_acts_for_one(self, signed_in: "Visitor", query: Query) -> None:
        [own] = query("SELECT id FROM sessions")
        signed_in.log_in()
        query(f"UPDATE sessions SET impersonator_id = id WHERE id <> '{own['id']}' RETURNING 1")
        html = signed_in.open("/account")
        assert html.count("An administrator, acting for you") == 1

    def test_looking_trades_no_token_and_counts_as_use(self, signed_in: "Visitor", query: Query) -> None:
        query("UPDATE sessions SET last_used_at = last_used_at - interval '1 day' RETURNING 1")
        before = query(
            "SELECT counter, expires_at FROM refresh_lines JOIN sessions ON session_id = sessions.id"
        )
        for _ in range(3):
            assert EMAIL in signed_in.open("/account")
        after = query(
            "SELECT counter, expires_at FROM refresh_lines JOIN sessions ON session_id = sessions.id"
        )
        assert after == before
        assert query("SELECT 1 FROM sessions WHERE last_used_at > now() - interval '1 minute'")

    def test_signing_out_ends_the_session(self, signed_in: "Visitor") -> None:
        token = signed_in.client.cookies["__Host-auth"]
        signed_in.send(303, scope="this")
        assert "Max-Age=0" in signed_in.answer.headers["set-cookie"]
        assert signed_in.client.post("/auth/refresh", json={"refresh_token": token}).status_code == 401
        signed_in.open("/account")
        assert signed_in.page.action == "/account/sign-in"

    def test_signing_out_in_one_place_leaves_the_others(self, signed_in: "Visitor") -> None:
        tokens = [signed_in.log_in().json()["refresh_token"] for _ in range(2)]
        html = signed_in.open("/account")
        session, _ = re.findall(r'name="session" value="([^"]+)"', html)
        forms = [form for form in signed_in.page.forms if form.action == "/account/sign-out"]
        assert len(forms) == 3, "the others, and here"
        answer = signed_in.client.post(
            "/account/sign-out", data={"session": session}, headers=OWN_FORM, follow_redirects=False
        )
        assert answer.status_code == 303
        statuses = [
            signed_in.client.post("/auth/refresh", json={"refresh_token": token}).status_code
            for token in tokens
        ]
        assert sorted(statuses) == [200, 401]
        assert EMAIL in signed_in.open("/account")

    @pytest.mark.parametrize("session", ["", "x", str(UUID(int=1))])
    def test_what_is_no_session_of_ones_own_is_said(self, signed_in: "Visitor", session: str) -> None:
        assert "nothing here" in signed_in.send(404, session=session)

    def test_signing_out_elsewhere_keeps_this_one(self, signed_in: "Visitor") -> None:
        other = signed_in.log_in().json()["refresh_token"]
        signed_in.send(303, scope="others")
        assert signed_in.client.post("/auth/refresh", json={"refresh_token": other}).status_code == 401
        assert EMAIL in signed_in.open("/account")

    @pytest.mark.parametrize(
        "sql",
        [
            "UPDATE sessions SET ended_at = now(), end_reason = 'revoked' RETURNING 1",
            "UPDATE sessions SET expires_at = now() RETURNING 1",
            "UPDATE sessions SET last_used_at = now() - interval '15 days' RETURNING 1",
            "UPDATE accounts SET disabled_at = now() RETURNING 1",
            "UPDATE refresh_lines SET counter = 2 RETURNING 1",
        ],
        ids=["ended", "expired", "idle", "disabled", "traded elsewhere"],
    )
    def test_a_session_that_is_over_loses_its_cookie(
        self, signed_in: "Visitor", query: Query, sql: str
    ) -> None:
        query(sql)
        assert EMAIL not in signed_in.open("/account")
        assert "Max-Age=0" in signed_in.answer.headers["set-cookie"]

    @pytest.mark.parametrize("value", ["", "x", "rt_" + "A" * 76])
    def test_a_cookie_that_is_none_of_ours_is_nobody(self, visitor: "Visitor", value: str) -> None:
        assert "Sign in" in visitor.open("/account", headers={"Cookie": f"__Host-auth={value}"})

    def test_signing_out_of_nothing_is_fine(self, visitor: "Visitor") -> None:
        answer = visitor.client.post("/account/sign-out", headers=OWN_FORM, follow_redirects=False)
        assert answer.status_code == 303

    def test_it_leads_to_the_application(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(app_url="https://app.example.com/start?a=1&b=2")
        visitor.register()
        visitor.open("/account/sign-in")
        visitor.send(303, identifier=EMAIL, password=PASSWORD)
        visitor.open("/account")
        assert "https://app.example.com/start?a=1&b=2" in visitor.page.links

"""The security page and what it leads to, without JavaScript; what the script does is done by hand."""

import json
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
OWN_FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
OPTIONS = "/account/security/passkeys/options"
RECOVERY_CODE = re.compile(r"<code>([0-9a-z]{5}-[0-9a-z]{5})</code>")


@pytest.fixture
def signed_in(visitor: "Visitor") -> "Visitor":
    """Somebody without any second factor."""
    visitor.sign_in()
    return visitor


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator()


def add_passkey(visitor: "Visitor", authenticator: Authenticator, name: str = "") -> str:
    """Add one on the security page; return the answer's HTML."""
    visitor.open("/account/security")
    found = visitor.run_script(OPTIONS, "security/passkeys", authenticator)
    return visitor.send(200, "security/passkeys", name=name, **found)


def address_of_passkey(visitor: "Visitor") -> str:
    visitor.open("/account/security")
    [path] = [link for link in visitor.page.links if link.startswith("/account/security/passkeys/")]
    return path


class TestSecurity:
    def test_who_is_not_signed_in_is_asked_to(self, visitor: "Visitor") -> None:
        for path in ("", "/confirm", f"/passkeys/{UUID(int=1)}"):
            visitor.open(f"/account/security{path}", 303)
            assert visitor.answer.headers["location"] == "/account"
        for path in ("totp", "totp/confirm", "passkeys", "passkeys/options", "devices", "confirm"):
            answer = visitor.client.post(
                f"/account/security/{path}", headers=OWN_FORM, follow_redirects=False
            )
            assert (answer.status_code, answer.headers["location"]) == (303, "/account")

    def test_the_account_page_leads_to_it(self, signed_in: "Visitor") -> None:
        signed_in.open("/account")
        assert "/account/security" in signed_in.page.links

    def test_without_factors_it_offers_them(self, signed_in: "Visitor") -> None:
        html = signed_in.open("/account/security")
        assert [form.action for form in signed_in.page.forms] == [
            "/account/security/passkeys",
            "/account/security/totp",
        ]
        assert "Recovery codes" not in html
        assert "Trusted devices" not in html

    def test_the_names_of_others_devices_are_text(self, signed_in: "Visitor") -> None:
        signed_in.add_app()
        signed_in.client.cookies.clear()
        signed_in.client.headers["User-Agent"] = "<b>Browser</b>/1"
        signed_in.sign_in(200)
        signed_in.send(303, totp=signed_in.app_code(), trust="yes")
        assert "&lt;b&gt;Browser&lt;/b&gt;/1" in signed_in.open("/account/security")

    def test_it_is_in_french_too(self, signed_in: "Visitor") -> None:
        signed_in.open("/account/security?lang=fr")
        assert "Configurez une application" in signed_in.send(to="security/totp")
        assert signed_in.page.action == "/account/security/totp/confirm?lang=fr"
        signed_in.let_time_pass()
        signed_in.send(303, code="123456")
        assert signed_in.answer.headers["location"] == "/account/security/confirm?lang=fr"


class TestAuthenticatorApp:
    def test_it_is_added_with_recovery_codes(self, signed_in: "Visitor") -> None:
        codes = signed_in.add_app()
        assert len(set(codes)) == 10
        assert signed_in.page.links == ["/account/security"]
        html = signed_in.open("/account/security")
        assert "It is set up." in html
        assert "10 left" in html
        assert signed_in.app_secret not in html
        assert not RECOVERY_CODE.search(html)

    def test_its_secret_is_a_picture_and_a_text(self, signed_in: "Visitor") -> None:
        signed_in.open("/account/security")
        html = signed_in.send(to="security/totp")
        [svg] = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
        assert "style" not in svg
        assert 'role="img" aria-label="QR code' in html
        assert re.search(r"<code>[A-Z2-7]{32}</code>", html)
        assert "script-src" not in signed_in.answer.headers["content-security-policy"]

    def test_a_wrong_code_can_be_corrected(self, signed_in: "Visitor") -> None:
        signed_in.open("/account/security")
        html = signed_in.send(to="security/totp")
        signed_in.app_secret = re.findall(r"<code>([A-Z2-7]{32})</code>", html)[0]
        html = signed_in.send(422, code=signed_in.wrong_code())
        assert "not the code that the app shows now" in html
        assert signed_in.page.inputs["code"]["aria-invalid"] == "true"
        assert len(RECOVERY_CODE.findall(signed_in.send(code=signed_in.app_code()))) == 10

    def test_a_code_for_nothing_is_said(self, signed_in: "Visitor") -> None:
        answer = signed_in.client.post(
            "/account/security/totp/confirm", data={"code": "123456"}, headers=OWN_FORM
        )
        assert answer.status_code == 404
        assert "nothing here any more" in answer.text

    def test_it_is_removed_and_the_password_is_enough_again(self, signed_in: "Visitor") -> None:
        signed_in.add_app()
        signed_in.open("/account/security")
        signed_in.send(303, "security/totp/remove")
        assert "Recovery codes" not in signed_in.open("/account/security")
        signed_in.client.cookies.clear()
        signed_in.sign_in(303)

    def test_where_a_policy_asks_for_it_it_stays(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(mfa_policy="required")
        visitor.register()
        visitor.confirm_app(visitor.sign_in(200))
        visitor.open("/account/security")
        assert "must keep a second step" in visitor.send(409, "security/totp/remove")

    def test_an_address_that_is_not_proven_gets_none(self, make_visitor: MakeVisitor) -> None:
        visitor = make_visitor(mail_transport="ses", mail_from="auth@example.com")
        visitor.register()
        visitor.sign_in()
        visitor.open("/account/security")
        assert "not confirmed yet" in visitor.send(403, "security/totp")


class TestRecoveryCodes:
    def test_new_ones_replace_the_old(self, signed_in: "Visitor") -> None:
        old = signed_in.add_app()
        signed_in.open("/account/security")
        new = RECOVERY_CODE.findall(signed_in.send(to="security/recovery-codes"))
        assert len(new) == 10
        assert not set(old) & set(new)
        signed_in.client.cookies.clear()
        signed_in.sign_in(200)
        signed_in.send(401, recovery_code=old[0])
        signed_in.send(303, recovery_code=new[0])
        assert "9 left" in signed_in.open("/account/security")

    def test_there_are_none_for_nothing(self, signed_in: "Visitor") -> None:
        answer = signed_in.client.post("/account/security/recovery-codes", headers=OWN_FORM)
        assert answer.status_code == 409


class TestPasskeys:
    def test_one_is_added_with_recovery_codes(
        self, signed_in: "Visitor", authenticator: Authenticator
    ) -> None:
        html = add_passkey(signed_in, authenticator, "<b>My</b> telephone")
        assert len(RECOVERY_CODE.findall(html)) == 10
        html = signed_in.open("/account/security")
        assert "&lt;b&gt;My&lt;/b&gt; telephone" in html
        assert "Not used yet." in html

    def test_without_a_name_it_gets_a_number(
        self, signed_in: "Visitor", authenticator: Authenticator
    ) -> None:
        add_passkey(signed_in, authenticator)
        assert "Passkey 1" in signed_in.open("/account/security")

    def test_it_gets_another_name(self, signed_in: "Visitor", authenticator: Authenticator) -> None:
        add_passkey(signed_in, authenticator, "Old name")
        assert 'value="Old name"' in signed_in.open(address_of_passkey(signed_in))
        signed_in.send(303, name=" New name ")
        html = signed_in.open("/account/security")
        assert "<strong>New name</strong>" in html
        assert "Old name" not in html

    @pytest.mark.parametrize("name", ["", "  ", "x" * 101])
    def test_what_is_no_name_is_said_at_the_field(
        self, signed_in: "Visitor", authenticator: Authenticator, name: str
    ) -> None:
        add_passkey(signed_in, authenticator, "Old name")
        signed_in.open(address_of_passkey(signed_in))
        assert "A name has 1 to 100 characters." in signed_in.send(422, name=name)
        assert signed_in.page.inputs["name"]["aria-invalid"] == "true"
        assert signed_in.page.fields["name"] == "Old name"

    def test_it_is_removed(self, signed_in: "Visitor", authenticator: Authenticator) -> None:
        add_passkey(signed_in, authenticator)
        path = address_of_passkey(signed_in)
        signed_in.open(path)
        signed_in.send(303, f"{path.removeprefix('/account/')}/remove")
        assert "Passkey 1" not in signed_in.open("/account/security")
        signed_in.open(path, 404)

    @pytest.mark.parametrize("passkey_id", [str(UUID(int=1)), "x"])
    def test_those_of_others_are_not_there(self, signed_in: "Visitor", passkey_id: str) -> None:
        for path in (passkey_id, f"{passkey_id}/remove"):
            answer = signed_in.client.post(
                f"/account/security/passkeys/{path}", data={"name": "Mine"}, headers=OWN_FORM
            )
            assert answer.status_code == 404

    def test_one_that_is_known_is_said(self, signed_in: "Visitor", authenticator: Authenticator) -> None:
        add_passkey(signed_in, authenticator)
        signed_in.open("/account/security")
        answer = signed_in.client.post(OPTIONS, headers=OWN_FORM).json()
        again = authenticator.attest(authenticator.passkeys[0], answer["options"])
        fields = {"passkey_request": answer["request"], "passkey": json.dumps(again)}
        assert "is here already" in signed_in.send(409, "security/passkeys", **fields)

    @pytest.mark.parametrize("passkey", ["", "{}", "[1]", "null"])
    def test_what_is_none_is_refused(self, signed_in: "Visitor", passkey: str) -> None:
        signed_in.open("/account/security")
        fields = {"passkey_request": str(UUID(int=1)), "passkey": passkey}
        assert "was not accepted" in signed_in.send(401, "security/passkeys", **fields)

    def test_one_of_another_site_is_refused(
        self, signed_in: "Visitor", authenticator: Authenticator, query: Query
    ) -> None:
        authenticator.origin = "https://evil.example"
        signed_in.open("/account/security")
        found = signed_in.run_script(OPTIONS, "security/passkeys", authenticator)
        signed_in.send(401, "security/passkeys", **found)
        assert query("SELECT 1 FROM passkeys") == []

    def test_options_of_another_session_are_none(
        self, signed_in: "Visitor", authenticator: Authenticator
    ) -> None:
        signed_in.open("/account/security")
        found = signed_in.run_script(OPTIONS, "security/passkeys", authenticator)
        signed_in.client.cookies.clear()
        signed_in.sign_in()
        signed_in.open("/account/security")
        signed_in.send(401, "security/passkeys", **found)


class TestTrustedDevices:
    @pytest.mark.parametrize("device", ["", "x", str(UUID(int=1))])
    def test_those_of_others_are_not_there(self, signed_in: "Visitor", device: str) -> None:
        answer = signed_in.client.post("/account/security/devices", data={"device": device}, headers=OWN_FORM)
        assert answer.status_code == 404


class TestConfirm:
    """Changes an hour after the sign-in."""

    CHANGES = (
        "totp",
        "totp/confirm",
        "totp/remove",
        "passkeys/options",
        "recovery-codes",
        f"passkeys/{UUID(int=1)}/remove",
    )

    @pytest.mark.parametrize("change", CHANGES)
    def test_every_change_asks_for_it(self, signed_in: "Visitor", change: str) -> None:
        signed_in.let_time_pass()
        answer = signed_in.client.post(
            f"/account/security/{change}", data={"code": "1"}, headers=OWN_FORM, follow_redirects=False
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/account/security/confirm")

    def test_a_passkey_that_was_begun_before_asks_for_it_too(
        self, signed_in: "Visitor", authenticator: Authenticator
    ) -> None:
        signed_in.open("/account/security")
        found = signed_in.run_script(OPTIONS, "security/passkeys", authenticator)
        signed_in.let_time_pass()
        signed_in.send(303, "security/passkeys", **found)
        assert signed_in.answer.headers["location"] == "/account/security/confirm"

    def test_by_password_then_the_click_again(self, signed_in: "Visitor") -> None:
        signed_in.let_time_pass()
        signed_in.open("/account/security")
        signed_in.send(303, "security/totp")
        signed_in.open(signed_in.answer.headers["location"])
        assert signed_in.page.inputs["password"]["autocomplete"] == "current-password"
        signed_in.send(303, password=PASSWORD)
        assert signed_in.answer.headers["location"] == "/account/security"
        assert len(signed_in.add_app()) == 10

    def test_a_wrong_password_can_be_corrected(self, signed_in: "Visitor") -> None:
        signed_in.let_time_pass()
        signed_in.open("/account/security/confirm")
        html = signed_in.send(422, password="canary-4711")
        assert "canary" not in html
        assert signed_in.page.inputs["password"]["aria-invalid"] == "true"
        assert html.count("This is not your password.") == 2, "in the summary and at the field"
        signed_in.send(303, password=PASSWORD)

    def test_by_a_mailed_code(self, make_visitor: MakeVisitor, query: Query) -> None:
        visitor = make_visitor(mail_transport="ses", mail_from="auth@example.com")
        visitor.register()
        query("UPDATE accounts SET email_verified_at = now() RETURNING 1")
        visitor.sign_in()
        visitor.let_time_pass()
        visitor.open("/account/security/confirm")
        visitor.send(200, "security/confirm/mail")
        code = visitor.code(Purpose.REAUTHENTICATE)
        visitor.send(400, "security/confirm", code=f"{(int(code) + 1) % 1_000_000:06}")
        visitor.send(303, "security/confirm", code=code)
        assert len(visitor.add_app()) == 10

    def test_where_there_is_no_mail_none_is_offered(self, signed_in: "Visitor") -> None:
        signed_in.open("/account/security/confirm")
        assert [form.action for form in signed_in.page.forms] == ["/account/security/confirm"]

    def test_who_has_a_factor_uses_it(self, signed_in: "Visitor") -> None:
        codes = signed_in.add_app()
        signed_in.let_time_pass()
        signed_in.open("/account/security/confirm")
        assert {"totp", "recovery_code"} <= set(signed_in.page.inputs)
        assert "password" not in signed_in.page.inputs
        assert "used before" in signed_in.send(422, totp=signed_in.wrong_code())
        assert signed_in.page.inputs["totp"]["aria-invalid"] == "true"
        signed_in.send(303, totp=signed_in.app_code())
        signed_in.let_time_pass()
        signed_in.open("/account/security/confirm")
        signed_in.send(303, recovery_code=codes[0])
        signed_in.open("/account/security")
        signed_in.send(303, "security/totp/remove")
        assert signed_in.answer.headers["location"] == "/account/security"

    def test_the_password_does_not_do_for_who_has_one(self, signed_in: "Visitor") -> None:
        signed_in.add_app()
        signed_in.let_time_pass()
        fields = {"password": PASSWORD}
        answer = signed_in.client.post("/account/security/confirm", data=fields, headers=OWN_FORM)
        assert answer.status_code == 403
        assert "has a second step" in answer.text
        signed_in.open("/account/security")
        signed_in.send(303, "security/totp/remove")
        assert signed_in.answer.headers["location"] == "/account/security/confirm"

    def test_by_passkey(self, signed_in: "Visitor", authenticator: Authenticator) -> None:
        add_passkey(signed_in, authenticator)
        signed_in.let_time_pass()
        html = signed_in.open("/account/security/confirm")
        assert '<script src="/account/passkeys.js"' in html
        path = "/account/security/confirm/passkey"
        found = signed_in.run_script(path, "security/confirm", authenticator)
        signed_in.send(303, **found)
        signed_in.open("/account/security")
        signed_in.send(200, "security/recovery-codes")

    def test_a_trusted_device_is_no_second_factor_here(self, signed_in: "Visitor") -> None:
        """What it opened has one factor; changes need two."""
        signed_in.add_app()
        signed_in.client.cookies.clear()
        signed_in.sign_in(200)
        signed_in.send(303, totp=signed_in.app_code(), trust="yes")
        signed_in.sign_in(303)
        signed_in.open("/account/security")
        signed_in.send(303, "security/totp/remove")
        assert signed_in.answer.headers["location"] == "/account/security/confirm"
        signed_in.open("/account/security/confirm")
        signed_in.send(303, totp=signed_in.app_code())
        signed_in.open("/account/security")
        signed_in.send(303, "security/totp/remove")
        assert signed_in.answer.headers["location"] == "/account/security"

"""Passkeys in Chromium, with its virtual authenticator (CDP, domain WebAuthn)."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import httpx2
import pytest
from tests.browser.expectations import expect_heading, expect_no_violation, expect_text

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page, Route
    from tests.browser.conftest import Person

OpenPage = Callable[..., "Page"]
Picture = Callable[["Page"], None]

PASSWORD = "a long and dull passphrase"
OWN_FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


class Authenticator:
    """That of a window: it verifies its user, or not, or cannot."""

    def __init__(self, page: "Page") -> None:
        self._cdp: CDPSession = page.context.new_cdp_session(page)
        self._cdp.send("WebAuthn.enable")
        self._id = self._add(has_verification=True)

    def _add(self, *, has_verification: bool) -> str:
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": has_verification,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        answer = self._cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        found: str = answer["authenticatorId"]
        return found

    @property
    def credentials(self) -> list[dict[str, Any]]:
        answer = self._cdp.send("WebAuthn.getCredentials", {"authenticatorId": self._id})
        found: list[dict[str, Any]] = answer["credentials"]
        return found

    def verify_user(self, *, verified: bool) -> None:
        """Recognise the finger on it, or not."""
        self._cdp.send("WebAuthn.setUserVerified", {"authenticatorId": self._id, "isUserVerified": verified})

    def become_unable_to_verify(self) -> None:
        """The same passkeys on a key that has neither a PIN nor a finger's place."""
        credentials = self.credentials
        self._cdp.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": self._id})
        self._id = self._add(has_verification=False)
        for credential in credentials:
            self._cdp.send("WebAuthn.addCredential", {"authenticatorId": self._id, "credential": credential})


class Owner:
    """A person with a browser that has an authenticator."""

    def __init__(self, person: "Person", page: "Page") -> None:
        person.register()
        self.person = person
        self.page = page
        self.authenticator = Authenticator(page)

    def open(self, path: str = "") -> None:
        self.page.goto(f"{self.person.passkey_url}/account{path}")

    def sign_in_by_password(self) -> None:
        self.open("/sign-in")
        self.page.get_by_label("E-mail address or username").fill(self.person.email)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in", exact=True).click()

    def sign_out(self) -> None:
        self.open()
        self.page.get_by_role("button", name="Sign out here").click()
        expect_heading(self.page, "Sign in to Harbour")

    def add_passkey(self, name: str = "This laptop") -> None:
        self.open("/security")
        self.page.get_by_label("Name of the passkey").fill(name)
        self.page.get_by_role("button", name="Add a passkey").click()
        expect_heading(self.page, "Your recovery codes")

    def sign_in_by_passkey(self) -> None:
        self.open("/sign-in")
        self.page.get_by_role("button", name="Sign in with a passkey").click()


@pytest.fixture
def owner(person: "Person", open_page: OpenPage) -> Owner:
    """Somebody signed in, with a passkey."""
    owner = Owner(person, open_page(java_script_enabled=True))
    owner.sign_in_by_password()
    expect_heading(owner.page, "Your account")
    owner.add_passkey()
    return owner


class TestPasskey:
    def test_register_sign_out_sign_in_without_a_name_and_remove(
        self, owner: Owner, picture: Picture
    ) -> None:
        page = owner.page
        assert page.locator(".codes li").count() == 10
        page.get_by_role("link", name="I have kept them").click()
        expect_heading(page, "Security")
        expect_text(page, "This laptop")
        [credential] = owner.authenticator.credentials
        assert (credential["rpId"], credential["isResidentCredential"]) == ("localhost", True)
        owner.sign_out()
        owner.sign_in_by_passkey()
        expect_heading(page, "Your account")
        expect_text(page, owner.person.email)
        page.get_by_role("link", name="Passkeys and second steps").click()
        expect_text(page, "Last used")
        picture(page)
        page.get_by_role("link", name="This laptop").click()
        page.get_by_role("button", name="Remove this passkey").click()
        expect_heading(page, "Security")
        assert page.get_by_text("This laptop").count() == 0
        owner.sign_out()
        owner.sign_in_by_passkey()
        expect_text(page, "This passkey was not accepted.")
        owner.sign_in_by_password()
        expect_heading(page, "Your account")

    def test_it_is_the_second_step_after_the_password(self, owner: Owner, picture: Picture) -> None:
        owner.sign_out()
        owner.sign_in_by_password()
        expect_heading(owner.page, "One more step")
        picture(owner.page)
        owner.page.get_by_role("button", name="Use a passkey").click()
        expect_heading(owner.page, "Your account")

    def test_it_confirms_who_one_is(self, owner: Owner, picture: Picture) -> None:
        owner.person.let_time_pass()
        owner.open("/security")
        owner.page.get_by_role("button", name="Make new recovery codes").click()
        expect_heading(owner.page, "Confirm that it is you")
        picture(owner.page)
        owner.page.get_by_role("button", name="Use a passkey").click()
        expect_heading(owner.page, "Security")
        owner.page.get_by_role("button", name="Make new recovery codes").click()
        expect_heading(owner.page, "Your recovery codes")

    def test_adding_one_a_while_after_signing_in_asks_who_one_is(self, owner: Owner) -> None:
        """The script asks for options, and is sent elsewhere."""
        owner.person.let_time_pass()
        owner.open("/security")
        owner.page.get_by_role("button", name="Add a passkey").click()
        expect_heading(owner.page, "Confirm that it is you")

    def test_the_same_one_is_not_added_twice(self, owner: Owner) -> None:
        owner.open("/security")
        owner.page.get_by_role("button", name="Add a passkey").click()
        expect_text(owner.page, "No passkey was used.")
        assert len(owner.authenticator.credentials) == 1

    def test_another_name(self, owner: Owner) -> None:
        owner.open("/security")
        owner.page.get_by_role("link", name="This laptop").click()
        owner.page.get_by_label("Name of the passkey").fill("Clé bleue")
        owner.page.get_by_role("button", name="Rename").click()
        expect_heading(owner.page, "Security")
        expect_text(owner.page, "Clé bleue")


class TestUserVerification:
    def test_who_is_not_verified_does_not_sign_in_with_it_alone(self, owner: Owner, picture: Picture) -> None:
        owner.sign_out()
        owner.authenticator.verify_user(verified=False)
        owner.sign_in_by_passkey()
        expect_text(owner.page, "No passkey was used. Try again, or choose another way.")
        picture(owner.page)
        assert owner.page.context.cookies() == []
        owner.authenticator.verify_user(verified=True)
        owner.page.get_by_role("button", name="Sign in with a passkey").click()
        expect_heading(owner.page, "Your account")

    def test_after_the_password_it_need_not_be_verified(self, owner: Owner) -> None:
        owner.sign_out()
        owner.authenticator.become_unable_to_verify()
        owner.sign_in_by_passkey()
        expect_text(owner.page, "No passkey was used.")
        owner.sign_in_by_password()
        owner.page.get_by_role("button", name="Use a passkey").click()
        expect_heading(owner.page, "Your account")

    def test_a_signature_without_it_is_refused_whatever_the_browser_says(self, owner: Owner) -> None:
        """A page that asks for less than we do, as a rebuilt script would."""
        owner.sign_out()
        owner.authenticator.become_unable_to_verify()
        owner.open("/sign-in")
        owner.page.evaluate(
            """(credentialId) => {
                const id = Uint8Array.from(atob(credentialId), (character) => character.charCodeAt(0));
                const get = navigator.credentials.get.bind(navigator.credentials);
                navigator.credentials.get = ({publicKey}) => get({publicKey: {
                    ...publicKey,
                    userVerification: "discouraged",
                    allowCredentials: [{type: "public-key", id}],
                }});
            }""",
            owner.authenticator.credentials[0]["credentialId"],
        )
        owner.page.get_by_role("button", name="Sign in with a passkey").click()
        expect_text(owner.page, "This passkey was not accepted.")
        assert owner.page.context.cookies() == []


class TestOtherSites:
    def test_what_was_signed_elsewhere_is_refused(self, owner: Owner) -> None:
        """A site with the same relying party id that relays our options: only the origin gives it away."""
        owner.sign_out()
        page, url = owner.page, owner.person.passkey_url
        elsewhere = "http://localhost:9"
        ceremony = httpx2.post(f"{url}/account/sign-in/passkey/options", headers=OWN_FORM).json()
        script = httpx2.get(f"{url}/account/passkeys.js").text
        form = (
            '<form method="post" action="/collect"><div data-passkey="get" data-options="/options" '
            f'data-origins="{elsewhere}" hidden><input name="passkey_request"><input name="passkey">'
            '<button type="button">Win a prize</button><p role="alert" hidden></p></div></form>'
            f"<script>{script}</script>"
        )
        collected: list[dict[str, str]] = []

        def serve(route: "Route") -> None:
            if route.request.url.endswith("/options"):
                route.fulfill(json=ceremony)
            elif route.request.url.endswith("/collect"):
                collected.append(dict(parse_qsl(route.request.post_data or "")))
                route.fulfill(body="thank you")
            else:
                route.fulfill(body=form, content_type="text/html")

        page.route(f"{elsewhere}/**", serve)
        page.goto(f"{elsewhere}/")
        page.get_by_role("button", name="Win a prize").click()
        page.get_by_text("thank you").wait_for()
        [fields] = collected
        assert fields["passkey_request"] == ceremony["request"]
        answer = httpx2.post(f"{url}/account/sign-in/passkey", data=fields, headers=OWN_FORM)
        assert answer.status_code == 401
        assert "This passkey was not accepted." in answer.text
        assert "set-cookie" not in answer.headers

    def test_a_browser_uses_none_for_another_relying_party(self, owner: Owner) -> None:
        owner.sign_out()
        owner.open("/sign-in")
        error = owner.page.evaluate(
            """() => navigator.credentials.get({publicKey: {
                challenge: new Uint8Array(32), rpId: "auth.example.com"
            }}).then(() => "used", (error) => error.name)"""
        )
        assert error == "SecurityError"


class TestAtAnAddressWithoutPasskeys:
    """`make local` is at 127.0.0.1, for which no browser makes passkeys."""

    def test_the_page_says_where_there_are_some(
        self, person: "Person", open_page: OpenPage, axe: str, picture: Picture
    ) -> None:
        page = open_page(java_script_enabled=True)
        page.goto(f"{person.url}/")
        expect_heading(page, "Sign in to Harbour")
        assert page.get_by_role("button", name="Sign in with a passkey").count() == 0
        expect_text(page, "Passkeys do not work at the address of this page.")
        picture(page)
        expect_no_violation(page, axe)
        page.get_by_role("link", name=person.passkey_url).click()
        expect_heading(page, "Sign in to Harbour")
        assert page.url == f"{person.passkey_url}/account"
        page.get_by_role("button", name="Sign in with a passkey").wait_for()
        assert (
            page.get_by_text("Passkeys do not work").count() == 0
            or not page.get_by_text("Passkeys do not work").is_visible()
        )

    def test_without_javascript_there_is_neither(self, person: "Person", open_page: OpenPage) -> None:
        page = open_page()
        page.goto(f"{person.url}/account/sign-in")
        assert page.get_by_role("button").all_inner_texts() == ["Sign in"]
        assert not re.search("(?i)passkey", page.locator("main").inner_text())

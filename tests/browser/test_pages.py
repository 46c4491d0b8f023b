"""The pages in Chromium: without JavaScript, by keyboard alone, at 320 pixels, and through axe-core."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.browser.expectations import expect_heading, expect_no_violation, expect_text, expect_to_fit

from auth_manager.audit import Origin
from auth_manager.invitations.service import invite
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route
    from tests.browser.conftest import Person, Watch

OpenPage = Callable[..., "Page"]
Picture = Callable[["Page"], None]

PASSWORD = "a long and dull passphrase"
NEW_PASSWORD = "quiet harbour, seven kites"
PHONE = {"width": 320, "height": 640}


def invite_person(resources: Resources, email: str) -> None:
    origin = Origin(address=None, user_agent="", request_id="test", now=datetime.now(UTC), operator="tester")
    invite(resources, origin, email)


class TestWithoutJavaScript:
    def test_register_then_verify_by_the_link(
        self, person: "Person", open_page: OpenPage, picture: Picture
    ) -> None:
        person.register()
        page = open_page()
        page.goto(person.link("verify-email", Purpose.VERIFY_EMAIL))
        expect_text(page, person.email)
        assert not person.is_verified()
        picture(page)
        page.get_by_role("button", name="Confirm address").click()
        expect_heading(page, "Address confirmed")
        assert "token" not in page.url
        assert person.is_verified()

    def test_forget_then_reset_the_password(
        self, person: "Person", open_page: OpenPage, picture: Picture
    ) -> None:
        person.register()
        page = open_page()
        page.goto(f"{person.url}/account")
        page.get_by_role("link", name="Forgotten your password?").click()
        page.get_by_label("E-mail address").fill(person.email)
        page.get_by_role("button", name="Send link").click()
        expect_heading(page, "Look into your mail")
        page.goto(person.link("reset-password", Purpose.RESET_PASSWORD))
        page.get_by_label("New password").fill("harbour")
        page.get_by_role("button", name="Set password").click()
        page.locator("#summary").wait_for()
        assert page.title().startswith("Error:")
        assert page.get_by_label("New password").get_attribute("aria-invalid") == "true"
        picture(page)
        page.get_by_label("New password").fill(NEW_PASSWORD)
        page.get_by_role("button", name="Set password").click()
        expect_heading(page, "Password changed")
        assert person.can_log_in(NEW_PASSWORD)
        assert not person.can_log_in(PASSWORD)

    def test_sign_in_by_the_mailed_code_and_out_again(
        self, person: "Person", open_page: OpenPage, picture: Picture
    ) -> None:
        person.register()
        page = open_page()
        page.goto(f"{person.url}/account/email-sign-in")
        page.get_by_label("E-mail address").fill(person.email)
        page.get_by_role("button", name="Send code").click()
        expect_heading(page, "Look into your mail")
        page.get_by_label("Code").fill(person.code(Purpose.EMAIL_LOGIN))
        page.get_by_role("button", name="Sign in").click()
        expect_heading(page, "Your account")
        expect_text(page, person.email)
        (cookie,) = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("auth", True, "Lax")
        picture(page)
        page.get_by_role("button", name="Sign out here").click()
        expect_heading(page, "Sign in to Harbour")
        assert page.context.cookies() == []

    def test_sign_in_by_the_mailed_link(self, person: "Person", open_page: OpenPage) -> None:
        person.register()
        page = open_page()
        page.goto(f"{person.url}/account/email-sign-in")
        page.get_by_label("E-mail address").fill(person.email)
        page.get_by_role("button", name="Send code").click()
        expect_heading(page, "Look into your mail")
        elsewhere = open_page()
        elsewhere.goto(person.link("sign-in", Purpose.EMAIL_LOGIN))
        expect_text(elsewhere, person.email)
        elsewhere.get_by_role("button", name="Sign in").click()
        expect_heading(elsewhere, "Your account")
        page.goto(f"{person.url}/account")
        # The window that asked is not signed in by what another one did.
        expect_heading(page, "Sign in to Harbour")

    def test_accept_an_invitation(
        self, person: "Person", resources: Resources, open_page: OpenPage, picture: Picture
    ) -> None:
        invite_person(resources, person.email)
        page = open_page()
        page.goto(person.link("invitation", Purpose.INVITATION))
        page.get_by_label("Your name").fill("Zoë")
        page.get_by_label("Password").fill(NEW_PASSWORD)
        picture(page)
        page.get_by_role("button", name="Create account").click()
        expect_heading(page, "Your account is ready")
        assert person.can_log_in(NEW_PASSWORD)

    def test_another_site_cannot_sign_anybody_in(self, person: "Person", open_page: OpenPage) -> None:
        """Login CSRF, by a browser that sends what browsers send."""
        person.register()
        page = open_page()
        form = (
            f'<form method="post" action="{person.url}/account/sign-in">'
            f'<input name="identifier" value="{person.email}"><input name="password" value="{PASSWORD}">'
            "<button>Win a prize</button></form>"
        )

        def serve(route: "Route") -> None:
            policy = route.request.url.rpartition("/")[2]
            body = f'<meta name="referrer" content="{policy}">{form}'
            route.fulfill(body=body, content_type="text/html")

        page.route("http://prizes.example/**", serve)
        for policy in ("no-referrer", "unsafe-url"):
            page.goto(f"http://prizes.example/{policy}")
            page.get_by_role("button", name="Win a prize").click()
            expect_text(page, "another site")
            assert page.context.cookies() == []


class TestByKeyboard:
    def test_from_sign_in_to_sign_out(self, person: "Person", open_page: OpenPage) -> None:
        person.register()
        page = open_page()
        page.goto(f"{person.url}/account/sign-in")
        page.keyboard.press("Tab")
        page.keyboard.type(person.email)
        page.keyboard.press("Tab")
        page.keyboard.type("not it")
        page.keyboard.press("Enter")
        summary = page.locator("#summary:focus")
        assert "not the right password" in summary.inner_text(), "the focus is on what went wrong"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect_heading(page, "Your account")
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Sign out here"
        assert page.locator(":focus").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect_heading(page, "Sign in to Harbour")

    def test_from_the_summary_to_the_field(self, person: "Person", open_page: OpenPage) -> None:
        person.register()
        page = open_page()
        page.goto(f"{person.url}/account/forgot-password")
        page.get_by_label("E-mail address").fill(person.email)
        page.get_by_role("button", name="Send link").click()
        expect_heading(page, "Look into your mail")
        page.goto(person.link("reset-password", Purpose.RESET_PASSWORD))
        page.keyboard.press("Tab")
        page.keyboard.type("harbour")
        page.keyboard.press("Enter")
        page.locator("#summary:focus").wait_for()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.locator("#password:focus").wait_for()
        page.keyboard.type(NEW_PASSWORD)
        page.keyboard.press("Enter")
        expect_heading(page, "Password changed")


class TestInFrench:
    def test_the_browser_asks_for_it(self, person: "Person", open_page: OpenPage, picture: Picture) -> None:
        page = open_page(locale="fr-FR")
        page.goto(f"{person.url}/account/forgot-password")
        assert page.locator("html").get_attribute("lang") == "fr"
        expect_heading(page, "Mot de passe oublié\xa0?")
        picture(page)

    def test_or_the_person_does(self, person: "Person", open_page: OpenPage) -> None:
        person.register()
        page = open_page()
        page.goto(person.link("verify-email", Purpose.VERIFY_EMAIL))
        page.get_by_role("link", name="Français").click()
        page.get_by_role("button", name="Confirmer").click()
        expect_heading(page, "Adresse confirmée")
        page.get_by_role("link", name="Votre compte").click()
        expect_heading(page, "Connexion à Harbour")


class Tour:
    """The ways to each page that looks different from the others."""

    def __init__(self, person: "Person", resources: Resources, page: "Page") -> None:
        person.register()
        self.person = person
        self.resources = resources
        self.page = page

    def open(self, path: str) -> None:
        self.page.goto(f"{self.person.url}/account{path}")

    def ask_for_mail(self, form: str) -> None:
        self.open(f"/{form}")
        self.page.get_by_label("E-mail address").fill(self.person.email)
        self.page.locator("button").click()
        expect_heading(self.page, "Look into your mail")

    def verify_email(self) -> None:
        self.page.goto(self.person.link("verify-email", Purpose.VERIFY_EMAIL))

    def reset_password(self) -> None:
        self.ask_for_mail("forgot-password")
        self.page.goto(self.person.link("reset-password", Purpose.RESET_PASSWORD))

    def weak_password(self) -> None:
        self.reset_password()
        self.page.get_by_label("New password").fill("short")
        self.page.get_by_role("button", name="Set password").click()
        self.page.locator("#summary").wait_for()

    def code(self) -> None:
        self.ask_for_mail("email-sign-in")

    def sign_in_link(self) -> None:
        self.code()
        self.page.goto(self.person.link("sign-in", Purpose.EMAIL_LOGIN))

    def invitation(self) -> None:
        invite_person(self.resources, "new@example.com")
        self.page.goto(self.person.link("invitation", Purpose.INVITATION))

    def sign_in(self, password: str) -> None:
        self.open("/sign-in")
        self.page.get_by_label("E-mail address or username").fill(self.person.email)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def account(self) -> None:
        assert self.person.can_log_in()
        self.sign_in(PASSWORD)

    def wrong_password(self) -> None:
        self.sign_in("not it")
        self.page.locator("#summary").wait_for()


PAGES: dict[str, tuple[str, Callable[[Tour], None]]] = {
    "account, signed out": ("Sign in to Harbour", lambda tour: tour.open("")),
    "account": ("Your account", Tour.account),
    "sign-in, wrong password": ("Sign in to Harbour", Tour.wrong_password),
    "sign-in by link": ("Sign in", Tour.sign_in_link),
    "forgot password": ("Forgotten your password?", lambda tour: tour.open("/forgot-password")),
    "forgot password, sent": ("Look into your mail", lambda tour: tour.ask_for_mail("forgot-password")),
    "sign-in by mail": ("Sign in by e-mail", lambda tour: tour.open("/email-sign-in")),
    "code": ("Look into your mail", Tour.code),
    "verify e-mail": ("Confirm your e-mail address", Tour.verify_email),
    "verify e-mail, used": ("That did not work", lambda tour: tour.open("/verify-email?token=x")),
    "reset password": ("Choose a new password", Tour.reset_password),
    "reset password, weak": ("Choose a new password", Tour.weak_password),
    "invitation": ("Welcome to Harbour", Tour.invitation),
}
"""Each page's heading, and the way to it."""

Visit = Callable[["Page"], None]


@pytest.fixture(params=PAGES)
def visit(request: pytest.FixtureRequest, person: "Person", resources: Resources) -> Visit:
    """Opens one of the pages in a window."""
    expected, go = PAGES[request.param]

    def run(page: "Page") -> None:
        go(Tour(person, resources, page))
        expect_heading(page, expected)

    return run


class TestEveryPage:
    def test_axe_finds_nothing(self, visit: Visit, open_page: OpenPage, axe: str, picture: Picture) -> None:
        page = open_page(java_script_enabled=True)
        visit(page)
        picture(page)
        expect_no_violation(page, axe)

    def test_it_fits_a_narrow_phone(self, visit: Visit, open_page: OpenPage, picture: Picture) -> None:
        page = open_page(viewport=PHONE, java_script_enabled=True)
        visit(page)
        picture(page)
        expect_to_fit(page, PHONE["width"])


class TestWatch:
    def test_a_page_that_breaks_its_policy_is_noticed(
        self, person: "Person", open_page: OpenPage, watch: "Watch"
    ) -> None:
        """Or none of the others would show anything."""
        page = open_page()

        def smuggle(route: "Route") -> None:
            answer = route.fetch()
            body = answer.text().replace("</main>", '<img src="http://evil.example/x.png" alt=""></main>')
            route.fulfill(response=answer, body=body)

        page.route("**/account", smuggle)
        page.goto(f"{person.url}/account")
        page.wait_for_timeout(200)
        assert len(watch.complaints) >= 1
        watch.complaints.clear()

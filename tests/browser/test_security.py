"""The second step and the security page in Chromium: without JavaScript, in both languages, through axe."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.browser.expectations import (
    expect_heading,
    expect_no_violation,
    expect_text,
    expect_to_fit,
)

from auth_manager.pages.rendering import Locale, read_texts

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from tests.browser.conftest import Person

OpenPage = Callable[..., "Page"]
Picture = Callable[["Page"], None]

PASSWORD = "a long and dull passphrase"
PHONE = {"width": 320, "height": 640}


def sign_in(page: "Page", person: "Person") -> None:
    page.goto(f"{person.url}/account/sign-in")
    page.locator("#identifier").fill(person.email)
    page.locator("#password").fill(PASSWORD)
    page.locator("form[action*='/account/sign-in'] button:not([type])").first.click()


def add_app(page: "Page", person: "Person") -> tuple[str, list[str]]:
    """Set an authenticator app up on the security page; return its secret and the recovery codes."""
    page.goto(f"{person.url}/account/security")
    page.locator("form[action*='/security/totp'] button").click()
    secret = page.locator("main code").inner_text()
    page.locator("#code").fill(person.app_code(secret))
    page.locator("main form button").click()
    page.locator(".codes").wait_for()
    return secret, page.locator(".codes li").all_inner_texts()


class TestWithoutJavaScript:
    def test_an_app_then_the_second_step_then_a_trusted_device(
        self, person: "Person", open_page: OpenPage, picture: Picture
    ) -> None:
        person.register()
        page = open_page()
        sign_in(page, person)
        page.get_by_role("link", name="Passkeys and second steps").click()
        expect_heading(page, "Security")
        expect_text(page, "Passkeys need JavaScript")
        assert page.get_by_role("button", name="Add a passkey").count() == 0
        secret, codes = add_app(page, person)
        assert len(codes) == 10
        page.get_by_role("link", name="I have kept them").click()
        expect_text(page, "You have 10 left")
        picture(page)
        page.context.clear_cookies()
        sign_in(page, person)
        expect_heading(page, "One more step")
        page.get_by_label("Code from your authenticator app").fill("12345")
        page.get_by_role("button", name="Sign in").click()
        page.locator("#summary").wait_for()
        page.get_by_label("Code from your authenticator app").fill(person.app_code(secret))
        page.get_by_label("Do not ask again on this device for 30 days").check()
        page.get_by_role("button", name="Sign in").click()
        expect_heading(page, "Your account")
        page.get_by_role("button", name="Sign out here").click()
        sign_in(page, person)
        expect_heading(page, "Your account")
        page.goto(f"{person.url}/account/security")
        page.get_by_role("button", name="Do not trust it any more").click()
        expect_heading(page, "Security")
        assert page.get_by_text("Trusted devices").count() == 0
        page.context.clear_cookies(name="auth")
        sign_in(page, person)
        expect_heading(page, "One more step")
        page.get_by_label("Recovery code").fill(codes[0])
        page.get_by_role("button", name="Sign in").click()
        expect_heading(page, "Your account")

    def test_a_change_a_while_later_asks_who_one_is(self, person: "Person", open_page: OpenPage) -> None:
        person.register()
        page = open_page()
        sign_in(page, person)
        person.let_time_pass()
        page.goto(f"{person.url}/account/security")
        page.get_by_role("button", name="Set up an authenticator app").click()
        expect_heading(page, "Confirm that it is you")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Confirm").click()
        expect_heading(page, "Security")
        page.get_by_role("button", name="Set up an authenticator app").click()
        expect_heading(page, "Set up an authenticator app")

    def test_signing_out_elsewhere(self, person: "Person", open_page: OpenPage, picture: Picture) -> None:
        person.register()
        telephone, page = open_page(user_agent="Telephone"), open_page(user_agent="Laptop")
        sign_in(telephone, person)
        expect_heading(telephone, "Your account")
        sign_in(page, person)
        expect_text(page, "Telephone")
        picture(page)
        page.get_by_role("button", name="Sign out there").click()
        page.get_by_text("Telephone").wait_for(state="detached")
        telephone.reload()
        expect_heading(telephone, "Sign in to Harbour")


class Tour:
    """The ways to each page, in any language."""

    def __init__(self, person: "Person", page: "Page") -> None:
        person.register()
        self.person = person
        self.page = page
        sign_in(page, person)
        page.locator("button[name=scope][value=this]").wait_for()

    def security(self) -> None:
        self.page.goto(f"{self.person.url}/account/security")

    def security_with_all(self) -> None:
        secret = self.second_step()
        self.page.locator("input[name=trust]").check()
        self.page.locator("#totp").fill(self.person.app_code(secret))
        self.page.locator("main form button:not([type])").click()
        self.page.locator("button[name=scope][value=this]").wait_for()
        self.security()

    def enrolment(self) -> None:
        self.security()
        self.page.locator("form[action*='/security/totp'] button").click()

    def enrolment_wrong(self) -> None:
        self.enrolment()
        self.page.locator("#code").fill("12345")
        self.page.locator("main form button").click()
        self.page.locator("#summary").wait_for()

    def recovery_codes(self) -> None:
        add_app(self.page, self.person)

    def second_step(self) -> str:
        secret, _ = add_app(self.page, self.person)
        self.page.context.clear_cookies()
        sign_in(self.page, self.person)
        self.page.locator("#totp").wait_for()
        return secret

    def second_step_wrong(self) -> None:
        self.second_step()
        self.page.locator("#totp").fill("12345")
        self.page.locator("main form button:not([type])").click()
        self.page.locator("#summary").wait_for()

    def confirm(self) -> None:
        self.page.goto(f"{self.person.url}/account/security/confirm")

    def confirm_wrong(self) -> None:
        self.confirm()
        self.page.locator("#password").fill("not it")
        self.page.locator("main form button").first.click()
        self.page.locator("#summary").wait_for()

    def confirm_by_factor(self) -> None:
        add_app(self.page, self.person)
        self.confirm()


PAGES: dict[str, tuple[str, Callable[[Tour], object]]] = {
    "security": ("security", Tour.security),
    "security, with all": ("security", Tour.security_with_all),
    "enrolment": ("enrolment", Tour.enrolment),
    "enrolment, wrong code": ("enrolment", Tour.enrolment_wrong),
    "recovery codes": ("recovery_codes", Tour.recovery_codes),
    "second step": ("second_step", Tour.second_step),
    "second step, wrong code": ("second_step", Tour.second_step_wrong),
    "confirm": ("confirm_person", Tour.confirm),
    "confirm, wrong password": ("confirm_person", Tour.confirm_wrong),
    "confirm, by factor": ("confirm_person", Tour.confirm_by_factor),
}
"""Where each page's heading is in the texts, and the way to it."""


class TestEveryPage:
    @pytest.mark.parametrize("locale", ["en", "fr"])
    @pytest.mark.parametrize("name", PAGES)
    def test_it_is_accessible_in_both_languages_and_fits_a_narrow_phone(
        self,
        person: "Person",
        open_page: OpenPage,
        axe: str,
        picture: Picture,
        name: str,
        locale: Locale,
    ) -> None:
        page = open_page(java_script_enabled=True, locale=locale, viewport=PHONE)
        section, go = PAGES[name]
        go(Tour(person, page))
        expect_heading(page, read_texts(locale)[section]["title"])
        assert page.locator("html").get_attribute("lang") == locale
        picture(page)
        expect_no_violation(page, axe)
        expect_to_fit(page, PHONE["width"])


class TestByKeyboard:
    def test_the_second_step(self, person: "Person", open_page: OpenPage) -> None:
        person.register()
        page = open_page()
        sign_in(page, person)
        secret, _ = add_app(page, person)
        page.context.clear_cookies()
        sign_in(page, person)
        expect_heading(page, "One more step")
        page.keyboard.press("Tab")
        page.keyboard.type(person.app_code(secret))
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert page.locator("input[name=trust]").is_checked()
        page.keyboard.press("Enter")
        expect_heading(page, "Your account")
        assert re.fullmatch("auth|auth-device", page.context.cookies()[0]["name"])
        assert len(page.context.cookies()) == 2

"""A person at a browser that runs no JavaScript: opens pages, fills in forms, follows redirects by hand."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import httpx2
import pyotp
import pytest
from fastapi.testclient import TestClient
from tests.passkeys.authenticator import Authenticator

from auth_manager.database import Database, Row
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

Query = Callable[..., list[Row]]

PASSWORD = "SecurePass123!"
OWN_FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
"""What browsers say of a form on a page with `Referrer-Policy: no-referrer`."""


@dataclass
class Form:
    """Where it goes, and what is in its fields."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """What a page shows: its language, its title, its forms and fields, its links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.language = self.title = ""
        self.forms: list[Form] = []
        self.inputs: dict[str, dict[str, str | None]] = {}
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    @property
    def action(self) -> str:
        """Where the first form goes, if there is one."""
        return self.forms[0].action if self.forms else ""

    @property
    def fields(self) -> dict[str, str]:
        """What is in it."""
        return self.forms[0].fields

    def form(self, path: str) -> Form:
        """The form that goes to a path below /account."""
        [form] = [form for form in self.forms if form.action.partition("?")[0] == f"/account/{path}"]
        return form

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._open.append(tag)
        if tag == "html":
            self.language = values["lang"] or ""
        elif tag == "form":
            self.forms.append(Form(values["action"] or ""))
            assert values["method"] == "post"
        elif tag == "input":
            name = values["name"] or ""
            self.inputs[name] = values
            if values["type"] != "checkbox":
                self.forms[-1].fields[name] = values["value"] or ""
        elif tag == "a":
            self.links.append(values["href"] or "")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "title":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass


class Visitor:
    """One browser at one service."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.answer: httpx2.Response
        self.page: Page
        self.app_secret = ""

    @property
    def resources(self) -> Resources:
        resources: Resources = self.client.app.state.resources  # type: ignore[attr-defined]
        return resources

    def open(self, path: str, status: int = 200, headers: dict[str, str] | None = None) -> str:
        """Open a page; return its HTML."""
        return self._look(self.client.get(path, headers=headers, follow_redirects=False), status)

    def send(self, status: int = 200, to: str = "", **fields: str) -> str:
        """Fill in a form, the first or the one `to` a path, and send it; return the HTML of the answer."""
        form = self.page.form(to) if to else self.page.forms[0]
        answer = self.client.post(
            form.action, data=form.fields | fields, headers=OWN_FORM, follow_redirects=False
        )
        return self._look(answer, status)

    def sign_in(self, status: int = 303, email: str = "test@example.com") -> str:
        """Sign in by password, as far as that leads."""
        self.open("/account/sign-in")
        return self.send(status, identifier=email, password=PASSWORD)

    def _look(self, answer: httpx2.Response, status: int) -> str:
        assert answer.status_code == status, answer.text
        self.answer = answer
        self.page = Page(answer.text)
        return answer.text

    def add_app(self) -> list[str]:
        """Set an authenticator app up on the security page; return the recovery codes that come with it."""
        self.open("/account/security")
        return self.confirm_app(self.send(to="security/totp"))

    def confirm_app(self, html: str, status: int = 200) -> list[str]:
        """Read the secret off the page, and type the first code."""
        self.app_secret = re.findall(r"<code>([A-Z2-7]{32})</code>", html)[0]
        return re.findall(r"<code>([0-9a-z]{5}-[0-9a-z]{5})</code>", self.send(status, code=self.app_code()))

    def app_code(self) -> str:
        """What the app shows once the last code that was used is over."""
        with self.resources.database.one_trip() as connection:
            connection.add("UPDATE totp_factors SET last_step = 0", {})
        return pyotp.TOTP(self.app_secret).now()

    def wrong_code(self) -> str:
        """One that it shows neither now nor soon."""
        near = {pyotp.TOTP(self.app_secret).at(time.time() + shift) for shift in range(-90, 91, 30)}
        return next(code for code in ("000000", "111111", "222222") if code not in near)

    def let_time_pass(self) -> None:
        """Make the authentication of every session an hour older."""
        with self.resources.database.one_trip() as connection:
            connection.add("UPDATE sessions SET authenticated_at = authenticated_at - interval '1 hour'", {})

    def run_script(self, path: str, to: str, authenticator: Authenticator) -> dict[str, str]:
        """Do what the script of a page does: ask for options, and return the fields that it fills in."""
        answer = self.client.post(path, data=self.page.form(to).fields, headers=OWN_FORM)
        assert answer.status_code == 200, answer.text
        ceremony = answer.json()
        options = ceremony["options"]
        use = authenticator.create if "user" in options else authenticator.get
        return {"passkey_request": ceremony["request"], "passkey": json.dumps(use(options))}

    def register(self, email: str = "test@example.com") -> None:
        answer = self.client.post("/auth/register", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text

    def log_in(self, password: str = PASSWORD, email: str = "test@example.com") -> httpx2.Response:
        return self.client.post("/auth/login", json={"email": email, "password": password})

    def secret(self, purpose: Purpose) -> UUID:
        """The latest secret of a purpose; its id is all that the database knows."""
        with self.resources.database.one_trip() as connection:
            row = connection.fetch_one(
                "SELECT id FROM one_time_secrets WHERE purpose = %(purpose)s ORDER BY id DESC LIMIT 1",
                {"purpose": purpose.value},
            )
        assert row, f"no secret for {purpose}"
        found: UUID = row["id"]
        return found

    def token(self, purpose: Purpose) -> str:
        """The token that was mailed."""
        return self.resources.one_time_secrets.token(purpose, self.secret(purpose))

    def code(self, purpose: Purpose) -> str:
        """The code that was mailed with it."""
        return self.resources.one_time_secrets.code(purpose, self.secret(purpose))


@pytest.fixture
def query(database: Database) -> Query:
    """Runs one statement of SQL with named parameters, and returns its rows."""

    def run(sql: str, **parameters: Any) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql, parameters)

    return run


@pytest.fixture
def make_visitor(make_client: Callable[..., TestClient]) -> Callable[..., Visitor]:
    """Visitors of services; keyword arguments override settings."""
    return lambda **overrides: Visitor(make_client(**overrides))


@pytest.fixture
def visitor(make_visitor: Callable[..., Visitor]) -> Visitor:
    """A visitor of a service with the default settings, where one person is registered."""
    visitor = make_visitor()
    visitor.register()
    return visitor


@pytest.fixture(scope="session")
def without_ids() -> Callable[[str], str]:
    """Replaces the UUIDs in a text, which differ between any two requests."""
    return lambda text: re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)

"""A person at a browser that runs no JavaScript: opens pages, fills in forms, follows redirects by hand."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi.testclient import TestClient

from auth_manager.database import Database, Row
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

Query = Callable[..., list[Row]]

PASSWORD = "SecurePass123!"
OWN_FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
"""What browsers say of a form on a page with `Referrer-Policy: no-referrer`."""


class Page(HTMLParser):
    """What a page shows: its language, its title, its first form, the text of its summary."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.language = self.title = self.action = ""
        self.fields: dict[str, str] = {}
        self.inputs: dict[str, dict[str, str | None]] = {}
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._open.append(tag)
        if tag == "html":
            self.language = values["lang"] or ""
        elif tag == "form" and not self.action:
            self.action = values["action"] or ""
            assert values["method"] == "post"
        elif tag == "input":
            name = values["name"] or ""
            self.inputs[name] = values
            self.fields[name] = values["value"] or ""
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

    @property
    def resources(self) -> Resources:
        resources: Resources = self.client.app.state.resources  # type: ignore[attr-defined]
        return resources

    def open(self, path: str, status: int = 200, headers: dict[str, str] | None = None) -> str:
        """Open a page; return its HTML."""
        return self._look(self.client.get(path, headers=headers, follow_redirects=False), status)

    def send(self, status: int = 200, **fields: str) -> str:
        """Fill in the form of the page and send it; return the HTML of the answer."""
        answer = self.client.post(
            self.page.action, data=self.page.fields | fields, headers=OWN_FORM, follow_redirects=False
        )
        return self._look(answer, status)

    def _look(self, answer: httpx2.Response, status: int) -> str:
        assert answer.status_code == status, answer.text
        self.answer = answer
        self.page = Page(answer.text)
        return answer.text

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

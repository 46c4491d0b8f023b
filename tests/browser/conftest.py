"""A real server, and Chromium as a person with or without JavaScript drives it.

`make test-browser` starts these. Without Chromium they fail: a browser test that was skipped looks like one
that passed. Chromium is Debian's (`apt-get install chromium fonts-dejavu-core`), or Playwright's own where
`playwright install chromium` works. Pictures of what was seen are left in .artefacts/browser/.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
import pyotp
import pytest

from auth_manager.database import Database
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

ARTEFACTS = Path(__file__).resolve().parents[2] / ".artefacts" / "browser"
SECRET_KEY = "0123456789abcdefghijklmnopqrstuvwxyz-test-only"
PASSWORD = "a long and dull passphrase"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep `make test` off, which needs no browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server_url_of_pages(database_url: str, signing_keys: str) -> Iterator[str]:
    """`auth-manager serve`, as on a laptop: http, so a cookie that goes over http; passkeys at localhost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTH_")}
    settings = {
        "AUTH_MODE": "local",
        "AUTH_PUBLIC_URL": url,
        "AUTH_PRODUCT_NAME": "Harbour",
        "AUTH_APP_URL": "https://app.example.com/",
        "AUTH_DATABASE_URL": database_url,
        "AUTH_SIGNING_KEYS": signing_keys,
        "AUTH_SECRET_KEYS": SECRET_KEY,
        "AUTH_PASSKEY_RP_ID": "localhost",
        "AUTH_PASSKEY_ORIGINS": f"http://localhost:{port}",
    }
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "auth_manager.entrypoints.cli", "serve", "--port", str(port)],
            env=inherited | settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            give_up_at = time.monotonic() + 60
            while not _serves(url):
                if process.poll() is not None or time.monotonic() > give_up_at:
                    log.seek(0)
                    raise RuntimeError(log.read().decode())
                time.sleep(0.05)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def _serves(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    return False


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """The browser itself."""
    from playwright.sync_api import sync_playwright

    installed = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed)
        yield browser
        browser.close()


class Person:
    """Somebody at a browser, and at their mail. Every page is watched for what its policy forbids."""

    def __init__(self, url: str, resources: Resources) -> None:
        self.url = url
        self.email = f"{secrets.token_hex(4)}@example.com"
        self._resources = resources

    def register(self) -> None:
        body = {"email": self.email, "password": PASSWORD}
        assert httpx2.post(f"{self.url}/auth/register", json=body).status_code == 201

    @property
    def passkey_url(self) -> str:
        """Where the same pages have passkeys: browsers make none for an IP address."""
        return self.url.replace("127.0.0.1", "localhost")

    def app_code(self, secret: str) -> str:
        """What their authenticator app shows once the last code that was used is over."""
        self._run("UPDATE totp_factors SET last_step = 0")
        return pyotp.TOTP(secret).now()

    def let_time_pass(self) -> None:
        """Make the authentication of every session an hour older."""
        self._run("UPDATE sessions SET authenticated_at = authenticated_at - interval '1 hour'")

    def _run(self, sql: str) -> None:
        with self._resources.database.one_trip() as connection:
            connection.add(sql, {})

    def can_log_in(self, password: str = PASSWORD) -> bool:
        body = {"email": self.email, "password": password}
        status = httpx2.post(f"{self.url}/auth/login", json=body).status_code
        assert status in {200, 401}
        return status == 200

    def is_verified(self) -> bool:
        body = {"email": self.email, "password": PASSWORD}
        verified: bool = httpx2.post(f"{self.url}/auth/login", json=body).json()["user"]["email_verified"]
        return verified

    def link(self, page: str, purpose: Purpose) -> str:
        """The link in the latest mail of a purpose."""
        token = self._resources.one_time_secrets.token(purpose, self._secret(purpose))
        return f"{self.url}/account/{page}?token={token}"

    def code(self, purpose: Purpose) -> str:
        """The code in it."""
        return self._resources.one_time_secrets.code(purpose, self._secret(purpose))

    def _secret(self, purpose: Purpose) -> UUID:
        with self._resources.database.one_trip() as connection:
            row = connection.fetch_one(
                "SELECT id FROM one_time_secrets WHERE purpose = %(purpose)s ORDER BY id DESC LIMIT 1",
                {"purpose": purpose.value},
            )
        assert row, f"no secret for {purpose}"
        found: UUID = row["id"]
        return found


@pytest.fixture
def person(
    server_url_of_pages: str,
    make_resources: Callable[..., Resources],
    database: Database,  # noqa: ARG001 -- its tables are empty
) -> Person:
    """Somebody new."""
    return Person(server_url_of_pages, make_resources(secret_keys=(SECRET_KEY,)))


@dataclass
class Watch:
    """What a browser complained of."""

    complaints: list[str]

    def hear(self, message: "ConsoleMessage") -> None:
        if "Content Security Policy" in message.text or "Content-Security-Policy" in message.text:
            self.complaints.append(message.text)


OpenPage = Callable[..., "Page"]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Fails the test at its end if a page did what its policy forbids."""
    watch = Watch([])
    yield watch
    assert watch.complaints == []


@pytest.fixture
def open_page(chromium: "Browser", watch: Watch) -> Iterator[OpenPage]:
    """Pages of a new window each, without JavaScript unless asked; keyword arguments are Playwright's."""
    contexts = []

    def run(**options: Any) -> "Page":
        options = {"java_script_enabled": False, "locale": "en-GB", **options}
        context = chromium.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", watch.hear)
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        return page

    yield run
    for context in contexts:
        context.close()


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> "Callable[[Page], None]":
    """Leaves a picture of a page in .artefacts/browser/, named for the test."""

    def take(page: "Page") -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() else "-" for c in request.node.name)
        page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    return take


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which the PyPI package carries."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")

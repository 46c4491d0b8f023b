"""The mailbox of a laptop: what is kept, and pages in which nothing of a mail can act."""

import stat
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from tests.mail.scenes import NOW, message

from auth_manager.app import create_app
from auth_manager.ids import new_id
from auth_manager.local import mailbox as mailbox_module
from auth_manager.local.mailbox import Mailbox, mailbox_router
from auth_manager.mail import Email
from auth_manager.mail.compose import Composer
from auth_manager.one_time_secrets import OneTimeSecrets
from auth_manager.outbox import Kind
from auth_manager.resources import Resources
from auth_manager.secret_keys import SecretKeys

URL = "http://127.0.0.1:8000"


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "mailbox")


@pytest.fixture
def resources_of_a_laptop(make_resources: Callable[..., Resources]) -> Resources:
    return make_resources(mode="local", public_url=URL, mail_transport="mailbox")


@pytest.fixture
def compose(resources_of_a_laptop: Resources) -> Callable[..., Email]:
    settings = resources_of_a_laptop.settings
    composer = Composer(settings, OneTimeSecrets(SecretKeys(settings.secret_keys)))
    return lambda kind=Kind.VERIFY_EMAIL, **members: composer.compose(message(kind, **members), now=NOW)


@pytest.fixture
def browser(resources_of_a_laptop: Resources, mailbox: Mailbox) -> TestClient:
    app = create_app(resources_of_a_laptop)
    app.include_router(mailbox_router(mailbox, public_url=URL))
    return TestClient(app, base_url=URL)


class TestKeep:
    def test_a_mail_is_a_file_for_its_owner_alone(
        self, mailbox: Mailbox, compose: Callable[..., Email]
    ) -> None:
        email = compose(recipient="jörg@bücher.example.com")
        mailbox.keep(email)
        [path] = mailbox.directory.iterdir()
        assert path.name == f"{email.id}.eml"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(mailbox.directory.stat().st_mode) == 0o700
        assert mailbox.read(UUID(email.id))["To"] == "jörg@xn--bcher-kva.example.com"

    def test_the_oldest_go(
        self, mailbox: Mailbox, compose: Callable[..., Email], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert mailbox_module.KEPT == 200
        monkeypatch.setattr(mailbox_module, "KEPT", 3)
        sent = [compose() for _ in range(5)]
        for email in sent:
            mailbox.keep(email)
        assert [str(identifier) for identifier in mailbox.ids()] == [email.id for email in reversed(sent[2:])]

    def test_a_second_copy_replaces_the_first(self, mailbox: Mailbox, compose: Callable[..., Email]) -> None:
        email = compose()
        mailbox.keep(email)
        mailbox.keep(email)
        assert len(mailbox.ids()) == 1


class TestPages:
    def test_an_empty_mailbox(self, browser: TestClient) -> None:
        assert "No mail yet" in browser.get("/dev/mailbox").text

    def test_from_the_list_to_the_link(
        self, browser: TestClient, mailbox: Mailbox, compose: Callable[..., Email]
    ) -> None:
        email = compose(locale="fr")
        mailbox.keep(email)
        listed = browser.get("/dev/mailbox").text
        assert "Confirmez votre adresse e-mail" in listed
        assert f'href="/dev/mailbox/{email.id}"' in listed
        shown = browser.get(f"/dev/mailbox/{email.id}").text
        assert f'<a href="{URL}/account/verify-email?token=ot_' in shown
        assert f'src="/dev/mailbox/{email.id}/html" sandbox=' in shown
        html = browser.get(f"/dev/mailbox/{email.id}/html").text
        assert '<base target="_top">' in html
        assert f'href="{URL}/account/verify-email?token=ot_' in html
        source = browser.get(f"/dev/mailbox/{email.id}/source")
        assert source.headers["content-type"] == "text/plain; charset=utf-8"
        assert f"Message-ID: <{email.id}@localhost>" in source.text

    def test_nothing_in_it_runs_or_is_fetched(
        self, browser: TestClient, mailbox: Mailbox, compose: Callable[..., Email]
    ) -> None:
        email = compose()
        mailbox.keep(email)
        for path in ("", f"/{email.id}", f"/{email.id}/html", f"/{email.id}/source"):
            headers = browser.get(f"/dev/mailbox{path}").headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
            assert "script-src" not in policy
            assert "img-src" not in policy
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            framed = path.endswith("/html")
            assert headers["x-frame-options"] == ("SAMEORIGIN" if framed else "DENY")
            assert ("sandbox" in policy) == framed

    def test_whatever_a_mail_says_is_text(self, browser: TestClient, mailbox: Mailbox) -> None:
        content = EmailMessage()
        for name in ("Subject", "From", "To"):
            content[name] = "<script>alert(1)</script>"
        content.set_content('</pre><script>alert(1)</script> https://a.example/"onclick="x')
        identifier = str(new_id())
        mailbox.keep(Email(identifier, "a@example.com", "b@example.com", content))
        for path in ("", f"/{identifier}"):
            text = browser.get(f"/dev/mailbox{path}").text
            assert "<script" not in text
            assert '"onclick' not in text
        assert browser.get(f"/dev/mailbox/{identifier}/html").text == ""

    @pytest.mark.parametrize(
        "name", ["00000000-0000-7000-8000-000000000000", "../../etc/passwd", "x", "%2e%2e"]
    )
    @pytest.mark.parametrize("form", ["", "/html", "/source"])
    def test_what_is_not_there(self, browser: TestClient, name: str, form: str) -> None:
        assert browser.get(f"/dev/mailbox/{name}{form}").status_code in {404, 422}

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""])
    def test_a_strange_host_sees_nothing(self, browser: TestClient, host: str) -> None:
        """DNS rebinding: a page on evil.example that resolves to this machine."""
        assert browser.get("/dev/mailbox", headers={"Host": host}).status_code == 404

    @pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.1.7"])
    def test_this_machine_sees_it(self, browser: TestClient, host: str) -> None:
        assert browser.get("/dev/mailbox", headers={"Host": host}).status_code == 200


class TestElsewhere:
    @pytest.mark.parametrize("settings", [{}, {"mode": "local", "public_url": URL}])
    def test_there_is_none(self, make_resources: Callable[..., Resources], settings: dict[str, str]) -> None:
        """Neither the application nor its OpenAPI document has it; `serve` adds it, see test_server."""
        app = create_app(make_resources(**settings))
        assert TestClient(app, base_url=URL).get("/dev/mailbox").status_code == 404
        assert "/dev/" not in str(app.openapi())

"""What mails say, and that nothing which strangers choose changes what they are."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.mail.scenes import NOW, body, message

from auth_manager.errors import ConfigurationError
from auth_manager.factors.changes import Change
from auth_manager.mail import Email, MailRefused
from auth_manager.mail.compose import (
    CHANGES,
    GIVE_UP_AFTER,
    LOCALES,
    TEMPLATES,
    Composer,
    say_duration,
    say_time,
)
from auth_manager.one_time_secrets import OneTimeSecrets, Purpose
from auth_manager.outbox import Kind

MakeComposer = Callable[..., Composer]

DETAILS = {
    "at": "2026-11-22T06:39:00+00:00",
    "address": "203.0.113.7",
    "user_agent": "Firefox on Linux",
    "failures": 10,
    "new_email_masked": "n…@example.com",
    "erase_after": "2026-12-22T06:40:00+00:00",
    "invited_by": "Ada",
    "change": "passkey_added",
    "name": "Blue key",
}
LINKS = {
    Kind.VERIFY_EMAIL: ("verify-email", Purpose.VERIFY_EMAIL),
    Kind.CHANGE_EMAIL: ("verify-email", Purpose.CHANGE_EMAIL),
    Kind.RESET_PASSWORD: ("reset-password", Purpose.RESET_PASSWORD),
    Kind.EMAIL_LOGIN: ("sign-in", Purpose.EMAIL_LOGIN),
    Kind.INVITATION: ("invitation", Purpose.INVITATION),
    Kind.ERASURE_SCHEDULED: ("keep", Purpose.KEEP_ACCOUNT),
}
CODES = (
    Kind.VERIFY_EMAIL,
    Kind.CHANGE_EMAIL,
    Kind.RESET_PASSWORD,
    Kind.EMAIL_LOGIN,
    Kind.REAUTHENTICATE,
)
ELEMENTS = {"html", "head", "meta", "title", "body", "div", "h1", "p", "a", "br"}
NOT_YOU = {
    "en": ("If this was not you", "If you do not expect"),
    "fr": ("Si ce n\u2019était pas vous", "Si vous n\u2019attendiez"),
}


class Elements(HTMLParser):
    """Every element with its attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(email: Email) -> EmailMessage:
    """The mail as its reader's program parses it."""
    return message_from_bytes(email.content.as_bytes(), policy=policy.default)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("kind", list(Kind))
class TestEveryKind:
    def test_it_has_both_parts_without_anything_remote(
        self, make_composer: MakeComposer, kind: Kind, locale: str
    ) -> None:
        email = make_composer().compose(message(kind, locale=locale, details=DETAILS), now=NOW)
        content = read(email)
        assert content.get_content_type() == "multipart/alternative"
        assert [part.get_content_type() for part in content.iter_parts()] == ["text/plain", "text/html"]
        text, html = body(content, "plain"), body(content, "html")
        elements = Elements(html)
        assert ("html", {"lang": locale}) in elements.found
        assert {tag for tag, _ in elements.found} <= ELEMENTS
        assert not any("src" in attributes or "background" in attributes for _, attributes in elements.found)
        assert "url(" not in html
        for written in (text, elements.text):
            assert "Auth Manager" in written
            assert any(line in written for line in NOT_YOU[locale])
            assert not re.search(r"\{[{%]|[%}]\}|None|Undefined", written)

    def test_it_says_the_same_in_both(self, make_composer: MakeComposer, kind: Kind, locale: str) -> None:
        content = read(make_composer().compose(message(kind, locale=locale, details=DETAILS), now=NOW))
        text = " ".join(body(content, "plain").split())
        for paragraph in re.findall(r"<p>([^<]+)</p>", body(content, "html")):
            assert " ".join(paragraph.split()) in text

    def test_it_carries_what_its_secret_needs(
        self, make_composer: MakeComposer, one_time_secrets: OneTimeSecrets, kind: Kind, locale: str
    ) -> None:
        sent = message(kind, locale=locale, details=DETAILS)
        content = read(make_composer().compose(sent, now=NOW))
        text, elements = body(content, "plain"), Elements(body(content, "html"))
        assert sent.secret_id is not None
        links = {attributes["href"] for tag, attributes in elements.found if tag == "a"}
        assert links == set(re.findall(r"https?://\S+", text))
        if kind in LINKS:
            page, purpose = LINKS[kind]
            token = one_time_secrets.token(purpose, sent.secret_id)
            assert links == {f"https://auth.example.com/account/{page}?token={token}"}
        else:
            assert links == set()
        codes = set(re.findall(r"\b\d{6}\b", re.sub(r"https?://\S+", "", text)))
        if kind in CODES:
            assert codes == {one_time_secrets.code(Purpose(kind.value), sent.secret_id)}
            assert codes <= set(re.findall(r"\b\d{6}\b", elements.text))
        else:
            assert codes == set()

    def test_it_can_do_without_details(self, make_composer: MakeComposer, kind: Kind, locale: str) -> None:
        sent = message(kind, locale=locale, secret_id=None)
        content = read(make_composer().compose(sent, now=NOW))
        assert "None" not in body(content, "plain") + body(content, "html")


class TestWording:
    def test_details_are_in_it(self, make_composer: MakeComposer) -> None:
        text = body(
            make_composer().compose(message(Kind.NEW_SIGN_IN, details=DETAILS), now=NOW).content, "plain"
        )
        assert "on 22 November 2026 at 06:39 UTC" in " ".join(text.split())
        assert "\n\nNetwork address: 203.0.113.7\n\nDevice: Firefox on Linux\n\n" in text

    @pytest.mark.parametrize(
        ("tag", "default", "language"),
        [
            ("fr", "en", "fr"),
            ("fr-CA", "en", "fr"),
            ("FR_be", "en", "fr"),
            ("en-GB", "fr", "en"),
            ("de", "fr", "fr"),
            (None, "fr", "fr"),
            ("", "en", "en"),
            ("../fr", "en", "en"),
        ],
    )
    def test_the_language(
        self, make_composer: MakeComposer, tag: str | None, default: str, language: str
    ) -> None:
        content = make_composer(default_locale=default).compose(message(locale=tag), now=NOW).content
        assert f'<html lang="{language}">' in body(content, "html")

    def test_french_has_its_accents_and_spaces(self, make_composer: MakeComposer) -> None:
        content = read(
            make_composer().compose(message(Kind.NEW_SIGN_IN, locale="fr", details=DETAILS), now=NOW)
        )
        assert content["Subject"] == "Nouvelle connexion à votre compte"
        assert "Adresse réseau\u00a0: 203.0.113.7" in body(content, "plain")

    @pytest.mark.parametrize("path", sorted((TEMPLATES / "fr").iterdir()), ids=lambda path: path.name)
    def test_french_typography(self, path: Path) -> None:
        """A no-break space before double punctuation, and no straight apostrophe, in every file."""
        words = re.sub(r"\{[%{].*?[%}]\}", "", path.read_text(encoding="utf-8"))
        assert re.findall(r"(?<!\u00a0)[:;?!»]|'", words) == []

    def test_where_links_lead(self, make_composer: MakeComposer) -> None:
        """To our pages, and to the application's where ours are off."""
        own = make_composer(app_url="https://app.example.com/")
        theirs = make_composer(app_url="https://app.example.com/", pages_enabled=False)
        nobodys = make_composer(pages_enabled=False)
        bases = [
            re.findall(
                r"(https://\S+)/account/verify-email\?",
                body(each.compose(message(), now=NOW).content, "plain"),
            )
            for each in (own, theirs, nobodys)
        ]
        assert bases == [
            ["https://auth.example.com"],
            ["https://app.example.com"],
            ["https://auth.example.com"],
        ]

    @pytest.mark.parametrize(
        ("duration", "en", "fr"),
        [
            ({"minutes": 1}, "1 minute", "1 minute"),
            ({"minutes": 90}, "90 minutes", "90 minutes"),
            ({"hours": 1}, "1 hour", "1 heure"),
            ({"hours": 24}, "24 hours", "24 heures"),
            ({"days": 7}, "7 days", "7 jours"),
            ({"hours": 27, "minutes": 4}, "27 hours", "27 heures"),
        ],
    )
    def test_durations(self, duration: dict[str, int], en: str, fr: str) -> None:
        assert (say_duration(timedelta(**duration), "en"), say_duration(timedelta(**duration), "fr")) == (
            en,
            fr,
        )

    def test_times(self) -> None:
        at = datetime.fromisoformat("2026-08-01T01:02:03+02:00")
        assert say_time(at, "en") == "31 July 2026 at 23:02 UTC"
        assert say_time(at, "fr") == "31 juillet 2026 à 23:02 UTC"
        assert say_time(datetime(2026, 1, 1, tzinfo=UTC), "fr") == "1er janvier 2026 à 00:00 UTC"


@pytest.mark.parametrize("locale", LOCALES)
class TestFactorsChanged:
    def said(self, composer: Composer, locale: str, **details: Any) -> tuple[str, str]:
        """The subject and the text, on one line."""
        sent = message(Kind.FACTORS_CHANGED, locale=locale, secret_id=None, details=details)
        content = read(composer.compose(sent, now=NOW))
        return content["Subject"], " ".join(body(content, "plain").split())

    def test_every_change_has_its_words(self, make_composer: MakeComposer, locale: str) -> None:
        composer = make_composer()
        said = [self.said(composer, locale, change=change) for change in ("", *Change)]

        assert list(CHANGES) == [change.value for change in Change]
        for of_each in zip(*said, strict=True):
            assert len(set(of_each)) == 1 + len(Change)

    @pytest.mark.parametrize("change", ["something_newer", "", 7, None, ["totp_added"]], ids=repr)
    def test_one_that_is_not_known_is_a_change_all_the_same(
        self, make_composer: MakeComposer, locale: str, change: object
    ) -> None:
        subject, text = self.said(make_composer(), locale, change=change, address="203.0.113.7")
        assert "203.0.113.7" in text
        subjects = {"en": "Your second factors were changed", "fr": "Vos seconds facteurs ont été modifiés"}
        assert subject == subjects[locale]

    def test_it_says_which_passkey_when_and_from_where(
        self, make_composer: MakeComposer, locale: str
    ) -> None:
        subject, text = self.said(make_composer(), locale, **DETAILS)
        lines = {
            "en": "Passkey: Blue key Time: 22 November 2026 at 06:39 UTC Network address: 203.0.113.7",
            "fr": "Clé d\u2019accès : Blue key Date : 22 novembre 2026 à 06:39 UTC"
            " Adresse réseau : 203.0.113.7",
        }
        assert lines[locale] in text
        assert "Blue" not in subject

    def test_a_reset_does_not_show_where_its_administrator_was(
        self, make_composer: MakeComposer, locale: str
    ) -> None:
        _, text = self.said(make_composer(), locale, change=Change.MFA_RESET, address="203.0.113.7")
        assert "203.0.113.7" not in text


class TestHeaders:
    def test_they_are_those_of_an_automatic_mail(self, make_composer: MakeComposer) -> None:
        sent = message()
        email = make_composer().compose(sent, now=NOW + timedelta(hours=1))
        content = read(email)
        assert {name: str(value) for name, value in content.items() if name != "Content-Type"} == {
            "From": "Démo <no-reply@example.com>",
            "To": "test@example.com",
            "Subject": "Confirm your e-mail address",
            "Date": "Sun, 22 Nov 2026 06:40:00 +0000",
            "Message-ID": f"<{sent.id}@example.com>",
            "X-Entity-Ref-ID": str(sent.id),
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "All",
            "MIME-Version": "1.0",
        }
        assert (email.sender, email.recipient) == ("no-reply@example.com", "test@example.com")

    def test_every_copy_is_the_same(self, make_composer: MakeComposer) -> None:
        sent = message()
        first = make_composer().compose(sent, now=NOW)
        second = make_composer().compose(replace(sent, tries=2), now=NOW + timedelta(hours=1))
        assert first.content.as_bytes() == second.content.as_bytes()

    def test_lines_are_short_and_ascii(self, make_composer: MakeComposer) -> None:
        """RFC 5321 section 4.5.3.1.6: so that no server has to recode it."""
        for locale in LOCALES:
            content = make_composer().compose(message(locale=locale), now=NOW).content.as_bytes()
            assert content.isascii()
            assert max(map(len, content.split(b"\r\n"))) <= 78
            assert b"\n" not in content.replace(b"\r\n", b"")

    def test_nothing_of_it_is_in_a_repr(self, make_composer: MakeComposer) -> None:
        assert "test@example.com" not in repr(make_composer().compose(message(), now=NOW))


BREAKS = [
    "\r\n",
    "\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "\x00",
    "\r\n\r\n",
]
EVIL = [f"Eve{line_break}Bcc: victim@example.org{line_break}X-Evil: 1" for line_break in BREAKS] + [
    "=?utf-8?q?Eve=0D=0ABcc:_victim@example.org?=",
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x>',
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "--part-\r\nContent-Type: text/html",
    "\ud7ff\ufffe\u202e\u200f",
    "x" * 100_000,
]


class TestHostileText:
    """ASVS 1.3.11: what others choose stays text, in its place."""

    @pytest.mark.parametrize("evil", EVIL, ids=lambda text: ascii(text)[:40])
    @pytest.mark.parametrize("kind", [Kind.NEW_SIGN_IN, Kind.INVITATION, Kind.FACTORS_CHANGED])
    def test_in_details_and_names(self, make_composer: MakeComposer, kind: Kind, evil: str) -> None:
        details: dict[str, Any] = dict.fromkeys(
            ("address", "user_agent", "failures", "new_email_masked", "invited_by", "change", "name"), evil
        )
        plain = read(make_composer().compose(message(kind), now=NOW))
        email = make_composer(product_name=evil, mail_from="a@example.com").compose(
            message(kind, details=details), now=NOW
        )
        content = read(email)
        assert content.keys() == plain.keys()
        assert content["To"] == "test@example.com"
        assert [one.addr_spec for one in content["From"].addresses] == ["a@example.com"]
        assert [part.get_content_type() for part in content.iter_parts()] == ["text/plain", "text/html"]
        assert not content.defects
        harmless, written = Elements(body(plain, "html")), Elements(body(content, "html"))
        assert {tag for tag, _ in written.found} <= {tag for tag, _ in harmless.found} | {"p"}
        assert len(email.content.as_bytes()) < 20_000

    def test_the_name_of_a_passkey_is_escaped_in_html(self, make_composer: MakeComposer) -> None:
        details = {"change": "passkey_added", "name": '<b>"Mine" & yours</b>'}
        content = make_composer().compose(message(Kind.FACTORS_CHANGED, details=details), now=NOW).content
        assert '<p>Passkey: <b>"Mine" & yours</b></p>' not in body(content, "html")
        assert "Passkey: &lt;b&gt;&#34;Mine&#34; &amp; yours&lt;/b&gt;" in body(content, "html")
        assert 'Passkey: <b>"Mine" & yours</b>\n' in body(content, "plain")

    @pytest.mark.parametrize("encoded", ["?b?DQpCY2M6dkBlLm9yZw==?=", "?q?Eve=0D=0ABcc=3A_v=40e.org?="])
    @pytest.mark.parametrize("charset", ["utf-8", "us-ascii", "iso-8859-1"])
    def test_an_encoded_word_is_no_address(
        self, make_composer: MakeComposer, charset: str, encoded: str
    ) -> None:
        """RFC 5322 allows these characters in an address, and Python decodes them in the header."""
        with pytest.raises(MailRefused, match="address_not_valid"):
            make_composer().compose(message(recipient=f"=?{charset}{encoded}@example.com"), now=NOW)

    @pytest.mark.parametrize("evil", EVIL, ids=lambda text: ascii(text)[:40])
    @pytest.mark.parametrize("form", ["{}@example.com", "a@{}.example.com", "a@example.com{}", "{}"])
    def test_in_the_address_it_is_refused(self, make_composer: MakeComposer, form: str, evil: str) -> None:
        with pytest.raises(MailRefused, match="address_not_valid"):
            make_composer().compose(message(recipient=form.format(evil)), now=NOW)

    def test_links_in_it_are_not_links(self, make_composer: MakeComposer) -> None:
        """A mail program makes links of what looks like one."""
        details = {"user_agent": "Call us: HTTPS://evil.example/x or www.evil.example, now"}
        content = make_composer().compose(message(Kind.NEW_SIGN_IN, details=details), now=NOW).content
        assert "Device: Call us: … or … now" in body(content, "plain")


class TestAddresses:
    def test_a_domain_is_sent_as_ascii(self, make_composer: MakeComposer) -> None:
        email = make_composer(mail_from="Démo <no-reply@münchen.example.com>").compose(
            message(recipient="Some.One@bücher.example.com"), now=NOW
        )
        assert email.recipient == "Some.One@xn--bcher-kva.example.com"
        assert email.sender == "no-reply@xn--mnchen-3ya.example.com"
        assert not email.needs_smtputf8
        assert read(email)["To"] == "Some.One@xn--bcher-kva.example.com"

    def test_a_local_part_cannot(self, make_composer: MakeComposer) -> None:
        email = make_composer().compose(message(recipient="jörg@bücher.example.com"), now=NOW)
        assert email.recipient == "jörg@xn--bcher-kva.example.com"
        assert email.needs_smtputf8

    @pytest.mark.parametrize(
        "sender", ["nobody", "a@", "jörg@example.com", "a@example.com\r\nBcc: b@example.com", "<>", "a@b@c"]
    )
    def test_a_sender_that_is_none_refuses_the_start(self, make_composer: MakeComposer, sender: str) -> None:
        with pytest.raises(ConfigurationError, match="AUTH_MAIL_FROM"):
            make_composer(mail_from=sender)

    def test_the_local_mailbox_needs_no_sender(self, make_composer: MakeComposer) -> None:
        content = make_composer(mail_from="").compose(message(), now=NOW).content
        assert content["From"] == "Auth Manager <no-reply@localhost>"


class TestTooLate:
    @pytest.mark.parametrize(
        ("kind", "lifetime"),
        [
            (Kind.RESET_PASSWORD, timedelta(seconds=1800)),
            (Kind.VERIFY_EMAIL, timedelta(days=1)),
            (Kind.PASSWORD_CHANGED, GIVE_UP_AFTER),
        ],
    )
    def test_what_would_be_of_no_use_is_not_sent(
        self, make_composer: MakeComposer, kind: Kind, lifetime: timedelta
    ) -> None:
        composer = make_composer()
        composer.compose(message(kind), now=NOW + lifetime - timedelta(seconds=1))
        with pytest.raises(MailRefused, match="too_late"):
            composer.compose(message(kind), now=NOW + lifetime)

    def test_an_account_can_be_kept_until_it_is_erased(self, make_composer: MakeComposer) -> None:
        sent = message(
            Kind.ERASURE_SCHEDULED, details={"erase_after": (NOW + timedelta(days=30)).isoformat()}
        )
        content = make_composer().compose(sent, now=NOW + timedelta(days=29)).content
        assert "for 30 days: until 22 December 2026 at 06:40 UTC" in " ".join(body(content, "plain").split())


class TestOwnTemplates:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        for locale in LOCALES:
            (tmp_path / locale).mkdir()
        return tmp_path

    def test_a_file_of_the_same_name_wins(self, make_composer: MakeComposer, own: Path) -> None:
        ours = (TEMPLATES / "en" / "verify_email.words").read_text(encoding="utf-8")
        (own / "en" / "verify_email.words").write_text(ours.replace("Confirm your", "Please confirm your"))
        (own / "_signature.txt").write_text("The {{ product }} team\n")
        layout = (TEMPLATES / "layout.txt").read_text(encoding="utf-8")
        (own / "layout.txt").write_text(layout + "{% include '_signature.txt' %}")
        composer = make_composer(mail_templates=str(own))
        content = composer.compose(message(), now=NOW).content
        assert content["Subject"] == "Please confirm your e-mail address"
        assert body(content, "plain").rstrip().endswith("The Auth Manager team")
        french = composer.compose(message(locale="fr"), now=NOW).content
        assert french["Subject"] == "Confirmez votre adresse e-mail"

    def test_one_mail_can_have_a_form_of_its_own(self, make_composer: MakeComposer, own: Path) -> None:
        (own / "fr" / "email_login.html").write_text("<p>{{ code }} {{ product }}</p>")
        composer = make_composer(mail_templates=str(own), product_name="A & B")
        html = body(composer.compose(message(Kind.EMAIL_LOGIN, locale="fr"), now=NOW).content, "html")
        assert re.fullmatch(r"<p>\d{6} A &amp; B</p>\n?", html)

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("en/verify_email.words", "{% set subject %}", "en/verify_email.words, line 1"),
            ("fr/verify_email.words", "{% set before %}x{% endset %}", "fr/verify_email"),
            ("layout.html", "{{ custommer }}", "custommer"),
            ("layout.txt", "{% include 'nowhere.txt' %}", "nowhere.txt"),
            ("layout.txt", "{{ 1 + '' }}", "layout.txt|TypeError"),
            ("en/common.words", b"\xff\xfe", "Unicode"),
            ("en/verify_emial.words", "", "en/verify_emial.words overrides nothing"),
            ("de/verify_email.words", "", "de/verify_email.words overrides nothing"),
        ],
    )
    def test_one_that_cannot_be_used_refuses_the_start(
        self, make_composer: MakeComposer, own: Path, name: str, text: str | bytes, says: str
    ) -> None:
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigurationError, match=f"AUTH_MAIL_TEMPLATES: .*({says})"):
            make_composer(mail_templates=str(own))

    def test_a_directory_that_is_not_there_refuses_the_start(self, make_composer: MakeComposer) -> None:
        with pytest.raises(ConfigurationError, match="no such directory"):
            make_composer(mail_templates="nowhere/at/all")

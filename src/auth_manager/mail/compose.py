"""The mail that a message of the outbox becomes: subject, text and HTML from templates, in its language.

The wording of a kind is one file for a language; `layout.txt` and `layout.html` make the two parts of it, so
that they cannot say different things. Escaping happens in the layout, at the end: wording is plain text.
A link's token and a code are derived here, and are nowhere before (one_time_secrets.py).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from auth_manager.errors import ConfigurationError
from auth_manager.mail import Email, MailRefused
from auth_manager.one_time_secrets import OneTimeSecrets, Purpose
from auth_manager.outbox import Kind, OutboxMessage
from auth_manager.proofs import lifetime
from auth_manager.settings import Settings

Locale = Literal["en", "fr"]
LOCALES: tuple[Locale, ...] = ("en", "fr")

GIVE_UP_AFTER = timedelta(days=3)
"""How old a notice may be when it is sent; a mail with a secret, as old as the secret lives."""

LONGEST_DETAIL = 160
"""Characters of a User-Agent or a name that are shown."""

TEMPLATES = Path(__file__).parent / "templates"

_MONTHS: dict[Locale, str] = {
    "en": "January February March April May June July August September October November December",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
}
_ENCODED_WORD = "=?"
"""How RFC 2047 begins what a header cannot say otherwise. Python's email package decodes it where
it is given, and writes the line breaks that it hides: it may come from nobody but us."""

_UNITS: dict[Locale, tuple[str, str, str]] = {
    "en": ("minute", "hour", "day"),
    "fr": ("minute", "heure", "jour"),
}


@dataclass(frozen=True, slots=True)
class _Carried:
    """How a kind presents its secret.

    `page` None: by the code alone. The code only where its reader is at the client that asked: that has the
    request which the code counts with.
    """

    purpose: Purpose
    page: str | None
    code: bool = True


_CARRIED = {
    Kind.VERIFY_EMAIL: _Carried(Purpose.VERIFY_EMAIL, "verify-email"),
    Kind.CHANGE_EMAIL: _Carried(Purpose.CHANGE_EMAIL, "verify-email"),
    Kind.RESET_PASSWORD: _Carried(Purpose.RESET_PASSWORD, "reset-password"),
    Kind.EMAIL_LOGIN: _Carried(Purpose.EMAIL_LOGIN, "sign-in"),
    Kind.REAUTHENTICATE: _Carried(Purpose.REAUTHENTICATE, None),
    Kind.INVITATION: _Carried(Purpose.INVITATION, "invitation", code=False),
    Kind.ERASURE_SCHEDULED: _Carried(Purpose.KEEP_ACCOUNT, "keep", code=False),
}

CHANGES = (
    "totp_added",
    "totp_removed",
    "passkey_added",
    "passkey_removed",
    "recovery_codes_made",
    "recovery_code_used",
    "mfa_reset",
)
"""What a mail can say that happened to an account's factors; what is not here is a change like any."""

_SAMPLES: tuple[dict[str, Any], ...] = (
    {},
    {
        "at": "2026-01-02T03:04:05Z",
        "address": "203.0.113.7",
        "user_agent": "Mozilla/5.0",
        "failures": 10,
        "new_email_masked": "n…@example.com",
        "erase_after": "2026-01-02T03:04:05Z",
        "invited_by": "Ada",
        "name": "Security key",
    },
    *({"change": change} for change in CHANGES),
)


class Composer:
    """Composes mails for one configuration; safe to use from several threads."""

    def __init__(self, settings: Settings, one_time_secrets: OneTimeSecrets) -> None:
        """Load the templates, those of AUTH_MAIL_TEMPLATES before ours, and try the former.

        Raises:
            ConfigurationError: AUTH_MAIL_FROM is no address, or a template of AUTH_MAIL_TEMPLATES cannot be
                used; at start, and not when the first mail is due.
        """
        from jinja2 import (  # noqa: PLC0415 -- the API imports neither this nor that
            ChoiceLoader,
            Environment,
            FileSystemLoader,
            StrictUndefined,
            select_autoescape,
        )

        self._settings = settings
        self._one_time_secrets = one_time_secrets
        self._sender = _parse_sender(settings)
        own = Path(settings.mail_templates) if settings.mail_templates else None
        self._templates = Environment(
            loader=ChoiceLoader([FileSystemLoader(path) for path in (own, TEMPLATES) if path]),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["paragraphs"] = _paragraphs
        if own:
            self._try_templates(own)

    def compose(self, message: OutboxMessage, *, now: datetime) -> Email:
        """Return the mail of a message; the same bytes each time, so that copies can be told as such.

        Raises:
            MailRefused: it is too late for it, or its recipient is no address that mail can reach.
        """
        expires_at = self._expires_at(message)
        if now >= expires_at:
            raise MailRefused("too_late")
        recipient = _parse_recipient(message.recipient)
        subject, text, html = self._render(message, expires_at)
        content = EmailMessage(policy=SMTP)
        content["From"] = self._sender
        content["To"] = Address(username=recipient.username, domain=recipient.domain)
        content["Subject"] = subject
        content["Date"] = message.created_at.astimezone(UTC)
        content["Message-ID"] = f"<{message.id}@{self._sender.domain}>"
        content["X-Entity-Ref-ID"] = str(message.id)  # SES writes a Message-ID of its own
        content["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5
        content["X-Auto-Response-Suppress"] = "All"
        content.set_content(text, cte="quoted-printable")
        content.add_alternative(html, subtype="html", cte="quoted-printable")
        content.set_boundary(f"part-{message.id.hex}")
        return Email(str(message.id), self._sender.addr_spec, recipient.addr_spec, content)

    def _expires_at(self, message: OutboxMessage) -> datetime:
        if message.kind is Kind.ERASURE_SCHEDULED and "erase_after" in message.details:
            return datetime.fromisoformat(message.details["erase_after"])
        carried = _CARRIED.get(message.kind) if message.secret_id else None
        useful = lifetime(self._settings, carried.purpose) if carried else GIVE_UP_AFTER
        return message.created_at + useful

    def _render(self, message: OutboxMessage, expires_at: datetime) -> tuple[str, str, str]:
        locale = _choose_locale(message.locale, self._settings.default_locale)
        words = f"{locale}/{message.kind}"
        facts = self._facts(message, locale, expires_at) | {"words_of": words}
        said = self._templates.get_template(f"{words}.words").make_module(facts)
        subject = _one_line(str(vars(said)["subject"]))
        text, html = (
            self._templates.select_template([f"{words}.{form}", f"layout.{form}"]).render(
                facts, subject=subject
            )
            for form in ("txt", "html")
        )
        return subject, text, html

    def _facts(self, message: OutboxMessage, locale: Locale, expires_at: datetime) -> dict[str, Any]:
        """Return everything that a template may name; None for what this message does not have."""
        details, settings = message.details, self._settings
        facts: dict[str, Any] = {
            "locale": locale,
            "product": _plain(settings.product_name),
            "colour": settings.brand_colour,
            "link": None,
            "code": None,
            "expires_in": None,
            "expires_at": None,
            "at": _say_detail_time(details.get("at"), locale),
            "erase_after": _say_detail_time(details.get("erase_after"), locale),
            "of_factors": bool(details.get("of_factors")),
            "change": details.get("change") if details.get("change") in CHANGES else None,
        }
        for name in ("address", "user_agent", "failures", "new_email_masked", "invited_by", "name"):
            facts[name] = _plain(details[name]) if details.get(name) is not None else None
        carried = _CARRIED.get(message.kind)
        if message.secret_id and carried:
            facts["expires_in"] = say_duration(expires_at - message.created_at, locale)
            facts["expires_at"] = say_time(expires_at, locale)
            if carried.page:
                own_pages = settings.pages_enabled or not settings.app_url
                base = settings.public_url if own_pages else settings.app_url.rstrip("/")
                token = self._one_time_secrets.token(carried.purpose, message.secret_id)
                facts["link"] = f"{base}/account/{carried.page}?token={token}"
            if carried.code:
                facts["code"] = self._one_time_secrets.code(carried.purpose, message.secret_id)
        return facts

    def _try_templates(self, own: Path) -> None:
        """Render every mail once with and without its facts, so that nothing breaks later."""
        from jinja2 import TemplateError  # noqa: PLC0415 -- as above

        if not own.is_dir():
            raise ConfigurationError("AUTH_MAIL_TEMPLATES: there is no such directory")
        known = {f"{locale}/{kind}.{form}" for locale in LOCALES for kind in Kind for form in ("txt", "html")}
        known |= {path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.*")}
        for path in sorted(own.rglob("*")):
            name = path.relative_to(own).as_posix()
            if path.is_file() and name not in known and not path.name.startswith(("_", ".")):
                raise ConfigurationError(
                    f"AUTH_MAIL_TEMPLATES: {name} overrides nothing; call a part _{path.name}"
                )
        for message in _samples():
            try:
                self._render(message, self._expires_at(message))
            except (TemplateError, TypeError, ValueError, LookupError) as error:
                where = getattr(error, "name", None) or f"{message.locale}/{message.kind}"
                line = getattr(error, "lineno", None)
                place = f"{where}, line {line}" if line else where
                raise ConfigurationError(
                    f"AUTH_MAIL_TEMPLATES: {place}: {type(error).__name__}: {error}"
                ) from None


def say_time(at: datetime, locale: Locale) -> str:
    """Return a moment in UTC, as in `2 January 2026 at 03:04 UTC`."""
    at = at.astimezone(UTC)
    month = _MONTHS[locale].split()[at.month - 1]
    if locale == "fr":
        return f"{'1er' if at.day == 1 else at.day} {month} {at.year} à {at:%H:%M} UTC"
    return f"{at.day} {month} {at.year} at {at:%H:%M} UTC"


def say_duration(duration: timedelta, locale: Locale) -> str:
    """Return a duration in days, hours or minutes, rounded down: `24 hours`, `90 minutes`."""
    minute, hour, day = _UNITS[locale]
    seconds = int(duration.total_seconds())
    if seconds % 86_400 == 0 and seconds >= 2 * 86_400:
        return _say_number(seconds // 86_400, day)
    if seconds % 3600 == 0 or seconds >= 24 * 3600:
        return _say_number(seconds // 3600, hour)
    return _say_number(seconds // 60, minute)


def _say_number(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _say_detail_time(value: object, locale: Locale) -> str | None:
    return say_time(datetime.fromisoformat(value), locale) if isinstance(value, str) else None


def _choose_locale(wanted: str | None, default: Locale) -> Locale:
    """Return the language of a tag such as fr-CA (RFC 5646), if it is one of ours."""
    language = re.split("[-_]", wanted or "", maxsplit=1)[0].lower()
    return next((locale for locale in LOCALES if locale == language), default)


def _plain(value: object) -> str:
    """Return a fact as one short line without control characters, and without what a reader would click."""
    line = "".join(char if char.isprintable() else " " for char in str(value))
    line = re.sub(r"(?i)\b(?:[a-z][a-z0-9+.-]*://|www\.)\S*", "…", line)
    line = _one_line(line).replace(_ENCODED_WORD, "= ?")
    return line if len(line) <= LONGEST_DETAIL else f"{line[:LONGEST_DETAIL]}…"


def _one_line(text: str) -> str:
    """Join lines. No-break spaces stay: French has them before colons."""
    return re.sub(r"[ \t\r\n]+", " ", text).strip(" ")


def _paragraphs(text: str) -> list[str]:
    return [line for line in map(_one_line, re.split(r"\n[ \t]*\n", text)) if line]


def _parse_sender(settings: Settings) -> Address:
    if not settings.mail_from:  # as only the local mailbox may have it
        return Address(display_name=_plain(settings.product_name), username="no-reply", domain="localhost")
    name, address = parseaddr(settings.mail_from)
    try:
        local, domain = _split_address(address)
        if not (local.isascii() and settings.mail_from.isprintable()):
            raise ValueError("not every server takes it")  # noqa: TRY301 -- see below
        return Address(display_name=_plain(name or settings.product_name), username=local, domain=domain)
    except ValueError:
        raise ConfigurationError(
            "AUTH_MAIL_FROM is no address, as in: Example <no-reply@example.com>"
        ) from None


def _parse_recipient(text: str) -> Address:
    try:
        local, domain = _split_address(text)
        return Address(username=local, domain=domain)
    except ValueError:
        raise MailRefused("address_not_valid") from None


def _split_address(text: str) -> tuple[str, str]:
    """Return what is before the @, and the domain in ASCII (IDNA 2008); raises ValueError."""
    from email_validator import validate_email  # noqa: PLC0415 -- as in identifiers

    found = validate_email(text, check_deliverability=False)
    if _ENCODED_WORD in found.local_part:
        raise ValueError("what looks like an encoded word would be decoded")
    return found.local_part, found.ascii_domain


def _samples() -> Iterator[OutboxMessage]:
    for locale in LOCALES:
        for kind in Kind:
            for details in _SAMPLES:
                secret_id = UUID(int=1) if kind in _CARRIED else None
                yield OutboxMessage(
                    id=UUID(int=0),
                    kind=kind,
                    recipient="",
                    account_id=None,
                    locale=locale,
                    created_at=datetime(2026, 1, 1, tzinfo=UTC),
                    secret_id=secret_id,
                    details=details,
                    tries=1,
                )

"""The mailbox of a laptop: mail is kept as files, and shown at /dev/mailbox. Local mode only.

Whoever can read these pages can sign in as anybody: so they are served to requests for this machine's own
name alone, which a web page elsewhere cannot make with DNS rebinding.
"""

import os
import re
import tempfile
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import escape
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from auth_manager.errors import NotFound
from auth_manager.mail import Email

KEPT = 200
"""Mails; the oldest go first."""

_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'self'; "
    "sandbox allow-top-navigation-by-user-activation"
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#111827}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4em .8em .4em 0}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f3f4f6;padding:1em}"
    "iframe{width:100%;height:36em;border:1px solid #d1d5db}"
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A directory of `<id>.eml`; the ids are in the order of time (UUIDv7)."""

    directory: Path

    def keep(self, email: Email) -> None:
        """Take a mail, as a transport does; a second copy replaces the first."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.directory, prefix=".")  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(email.content.as_bytes(policy=policy.SMTPUTF8))
        Path(temporary).rename(self.directory / f"{UUID(email.id)}.eml")
        for name in self.ids()[KEPT:]:
            (self.directory / f"{name}.eml").unlink(missing_ok=True)

    def ids(self) -> list[UUID]:
        """Return what is there, the newest first."""
        return [UUID(path.stem) for path in sorted(self.directory.glob("*.eml"), reverse=True)]

    def read(self, identifier: UUID) -> EmailMessage:
        """Return one mail.

        Raises:
            NotFound: there is none of that id.
        """
        try:
            content = (self.directory / f"{identifier}.eml").read_bytes()
        except FileNotFoundError:
            raise NotFound from None
        return message_from_bytes(content, policy=policy.default)


def mailbox_router(mailbox: Mailbox, *, public_url: str) -> APIRouter:
    """Return the pages of a mailbox; nothing in them runs or is fetched from elsewhere."""
    names = {"localhost", urlsplit(public_url).hostname}

    def refuse_strange_hosts(request: Request) -> None:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if host not in names and not _is_address(host):
            raise NotFound

    router = APIRouter(
        prefix="/dev/mailbox", include_in_schema=False, dependencies=[Depends(refuse_strange_hosts)]
    )

    @router.get("")
    def list_mails() -> Response:
        return _page("Mailbox", _list(mailbox))

    @router.get("/{identifier}")
    def show_mail(identifier: UUID) -> Response:
        mail = mailbox.read(identifier)
        return _page(str(mail["Subject"]), _show(identifier, mail))

    @router.get("/{identifier}/html")
    def show_html(identifier: UUID) -> Response:
        part = mailbox.read(identifier).get_body(("html",))
        html: str = part.get_content() if part else ""
        # Links leave the frame, which can show nothing but this mail.
        framed = html.replace("<head>", '<head><base target="_top">', 1)
        return _respond(framed, _MAIL_POLICY, framed_by="SAMEORIGIN")

    @router.get("/{identifier}/source")
    def show_source(identifier: UUID) -> Response:
        source = mailbox.read(identifier).as_string(policy=policy.SMTPUTF8)
        return _respond(source, _PAGE_POLICY, media_type="text/plain")

    return router


def _list(mailbox: Mailbox) -> str:
    rows = []
    for identifier in mailbox.ids():
        mail = mailbox.read(identifier)
        sent, recipient, subject = (escape(str(mail[name])) for name in ("Date", "To", "Subject"))
        rows.append(
            f'<tr><td>{sent}<td>{recipient}<td><a href="/dev/mailbox/{identifier}">{subject}</a></tr>'
        )
    if not rows:
        return "<p>No mail yet. Reload after a registration.</p>"
    return (
        "<table><thead><tr><th scope=col>Sent<th scope=col>To<th scope=col>Subject</tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table>"
    )


def _show(identifier: UUID, mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    text = escape(part.get_content() if part else "")
    linked = re.sub(r"https?://[^\s<>&\"']+", lambda found: f'<a href="{found[0]}">{found[0]}</a>', text)
    sender, recipient, sent = (escape(str(mail[name])) for name in ("From", "To", "Date"))
    return (
        f"<p>From {sender}<br>To {recipient}<br>{sent}</p>"
        f"<h2>Text</h2><pre>{linked}</pre>"
        f'<h2>HTML</h2><iframe title="The mail as HTML" src="/dev/mailbox/{identifier}/html"'
        ' sandbox="allow-top-navigation-by-user-activation"></iframe>'
        f'<p><a href="/dev/mailbox/{identifier}/source">Source</a> · <a href="/dev/mailbox">All mail</a></p>'
    )


def _page(title: str, content: str) -> Response:
    return _respond(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{escape(title)}</h1>{content}</main></body></html>",
        _PAGE_POLICY,
    )


def _respond(
    text: str, content_policy: str, *, framed_by: str = "DENY", media_type: str = "text/html"
) -> Response:
    headers = {
        "Content-Security-Policy": content_policy,
        "X-Frame-Options": framed_by,
        "Cache-Control": "no-store",
    }
    return Response(text, headers=headers, media_type=media_type)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

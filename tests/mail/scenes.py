"""What tests of mail share: messages in the outbox, and a real mail server."""

import json
import socket
import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any
from uuid import UUID

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from auth_manager import outbox
from auth_manager.database import Database
from auth_manager.ids import new_id
from auth_manager.outbox import Kind, NewMessage, OutboxMessage

NOW = datetime(2026, 11, 22, 6, 40, tzinfo=UTC)
SENDER = "Démo <no-reply@example.com>"


def message(kind: Kind = Kind.VERIFY_EMAIL, **members: Any) -> OutboxMessage:
    """A message as it is taken from the outbox."""
    values: dict[str, Any] = {
        "id": new_id(),
        "kind": kind,
        "recipient": "test@example.com",
        "account_id": None,
        "locale": "en",
        "created_at": NOW,
        "secret_id": new_id(),
        "details": {},
        "tries": 1,
    }
    return OutboxMessage(**values | members)


def write(
    database: Database,
    kind: Kind = Kind.VERIFY_EMAIL,
    *,
    recipient: str = "test@example.com",
    now: datetime = NOW,
    details: Mapping[str, Any] | None = None,
) -> UUID:
    """Commit a message; return its id."""
    new = NewMessage(new_id(), kind, now, secret_id=new_id(), details=details or {})
    with database.one_trip() as connection:
        outbox.add(connection, new, recipient=recipient)
    return new.id


def row_of(database: Database, message_id: UUID) -> dict[str, Any]:
    with database.one_trip() as connection:
        row = connection.fetch_one("SELECT * FROM outbox WHERE id = %(id)s", {"id": message_id})
    assert row is not None
    return row


def let_go(database: Database, message_id: UUID) -> None:
    """Let the time pass for which a message is held by who sends it, or died doing so."""
    with database.one_trip() as connection:
        connection.add(
            "UPDATE outbox SET sending_until = now() - interval '1 s' WHERE id = %(id)s", {"id": message_id}
        )


def body(content: EmailMessage, form: str) -> str:
    """One part's text."""
    part = content.get_body((form,))
    assert part is not None
    text: str = part.get_content()
    return text.replace("\r\n", "\n")


def queued(message_id: UUID | str) -> str:
    """What the queue carries."""
    return json.dumps({"id": str(message_id)})


@dataclass
class MailServer:
    """A real SMTP server; `at_recipient` and `at_data` answer RCPT or DATA in place of 250."""

    url: str = ""
    port: int = 0
    received: list[tuple[str, EmailMessage]] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    at_recipient: dict[str, str] = field(default_factory=dict)
    at_data: str = ""

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's names
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.at_recipient:
            return self.at_recipient[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.at_data:
            return self.at_data
        self.options = envelope.mail_options
        assert envelope.original_content is not None
        content = message_from_bytes(envelope.original_content, policy=policy.default)
        self.received.append((str(envelope.rcpt_tos[0]), content))
        return "250 OK"


@contextmanager
def serve_mail(*, tls: ssl.SSLContext | None = None, port: int = 0, **options: Any) -> Generator[MailServer]:
    """Run a server on loopback; with `tls` from the first byte, `tls_context` by STARTTLS."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    secure = tls is not None or "tls_context" in options
    server = MailServer(url=f"{'smtps' if tls else 'smtp'}://localhost:{port}", port=port)
    server.url += "" if secure else "?tls=none"
    controller = Controller(
        server, hostname="127.0.0.1", port=port, ready_timeout=20, ssl_context=tls, **options
    )
    controller.start()
    try:
        yield server
    finally:
        controller.stop()

"""Mail: composed from a message of the outbox, sent by a transport, and when: docs/mail.md."""

from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage


@dataclass(frozen=True, slots=True)
class Email:
    """One mail, ready to be sent.

    `sender` and `recipient` are its envelope: bare addresses with the domain in ASCII (IDNA). `id` is the
    outbox message's, the same in every copy.
    """

    id: str
    sender: str
    recipient: str = field(repr=False)
    content: EmailMessage = field(repr=False)

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the part before the @ is not ASCII, which takes RFC 6531 at every hop."""
        return not self.recipient.isascii()


Send = Callable[[Email], None]
"""Sends one mail, or raises MailUnavailable or MailRefused."""


class MailUnavailable(Exception):
    """It cannot be sent now; `reason` is a stable word without an address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MailRefused(Exception):
    """It will never be sent; `reason` is a stable word without an address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

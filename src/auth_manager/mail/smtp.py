"""Mail by SMTP, over TLS: smtps://, or smtp:// with STARTTLS (RFC 3207, RFC 8314)."""

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from auth_manager.errors import ConfigurationError
from auth_manager.mail import Email, MailRefused, MailUnavailable

TIMEOUT = 8.0
"""Seconds to connect, and for each answer; a whole mail takes less than outbox.SENDING of a sane server."""

_PORTS = {"smtp": 587, "smtps": 465}
_PERMANENT = range(500, 600)
"""RFC 5321 section 4.2.1: the same command will not succeed later."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed in. `security` none: in clear, on this machine alone or in local mode."""

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def parse_url(url: str, *, local: bool) -> SmtpServer:
    """Read AUTH_SMTP_URL: `smtp[s]://user:password@host:port`, `?tls=none` for a server in clear.

    Raises:
        ConfigurationError: it cannot be used; never with what it says.
    """
    try:
        parts = urlsplit(url.strip())
        host, port, query = (
            parts.hostname,
            parts.port,
            parse_qs(parts.query, strict_parsing=bool(parts.query)),
        )
    except ValueError:
        raise ConfigurationError("AUTH_SMTP_URL is no URL") from None
    if parts.scheme not in _PORTS or not host or parts.path not in {"", "/"}:
        raise ConfigurationError("AUTH_SMTP_URL must be smtp://host or smtps://host")
    if query not in ({}, {"tls": ["none"]}):
        raise ConfigurationError("AUTH_SMTP_URL: the one option is tls=none")
    security: Literal["tls", "starttls", "none"] = "tls" if parts.scheme == "smtps" else "starttls"
    if query:
        if security == "tls" or not (local or _is_loopback(host)):
            raise ConfigurationError("AUTH_SMTP_URL: tls=none is for smtp:// on this machine, or local mode")
        security = "none"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return SmtpServer(host, port or _PORTS[parts.scheme], security, user, password)


def send(server: SmtpServer, email: Email) -> None:
    """Hand one mail in; when this returns, the server has taken the responsibility (RFC 5321 section 6.1).

    Raises:
        MailUnavailable: no connection, no trust, or a 4yz reply. Also what an operator must mend: a log-in or
            a sender that is refused.
        MailRefused: a 5yz reply to the recipient or the content; `address_needs_smtputf8`.
    """
    try:
        connection = _connect(server, name=email.sender.rpartition("@")[2])
    except smtplib.SMTPResponseException as error:
        raise MailUnavailable(f"smtp_{error.smtp_code}") from error
    except (smtplib.SMTPException, OSError) as error:
        raise MailUnavailable("smtp_no_connection") from error
    try:
        connection.send_message(email.content, email.sender, [email.recipient])
    except smtplib.SMTPRecipientsRefused as error:
        [(code, _text)] = error.recipients.values()
        raise _failure("recipient", code) from error
    except smtplib.SMTPDataError as error:
        raise _failure("content", error.smtp_code) from error
    except smtplib.SMTPNotSupportedError as error:
        raise MailRefused("address_needs_smtputf8") from error
    except smtplib.SMTPResponseException as error:
        raise MailUnavailable(f"smtp_{error.smtp_code}") from error
    except (smtplib.SMTPException, OSError) as error:
        raise MailUnavailable("smtp_no_answer") from error
    finally:
        with suppress(smtplib.SMTPException, OSError):
            connection.quit()  # whatever it answers, the mail is sent or is not


def _connect(server: SmtpServer, *, name: str) -> smtplib.SMTP:
    """Return a connection that is encrypted and logged in as far as the URL says; the caller closes it.

    `name` is what we call ourselves: smtplib would look it up in DNS, which can take seconds.
    """
    if server.security == "tls":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, name, timeout=TIMEOUT, context=ssl.create_default_context()
        )
    else:
        connection = smtplib.SMTP(server.host, server.port, name, timeout=TIMEOUT)
    try:
        if server.security == "starttls":
            connection.starttls(context=ssl.create_default_context())
        if server.user:
            connection.login(server.user, server.password)
    except BaseException:
        connection.close()
        raise
    return connection


def _failure(what: str, code: int) -> MailRefused | MailUnavailable:
    return (MailRefused if code in _PERMANENT else MailUnavailable)(f"{what}_refused_{code}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

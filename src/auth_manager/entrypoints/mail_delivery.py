"""Delivery of mails and webhooks as the settings say, for the worker function and for the server."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from auth_manager.aws.ses import open_ses
from auth_manager.cached_secret import CachedSecret
from auth_manager.database import Database
from auth_manager.errors import ConfigurationError
from auth_manager.local.mailbox import Mailbox
from auth_manager.mail import Email, Send, smtp
from auth_manager.mail.compose import Composer
from auth_manager.mail.delivery import Delivery
from auth_manager.one_time_secrets import OneTimeSecrets
from auth_manager.outbound_http import Outbound
from auth_manager.secret_keys import SecretKeys
from auth_manager.settings import Settings
from auth_manager.webhooks.delivery import WebhookDelivery

MAILBOX = Path(".local/mailbox")
"""Of a laptop, below the directory that it runs in."""


def open_delivery(
    settings: Settings,
    database: Database,
    one_time_secrets: OneTimeSecrets,
    *,
    fetch_secret: Callable[[str], str] | None = None,
    mailbox: Path = MAILBOX,
) -> Delivery:
    """Return what delivers; everything that can be wrong before the first mail is found here.

    Raises:
        ConfigurationError: AUTH_MAIL_TRANSPORT is none, or what it needs is missing or cannot be used.
        ServiceUnavailable: a secret cannot be fetched now.
    """
    send = _open_transport(settings, fetch_secret, mailbox)
    return Delivery(database, Composer(settings, one_time_secrets).compose, send)


def open_webhook_delivery(settings: Settings, database: Database, secret_keys: SecretKeys) -> WebhookDelivery:
    """Return what posts to public addresses, and to the networks that the settings allow."""
    return WebhookDelivery(database, secret_keys, Outbound(settings.webhook_networks).post)


def _open_transport(settings: Settings, fetch_secret: Callable[[str], str] | None, mailbox: Path) -> Send:
    if settings.mail_transport == "mailbox":
        return Mailbox(mailbox).keep
    if settings.mail_transport == "ses":
        return open_ses()
    if settings.mail_transport == "smtp":
        return _open_smtp(settings, fetch_secret)
    raise ConfigurationError("AUTH_MAIL_TRANSPORT is none: nothing can send mail")


def _open_smtp(settings: Settings, fetch_secret: Callable[[str], str] | None) -> Send:
    """Follow the secret: a password that is rotated there is used within minutes."""
    read = partial(smtp.parse_url, local=settings.is_local)
    url = settings.smtp_url.get_secret_value()
    if url:
        return partial(smtp.send, read(url))
    if fetch_secret is None:
        raise ConfigurationError("AUTH_SMTP_URL_SECRET_ARN: secrets cannot be read here")
    server = CachedSecret(partial(fetch_secret, settings.smtp_url_secret_arn), read)

    def send(email: Email) -> None:
        smtp.send(server.get(), email)

    return send

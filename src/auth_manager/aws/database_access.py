"""How to log in to the database: a URL, a secret that has one, or RDS IAM authentication.

An RDS-managed secret has a user and a password, and often no address: AUTH_DATABASE_URL is its template then.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from auth_manager.aws.signature_v4 import environment_credentials, rds_token
from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError, ServiceUnavailable
from auth_manager.settings import Settings

_DEFAULT_PORT = 5432


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """The URL for a new connection; after a refusal, the URL for another try (None: the same)."""

    url: Callable[[], str]
    renewed_url: Callable[[], str] | None = None


def open_database_url(settings: Settings, fetch_secret: Callable[[str], str] | None = None) -> DatabaseUrl:
    """Find out where the URL comes from.

    A password in AUTH_DATABASE_URL wins over a secret, so that a laptop needs nothing but a variable.

    Raises:
        ConfigurationError: the secret has no URL, or IAM authentication lacks what it needs.
        ServiceUnavailable: the secret cannot be fetched now.
    """
    template = settings.database_url.get_secret_value()
    if settings.database_secret_arn and not _split(template).password:
        if fetch_secret is None:
            raise ConfigurationError("AUTH_DATABASE_SECRET_ARN: secrets cannot be read here")
        secret = CachedSecret(
            lambda: fetch_secret(settings.database_secret_arn),
            lambda text: read_database_secret(text, template),
        )
        source = DatabaseUrl(secret.get, secret.refresh)
    else:
        source = DatabaseUrl(lambda: template)
    if not settings.database_iam:
        return source
    require_verified_tls(source.url())
    return DatabaseUrl(lambda: with_iam_token(source.url(), datetime.now(UTC)))


def read_database_secret(text: str, template: str) -> str:
    """Return the URL of a secret: its text, or the JSON members of an RDS secret put into `template`.

    Raises:
        ConfigurationError: never with what the secret says.
    """
    if text.startswith(("postgres://", "postgresql://")):
        return text.strip()
    try:
        members: dict[str, Any] = json.loads(text)
        user, password = str(members["username"]), str(members["password"])
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            "AUTH_DATABASE_SECRET_ARN: neither a URL nor username and password"
        ) from None
    base = _split(template or "postgresql://")
    host, port = members.get("host") or base.hostname, members.get("port") or base.port or _DEFAULT_PORT
    name = members.get("dbname") or base.path.lstrip("/")
    if not host or not name:
        raise ConfigurationError(
            "AUTH_DATABASE_SECRET_ARN: no host and dbname in it, and none in AUTH_DATABASE_URL"
        )
    address = f"{_login(user, password)}@{host}:{port}"
    return base._replace(netloc=address, path=f"/{quote(str(name), safe='')}").geturl()


def require_verified_tls(url: str) -> None:
    """Refuse to send an IAM token, which is a password, to a server that nobody checked.

    Raises:
        ConfigurationError: the URL has no user and host, or another sslmode than verify-full.
    """
    parts = _split(url)
    if not parts.username or not parts.hostname:
        raise ConfigurationError("AUTH_DATABASE_IAM: AUTH_DATABASE_URL needs a user and a host")
    if parse_qs(parts.query).get("sslmode") != ["verify-full"]:
        raise ConfigurationError("AUTH_DATABASE_IAM: AUTH_DATABASE_URL needs sslmode=verify-full")


def with_iam_token(url: str, now: datetime) -> str:
    """Return the URL with a token as its password, which RDS takes for 15 minutes.

    Raises:
        ServiceUnavailable: there are no credentials to sign one.
    """
    parts = _split(url)
    user, host, port = unquote(parts.username or ""), parts.hostname or "", parts.port or _DEFAULT_PORT
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    credentials = environment_credentials()
    if credentials is not None:
        token = rds_token(host=host, port=port, user=user, region=region, credentials=credentials, now=now)
    else:
        token = _token_of_boto3(host, port, user, region)
    return parts._replace(netloc=f"{_login(user, token)}@{host}:{port}").geturl()


def _token_of_boto3(host: str, port: int, user: str, region: str) -> str:
    import boto3  # noqa: PLC0415 -- where credentials are not in the environment
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        client: Any = boto3.client("rds", region_name=region or None)
        return str(client.generate_db_auth_token(host, port, user))
    except BotoCoreError as error:
        raise ServiceUnavailable("A database token could not be signed.") from error


def _login(user: str, password: str) -> str:
    return f"{quote(user, safe='')}:{quote(password, safe='')}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # checked only when it is read
    except ValueError:
        raise ConfigurationError("AUTH_DATABASE_URL is no URL") from None
    return parts

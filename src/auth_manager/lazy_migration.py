"""Lazy migration: at the first login of an imported account without a hash, its former system is asked.

The callback is a POST, signed like a Standard Webhook, of a JSON object with `user_id`, `email`, `username`
and `password`. 204 says that the password is right; 401, 403 and 404 that it is not. Any other answer, or
none within DEADLINE, says nothing: then the login is answered with 503, never with 401.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from ipaddress import ip_network
from uuid import UUID

from auth_manager import standard_webhooks
from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError, FormerSystemUnavailable
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.settings import Settings

DEADLINE = 3.0
"""Seconds for one question, all included; whoever logs in waits for it."""

RIGHT = frozenset({HTTPStatus.NO_CONTENT})
"""And not 200, which a proxy, or a page for lost visitors, says of anything."""

WRONG = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})

_EVERYWHERE = tuple(map(ip_network, ("0.0.0.0/0", "::/0")))
"""The URL is the operator's own: their former system may well be in a private network."""


@dataclass(frozen=True, slots=True)
class FormerUser:
    """Whose password is asked about."""

    id: UUID
    email: str
    username: str | None


CheckElsewhere = Callable[[FormerUser, str], bool]
"""Tells whether the former system takes the password; raises FormerSystemUnavailable: it does not say."""


def open_callback(settings: Settings, fetch_secret: Callable[[str], str] | None) -> CheckElsewhere:
    """Return what asks AUTH_LAZY_MIGRATION_URL.

    Raises:
        ConfigurationError: the secret is none, or cannot be read here.
        ServiceUnavailable: it cannot be fetched now.
    """
    from auth_manager.outbound_http import Outbound  # noqa: PLC0415 -- only where configured

    secret = _open_secret(settings, fetch_secret)
    post = Outbound(allowed_networks=_EVERYWHERE, deadline=DEADLINE).post
    return partial(_ask, post, settings.lazy_migration_url, secret)


def _ask(
    post: Callable[..., object], url: str, secret: CachedSecret[str], user: FormerUser, password: str
) -> bool:
    from auth_manager.outbound_http import CannotPost  # noqa: PLC0415 -- as above

    person = {"user_id": str(user.id), "email": user.email, "username": user.username}
    body = json.dumps({**person, "password": password}).encode()
    headers = standard_webhooks.headers([secret.get()], str(new_id()), datetime.now(UTC), body)
    try:
        answer = post(url, {"Content-Type": "application/json", **headers}, body)
    except CannotPost as error:
        raise unavailable(error.reason) from None
    status = getattr(answer, "status", 0)
    if status in RIGHT:
        return True
    if status in WRONG:
        return False
    raise unavailable(f"status_{status}")


def unavailable(reason: str) -> FormerSystemUnavailable:
    """Count and log that a former system gave no answer, and return the error that says so."""
    count("lazy_migration_unavailable")
    log_event("lazy_migration_unavailable", reason=reason)
    return FormerSystemUnavailable()


def _open_secret(settings: Settings, fetch_secret: Callable[[str], str] | None) -> CachedSecret[str]:
    plain = settings.lazy_migration_secret.get_secret_value()
    if plain:
        return CachedSecret.fixed(_read_secret(plain))
    if fetch_secret is None:
        raise ConfigurationError("AUTH_LAZY_MIGRATION_SECRET_ARN: secrets cannot be read here")
    return CachedSecret(partial(fetch_secret, settings.lazy_migration_secret_arn), _read_secret)


def _read_secret(text: str) -> str:
    try:
        standard_webhooks.parse_secret(text.strip())
    except ValueError as error:
        raise ConfigurationError(f"AUTH_LAZY_MIGRATION_SECRET: {error}") from None
    return text.strip()

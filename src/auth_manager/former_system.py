"""The former system of imported accounts, behind a callback of the operator's (lazy_migration).

It is a POST, signed like a Standard Webhook, of a JSON object with `user_id`, `email`, `username` and
`password`. 204 says that the password is right; 401, 403 and 404 that it is not. Any other answer, or none
within DEADLINE, says nothing: then the login is answered with 503, never with 401.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from ipaddress import ip_network

from auth_manager import standard_webhooks
from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError
from auth_manager.ids import new_id
from auth_manager.lazy_migration import DEADLINE, CheckElsewhere, FormerUser, unavailable
from auth_manager.outbound_http import CannotPost, Outbound
from auth_manager.settings import Settings

RIGHT = frozenset({HTTPStatus.NO_CONTENT})
"""And not 200, which a proxy, or a page for lost visitors, says of anything."""

WRONG = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})

_EVERYWHERE = tuple(map(ip_network, ("0.0.0.0/0", "::/0")))
"""The URL is the operator's own: their former system may well be in a private network."""


def open_callback(settings: Settings, fetch_secret: Callable[[str], str] | None) -> CheckElsewhere:
    """Return what asks AUTH_LAZY_MIGRATION_URL.

    Raises:
        ConfigurationError: the secret is none, or cannot be read here.
        ServiceUnavailable: it cannot be fetched now.
    """
    outbound = Outbound(allowed_networks=_EVERYWHERE, deadline=DEADLINE)
    return partial(_ask, outbound, settings.lazy_migration_url, _open_secret(settings, fetch_secret))


def _ask(outbound: Outbound, url: str, secret: CachedSecret[str], user: FormerUser, password: str) -> bool:
    person = {"user_id": str(user.id), "email": user.email, "username": user.username}
    body = json.dumps({**person, "password": password}).encode()
    headers = standard_webhooks.headers([secret.get()], str(new_id()), datetime.now(UTC), body)
    try:
        status = outbound.post(url, {"Content-Type": "application/json", **headers}, body).status
    except CannotPost as error:
        raise unavailable(error.reason) from None
    if status in RIGHT:
        return True
    if status in WRONG:
        return False
    raise unavailable(f"status_{status}")


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

"""Our own HMAC secrets, and the key of each purpose: what is sealed for one purpose opens for no other.

The first secret signs and all of them verify, so that they can be rotated. Those of Secrets Manager are
followed while the process runs.
"""

import functools
import hmac
import json
from collections.abc import Callable, Sequence

from pydantic import SecretStr

from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError
from auth_manager.settings import Settings, refuse_local_secrets, refuse_weak_secrets

_ARN = "AUTH_SECRET_KEYS_SECRET_ARN"
_HASH_BYTES = 32


def derive_key(secret: bytes, purpose: str) -> bytes:
    """Return the 32-byte key of one purpose: HKDF-SHA256 without salt, `purpose` as info (RFC 5869).

    HKDF and not a plain HMAC, because it also takes secrets that are not uniformly random bytes, and ours are
    text. Spelled out, because for one block it is two lines of the standard library.
    """
    pseudorandom_key = hmac.digest(bytes(_HASH_BYTES), secret, "sha256")
    return hmac.digest(pseudorandom_key, purpose.encode() + b"\x01", "sha256")


class SecretKeys:
    """The secrets of now, and the keys derived from them, each once."""

    def __init__(self, secrets: Sequence[SecretStr] | CachedSecret[tuple[SecretStr, ...]]) -> None:
        if not secrets:
            raise ValueError("at least one secret is needed")
        self._secrets = (
            secrets
            if isinstance(secrets, CachedSecret)
            else CachedSecret[tuple[SecretStr, ...]].fixed(tuple(secrets))
        )
        self._derived: tuple[tuple[SecretStr, ...], dict[str, tuple[bytes, ...]]] = ((), {})

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """Return the keys of one purpose as they are now, 32 bytes each, the one that signs first."""
        secrets = self._secrets.get()
        known, derived = self._derived
        if known is not secrets:
            derived = {}
            self._derived = secrets, derived
        if purpose not in derived:
            derived[purpose] = tuple(derive_key(key.get_secret_value().encode(), purpose) for key in secrets)
        return derived[purpose]

    def sign(self, purpose: str, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of a message for one purpose, 32 bytes."""
        return hmac.digest(self.derive(purpose)[0], message, "sha256")

    def verifies(self, purpose: str, message: bytes, mac: bytes) -> bool:
        """Tell whether one of the secrets made an HMAC, if need be one that is younger than those we know.

        Another process may sign with that already. `CachedSecret.refresh` bounds how often a forger makes us
        ask.
        """
        known = self.derive(purpose)
        if _made_by(known, message, mac):
            return True
        return _made_by(self.derive_younger(purpose), message, mac)

    def derive_younger(self, purpose: str) -> tuple[bytes, ...]:
        """Return the keys of one purpose if there are younger secrets than those we knew; none otherwise."""
        known = self.derive(purpose)
        self._secrets.refresh()
        younger = self.derive(purpose)
        return () if younger is known else younger


def open_secret_keys(settings: Settings, fetch_secret: Callable[[str], str] | None = None) -> SecretKeys:
    """Return AUTH_SECRET_KEYS, or what its secret has: keys separated by commas, or {"keys": [...]}.

    Raises:
        ConfigurationError: they are missing, weak, or made for a laptop; never with a key.
        ServiceUnavailable: the secret cannot be fetched now.
    """
    if settings.secret_keys:
        return SecretKeys(settings.secret_keys)
    if fetch_secret is None:
        raise ConfigurationError(f"{_ARN}: secrets cannot be read here")
    return SecretKeys(
        CachedSecret(
            functools.partial(fetch_secret, settings.secret_keys_secret_arn),
            functools.partial(_read, local=settings.is_local),
        )
    )


def _read(text: str, *, local: bool) -> tuple[SecretStr, ...]:
    try:
        listed = json.loads(text)["keys"] if text.lstrip().startswith("{") else text.split(",")
        keys = tuple(SecretStr(key.strip()) for key in listed if key.strip())
        refuse_weak_secrets(keys)
        if not local:
            refuse_local_secrets(keys)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise ConfigurationError(f'{_ARN}: neither keys separated by commas nor {{"keys": [...]}}') from None
    except ValueError as error:
        raise ConfigurationError(f"{_ARN}: {error}") from None
    if not keys:
        raise ConfigurationError(f"{_ARN}: there is no key in it")
    return keys


def _made_by(keys: Sequence[bytes], message: bytes, mac: bytes) -> bool:
    return any(hmac.compare_digest(hmac.digest(key, message, "sha256"), mac) for key in keys)

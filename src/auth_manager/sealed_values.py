"""Values that we must read again, such as TOTP secrets: encrypted with keys that the database does not have.

Envelope encryption. Each value has a random data key of its own, which encrypts it (AES-256-GCM) and is
itself wrapped (AES key wrap, RFC 3394) by the key that the first of AUTH_SECRET_KEYS gives for the purpose.
Any of them unwraps, and `rewrap` moves a value to the first, so that an old one can be retired.

A sealed value is a version (1 byte), the wrapped data key (40), a nonce (12), the ciphertext, its tag (16).
"""

import os
from collections.abc import Sequence

from auth_manager.secret_keys import SecretKeys

_VERSION = b"\x01"
_DATA_KEY_BYTES = 32
_NONCE_BYTES = 12
_NONCE_AT = 1 + _DATA_KEY_BYTES + 8
_CONTENT_AT = _NONCE_AT + _NONCE_BYTES


class CannotOpen(Exception):
    """No key of AUTH_SECRET_KEYS opens this: it was changed, belongs elsewhere, or its key was retired."""


def seal(secret_keys: SecretKeys, purpose: str, value: bytes, *, bound_to: bytes) -> bytes:
    """Encrypt a value.

    Args:
        secret_keys: of now.
        purpose: what it is; it opens for no other.
        value: in clear.
        bound_to: whose it is, as the id of the account: in the row of another one it does not open.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 -- not on the usual path

    data_key, nonce = os.urandom(_DATA_KEY_BYTES), os.urandom(_NONCE_BYTES)
    content = AESGCM(data_key).encrypt(nonce, value, _VERSION + bound_to)
    return _VERSION + _wrap(secret_keys, purpose, data_key) + nonce + content


def open_value(secret_keys: SecretKeys, purpose: str, sealed: bytes, *, bound_to: bytes) -> bytes:
    """Return the value in clear.

    Raises:
        CannotOpen: for every reason alike.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 -- not on the usual path
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 -- likewise

    data_key = _unwrap(secret_keys, purpose, sealed)
    nonce, content = sealed[_NONCE_AT:_CONTENT_AT], sealed[_CONTENT_AT:]
    try:
        return AESGCM(data_key).decrypt(nonce, content, _VERSION + bound_to)
    except (InvalidTag, ValueError):
        raise CannotOpen from None


def is_current(secret_keys: SecretKeys, purpose: str, sealed: bytes) -> bool:
    """Tell whether the first key wrapped it."""
    return _unwrap_with(secret_keys.derive(purpose)[:1], sealed) is not None


def rewrap(secret_keys: SecretKeys, purpose: str, sealed: bytes) -> bytes:
    """Return the same value with its data key wrapped by the first key.

    Raises:
        CannotOpen: no key unwraps it.
    """
    data_key = _unwrap(secret_keys, purpose, sealed)
    return _VERSION + _wrap(secret_keys, purpose, data_key) + sealed[_NONCE_AT:]


def _wrap(secret_keys: SecretKeys, purpose: str, data_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap  # noqa: PLC0415 -- not on the usual path

    return aes_key_wrap(secret_keys.derive(purpose)[0], data_key)


def _unwrap(secret_keys: SecretKeys, purpose: str, sealed: bytes) -> bytes:
    """Return the data key, if need be by a key that is younger than those we know."""
    data_key = _unwrap_with(secret_keys.derive(purpose), sealed)
    if data_key is None:
        data_key = _unwrap_with(secret_keys.derive_younger(purpose), sealed)
    if data_key is None:
        raise CannotOpen
    return data_key


def _unwrap_with(keys: Sequence[bytes], sealed: bytes) -> bytes | None:
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap  # noqa: PLC0415 -- likewise

    if len(sealed) < _CONTENT_AT or sealed[:1] != _VERSION:
        return None
    for key in keys:
        try:
            return aes_key_unwrap(key, sealed[1:_NONCE_AT])
        except InvalidUnwrap:
            continue
    return None

"""Signatures of the Standard Webhooks specification, version 1, with shared secrets (HMAC-SHA256).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hmac
import secrets as randomness
from collections.abc import Sequence
from datetime import datetime

SECRET_PREFIX = "whsec_"  # noqa: S105 -- what a secret begins with
MINIMUM_SECRET_BYTES = 24
MAXIMUM_SECRET_BYTES = 64
_GENERATED_BYTES = 32


def generate_secret() -> str:
    """Return a new secret: `whsec_` and 32 random bytes in base64."""
    return SECRET_PREFIX + base64.b64encode(randomness.token_bytes(_GENERATED_BYTES)).decode()


def parse_secret(secret: str) -> bytes:
    """Return the key of a secret.

    Raises:
        ValueError: it is not `whsec_` and the base64 of 24 to 64 bytes; the message does not quote it.
    """
    try:
        if not secret.startswith(SECRET_PREFIX):
            raise ValueError  # noqa: TRY301 -- one message for all that it is not
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not MINIMUM_SECRET_BYTES <= len(key) <= MAXIMUM_SECRET_BYTES:
        raise ValueError("a webhook secret is whsec_ and the base64 of 24 to 64 random bytes")
    return key


def sign(secret: str, message_id: str, timestamp: datetime, body: bytes) -> str:
    """Return `v1,` and the base64 signature of a message.

    Args:
        secret: as `generate_secret` makes it.
        message_id: the same at each attempt; without a full stop.
        timestamp: of this attempt; whole seconds count.
        body: exactly as it is sent.

    Raises:
        ValueError: the secret is none.
    """
    signed = f"{message_id}.{int(timestamp.timestamp())}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(parse_secret(secret), signed, "sha256")).decode()


def headers(secrets: Sequence[str], message_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers of a message, signed with every secret that is live."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(timestamp.timestamp())),
        "webhook-signature": " ".join(sign(secret, message_id, timestamp, body) for secret in secrets),
    }

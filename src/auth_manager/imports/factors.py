"""The second factors of an imported user, as our own export writes them: nobody loses theirs by moving."""

import base64
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from auth_manager.imports.refusals import Refused
from auth_manager.imports.times import parse_time

_BASE32 = re.compile(r"[A-Z2-7]{23,128}")
"""112 bits or more: of less pyotp makes no code (RFC 4226 section 4, R6, asks for 128)."""
_MOST = 100
"""Passkeys, or recovery codes, of one account."""
_IDENTIFIER_BYTES = 1023
"""Of a credential id (W3C Web Authentication Level 3, section 4); an index of PostgreSQL takes 2,704."""
_KEY_BYTES = 3072
"""A public key of the largest kind has 1.5 KB."""


class TotpSecret(NamedTuple):
    """An authenticator app that was confirmed."""

    secret: str
    confirmed_at: str
    last_step: int | None


class Factors(NamedTuple):
    """What one account has; passkeys and recovery codes as rows for jsonb_to_recordset, bytes in hex."""

    totp: TotpSecret | None = None
    passkeys: tuple[Mapping[str, Any], ...] = ()
    recovery_codes: tuple[Mapping[str, Any], ...] = ()


NO_FACTORS = Factors()


def check_factors(value: object) -> Factors:
    """Read the member `factors` (docs/migrating.md).

    Raises:
        Refused: it is not as documented. An account without a factor that it had would be less safe than
            before, so the whole record is refused.
    """
    try:
        if not isinstance(value, dict) or not value.keys() <= {"totp", "passkeys", "recovery_codes"}:
            raise ValueError  # noqa: TRY301 -- one refusal for all that it is not
        totp = value.get("totp")
        return Factors(
            totp=_totp(totp) if totp else None,
            passkeys=tuple(map(_passkey, _list(value.get("passkeys")))),
            recovery_codes=tuple(map(_recovery_code, _list(value.get("recovery_codes")))),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise Refused("factors_invalid", "`factors` is not as an export writes it.") from None


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MOST:
        raise ValueError
    return value


def _totp(value: Mapping[str, Any]) -> TotpSecret:
    secret, step = value["secret"], value.get("last_step")
    if not _BASE32.fullmatch(secret) or not (step is None or (type(step) is int and 0 <= step < 1 << 62)):
        raise ValueError
    base64.b32decode(secret + "=" * (-len(secret) % 8))  # which not every length is of
    return TotpSecret(secret, _time(value["confirmed_at"]), step)


def _passkey(value: Mapping[str, Any]) -> Mapping[str, Any]:
    flags = {name: value[name] for name in ("user_verified", "backup_eligible", "backed_up")}
    transports, count = value["transports"], value["sign_count"]
    if any(type(flag) is not bool for flag in flags.values()):
        raise ValueError
    if type(count) is not int or not 0 <= count < 1 << 32:
        raise ValueError
    if not isinstance(transports, list):
        raise TypeError
    return {
        "id": str(UUID(value["id"]) if value.get("id") else uuid4()),
        "credential_id": _bytes(value["credential_id"], _IDENTIFIER_BYTES),
        "public_key": _bytes(value["public_key"], _KEY_BYTES),
        "sign_count": count,
        "name": _text(value["name"]),
        "transports": [_text(transport) for transport in transports],
        "aaguid": str(UUID(value["aaguid"])),
        "attestation_format": _text(value["attestation_format"]),
        "created_at": _time(value["created_at"]),
        "last_used_at": _time(value["last_used_at"]) if value.get("last_used_at") else None,
        **flags,
    }


def _recovery_code(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "code_hash": _bytes(value["code_hash"], _IDENTIFIER_BYTES),
        "salt": _bytes(value["salt"], _IDENTIFIER_BYTES),
        "created_at": _time(value["created_at"]),
    }


def _bytes(value: str, maximum: int) -> str:
    """Return base64url, with or without its padding, as hexadecimal digits."""
    data = base64.b64decode(value + "=" * (-len(value) % 4), altchars="-_", validate=True)
    if not 0 < len(data) <= maximum:
        raise ValueError
    return data.hex()


def _text(value: str) -> str:
    if "\0" in value or len(value) > 256:  # noqa: PLR2004 -- names have 64
        raise ValueError
    value.encode()
    return value


def _time(value: str) -> str:
    return parse_time(value).isoformat()

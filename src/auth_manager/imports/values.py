"""How other systems write what the normal form has: flags, times, names, base64."""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from auth_manager.imports.record import LOCALE
from auth_manager.imports.refusals import Refused

_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0", ""})


def flag(value: object, name: str) -> bool | None:
    """Read a flag: of JSON, or a word of CSV; None where there is none.

    Raises:
        Refused: it is neither.
    """
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise Refused(f"{name}_invalid", f"`{name}` is neither true nor false.")
    return word in _TRUE


def milliseconds(value: object, name: str) -> str | None:
    """Read milliseconds since 1970, as a number or in digits."""
    return _since_epoch(value, name, 1000) if value is not None else None


def seconds(value: object, name: str) -> str | None:
    """Read seconds since 1970, as a number or in digits."""
    return _since_epoch(value, name, 1) if value is not None else None


def _since_epoch(value: object, name: str, unit: int) -> str:
    try:
        return datetime.fromtimestamp(float(str(value)) / unit, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise Refused(f"{name}_invalid", f"`{name}` is no time.") from None


def time_of_database(value: object) -> object:
    """Return what SQL databases, and Rails, write of a time as RFC 3339; MySQL's time of zeros is none."""
    if not isinstance(value, str):
        return value
    if value.startswith("0000-00-00"):
        return None
    return value.removesuffix(" UTC")


def locale(value: object) -> str | None:
    """Return `fr_FR` as the language tag `fr-FR`; None for what is no tag, which nobody would miss."""
    if not isinstance(value, str):
        return None
    tag = value.replace("_", "-")
    return tag if LOCALE.fullmatch(tag) else None


def full_name(first: object, last: object) -> str | None:
    """Return the parts of a name as one."""
    return " ".join(part for part in (first, last) if isinstance(part, str) and part) or None


def own_username(username: object, email: object) -> object:
    """Return a username, None for one that is nothing but the address, by which its owner signs in anyway."""
    same = isinstance(username, str) and isinstance(email, str) and username.lower() == email.lower()
    return None if same or username == "" else username


def json_object(value: object, name: str) -> Mapping[str, Any] | None:
    """Read an object that stands as text in a column.

    Raises:
        Refused: it is none.
    """
    if value is None or isinstance(value, dict):
        return value
    try:
        found = json.loads(str(value))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"{name}_invalid", f"`{name}` is no JSON object.")
    return found


def adapted_base64(data: bytes) -> str:
    """Return bytes in passlib's base64: with `.` for `+`, without padding."""
    return base64.b64encode(data).decode().rstrip("=").replace("+", ".")


def plain_base64(text: object) -> str:
    """Return base64 of either alphabet as the usual one, padded.

    Raises:
        Refused: it is none.
    """
    try:
        usual = str(text).rstrip("=").replace("-", "+").replace("_", "/")
        data = base64.b64decode(usual + "=" * (-len(usual) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("password_hash_refused", "The password hash is not base64.") from None
    return base64.b64encode(data).decode()

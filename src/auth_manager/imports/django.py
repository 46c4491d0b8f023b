"""Django: `manage.py dumpdata auth.user`, or the table auth_user as CSV.

https://docs.djangoproject.com/en/stable/ref/django-admin/#dumpdata and /topics/auth/passwords/
"""

import base64
from collections.abc import Mapping
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import read_csv_or_json
from auth_manager.imports.refusals import Refused
from auth_manager.passwords import UNUSABLE_HASH

read = read_csv_or_json("item")

_SCRYPT_DIGEST = 32


def convert(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form; groups and permissions stay behind."""
    user = record
    if "fields" in record:
        if not str(record.get("model")).lower().endswith("user") or not isinstance(record["fields"], dict):
            raise Refused("not_a_user", "The record is of another model than users.")
        user = record["fields"]
    username = user.get("username")
    email = user.get("email") or (username if isinstance(username, str) and "@" in username else None)
    return {
        "email": email,
        "username": values.own_username(username, email),
        "display_name": values.full_name(user.get("first_name"), user.get("last_name")),
        "disabled": values.flag(user.get("is_active"), "disabled") is False,
        "created_at": values.time_of_database(user.get("date_joined")),
        "password_hash": _hash(user.get("password")),
    }


def _hash(password: object) -> object:
    if not isinstance(password, str) or not password:
        return None
    if password.startswith("!"):  # set_unusable_password: "!" and random characters
        return UNUSABLE_HASH
    return _scrypt(password) if password.startswith("scrypt$") else password


def _scrypt(password: str) -> str:
    """Return `scrypt$N$salt$r$p$hash` as passlib writes it.

    Django derives 64 bytes and passlib 32: they begin alike (RFC 7914 section 6 ends with PBKDF2).
    """
    try:
        _, n, salt, r, p, digest = password.split("$")
        work = int(n)
        if work.bit_count() != 1:
            raise ValueError  # noqa: TRY301 -- one refusal for all that it is not
        short = base64.b64decode(digest, validate=True)[:_SCRYPT_DIGEST]
        salted, digested = (base64.b64encode(data).decode().rstrip("=") for data in (salt.encode(), short))
    except ValueError:
        raise Refused("password_hash_refused", "The scrypt hash is not of Django's form.") from None
    return f"$scrypt$ln={work.bit_length() - 1},r={r},p={p}${salted}${digested}"

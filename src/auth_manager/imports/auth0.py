"""Auth0: the password hash export, NDJSON; also the users of its Management API, one a line or as a list.

https://support.auth0.com/center/s/article/How-to-Use-the-Password-Hashes-Export-from-Auth0
https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
"""

from collections.abc import Mapping
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import read_json

read = read_json("item")


def convert(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form. `app_metadata` stays behind: people may change `attributes` themselves."""
    email, verified = user.get("email"), user.get("email_verified")
    identifiers = user.get("identifiers")
    for identifier in identifiers if isinstance(identifiers, list) else ():
        if email is None and isinstance(identifier, dict) and identifier.get("type") == "email":
            email, verified = identifier.get("value"), identifier.get("verified")
    name = user.get("name") or values.full_name(user.get("given_name"), user.get("family_name"))
    return {
        "email": email,
        "email_verified": values.flag(verified, "email_verified"),
        "username": values.own_username(user.get("username"), email),
        "display_name": None if name == email else name,
        "locale": values.locale(user.get("locale")),
        "attributes": values.json_object(user.get("user_metadata"), "attributes"),
        "disabled": values.flag(user.get("blocked"), "disabled"),
        "created_at": _time(user.get("created_at")),
        "updated_at": _time(user.get("updated_at")),
        "password_hash": user.get("passwordHash") or user.get("password_hash") or _custom_hash(user),
    }


def _time(value: object) -> object:
    """Return a time that MongoDB's export may have wrapped."""
    return value.get("$date") if isinstance(value, dict) else value


def _custom_hash(user: Mapping[str, Any]) -> object:
    """Return the hash of a `custom_password_hash` that is one text: bcrypt, argon2, PBKDF2 in PHC form."""
    custom = user.get("custom_password_hash")
    found = custom.get("hash") if isinstance(custom, dict) else None
    return found.get("value") if isinstance(found, dict) else None

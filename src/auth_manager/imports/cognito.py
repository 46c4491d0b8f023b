"""Amazon Cognito: CSV with the columns of a user pool (its import template), or the answer of ListUsers.

There are no password hashes: the accounts wait for their owner's first login (lazy_migration).

https://docs.aws.amazon.com/cognito/latest/developerguide/cognito-user-pools-using-import-tool-csv-header.html
https://docs.aws.amazon.com/cognito-user-identity-pools/latest/APIReference/API_ListUsers.html
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from auth_manager.imports import values
from auth_manager.imports.reading import read_csv_or_json

read = read_csv_or_json("Users.item")

_CUSTOM = "custom:"


def convert(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form; `custom:` attributes become `attributes`, without that mark."""
    if "Username" in record:
        listed = record.get("Attributes") or record.get("UserAttributes") or []
        user: dict[str, Any] = {
            str(item.get("Name")): item.get("Value") for item in listed if isinstance(item, dict)
        }
        username, enabled = record.get("Username"), record.get("Enabled")
    else:
        user, username, enabled = dict(record), record.get("cognito:username"), None
    email = user.get("email")
    chosen = user.get("preferred_username") or (None if _is_id(username) else username)
    return {
        "email": email,
        "email_verified": values.flag(user.get("email_verified"), "email_verified"),
        "username": values.own_username(chosen, email),
        "display_name": user.get("name") or values.full_name(user.get("given_name"), user.get("family_name")),
        "locale": values.locale(user.get("locale")),
        "attributes": {
            name.removeprefix(_CUSTOM): value
            for name, value in user.items()
            if name.startswith(_CUSTOM) and value
        },
        "disabled": values.flag(enabled, "disabled") is False,
        "created_at": _time(record.get("UserCreateDate"), "created_at"),
        "updated_at": _time(record.get("UserLastModifiedDate"), "updated_at"),
    }


def _is_id(username: object) -> bool:
    """Tell whether the pool made the name up: a UUID, or who it is at another provider (`google_1234`)."""
    try:
        UUID(str(username))
    except ValueError:
        return False
    return True


def _time(value: object, name: str) -> object:
    """Return a time: the API writes seconds, the command line ISO 8601."""
    return values.seconds(value, name) if isinstance(value, int | float) else value

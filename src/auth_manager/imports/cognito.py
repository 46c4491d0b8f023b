"""Amazon Cognito: CSV with the columns of a user pool (its import template), or the answer of ListUsers.

There are no password hashes: the accounts wait for their owner's first login (lazy_migration).

https://docs.aws.amazon.com/cognito/latest/developerguide/cognito-user-pools-using-import-tool-csv-header.html
https://docs.aws.amazon.com/cognito-user-identity-pools/latest/APIReference/API_ListUsers.html
"""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from auth_manager.imports import values
from auth_manager.imports.reading import read_csv_or_json
from auth_manager.imports.refusals import Refused

read = read_csv_or_json("Users.item")

_CUSTOM = "custom:"

_OF_ANOTHER_PROVIDER = "EXTERNAL_PROVIDER"
"""The status of those who sign in by federation, SAML and OIDC included; a CSV does not have it."""

_AT_A_PROVIDER = re.compile(
    r"(google|facebook)_[0-9]+|loginwithamazon_amzn1\..+|signinwithapple_[0-9a-f.]+", re.IGNORECASE
)
"""Names of the four providers that every pool calls alike, with the ids that these give."""


def convert(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form; `custom:` attributes become `attributes`, without that mark."""
    if "Username" in record:
        listed = record.get("Attributes") or record.get("UserAttributes") or []
        if not isinstance(listed, list):
            raise Refused("attributes_invalid", "`Attributes` is not a list.")
        user: dict[str, Any] = {
            str(item.get("Name")): item.get("Value") for item in listed if isinstance(item, dict)
        }
        username, enabled = record.get("Username"), record.get("Enabled")
    else:
        user, username, enabled = dict(record), record.get("cognito:username"), None
    email = user.get("email")
    made_up = record.get("UserStatus") == _OF_ANOTHER_PROVIDER or _is_id(username)
    chosen = user.get("preferred_username") or (None if made_up else username)
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
    """Tell whether the pool made the name up: a UUID, or who it is at another provider (`Google_1134`)."""
    if _AT_A_PROVIDER.fullmatch(str(username)):
        return True
    try:
        UUID(str(username))
    except ValueError:
        return False
    return True


def _time(value: object, name: str) -> object:
    """Return a time: the API writes seconds, the command line ISO 8601."""
    return values.seconds(value, name) if isinstance(value, int | float) else value

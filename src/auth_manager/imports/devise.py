"""Devise (Ruby on Rails): the table of users as CSV.

https://github.com/heartcombo/devise: `encrypted_password` is bcrypt. With a pepper (`config.pepper`) it is of
another secret than the password, and no login would match.
"""

from collections.abc import Mapping
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import read_csv as read

__all__ = ["convert", "read"]


def convert(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form; `locked_at` is passed over: a lock of Devise ends by itself or by mail."""
    email = user.get("email")
    return {
        "email": email,
        "email_verified_at": values.time_of_database(user.get("confirmed_at")),
        "username": values.own_username(user.get("username"), email),
        "display_name": user.get("name") or values.full_name(user.get("first_name"), user.get("last_name")),
        "locale": values.locale(user.get("locale")),
        "created_at": values.time_of_database(user.get("created_at")),
        "updated_at": values.time_of_database(user.get("updated_at")),
        "password_hash": user.get("encrypted_password"),
    }

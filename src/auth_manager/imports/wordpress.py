"""WordPress: the table wp_users as CSV, or `wp user list --format=json` with its columns.

https://developer.wordpress.org/cli/commands/user/list/; hashes: phpass, and bcrypt since 6.8
(https://make.wordpress.org/core/2025/02/17/wordpress-6-8-will-use-bcrypt-for-password-hashing/).
"""

from collections.abc import Mapping
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import read_csv_or_json

read = read_csv_or_json("item")


def convert(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form. WordPress does not say whether an address was proven; roles stay behind."""
    email = user.get("user_email")
    return {
        "email": email,
        "username": values.own_username(user.get("user_login"), email),
        "display_name": user.get("display_name") or None,
        "created_at": values.time_of_database(user.get("user_registered")),
        "password_hash": user.get("user_pass") or None,
    }

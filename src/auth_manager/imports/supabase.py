"""Supabase: the table auth.users as CSV with a header, as psql copies it: (SELECT * FROM auth.users).

https://supabase.com/docs/guides/auth/managing-user-data; the columns are those of GoTrue's migrations.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import read_csv as read
from auth_manager.imports.refusals import Refused

__all__ = ["convert", "read"]


def convert(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form; `raw_app_meta_data` stays behind, as with Auth0."""
    if user.get("deleted_at"):
        raise Refused("deleted", "The account was deleted there.")
    attributes = dict(values.json_object(user.get("raw_user_meta_data"), "attributes") or {})
    # What the providers of sign-ins said, and what the columns say better.
    for name in ("sub", "email", "email_verified", "phone_verified"):
        attributes.pop(name, None)
    return {
        "id": user.get("id"),
        "email": user.get("email"),
        "email_verified_at": user.get("email_confirmed_at"),
        "display_name": attributes.pop("full_name", None) or attributes.pop("name", None),
        "attributes": attributes,
        "disabled": _is_future(user.get("banned_until")),
        "created_at": user.get("created_at"),
        "updated_at": user.get("updated_at"),
        "password_hash": user.get("encrypted_password"),
    }


def _is_future(value: object) -> bool:
    """Tell whether a ban holds; Supabase writes the far future for one without an end."""
    if value is None:
        return False
    try:
        until = datetime.fromisoformat(str(value))
    except ValueError:
        return True
    return until.replace(tzinfo=until.tzinfo or UTC) > datetime.now(UTC)

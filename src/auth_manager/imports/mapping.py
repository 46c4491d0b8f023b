"""Any JSON or CSV: which of its members, or columns, is which of ours.

A mapping is a JSON object from our members (`attributes.plan` for one attribute) to where they are in the
record: the name of a member or column, a path of names with dots, or {"value": ...} for what all have in
common.
"""

from collections.abc import Callable, Mapping
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import parse_object
from auth_manager.imports.record import MEMBERS
from auth_manager.imports.refusals import Refused

Convert = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_FLAGS = ("email_verified", "disabled")
_ATTRIBUTE = "attributes."


def parse_mapping(text: bytes) -> Mapping[str, Any]:
    """Read a mapping.

    Raises:
        ValueError: it is not JSON, or names what we do not have.
    """
    found = parse_object(text)
    if isinstance(found, Refused):
        raise ValueError("it is no JSON object")  # noqa: TRY004 -- of the file, not of a type
    for member, place in found.items():
        if member not in MEMBERS and not member.startswith(_ATTRIBUTE):
            raise ValueError(f"there is no member {member}")
        if not isinstance(place, str) and not (isinstance(place, dict) and place.keys() == {"value"}):
            raise ValueError(f'the place of {member} is neither a name nor {{"value": ...}}')
    return found


def converter(mapping: Mapping[str, Any] | None, *, is_text: bool) -> Convert:
    """Return what makes the normal form.

    Args:
        mapping: None where the members have our names.
        is_text: the values are of CSV: flags are words, lists and objects stand in a column.
    """
    if mapping is None:
        return _read_text if is_text else _as_it_is

    def convert(record: Mapping[str, Any]) -> Mapping[str, Any]:
        user: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        for member, place in mapping.items():
            value = _find(record, place) if isinstance(place, str) else place["value"]
            if value is None:
                continue
            if member.startswith(_ATTRIBUTE):
                attributes[member.removeprefix(_ATTRIBUTE)] = value
            else:
                user[member] = value
        user = dict(_read_text(user))
        if attributes:
            user["attributes"] = {**(user.get("attributes") or {}), **attributes}
        return user

    return convert


def _as_it_is(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record


def _find(record: Mapping[str, Any], place: str) -> object:
    """Return what is at a name, or at a path of names; a name that has dots itself comes first."""
    if place in record:
        return record[place]
    value: object = record
    for name in place.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _read_text(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return members that may be text as the normal form has them."""
    user = dict(record)
    for name in _FLAGS:
        if name in user:
            user[name] = values.flag(user[name], name)
    for name in ("attributes", "factors"):
        if isinstance(user.get(name), str):
            user[name] = values.json_object(user[name], name)
    if isinstance(roles := user.get("roles"), str):
        user["roles"] = roles.replace(",", " ").replace(";", " ").split()
    return user

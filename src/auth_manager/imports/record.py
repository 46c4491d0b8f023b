"""The one normal form of an imported user, and what is checked of it: the rules of registration, and hashes.

The normal form is a JSON object; everything but `email` may be absent or null. Times are RFC 3339, in UTC
where they name no offset.

    id                  UUID; without one, a new UUIDv7 of the time the account was created
    email               as typed
    email_verified_at   when the address was proven; or `email_verified`, true or false
    username, display_name, locale, attributes
    roles               names; without this member the account gets the default roles
    disabled_at         since when it is disabled; or `disabled`, true or false
    created_at, updated_at
    password_hash       in a form that `Passwords.accepts`
    factors             {"totp": {"secret", "confirmed_at", "last_step"}, "passkeys": [...], "recovery_codes":
                        [...]}: see docs/migrating.md
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from auth_manager import account_roles
from auth_manager.accounts.service import MAXIMUM_ATTRIBUTES, attribute_errors
from auth_manager.identifiers import MAXIMUM_EMAIL, normalize_email, normalize_username
from auth_manager.imports.factors import NO_FACTORS, Factors, check_factors
from auth_manager.imports.refusals import Refused
from auth_manager.imports.times import parse_time
from auth_manager.passwords import UNUSABLE_HASH

MAXIMUM_DISPLAY_NAME = 200
MAXIMUM_USERNAME_AS_TYPED = 256
MAXIMUM_ATTRIBUTE_DEPTH = 31
"""One less than a request body has: there, `attributes` is one level down."""

LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
ROLE_NAME = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")

MEMBERS = frozenset(
    {
        "id", "email", "email_verified_at", "email_verified", "username", "display_name", "locale",
        "attributes", "roles", "disabled_at", "disabled", "created_at", "updated_at", "password_hash",
        "factors",
    }
)  # fmt: skip

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

_CLOCK_SKEW = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What most addresses and usernames look like: for these, the normal form is the lower case. Everything else
# takes the long way; a test holds the two together.
_PLAIN_EMAIL = re.compile(
    r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@"
    r"(?=[^@]{1,253}\Z)(?![^@]*--)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"(?!(?:arpa|invalid|local|localhost|onion|test)\Z)[a-z]{2,63}"
)
_PLAIN_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}[A-Za-z0-9]")


class ImportedUser(NamedTuple):
    """A user who may be stored, as PostgreSQL reads each column from text; None is NULL."""

    id: str
    email: str
    email_normalized: str
    email_verified_at: str | None
    username: str | None
    username_normalized: str | None
    display_name: str | None
    locale: str | None
    attributes: str
    password_hash: str
    disabled_at: str | None
    created_at: str
    updated_at: str
    roles: tuple[str, ...] | None
    factors: Factors


@dataclass(frozen=True, slots=True)
class Rules:
    """What the checks need to know of this deployment.

    `accepts_hash` is Passwords.accepts; `no_hash` stands for a hash that a user has not. A role outside
    `roles` is refused, unless `create_roles`; one of `administrative_roles` always: what another system calls
    an administrator is none of ours. `default_roles` do not count among those that one account may have.
    With `ignore_roles` everybody comes without, with `drop_usernames` who has one that is none here comes
    without it, and with `assume_verified` every address counts as proven.
    """

    now: datetime
    accepts_hash: Callable[[str], bool] = field(repr=False)
    roles: frozenset[str] = frozenset()
    administrative_roles: frozenset[str] = frozenset()
    default_roles: frozenset[str] = frozenset()
    create_roles: bool = False
    ignore_roles: bool = False
    drop_usernames: bool = False
    no_hash: str = UNUSABLE_HASH
    assume_verified: bool = False


def check(user: Mapping[str, Any], rules: Rules) -> ImportedUser:
    """Return what is stored for a user in the normal form.

    Raises:
        Refused: for the first reason that is found.
    """
    if not MEMBERS.issuperset(user):
        raise Refused("member_unknown", "The record has a member that the normal form does not know.")
    get = user.get
    email = _text(get("email"), "email", maximum=MAXIMUM_EMAIL)
    if email is None:
        raise Refused("email_missing", "The record has no e-mail address.")
    username, username_normalized = _username(get("username"), rules)
    created = _time(get("created_at"), "created_at", rules) or rules.now
    updated = _time(get("updated_at"), "updated_at", rules)
    verified = _time_or_flag(
        get("email_verified_at"), get("email_verified"), "email_verified", rules, created
    )
    if rules.assume_verified and verified is None:
        verified = created
    disabled = _time_or_flag(get("disabled_at"), get("disabled"), "disabled", rules, rules.now)
    locale = _text(get("locale"), "locale", maximum=35)
    if locale is not None and not LOCALE.fullmatch(locale):
        raise Refused("locale_invalid", "The locale is no BCP 47 language tag.")
    created_at = created.isoformat()
    attributes = get("attributes")
    factors = get("factors")
    return ImportedUser(
        id=_id(get("id"), created),
        email=email,
        email_normalized=_normalize_email(email),
        email_verified_at=verified.isoformat() if verified else None,
        username=username,
        username_normalized=username_normalized,
        display_name=_text(get("display_name"), "display_name", maximum=MAXIMUM_DISPLAY_NAME),
        locale=locale,
        attributes=_attributes(attributes) if attributes else "{}",
        password_hash=_password_hash(get("password_hash"), rules),
        disabled_at=disabled.isoformat() if disabled else None,
        created_at=created_at,
        updated_at=updated.isoformat() if updated else created_at,
        roles=None if rules.ignore_roles else _roles(get("roles"), rules),
        factors=check_factors(factors) if factors else NO_FACTORS,
    )


def _text(value: object, name: str, *, maximum: int) -> str | None:
    """Return a string that PostgreSQL can store, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refused(f"{name}_invalid", f"`{name}` is not a string.")
    if len(value) > maximum:
        raise Refused(f"{name}_too_long", f"`{name}` has over {maximum} characters.")
    _require_storable(value, name)
    return value


def _require_storable(value: str, name: str) -> None:
    if "\0" in value:
        raise Refused("nul_character", f"`{name}` contains NUL.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # from bytes that are not UTF-8, or from half of a pair in JSON
            raise Refused("not_utf8", f"`{name}` is no valid Unicode text.") from None


def _normalize_email(email: str) -> str:
    if len(email) <= MAXIMUM_EMAIL and _PLAIN_EMAIL.fullmatch(email):
        return email.lower()
    try:
        return normalize_email(email)
    except ValueError as error:
        raise Refused("email_invalid", str(error)) from None


def _username(value: object, rules: Rules) -> tuple[str | None, str | None]:
    """Return a username as typed and in the form that is unique."""
    try:
        username = _text(value, "username", maximum=MAXIMUM_USERNAME_AS_TYPED)
        return username, _normalize_username(username) if username is not None else None
    except Refused:
        if rules.drop_usernames:
            return None, None
        raise


def _normalize_username(username: str) -> str:
    if _PLAIN_USERNAME.fullmatch(username):
        return username.lower()
    try:
        return normalize_username(username)
    except ValueError as error:
        raise Refused("username_invalid", str(error)) from None


def _time(value: object, name: str, rules: Rules) -> datetime | None:
    """Read a time of the past."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refused(f"{name}_invalid", f"`{name}` is not a time as in RFC 3339.")
    try:
        moment = parse_time(value)
    except (ValueError, OverflowError):
        raise Refused(f"{name}_invalid", f"`{name}` is not a time as in RFC 3339.") from None
    if not _EPOCH <= moment <= rules.now + _CLOCK_SKEW:
        raise Refused(f"{name}_invalid", f"`{name}` is not between 1970 and now.")
    return moment


def _time_or_flag(
    value: object, flag: object, name: str, rules: Rules, when_flagged: datetime
) -> datetime | None:
    if value is not None:
        return _time(value, f"{name}_at", rules)
    if flag is None or flag is False:
        return None
    if flag is not True:
        raise Refused(f"{name}_invalid", f"`{name}` is neither true nor false.")
    return when_flagged


def _id(value: object, created: datetime) -> str:
    if value is None:
        return _new_id(created)
    if not isinstance(value, str):
        raise Refused("id_invalid", "`id` is not a UUID.")
    try:
        return UUID(value).hex
    except ValueError:
        raise Refused("id_invalid", "`id` is not a UUID.") from None


def _new_id(created: datetime) -> str:
    """Return a UUIDv7 (RFC 9562 section 5.7) of when the account was created, in hexadecimal digits.

    ids.new_id knows only now, and takes several times as long.
    """
    random = int.from_bytes(os.urandom(10))
    milliseconds = int(created.timestamp() * 1000)
    head = milliseconds << 80 | 7 << 76 | (random >> 62 & 0xFFF) << 64
    return f"{head | 2 << 62 | random & (1 << 62) - 1:032x}"


def _attributes(value: object) -> str:
    """Return JSON of at most 4 KiB, as registration takes it."""
    if not isinstance(value, dict):
        raise Refused("attributes_invalid", "`attributes` is not an object.")
    try:
        text = _encode(value)
        # Numbers with an exponent are written out by the database, which attribute_errors reckons with.
        is_plain = len(text.encode()) <= MAXIMUM_ATTRIBUTES and "e+" not in text and "e-" not in text
        wrong = [] if is_plain else attribute_errors(value)
    except (ValueError, TypeError, RecursionError):  # not finite, no JSON, or half of a surrogate pair
        raise Refused("attributes_invalid", "`attributes` is not JSON that can be stored.") from None
    if wrong:
        raise Refused("attributes_too_large", wrong[0].detail)
    if "\\u0000" in text:
        _require_no_nul(value)
    if text.count("{") + text.count("[") > MAXIMUM_ATTRIBUTE_DEPTH:
        _require_shallow(value, 1)
    return text


def _require_no_nul(value: object) -> None:
    if isinstance(value, str):
        _require_storable(value, "attributes")
    elif isinstance(value, dict):
        for key, item in value.items():
            _require_storable(key, "attributes")
            _require_no_nul(item)
    elif isinstance(value, list):
        for item in value:
            _require_no_nul(item)


def _require_shallow(value: object, depth: int) -> None:
    if not isinstance(value, dict | list):
        return
    if depth > MAXIMUM_ATTRIBUTE_DEPTH:
        raise Refused("attributes_invalid", f"`attributes` has over {MAXIMUM_ATTRIBUTE_DEPTH} levels.")
    for item in value.values() if isinstance(value, dict) else value:
        _require_shallow(item, depth + 1)


def _password_hash(value: object, rules: Rules) -> str:
    if value is None:
        return rules.no_hash
    if not isinstance(value, str) or not rules.accepts_hash(value):
        detail = "The password hash is of a form, or at a cost, that no login would evaluate."
        raise Refused("password_hash_refused", detail)
    return value


def _roles(value: object, rules: Rules) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(role, str) for role in value):
        raise Refused("roles_invalid", "`roles` is not a list of names.")
    for role in value:
        if not _is_role_name(role):
            raise Refused("role_invalid", "A role's name is not one that a role can have.")
        if not rules.create_roles and role not in rules.roles:
            raise Refused("role_unknown", f"There is no role {role}.")
        if role in rules.administrative_roles:
            raise Refused("role_administrative", f"The role {role} administers this service.")
    roles = dict.fromkeys(value)
    if len(roles) > account_roles.MAXIMUM and len(roles.keys() - rules.default_roles) > account_roles.MAXIMUM:
        raise Refused("too_many_roles", f"An account has at most {account_roles.MAXIMUM} roles.")
    return tuple(roles)


@lru_cache(maxsize=1024)
def _is_role_name(role: str) -> bool:
    return ROLE_NAME.fullmatch(role) is not None

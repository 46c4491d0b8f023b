"""Claims of a deployment's own in access tokens: of roles, and of attributes by AUTH_ATTRIBUTE_CLAIMS.

Both are data: a JSON value, and a JSON pointer (RFC 6901) to one. None of them may be, or look like, a claim
that says who the token is about, what it is good for or what was proven.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RESERVED = frozenset(
    {
        # RFC 7519 section 4.1 and RFC 9068 section 2.2, and what we add
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "auth_time", "acr", "amr"),
        *("sid", "roles", "permissions", "act", "may_act", "cnf"),
        # what other kinds of JWT say (OpenID Connect Core section 2, RFC 8417, RFC 9449)
        *("azp", "nonce", "at_hash", "c_hash", "s_hash", "events", "txn", "htm", "htu", "ath", "token_use"),
        # what is proven here, and would only be said by whoever wrote the attribute
        *("email", "email_verified", "phone_number", "phone_number_verified", "entitlements"),
    }
)
MAXIMUM_BYTES = 2048
"""Of all of them in one token, as JSON: a token must stay far below 8 KiB, which servers take in a header."""

MAXIMUM_LIST_BYTES = 1024
"""Of `roles`, and of `permissions`, in one token."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_:/.#?=&~+-]{0,127}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a token says besides our own claims; `left_out` names what did not fit."""

    roles: Sequence[str]
    permissions: Sequence[str]
    claims: Mapping[str, Any]
    left_out: Sequence[str]


def check_name(name: str) -> None:
    """Raise ValueError unless a claim may have this name."""
    if name in RESERVED:
        raise ValueError(f"the claim {name} is reserved")
    if not _NAME.fullmatch(name):
        raise ValueError("a claim's name is a letter, then at most 127 letters, digits and _:/.#?=&~+-")


def check_pointer(pointer: str) -> None:
    """Raise ValueError unless it is a JSON pointer (RFC 6901 section 3)."""
    if not _POINTER.fullmatch(pointer):
        raise ValueError("a JSON pointer is empty or begins with /, and has ~0 for ~ and ~1 for /")


def choose(
    *,
    roles: Sequence[str],
    permissions: Sequence[str],
    role_claims: Mapping[str, Any],
    attributes: Mapping[str, Any],
    attribute_claims: Mapping[str, str],
) -> Chosen:
    """Return what fits into a token. What a list loses is authority: nobody gets more by having too much.

    Args:
        roles: of the account.
        permissions: of its roles; none where tokens do not say them.
        role_claims: of its roles. They go before an attribute's, which whoever has the account may write.
        attributes: of the account.
        attribute_claims: names of claims, each with the pointer to its value.
    """
    found = {name: role_claims[name] for name in sorted(role_claims) if name not in RESERVED}
    for name, pointer in attribute_claims.items():
        value = _resolve(attributes, pointer)
        if value is not _ABSENT:
            found.setdefault(name, value)
    claims: dict[str, Any] = {}
    left_out: list[str] = []
    room = MAXIMUM_BYTES
    for name, value in found.items():
        size = len(json.dumps({name: value}, separators=(",", ":")))
        if size <= room:
            claims[name] = value
            room -= size
        else:
            left_out.append(name)
    fitting_roles, fitting_permissions = _fit(roles), _fit(permissions)
    if len(fitting_roles) < len(roles):
        left_out.append("roles")
    if len(fitting_permissions) < len(permissions):
        left_out.append("permissions")
    return Chosen(fitting_roles, fitting_permissions, claims, left_out)


_ABSENT = object()


def _resolve(document: object, pointer: str) -> object:
    """Return what a pointer means (RFC 6901 section 4), _ABSENT where there is nothing."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, Mapping) and key in document:
            document = document[key]
        elif isinstance(document, list) and _INDEX.fullmatch(key) and int(key) < len(document):
            document = document[int(key)]
        else:
            return _ABSENT
    return document


def _fit(names: Sequence[str]) -> Sequence[str]:
    """Return the first names that fit into MAXIMUM_LIST_BYTES; they are ASCII."""
    room = MAXIMUM_LIST_BYTES
    for index, name in enumerate(names):
        room -= len(name) + 3
        if room < 0:
            return names[:index]
    return names

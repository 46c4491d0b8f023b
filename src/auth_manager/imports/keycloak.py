"""Keycloak: a realm export with users (`kc.sh export --users same_file`), or its files of users alone.

https://www.keycloak.org/server/importExport; the credentials are those of its PasswordCredentialModel.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import list_reader
from auth_manager.imports.refusals import Refused

read = list_reader("users.item")

_OWN_ROLES = frozenset({"offline_access", "uma_authorization"})

_PBKDF2 = {
    "pbkdf2": ("pbkdf2", 20),
    "pbkdf2-sha256": ("pbkdf2-sha256", 32),
    "pbkdf2-sha512": ("pbkdf2-sha512", 64),
}
"""Keycloak's names: passlib's, and the length of one block. Keycloak derives 64 bytes with each of them; the
first block of PBKDF2 does not depend on how many follow (RFC 8018 section 5.2), so that block is kept."""


def convert(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form. Roles of clients and groups stay behind."""
    if user.get("serviceAccountClientId"):
        raise Refused("service_account", "This is the account of a client, not of a person.")
    email = user.get("email")
    attributes = dict(values.json_object(user.get("attributes"), "attributes") or {})
    language = attributes.pop("locale", None)
    listed = user.get("realmRoles") or []
    if not isinstance(listed, list):
        raise Refused("roles_invalid", "`realmRoles` is not a list of names.")
    roles = [
        role
        for role in listed
        if not isinstance(role, str) or (role not in _OWN_ROLES and not role.startswith("default-roles-"))
    ]
    return {
        "id": user.get("id"),
        "email": email,
        "email_verified": values.flag(user.get("emailVerified"), "email_verified"),
        "username": values.own_username(user.get("username"), email),
        "display_name": values.full_name(user.get("firstName"), user.get("lastName")),
        "locale": values.locale(language[0] if isinstance(language, list) and language else language),
        "attributes": {name: _only(value) for name, value in attributes.items()},
        "roles": roles or None,
        "disabled": values.flag(user.get("enabled"), "disabled") is False,
        "created_at": values.milliseconds(user.get("createdTimestamp"), "created_at"),
        "password_hash": _hash(user.get("credentials") or []),
    }


def _only(value: object) -> object:
    """Return the only value of an attribute: Keycloak has lists of each."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _hash(credentials: object) -> str | None:
    passwords = [
        credential
        for credential in (credentials if isinstance(credentials, list) else [])
        if isinstance(credential, dict) and credential.get("type") == "password"
    ]
    if not passwords:
        return None
    try:
        data = json.loads(passwords[0]["credentialData"])
        secret = json.loads(passwords[0]["secretData"])
        salt = base64.b64decode(secret["salt"], validate=True)
        digest = base64.b64decode(secret["value"], validate=True)
        algorithm, iterations = data["algorithm"], int(data["hashIterations"])
        if algorithm == "argon2":
            return _argon2(data["additionalParameters"], iterations, salt, digest)
        scheme, length = _PBKDF2[algorithm]
    except (KeyError, IndexError, TypeError, ValueError, RecursionError, OverflowError):
        raise Refused(
            "password_hash_refused", "The password credential is of a form that is not known."
        ) from None
    return f"${scheme}${iterations}${values.adapted_base64(salt)}${values.adapted_base64(digest[:length])}"


def _argon2(parameters: Mapping[str, list[str]], passes: int, salt: bytes, digest: bytes) -> str:
    """Return the PHC form (github.com/P-H-C/phc-string-format)."""
    version = {"1.0": 16, "1.3": 19}[parameters["version"][0]]
    kind, memory, lanes = (parameters[name][0] for name in ("type", "memory", "parallelism"))
    salted, digested = (base64.b64encode(data).decode().rstrip("=") for data in (salt, digest))
    return f"$argon2{kind}$v={version}$m={int(memory)},t={passes},p={int(lanes)}${salted}${digested}"

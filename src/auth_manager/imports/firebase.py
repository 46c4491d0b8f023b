"""Firebase: `firebase auth:export users.json`, and the hash parameters that its console shows.

https://firebase.google.com/docs/cli/auth
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from auth_manager.imports import values
from auth_manager.imports.reading import list_reader
from auth_manager.imports.refusals import Refused

read = list_reader("users.item")

_REDACTED = base64.b64encode(b"REDACTED").decode()
"""What stands for a hash where who exports may not read it (github.com/firebase/firebase-admin-node, 660)."""

_PARAMETER = re.compile(r"\"?(\w+)\"?\s*[:=]\s*\"?([^\s,\"]+)")


@dataclass(frozen=True, slots=True)
class HashConfig:
    """The project's hash parameters, in base64 where they are bytes; the key is a secret of the project."""

    signer_key: str = field(repr=False)
    salt_separator: str
    rounds: int
    mem_cost: int


def parse_hash_config(text: str) -> HashConfig:
    """Read what the console shows under "Password hash parameters", as it is copied from there.

    Raises:
        ValueError: a parameter is missing or makes no sense.
    """
    found = dict(_PARAMETER.findall(text))
    if found.get("algorithm", "SCRYPT") != "SCRYPT":
        raise ValueError("the algorithm is not SCRYPT")
    try:
        return HashConfig(
            signer_key=values.plain_base64(found["base64_signer_key"]),
            salt_separator=values.plain_base64(found.get("base64_salt_separator", "")),
            rounds=int(found["rounds"]),
            mem_cost=int(found["mem_cost"]),
        )
    except (KeyError, ValueError, Refused) as error:
        raise ValueError("base64_signer_key, rounds and mem_cost are needed") from error


def converter(config: HashConfig | None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what makes the normal form; without a config no hash can be taken over."""

    def convert(user: Mapping[str, Any]) -> dict[str, Any]:
        email = user.get("email")
        return {
            "email": email,
            "email_verified": values.flag(user.get("emailVerified"), "email_verified"),
            "display_name": user.get("displayName"),
            "disabled": values.flag(user.get("disabled"), "disabled"),
            "created_at": values.milliseconds(user.get("createdAt"), "created_at"),
            "password_hash": _hash(user, config),
        }

    return convert


def _hash(user: Mapping[str, Any], config: HashConfig | None) -> str | None:
    """Write the hash as Supabase's GoTrue does: with the signer key, without which it means nothing."""
    if not user.get("passwordHash"):
        return None
    digest = values.plain_base64(user["passwordHash"])
    if digest == _REDACTED:
        raise Refused("hash_redacted", "Firebase left the hash out: who exported may not read hashes.")
    if config is None:
        raise Refused("hash_config_missing", "The hash needs --firebase-hash-config.")
    separator = f",ss={config.salt_separator}" if config.salt_separator else ""
    return (
        f"$fbscrypt$v=1,n={config.mem_cost},r={config.rounds},p=1{separator},sk={config.signer_key}"
        f"${values.plain_base64(user.get('salt') or '')}${digest}"
    )

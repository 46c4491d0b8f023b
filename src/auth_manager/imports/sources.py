"""Where users come from: for each system how its file is read, and how a record becomes the normal form."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from auth_manager.imports import (
    auth0,
    cognito,
    devise,
    django,
    firebase,
    keycloak,
    mapping,
    own_export,
    reading,
    supabase,
    wordpress,
)
from auth_manager.imports.firebase import HashConfig
from auth_manager.imports.mapping import Convert
from auth_manager.imports.reading import Reader


class System(StrEnum):
    """Whose export it is; the first two are anybody's, in our own normal form or by a mapping."""

    JSON = "json"
    CSV = "csv"
    AUTH0 = "auth0"
    FIREBASE = "firebase"
    KEYCLOAK = "keycloak"
    SUPABASE = "supabase"
    DJANGO = "django"
    COGNITO = "cognito"
    WORDPRESS = "wordpress"
    DEVISE = "devise"


@dataclass(frozen=True, slots=True)
class Source:
    """How to read a file.

    `is_lazy` says that an account without a hash waits for its former system's word (passwords.LAZY_HASH).
    """

    system: System
    read: Reader
    convert: Convert
    is_lazy: bool = False


_MODULES = {
    System.AUTH0: auth0,
    System.KEYCLOAK: keycloak,
    System.SUPABASE: supabase,
    System.DJANGO: django,
    System.COGNITO: cognito,
    System.WORDPRESS: wordpress,
    System.DEVISE: devise,
}


def open_source(
    system: System,
    *,
    members: Mapping[str, Any] | None = None,
    hash_config: HashConfig | None = None,
    is_lazy: bool | None = None,
) -> Source:
    """Return how to read a system's file.

    Args:
        system: whose file.
        members: a mapping, for JSON and CSV alone.
        hash_config: of Firebase alone.
        is_lazy: None means: for Cognito, which gives no hashes.
    """
    lazy = system is System.COGNITO if is_lazy is None else is_lazy
    if system is System.JSON:
        convert = mapping.converter(members, is_text=False)
        return Source(system, own_export.read, convert, lazy)
    if system is System.CSV:
        return Source(system, reading.read_csv, mapping.converter(members, is_text=True), lazy)
    if system is System.FIREBASE:
        return Source(system, firebase.read, firebase.converter(hash_config), lazy)
    module = _MODULES[system]
    return Source(system, module.read, module.convert, lazy)

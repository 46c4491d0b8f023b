"""Accounts: register, profile, deletion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Account:
    """A person, without the password hash.

    `permissions` and `claims` are what the roles give, read where a token may be signed and empty elsewhere.
    """

    id: UUID
    email: str
    email_verified_at: datetime | None
    username: str | None
    display_name: str | None
    locale: str | None
    attributes: dict[str, Any]
    roles: tuple[str, ...]
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    permissions: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)

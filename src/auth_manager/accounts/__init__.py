"""Accounts: register, profile, deletion."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Account:
    """A person, without the password hash."""

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

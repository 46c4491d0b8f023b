"""Roles: what they permit, what they say in tokens, and who has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from auth_manager.entity_tags import tag_of


@dataclass(frozen=True, slots=True)
class Role:
    """A set of permissions under a name; `claims` go into the access tokens of those who have it."""

    name: str
    description: str
    permissions: tuple[str, ...]
    claims: Mapping[str, Any]
    is_default: bool
    is_built_in: bool
    created_at: datetime
    updated_at: datetime

    @property
    def tag(self) -> str:
        """What changes with every change."""
        return tag_of(self.updated_at)

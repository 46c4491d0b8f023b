"""The accounts as administrators find, create, change and erase them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from auth_manager.accounts import Account

Status = Literal["active", "disabled", "unverified", "locked"]
"""`active`: not disabled. `locked`: by failed attempts, until an administrator unlocks it."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which accounts: those that every condition holds for; None asks nothing.

    `email` is a whole address and `prefix` the beginning of an address or a username, both as typed.
    """

    ids: tuple[UUID, ...] | None = None
    email: str | None = None
    prefix: str | None = None
    role: str | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An account, with what administrators see of it beyond its owner.

    `factors` are what it can be asked for besides its first factor, `erase_after` when it will be erased.
    `tag` is another one whenever anything else in here is.
    """

    account: Account
    factors: tuple[str, ...]
    erase_after: datetime | None
    tag: str


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some of a list, and the cursor of what follows, None at its end."""

    items: Sequence[Entry]
    next_cursor: str | None

"""Sessions: refresh, list, revoke, log out."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in; or with `impersonator_id`, an administrator's acting for the account's owner."""

    id: UUID
    account_id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    authenticated_at: datetime
    amr: tuple[str, ...]
    acr: str
    address: str | None
    user_agent: str
    impersonator_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class RefreshLine:
    """One client's chain of refresh tokens on a session; `counter` is the one token that is current."""

    id: UUID
    client_id: str
    scope: str
    counter: int

"""Reading the audit trail: search, and export."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Filters:
    """Which events: those that match all that is set.

    `network` is an IP address or a network of them; `since` is included, `until` is not.
    """

    event: str | None = None
    outcome: str | None = None
    account_id: UUID | None = None
    actor_id: UUID | None = None
    operator: str | None = None
    network: str | None = None
    since: datetime | None = None
    until: datetime | None = None

"""Reading the audit trail: search, and export."""

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
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


def parse_network(text: str) -> str:
    """Return an IP address or network as PostgreSQL reads it.

    Raises:
        ValueError: it is neither, or has a zone.
    """
    if "%" in text:
        raise ValueError("an address with a zone")
    return str(ip_network(text, strict=False))


def to_utc(time: datetime) -> datetime:
    """Return a time as PostgreSQL reads it, which takes no offset of 16 hours or more.

    Raises:
        ValueError: in UTC it is before the year 1 or after 9999.
    """
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("beyond the years 1 to 9999") from None

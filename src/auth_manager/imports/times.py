"""Times of a record, in the one form that PostgreSQL always takes: in UTC."""

from datetime import UTC, datetime


def parse_time(text: str) -> datetime:
    """Return a time as in RFC 3339, in UTC, also where it names no offset.

    PostgreSQL takes no offset of 16 hours or more, nor one with a fraction of a second; Python does.

    Raises:
        ValueError: it is no time.
        OverflowError: in UTC it is in no year from 1 to 9999.
    """
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

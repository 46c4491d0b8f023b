"""The entity tag (RFC 9110 section 8.8.3) of what knows when it was changed last."""

from datetime import UTC, datetime

SQL = """to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
"""The same of a row, for a condition that travels with a change."""


def tag_of(updated_at: datetime) -> str:
    """Return the tag of what was changed last at this time, to the microsecond."""
    return updated_at.astimezone(UTC).isoformat(timespec="microseconds")

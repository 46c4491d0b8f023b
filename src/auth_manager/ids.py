"""Identifiers: UUIDv7 (RFC 9562 section 5.7), so that rows cluster by age and a cursor is one id."""

from uuid import UUID

from uuid6 import uuid7


def new_id() -> UUID:
    """Return a new UUIDv7 as a standard library UUID, which psycopg2 knows how to send."""
    return UUID(int=uuid7().int)

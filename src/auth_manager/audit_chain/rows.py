"""What the hash of an event covers: every column, in an encoding that no two events share.

A hash is SHA-256 over a list of fields, each as its length (4 bytes, big-endian) and its bytes, or as four
bytes of 0xff where it is NULL. The list begins with the name of the encoding, so that another one can follow:

    "auth-manager audit event 1", position, previous_hash, id, occurred_at, event, outcome, reason,
    account_id, session_id, request_id, actor_id, operator, details, personal_hash

    "auth-manager audit person 1", personal_salt, address, user_agent    (this is personal_hash)

Hashes and the salt are their bytes, everything else is UTF-8 text: numbers in decimal, `occurred_at` in
microseconds since 1970 (UTC), `details` and `address` as PostgreSQL writes jsonb and inet. What comes before
the first event has a hash of 32 zero bytes.
"""

import hashlib

from auth_manager.database import Row

GENESIS = bytes(32)
"""What the first event carries as the hash of the one before it."""

COLUMNS = """
    position, previous_hash, personal_salt, personal_hash, hash, event, outcome, reason, request_id, operator,
    user_agent, id::text, account_id::text, session_id::text, actor_id::text, address,
    details::text AS details, trim_scale(extract(epoch FROM occurred_at) * 1000000)::text AS occurred_at
"""
"""The select list of what `hash_event` and `hash_person` take."""

_EVENT = "auth-manager audit event 1"
_PERSON = "auth-manager audit person 1"
_NULL = b"\xff\xff\xff\xff"

_FIELDS = (
    "id",
    "occurred_at",
    "event",
    "outcome",
    "reason",
    "account_id",
    "session_id",
    "request_id",
    "actor_id",
    "operator",
    "details",
)


def hash_event(row: Row, *, position: int, previous_hash: bytes, personal_hash: bytes) -> bytes:
    """Return the hash of an event at a place in the chain."""
    texts = (row[name] for name in _FIELDS)
    return _hash(_EVENT, str(position), previous_hash, *texts, personal_hash)


def hash_person(salt: bytes | None, address: str | None, user_agent: str) -> bytes:
    """Return what stands in the event's hash for the network address and the user agent of a person."""
    return _hash(_PERSON, salt, address, user_agent)


def _hash(*fields: str | bytes | None) -> bytes:
    hashed = hashlib.sha256()
    for value in fields:
        if value is None:
            hashed.update(_NULL)
            continue
        data = value.encode() if isinstance(value, str) else value
        hashed.update(len(data).to_bytes(4))
        hashed.update(data)
    return hashed.digest()

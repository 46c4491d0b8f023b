"""Extending the chain. Events are appended without it: no request waits for another, or pays for a hash.

The order of the chain is the order of chaining. An event whose transaction commits late is chained later,
after events that are younger than it.
"""

import secrets
from operator import itemgetter

from auth_manager.audit_chain.rows import COLUMNS, GENESIS, hash_event, hash_person
from auth_manager.database import Connection, Database

LOCK = 7_305_008
"""Advisory lock of all who extend the chain or sign it; the number means nothing."""

BATCH = 500
"""Events of one transaction: their rows are locked for some 100 ms at most."""

_SALT_BYTES = 16


def extend(database: Database, *, limit: int = BATCH) -> int:
    """Chain up to `limit` events that were committed, in one transaction; return how many.

    Several may do this at once: one waits for the other. An event that is being erased is left for the next
    run.

    Raises:
        DatabaseUnavailable: no answer, or another held the chain for too long; nothing was chained.
    """
    with database.transaction() as connection:
        lock(connection)
        # By the index of what waits, in its order. As PostgreSQL guesses how much that is, it would rather
        # read and sort all of a backlog for each batch.
        connection.add("SET LOCAL enable_sort = off")
        rows = connection.fetch_all(
            f"""
            SELECT head.position AS head_position, head.hash AS head_hash, waiting.*
            FROM (SELECT {COLUMNS} FROM audit_events WHERE position IS NULL
                  ORDER BY audit_events.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED) waiting
            LEFT JOIN (SELECT position, hash FROM audit_events WHERE position IS NOT NULL
                       ORDER BY position DESC LIMIT 1) head ON true
            """,  # noqa: S608 -- our own select list
            {"limit": limit},
        )
        if not rows:
            return 0
        rows.sort(key=itemgetter("id"))
        position, previous = rows[0]["head_position"] or 0, bytes(rows[0]["head_hash"] or GENESIS)
        links = []
        for row in rows:
            position += 1
            # Whoever has nothing to hide needs no salt.
            salt = secrets.token_bytes(_SALT_BYTES) if row["address"] or row["user_agent"] else None
            person = hash_person(salt, row["address"], row["user_agent"])
            own = hash_event(row, position=position, previous_hash=previous, personal_hash=person)
            links.append((row["id"], position, previous, salt, person, own))
            previous = own
        _write(connection, links)
    return len(links)


def lock(connection: Connection) -> None:
    """Queue the wait for everybody else who extends the chain or signs it: they wait until we commit.

    A statement of its own: the next one sees what the other committed.
    """
    connection.add("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": LOCK})


def count_waiting(database: Database) -> int:
    """Return how many events are in no chain yet."""
    with database.one_trip() as connection:
        row = connection.fetch_one("SELECT count(*) AS waiting FROM audit_events WHERE position IS NULL")
    return int(row["waiting"]) if row else 0


def _write(connection: Connection, links: list[tuple[str, int, bytes, bytes | None, bytes, bytes]]) -> None:
    ids, positions, previous, salts, persons, hashes = (list(column) for column in zip(*links, strict=True))
    connection.add(
        """
        UPDATE audit_events AS event
        SET position = link.position, previous_hash = link.previous_hash, personal_salt = link.personal_salt,
            personal_hash = link.personal_hash, hash = link.hash
        FROM unnest(%(ids)s::uuid[], %(positions)s::bigint[], %(previous)s::bytea[], %(salts)s::bytea[],
                    %(persons)s::bytea[], %(hashes)s::bytea[])
             AS link (id, position, previous_hash, personal_salt, personal_hash, hash)
        WHERE event.id = link.id
        """,
        {
            "ids": ids,
            "positions": positions,
            "previous": previous,
            "salts": salts,
            "persons": persons,
            "hashes": hashes,
        },
    )

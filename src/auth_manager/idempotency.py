"""Idempotency-Key: a retried request gets the answer of the first, byte for byte, for 24 hours.

A claim commits before the work, the answer commits with the work. Only hashes of the client's key and of its
request are stored; the answer, which may hold tokens, is encrypted with a key derived from the client's key,
so that a copy of the table reveals nothing. A claim whose holder died can be taken over after CLAIM_LEASE; a
holder that lost its claim cannot commit.

Follows draft-ietf-httpapi-idempotency-key-header; failures are not kept, so a retry after one runs again.
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from auth_manager.database import Connection, Database
from auth_manager.errors import IdempotencyKeyInProgress, IdempotencyKeyReused
from auth_manager.ids import new_id

LIFETIME = timedelta(hours=24)
CLAIM_LEASE = timedelta(seconds=60)
"""Longer than any request may run (API Gateway gives up after 30 s)."""

_NONCE_BYTES = 12

ResultT = TypeVar("ResultT")
Record = Callable[[Connection, ResultT], None]
"""Called inside the transaction that did the work, with its result, just before the commit."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one request once."""

    key_hash: bytes
    claim_id: UUID
    cipher_key: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer of the first run."""

    answer: bytes


def claim(
    database: Database, secrets: Sequence[bytes], *, scope: str, key: str, request: bytes, now: datetime
) -> Claim | Replay:
    """Claim `key` for `request`, or find the answer that it already got.

    Args:
        database: where claims are kept.
        secrets: the server's keys for this purpose. A record made with any of them is found; a new one is
            made with the first.
        scope: method, path and subject: the same key elsewhere is another key.
        key: what the client sent.
        request: the body's bytes.
        now: the current time.

    Raises:
        IdempotencyKeyReused: the key came with another body.
        IdempotencyKeyInProgress: the first request still runs.
    """
    key_hashes = [_digest(secret, "key", scope.encode(), key.encode()) for secret in secrets]
    request_hashes = [_digest(secret, "request", request) for secret in secrets]
    claim_id = new_id()
    with database.one_trip() as connection:
        row = connection.fetch_one(
            """
            INSERT INTO idempotency_keys AS k (key_hash, request_hash, claim_id, claimed_until, expires_at)
            SELECT ours.key_hash, ours.request_hash, %(claim_id)s, %(claimed_until)s, %(expires_at)s
            FROM unnest(%(key_hashes)s, %(request_hashes)s) WITH ORDINALITY
                AS ours (key_hash, request_hash, position)
            ORDER BY EXISTS (SELECT FROM idempotency_keys AS known
                WHERE known.key_hash = ours.key_hash AND known.expires_at > %(now)s) DESC, position
            LIMIT 1
            ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE SET
                request_hash = CASE WHEN k.expires_at <= %(now)s THEN excluded.request_hash
                                    ELSE k.request_hash END,
                answer = CASE WHEN k.expires_at <= %(now)s THEN NULL ELSE k.answer END,
                claim_id = CASE WHEN k.expires_at <= %(now)s OR (
                        k.answer IS NULL AND k.claimed_until <= %(now)s
                        AND k.request_hash = excluded.request_hash)
                    THEN excluded.claim_id ELSE k.claim_id END,
                claimed_until = CASE WHEN k.expires_at <= %(now)s OR (
                        k.answer IS NULL AND k.claimed_until <= %(now)s
                        AND k.request_hash = excluded.request_hash)
                    THEN excluded.claimed_until ELSE k.claimed_until END,
                expires_at = CASE WHEN k.expires_at <= %(now)s THEN excluded.expires_at ELSE k.expires_at END
            RETURNING key_hash, request_hash, claim_id, answer
            """,
            {
                "key_hashes": key_hashes,
                "request_hashes": request_hashes,
                "claim_id": claim_id,
                "claimed_until": now + CLAIM_LEASE,
                "expires_at": now + LIFETIME,
                "now": now,
            },
        )
    if row is None:  # an upsert without WHERE always returns its row
        raise IdempotencyKeyInProgress
    used = key_hashes.index(bytes(row["key_hash"]))
    if not hmac.compare_digest(bytes(row["request_hash"]), request_hashes[used]):
        raise IdempotencyKeyReused
    cipher_key = _digest(secrets[used], "answer", scope.encode(), key.encode(), request)
    if row["answer"] is not None:
        return Replay(_decrypt(cipher_key, bytes(row["answer"])))
    if row["claim_id"] != claim_id:
        raise IdempotencyKeyInProgress(retry_after=1)
    return Claim(key_hashes[used], claim_id, cipher_key)


def complete(connection: Connection, held: Claim, answer: bytes) -> None:
    """Queue the answer; the transaction fails when the claim was lost meanwhile."""
    connection.add(
        """
        UPDATE idempotency_keys SET answer = %(answer)s
        WHERE key_hash = %(key_hash)s AND claim_id = %(claim_id)s AND answer IS NULL
        """,
        {
            "answer": _encrypt(held.cipher_key, answer),
            "key_hash": held.key_hash,
            "claim_id": held.claim_id,
        },
    )
    connection.add(
        """
        SELECT require(EXISTS (SELECT FROM idempotency_keys
            WHERE key_hash = %(key_hash)s AND claim_id = %(claim_id)s AND answer IS NOT NULL), 'claim_lost')
        """,
        {"key_hash": held.key_hash, "claim_id": held.claim_id},
        refused={"claim_lost": IdempotencyKeyInProgress()},
    )


def release(database: Database, held: Claim) -> None:
    """Give an unanswered claim back after a failure, so that a retry runs at once."""
    with database.one_trip() as connection:
        connection.add(
            """
            DELETE FROM idempotency_keys
            WHERE key_hash = %(key_hash)s AND claim_id = %(claim_id)s AND answer IS NULL
            """,
            {"key_hash": held.key_hash, "claim_id": held.claim_id},
        )


def delete_expired(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete records that expired before a moment; return how many. What somebody works with is skipped."""
    row = connection.fetch_one(
        """
        WITH expired AS (
            SELECT key_hash FROM idempotency_keys WHERE expires_at < %(before)s
            LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM idempotency_keys USING expired
            WHERE idempotency_keys.key_hash = expired.key_hash RETURNING 1
        )
        SELECT count(*) AS deleted FROM deleted
        """,
        {"before": before, "limit": limit},
    )
    return int(row["deleted"]) if row else 0


def _digest(secret: bytes, label: str, *parts: bytes) -> bytes:
    """HMAC-SHA256 over length-prefixed parts, so that no two lists of parts look alike."""
    mac = hmac.new(secret, label.encode(), hashlib.sha256)
    for part in parts:
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    return mac.digest()


def _encrypt(key: bytes, answer: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 -- not on the usual path

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, answer, None)


def _decrypt(key: bytes, sealed: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 -- not on the usual path

    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)

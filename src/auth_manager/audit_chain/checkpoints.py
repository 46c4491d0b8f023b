"""Checkpoints: where the chain stood, signed, so that nobody without the key can write it anew.

A checkpoint is a JWS (RFC 7515) by the key that signs access tokens, under a type of its own:

    {"alg", "kid", "typ": "audit-checkpoint+jwt"} . {"iss", "iat", "position", "hash", "previous"}

`previous` is the SHA-256 of the checkpoint before it, so that the newest one, whose key is published, vouches
for all before it, whose keys may be retired. Who may write the database may remove checkpoints there, so they
are kept elsewhere, too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from auth_manager.audit_chain.chaining import lock
from auth_manager.database import Database, Row
from auth_manager.errors import ConfigurationError
from auth_manager.signing_keys import KeySet, SigningKey, decode_base64url, encode_base64url, parse_public_jwk

TYPE = "audit-checkpoint+jwt"

_COLUMNS = """
    position, hash, token, public_jwk::text,
    least(greatest(taken_at, '0001-01-02'), '9999-12-30') AS taken_at -- what a datetime holds
"""

_UNREADABLE = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, ConfigurationError,
)  # fmt: skip
"""What is raised by reading what somebody else may have written."""


class ChainBroken(Exception):
    """The chain is not the one that was signed. `auth-manager audit verify` says where."""


class NoCheckpoint(ValueError):
    """A text that is no checkpoint, or that its key did not sign."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the chain stood: after `position` events, the last of which has this hash."""

    position: int
    hash: bytes
    taken_at: datetime
    token: str
    public_jwk: Mapping[str, Any]

    @property
    def file_name(self) -> str:
        """What it is called outside the database; by its date, then by its place."""
        return f"{self.taken_at.astimezone(UTC):%Y-%m-%d}-{self.position}.json"

    @property
    def document(self) -> bytes:
        """Return what is kept outside the database: JSON with the token, and the key that verifies it."""
        return json.dumps({"checkpoint": self.token, "public_key": dict(self.public_jwk)}).encode()


@dataclass(frozen=True, slots=True)
class CheckpointFault:
    """A checkpoint in the database that is not as it was."""

    position: int
    reason: str


def take(database: Database, key_set: KeySet, *, issuer: str, now: datetime) -> Checkpoint | None:
    """Sign where the chain stands; return the checkpoint, None while there is no chain.

    Where nothing was chained since the last one, that one is returned, to be kept once more; unless another
    key signs by now, which then vouches for it.

    Raises:
        ChainBroken: the event of the last checkpoint is not there, or another than it was.
    """
    taken_at = now.replace(microsecond=0)  # all that a token says of it
    with database.transaction() as connection:
        lock(connection)
        row = connection.fetch_one(
            f"""
            SELECT head.position, head.hash, signed.hash AS signed_hash, latest.position AS latest_position,
                   latest.hash AS latest_hash, latest.taken_at, latest.token, latest.public_jwk
            FROM (SELECT) AS nothing
            LEFT JOIN (SELECT position, hash FROM audit_events WHERE position IS NOT NULL
                       ORDER BY position DESC LIMIT 1) head ON true
            LEFT JOIN (SELECT {_COLUMNS} FROM audit_checkpoints
                       ORDER BY position DESC, taken_at DESC LIMIT 1) latest ON true
            LEFT JOIN audit_events signed ON signed.position = latest.position
            """  # noqa: S608 -- our own select list
        )
        if row is None:
            return None
        latest = _latest(row)
        if latest and (row["signed_hash"] is None or bytes(row["signed_hash"]) != latest.hash):
            raise ChainBroken(f"event {latest.position} of the trail is not the one that was signed")
        if row["position"] is None:
            return None
        key = key_set.current
        # Those of one place are in the order of their times: not before the clock is beyond the latest.
        renews = latest and latest.public_jwk != key.public_jwk and latest.taken_at < taken_at
        if latest and latest.position == row["position"] and not renews:
            return latest
        made = _sign(key, row["position"], bytes(row["hash"]), latest, issuer=issuer, taken_at=taken_at)
        connection.add(
            """
            INSERT INTO audit_checkpoints (position, hash, taken_at, token, public_jwk)
            VALUES (%(position)s, %(hash)s, %(taken_at)s, %(token)s, %(public_jwk)s::jsonb)
            """,
            {
                "position": made.position,
                "hash": made.hash,
                "taken_at": made.taken_at,
                "token": made.token,
                "public_jwk": json.dumps(dict(made.public_jwk)),
            },
        )
    return made


def list_checkpoints(database: Database) -> list[Checkpoint]:
    """Return the checkpoints in the database, oldest first; one a day is a few hundred a year."""
    with database.one_trip() as connection:
        rows = connection.fetch_all(
            f"SELECT {_COLUMNS} FROM audit_checkpoints ORDER BY position, taken_at"  # noqa: S608 -- as above
        )
    return [_from_row(row) for row in rows]


def read_document(document: bytes) -> Checkpoint:
    """Return the checkpoint of a file that was kept outside the database.

    That the key in it is ours, the file's reader has to know: by where it was kept.

    Raises:
        NoCheckpoint: it is none, or it was changed.
    """
    try:
        content = json.loads(document)
        token, public_jwk = content["checkpoint"], content["public_key"]
        claims = _verify(token, parse_public_jwk(public_jwk))
        return Checkpoint(
            position=int(claims["position"]),
            hash=decode_base64url(claims["hash"]),
            taken_at=datetime.fromtimestamp(claims["iat"], UTC),
            token=token,
            public_jwk=public_jwk,
        )
    except _UNREADABLE as error:
        raise NoCheckpoint("not a checkpoint of an audit trail, or one that was changed") from error


def find_faults(
    checkpoints: Sequence[Checkpoint], key_set: KeySet, trusted: Sequence[Checkpoint] = ()
) -> list[CheckpointFault]:
    """Return what is wrong with checkpoints, oldest first, of which they are given that way, too.

    Trust begins with the keys that are published and with what was kept elsewhere, and goes from each
    checkpoint to the one before it.
    """
    known = {key.kid for key in key_set.keys}
    vouched = {_digest(checkpoint.token) for checkpoint in trusted}
    faults = []
    follower: str | None = None  # what the next younger checkpoint says this one is
    for checkpoint in reversed(checkpoints):
        try:
            key = parse_public_jwk(checkpoint.public_jwk)
            claims = _verify(checkpoint.token, key)
            previous = claims["previous"]
            if (claims["position"], claims["hash"], claims["iat"]) != (
                checkpoint.position,
                encode_base64url(checkpoint.hash),
                checkpoint.taken_at.timestamp(),
            ):
                raise NoCheckpoint("the token says another place, hash or time")
        except _UNREADABLE:
            faults.append(CheckpointFault(checkpoint.position, "it is not what was signed"))
            follower = None
            continue
        digest = _digest(checkpoint.token)
        if follower is not None and follower != digest:
            faults.append(CheckpointFault(checkpoint.position, "one that came after it is missing"))
        elif key.kid not in known and digest not in vouched:
            faults.append(
                CheckpointFault(checkpoint.position, f"neither we nor a later one know its key {key.kid}")
            )
        else:
            vouched.add(previous)
        follower = previous
    if follower is not None:
        faults.append(CheckpointFault(checkpoints[0].position, "one that came before it is missing"))
    return faults[::-1]


def _sign(
    key: SigningKey, position: int, head: bytes, latest: Checkpoint | None, *, issuer: str, taken_at: datetime
) -> Checkpoint:
    header = {"alg": key.algorithm, "kid": key.kid, "typ": TYPE}
    claims = {
        "iss": issuer,
        "iat": int(taken_at.timestamp()),
        "position": position,
        "hash": encode_base64url(head),
        "previous": _digest(latest.token) if latest else None,
    }
    signed = ".".join(
        encode_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
    )
    token = f"{signed}.{encode_base64url(key.sign(signed.encode()))}"
    return Checkpoint(position, head, taken_at, token, key.public_jwk)


def _verify(token: str, key: SigningKey) -> dict[str, Any]:
    """Return the claims of a token that this key signed as a checkpoint. Raises ValueError or TypeError."""
    header, claims, signature = token.split(".")
    expected = {"alg": key.algorithm, "kid": key.kid, "typ": TYPE}
    if json.loads(decode_base64url(header)) != expected:
        raise NoCheckpoint("another key or another type of token")
    if not key.verifies(f"{header}.{claims}".encode(), decode_base64url(signature)):
        raise NoCheckpoint("the signature is wrong")
    content: dict[str, Any] = json.loads(decode_base64url(claims))
    return content


def _digest(token: str) -> str:
    return encode_base64url(hashlib.sha256(token.encode()).digest())


def _latest(row: Row) -> Checkpoint | None:
    if row["latest_position"] is None:
        return None
    return _from_row(row | {"position": row["latest_position"], "hash": row["latest_hash"]})


def _from_row(row: Row) -> Checkpoint:
    try:
        public_jwk = json.loads(row["public_jwk"])
    except _UNREADABLE:  # PostgreSQL holds deeper JSON, and longer numbers
        public_jwk = {}
    return Checkpoint(row["position"], bytes(row["hash"]), row["taken_at"], row["token"], public_jwk)

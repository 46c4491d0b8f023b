"""Writing an export: a header, a line for each account, and a trailer without which it is not whole."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from auth_manager import __version__, audit
from auth_manager.audit import Origin
from auth_manager.database import Connection, Row
from auth_manager.exports import FORMAT, FORMAT_VERSION, store
from auth_manager.factors.totp import PURPOSE
from auth_manager.resources import Resources
from auth_manager.sealed_values import CannotOpen, open_value
from auth_manager.secret_keys import SecretKeys

_PIECE_LINES = 500


@dataclass(slots=True)
class Report:
    """What an export has; `totp_unreadable` are authenticator apps that no key of AUTH_SECRET_KEYS opens."""

    users: int = 0
    totp: int = 0
    totp_unreadable: int = 0
    passkeys: int = 0
    recovery_codes: int = 0
    sha256: str = ""


def record_export(resources: Resources, origin: Origin, *, encrypted: bool) -> None:
    """Write to the audit trail that everything leaves: before it does, since half of it is a copy, too."""
    with resources.database.one_trip() as connection:
        audit.append(connection, "exported", origin, details={"scope": "all", "encrypted": encrypted})


def export(
    url: str,
    secret_keys: SecretKeys,
    report: Report,
    *,
    now: datetime,
    on_start: Callable[[int], None] = lambda _count: None,
    on_written: Callable[[int], None] = lambda _count: None,
) -> Iterator[bytes]:
    """Yield the export in pieces, as one transaction sees the accounts. Memory does not grow with them.

    Args:
        url: of the database.
        secret_keys: that opens the secrets of authenticator apps, which go out in clear.
        report: filled in on the way; it is right when the last piece was taken.
        now: the current time, for the header.
        on_start: told how many accounts there are.
        on_written: told of the accounts of each piece.

    Raises:
        DatabaseUnavailable: the database did not answer.
    """
    digest = hashlib.sha256()
    with store.snapshot(url) as connection:
        count = store.count_accounts(connection)
        on_start(count)
        header = _header(connection, count, now)
        digest.update(header)
        yield header
        for piece, users in _pieces(connection, secret_keys, report):
            digest.update(piece)
            report.users += users
            on_written(users)
            yield piece
    report.sha256 = digest.hexdigest()
    yield _line({"format": FORMAT, "end": True, "users": report.users, "sha256": report.sha256})


def _header(connection: Connection, count: int, now: datetime) -> bytes:
    return _line(
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "created_at": now.astimezone(UTC).isoformat(),
            "product_version": __version__,
            "users": count,
            "roles": store.list_roles(connection),
        }
    )


def _pieces(connection: Connection, secret_keys: SecretKeys, report: Report) -> Iterator[tuple[bytes, int]]:
    lines: list[str] = []
    for row in store.each_account(connection):
        lines.append(_with_factors(row, secret_keys, report))
        if len(lines) == _PIECE_LINES:
            yield "".join(lines).encode(), len(lines)
            lines.clear()
    yield "".join(lines).encode(), len(lines)


def _with_factors(row: Row, secret_keys: SecretKeys, report: Report) -> str:
    factors: dict[str, Any] = {}
    if row["sealed_secret"] is not None:
        try:
            secret = _open_secret(row, secret_keys)
            confirmed_at = row["confirmed_at"].astimezone(UTC).isoformat()
            factors["totp"] = {"secret": secret, "confirmed_at": confirmed_at, "last_step": row["last_step"]}
            report.totp += 1
        except CannotOpen:
            report.totp_unreadable += 1
    for kind in ("passkeys", "recovery_codes"):
        if row[kind]:
            factors[kind] = row[kind]
            setattr(report, kind, getattr(report, kind) + len(row[kind]))
    line: str = row["line"]
    if not factors:
        return line + "\n"
    return f'{line[:-1]},"factors":{json.dumps(factors, ensure_ascii=False, separators=(",", ":"))}}}\n'


def _open_secret(row: Row, secret_keys: SecretKeys) -> str:
    return open_value(secret_keys, PURPOSE, bytes(row["sealed_secret"]), bound_to=row["id"].bytes).decode()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

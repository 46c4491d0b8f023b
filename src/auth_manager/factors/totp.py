"""One-time passwords by time (RFC 6238), and the SQL of the totp_factors table.

SHA-1, six digits, 30 seconds: what every authenticator app can do.
"""

import hmac
import io
import re
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from auth_manager.database import Connection, Row
from auth_manager.errors import InvalidFactor, NotFound, TooManyFactors
from auth_manager.factors.recovery_codes import LEFT

PURPOSE = "totp secret"
"""Of the sealed values."""

_CODE = re.compile("[0-9]{6}")  # not \d, which takes the digits of every script


@dataclass(frozen=True, slots=True)
class Totp:
    """A secret as it is stored; `last_step` is the youngest time step that was used, None for none."""

    id: UUID
    sealed_secret: bytes = field(repr=False)
    last_step: int | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A secret that waits to be confirmed, and how many recovery codes its account has left."""

    totp: Totp
    recovery_codes_left: int


def generate_secret() -> str:
    """Return a new secret: 160 random bits (RFC 4226 section 4, R6) in base32."""
    from pyotp import random_base32  # noqa: PLC0415 -- with the first enrolment

    return random_base32(32)


def provisioning_uri(secret: str, *, issuer: str, account_name: str) -> str:
    """Return the otpauth:// URI that authenticator apps take."""
    from pyotp import TOTP  # noqa: PLC0415 -- with the first enrolment

    return TOTP(secret).provisioning_uri(name=account_name, issuer_name=issuer)


def render_qr(uri: str) -> str:
    """Return a QR code as an SVG element: black on white, of any size, with no style and no script."""
    import segno  # noqa: PLC0415 -- with the first enrolment

    written = io.BytesIO()
    segno.make(uri, error="m", micro=False).save(
        written,
        kind="svg",
        scale=4,
        light="white",
        unit="px",
        xmldecl=False,
        nl=False,
        svgclass=None,
        lineclass=None,
    )
    return written.getvalue().decode()


def matching_step(secret: str, code: str, *, last_step: int | None, now: datetime) -> int | None:
    """Return the time step that a code is of; None when it is of none that may be used.

    That is the current one or one beside it (RFC 6238 section 5.2), younger than `last_step` (ASVS 6.5.1).
    Takes six ASCII digits and nothing else. How long it takes does not tell which step, or how many digits.
    """
    from pyotp import TOTP  # noqa: PLC0415 -- with the first code

    if not _CODE.fullmatch(code):
        return None
    totp = TOTP(secret)
    current = totp.timecode(now)
    matching = [
        step
        for step in (current - 1, current, current + 1)
        if hmac.compare_digest(totp.generate_otp(step), code)
    ]
    return next((step for step in matching if last_step is None or step > last_step), None)


def add_pending(
    connection: Connection, totp_id: UUID, account_id: UUID, *, sealed_secret: bytes, now: datetime
) -> None:
    """Queue a secret that waits to be confirmed, in place of the one that waits already.

    The round trip raises TooManyFactors when the account has one that counts.
    """
    connection.add(
        """
        SELECT require(NOT EXISTS (
            SELECT FROM totp_factors WHERE account_id = %(account_id)s AND confirmed_at IS NOT NULL
        ), 'totp_enrolled')
        """,
        {"account_id": account_id},
        refused={"totp_enrolled": TooManyFactors()},
    )
    connection.add(
        """
        INSERT INTO totp_factors (id, account_id, sealed_secret, created_at)
        VALUES (%(id)s, %(account_id)s, %(sealed_secret)s, %(now)s)
        ON CONFLICT (account_id) WHERE confirmed_at IS NULL DO UPDATE SET
            id = excluded.id, sealed_secret = excluded.sealed_secret, created_at = excluded.created_at
        """,
        {"id": totp_id, "account_id": account_id, "sealed_secret": sealed_secret, "now": now},
    )


def find_pending(connection: Connection, account_id: UUID) -> Pending | None:
    """Return what waits to be confirmed, in one round trip."""
    row = connection.fetch_one(
        f"""
        SELECT id, sealed_secret, last_step, {LEFT} FROM totp_factors
        WHERE account_id = %(account_id)s AND confirmed_at IS NULL
        """,  # noqa: S608 -- a constant
        {"account_id": account_id},
    )
    if row is None:
        return None
    return Pending(_totp_from(row), row["recovery_codes_left"])


def confirm(
    connection: Connection, totp_id: UUID, account_id: UUID, *, step: int, use_id: UUID, now: datetime
) -> None:
    """Queue that a pending secret counts from now on; the step that confirmed it is used.

    The round trip raises NotFound when it waits no more, TooManyFactors when another was confirmed meanwhile.
    """
    connection.add(
        """
        WITH confirmed AS (
            UPDATE totp_factors SET confirmed_at = %(now)s, last_step = %(step)s, last_used_at = %(now)s,
                                    last_use_id = %(use_id)s
            WHERE id = %(id)s AND account_id = %(account_id)s
              AND (confirmed_at IS NULL OR last_use_id = %(use_id)s)
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM confirmed), 'totp_not_pending')
        """,
        {"id": totp_id, "account_id": account_id, "step": step, "use_id": use_id, "now": now},
        refused={"totp_not_pending": NotFound(), "totp_factors_confirmed_key": TooManyFactors()},
    )


def use(connection: Connection, *, totp_id: UUID, step: int, use_id: UUID, now: datetime) -> None:
    """Queue the use of a code: the round trip raises InvalidFactor unless its step is the youngest.

    Parallel uses queue at the row and re-read it: exactly one gets through. The same use, sent twice over a
    lost connection, is one use.
    """
    connection.add(
        """
        WITH used AS (
            UPDATE totp_factors SET last_step = %(step)s, last_used_at = %(now)s, last_use_id = %(use_id)s
            WHERE id = %(id)s AND confirmed_at IS NOT NULL
              AND (last_step < %(step)s OR last_use_id = %(use_id)s)
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM used), 'totp_code_used')
        """,
        {"id": totp_id, "step": step, "use_id": use_id, "now": now},
        refused={"totp_code_used": InvalidFactor()},
    )


def remove_all(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of an account's secret, and of one that waits to be confirmed."""
    connection.add("DELETE FROM totp_factors WHERE account_id = %(account_id)s", {"account_id": account_id})


def list_sealed(connection: Connection, *, after: UUID | None, limit: int) -> list[Totp]:
    """Return secrets of all accounts by their ids, those that follow `after`, in one round trip."""
    rows = connection.fetch_all(
        """
        SELECT id, sealed_secret, last_step FROM totp_factors
        WHERE %(after)s::uuid IS NULL OR id > %(after)s::uuid
        ORDER BY id LIMIT %(limit)s
        """,
        {"after": after, "limit": limit},
    )
    return [_totp_from(row) for row in rows]


def reseal(connection: Connection, totp: Totp, sealed_secret: bytes) -> None:
    """Queue another sealed form of a secret, unless another secret took its place."""
    connection.add(
        """
        UPDATE totp_factors SET sealed_secret = %(sealed_secret)s
        WHERE id = %(id)s AND sealed_secret = %(before)s
        """,
        {"id": totp.id, "before": totp.sealed_secret, "sealed_secret": sealed_secret},
    )


def list_of(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return when each secret of an account was made and used, in one round trip: for its owner's export."""
    return connection.fetch_all(
        """
        SELECT created_at, confirmed_at, last_used_at FROM totp_factors
        WHERE account_id = %(account_id)s ORDER BY created_at DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )


def _totp_from(row: Row) -> Totp:
    return Totp(row["id"], bytes(row["sealed_secret"]), row["last_step"])

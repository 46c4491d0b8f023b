"""Attempt limits, counted in PostgreSQL so that every sandbox and every parallel request shares them.

An attempt is reserved before the secret is looked at (`reserve_attempt` in the migrations), in a statement
that commits on its own, so neither parallel guesses nor a rolled-back login can outrun the counter
(ASVS 6.3.1). A success hands the reservation back.
"""

import hashlib
import ipaddress
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from auth_manager.database import Connection
from auth_manager.errors import TooManyRequests
from auth_manager.settings import Settings

REGISTRATION = "register"
"""What the mails of registrations are counted as; others by the purpose of their secret."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many attempts: `maximum` per `window` (None: consecutive, for ever), slowed after `free`.

    From the `free`-th reservation on, each one blocks the next for `delay`, doubled every time, up to
    `delay_maximum`. `free` None: never slowed.
    """

    maximum: int
    window: timedelta | None = None
    free: int | None = None
    delay: timedelta | None = None
    delay_maximum: timedelta | None = None

    def parameters(self, prefix: str) -> dict[str, object]:
        """Name the values as `reserve_attempt` takes them, under a prefix."""
        return {
            f"{prefix}_maximum": self.maximum,
            f"{prefix}_window": self.window,
            f"{prefix}_free": self.free,
            f"{prefix}_delay": self.delay,
            f"{prefix}_delay_maximum": self.delay_maximum,
        }


FACTOR_CHANGES = Limit(maximum=20, window=timedelta(hours=1))
"""How often an account may try to add a factor, or make recovery codes."""


def address_key(purpose: str, address: str | None) -> str:
    """Key a client address; an IPv6 host owns a whole /64 (RFC 6177), so that is what is counted."""
    if address is None:
        return f"{purpose}:address:none"
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), 64), strict=False).network_address
    return f"{purpose}:address:{parsed}"


def account_key(account_id: UUID) -> str:
    """Key an account: one counter for every way to guess its secrets."""
    return f"{account_key_prefix()}{account_id}"


def factor_key(account_id: UUID) -> str:
    """Key the second factors of an account: guesses of them count here as well, until one is right.

    Beside the run of the account, which a password or a mail that is right may end (ASVS 6.3.1).
    """
    return f"{factor_key_prefix()}{account_id}"


def factor_key_prefix() -> str:
    """Return what precedes the account id in `factor_key`."""
    return "factor:account:"


def account_key_prefix() -> str:
    """Return what precedes the account id in `account_key`, for statements that learn the id themselves."""
    return "login:account:"


def unknown_key(identifier: str) -> str:
    """Key an identifier that no account has, without keeping what was typed."""
    return f"login:unknown:{hashlib.sha256(identifier.encode()).hexdigest()}"


def recipient_key(purpose: str, recipient: str) -> str:
    """Key the mails of one purpose to one normalised address, or account's id, without keeping it."""
    return f"mail:{purpose}:{hashlib.sha256(recipient.encode()).hexdigest()}"


def account_limit(settings: Settings) -> Limit:
    """Return how often the secrets of an account may be guessed in a row (ASVS 6.3.1)."""
    return Limit(
        maximum=settings.login_failures_before_lock,
        free=settings.login_failures_before_delay,
        delay=timedelta(seconds=settings.login_delay),
        delay_maximum=timedelta(seconds=settings.login_delay_maximum),
    )


def sign_in_limit(settings: Settings) -> Limit:
    """Return how often one client address may try to sign in, and fail, in whatever way."""
    return Limit(
        maximum=settings.login_attempts_per_address, window=timedelta(seconds=settings.login_address_window)
    )


def reserve(connection: Connection, key: str, limit: Limit, now: datetime) -> datetime | None:
    """Reserve one attempt in one round trip; return None, or when the next one may come."""
    row = connection.fetch_one(
        """
        SELECT retry_at FROM reserve_attempt(
            %(key)s, %(now)s, %(limit_maximum)s, %(limit_window)s, %(limit_free)s,
            %(limit_delay)s, %(limit_delay_maximum)s)
        """,
        {"key": key, "now": now, **limit.parameters("limit")},
    )
    retry_at: datetime | None = row["retry_at"] if row else None
    return retry_at


def reserve_mail(
    connection: Connection,
    settings: Settings,
    *,
    purpose: str,
    address: str | None,
    recipient: str,
    now: datetime,
) -> datetime | None:
    """Count one mail against who asks for it and who gets it; return None, or when the next one may come.

    `recipient` is the e-mail address that was typed, whether anybody has it or not; or the id of the account
    whose address it goes to.
    """
    window = timedelta(seconds=settings.mail_window)
    return _reserve_both(
        connection,
        (address_key("mail", address), Limit(maximum=settings.mail_requests_per_address, window=window)),
        (recipient_key(purpose, recipient), recipient_limit(settings)),
        now,
    )


def registration_limit(settings: Settings) -> Limit:
    """Return how many registrations one client address may send."""
    return Limit(
        maximum=settings.registrations_per_address, window=timedelta(seconds=settings.registration_window)
    )


def reserve_silent_registration(
    connection: Connection,
    settings: Settings,
    *,
    address: str | None,
    email_normalized: str,
    now: datetime,
) -> datetime | None:
    """Count one registration against who sends it and, as each one sends a mail, against its recipient.

    Where only a successful one does, that is counted with it (outbox.add_within_limit).
    """
    return _reserve_both(
        connection,
        (address_key("register", address), registration_limit(settings)),
        (recipient_key(REGISTRATION, email_normalized), recipient_limit(settings)),
        now,
    )


def recipient_limit(settings: Settings) -> Limit:
    """Return how many mails of one purpose a recipient may get."""
    return Limit(maximum=settings.mails_per_recipient, window=timedelta(seconds=settings.mail_window))


def _reserve_both(
    connection: Connection, client: tuple[str, Limit], recipient: tuple[str, Limit], now: datetime
) -> datetime | None:
    """Reserve in one round trip; a client that is refused counts nothing against the recipient."""
    row = connection.fetch_one(
        """
        SELECT COALESCE(of_client.retry_at, of_recipient.retry_at) AS retry_at
        FROM reserve_attempt(
            %(client_key)s, %(now)s, %(client_maximum)s, %(client_window)s, %(client_free)s,
            %(client_delay)s, %(client_delay_maximum)s
        ) AS of_client
        LEFT JOIN LATERAL (
            SELECT reservation.*
            FROM (SELECT %(recipient_key)s AS key WHERE of_client.retry_at IS NULL OFFSET 0) AS allowed
            CROSS JOIN LATERAL reserve_attempt(
                allowed.key, %(now)s, %(recipient_maximum)s, %(recipient_window)s, %(recipient_free)s,
                %(recipient_delay)s, %(recipient_delay_maximum)s
            ) AS reservation
        ) AS of_recipient ON true
        """,
        {
            "client_key": client[0],
            "recipient_key": recipient[0],
            "now": now,
            **client[1].parameters("client"),
            **recipient[1].parameters("recipient"),
        },
    )
    retry_at: datetime | None = row["retry_at"] if row else None
    return retry_at


def require_factor_change(connection: Connection, account_id: UUID, now: datetime) -> None:
    """Queue the guard and count: the round trip raises TooManyRequests over FACTOR_CHANGES.

    What it guards may compute the hashes of ten recovery codes, as much as ten logins.
    """
    connection.add(
        """
        SELECT require((SELECT retry_at FROM reserve_attempt(
            %(key)s, %(now)s, %(limit_maximum)s, %(limit_window)s, %(limit_free)s,
            %(limit_delay)s, %(limit_delay_maximum)s)) IS NULL, 'too_many_factor_changes')
        """,
        {"key": f"factor_changes:{account_id}", "now": now, **FACTOR_CHANGES.parameters("limit")},
        refused={
            "too_many_factor_changes": TooManyRequests(
                retry_after=int((FACTOR_CHANGES.window or timedelta()).total_seconds())
            )
        },
    )


def give_back(connection: Connection, key: str) -> None:
    """Queue the return of one reservation, and of the delay that it began: the attempt was no failure."""
    connection.add(
        """
        UPDATE rate_limits SET count = GREATEST(count - 1, 0), blocked_until = NULL WHERE key = %(key)s
        """,
        {"key": key},
    )


def clear(connection: Connection, key: str) -> None:
    """Queue the end of a run of consecutive failures."""
    connection.add("DELETE FROM rate_limits WHERE key = %(key)s", {"key": key})


def clear_account(connection: Connection, account_id: UUID) -> None:
    """Queue the end of both runs of an account; in the order in which they are reserved."""
    clear(connection, account_key(account_id))
    clear(connection, factor_key(account_id))


def forget_account(connection: Connection, account_id: UUID) -> None:
    """Queue the removal of both counters of an account whose row is locked, but for one that is in use.

    Whoever holds a counter waits for the account, as a login does; to wait for the counter here would be a
    deadlock.
    """
    connection.add(
        """
        WITH free AS (
            SELECT key FROM rate_limits WHERE key = ANY (%(keys)s) FOR UPDATE SKIP LOCKED
        )
        DELETE FROM rate_limits USING free WHERE rate_limits.key = free.key
        """,
        {"keys": [account_key(account_id), factor_key(account_id)]},
    )


def delete_meaningless(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete counters that count like none at all since a moment; return how many.

    That is: attempts whose window was over, and runs of no failure, neither of them blocked. A run of
    failures never gets old, for an account or for an identifier that nobody has: a lock-out that expired
    would give its guesses back (ASVS 6.3.1), and one that expired for unknown identifiers alone would tell
    which those are (ASVS 6.3.8).
    """
    row = connection.fetch_one(
        """
        WITH meaningless AS (
            SELECT key FROM rate_limits
            WHERE updated_at < %(before)s
              AND (window_ends_at < %(before)s OR window_ends_at IS NULL AND count = 0)
              AND (blocked_until IS NULL OR blocked_until < %(before)s)
            LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM rate_limits USING meaningless WHERE rate_limits.key = meaningless.key RETURNING 1
        )
        SELECT count(*) AS deleted FROM deleted
        """,
        {"before": before, "limit": limit},
    )
    return int(row["deleted"]) if row else 0


def seconds_until(moment: datetime, now: datetime) -> int:
    """Return the whole seconds for a Retry-After header, at least one."""
    return max(1, math.ceil((moment - now).total_seconds()))

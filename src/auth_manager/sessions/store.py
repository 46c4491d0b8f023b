"""SQL of the sessions and refresh_lines tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from auth_manager.account_roles import GRANTS
from auth_manager.accounts import Account
from auth_manager.accounts.store import account_from
from auth_manager.database import Connection, Row
from auth_manager.errors import InvalidCredentials, NotFound
from auth_manager.sessions import RefreshLine, Session

_SESSION = """session.id AS session_id, session.account_id, session.created_at AS session_created_at,
    session.last_used_at, session.expires_at, session.authenticated_at, session.amr, session.acr,
    session.address, session.user_agent, session.impersonator_id"""
"""The columns of a session beside those of its account."""


def insert(
    connection: Connection,
    session: Session,
    line: RefreshLine | None,
    *,
    password_changed_at: datetime,
    factors_changed_at: datetime | None,
) -> None:
    """Queue a session and its first refresh line, None where nothing is refreshed.

    The round trip raises InvalidCredentials when, since the account was read, it was disabled or deleted or
    its password or factors changed: the row lock makes whoever changes it wait, and us re-read.
    """
    connection.add(
        """
        WITH account AS (
            SELECT id FROM accounts
            WHERE id = %(account_id)s AND disabled_at IS NULL
              AND password_changed_at = %(password_changed_at)s
              AND factors_changed_at IS NOT DISTINCT FROM %(factors_changed_at)s
            FOR SHARE
        ), session AS (
            INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at, authenticated_at,
                                  amr, acr, address, user_agent, impersonator_id)
            SELECT %(id)s, account.id, %(created_at)s, %(created_at)s, %(expires_at)s, %(authenticated_at)s,
                   %(amr)s, %(acr)s, %(address)s, %(user_agent)s, %(impersonator_id)s::uuid
            FROM account
            ON CONFLICT ON CONSTRAINT sessions_pkey DO NOTHING -- sent twice, written once
            RETURNING id
        ), line AS (
            INSERT INTO refresh_lines (id, session_id, client_id, scope, counter, rotated_at)
            SELECT %(line_id)s::uuid, session.id, %(client_id)s, %(scope)s, %(counter)s::bigint,
                   clock_timestamp()
            FROM session WHERE %(line_id)s::uuid IS NOT NULL
        )
        SELECT require(EXISTS (SELECT FROM account), 'account_changed')
        """,
        {
            "id": session.id,
            "account_id": session.account_id,
            "created_at": session.created_at,
            "expires_at": session.expires_at,
            "authenticated_at": session.authenticated_at,
            "amr": list(session.amr),
            "acr": session.acr,
            "address": session.address,
            "user_agent": session.user_agent,
            "impersonator_id": session.impersonator_id,
            "line_id": line.id if line else None,
            "client_id": line.client_id if line else None,
            "scope": line.scope if line else None,
            "counter": line.counter if line else None,
            "password_changed_at": password_changed_at,
            "factors_changed_at": factors_changed_at,
        },
        refused={"account_changed": InvalidCredentials()},
    )


class RefreshOutcome(StrEnum):
    """What became of a refresh token."""

    ROTATED = "rotated"
    REPEATED = "repeated"
    REUSED = "reused"
    EXPIRED = "expired"
    ENDED = "ended"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The outcome, and the session and account as they are after it; `line.counter` is current."""

    outcome: RefreshOutcome
    session: Session
    line: RefreshLine
    account: Account


def rotate(
    connection: Connection,
    line_id: UUID,
    counter: int,
    *,
    now: datetime,
    idle_lifetime: timedelta,
    grace: timedelta,
) -> Refreshed | None:
    """Advance a refresh line by one, in one round trip; None when there is no such line.

    The first statement locks the session, which deletion locks before the line as well; the second then
    reads what the one before us left, so that of any number of parallel calls exactly one rotates. A token
    one step behind is `REPEATED` within `grace` of the rotation and `REUSED` after it, which ends the session
    here. The grace is measured by the database's clock alone, because two sandboxes may disagree by more than
    its few seconds.
    """
    parameters = {
        "line_id": line_id,
        "counter": counter,
        "now": now,
        "idle_lifetime": idle_lifetime,
        "grace": grace,
    }
    connection.add(
        """
        SELECT FROM refresh_lines JOIN sessions ON sessions.id = refresh_lines.session_id
        WHERE refresh_lines.id = %(line_id)s FOR UPDATE OF sessions
        """,
        parameters,
    )
    row = connection.fetch_one(
        f"""
        WITH found AS (
            SELECT refresh_lines.session_id, CASE
                WHEN sessions.ended_at IS NOT NULL THEN 'ended'
                WHEN accounts.disabled_at IS NOT NULL THEN 'disabled'
                WHEN sessions.expires_at <= GREATEST(%(now)s, now())
                  OR sessions.last_used_at + %(idle_lifetime)s <= GREATEST(%(now)s, now()) THEN 'expired'
                WHEN refresh_lines.counter = %(counter)s THEN 'rotated'
                WHEN refresh_lines.counter = %(counter)s + 1
                 AND clock_timestamp() <= refresh_lines.rotated_at + %(grace)s THEN 'repeated'
                ELSE 'reused' END AS outcome
            FROM refresh_lines
            JOIN sessions ON sessions.id = refresh_lines.session_id
            JOIN accounts ON accounts.id = sessions.account_id
            WHERE refresh_lines.id = %(line_id)s
        ), line AS (
            UPDATE refresh_lines SET
                counter = counter + (found.outcome = 'rotated')::int,
                rotated_at = CASE WHEN found.outcome = 'rotated' THEN clock_timestamp() ELSE rotated_at END
            FROM found WHERE refresh_lines.id = %(line_id)s
            RETURNING refresh_lines.*
        ), session AS (
            UPDATE sessions SET
                last_used_at = CASE WHEN found.outcome IN ('rotated', 'repeated') THEN
                    GREATEST(last_used_at, %(now)s) ELSE last_used_at END,
                ended_at = CASE WHEN found.outcome = 'reused' THEN %(now)s ELSE ended_at END,
                end_reason = CASE WHEN found.outcome = 'reused' THEN 'refresh_token_reused'
                                  ELSE end_reason END
            FROM found WHERE sessions.id = found.session_id
            RETURNING sessions.*
        )
        SELECT found.outcome, accounts.*, {GRANTS},
               line.client_id, line.scope, line.counter, {_SESSION}
        FROM found CROSS JOIN line CROSS JOIN session JOIN accounts ON accounts.id = session.account_id
        """,  # noqa: S608 -- a constant
        parameters,
    )
    if row is None:
        return None
    return Refreshed(
        outcome=RefreshOutcome(row["outcome"]),
        session=_joined_session_from(row),
        line=RefreshLine(line_id, row["client_id"], row["scope"], row["counter"]),
        account=account_from(row),
    )


def use_line(
    connection: Connection, line_id: UUID, counter: int, *, now: datetime, idle_lifetime: timedelta
) -> tuple[Session, Account] | None:
    """Mark the live session whose line stands at exactly this counter as used, in one round trip.

    Nothing rotates. None for a token that was traded, a session that is over, or a disabled account.
    """
    row = connection.fetch_one(
        f"""
        WITH session AS (
            UPDATE sessions SET last_used_at = GREATEST(sessions.last_used_at, %(now)s)
            FROM refresh_lines, accounts
            WHERE refresh_lines.id = %(line_id)s AND refresh_lines.counter = %(counter)s
              AND sessions.id = refresh_lines.session_id AND sessions.ended_at IS NULL
              AND sessions.expires_at > GREATEST(%(now)s, now())
              AND sessions.last_used_at + %(idle_lifetime)s > GREATEST(%(now)s, now())
              AND accounts.id = sessions.account_id AND accounts.disabled_at IS NULL
            RETURNING sessions.*
        )
        SELECT accounts.*, {GRANTS}, {_SESSION}
        FROM session JOIN accounts ON accounts.id = session.account_id
        """,  # noqa: S608 -- a constant
        {"line_id": line_id, "counter": counter, "now": now, "idle_lifetime": idle_lifetime},
    )
    if row is None:
        return None
    return _joined_session_from(row), account_from(row)


def list_live(
    connection: Connection,
    account_id: UUID,
    *,
    now: datetime,
    idle_lifetime: timedelta,
    before: UUID | None,
    limit: int,
) -> list[Session]:
    """Return live sessions, newest first, those older than session `before`."""
    rows = connection.fetch_all(
        """
        SELECT * FROM sessions
        WHERE account_id = %(account_id)s AND ended_at IS NULL AND expires_at > %(now)s
          AND last_used_at + %(idle_lifetime)s > %(now)s
          AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {
            "account_id": account_id,
            "now": now,
            "idle_lifetime": idle_lifetime,
            "before": before,
            "limit": limit,
        },
    )
    return [_session_from(row) for row in rows]


def _joined_session_from(row: Row) -> Session:
    return _session_from(row, id_column="session_id", created_column="session_created_at")


def _session_from(row: Row, *, id_column: str = "id", created_column: str = "created_at") -> Session:
    return Session(
        id=row[id_column],
        account_id=row["account_id"],
        created_at=row[created_column],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
        authenticated_at=row["authenticated_at"],
        amr=tuple(row["amr"]),
        acr=row["acr"],
        address=row["address"],
        user_agent=row["user_agent"],
        impersonator_id=row["impersonator_id"],
    )


def list_all(connection: Connection, account_id: UUID, *, limit: int) -> list[Row]:
    """Return the latest sessions, ended ones too, newest first, in one round trip: for an export."""
    return connection.fetch_all(
        """
        SELECT id, created_at, last_used_at, expires_at, authenticated_at, amr, acr, host(address) AS address,
               user_agent, ended_at, end_reason
        FROM sessions WHERE account_id = %(account_id)s ORDER BY id DESC LIMIT %(limit)s
        """,
        {"account_id": account_id, "limit": limit},
    )


def renew_authentication(
    connection: Connection, session_id: UUID, *, amr: Sequence[str], acr: str, now: datetime
) -> tuple[Session, Account] | None:
    """Note that the owner of a live session authenticated again, in one round trip; None when it ended.

    `acr` is the session's assurance from now on. Returns the account as it is now, too.
    """
    row = connection.fetch_one(
        f"""
        WITH session AS (
            UPDATE sessions SET authenticated_at = %(now)s, last_used_at = GREATEST(last_used_at, %(now)s),
                acr = %(acr)s,
                amr = ARRAY(SELECT DISTINCT method FROM unnest(amr || %(amr)s::text[]) AS method
                            ORDER BY method)
            WHERE id = %(session_id)s AND ended_at IS NULL AND expires_at > %(now)s
            RETURNING *
        )
        SELECT accounts.*, {GRANTS}, {_SESSION}
        FROM session JOIN accounts ON accounts.id = session.account_id
        """,  # noqa: S608 -- constants
        {"session_id": session_id, "amr": list(amr), "acr": acr, "now": now},
    )
    return (_joined_session_from(row), account_from(row)) if row else None


def lower_assurance(connection: Connection, account_id: UUID, *, acr: str) -> None:
    """Queue that the live sessions of an account have this assurance: its second factors are gone."""
    connection.add(
        "UPDATE sessions SET acr = %(acr)s WHERE account_id = %(account_id)s AND ended_at IS NULL",
        {"account_id": account_id, "acr": acr},
    )


def require_owned(connection: Connection, account_id: UUID, session_id: UUID, *, now: datetime) -> None:
    """Queue the guard: the round trip raises NotFound unless this is a live session of the account."""
    connection.add(
        """
        SELECT require(EXISTS (
            SELECT FROM sessions WHERE id = %(session_id)s AND account_id = %(account_id)s
            AND ended_at IS NULL AND expires_at > %(now)s), 'session_not_found')
        """,
        {"session_id": session_id, "account_id": account_id, "now": now},
        refused={"session_not_found": NotFound()},
    )


def end_sessions(
    connection: Connection,
    account_id: UUID,
    *,
    only: UUID | None = None,
    except_for: UUID | None = None,
    reason: str,
    now: datetime,
) -> None:
    """Queue the end of an account's live sessions: all, only one, or all but one."""
    connection.add(
        """
        UPDATE sessions SET ended_at = %(now)s, end_reason = %(reason)s
        WHERE account_id = %(account_id)s AND ended_at IS NULL
          AND (%(only)s::uuid IS NULL OR id = %(only)s::uuid)
          AND (%(except_for)s::uuid IS NULL OR id <> %(except_for)s::uuid)
        """,
        {
            "account_id": account_id,
            "only": only,
            "except_for": except_for,
            "reason": reason,
            "now": now,
        },
    )


def end_all(connection: Connection, account_ids: Sequence[UUID], *, reason: str, now: datetime) -> None:
    """Queue the end of every live session of some accounts."""
    connection.add(
        """
        UPDATE sessions SET ended_at = %(now)s, end_reason = %(reason)s
        WHERE account_id = ANY (%(account_ids)s::uuid[]) AND ended_at IS NULL
        """,
        {"account_ids": list(account_ids), "reason": reason, "now": now},
    )


def delete_over(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete sessions that ended or expired before a moment, with their refresh lines; return how many.

    What somebody works with is skipped. A refresh token of theirs is then unknown instead of refused as old.
    """
    row = connection.fetch_one(
        """
        WITH over AS (
            SELECT id FROM sessions WHERE expires_at < %(before)s OR ended_at < %(before)s
            LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM sessions USING over WHERE sessions.id = over.id RETURNING 1
        )
        SELECT count(*) AS deleted FROM deleted
        """,
        {"before": before, "limit": limit},
    )
    return int(row["deleted"]) if row else 0

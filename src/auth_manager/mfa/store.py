"""SQL that reads over all factors of an account."""

from uuid import UUID

from auth_manager.account_roles import GRANTS, read_grants
from auth_manager.database import Connection
from auth_manager.mfa import Overview


def find_overview(connection: Connection, account_id: UUID) -> Overview | None:
    """Return what an account has, in one round trip; None when it is gone."""
    row = connection.fetch_one(
        f"""
        SELECT totp.confirmed_at, totp.last_used_at, {GRANTS},
               (SELECT count(*) FROM passkeys WHERE account_id = accounts.id) AS passkeys,
               (SELECT count(*) FROM recovery_codes
                WHERE account_id = accounts.id AND used_at IS NULL) AS recovery_codes,
               (SELECT count(*) FROM trusted_devices
                WHERE account_id = accounts.id AND expires_at > now()
                  AND password_changed_at = accounts.password_changed_at) AS trusted_devices
        FROM accounts LEFT JOIN totp_factors AS totp
             ON totp.account_id = accounts.id AND totp.confirmed_at IS NOT NULL
        WHERE accounts.id = %(account_id)s
        """,  # noqa: S608 -- a constant
        {"account_id": account_id},
    )
    if row is None:
        return None
    return Overview(
        totp_confirmed_at=row["confirmed_at"],
        totp_last_used_at=row["last_used_at"],
        passkeys=row["passkeys"],
        recovery_codes_left=row["recovery_codes"],
        trusted_devices=row["trusted_devices"],
        permissions=read_grants(row["grants"]).permissions,
    )

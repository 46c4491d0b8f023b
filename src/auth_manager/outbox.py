"""Messages written in the same transaction as the change they announce; delivery reads them later."""

from datetime import datetime
from uuid import UUID

from auth_manager.database import Connection
from auth_manager.ids import new_id

VERIFY_EMAIL = "verify_email"
ALREADY_REGISTERED = "already_registered"
USERNAME_TAKEN = "username_taken"


def add_verification(connection: Connection, recipient: str, *, account_id: UUID, now: datetime) -> None:
    """Queue the mail that proves an address, to the address as its owner typed it."""
    connection.add(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, created_at)
        VALUES (%(id)s, %(kind)s, %(recipient)s, %(account_id)s, %(now)s)
        ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING -- sent twice, written once
        """,
        {
            "id": new_id(),
            "kind": VERIFY_EMAIL,
            "recipient": recipient,
            "account_id": account_id,
            "now": now,
        },
    )


def add_registration_notice(
    connection: Connection, *, account_id: UUID, email: str, email_normalized: str, now: datetime
) -> str:
    """Write the mail that a registration leads to and return its kind, in one statement for all outcomes.

    VERIFY_EMAIL when `account_id` was inserted; ALREADY_REGISTERED, to the stored address of the owner, when
    the address was taken; USERNAME_TAKEN when only the username was.
    """
    row = connection.fetch_one(
        """
        INSERT INTO outbox (id, kind, recipient, account_id, created_at)
        SELECT %(id)s,
               CASE WHEN owner.id = %(account_id)s THEN %(verify_email)s
                    WHEN owner.id IS NOT NULL THEN %(already_registered)s
                    ELSE %(username_taken)s END,
               COALESCE(owner.email, %(email)s), owner.id, %(now)s
        FROM (SELECT) AS one LEFT JOIN accounts AS owner ON owner.email_normalized = %(email_normalized)s
        RETURNING kind
        """,
        {
            "id": new_id(),
            "account_id": account_id,
            "email": email,
            "email_normalized": email_normalized,
            "now": now,
            "verify_email": VERIFY_EMAIL,
            "already_registered": ALREADY_REGISTERED,
            "username_taken": USERNAME_TAKEN,
        },
    )
    return str(row["kind"]) if row else USERNAME_TAKEN


def forget(connection: Connection, account_id: UUID) -> None:
    """Drop what was not sent yet to an account that is being erased.

    By address too: a notice that a username was taken belongs to no account.
    """
    connection.add(
        """
        DELETE FROM outbox USING accounts
        WHERE accounts.id = %(account_id)s
          AND (outbox.account_id = accounts.id OR lower(outbox.recipient) = accounts.email_normalized)
        """,
        {"account_id": account_id},
    )

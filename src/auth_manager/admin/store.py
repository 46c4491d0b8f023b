"""SQL of what administrators look at."""

from uuid import UUID

from auth_manager.database import Connection
from auth_manager.errors import NotFound


def require_known(connection: Connection, account_id: UUID) -> None:
    """Queue the guard of a reading: the round trip raises NotFound unless there is such an account."""
    connection.add(
        "SELECT require(EXISTS (SELECT FROM accounts WHERE id = %(account_id)s), 'account_unknown')",
        {"account_id": account_id},
        refused={"account_unknown": NotFound()},
    )

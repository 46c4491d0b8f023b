"""SQL of the roles table."""

from uuid import UUID

from psycopg2.extras import Json

from auth_manager.database import Connection, Row
from auth_manager.errors import RoleTaken
from auth_manager.roles import Role


def insert(connection: Connection, role: Role) -> None:
    """Queue a new role; the round trip raises RoleTaken when there is one of this name.

    One of the same content and microsecond is this one, sent before by a connection that was lost.
    """
    connection.add(
        """
        WITH created AS (
            INSERT INTO roles (name, description, permissions, claims, is_default, created_at, updated_at)
            VALUES (%(name)s, %(description)s, %(permissions)s::text[], %(claims)s, %(is_default)s,
                    %(created_at)s, %(created_at)s)
            ON CONFLICT ON CONSTRAINT roles_pkey DO NOTHING
            RETURNING 1
        )
        SELECT require(EXISTS (SELECT FROM created) OR EXISTS (
            SELECT FROM roles WHERE name = %(name)s AND created_at = %(created_at)s
              AND (description, permissions, claims, is_default)
                  = (%(description)s, %(permissions)s::text[], %(claims)s::jsonb, %(is_default)s)
        ), 'role_taken')
        """,
        {**_columns(role), "created_at": role.created_at},
        refused={"role_taken": RoleTaken()},
    )


def update(connection: Connection, role: Role) -> None:
    """Queue the new content of a role."""
    connection.add(
        """
        UPDATE roles SET description = %(description)s, permissions = %(permissions)s::text[],
                         claims = %(claims)s, is_default = %(is_default)s, updated_at = %(updated_at)s
        WHERE name = %(name)s
        """,
        {**_columns(role), "updated_at": role.updated_at},
    )


def delete(connection: Connection, name: str) -> None:
    """Queue the end of a role; nobody has it from then on."""
    connection.add("DELETE FROM roles WHERE name = %(name)s", {"name": name})


def find(connection: Connection, name: str) -> Role | None:
    """Return a role, in one round trip."""
    row = connection.fetch_one("SELECT * FROM roles WHERE name = %(name)s", {"name": name})
    return _role_from(row) if row else None


def lock(connection: Connection, name: str) -> Role | None:
    """Return a role, in one round trip; nobody changes it or is given it until the transaction ends."""
    row = connection.fetch_one("SELECT * FROM roles WHERE name = %(name)s FOR UPDATE", {"name": name})
    return _role_from(row) if row else None


def list_page(connection: Connection, *, after: str, limit: int) -> list[Role]:
    """Return roles by name, those after one, in one round trip."""
    rows = connection.fetch_all(
        """
        SELECT * FROM roles WHERE name COLLATE "C" > %(after)s
        ORDER BY name COLLATE "C" LIMIT %(limit)s
        """,
        {"after": after, "limit": limit},
    )
    return [_role_from(row) for row in rows]


def count_holders(connection: Connection, name: str) -> int:
    """Return how many accounts have a role, in one round trip."""
    row = connection.fetch_one(
        "SELECT count(*) AS holders FROM account_roles WHERE role = %(name)s", {"name": name}
    )
    return int(row["holders"]) if row else 0


def roles_of(connection: Connection, account_id: UUID) -> frozenset[str]:
    """Return the roles of an account, in one round trip."""
    rows = connection.fetch_all(
        "SELECT role FROM account_roles WHERE account_id = %(account_id)s", {"account_id": account_id}
    )
    return frozenset(row["role"] for row in rows)


def _columns(role: Role) -> dict[str, object]:
    return {
        "name": role.name,
        "description": role.description,
        "permissions": list(role.permissions),
        "claims": Json(dict(role.claims)),
        "is_default": role.is_default,
    }


def _role_from(row: Row) -> Role:
    return Role(
        name=row["name"],
        description=row["description"],
        permissions=tuple(row["permissions"]),
        claims=row["claims"],
        is_default=row["is_default"],
        is_built_in=row["is_built_in"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )

"""Who vouches for the database's server: the authorities of Amazon RDS, unless others were chosen.

libpq refuses to connect where the server must be checked and nobody said by whom, as in the Lambda image.
"""

import os
from pathlib import Path

from psycopg2.extensions import parse_dsn

RDS_AUTHORITIES = Path(__file__).with_name("data") / "rds_authorities.pem"
"""Roots of RDS and Aurora, and of Amazon Trust Services, which vouches for RDS Proxy."""

_CHECKED = frozenset({"verify-full"})
"""Not `verify-ca`, which asks for no name: Amazon's public authorities vouch for anybody's server."""


def find_authorities(url: str) -> dict[str, str]:
    """Return what the URL lacks to check the server: the connection parameter `sslrootcert`, or nothing.

    A choice always wins: `sslrootcert` in the URL, PGSSLROOTCERT, ~/.postgresql/root.crt, and an sslmode that
    checks no one. Under `require` a file would turn a check on (libpq documentation, "Client Verification of
    Server Certificates").

    Raises:
        psycopg2.ProgrammingError: not a libpq connection string.
    """
    parameters = parse_dsn(url)
    if parameters.get("sslmode", os.environ.get("PGSSLMODE")) not in _CHECKED:
        return {}
    if parameters.get("sslrootcert", os.environ.get("PGSSLROOTCERT")):
        return {}
    # pathlib raises where there is no home or it may not be read; libpq then has no such file.
    if os.path.exists(os.path.expanduser("~/.postgresql/root.crt")):  # noqa: PTH110, PTH111
        return {}
    return {"sslrootcert": str(RDS_AUTHORITIES)}

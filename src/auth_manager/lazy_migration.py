"""Lazy migration: at the first login of an imported account without a hash, its former system is asked.

By a callback (former_system.py) or Cognito's API (aws/cognito.py); only a deployment that has one loads it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from auth_manager.errors import FormerSystemUnavailable
from auth_manager.observability import count, log_event

DEADLINE = 3.0
"""Seconds for one question, all included; whoever logs in waits for it."""


@dataclass(frozen=True, slots=True)
class FormerUser:
    """Whose password is asked about."""

    id: UUID
    email: str
    username: str | None


CheckElsewhere = Callable[[FormerUser, str], bool]
"""Tells whether the former system takes the password; raises FormerSystemUnavailable: it does not say."""


def unavailable(reason: str) -> FormerSystemUnavailable:
    """Count and log that a former system gave no answer, and return the error that says so."""
    count("lazy_migration_unavailable")
    log_event("lazy_migration_unavailable", reason=reason)
    return FormerSystemUnavailable()

"""What every service works with, built once in app.create_app and passed down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from auth_manager.cached_secret import CachedSecret
from auth_manager.database import Database
from auth_manager.lazy_migration import CheckElsewhere
from auth_manager.one_time_secrets import OneTimeSecrets
from auth_manager.passwords import Passwords
from auth_manager.secret_keys import SecretKeys
from auth_manager.settings import Settings
from auth_manager.signing_keys import KeySet
from auth_manager.tokens import AccessTokens, Cursors, RefreshTokens


@dataclass(frozen=True, slots=True)
class Resources:
    """Long-lived, shared by every request, safe to use from several threads."""

    settings: Settings
    database: Database
    passwords: Passwords
    signing_keys: CachedSecret[KeySet]
    secret_keys: SecretKeys
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    cursors: Cursors
    one_time_secrets: OneTimeSecrets
    hand_over: Callable[[Sequence[UUID]], None]
    """Tells who delivers mail that messages were committed. Never raises: the relay finds what it lost."""
    check_elsewhere: CheckElsewhere | None = None
    """Asks the former system of an imported account without a hash; None where none is set."""

"""Second factors at sign-in, and what an account has of them."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Overview:
    """The factors of an account: when one-time passwords were confirmed and last used, how many others.

    None: there are no one-time passwords, or they were not used since. `permissions` are what its roles give.
    """

    totp_confirmed_at: datetime | None
    totp_last_used_at: datetime | None
    passkeys: int
    recovery_codes_left: int
    trusted_devices: int
    permissions: tuple[str, ...]

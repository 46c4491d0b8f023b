"""SnapStart: one process is started, stored with its memory, and restored as many, maybe weeks later.

What must not be shared or old is left behind: connections, secrets and their age, deadlines of a clock that
stood still, and the state of the random number generators. Ids and tokens draw on `os.urandom`, which the
kernel reseeds; uuid6 keeps only the last time, as a lower bound.
"""

import os
import random
import ssl
from collections.abc import Callable

SEED_BYTES = 48
"""What an AES-256 generator takes (NIST SP 800-90A, table 3)."""


def is_snapshot() -> bool:
    """Tell whether Lambda is about to take a snapshot of this process."""
    return os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"


def register_hooks(before_snapshot: Callable[[], None], after_restore: Callable[[], None]) -> None:
    """Have Lambda call these; the library is the runtime's own, in AWS's base images from Python 3.12 on."""
    from snapshot_restore_py import (  # noqa: PLC0415 -- where SnapStart is, and nowhere else
        register_after_restore,
        register_before_snapshot,
    )

    register_before_snapshot(before_snapshot)
    register_after_restore(reseed)
    register_after_restore(after_restore)


def reseed() -> None:
    """Make the generators of this process differ from those of its twins.

    There are three besides the kernel's: Python's (jitter of retries), that of Python's OpenSSL (TLS), and
    that of cryptography's (blinding, ECDSA). OpenSSL notices a fork, and no restore.
    """
    from cryptography.hazmat.bindings.openssl.binding import Binding  # noqa: PLC0415 -- as above

    random.seed()
    ssl.RAND_add(os.urandom(SEED_BYTES), SEED_BYTES)
    Binding.lib.RAND_add(os.urandom(SEED_BYTES), SEED_BYTES, SEED_BYTES)

"""The keys of a laptop: made on the first start, kept, and marked so that no deployment accepts them."""

import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from auth_manager.settings import LOCAL_KEY_MARK
from auth_manager.signing_keys import LOCAL_MEMBER, generate_signing_key, serialize_key_set


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """What `Settings` takes as `signing_keys_file` and `secret_keys`."""

    signing_keys_file: Path
    secret_keys: tuple[str, ...] = field(repr=False)


def load_or_generate_local_keys(directory: Path) -> LocalKeys:
    """Return the keys in `directory`, made first where they are missing; only the owner can read them.

    Two starts at once end with the same keys. The first start can take seconds: it makes an RSA key.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    signing_keys, secret_keys = directory / "signing-keys.json", directory / "secret-keys"
    _create_once(signing_keys, _generate_signing_keys)
    _create_once(secret_keys, _generate_secret_key)
    return LocalKeys(signing_keys, (secret_keys.read_text(encoding="ascii").strip(),))


def _generate_signing_keys() -> str:
    return serialize_key_set([generate_signing_key("RS256") | {LOCAL_MEMBER: True}])


def _generate_secret_key() -> str:
    return LOCAL_KEY_MARK + secrets.token_urlsafe(32)


def _create_once(path: Path, generate: Callable[[], str]) -> None:
    """Create a file that is complete from its first moment, unless another start was faster.

    A hard link and not a rename: a rename would replace the keys that the other start is already using.
    """
    if path.exists():
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(generate() + "\n")
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink()

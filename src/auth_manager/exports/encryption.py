"""Encrypting an export as a stream, for keys that are not here: the age format (age-encryption.org/v1)."""

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyrage
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from auth_manager.errors import ConfigurationError

Recipient = Any
"""A key of pyrage's, which has no types."""

_LEAST_RSA_BITS = 2048
"""ASVS 11.2.3: 112 bits of security."""

_KEY = re.compile(r"^-----BEGIN [^-]+-----[^-]*-----END .*|^[ \t]*[^#\s].*", re.MULTILINE)
"""In a file: a block of PEM, or a line that is no comment."""


def read_recipient(value: str) -> list[Recipient]:
    """Return who can decrypt: `age1...`, `ssh-rsa ...`, `ssh-ed25519 ...`, PEM, or all of a file of them.

    Raises:
        ConfigurationError: it has no key, something that is none of them, or an RSA key under 2048 bits.
    """
    text = value.strip()
    if not text.startswith(("age1", "ssh-", "-----BEGIN")):
        try:
            text = Path(value).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"--encrypt-to: {value} is no key, and no file that can be read"
            ) from error
    keys = [found.strip() for found in _KEY.findall(text)]
    if not keys:
        raise ConfigurationError(f"--encrypt-to: {value} has no key")
    return [_from_pem(key) if key.startswith("-----BEGIN") else _from_line(key) for key in keys]


def encrypt(pieces: Iterator[bytes], file: BinaryIO, recipients: Sequence[Recipient]) -> None:
    """Write what the pieces are together, encrypted, piece by piece.

    Raises:
        ConfigurationError: there is nobody who could decrypt it. Nothing was written.
        OSError: of the file; and whatever the pieces raise.
    """
    if not recipients:
        raise ConfigurationError("an encrypted export needs a key")
    source, target = _Pieces(pieces), _Target(file)
    try:
        pyrage.encrypt_io(source, target, list(recipients))
    except pyrage.EncryptError as error:
        # It knows only that reading or writing failed.
        raise source.failure or target.failure or error from error


def _from_line(line: str) -> Recipient:
    kind = pyrage.x25519 if line.startswith("age1") else pyrage.ssh
    try:
        recipient: Recipient = kind.Recipient.from_str(line)
    except pyrage.RecipientError as error:
        raise ConfigurationError(f"--encrypt-to: {line[:20]}... is no public key of age or SSH") from error
    return recipient


def _from_pem(text: str) -> Recipient:
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("--encrypt-to: the PEM has no public key") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < _LEAST_RSA_BITS:
        raise ConfigurationError(f"--encrypt-to: the PEM has no RSA key of {_LEAST_RSA_BITS} bits or more")
    return _from_line(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


class _Target:
    """A file that is written, and why it could not be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: Exception | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


class _Pieces(io.RawIOBase):
    """Pieces as a file that is read, and why they ended early."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            try:
                self._rest = memoryview(next(self._pieces, b""))
            except Exception as error:
                self.failure = error
                raise
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

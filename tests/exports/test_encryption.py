"""Exports for somebody's public key."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from auth_manager.errors import ConfigurationError, DatabaseUnavailable
from auth_manager.exports.encryption import encrypt, read_recipient


def identity_of(key: rsa.RSAPrivateKey) -> Any:
    return pyrage.ssh.Identity.from_buffer(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
SSH = RSA.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
IDENTITY = identity_of(RSA)
AGE = pyrage.x25519.Identity.generate()
PIECES = [b"", b"one", b"", os.urandom(300_000), b"last\n"]


def encrypted_to(*values: str) -> bytes:
    file = io.BytesIO()
    recipients = [recipient for value in values for recipient in read_recipient(value)]
    encrypt(iter([piece for piece in PIECES if piece]), file, recipients)
    return file.getvalue()


class TestEncrypt:
    def test_age(self) -> None:
        assert pyrage.decrypt(encrypted_to(str(AGE.to_public())), [AGE]) == b"".join(PIECES)

    @pytest.mark.parametrize(
        "value", [PEM, SSH, SSH + " somebody@example.com"], ids=["pem", "ssh", "comment"]
    )
    def test_rsa(self, value: str) -> None:
        assert pyrage.decrypt(encrypted_to(value), [IDENTITY]) == b"".join(PIECES)

    def test_a_file_of_keys_and_each_of_them_decrypts(self, tmp_path: Path) -> None:
        keys = tmp_path / "keys"
        keys.write_text(f"# two of us\n{AGE.to_public()}\n\n{SSH}\n")
        encrypted = encrypted_to(str(keys))
        for identity in (AGE, IDENTITY):
            assert pyrage.decrypt(encrypted, [identity]) == b"".join(PIECES)

    def test_a_file_with_a_pem(self, tmp_path: Path) -> None:
        (tmp_path / "key.pem").write_text(PEM)
        assert pyrage.decrypt(encrypted_to(str(tmp_path / "key.pem")), [IDENTITY]) == b"".join(PIECES)

    def test_a_file_of_anything_and_each_key_decrypts(self, tmp_path: Path) -> None:
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (tmp_path / "keys").write_text(f"  # us\n{PEM}{AGE.to_public()}\r\n{pem_of(other)}")
        encrypted = encrypted_to(str(tmp_path / "keys"))
        for identity in (AGE, IDENTITY, identity_of(other)):
            assert pyrage.decrypt(encrypted, [identity]) == b"".join(PIECES)

    def test_for_nobody_it_is_refused_and_nothing_is_written(self) -> None:
        file = io.BytesIO()
        with pytest.raises(ConfigurationError, match="needs a key"):
            encrypt(iter([b"secret"]), file, [])
        assert file.getvalue() == b""

    def test_what_the_pieces_raise_comes_through(self) -> None:
        def pieces() -> Iterator[bytes]:
            yield bytes(100_000)
            raise DatabaseUnavailable

        with pytest.raises(DatabaseUnavailable):
            encrypt(pieces(), io.BytesIO(), read_recipient(PEM))

    def test_nobody_else_decrypts(self) -> None:
        with pytest.raises(pyrage.DecryptError):
            pyrage.decrypt(encrypted_to(PEM), [AGE])


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class TestRefusals:
    @pytest.mark.parametrize(
        "value",
        [
            "", "age1x", "ssh-rsa AAAA", "no-such-file",
            "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----",
            pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 -- to be refused
            pem_of(ec.generate_private_key(ec.SECP256R1())),
        ],
        ids=["empty", "age", "ssh", "file", "broken pem", "short rsa", "curve"],
    )  # fmt: skip
    def test_what_is_no_key_is_refused(self, value: str) -> None:
        with pytest.raises(ConfigurationError, match="--encrypt-to"):
            read_recipient(value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "has no key"),
            ("\n \n", "has no key"),
            ("# created: 2026-11-22\n# public key: age1x\n", "has no key"),
            (f"{PEM}age1x\n", "age1x"),
            (f"-----BEGIN PUBLIC KEY-----\n{PEM}", "no public key"),
            (f"{SSH}\nno key at all\n", "no key at all"),
        ],
        ids=["empty", "blank", "comments", "after pem", "two beginnings", "one of two"],
    )
    def test_a_file_without_a_key_or_with_something_else_is_refused(
        self, tmp_path: Path, content: str, message: str
    ) -> None:
        (tmp_path / "keys").write_text(content)
        with pytest.raises(ConfigurationError, match=f"--encrypt-to.*{message}"):
            read_recipient(str(tmp_path / "keys"))

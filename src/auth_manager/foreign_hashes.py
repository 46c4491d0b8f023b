"""Password hashes of other systems that passlib does not know. No HTTP, no database.

Imported accounts alone need this module: `passwords` loads it with the first of them.
"""

import base64
import binascii
import hashlib
import hmac
import re

_FIREBASE = re.compile(
    r"\$fbscrypt\$v=1,n=(?P<log_n>\d+),r=(?P<r>\d+),p=1(?:,ss=(?P<separator>[^,$]+))?,sk=(?P<key>[^,$]+)"
    r"\$(?P<salt>[^$]+)\$(?P<digest>[^$]+)"
)
_ZERO_COUNTER = bytes(16)
_BLOCK = 128
"""Bytes of a block of scrypt for each r (RFC 7914 section 2)."""


def verify_firebase(secret: bytes, stored: str) -> bool:
    """Verify Firebase's own scrypt, in the notation of Supabase's GoTrue; ValueError for another form.

    The key that scrypt derives encrypts the project's signer key, by AES-256 in counter mode; what comes out
    is the hash (github.com/firebase/scrypt). So the signer key stands beside every hash, and both are needed.
    """
    # The cryptography package costs more to load than argon2.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    parts = _FIREBASE.fullmatch(stored)
    if parts is None:
        raise ValueError("not a hash of Firebase's scrypt")
    n, r = 1 << int(parts["log_n"]), int(parts["r"])
    derived = hashlib.scrypt(
        secret,
        salt=_decode(parts["salt"]) + _decode(parts["separator"] or ""),
        n=n,
        r=r,
        p=1,
        maxmem=_BLOCK * r * (n + 4) + 1024 * 1024,
        dklen=32,
    )
    encryptor = Cipher(algorithms.AES(derived), modes.CTR(_ZERO_COUNTER)).encryptor()
    made = encryptor.update(_decode(parts["key"])) + encryptor.finalize()
    return hmac.compare_digest(made, _decode(parts["digest"]))


def verify_wordpress(secret: bytes, stored: str) -> bool:
    """Verify WordPress 6.8's bcrypt: of a digest, so that it reads more than 72 bytes of the password."""
    import bcrypt  # noqa: PLC0415 -- as above

    digest = hmac.digest(b"wp-sha384", secret, "sha384")
    return bcrypt.checkpw(base64.b64encode(digest), stored.removeprefix("$wp").encode())


VERIFIERS = {"firebase_scrypt": verify_firebase, "wordpress_bcrypt": verify_wordpress}
"""By the names of `passwords.FOREIGN_SCHEMES`. Each raises ValueError for what is not of its form."""


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None

"""Passwords: hashing, verification with upgrade, and the policy for new ones. No HTTP, no database.

A password is hashed as the UTF-8 bytes that were received, never normalised (ASVS 6.2.8). NIST SP 800-63B
suggests to normalise; but imported hashes were made of verbatim bytes, keyboards send NFC anyway, and NFKC
would make some different passwords one. Folding (NFKC, case) serves the comparison with lists of words alone.
"""

import base64
import re
import secrets
import string
import threading
import unicodedata
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw

from auth_manager.errors import FieldError, InvalidFields
from auth_manager.settings import Settings
from auth_manager.spending import spending

UNUSABLE_HASH = "!"
"""The stored hash of an account without a password: nothing verifies against it."""

LAZY_HASH = "!lazy"
"""The stored hash of an imported account whose password only its former system can check (lazy_migration)."""

MAXIMUM_BYTES = 1_024
"""Longest password, in UTF-8 (ASVS 6.2.9 asks for 64 characters at least)."""

LEAST_CONTEXT_WORD = 4
"""Code points under which a context word is ignored: "Ann" is in too much."""

LEAST_REMAINDER = 8
"""Code points a password needs beside the context words in it (the minimum of NIST SP 800-63B)."""

COMMON_PASSWORDS = Path(__file__).with_name("data") / "common_passwords.txt.gz"

# What a stored argon2 hash may cost, unless our own settings are higher: about a second on one core.
ARGON2_MEMORY_KIB = 256 * 1_024
ARGON2_WORK_KIB = 4 * ARGON2_MEMORY_KIB  # memory times passes
ARGON2_PARALLELISM = 16

_BCRYPT = r"\$2[aby]\$(?:0[4-9]|1[0-4])\$[./0-9A-Za-z]{53}"
_PBKDF2_ROUNDS = r"(?:[1-9][0-9]{0,5}|1[0-9]{6})"
_SHA_CRYPT_SETTINGS = r"(?:rounds=[1-9][0-9]{3,5}\$)?[./0-9A-Za-z]{0,16}"

_BASE64 = r"[+/0-9A-Za-z]{2,128}={0,2}"

FOREIGN_SCHEMES = {
    "bcrypt": _BCRYPT,
    "bcrypt_sha256": r"\$bcrypt-sha256\$(?:v=2,t=2b,r=|2[ab],)(?:[4-9]|1[0-4])"
    r"\$[./0-9A-Za-z]{22}\$[./0-9A-Za-z]{31}",
    "django_bcrypt": r"bcrypt\$" + _BCRYPT,
    "django_bcrypt_sha256": r"bcrypt_sha256\$" + _BCRYPT,
    "django_pbkdf2_sha1": rf"pbkdf2_sha1\${_PBKDF2_ROUNDS}\$[0-9A-Za-z]+\$[+/0-9A-Za-z]{{27}}=",
    "django_pbkdf2_sha256": rf"pbkdf2_sha256\${_PBKDF2_ROUNDS}\$[0-9A-Za-z]+\$[+/0-9A-Za-z]{{43}}=",
    "pbkdf2_sha1": rf"\$pbkdf2\${_PBKDF2_ROUNDS}\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{{27}}",
    "pbkdf2_sha256": rf"\$pbkdf2-sha256\${_PBKDF2_ROUNDS}\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{{43}}",
    "pbkdf2_sha512": rf"\$pbkdf2-sha512\${_PBKDF2_ROUNDS}\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{{86}}",
    "phpass": r"\$[PH]\$[5-9A-I][./0-9A-Za-z]{30}",
    "scrypt": r"\$scrypt\$ln=(?:[1-9]|1[0-7]),r=[1-8],p=[1-5]\$[+/0-9A-Za-z]+\$[+/0-9A-Za-z]{43}",
    "sha256_crypt": rf"\$5\${_SHA_CRYPT_SETTINGS}\$[./0-9A-Za-z]{{43}}",
    "sha512_crypt": rf"\$6\${_SHA_CRYPT_SETTINGS}\$[./0-9A-Za-z]{{86}}",
    "firebase_scrypt": rf"\$fbscrypt\$v=1,n=(?:[1-9]|1[0-7]),r=[1-8],p=1(?:,ss={_BASE64})?,sk={_BASE64}"
    rf"\${_BASE64}\${_BASE64}",
    "wordpress_bcrypt": r"\$wp" + _BCRYPT,
}
"""The schemes an imported hash may have, each with the only form of it that is evaluated: passlib's, and
those of `foreign_hashes`.

The form is also the bound on what a hash may cost, three seconds on one core at most: bcrypt 2^14, PBKDF2
1,999,999 rounds, SHA-crypt 999,999, phpass 2^20, scrypt 128 MiB. Unstretched schemes (MD5, {SSHA}) are left
out: their owners reset the password.
"""

TRUNCATING_SCHEMES = {"bcrypt", "django_bcrypt"}
"""Schemes that read no more than 72 bytes of a password."""

BCRYPT_BYTES = 72

_ARGON2 = (
    r"(?:argon2)?\$argon2(?:id|i|d)(?:\$v=(?:16|19))?\$m=(?P<memory>[1-9][0-9]{0,9}),t=(?P<passes>[1-9][0-9]{0,9}),"
    r"p=(?P<lanes>[1-9][0-9]{0,9})\$[+/0-9A-Za-z]{11,128}\$[+/0-9A-Za-z]{6,128}"
)
"""Compiled with the first import, not with every start."""

_SEPARATORS = str.maketrans(dict.fromkeys(string.punctuation, " "))


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found; `new_hash`, if any, is to replace the stored hash (ASVS 11.4.2)."""

    ok: bool
    new_hash: str | None = None


REFUSED = Verification(ok=False)


class Passwords:
    """Hashes, verifies and judges passwords as the settings say. One for the process; safe across threads."""

    def __init__(self, settings: Settings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        own_work = settings.argon2_memory_kib * settings.argon2_time_cost
        self._most_memory = max(ARGON2_MEMORY_KIB, settings.argon2_memory_kib)
        self._most_work = max(ARGON2_WORK_KIB, own_work)
        self._minimum_length = settings.password_minimum_length
        self._product_name = settings.product_name
        # Argon2 runs without the GIL and holds its memory meanwhile: this bounds both. Waiting needs no
        # time-out: what is evaluated is bounded in cost, and the server bounds how many requests wait.
        self._slots = threading.BoundedSemaphore(settings.hash_concurrency)
        self._dummy_hash = _make_up_hash(self._hasher)

    def hash(self, password: str) -> str:
        """Return an argon2id hash in PHC form.

        Raises:
            ValueError: the password is over MAXIMUM_BYTES; `check_policy` comes first.
        """
        secret = _encode(password)
        if len(secret) > MAXIMUM_BYTES:
            raise ValueError("the password is too long to hash")
        with self._slots, spending("hashes"):
            return self._hasher.hash(secret)

    def hash_with_salt(
        self, secret: bytes, salt: bytes, *, memory_kib: int, time_cost: int, parallelism: int
    ) -> bytes:
        """Return the 32 bytes of an argon2id hash, for secrets that are found by it."""
        with self._slots, spending("hashes"):
            return hash_secret_raw(
                secret,
                salt,
                time_cost=time_cost,
                memory_cost=memory_kib,
                parallelism=parallelism,
                hash_len=32,
                type=Type.ID,
            )

    def verify_and_upgrade(self, password: str, stored_hash: str | None) -> Verification:
        """Verify a password against the stored hash of an account; None when there is no such account.

        No stored hash makes this raise. What is not evaluated (no account, UNUSABLE_HASH, garbage, a hash
        that asks for too much) takes the time of a wrong password (ASVS 6.3.8). A hash of another scheme or
        of other parameters takes its own time, until its owner's next login replaces it.

        Where an imported hash would take several passwords for one, they are refused (ASVS 6.2.8): those with
        a NUL, which PBKDF2 and scrypt ignore at the end, and those over the 72 bytes that bcrypt reads.
        """
        secret = _encode(password)
        if len(secret) > MAXIMUM_BYTES:
            return REFUSED
        stored = stored_hash or UNUSABLE_HASH
        with self._slots, spending("hashes"):
            ok = self._evaluate(secret, stored)
            if ok is None:
                with suppress(VerifyMismatchError):
                    self._hasher.verify(self._dummy_hash, secret)
        if not ok:
            return REFUSED
        if stored.startswith("$argon2") and not self._hasher.check_needs_rehash(stored):
            return Verification(ok=True)
        return Verification(ok=True, new_hash=self.hash(password))

    def accepts(self, stored_hash: str) -> bool:
        """Tell whether logins would evaluate this hash, or know that there is none."""
        if stored_hash in {UNUSABLE_HASH, LAZY_HASH}:
            return True
        argon2 = re.fullmatch(_ARGON2, stored_hash)
        if argon2 is None:
            return find_scheme(stored_hash) is not None
        return self._is_bounded(int(argon2["memory"]), int(argon2["passes"]), int(argon2["lanes"]))

    def check_policy(
        self, password: str, *, context: Iterable[str | None] = (), pointer: str = "/password"
    ) -> None:
        """Refuse a new password that is too short, too long, common, or made of the account's own words.

        Any characters will do (ASVS 6.2.5). The product's name always belongs to the context (ASVS 6.2.11).

        Args:
            password: as received.
            context: the account's e-mail address (what follows its @ is ignored) and username.
            pointer: the password's place in the request body (RFC 6901).

        Raises:
            InvalidFields: with a FieldError for every reason: `password_too_long` alone, or any of
                `password_too_short`, `password_common` (ASVS 6.2.4), `password_contains_context`.
        """
        if len(_encode(password)) > MAXIMUM_BYTES:
            detail = f"A password has at most {MAXIMUM_BYTES} bytes."
            raise InvalidFields(errors=[FieldError(pointer, "password_too_long", detail)])
        errors = []
        if len(password) < self._minimum_length:
            detail = f"A password has at least {self._minimum_length} characters."
            errors.append(FieldError(pointer, "password_too_short", detail))
        if _is_common(password):
            detail = "This password is on the lists that attackers try first."
            errors.append(FieldError(pointer, "password_common", detail))
        if _is_made_of(password, [self._product_name, *context]):
            detail = "This password is little more than a name of yours or of this service."
            errors.append(FieldError(pointer, "password_contains_context", detail))
        if errors:
            raise InvalidFields(errors=errors)

    def _evaluate(self, secret: bytes, stored: str) -> bool | None:
        """Tell whether the secret matches; None, at no cost, when the stored hash is not to be evaluated."""
        if stored in {UNUSABLE_HASH, LAZY_HASH}:
            return None  # without first compiling the forms, which would mark an unknown account
        argon2_hash = stored.removeprefix("argon2")  # Django's mark
        if not argon2_hash.startswith("$argon2"):
            return _evaluate_foreign(secret, stored)
        try:
            asked = extract_parameters(argon2_hash)
            if not self._is_bounded(asked.memory_cost, asked.time_cost, asked.parallelism):
                return None
            return self._hasher.verify(argon2_hash, secret)
        except VerifyMismatchError:
            return False
        except (VerificationError, ValueError):
            # Not a hash after all. Should memory have run out instead, the dummy will fail too, and say so.
            return None

    def _is_bounded(self, memory_kib: int, time_cost: int, parallelism: int) -> bool:
        return (
            memory_kib <= self._most_memory
            and memory_kib * time_cost <= self._most_work
            and parallelism <= ARGON2_PARALLELISM
        )


def find_scheme(stored: str) -> str | None:
    """Return which of FOREIGN_SCHEMES an imported hash is of, None for what is not to be evaluated."""
    return next((name for name, form in FOREIGN_SCHEMES.items() if re.fullmatch(form, stored)), None)


def fold(text: str) -> str:
    """Return the form in which passwords are compared with lists: without case, width and ligatures."""
    return unicodedata.normalize("NFKC", text).casefold()


def _make_up_hash(hasher: PasswordHasher) -> str:
    """Return a hash of nothing: random salt and digest in PHC form, with the hasher's parameters.

    Verifying against it computes a whole hash and compares it, like any wrong password: only the parameters
    and the lengths decide how long that takes. Hashing something instead would cost each start as much as a
    login. Nobody knows a password that fits; one would take 2^255 attempts.
    """
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).rstrip(b"=").decode()
        for length in (hasher.salt_len, hasher.hash_len)
    )
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${cost}${salt}${digest}"


def _encode(password: str) -> bytes:
    """Return the bytes received; a lone surrogate, which no keyboard sends, is no reason to fail."""
    return password.encode("utf-8", "surrogatepass")


def _evaluate_foreign(secret: bytes, stored: str) -> bool | None:
    """Verify an imported hash; None, at no cost, when it is not to be evaluated with this secret."""
    scheme = find_scheme(stored)
    if scheme is None or b"\0" in secret:
        return None
    if scheme in TRUNCATING_SCHEMES and len(secret) > BCRYPT_BYTES:
        return None
    # Imported accounts alone need these, and passlib costs twice what argon2 does to load.
    from auth_manager.foreign_hashes import VERIFIERS  # noqa: PLC0415

    try:
        if scheme in VERIFIERS:
            return VERIFIERS[scheme](secret, stored)
        from passlib import hash as passlib_schemes  # noqa: PLC0415

        return bool(getattr(passlib_schemes, scheme).verify(secret, stored))
    except ValueError:
        return None


def _words(text: str) -> list[str]:
    """Return the folded parts of a text between spaces and ASCII punctuation."""
    return fold(text).translate(_SEPARATORS).split()


@cache
def _common_passwords() -> bytes:
    """Return the shipped list: folded, sorted, one a line, with a line break at both ends.

    Searched as it is: to scan its 0.6 MB takes a fraction of a millisecond, and a set would take several
    times the memory and the time to load. Only new passwords need the list, so nothing else loads it.
    """
    return zlib.decompress(COMMON_PASSWORDS.read_bytes(), wbits=zlib.MAX_WBITS | 16)


def _is_common(password: str) -> bool:
    """Tell whether the list has the password, with or without its spaces and punctuation."""
    forms = {fold(password), "".join(_words(password))}
    return any(b"\n" + _encode(form) + b"\n" in _common_passwords() for form in forms if form)


def _is_made_of(password: str, context: Iterable[str | None]) -> bool:
    """Tell whether a password is little more than words of the context.

    It is when it has such a word, and what remains without any of them (nor spaces, nor punctuation) is
    under LEAST_REMAINDER code points or a common password. The words are each text up to its @, without its
    spaces and punctuation, and the parts between these, of LEAST_CONTEXT_WORD code points and more.
    """
    found = [_words(text.partition("@")[0]) for text in context if text]
    words = {word for parts in found for word in [*parts, "".join(parts)] if len(word) >= LEAST_CONTEXT_WORD}
    whole = rest = "".join(_words(password))
    for word in sorted(words, key=len, reverse=True):
        rest = rest.replace(word, "")
    return rest != whole and (len(rest) < LEAST_REMAINDER or _is_common(rest))

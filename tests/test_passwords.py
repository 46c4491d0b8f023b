import base64
import hashlib
import hmac
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from passlib import hash as passlib_schemes

from auth_manager import passwords as module
from auth_manager.errors import InvalidFields
from auth_manager.passwords import (
    FOREIGN_SCHEMES,
    MAXIMUM_BYTES,
    UNUSABLE_HASH,
    Passwords,
    Verification,
    fold,
)
from auth_manager.settings import Settings, load_settings
from auth_manager.spending import begin

PASSWORD = "SecurePass123!"
REFUSED = Verification(ok=False)
PASSLIBS = sorted(FOREIGN_SCHEMES.keys() - {"firebase_scrypt", "wordpress_bcrypt"})
CHEAP_ROUNDS = {"scrypt": 4, "phpass": 7} | {name: 4 for name in FOREIGN_SCHEMES if "bcrypt" in name}


def make_settings(**overrides: object) -> Settings:
    required = {
        "database_url": "postgresql://localhost/none",
        "secret_keys": "0123456789abcdefghijklmnopqrstuvwxyz",
        "public_url": "https://auth.example.com",
    }
    return load_settings(**(required | overrides))


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    return Passwords(make_settings())


def hash_foreign(scheme: str, password: str) -> str:
    """The cheapest hash of the scheme."""
    if scheme == "wordpress_bcrypt":
        digest = base64.b64encode(hmac.digest(b"wp-sha384", password.encode(), "sha384"))
        return "$wp" + bcrypt.hashpw(digest, bcrypt.gensalt(4)).decode()
    if scheme == "firebase_scrypt":
        derived = hashlib.scrypt(password.encode(), salt=b"salt+", n=4, r=1, p=1, dklen=32)
        cipher = Cipher(algorithms.AES(derived), modes.CTR(bytes(16))).encryptor()
        key, salt, made = (
            base64.b64encode(part).decode() for part in (b"k" * 64, b"salt", cipher.update(b"k" * 64))
        )
        return f"$fbscrypt$v=1,n=2,r=1,p=1,ss=Kw==,sk={key}${salt}${made}"
    handler: Any = getattr(passlib_schemes, scheme).using(rounds=CHEAP_ROUNDS.get(scheme, 1_000))
    return str(handler.hash(password))


def make_bytes(length: int, last: str) -> str:
    return "x" * (length - 1) + last


def pbkdf2(algorithm: str, password: str, salt: bytes, *, rounds: int) -> str:
    """Derived without passlib, in standard base64."""
    return base64.b64encode(hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, rounds)).decode()


def adapt(encoded: str) -> str:
    """Passlib's base64: '.' for '+', and no padding."""
    return encoded.replace("+", ".").rstrip("=")


# Hashes that passlib did not make, with their passwords.
FOREIGN_VECTORS = {
    "bcrypt, crypt_blowfish": ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
    "sha256_crypt, Drepper": ("Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    "sha512_crypt, Drepper": (
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    "phpass, test.php": ("test12345", "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"),
    "scrypt, RFC 7914": (
        "pleaseletmein",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI",
    ),
    "pbkdf2_sha256": (
        "pässword",
        f"$pbkdf2-sha256$9$c2FsdA${adapt(pbkdf2('sha256', 'pässword', b'salt', rounds=9))}",
    ),
    "pbkdf2_sha512": (
        "pässword",
        f"$pbkdf2-sha512$9$c2FsdA${adapt(pbkdf2('sha512', 'pässword', b'salt', rounds=9))}",
    ),
    "django_pbkdf2_sha256": (
        "lètmein",
        f"pbkdf2_sha256$99$seasalt${pbkdf2('sha256', 'lètmein', b'seasalt', rounds=99)}",
    ),
    "django_pbkdf2_sha1": (
        "lètmein",
        f"pbkdf2_sha1$99$seasalt${pbkdf2('sha1', 'lètmein', b'seasalt', rounds=99)}",
    ),
}

ARGON2_END = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

# phc-winner-argon2, test.c; the second is of version 1.0 and of another type.
ARGON2_VECTORS = {
    "argon2id": "$argon2id$v=19$m=256,t=2,p=1" + ARGON2_END,
    "argon2i 1.0": "$argon2i$m=65536,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
}

DAMAGED = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$!!!"

GARBAGE = [
    DAMAGED,
    "",
    UNUSABLE_HASH,
    "*",
    PASSWORD,
    "\0",
    "ключ",
    "$argon2id$",
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$ключ",
    "$argon2id$v=19$m=x,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
    "$argon2x$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
    "$argon2id$v=19$m=-1,t=-1,p=-1$c29tZXNhbHQ$nf65EOgLrQMR",
    "argon2",
    "$2b$12$short",
    "$2x$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK",
    "$pbkdf2-sha256$0$c2FsdA$",
    "$scrypt$ln=14,r=8$c2FsdA$c2FsdA",
    "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
    "5f4dcc3b5aa765d61d8327deb882cf99",
]

TOO_COSTLY = {
    "argon2 memory": "$argon2id$v=19$m=262145,t=1,p=1" + ARGON2_END,
    "argon2 most memory": "$argon2id$v=19$m=4294967295,t=1,p=1" + ARGON2_END,
    "argon2 passes": "$argon2id$v=19$m=8192,t=129,p=1" + ARGON2_END,
    "argon2 threads": "$argon2id$v=19$m=8192,t=1,p=17" + ARGON2_END,
    "django argon2": "argon2$argon2i$v=19$m=8192,t=129,p=1" + ARGON2_END,
    "bcrypt": "$2b$15$" + 53 * "a",
    "bcrypt_sha256": "$bcrypt-sha256$v=2,t=2b,r=15$" + 22 * "a" + "$" + 31 * "a",
    "django_bcrypt": "bcrypt$$2b$15$" + 53 * "a",
    "pbkdf2_sha256": "$pbkdf2-sha256$2000000$c2FsdA$" + 43 * "a",
    "django_pbkdf2_sha256": "pbkdf2_sha256$10000000$salt$" + 43 * "a" + "=",
    "sha512_crypt": "$6$rounds=1000000$saltstring$" + 86 * "a",
    "phpass": "$P$JIQRaTwmf" + 22 * "a",
    "scrypt memory": "$scrypt$ln=18,r=8,p=1$c2FsdA$" + 43 * "a",
    "scrypt blocks": "$scrypt$ln=14,r=9,p=1$c2FsdA$" + 43 * "a",
    "scrypt passes": "$scrypt$ln=14,r=8,p=6$c2FsdA$" + 43 * "a",
}


class TestHash:
    def test_is_argon2id_with_the_parameters_of_the_settings(self, passwords: Passwords) -> None:
        parameters = extract_parameters(passwords.hash(PASSWORD))
        assert (parameters.type, parameters.version) == (Type.ID, 19)
        assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19_456, 2, 1)

    def test_has_a_salt_of_its_own(self, passwords: Passwords) -> None:
        assert passwords.hash(PASSWORD) != passwords.hash(PASSWORD)

    def test_one_byte_too_long_is_refused(self, passwords: Passwords) -> None:
        with pytest.raises(ValueError, match="too long"):
            passwords.hash("x" * (MAXIMUM_BYTES + 1))


class TestVerifyAndUpgrade:
    @pytest.mark.parametrize(
        "password",
        [
            PASSWORD,
            " leading and trailing spaces ",
            "🔑🐙🦑🐠🐟🐡🦈🐬🐳🐋🦭🐧",
            "nul\0inside and at the end\0",
            "lone \ud800 surrogate",
            "x" * MAXIMUM_BYTES,
        ],
        ids=["plain", "spaces", "emoji", "nul", "surrogate", "longest"],
    )
    def test_the_right_password_is_accepted_and_its_hash_kept(
        self, passwords: Passwords, password: str
    ) -> None:
        assert passwords.verify_and_upgrade(password, passwords.hash(password)) == Verification(ok=True)

    @pytest.mark.parametrize(
        ("stored", "received"),
        [
            (PASSWORD, "SecurePass123?"),
            (PASSWORD, PASSWORD.lower()),
            (PASSWORD, PASSWORD + " "),
            (PASSWORD, PASSWORD + "\0"),
            (PASSWORD, ""),
            ("caf\u00e9 au lait", "cafe\u0301 au lait"),
            ("fi ligature fine", "\ufb01 ligature fine"),
        ],
        ids=["other", "case", "space", "nul", "empty", "decomposed", "compatible"],
    )
    def test_another_password_is_refused(self, passwords: Passwords, stored: str, received: str) -> None:
        """ASVS 6.2.8: exactly as received, so not normalised either."""
        assert passwords.verify_and_upgrade(received, passwords.hash(stored)) == REFUSED

    @pytest.mark.parametrize("length", [73, 100, 128, 200, 255, 256])
    def test_long_passwords_that_differ_in_the_last_byte_never_interchange(
        self, passwords: Passwords, length: int
    ) -> None:
        """The case of Okta, 2024: bcrypt's 72 bytes."""
        stored = passwords.hash(make_bytes(length, "a"))
        assert passwords.verify_and_upgrade(make_bytes(length, "a"), stored).ok
        assert passwords.verify_and_upgrade(make_bytes(length, "b"), stored) == REFUSED

    @pytest.mark.parametrize("stored", [None, *GARBAGE])
    def test_nothing_verifies_without_a_usable_hash(self, passwords: Passwords, stored: str | None) -> None:
        assert passwords.verify_and_upgrade(PASSWORD, stored) == REFUSED
        assert passwords.verify_and_upgrade(UNUSABLE_HASH, stored) == REFUSED

    def test_a_password_over_the_maximum_is_not_hashed(self, passwords: Passwords) -> None:
        """PBKDF2 alone would verify it."""
        password = "x" * (MAXIMUM_BYTES + 1)
        assert passwords.verify_and_upgrade(password, hash_foreign("pbkdf2_sha256", password)) == REFUSED

    @pytest.mark.parametrize(
        "weaker",
        [
            PasswordHasher(memory_cost=8_192, time_cost=1, parallelism=1),
            PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=2),
            PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=1, hash_len=16),
            PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=1, type=Type.I),
            PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=1, type=Type.D),
        ],
        ids=["cheaper", "parallelism", "shorter", "argon2i", "argon2d"],
    )
    def test_other_argon2_parameters_are_upgraded(self, passwords: Passwords, weaker: PasswordHasher) -> None:
        stored = weaker.hash(PASSWORD)
        expect_upgrade(passwords, PASSWORD, stored)
        assert passwords.verify_and_upgrade("wrong", stored) == REFUSED

    @pytest.mark.parametrize("stored", ARGON2_VECTORS.values(), ids=ARGON2_VECTORS)
    def test_argon2_vectors_verify(self, passwords: Passwords, stored: str) -> None:
        expect_upgrade(passwords, "password", stored)
        assert passwords.verify_and_upgrade("Password", stored) == REFUSED

    def test_djangos_argon2_is_upgraded_even_with_our_parameters(self, passwords: Passwords) -> None:
        stored = "argon2" + passwords.hash(PASSWORD)
        expect_upgrade(passwords, PASSWORD, stored)
        assert passwords.verify_and_upgrade("wrong", stored) == REFUSED

    def test_stronger_settings_upgrade_the_hashes_of_weaker_ones(self, passwords: Passwords) -> None:
        stronger = Passwords(make_settings(argon2_time_cost=3))
        verification = stronger.verify_and_upgrade(PASSWORD, passwords.hash(PASSWORD))
        assert verification.new_hash is not None
        assert extract_parameters(verification.new_hash).time_cost == 3

    def test_own_settings_may_exceed_the_bound_on_foreign_cost(self) -> None:
        costly = Passwords(make_settings(argon2_memory_kib=65_536, argon2_time_cost=20))
        assert costly._evaluate(b"wrong", costly._dummy_hash) is False

    def test_the_dummy_costs_a_start_nothing_and_a_verification_the_same(self) -> None:
        """Memory, passes, lanes and lengths are a real hash's: they decide how long a verification takes."""
        spent = begin()
        made = Passwords(make_settings(argon2_memory_kib=20_480, argon2_time_cost=3, argon2_parallelism=2))
        assert spent.hashes.count == 0
        assert extract_parameters(made._dummy_hash) == extract_parameters(made.hash(PASSWORD))

    def test_each_process_has_a_dummy_of_its_own(self) -> None:
        assert Passwords(make_settings())._dummy_hash != Passwords(make_settings())._dummy_hash


def expect_upgrade(passwords: Passwords, password: str, stored: str) -> None:
    verification = passwords.verify_and_upgrade(password, stored)
    assert verification.ok
    assert verification.new_hash is not None
    assert verification.new_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.verify_and_upgrade(password, verification.new_hash) == Verification(ok=True)


class TestVerifyForeignHashes:
    @pytest.mark.parametrize("scheme", FOREIGN_SCHEMES)
    def test_the_right_password_is_upgraded(self, passwords: Passwords, scheme: str) -> None:
        for password in (PASSWORD, "pässwörd mit 🔑"):
            expect_upgrade(passwords, password, hash_foreign(scheme, password))

    @pytest.mark.parametrize("scheme", FOREIGN_SCHEMES)
    def test_a_wrong_password_is_refused(self, passwords: Passwords, scheme: str) -> None:
        stored = hash_foreign(scheme, PASSWORD)
        for wrong in ("", "SecurePass123?", PASSWORD.lower(), PASSWORD + " ", "x" * MAXIMUM_BYTES):
            assert passwords.verify_and_upgrade(wrong, stored) == REFUSED

    @pytest.mark.parametrize("scheme", PASSLIBS)
    def test_passlibs_own_default_cost_is_within_the_bounds(self, passwords: Passwords, scheme: str) -> None:
        """Evaluated, and so not None."""
        stored = str(getattr(passlib_schemes, scheme).hash(PASSWORD))
        assert passwords._evaluate(b"wrong", stored) is False

    @pytest.mark.parametrize(("password", "stored"), FOREIGN_VECTORS.values(), ids=FOREIGN_VECTORS)
    def test_vectors_verify(self, passwords: Passwords, password: str, stored: str) -> None:
        expect_upgrade(passwords, password, stored)
        assert passwords.verify_and_upgrade(password + "x", stored) == REFUSED

    @pytest.mark.parametrize("scheme", FOREIGN_SCHEMES)
    def test_a_nul_never_disappears(self, passwords: Passwords, scheme: str) -> None:
        """PBKDF2 pads its key with NULs, and bcrypt ends it with one."""
        assert passwords.verify_and_upgrade(PASSWORD + "\0", hash_foreign(scheme, PASSWORD)) == REFUSED

    @pytest.mark.parametrize("scheme", sorted(FOREIGN_SCHEMES.keys() - module.TRUNCATING_SCHEMES))
    @pytest.mark.parametrize("length", [73, 256])
    def test_long_passwords_never_interchange(self, passwords: Passwords, scheme: str, length: int) -> None:
        stored = hash_foreign(scheme, make_bytes(length, "a"))
        assert passwords.verify_and_upgrade(make_bytes(length, "a"), stored).ok
        assert passwords.verify_and_upgrade(make_bytes(length, "b"), stored) == REFUSED

    @pytest.mark.parametrize("scheme", sorted(module.TRUNCATING_SCHEMES))
    def test_bcrypt_reads_72_bytes_and_no_longer_password_is_accepted(
        self, passwords: Passwords, scheme: str
    ) -> None:
        stored = hash_foreign(scheme, make_bytes(72, "a"))
        assert passwords.verify_and_upgrade(make_bytes(72, "a"), stored).ok
        assert passwords.verify_and_upgrade(make_bytes(72, "b"), stored) == REFUSED
        for tail in ("a", "é", "b" * 184):
            assert passwords.verify_and_upgrade(make_bytes(72, "a") + tail, stored) == REFUSED

    @pytest.mark.parametrize("scheme", sorted(module.TRUNCATING_SCHEMES))
    def test_a_bcrypt_library_that_truncates_changes_nothing(
        self, passwords: Passwords, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As releases before 5.0 do."""
        hashpw = bcrypt.hashpw
        monkeypatch.setattr(bcrypt, "hashpw", lambda password, salt: hashpw(password[:72], salt))
        stored = hash_foreign(scheme, make_bytes(72, "a"))
        handler: Any = getattr(passlib_schemes, scheme)
        assert handler.verify(make_bytes(72, "a") + "b", stored)
        assert passwords.verify_and_upgrade(make_bytes(72, "a") + "b", stored) == REFUSED

    @pytest.mark.parametrize("stored", TOO_COSTLY.values(), ids=TOO_COSTLY)
    def test_a_hash_that_asks_for_too_much_is_not_evaluated(self, passwords: Passwords, stored: str) -> None:
        assert passwords._evaluate(b"password", stored) is None
        assert passwords.verify_and_upgrade("password", stored) == REFUSED

    @pytest.mark.parametrize("scheme", [*FOREIGN_SCHEMES, "argon2"])
    def test_a_damaged_hash_never_raises(self, passwords: Passwords, scheme: str) -> None:
        stored = ARGON2_VECTORS["argon2id"] if scheme == "argon2" else hash_foreign(scheme, PASSWORD)
        damaged = {stored[:end] for end in range(len(stored))}
        damaged |= {stored[:at] + stored[at + 1 :] for at in range(len(stored))}
        damaged |= {stored[:at] + mark + stored[at + 1 :] for at in range(len(stored)) for mark in "\n٣€"}
        for hash_ in sorted(damaged - {stored}):
            assert not passwords._evaluate(PASSWORD.encode(), hash_), hash_


class TestTiming:
    @pytest.mark.parametrize(
        "stored",
        [None, UNUSABLE_HASH, "garbage", DAMAGED, TOO_COSTLY["bcrypt"], TOO_COSTLY["argon2 memory"]],
        ids=["unknown", "unusable", "garbage", "damaged argon2", "costly bcrypt", "costly argon2"],
    )
    def test_no_usable_hash_takes_the_time_of_a_wrong_password(
        self, passwords: Passwords, stored: str | None
    ) -> None:
        """ASVS 6.3.8, in processor time, with generous bounds: the strict test is of the whole endpoint."""
        known = passwords.hash(PASSWORD)
        times: dict[str, list[float]] = {"wrong": [], "unusable": []}
        for _ in range(40):
            for name, stored_hash in (("wrong", known), ("unusable", stored)):
                start = time.thread_time()
                passwords.verify_and_upgrade("SecurePass123?", stored_hash)
                times[name].append(time.thread_time() - start)
        ratio = statistics.median(times["unusable"]) / statistics.median(times["wrong"])
        assert 0.8 < ratio < 1.25


class TestConcurrency:
    def test_no_more_hashes_run_at_once_than_the_settings_allow(self) -> None:
        passwords = Passwords(make_settings(hash_concurrency=2))
        hasher = CountingHasher(memory_cost=19_456, time_cost=2, parallelism=1)
        passwords._hasher = hasher
        start = threading.Barrier(6)

        def work() -> None:
            start.wait()
            passwords.hash(PASSWORD)
            passwords.verify_and_upgrade(PASSWORD, None)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert hasher.most == 2

    @pytest.mark.parametrize(
        "stored",
        [None, "garbage", ARGON2_VECTORS["argon2id"], hash_foreign("bcrypt", "password")],
        ids=["unknown", "garbage", "argon2", "foreign"],
    )
    def test_a_verification_waits_for_its_turn(self, stored: str | None) -> None:
        passwords = Passwords(make_settings(hash_concurrency=1))
        thread = threading.Thread(target=passwords.verify_and_upgrade, args=("wrong", stored))
        with passwords._slots:
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join(10)
        assert not thread.is_alive()

    def test_a_hash_with_a_salt_waits_too(self) -> None:
        passwords = Passwords(make_settings(hash_concurrency=1))
        hashed: list[bytes] = []

        def run() -> None:
            hashed.append(
                passwords.hash_with_salt(b"secret", b"salt" * 4, memory_kib=64, time_cost=1, parallelism=1)
            )

        thread = threading.Thread(target=run)
        with passwords._slots:
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join(10)
        assert [len(found) for found in hashed] == [32]

    def test_an_upgrade_needs_one_turn_at_a_time(self) -> None:
        passwords = Passwords(make_settings(hash_concurrency=1))
        expect_upgrade(passwords, "password", ARGON2_VECTORS["argon2id"])


class CountingHasher(PasswordHasher):
    """Counts how many hashes it computes at once."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0

    def count(self, change: int) -> None:
        with self.lock:
            self.running += change
            self.most = max(self.most, self.running)

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.count(1)
        try:
            return super().hash(password, salt=salt)
        finally:
            self.count(-1)

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:  # noqa: A002 -- the library's name
        self.count(1)
        try:
            return super().verify(hash, password)
        finally:
            self.count(-1)


def widen(text: str) -> str:
    """As an East Asian keyboard may send it."""
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


def find_reasons(passwords: Passwords, password: str, context: Iterable[str | None] = ()) -> list[str]:
    try:
        passwords.check_policy(password, context=context)
    except InvalidFields as refusal:
        return [error.code for error in refusal.errors]
    return []


class TestCheckPolicy:
    def test_the_password_of_the_quickstart_passes(self, passwords: Passwords) -> None:
        assert find_reasons(passwords, PASSWORD, ["test@example.com", "testuser"]) == []

    @pytest.mark.parametrize(
        "password",
        [
            "vxkqzwjthmpd",
            "850274619385",
            "!?%&/()=*+~#",
            "            a",
            "🐙🦑🐠🐟🐡🦈🐬🐳🐋🦭🐧🦞",
            "пароль из четырёх слов",
            "kwx" * 21 + "k",
            "\0\u0001 control characters",
            "é" * 512,
        ],
        ids=["lower", "digits", "marks", "spaces", "emoji", "cyrillic", "64 letters", "control", "longest"],
    )
    def test_any_characters_will_do(self, passwords: Passwords, password: str) -> None:
        """ASVS 6.2.5 and 6.2.9."""
        assert find_reasons(passwords, password) == []

    def test_length_is_counted_in_code_points(self, passwords: Passwords) -> None:
        assert find_reasons(passwords, "🐙🦑🐠🐟🐡🦈🐬🐳🐋🦭🐧") == ["password_too_short"]
        assert find_reasons(passwords, "vxkqzwjthmp") == ["password_too_short"]

    def test_the_minimum_is_a_setting(self) -> None:
        passwords = Passwords(make_settings(password_minimum_length=15))
        assert find_reasons(passwords, PASSWORD) == ["password_too_short"]
        assert find_reasons(passwords, PASSWORD + "4") == []

    @pytest.mark.parametrize("password", ["x" * 1_025, "é" * 512 + "x", "password" * 200])
    def test_over_1024_bytes_is_too_long_and_not_looked_at(self, passwords: Passwords, password: str) -> None:
        assert find_reasons(passwords, password) == ["password_too_long"]

    @pytest.mark.parametrize(
        "password",
        [
            "1qaz2wsx3edc4rfv",
            "qwertyuiop123",
            "Password1234",
            "PASSWORD123!",
            widen("password1234"),
            "password 1234",
            "qwerty-123456",
            "administrator",
        ],
    )
    def test_a_common_password_is_refused(self, passwords: Passwords, password: str) -> None:
        """ASVS 6.2.4, however it is spelled."""
        assert find_reasons(passwords, password) == ["password_common"]

    @pytest.mark.parametrize(
        "password", ["password1234 or what", "1qaz2wsx3edc4rfv5tgb nope", "\n\nvxkqzwjthmpd"]
    )
    def test_a_password_is_common_as_a_whole_only(self, passwords: Passwords, password: str) -> None:
        assert find_reasons(passwords, password) == []

    def test_a_short_common_password_has_both_reasons(self, passwords: Passwords) -> None:
        assert find_reasons(passwords, "password") == ["password_too_short", "password_common"]

    @pytest.mark.parametrize(
        ("password", "context"),
        [
            ("maria.lopez-2031", ["maria.lopez@example.com"]),
            ("LopezLopez#2031", ["maria.lopez@example.com"]),
            ("MariaLopez!!!!!!!!!", ["maria.lopez@example.com"]),
            ("Kingfisher-7731", ["m@example.com", "kingfisher"]),
            (widen("kingfisher7731"), [None, "KingFisher"]),
            ("Auth-Manager-2031", []),
            ("manager auth 77", []),
            ("kingfisher12345678", ["m@example.com", "kingfisher"]),
            ("kingfisher-77319", ["king@example.com", "kingfisher"]),
        ],
        ids=[
            "address",
            "part",
            "marks",
            "username",
            "wide",
            "product",
            "product parts",
            "common rest",
            "nested",
        ],
    )
    def test_a_password_made_of_known_words_is_refused(
        self, passwords: Passwords, password: str, context: list[str | None]
    ) -> None:
        """ASVS 6.2.11."""
        assert find_reasons(passwords, password, context) == ["password_contains_context"]

    @pytest.mark.parametrize(
        ("password", "context"),
        [
            ("maria sails past the harbour", ["maria.lopez@example.com"]),
            ("kingfisher+wq7vkx0p", ["m@example.com", "kingfisher"]),
            ("my manager has no dog", []),
            ("example.com-w7", ["m@example.com"]),
            ("ann--qw7vkx0", ["ann@example.com"]),
            ("vxkqzwjthmpd", ["", None, "...", "@example.com"]),
        ],
        ids=["passphrase", "8 more", "product part", "domain", "short word", "no words"],
    )
    def test_a_password_that_has_more_than_known_words_passes(
        self, passwords: Passwords, password: str, context: list[str | None]
    ) -> None:
        assert find_reasons(passwords, password, context) == []

    def test_the_product_name_is_a_setting(self) -> None:
        passwords = Passwords(make_settings(product_name="Kingfisher"))
        assert find_reasons(passwords, "kingfisher-7731") == ["password_contains_context"]
        assert find_reasons(passwords, "auth-manager-2031") == []

    def test_a_refusal_names_the_field_and_never_the_password(self, passwords: Passwords) -> None:
        with pytest.raises(InvalidFields) as refusal:
            passwords.check_policy("kingfisher7", context=["kingfisher"], pointer="/new_password")
        assert [error.pointer for error in refusal.value.errors] == ["/new_password", "/new_password"]
        assert "kingfisher" not in f"{refusal.value} {refusal.value.errors}"


class TestCommonPasswords:
    def test_the_list_has_3000_that_the_default_policy_would_accept(self) -> None:
        """ASVS 6.2.4."""
        entries = module._common_passwords().decode().split("\n")[1:-1]
        assert sum(len(entry) >= 12 for entry in entries) > 3_000
        assert sum(8 <= len(entry) < 12 for entry in entries) > 3_000

    def test_every_entry_can_be_found(self) -> None:
        """Folded, unique, sorted, and with a line break at both ends."""
        text = module._common_passwords().decode()
        entries = text.split("\n")[1:-1]
        assert text == "\n" + "\n".join(sorted(set(entries))) + "\n"
        assert all(entry == fold(entry) and len(entry) >= 8 for entry in entries)

    def test_the_list_is_small_and_its_licence_beside_it(self) -> None:
        assert module.COMMON_PASSWORDS.stat().st_size < 400_000
        licence = Path(module.COMMON_PASSWORDS.parent, "common_passwords.LICENSE").read_text(encoding="utf-8")
        assert "SecLists" in licence
        assert "MIT License" in licence


class TestImport:
    def test_a_login_loads_neither_passlib_nor_the_list(self, passwords: Passwords) -> None:
        program = f"""
import sys
from auth_manager import passwords as module
from auth_manager.settings import load_settings
passwords = module.Passwords(load_settings())
assert passwords.verify_and_upgrade({PASSWORD!r}, {passwords.hash(PASSWORD)!r}).ok
assert not passwords.verify_and_upgrade({PASSWORD!r}, None).ok
assert module._common_passwords.cache_info().currsize == 0
print([name for name in sys.modules if name.split(".")[0] in ("passlib", "bcrypt")])
passwords.verify_and_upgrade("password", {hash_foreign("phpass", PASSWORD)!r})
print("passlib" in sys.modules)
"""
        environment = os.environ | {
            "AUTH_DATABASE_URL": "postgresql://localhost/none",
            "AUTH_SECRET_KEYS": "0123456789abcdefghijklmnopqrstuvwxyz",
            "AUTH_PUBLIC_URL": "https://auth.example.com",
        }
        printed = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert printed.stdout.splitlines() == ["[]", "True"]

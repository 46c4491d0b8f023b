"""Values that the database keeps and cannot read."""

from collections.abc import Callable
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from pydantic import SecretStr

from auth_manager.cached_secret import RETRY_AFTER, CachedSecret
from auth_manager.sealed_values import CannotOpen, is_current, open_value, rewrap, seal
from auth_manager.secret_keys import SecretKeys, derive_key

OLD = SecretStr("old-0123456789abcdefghijklmnopqrstuvwxyz")
NEW = SecretStr("new-0123456789abcdefghijklmnopqrstuvwxyz")
OWNER = UUID("01890000-0000-7000-8000-00000000000a").bytes
OTHER = UUID("01890000-0000-7000-8000-00000000000b").bytes
VALUE = b"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


def keys(*secrets: SecretStr) -> SecretKeys:
    return SecretKeys(secrets or [OLD])


def opened(
    sealed: bytes, *secrets: SecretStr, purpose: str = "totp secret", bound_to: bytes = OWNER
) -> bytes:
    return open_value(keys(*secrets), purpose, sealed, bound_to=bound_to)


@pytest.fixture
def sealed() -> bytes:
    return seal(keys(OLD), "totp secret", VALUE, bound_to=OWNER)


class TestSeal:
    def test_what_was_sealed_opens(self, sealed: bytes) -> None:
        assert opened(sealed) == VALUE

    def test_the_value_cannot_be_seen(self, sealed: bytes) -> None:
        assert VALUE not in sealed
        assert sealed != seal(keys(OLD), "totp secret", VALUE, bound_to=OWNER)

    def test_it_is_laid_out_as_documented(self, sealed: bytes) -> None:
        data_key = aes_key_unwrap(derive_key(OLD.get_secret_value().encode(), "totp secret"), sealed[1:41])
        assert sealed[:1] == b"\x01"
        assert len(data_key) == 32
        assert AESGCM(data_key).decrypt(sealed[41:53], sealed[53:], b"\x01" + OWNER) == VALUE

    def test_an_empty_value_is_one(self) -> None:
        assert opened(seal(keys(OLD), "totp secret", b"", bound_to=OWNER)) == b""


class TestOpenValue:
    def test_not_without_its_key(self, sealed: bytes) -> None:
        with pytest.raises(CannotOpen):
            opened(sealed, NEW)

    def test_not_for_another_account(self, sealed: bytes) -> None:
        with pytest.raises(CannotOpen):
            opened(sealed, bound_to=OTHER)

    def test_not_for_another_purpose(self, sealed: bytes) -> None:
        with pytest.raises(CannotOpen):
            opened(sealed, purpose="refresh token")

    @pytest.mark.parametrize("position", [0, 1, 40, 41, 52, 53, -1])
    def test_no_byte_can_change(self, sealed: bytes, position: int) -> None:
        forged = bytearray(sealed)
        forged[position] ^= 1
        with pytest.raises(CannotOpen):
            opened(bytes(forged))

    @pytest.mark.parametrize("length", [0, 1, 40, 41, 53, 60, 68])
    def test_nothing_can_be_cut_off(self, sealed: bytes, length: int) -> None:
        with pytest.raises(CannotOpen):
            opened(sealed[:length])

    def test_nothing_can_be_added(self, sealed: bytes) -> None:
        with pytest.raises(CannotOpen):
            opened(sealed + b"\0")

    def test_halves_of_two_values_are_none(self, sealed: bytes) -> None:
        other = seal(keys(OLD), "totp secret", b"another", bound_to=OWNER)
        with pytest.raises(CannotOpen):
            opened(sealed[:41] + other[41:])

    def test_an_old_key_still_opens(self, sealed: bytes) -> None:
        assert opened(sealed, NEW, OLD) == VALUE

    def test_a_key_that_another_process_has_already_is_asked_for(self) -> None:
        younger = seal(keys(NEW, OLD), "totp secret", VALUE, bound_to=OWNER)
        clock = [0.0]
        texts = iter(["old", "both"])
        read: Callable[[str], tuple[SecretStr, ...]] = {"old": (OLD,), "both": (NEW, OLD)}.__getitem__
        following = SecretKeys(CachedSecret(lambda: next(texts), read, clock=lambda: clock[0]))
        clock[0] += RETRY_AFTER

        assert open_value(following, "totp secret", younger, bound_to=OWNER) == VALUE


class TestRewrap:
    def test_the_first_key_takes_over_and_the_old_one_can_go(self, sealed: bytes) -> None:
        assert not is_current(keys(NEW, OLD), "totp secret", sealed)

        moved = rewrap(keys(NEW, OLD), "totp secret", sealed)

        assert is_current(keys(NEW, OLD), "totp secret", moved)
        assert opened(moved, NEW) == VALUE
        with pytest.raises(CannotOpen):
            opened(moved, OLD)

    def test_what_is_encrypted_stays_as_it_is(self, sealed: bytes) -> None:
        assert rewrap(keys(NEW, OLD), "totp secret", sealed)[41:] == sealed[41:]

    def test_not_without_its_key(self, sealed: bytes) -> None:
        with pytest.raises(CannotOpen):
            rewrap(keys(NEW), "totp secret", sealed)

    def test_what_the_first_key_wrapped_is_current(self, sealed: bytes) -> None:
        assert is_current(keys(OLD, NEW), "totp secret", sealed)

    def test_garbage_is_not(self) -> None:
        assert not is_current(keys(OLD), "totp secret", b"garbage")

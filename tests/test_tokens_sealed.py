"""What we seal for ourselves alone: refresh tokens and list cursors."""

import hashlib
import hmac
import tracemalloc
from collections.abc import Callable
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from auth_manager.errors import InvalidFields, InvalidRefreshToken
from auth_manager.secret_keys import SecretKeys
from auth_manager.signing_keys import decode_base64url, encode_base64url
from auth_manager.tokens import (
    MAXIMUM_CURSOR_LENGTH,
    Cursors,
    RefreshToken,
    RefreshTokens,
)

FIRST = SecretStr("first-0123456789abcdefghijklmnopqrstuvwxyz")
SECOND = SecretStr("second-0123456789abcdefghijklmnopqrstuvwxy")
LINE = UUID("01890000-0000-7000-8000-00000000000a")


def memory_of(refuse: Callable[[], bool]) -> int:
    """Peak bytes that a refusal takes."""
    tracemalloc.start()
    try:
        assert refuse()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refresh_tokens(*secrets: SecretStr) -> RefreshTokens:
    return RefreshTokens(SecretKeys(secrets or [FIRST]))


def refresh_refused(token: str, *secrets: SecretStr) -> bool:
    with pytest.raises(InvalidRefreshToken) as failure:
        refresh_tokens(*secrets).parse(token)
    return failure.value.detail == InvalidRefreshToken.title()


class TestRefreshTokens:
    @pytest.mark.parametrize("counter", [1, 2, 255, 256, 2**63 - 1])
    def test_own_token_says_its_line_and_counter(self, counter: int) -> None:
        assert refresh_tokens().parse(refresh_tokens().issue(LINE, counter)) == RefreshToken(LINE, counter)

    def test_a_retry_gets_the_same_text(self) -> None:
        assert refresh_tokens().issue(LINE, 7) == refresh_tokens().issue(LINE, 7)
        assert refresh_tokens().issue(LINE, 7) != refresh_tokens().issue(LINE, 8)

    def test_it_is_laid_out_as_documented(self) -> None:
        content = b"\x01" + LINE.bytes + b"\x00" * 7 + b"\x07"
        key = HKDF(hashes.SHA256(), 32, salt=None, info=b"refresh token").derive(
            FIRST.get_secret_value().encode()
        )
        mac = hmac.new(key, content, hashlib.sha256).digest()

        assert refresh_tokens().issue(LINE, 7) == "rt_" + encode_base64url(content + mac)

    def test_the_first_secret_signs_and_all_verify(self) -> None:
        before, after = refresh_tokens(FIRST), refresh_tokens(SECOND, FIRST)

        assert after.parse(before.issue(LINE, 1)) == RefreshToken(LINE, 1)
        assert after.issue(LINE, 1) == refresh_tokens(SECOND).issue(LINE, 1)
        assert refresh_refused(before.issue(LINE, 1), SECOND)

    def test_no_character_can_change(self) -> None:
        token = refresh_tokens().issue(LINE, 1)
        for position, character in enumerate(token):
            other = "A" if character != "A" else "B"
            assert refresh_refused(token[:position] + other + token[position + 1 :])

    @pytest.mark.parametrize(
        "mangle",
        [
            lambda t: t[:0],
            lambda t: t[:3],
            lambda t: t[3:],
            lambda t: t[:-1],
            lambda t: t[:-4],
            lambda t: t + "A",
            lambda t: t + "=",
            lambda t: t + "\n",
            lambda t: " " + t[1:],
            lambda t: t[:-1] + "=",
            lambda t: t[:-2] + "==",
            lambda t: t[:-1] + "\n",
            lambda t: t[:-1] + "\u00e9",
            lambda t: t[:-1] + "\ud800",
            lambda t: "RT_" + t[3:],
            lambda t: "at_" + t[3:],
            lambda t: t * 100_000,
        ],
    )
    def test_only_its_exact_text_is_read(self, mangle: Callable[[str], str]) -> None:
        assert refresh_refused(mangle(refresh_tokens().issue(LINE, 1)))

    def test_five_megabytes_are_refused_before_they_are_touched(self) -> None:
        token = refresh_tokens().issue(LINE, 1) + "A" * 5_000_000

        assert memory_of(lambda: refresh_refused(token)) < 100_000

    @pytest.mark.parametrize("version", [0, 2, 255])
    def test_another_version_is_refused_even_when_signed(self, version: int) -> None:
        content = bytes([version]) + LINE.bytes + (1).to_bytes(8)
        [key] = SecretKeys([FIRST]).derive("refresh token")

        assert refresh_refused("rt_" + encode_base64url(content + hmac.digest(key, content, "sha256")))

    def test_a_mac_of_another_purpose_is_refused(self) -> None:
        content = b"\x01" + LINE.bytes + (1).to_bytes(8)
        [key] = SecretKeys([FIRST]).derive("list cursor")
        for mac in (hmac.digest(key, content, "sha256"), hashlib.sha256(content).digest(), bytes(32)):
            assert refresh_refused("rt_" + encode_base64url(content + mac))


def cursors(*secrets: SecretStr) -> Cursors:
    return Cursors(SecretKeys(secrets or [FIRST]))


def cursor_refused(cursor: str, context: str = "sessions:1") -> bool:
    with pytest.raises(InvalidFields) as failure:
        cursors().open(cursor, context=context)
    [error] = failure.value.errors
    return (error.pointer, error.code) == ("?cursor", "invalid_cursor")


class TestCursors:
    @pytest.mark.parametrize("position", [b"", b"\x00", LINE.bytes, b"x" * 600])
    def test_own_cursor_says_its_position(self, position: bytes) -> None:
        cursor = cursors().seal(position, context="sessions:1")

        assert len(cursor) <= MAXIMUM_CURSOR_LENGTH
        assert cursors().open(cursor, context="sessions:1") == position

    @pytest.mark.parametrize(
        "context", ["", "sessions:2", "sessions:", "sessions:11", "accounts:1", "sessions:1x"]
    )
    def test_it_opens_in_no_other_list(self, context: str) -> None:
        assert cursor_refused(cursors().seal(b"xyz", context="sessions:1"), context)

    def test_context_and_position_do_not_run_together(self) -> None:
        cursor = cursors().seal(b"1abc", context="sessions:")
        moved = encode_base64url(decode_base64url(cursor)[:32] + b"abc")

        assert cursor_refused(moved, "sessions:1")

    def test_it_cannot_be_changed(self) -> None:
        cursor = cursors().seal(LINE.bytes, context="sessions:1")
        for position, character in enumerate(cursor):
            other = "A" if character != "A" else "B"
            assert cursor_refused(cursor[:position] + other + cursor[position + 1 :])

    @pytest.mark.parametrize("suffix", ["=", "==", "\n", "A", "!", "\u00e9", "\ud800", "A" * 1024])
    def test_only_its_exact_text_is_read(self, suffix: str) -> None:
        assert cursor_refused(cursors().seal(LINE.bytes, context="sessions:1") + suffix)

    def test_five_megabytes_are_refused_before_they_are_touched(self) -> None:
        cursor = "A" * 5_000_000

        assert memory_of(lambda: cursor_refused(cursor)) < 100_000

    def test_a_mac_of_another_purpose_is_refused(self) -> None:
        [key] = SecretKeys([FIRST]).derive("refresh token")
        message = len(b"sessions:1").to_bytes(4) + b"sessions:1" + LINE.bytes

        assert cursor_refused(encode_base64url(hmac.digest(key, message, "sha256") + LINE.bytes))

    @pytest.mark.parametrize("cursor", ["", "A", "AAAA", "null", "../../etc/passwd", "1 OR 1=1", "A" * 43])
    def test_what_is_no_cursor_is_refused(self, cursor: str) -> None:
        assert cursor_refused(cursor)

    def test_the_first_secret_signs_and_all_verify(self) -> None:
        after = cursors(SECOND, FIRST)

        assert after.open(cursors().seal(b"x", context="c"), context="c") == b"x"
        assert cursor_refused(after.seal(b"x", context="c"), "c")

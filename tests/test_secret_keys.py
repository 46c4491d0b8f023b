"""Our own HMAC secrets: the key of each purpose, and secrets that change while the process runs."""

import json
from collections.abc import Callable
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from auth_manager.cached_secret import LIFETIME, RETRY_AFTER, CachedSecret
from auth_manager.errors import ConfigurationError, InvalidFields, InvalidRefreshToken, ServiceUnavailable
from auth_manager.secret_keys import SecretKeys, derive_key, open_secret_keys
from auth_manager.settings import Settings
from auth_manager.tokens import Cursors, RefreshTokens

FIRST = SecretStr("first-0123456789abcdefghijklmnopqrstuvwxyz")
SECOND = SecretStr("second-0123456789abcdefghijklmnopqrstuvwxy")
LINE = UUID("01890000-0000-7000-8000-00000000000a")


class TestDeriveKey:
    def test_rfc_5869_appendix_a_3(self) -> None:
        expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"

        assert derive_key(b"\x0b" * 22, "").hex() == expected

    def test_it_is_hkdf_sha256(self) -> None:
        secret = FIRST.get_secret_value().encode()
        independent = HKDF(hashes.SHA256(), length=32, salt=None, info=b"list cursor").derive(secret)

        assert derive_key(secret, "list cursor") == independent

    def test_each_secret_and_each_purpose_has_its_own_key(self) -> None:
        keys = [
            *SecretKeys([FIRST, SECOND]).derive("a"),
            *SecretKeys([FIRST, SECOND]).derive("b"),
        ]

        assert len(set(keys)) == 4
        assert {len(key) for key in keys} == {32}

    def test_no_secret_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one secret"):
            SecretKeys([])


class Store:
    """Secrets that an operator changes, a process that follows them, and its clock."""

    def __init__(self) -> None:
        self.secrets: tuple[SecretStr, ...] | None = (FIRST,)
        self.now = 1000.0
        self.fetched = 0

    def fetch(self) -> str:
        self.fetched += 1
        if self.secrets is None:
            raise ServiceUnavailable
        return ",".join(secret.get_secret_value() for secret in self.secrets)

    def read(self, text: str) -> tuple[SecretStr, ...]:
        return tuple(SecretStr(part) for part in text.split(","))

    def open(self) -> SecretKeys:
        return SecretKeys(CachedSecret(self.fetch, self.read, clock=lambda: self.now))


@pytest.fixture
def store() -> Store:
    return Store()


class TestFollowing:
    def test_a_key_is_derived_once_for_each_text(self, store: Store) -> None:
        keys = store.open()
        first = keys.derive("a")
        store.now += LIFETIME
        assert keys.derive("a") is first
        store.secrets = (SECOND, FIRST)
        store.now += LIFETIME
        second = keys.derive("a")
        assert second == SecretKeys([SECOND, FIRST]).derive("a")
        assert keys.derive("a") is second

    def test_the_newest_signs_as_soon_as_it_is_known(self, store: Store) -> None:
        tokens = RefreshTokens(store.open())
        store.secrets = (SECOND, FIRST)
        store.now += LIFETIME
        assert tokens.issue(LINE, 1) == RefreshTokens(SecretKeys([SECOND])).issue(LINE, 1)

    def test_a_refresh_token_of_a_younger_secret_is_asked_about_once(self, store: Store) -> None:
        behind = RefreshTokens(store.open())
        store.secrets = (SECOND, FIRST)
        token = RefreshTokens(SecretKeys([SECOND, FIRST])).issue(LINE, 3)
        store.now += RETRY_AFTER
        assert behind.parse(token).counter == 3
        assert behind.parse(token).counter == 3
        assert store.fetched == 2

    def test_so_is_a_cursor(self, store: Store) -> None:
        behind = Cursors(store.open())
        store.secrets = (SECOND, FIRST)
        cursor = Cursors(SecretKeys([SECOND, FIRST])).seal(b"x", context="c")
        store.now += RETRY_AFTER
        assert behind.open(cursor, context="c") == b"x"
        with pytest.raises(InvalidFields):
            behind.open(cursor, context="d")

    def test_a_forger_cannot_make_it_ask_often(self, store: Store) -> None:
        tokens = RefreshTokens(store.open())
        forged = RefreshTokens(SecretKeys([SECOND])).issue(LINE, 1)
        for _ in range(100):
            store.now += RETRY_AFTER / 50
            with pytest.raises(InvalidRefreshToken):
                tokens.parse(forged)
        assert store.fetched <= 3

    def test_a_secret_that_was_taken_out_is_refused(self, store: Store) -> None:
        store.secrets = (SECOND, FIRST)
        tokens = RefreshTokens(store.open())
        old = RefreshTokens(SecretKeys([FIRST])).issue(LINE, 1)
        assert tokens.parse(old).counter == 1
        store.secrets = (SECOND,)
        store.now += LIFETIME
        with pytest.raises(InvalidRefreshToken):
            tokens.parse(old)

    def test_while_its_store_is_down_the_last_ones_serve(self, store: Store) -> None:
        tokens = RefreshTokens(store.open())
        token = tokens.issue(LINE, 1)
        store.secrets = None
        store.now += 10 * LIFETIME
        assert tokens.parse(token).counter == 1


class TestOpenSecretKeys:
    ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:keys-abcdef"
    KEYS = ("0123456789abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba9876543210")

    def open(self, make_settings: Callable[..., Settings], text: str) -> SecretKeys:
        settings = make_settings(secret_keys=(), secret_keys_secret_arn=self.ARN)
        return open_secret_keys(settings, {self.ARN: text}.__getitem__)

    @pytest.mark.parametrize(
        "text", [",".join(KEYS) + "\n", json.dumps({"keys": KEYS})], ids=["list", "json"]
    )
    def test_from_the_secret(self, make_settings: Callable[..., Settings], text: str) -> None:
        same = SecretKeys([SecretStr(key) for key in self.KEYS])
        assert self.open(make_settings, text).derive("x") == same.derive("x")

    def test_variables_win(self, make_settings: Callable[..., Settings]) -> None:
        settings = make_settings(secret_keys_secret_arn=self.ARN)
        assert open_secret_keys(settings).derive("x") == SecretKeys(settings.secret_keys).derive("x")

    def test_a_secret_that_nobody_can_fetch_is_refused(self, make_settings: Callable[..., Settings]) -> None:
        with pytest.raises(ConfigurationError, match="AUTH_SECRET_KEYS_SECRET_ARN: secrets cannot be read"):
            open_secret_keys(make_settings(secret_keys=(), secret_keys_secret_arn=self.ARN))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "there is no key in it"),
            ('{"keys": []}', "there is no key in it"),
            ("canary", "a key is under 32 bytes"),
            ("canary" * 8, "a key is not random"),
            (f"local-{KEYS[0]}", "a key made for local mode"),
            ("{canary", "neither keys separated by commas nor"),
            ('{"canary": []}', "neither keys separated by commas nor"),
            ('{"keys": [1]}', "neither keys separated by commas nor"),
        ],
    )
    def test_what_is_no_good_key_is_refused_without_repeating_it(
        self, make_settings: Callable[..., Settings], text: str, reason: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=reason) as caught:
            self.open(make_settings, text)
        assert "canary" not in str(caught.value)

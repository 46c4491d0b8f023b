"""The keys `make local` generates: once, private, and of no use to a deployment."""

import json
import threading
from pathlib import Path
from typing import Literal

import pytest

from auth_manager.errors import ConfigurationError
from auth_manager.local.keys import LocalKeys, load_or_generate_local_keys
from auth_manager.settings import Settings, load_settings
from auth_manager.signing_keys import load_key_set


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> LocalKeys:
    return load_or_generate_local_keys(tmp_path_factory.mktemp("state") / "new" / "keys")


def settings_with(keys: LocalKeys, mode: Literal["local", "deployed"]) -> Settings:
    return load_settings(
        mode=mode,
        database_url="postgresql://localhost/auth",
        public_url="https://auth.example.com",
        signing_keys_file=str(keys.signing_keys_file),
        secret_keys=keys.secret_keys,
    )


class TestLoadOrGenerateLocalKeys:
    def test_local_mode_starts_with_them(self, keys: LocalKeys) -> None:
        key_set = load_key_set(settings_with(keys, "local"))

        assert key_set.current.algorithm == "RS256"
        assert key_set.current.public_jwk.keys() == {"kty", "n", "e", "use", "alg", "kid"}

    def test_a_deployment_refuses_the_secret_key(self, keys: LocalKeys) -> None:
        with pytest.raises(ConfigurationError, match="AUTH_SECRET_KEYS has a key made for local mode"):
            settings_with(keys, "deployed")

    def test_a_deployment_refuses_the_signing_key(self, keys: LocalKeys) -> None:
        own_secret = LocalKeys(keys.signing_keys_file, ("0123456789abcdefghijklmnopqrstuvwxyz",))

        with pytest.raises(ConfigurationError, match="AUTH_SIGNING_KEYS_FILE: key 1: is a default key"):
            load_key_set(settings_with(own_secret, "deployed"))

    def test_the_second_start_finds_the_same_keys(self, keys: LocalKeys) -> None:
        before = keys.signing_keys_file.read_bytes()

        assert load_or_generate_local_keys(keys.signing_keys_file.parent) == keys
        assert keys.signing_keys_file.read_bytes() == before

    def test_only_the_owner_can_read_them(self, keys: LocalKeys) -> None:
        directory = keys.signing_keys_file.parent

        assert directory.stat().st_mode & 0o777 == 0o700
        assert {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()} == {
            "signing-keys.json": 0o600,
            "secret-keys": 0o600,
        }

    def test_no_two_laptops_share_keys(self, keys: LocalKeys, tmp_path: Path) -> None:
        others = load_or_generate_local_keys(tmp_path)

        assert others.secret_keys != keys.secret_keys
        assert others.signing_keys_file.read_bytes() != keys.signing_keys_file.read_bytes()

    def test_a_lost_file_alone_is_made_again(self, tmp_path: Path) -> None:
        before = load_or_generate_local_keys(tmp_path)
        (tmp_path / "secret-keys").unlink()
        signing_keys = before.signing_keys_file.read_bytes()
        after = load_or_generate_local_keys(tmp_path)

        assert after.secret_keys != before.secret_keys
        assert after.signing_keys_file.read_bytes() == signing_keys

    def test_starts_at_once_end_with_one_set(self, tmp_path: Path) -> None:
        starts = 6
        barrier = threading.Barrier(starts)
        found: list[tuple[tuple[str, ...], str]] = []

        def start() -> None:
            barrier.wait()
            keys = load_or_generate_local_keys(tmp_path)
            found.append((keys.secret_keys, keys.signing_keys_file.read_text()))

        threads = [threading.Thread(target=start) for _ in range(starts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(found) == starts
        assert len(set(found)) == 1
        assert len(json.loads(found[0][1])["keys"]) == 1
        assert {file.name for file in tmp_path.iterdir()} == {"signing-keys.json", "secret-keys"}

    def test_an_interrupted_start_leaves_nothing_half_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("os.link", interrupt)
            with pytest.raises(KeyboardInterrupt):
                load_or_generate_local_keys(tmp_path)

        assert list(tmp_path.iterdir()) == []

    def test_the_secret_is_not_printed(self, keys: LocalKeys) -> None:
        assert keys.secret_keys[0] not in repr(keys)

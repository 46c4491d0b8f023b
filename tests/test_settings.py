"""Settings: what is refused at start, and that no value is ever repeated."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from auth_manager.errors import ConfigurationError
from auth_manager.settings import Settings, load_settings

SECRET = "0123456789abcdefghijklmnopqrstuvwxyz"
GOOD = {
    "AUTH_DATABASE_URL": "postgresql://auth:canary@db/auth",
    "AUTH_PUBLIC_URL": "https://auth.example.com/",
    "AUTH_SECRET_KEYS": SECRET,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good environment, for a test to break."""
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


class TestLoad:
    def test_a_good_environment(self) -> None:
        settings = load_settings()
        assert settings.database_url.get_secret_value() == GOOD["AUTH_DATABASE_URL"]
        assert settings.public_url == settings.issuer == "https://auth.example.com"
        assert [key.get_secret_value() for key in settings.secret_keys] == [SECRET]
        assert settings.mode == "deployed"
        assert settings.is_local is False
        assert settings.docs_enabled is False

    def test_lists_are_separated_by_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_CORS_ORIGINS", " https://a.example.com ,,https://b.example.com,")
        monkeypatch.setenv("AUTH_SECRET_KEYS", f"{SECRET},{SECRET[::-1]}")
        settings = load_settings()
        assert settings.cors_origins == ("https://a.example.com", "https://b.example.com")
        assert [key.get_secret_value() for key in settings.secret_keys] == [SECRET, SECRET[::-1]]

    def test_arguments_win_over_the_environment(self) -> None:
        settings = load_settings(public_url="http://127.0.0.1:8000", mode="local")
        assert settings.public_url == "http://127.0.0.1:8000"
        assert settings.is_local is True

    def test_variables_of_others_are_no_concern(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_SOMETHING_ELSE", "x")
        load_settings()

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("AUTH_DATABASE_URL", "", "AUTH_DATABASE_URL is not set"),
            ("AUTH_SECRET_KEYS", "", "AUTH_SECRET_KEYS is not set"),
            ("AUTH_SECRET_KEYS", "canary-too-short", "AUTH_SECRET_KEYS: a key is under 32 bytes"),
            ("AUTH_SECRET_KEYS", f"{SECRET},canary-too-short", "AUTH_SECRET_KEYS: a key is under 32 bytes"),
            ("AUTH_SECRET_KEYS", "canary" * 8, "AUTH_SECRET_KEYS: a key is not random"),
            ("AUTH_SECRET_KEYS", f"local-{SECRET}", "AUTH_SECRET_KEYS has a key made for local mode"),
            ("AUTH_PUBLIC_URL", "", "AUTH_PUBLIC_URL must be an http(s) URL"),
            ("AUTH_PUBLIC_URL", "canary.example.com", "AUTH_PUBLIC_URL must be an http(s) URL"),
            ("AUTH_PUBLIC_URL", "http://canary.example.com", "AUTH_PUBLIC_URL must be an https:// URL"),
            ("AUTH_PUBLIC_URL", "https://", "AUTH_PUBLIC_URL must be an http(s) URL"),
            ("AUTH_MODE", "canary", "AUTH_MODE: Input should be 'local' or 'deployed'"),
            ("AUTH_LOG_LEVEL", "canary", "AUTH_LOG_LEVEL: "),
            ("AUTH_REFRESH_GRACE", "canary", "AUTH_REFRESH_GRACE: "),
            ("AUTH_REFRESH_GRACE", "61", "AUTH_REFRESH_GRACE: "),
            ("AUTH_ARGON2_MEMORY_KIB", "19455", "AUTH_ARGON2_MEMORY_KIB: "),
            ("AUTH_ARGON2_TIME_COST", "1", "AUTH_ARGON2_TIME_COST: "),
            ("AUTH_PASSWORD_MINIMUM_LENGTH", "7", "AUTH_PASSWORD_MINIMUM_LENGTH: "),
            ("AUTH_LOGIN_FAILURES_BEFORE_LOCK", "101", "AUTH_LOGIN_FAILURES_BEFORE_LOCK: "),
            (
                "AUTH_LOGIN_FAILURES_BEFORE_LOCK",
                "9",
                "AUTH_LOGIN_FAILURES_BEFORE_DELAY exceeds ..._BEFORE_LOCK",
            ),
            ("AUTH_SESSION_ABSOLUTE_LIFETIME", "301", "AUTH_SESSION_IDLE_LIFETIME exceeds"),
            ("AUTH_SESSION_IDLE_LIFETIME", "600", "AUTH_ACCESS_TOKEN_LIFETIME exceeds"),
            ("AUTH_DOCS_ENABLED", "canary", "AUTH_DOCS_ENABLED: "),
        ],
    )
    def test_what_is_wrong_is_named_without_its_value(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
    ) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigurationError) as caught:
            load_settings()
        assert message in str(caught.value)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_a_laptop_takes_its_own_keys_and_http(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_MODE", "local")
        monkeypatch.setenv("AUTH_SECRET_KEYS", f"local-{SECRET}")
        monkeypatch.setenv("AUTH_PUBLIC_URL", "http://127.0.0.1:8000")
        assert load_settings().is_local

    def test_everything_wrong_is_named_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_MODE", "x")
        monkeypatch.setenv("AUTH_REFRESH_GRACE", "x")
        with pytest.raises(ConfigurationError, match=re.compile("AUTH_MODE.*; AUTH_REFRESH_GRACE")):
            load_settings()


class TestSettings:
    def test_they_never_change(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            load_settings().mode = "local"  # type: ignore[misc]  # that is the point

    @pytest.mark.parametrize("render", [repr, str, lambda settings: settings.model_dump_json()])
    def test_secrets_are_masked(self, render: Any) -> None:
        text = render(load_settings())
        assert "**********" in text
        for secret in ("canary", SECRET):
            assert secret not in text

    def test_nothing_has_a_default_secret(self) -> None:
        fields = Settings.model_fields
        for name in ("database_url", "signing_keys"):
            assert fields[name].default.get_secret_value() == ""
        assert fields["secret_keys"].default == ()


class TestSecretArns:
    """A secret's ARN stands in for its variable."""

    @pytest.mark.parametrize(
        ("variable", "arn"),
        [
            ("AUTH_DATABASE_URL", "AUTH_DATABASE_SECRET_ARN"),
            ("AUTH_SECRET_KEYS", "AUTH_SECRET_KEYS_SECRET_ARN"),
        ],
    )
    def test_either_will_do(self, monkeypatch: pytest.MonkeyPatch, variable: str, arn: str) -> None:
        monkeypatch.setenv(variable, "")
        with pytest.raises(ConfigurationError, match=f"{variable} is not set"):
            load_settings()
        monkeypatch.setenv(arn, "arn:aws:secretsmanager:eu-central-1:123456789012:secret:a-abcdef")
        load_settings()

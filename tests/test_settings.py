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
            ("AUTH_MFA_POLICY", "canary", "AUTH_MFA_POLICY: "),
            ("AUTH_MFA_TOKEN_LIFETIME", "59", "AUTH_MFA_TOKEN_LIFETIME: "),
            ("AUTH_TRUSTED_DEVICE_LIFETIME", "31536001", "AUTH_TRUSTED_DEVICE_LIFETIME: "),
            ("AUTH_PASSKEY_USER_VERIFICATION", "canary", "AUTH_PASSKEY_USER_VERIFICATION: "),
            ("AUTH_PASSKEY_REFUSE_CLONES", "canary", "AUTH_PASSKEY_REFUSE_CLONES: "),
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


class TestAttributeClaims:
    def test_names_and_pointers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_ATTRIBUTE_CLAIMS", '{"plan": "/plan", "https://a.example/x": "/a~1b/0"}')
        assert load_settings().attribute_claims == {"plan": "/plan", "https://a.example/x": "/a~1b/0"}

    def test_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_ATTRIBUTE_CLAIMS", "")
        assert load_settings().attribute_claims == {}

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            *(
                (value, "JSON object")
                for value in ("plan", "[]", "[1]", "1", "null", '"plan"', "{", "[" * 9999)
            ),
            ('{"plan": "/a", "plan": "/b"}', "each once"),
            *(
                (f'{{"{name}": "/a"}}', "reserved")
                for name in ("sub", "act", "roles", "email_verified", "nonce")
            ),
            *((f'{{"{name}": "/a"}}', "name") for name in ("", "1st", "a b", "a" * 129, "\u00e9")),
            *((f'{{"plan": "{pointer}"}}', "pointer") for pointer in ("plan", "/~", "/~2", "a/b")),
            ('{"plan": ["/a"]}', "string"),
            ('{"plan": {"a": "/b"}}', "string"),
            ("{" + ", ".join(f'"c{number}": "/a"' for number in range(21)) + "}", "20"),
        ],
    )
    def test_what_names_nothing_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, value: str, says: str
    ) -> None:
        monkeypatch.setenv("AUTH_ATTRIBUTE_CLAIMS", value)
        with pytest.raises(ConfigurationError, match=rf"AUTH_ATTRIBUTE_CLAIMS.*{says}"):
            load_settings()


class TestPasskeys:
    """What no browser would make a passkey for is refused at start (W3C WebAuthn section 5.1.3)."""

    @pytest.mark.parametrize(
        ("public_url", "host", "origin"),
        [
            ("https://auth.example.com", "auth.example.com", "https://auth.example.com"),
            ("https://Auth.Example.com/base", "auth.example.com", "https://auth.example.com"),
            ("https://auth.example.com:443", "auth.example.com", "https://auth.example.com"),
            ("https://auth.example.com:8443/", "auth.example.com", "https://auth.example.com:8443"),
        ],
    )
    def test_by_default_they_are_for_the_public_url(
        self, monkeypatch: pytest.MonkeyPatch, public_url: str, host: str, origin: str
    ) -> None:
        monkeypatch.setenv("AUTH_PUBLIC_URL", public_url)
        settings = load_settings()
        assert (settings.relying_party_id, settings.relying_party_origins) == (host, (origin,))

    @pytest.mark.parametrize(
        ("rp_id", "origins"),
        [
            ("example.com", ""),
            ("auth.example.com", ""),
            ("", "https://auth.example.com,https://pages.auth.example.com:8443"),
            ("example.com", "https://example.com,https://app.example.com"),
            ("example.com", f"https://app.example.com,android:apk-key-hash:{'a' * 41}-_"),
            ("localhost", "http://localhost:8000,http://localhost,https://localhost"),
            ("xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ],
    )
    def test_those_that_browsers_make(
        self, monkeypatch: pytest.MonkeyPatch, rp_id: str, origins: str
    ) -> None:
        monkeypatch.setenv("AUTH_PASSKEY_RP_ID", rp_id)
        monkeypatch.setenv("AUTH_PASSKEY_ORIGINS", origins)
        settings = load_settings()
        assert settings.relying_party_id == (rp_id or "auth.example.com")
        assert settings.relying_party_origins == tuple((origins or "https://auth.example.com").split(","))

    @pytest.mark.parametrize(
        "rp_id", ["127.0.0.1", "https://canary.example.com", "canary:8000", "Canary.com", ".canary.com", "é"]
    )
    def test_what_is_no_host_name(self, monkeypatch: pytest.MonkeyPatch, rp_id: str) -> None:
        monkeypatch.setenv("AUTH_PASSKEY_RP_ID", rp_id)
        self.assert_refused("AUTH_PASSKEY_RP_ID: must be a host name")

    @pytest.mark.parametrize(
        "origin",
        [
            "http://canary.example.com",
            "https://canary.example.com/",
            "https://canary.example.com/path",
            "https://Canary.example.com",
            "https://user@canary.example.com",
            "https://*.canary.example.com",
            "http://localhost.canary.example.com",
            "canary.example.com",
            "null",
            "android:apk-key-hash:canary",
            "ios:bundle-id:canary",
        ],
    )
    def test_what_no_client_has_for_an_origin(self, monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
        monkeypatch.setenv("AUTH_PASSKEY_ORIGINS", f"https://auth.example.com,{origin}")
        self.assert_refused("AUTH_PASSKEY_ORIGINS: each must be")

    @pytest.mark.parametrize(
        ("rp_id", "origins"),
        [
            ("canary.com", ""),
            ("canary.auth.example.com", ""),
            ("ample.com", "https://example.com"),
            ("", "https://example.com"),
            ("", "https://auth.example.com,https://canary.com"),
            ("example.com", "https://example.com,https://example.com.canary.com"),
            ("example.com", "http://localhost:8000"),
        ],
    )
    def test_a_host_that_is_not_that_of_every_origin(
        self, monkeypatch: pytest.MonkeyPatch, rp_id: str, origins: str
    ) -> None:
        monkeypatch.setenv("AUTH_PASSKEY_RP_ID", rp_id)
        monkeypatch.setenv("AUTH_PASSKEY_ORIGINS", origins)
        self.assert_refused("is neither the host of each passkey origin nor above it")

    @pytest.mark.parametrize("policy", ["required", "required_for_admins"])
    def test_a_required_second_factor_verifies_its_user(
        self, monkeypatch: pytest.MonkeyPatch, policy: str
    ) -> None:
        monkeypatch.setenv("AUTH_PASSKEY_USER_VERIFICATION", "discouraged")
        load_settings()
        monkeypatch.setenv("AUTH_MFA_POLICY", policy)
        self.assert_refused("AUTH_PASSKEY_USER_VERIFICATION=discouraged")

    def assert_refused(self, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load_settings()
        assert message in str(caught.value)
        assert "canary" not in str(caught.value)


class TestWebhooks:
    def test_networks_are_those_that_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load_settings().webhook_networks == ()
        monkeypatch.setenv("AUTH_WEBHOOK_ALLOWED_NETWORKS", "10.1.0.0/16, fd12::/32")
        assert [str(network) for network in load_settings().webhook_networks] == ["10.1.0.0/16", "fd12::/32"]

    def test_a_laptop_reaches_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTH_MODE", "local")
        assert [str(network) for network in load_settings().webhook_networks] == ["127.0.0.0/8", "::1/128"]

    @pytest.mark.parametrize("network", ["canary", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8 10.1.0.0/16"])
    def test_what_is_none(self, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
        monkeypatch.setenv("AUTH_WEBHOOK_ALLOWED_NETWORKS", network)
        with pytest.raises(ConfigurationError) as caught:
            load_settings()
        assert "AUTH_WEBHOOK_ALLOWED_NETWORKS" in str(caught.value)
        assert "canary" not in str(caught.value)


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

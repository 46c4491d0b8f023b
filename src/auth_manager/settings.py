"""The one frozen Settings object: built once in an entry point from AUTH_* variables, passed down.

docs/settings.md describes every field; a test holds the two together.
"""

import json
import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from auth_manager.custom_claims import check_name, check_pointer
from auth_manager.errors import ConfigurationError

MINIMUM_SECRET_BYTES = 32
"""Least length of an HMAC key (ASVS 11.2.3; RFC 2104 section 3)."""

MINIMUM_DISTINCT_CHARACTERS = 10
"""A word repeated is long, and no secret."""

LOCAL_KEY_MARK = "local-"
"""Marks keys that `make local` generated: they never start a deployment."""


_WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:[/?#][!#-~]*)?")
"""No quotes, no spaces, no user or password."""

_HOST = r"[a-z0-9-]+(?:\.[a-z0-9-]+)*"
_HOST_NAME = re.compile(rf"(?!.*(?:^|\.)[0-9]+$){_HOST}")
"""In ASCII (IDNA); an IPv4 address is none, and can be no relying party (W3C WebAuthn section 5.1.3)."""

_WEB_ORIGIN = re.compile(rf"(?:https://{_HOST}|http://localhost)(?P<port>:[1-9][0-9]{{0,4}})?")
_ANDROID_ORIGIN = re.compile(r"android:apk-key-hash:[A-Za-z0-9_-]{43}")
"""What an Android app has for an origin: the base64url SHA-256 of the certificate it is signed with."""


def origin_of(url: str) -> str:
    """Return the origin of an http(s) URL as browsers write it (RFC 6454 section 6.2)."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].lower()
    return f"{scheme}://{host}".removesuffix({"http": ":80", "https": ":443"}[scheme])


def refuse_weak_secrets(keys: Sequence[SecretStr]) -> None:
    """ASVS 11.2.3: fail at start, and say why, rather than run with a weak secret. Raises ValueError."""
    for key in keys:
        plain = key.get_secret_value()
        if len(plain.encode()) < MINIMUM_SECRET_BYTES:
            raise ValueError(f"a key is under {MINIMUM_SECRET_BYTES} bytes")
        if len(set(plain)) < MINIMUM_DISTINCT_CHARACTERS:
            raise ValueError("a key is not random")


def refuse_local_secrets(keys: Sequence[SecretStr]) -> None:
    """Refuse what `make local` generated. Raises ValueError."""
    if any(key.get_secret_value().startswith(LOCAL_KEY_MARK) for key in keys):
        raise ValueError("AUTH_SECRET_KEYS has a key made for local mode")


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is there twice")
    return members


class Settings(BaseSettings):
    """Everything that may differ between two deployments. Durations are seconds unless named."""

    model_config = SettingsConfigDict(env_prefix="AUTH_", frozen=True, extra="ignore")

    mode: Literal["local", "deployed"] = "deployed"
    public_url: str = ""
    product_name: str = "Auth Manager"
    service_name: str = Field(default="auth-manager", pattern=r"^[A-Za-z][A-Za-z0-9-]{0,127}$")
    git_sha: str = "unknown"
    docs_enabled: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    tracing_enabled: bool = False
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    origin_secret_arn: str = ""

    # Database
    database_url: SecretStr = SecretStr("")
    database_pool_size: int = Field(default=8, ge=1, le=100)
    database_connect_timeout: float = Field(default=1.5, gt=0, le=10)
    database_deadline: float = Field(default=4.0, gt=0, le=25)
    database_max_idle: float = Field(default=240.0, gt=0)
    database_session_options: bool = True
    database_secret_arn: str = ""
    database_iam: bool = False

    # Keys
    signing_keys: SecretStr = SecretStr("")
    signing_keys_file: str = ""
    signing_keys_secret_arn: str = ""
    signing_algorithm: Literal["RS256", "ES256"] = "RS256"
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    secret_keys_secret_arn: str = ""

    # Tokens and sessions
    audience: str = "auth-manager"
    access_token_lifetime: int = Field(default=900, ge=60, le=86_400)
    session_idle_lifetime: int = Field(default=14 * 86_400, ge=300)
    session_absolute_lifetime: int = Field(default=90 * 86_400, ge=300)
    refresh_grace: int = Field(default=10, ge=0, le=60)
    recent_authentication: int = Field(default=900, ge=60)

    # Roles and claims in tokens
    token_permissions: bool = False
    attribute_claims: Annotated[dict[str, str], NoDecode] = Field(default={}, max_length=20)

    # How long an administrator may act for somebody else
    impersonation_lifetime: int = Field(default=900, ge=60, le=3600)

    # Accounts and passwords
    require_verified_email: bool = False
    reveal_unverified_email: bool = True
    password_minimum_length: int = Field(default=12, ge=8, le=64)
    argon2_memory_kib: int = Field(default=19_456, ge=19_456, le=1_048_576)
    argon2_time_cost: int = Field(default=2, ge=2, le=20)
    argon2_parallelism: int = Field(default=1, ge=1, le=8)
    hash_concurrency: int = Field(default=4, ge=1, le=64)

    # Sign-up and the end of an account
    sign_up: Literal["open", "closed"] = "open"
    sign_up_domains: Annotated[tuple[str, ...], NoDecode] = ()
    erasure_grace: int = Field(default=0, ge=0, le=90 * 86_400)

    # Mail
    mail_transport: Literal["none", "mailbox", "smtp", "ses"] = "none"
    mail_from: str = ""
    smtp_url: SecretStr = SecretStr("")
    smtp_url_secret_arn: str = ""
    mail_templates: str = ""
    default_locale: Literal["en", "fr"] = "en"
    notify_new_device: bool = True
    verification_lifetime: int = Field(default=86_400, ge=300, le=7 * 86_400)
    reset_lifetime: int = Field(default=1800, ge=300, le=1800)
    email_login_lifetime: int = Field(default=600, ge=60, le=1800)
    invitation_lifetime: int = Field(default=7 * 86_400, ge=300, le=30 * 86_400)

    # Second factors and passkeys
    mfa_policy: Literal["optional", "required_for_admins", "required"] = "optional"
    mfa_token_lifetime: int = Field(default=600, ge=60, le=3600)
    trusted_device_lifetime: int = Field(default=30 * 86_400, ge=0, le=365 * 86_400)
    passkey_rp_id: str = ""
    passkey_origins: Annotated[tuple[str, ...], NoDecode] = ()
    passkey_user_verification: Literal["required", "preferred", "discouraged"] = "preferred"
    passkey_refuse_clones: bool = True

    # Pages
    pages_enabled: bool = True
    app_url: str = ""
    brand_logo_url: str = ""
    brand_colour: str = Field(default="#1d4ed8", pattern=r"^#[0-9a-fA-F]{6}$")

    # Messages and maintenance
    outbox_queue_url: str = ""
    outbox_retention: int = Field(default=7 * 86_400, ge=86_400)
    session_retention: int = Field(default=30 * 86_400, ge=0)

    # Audit trail
    audit_checkpoint_url: str = ""

    # Webhooks
    webhook_allowed_networks: Annotated[tuple[str, ...], NoDecode] = ()
    webhook_secret_overlap: int = Field(default=86_400, ge=0, le=30 * 86_400)

    # Backups
    backup_url: str = ""
    backup_kms_key: str = ""
    backup_keep_daily: int = Field(default=7, ge=1, le=366)
    backup_keep_weekly: int = Field(default=5, ge=0, le=260)
    backup_keep_monthly: int = Field(default=12, ge=0, le=240)

    # Imported accounts whose password only their former system can check
    lazy_migration_url: str = ""
    lazy_migration_secret: SecretStr = SecretStr("")
    lazy_migration_secret_arn: str = ""
    lazy_migration_cognito: str = Field(default="", pattern=r"^([a-z0-9-]+_[A-Za-z0-9]+/[A-Za-z0-9+]+)?$")

    # Limits
    login_failures_before_delay: int = Field(default=10, ge=3, le=100)
    login_failures_before_lock: int = Field(default=100, ge=3, le=100)
    login_delay: int = Field(default=30, ge=1)
    login_delay_maximum: int = Field(default=900, ge=1)
    login_attempts_per_address: int = Field(default=100, ge=1)
    login_address_window: int = Field(default=900, ge=1)
    registrations_per_address: int = Field(default=60, ge=1)
    registration_window: int = Field(default=3600, ge=1)
    mails_per_recipient: int = Field(default=5, ge=1)
    mail_requests_per_address: int = Field(default=60, ge=1)
    mail_window: int = Field(default=3600, ge=1)

    @field_validator(
        "cors_origins",
        "passkey_origins",
        "secret_keys",
        "sign_up_domains",
        "webhook_allowed_networks",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: object) -> object:
        """Accept `a,b` as environment variables carry lists."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("attribute_claims", mode="before")
    @classmethod
    def _read_object(cls, value: object) -> object:
        """Accept a JSON object as environment variables carry one; each name in it once."""
        if not isinstance(value, str):
            return value
        try:
            claims = json.loads(value or "{}", object_pairs_hook=_refuse_duplicates)
        except (ValueError, RecursionError) as error:
            raise ValueError("must be a JSON object of names, each once, and JSON pointers") from error
        if not isinstance(claims, dict):
            raise ValueError("must be a JSON object")  # noqa: TRY004 -- pydantic takes no other
        return claims

    @field_validator("attribute_claims")
    @classmethod
    def _refuse_unusable_claims(cls, claims: dict[str, str]) -> dict[str, str]:
        for name, pointer in claims.items():
            check_name(name)
            check_pointer(pointer)
        return claims

    @field_validator("public_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("app_url", "brand_logo_url")
    @classmethod
    def _refuse_what_no_page_may_have(cls, value: str) -> str:
        """These stand in pages as links, and their hosts in a Content-Security-Policy."""
        if value and not _WEB_ADDRESS.fullmatch(value):
            raise ValueError("must be an http(s) URL of printable ASCII characters")
        return value

    @field_validator("passkey_rp_id")
    @classmethod
    def _refuse_what_is_no_host_name(cls, value: str) -> str:
        if value and not _HOST_NAME.fullmatch(value):
            raise ValueError("must be a host name, as in example.com")
        return value

    @field_validator("passkey_origins")
    @classmethod
    def _refuse_what_no_client_has(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            web = _WEB_ORIGIN.fullmatch(origin)
            # As browsers write it: without the port that goes without saying.
            said = origin == origin_of(origin) and int((web["port"] or ":0")[1:]) < 1 << 16 if web else False
            if not (said or _ANDROID_ORIGIN.fullmatch(origin)):
                raise ValueError(
                    "each must be https:// and a host, http://localhost, or android:apk-key-hash:..."
                )
        return origins

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _refuse_what_is_no_network(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError("each must be a network as in 10.1.0.0/16") from None
        return networks

    @field_validator("secret_keys")
    @classmethod
    def _refuse_weak_secrets(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        refuse_weak_secrets(keys)
        return keys

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.login_failures_before_delay > self.login_failures_before_lock:
            raise ValueError("AUTH_LOGIN_FAILURES_BEFORE_DELAY exceeds ..._BEFORE_LOCK")
        if self.session_idle_lifetime > self.session_absolute_lifetime:
            raise ValueError("AUTH_SESSION_IDLE_LIFETIME exceeds AUTH_SESSION_ABSOLUTE_LIFETIME")
        if self.mfa_policy != "optional" and self.passkey_user_verification == "discouraged":
            raise ValueError(
                "AUTH_PASSKEY_USER_VERIFICATION=discouraged makes a passkey alone a single factor"
            )
        if self.access_token_lifetime > self.session_idle_lifetime:
            raise ValueError("AUTH_ACCESS_TOKEN_LIFETIME exceeds AUTH_SESSION_IDLE_LIFETIME")
        return self

    @model_validator(mode="after")
    def _refuse_mail_without_its_means(self) -> Self:
        if self.mail_transport in {"smtp", "ses"} and not self.mail_from:
            raise ValueError("AUTH_MAIL_FROM is not set, and mail needs a sender")
        smtp_url = self.smtp_url.get_secret_value() or self.smtp_url_secret_arn
        if self.mail_transport == "smtp" and not smtp_url:
            raise ValueError("AUTH_SMTP_URL is not set, and no AUTH_SMTP_URL_SECRET_ARN")
        if self.mail_transport == "mailbox" and self.mode != "local":
            raise ValueError("AUTH_MAIL_TRANSPORT=mailbox is for local mode: nobody would get the mail")
        return self

    @model_validator(mode="after")
    def _refuse_a_former_system_in_the_clear(self) -> Self:
        """Passwords go there: over TLS, and signed."""
        url = self.lazy_migration_url
        if not url:
            return self
        if not url.startswith("https://") and not (self.is_local and url.startswith("http://")):
            raise ValueError("AUTH_LAZY_MIGRATION_URL must be an https:// URL outside local mode")
        if not self.lazy_migration_secret.get_secret_value() and not self.lazy_migration_secret_arn:
            raise ValueError("AUTH_LAZY_MIGRATION_SECRET is not set, and no ..._SECRET_ARN")
        if self.lazy_migration_cognito:
            raise ValueError("AUTH_LAZY_MIGRATION_URL and ..._COGNITO are two systems: which one?")
        return self

    @model_validator(mode="after")
    def _refuse_an_unsafe_start(self) -> Self:
        """ASVS 6.3.2: no default secret; nothing made for a laptop outside it."""
        if not self.database_url.get_secret_value() and not self.database_secret_arn:
            raise ValueError("AUTH_DATABASE_URL is not set, and no AUTH_DATABASE_SECRET_ARN")
        if not self.secret_keys and not self.secret_keys_secret_arn:
            raise ValueError("AUTH_SECRET_KEYS is not set; `auth-manager keys generate` makes one")
        if not self.public_url.startswith(("https://", "http://")):
            raise ValueError("AUTH_PUBLIC_URL must be an http(s) URL")
        if self.mode == "deployed":
            if not self.public_url.startswith("https://"):
                raise ValueError("AUTH_PUBLIC_URL must be an https:// URL outside local mode")
            refuse_local_secrets(self.secret_keys)
        return self

    @model_validator(mode="after")
    def _refuse_passkeys_that_no_browser_makes(self) -> Self:
        """W3C WebAuthn section 5.1.3: the relying party's host is that of the page, or one above it."""
        if not self.passkey_rp_id and not self.passkey_origins:
            return self
        for origin in self.relying_party_origins:
            if origin.startswith("android:"):
                continue
            host = urlsplit(origin).hostname or ""
            if not f".{host}".endswith(f".{self.relying_party_id}"):
                raise ValueError(
                    "AUTH_PASSKEY_RP_ID (without it: the host of AUTH_PUBLIC_URL) "
                    "is neither the host of each passkey origin nor above it"
                )
        return self

    @property
    def relying_party_id(self) -> str:
        """The host name that passkeys are made for: by default that of the public URL."""
        return self.passkey_rp_id or urlsplit(self.public_url).hostname or ""

    @property
    def relying_party_origins(self) -> tuple[str, ...]:
        """Where passkeys may be used, as clients write it: by default the origin of the public URL."""
        return self.passkey_origins or (origin_of(self.public_url),)

    @property
    def webhook_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The private networks that webhooks may reach: on a laptop also itself."""
        own = ("127.0.0.0/8", "::1/128") if self.is_local else ()
        return tuple(ip_network(network) for network in (*self.webhook_allowed_networks, *own))

    @property
    def issuer(self) -> str:
        """The `iss` of every token: the public URL (RFC 8414 section 2)."""
        return self.public_url

    @property
    def is_local(self) -> bool:
        """Whether this is a laptop: generated keys, readable logs, /docs."""
        return self.mode == "local"


def load_settings(**overrides: object) -> Settings:
    """Read AUTH_* from the environment.

    Raises:
        ConfigurationError: naming each unusable variable, without its value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # values are validated by pydantic
    except ValidationError as error:
        reasons = []
        for item in error.errors(include_input=False, include_url=False, include_context=False):
            name = "_".join(("AUTH", *(str(part).upper() for part in item["loc"])))
            message = item["msg"].removeprefix("Value error, ")
            reasons.append(message if not item["loc"] else f"{name}: {message}")
        raise ConfigurationError("; ".join(reasons)) from None

"""The application: every feature and how it is wired, on one page."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from auth_manager import __version__
from auth_manager.aws.database_access import open_database_url
from auth_manager.database import Database
from auth_manager.lazy_migration import CheckElsewhere
from auth_manager.observability import count, trace
from auth_manager.one_time_secrets import OneTimeSecrets
from auth_manager.passwords import Passwords
from auth_manager.resources import Resources
from auth_manager.secret_keys import open_secret_keys
from auth_manager.settings import Settings
from auth_manager.signing_keys import open_key_set
from auth_manager.tokens import AccessTokens, Cursors, RefreshTokens
from auth_manager.web import problems
from auth_manager.web.bodies import BodyLimits
from auth_manager.web.calls import run_in_thread
from auth_manager.web.envelope import Envelope
from auth_manager.web.features import Feature, LazyFeatures

FEATURES = (
    Feature("auth_manager.web.metadata", ("/", "/health", "/.well-known/")),
    Feature("auth_manager.login.routes", ("/auth/login",)),
    Feature("auth_manager.sessions.routes", ("/auth/refresh", "/auth/logout", "/auth/sessions")),
    Feature("auth_manager.accounts.routes", ("/auth/register", "/auth/me")),
    Feature("auth_manager.verification.routes", ("/auth/verify-email", "/auth/email/")),
    Feature("auth_manager.invitations.routes", ("/auth/invitations/", "/admin/invitations")),
    Feature("auth_manager.erasure.routes", ("/auth/me",)),
    Feature("auth_manager.email_login.routes", ("/auth/email-login",)),
    Feature("auth_manager.reauthentication.routes", ("/auth/reauthenticate",)),
    Feature("auth_manager.recovery.routes", ("/auth/password/",)),
    Feature("auth_manager.mfa.routes", ("/auth/mfa", "/auth/login/mfa")),
    Feature("auth_manager.totp.routes", ("/auth/mfa/totp",)),
    Feature("auth_manager.passkeys.routes", ("/auth/passkeys",)),
    Feature("auth_manager.directory.routes", ("/admin/users",)),
    Feature("auth_manager.bulk_actions.routes", ("/admin/users/bulk",)),
    Feature("auth_manager.impersonation.routes", ("/admin/users/",)),
    Feature("auth_manager.roles.routes", ("/admin/roles",)),
    Feature("auth_manager.webhooks.routes", ("/admin/webhooks",)),
    Feature("auth_manager.audit_trail.routes", ("/admin/audit",)),
    Feature("auth_manager.admin.routes", ("/admin/users/",)),
)
"""Where the routes are, and how their paths begin."""

PAGES = Feature("auth_manager.pages.routes", ("/account",))

AT_START = FEATURES[:3]
"""What even a lazy application loads before its first request: what most of them ask for."""


def build_resources(
    settings: Settings,
    *,
    pool_size: int | None = None,
    fetch_secret: Callable[[str], str] | None = None,
    hand_over: Callable[[Sequence[UUID]], None] | None = None,
) -> Resources:
    """Build what services work with.

    Args:
        settings: of this process.
        pool_size: connections at most; None takes the setting. A Lambda sandbox needs one.
        fetch_secret: returns the text of a secret by its ARN.
        hand_over: told of the messages of the outbox that were committed; None leaves them to the relay.

    Raises:
        ConfigurationError: a key is missing, weak, or made for a laptop.
        ServiceUnavailable: a secret cannot be fetched now.
    """
    signing_keys = open_key_set(settings, fetch_secret)
    secret_keys = open_secret_keys(settings, fetch_secret)
    return Resources(
        settings=settings,
        database=connect_database(settings, pool_size=pool_size, fetch_secret=fetch_secret),
        passwords=Passwords(settings),
        signing_keys=signing_keys,
        secret_keys=secret_keys,
        access_tokens=AccessTokens(signing_keys, issuer=settings.issuer, audience=settings.audience),
        refresh_tokens=RefreshTokens(secret_keys),
        cursors=Cursors(secret_keys),
        one_time_secrets=OneTimeSecrets(secret_keys),
        hand_over=hand_over or (lambda _ids: None),
        check_elsewhere=_open_former_system(settings, fetch_secret),
    )


def _open_former_system(
    settings: Settings, fetch_secret: Callable[[str], str] | None
) -> CheckElsewhere | None:
    if settings.lazy_migration_url:
        from auth_manager.former_system import open_callback  # noqa: PLC0415 -- only where configured

        return open_callback(settings, fetch_secret)
    if settings.lazy_migration_cognito:
        from auth_manager.aws.cognito import open_cognito  # noqa: PLC0415 -- only where configured

        return open_cognito(settings.lazy_migration_cognito)
    return None


def connect_database(
    settings: Settings, *, pool_size: int | None = None, fetch_secret: Callable[[str], str] | None = None
) -> Database:
    """Build the pool alone, which is all that maintenance needs; as `build_resources`."""
    source = open_database_url(settings, fetch_secret)
    return Database(
        source.url,
        renewed_url=source.renewed_url,
        pool_size=pool_size or settings.database_pool_size,
        connect_timeout=settings.database_connect_timeout,
        deadline=settings.database_deadline,
        max_idle=settings.database_max_idle,
        session_options=settings.database_session_options,
        on_connect_failed=lambda: count("db_connection_failed"),
        trace=lambda: trace("postgresql"),
    )


def create_app(
    resources: Resources,
    *,
    runner: Callable[[Callable[[], Any]], Awaitable[Any]] = run_in_thread,
    lazy: bool = False,
) -> FastAPI:
    """Assemble the HTTP API.

    Args:
        resources: what services work with.
        runner: says where services run (web/calls.py).
        lazy: load the routes beyond AT_START with the first request for them: for a process that somebody
            waits for, with one thread. OpenAPI has all of them or none: with `docs_enabled` nothing is lazy.
    """
    settings = resources.settings
    app = FastAPI(
        title=settings.product_name,
        version=__version__,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        docs_url="/docs" if settings.docs_enabled else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.resources = resources
    app.state.runner = runner
    features = (*FEATURES, PAGES) if settings.pages_enabled else FEATURES
    at_start = AT_START if lazy and not settings.docs_enabled else features
    for feature in at_start:
        feature.add_to(app.router)
    problems.install(app)
    # Each one added goes around those before it.
    if later := tuple(feature for feature in features if feature not in at_start):
        app.add_middleware(LazyFeatures, features=later, router=app.router)
    app.add_middleware(BodyLimits)
    if settings.cors_origins:
        from auth_manager.web.cors import Cors  # noqa: PLC0415 -- only where configured

        app.add_middleware(
            Cors,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(Envelope, https_only=not settings.is_local)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the API: FastAPI's own schema, with our errors instead of its."""
    if app.openapi_schema is None:
        described = APIRouter(generate_unique_id_function=lambda route: route.name)
        described.include_router(app.router)
        schema = get_openapi(title=app.title, version=app.version, routes=described.routes)
        schemas = schema["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas["Problem"] = problems.PROBLEM_SCHEMA
        app.openapi_schema = schema
    return app.openapi_schema

"""GET /, /.well-known/jwks.json, /.well-known/openid-configuration, /health, /health/ready."""

import json
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from auth_manager import __version__
from auth_manager.audit import Origin
from auth_manager.errors import DatabaseUnavailable, NotFound, NotReady
from auth_manager.migrate import is_current
from auth_manager.resources import Resources
from auth_manager.web.calls import CurrentCall
from auth_manager.web.idempotent import respond
from auth_manager.web.problems import responses

JWKS_MAX_AGE = 300
"""Seconds a verifier may keep the keys; new ones are published long before they sign."""

router = APIRouter()


class Health(BaseModel):
    """The process is alive."""

    status: str
    version: str
    git_sha: str


class Readiness(BaseModel):
    """Everything a login needs works."""

    status: str
    checks: dict[str, str]


class KeySetView(BaseModel):
    """RFC 7517 section 5."""

    keys: list[dict[str, Any]]


class Discovery(BaseModel):
    """RFC 8414 and OpenID Connect Discovery 1.0, as far as there is something to discover.

    Enough for a JWT authorizer: `issuer` and `jwks_uri`.
    """

    issuer: str
    jwks_uri: str
    response_types_supported: list[str]
    subject_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]
    scopes_supported: list[str]
    claims_supported: list[str]


@router.get("/", include_in_schema=False)
async def front_door(call: CurrentCall) -> Response:
    """Lead whoever opens the service itself to its pages."""
    settings = call.resources.settings
    if not settings.pages_enabled:
        raise NotFound
    base = urlsplit(settings.public_url).path
    return RedirectResponse(f"{base}/account", status_code=303)


@router.get("/health", tags=["health"], summary="Is the process alive?", response_model=Health)
async def health(call: CurrentCall) -> Response:
    """Answer without any I/O."""
    view = Health(status="ok", version=__version__, git_sha=call.resources.settings.git_sha)
    return respond((200, view.model_dump_json().encode()))


@router.get(
    "/health/ready",
    tags=["health"],
    summary="Can it log people in?",
    response_model=Readiness,
    responses=responses(DatabaseUnavailable, NotReady),
)
async def ready(call: CurrentCall) -> Response:
    """Check the database, its migrations and the signing key."""
    view = Readiness(status="ready", checks=await call(_check))
    return respond((200, view.model_dump_json().encode()))


def _check(resources: Resources, _origin: Origin) -> dict[str, str]:
    """Raise for the first part that fails, naming it."""
    if not is_current(resources.database):
        raise NotReady("migrations: the database is not at this version; run `auth-manager migrate`.")
    if not resources.signing_keys.get().current.works():
        raise NotReady("signing_key: the current key does not sign what it verifies.")
    return {"database": "ok", "migrations": "ok", "signing_key": "ok"}


@router.get(
    "/.well-known/jwks.json",
    tags=["discovery"],
    summary="Public keys that may verify a token",
    response_model=KeySetView,
)
async def jwks(call: CurrentCall) -> Response:
    """Return the next, current and previous keys, public parts only."""
    return _cacheable(respond((200, json.dumps(call.resources.signing_keys.get().public_jwks()).encode())))


@router.get(
    "/.well-known/openid-configuration",
    tags=["discovery"],
    summary="Where to find what",
    response_model=Discovery,
)
async def discovery(call: CurrentCall) -> Response:
    """Describe the issuer."""
    settings = call.resources.settings
    view = Discovery(
        issuer=settings.issuer,
        jwks_uri=f"{settings.issuer}/.well-known/jwks.json",
        response_types_supported=["none"],
        subject_types_supported=["public"],
        id_token_signing_alg_values_supported=[settings.signing_algorithm],
        scopes_supported=["account"],
        claims_supported=["iss", "sub", "aud", "exp", "iat", "jti", "sid", "auth_time", "amr", "acr"],
    )
    return _cacheable(respond((200, view.model_dump_json().encode())))


def _cacheable(response: Response) -> Response:
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE}"
    return response

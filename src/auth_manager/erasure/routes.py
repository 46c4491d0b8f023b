"""GET /auth/me/export, DELETE /auth/me, POST /auth/me/keep."""

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from auth_manager.erasure import service
from auth_manager.errors import InvalidOneTimeSecret, LastAdministrator, RecentAuthenticationRequired
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import JSON, CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import answer_once, no_content
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses
from auth_manager.web.proofs import LinkFields

router = APIRouter(tags=["accounts"])


class Export(BaseModel):
    """Everything that is held about you, but secrets and their hashes; lists have their latest 2,000."""

    exported_at: datetime
    account: dict[str, Any]
    sessions: list[dict[str, Any]]
    devices: list[dict[str, Any]]
    trusted_devices: list[dict[str, Any]]
    factors: Annotated[
        dict[str, list[dict[str, Any]]], Field(description="`totp`, `passkeys` and `recovery_codes`")
    ]
    requests: Annotated[list[dict[str, Any]], Field(description="What was mailed to be presented")]
    messages: Annotated[list[dict[str, Any]], Field(description="Mails of the last days")]
    security_events: list[dict[str, Any]]


class ErasureScheduled(BaseModel):
    """The account is disabled, and erased then unless you keep it."""

    erase_after: datetime


@router.get(
    "/auth/me/export",
    summary="Export what is held about you",
    response_model=Export,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired),
)
async def export_me(call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return everything as one JSON document; needs a recent sign-in."""
    exported = await call(service.export, claims)
    return Response(
        json.dumps(exported, default=_render, ensure_ascii=False).encode(),
        media_type=JSON,
        headers={"Content-Disposition": 'attachment; filename="account.json"'},
    )


def _render(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


@router.delete(
    "/auth/me",
    status_code=204,
    summary="Delete your account",
    response_class=Response,
    responses={
        202: {"model": ErasureScheduled, "description": "Scheduled: with `AUTH_ERASURE_GRACE`"},
        **responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, LastAdministrator),
    },
)
async def delete_me(call: CurrentCall, claims: CurrentClaims) -> Response:
    """Erase the account for good, at once or after a time to keep it; needs a recent sign-in."""
    erase_after = await call(service.delete_own_account, claims)
    if erase_after is None:
        return Response(status_code=204)
    return Response(
        ErasureScheduled(erase_after=erase_after).model_dump_json(), status_code=202, media_type=JSON
    )


@router.post(
    "/auth/me/keep",
    status_code=204,
    summary="Keep an account that is to be erased",
    response_class=Response,
    responses=responses(WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, InvalidOneTimeSecret),
)
async def keep_me(
    body: LinkFields, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Cancel the erasure by what was mailed; then sign in as before."""
    token = body.token.get_secret_value()
    return await answer_once(call, request, idempotency_key, "", no_content, service.keep, token)

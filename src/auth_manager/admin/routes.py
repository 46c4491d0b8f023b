"""POST /admin/users/{id}/mfa-reset."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from auth_manager.admin import service
from auth_manager.errors import Forbidden, NotFound, RecentAuthenticationRequired
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import answer_once, no_content
from auth_manager.web.problems import WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses

router = APIRouter(prefix="/admin", tags=["administration"])


@router.post(
    "/users/{account_id}/mfa-reset",
    status_code=204,
    summary="Remove a user's second factors",
    response_class=Response,
    responses=responses(
        WITH_TOKEN, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, RecentAuthenticationRequired, Forbidden, NotFound
    ),
)
async def reset_mfa(
    account_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """For a user who lost them all: the sessions end, and the user is told by mail."""
    return await answer_once(
        call, request, idempotency_key, str(claims.sid), no_content, service.reset_mfa, claims, account_id
    )

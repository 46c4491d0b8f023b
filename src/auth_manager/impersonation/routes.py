"""POST /admin/users/{id}/impersonate."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from auth_manager.accounts.routes import UserView
from auth_manager.errors import AccountDisabled, Forbidden, NotFound, RecentAuthenticationRequired
from auth_manager.impersonation import service
from auth_manager.impersonation.service import Impersonation
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Administrator, Answer, answer_once
from auth_manager.web.problems import (
    WITH_BODY,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    WITH_TOKEN,
    responses,
)

router = APIRouter(prefix="/admin", tags=["administration"])


class ImpersonationRequest(BaseModel):
    """Why you act for somebody else; it stays in the audit trail."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=3, max_length=500, examples=["Ticket 4711"])]


class ImpersonationView(BaseModel):
    """An access token that says `act`, without a refresh token."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 -- RFC 6749 section 7.1
    expires_in: Annotated[int, Field(description="Seconds the token and its session live")]
    session_id: UUID
    user: UserView


def _answer(opened: Impersonation) -> Answer:
    view = ImpersonationView.model_construct(
        access_token=opened.access_token,
        token_type="Bearer",  # noqa: S106 -- RFC 6749 section 7.1
        expires_in=opened.expires_in,
        session_id=opened.session_id,
        user=UserView.of(opened.account),
    )
    return 201, view.model_dump_json().encode()


@router.post(
    "/users/{account_id}/impersonate",
    status_code=201,
    summary="Act for a user",
    response_model=ImpersonationView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        Forbidden,
        NotFound,
        AccountDisabled,
    ),
)
async def impersonate(
    account_id: UUID,
    body: ImpersonationRequest,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Needs the permission `users:impersonate` by its name. The user sees the session, and can end it."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:impersonate"),
        _answer,
        service.impersonate,
        claims,
        account_id,
        reason=body.reason,
    )

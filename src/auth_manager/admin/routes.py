"""POST /admin/users/{id}/disable, /enable, /unlock, /recovery, /logout, /mfa-reset; a user's sessions."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from auth_manager.admin import service
from auth_manager.errors import (
    AccountDisabled,
    Forbidden,
    LastAdministrator,
    NotFound,
    RecentAuthenticationRequired,
)
from auth_manager.sessions import Session
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Administrator, answer_once, no_content, respond
from auth_manager.web.problems import WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses

router = APIRouter(prefix="/admin", tags=["administration"])

READS = responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, Forbidden, NotFound)
ACTS = responses(
    WITH_TOKEN, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, RecentAuthenticationRequired, Forbidden, NotFound
)
ACTS_BUT_THE_LAST = responses(
    WITH_TOKEN,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    RecentAuthenticationRequired,
    Forbidden,
    NotFound,
    LastAdministrator,
)
ACTS_ON_THE_ENABLED = responses(
    WITH_TOKEN,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    RecentAuthenticationRequired,
    Forbidden,
    NotFound,
    AccountDisabled,
)


class UserSessionView(BaseModel):
    """A live session of a user, as administrators see it."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str
    factors: Annotated[list[str], Field(description="How it was signed in (RFC 8176 `amr` values)")]
    impersonator_id: Annotated[
        UUID | None,
        Field(description="The administrator who acts for the user in it; null: it is the user's"),
    ]

    @classmethod
    def of(cls, session: Session) -> "UserSessionView":
        """Shape a session."""
        return cls.model_construct(
            id=session.id,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
            address=session.address,
            user_agent=session.user_agent,
            factors=list(session.amr),
            impersonator_id=session.impersonator_id,
        )


class UserSessionList(BaseModel):
    """One page of sessions."""

    items: list[UserSessionView]
    next_cursor: str | None


@router.post(
    "/users/{account_id}/disable",
    status_code=204,
    summary="Disable a user",
    response_class=Response,
    responses=ACTS_BUT_THE_LAST,
)
async def disable_user(
    account_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """End the user's sessions and let them open none, until enabled again."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        no_content,
        service.disable,
        claims,
        account_id,
    )


@router.post(
    "/users/{account_id}/enable",
    status_code=204,
    summary="Enable a user",
    response_class=Response,
    responses=ACTS,
)
async def enable_user(
    account_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Let a disabled user sign in again; an erasure that the user asked for is called off."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        no_content,
        service.enable,
        claims,
        account_id,
    )


@router.post(
    "/users/{account_id}/unlock",
    status_code=204,
    summary="Unlock a user",
    response_class=Response,
    responses=ACTS,
)
async def unlock_user(
    account_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Forget the failed attempts, so that the user can try again at once."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        no_content,
        service.unlock,
        claims,
        account_id,
    )


@router.post(
    "/users/{account_id}/recovery",
    status_code=204,
    summary="Mail a user a link to set a password with",
    response_class=Response,
    responses=ACTS_ON_THE_ENABLED,
)
async def start_recovery(
    account_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """An administrator starts a reset and never sets a password. Nothing ends until the user sets one."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        no_content,
        service.start_recovery,
        claims,
        account_id,
    )


@router.post(
    "/users/{account_id}/logout",
    status_code=204,
    summary="Log a user out everywhere",
    response_class=Response,
    responses=ACTS,
)
async def log_user_out(
    account_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """End every session of the user."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        no_content,
        service.log_out,
        claims,
        account_id,
    )


@router.post(
    "/users/{account_id}/mfa-reset",
    status_code=204,
    summary="Remove a user's second factors",
    response_class=Response,
    responses=ACTS,
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
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        no_content,
        service.reset_mfa,
        claims,
        account_id,
    )


@router.get(
    "/users/{account_id}/sessions",
    summary="List a user's sessions",
    response_model=UserSessionList,
    responses=READS,
)
async def list_user_sessions(
    account_id: UUID,
    call: CurrentCall,
    claims: CurrentClaims,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return live sessions, newest first."""
    page = await call(service.list_sessions, claims, account_id, limit=limit, cursor=cursor)
    items = [UserSessionView.of(session) for session in page.items]
    view = UserSessionList.model_construct(items=items, next_cursor=page.next_cursor)
    return respond((200, view.model_dump_json().encode()))


@router.delete(
    "/users/{account_id}/sessions/{session_id}",
    status_code=204,
    summary="End one of a user's sessions",
    response_class=Response,
    responses=READS,
)
async def revoke_user_session(
    account_id: UUID, session_id: UUID, call: CurrentCall, claims: CurrentClaims
) -> Response:
    """End a session; one of somebody else's does not exist here."""
    await call(service.revoke_session, claims, account_id, session_id)
    return Response(status_code=204)

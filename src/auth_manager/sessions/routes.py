"""POST /auth/refresh, POST /auth/logout, GET and DELETE /auth/sessions."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auth_manager.accounts.routes import UserView
from auth_manager.errors import (
    AccountDisabled,
    InvalidRefreshToken,
    NotFound,
    RefreshTokenReused,
    SessionEnded,
)
from auth_manager.sessions import Session, service
from auth_manager.sessions.service import LogOutScope, TokenGrant
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once, no_content, respond
from auth_manager.web.problems import (
    WITH_BODY,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    WITH_TOKEN,
    responses,
)

router = APIRouter(tags=["sessions"])


class TokenResponse(BaseModel):
    """Tokens of a session (RFC 6749 section 5.1, with what an application needs next)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 -- RFC 6749 section 7.1
    expires_in: Annotated[int, Field(description="Seconds the access token lives")]
    refresh_token: str
    refresh_expires_in: Annotated[int, Field(description="Seconds until the refresh token idles out")]
    session_id: UUID
    user: UserView

    @classmethod
    def of(cls, tokens: TokenGrant) -> "TokenResponse":
        """Shape tokens."""
        return cls.model_construct(
            access_token=tokens.access_token,
            token_type="Bearer",  # noqa: S106 -- RFC 6749 section 7.1
            expires_in=tokens.expires_in,
            refresh_token=tokens.refresh_token,
            refresh_expires_in=tokens.refresh_expires_in,
            session_id=tokens.session_id,
            user=UserView.of(tokens.account),
        )


class RefreshRequest(BaseModel):
    """A refresh token."""

    model_config = ConfigDict(extra="forbid")

    refresh_token: SecretStr


class LogOutRequest(BaseModel):
    """Which sessions end."""

    model_config = ConfigDict(extra="forbid")

    scope: LogOutScope = "this"


class SessionView(BaseModel):
    """A live session as its owner sees it."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str
    factors: Annotated[list[str], Field(description="How it was signed in (RFC 8176 `amr` values)")]
    current: Annotated[bool, Field(description="Whether it is the one that asks")]
    impersonated: Annotated[bool, Field(description="Whether an administrator acts for you in it")]

    @classmethod
    def of(cls, session: Session, current: UUID) -> "SessionView":
        """Shape a session."""
        return cls.model_construct(
            id=session.id,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
            address=session.address,
            user_agent=session.user_agent,
            factors=list(session.amr),
            current=session.id == current,
            impersonated=session.impersonator_id is not None,
        )


class SessionList(BaseModel):
    """One page of sessions."""

    items: list[SessionView]
    next_cursor: str | None


def tokens_answer(tokens: TokenGrant) -> Answer:
    """Render a token response."""
    return 200, TokenResponse.of(tokens).model_dump_json().encode()


@router.post(
    "/auth/refresh",
    summary="Trade a refresh token for the next one",
    response_model=TokenResponse,
    responses=responses(
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidRefreshToken,
        RefreshTokenReused,
        SessionEnded,
        AccountDisabled,
    ),
)
async def refresh(
    body: RefreshRequest, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Rotate. A retry within seconds gets the same successor; a later reuse ends the session."""
    token = body.refresh_token.get_secret_value()
    return await answer_once(call, request, idempotency_key, "", tokens_answer, service.refresh, token)


@router.post(
    "/auth/logout",
    status_code=204,
    summary="Log out",
    response_class=Response,
    responses=responses(WITH_TOKEN, WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY),
)
async def log_out(
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    body: LogOutRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """End this session (the default, also without a body), the others, or all."""
    scope = body.scope if body else "this"
    subject = f"{claims.sub} {claims.sid}"  # another session's log-out is another request
    return await answer_once(
        call, request, idempotency_key, subject, no_content, service.log_out, claims, scope
    )


@router.get(
    "/auth/sessions",
    summary="List your sessions",
    response_model=SessionList,
    responses=responses(WITH_TOKEN, WITH_DATABASE),
)
async def list_sessions(
    call: CurrentCall,
    claims: CurrentClaims,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return live sessions, newest first."""
    page = await call(service.list_sessions, claims, limit=limit, cursor=cursor)
    items = [SessionView.of(session, claims.sid) for session in page.items]
    view = SessionList.model_construct(items=items, next_cursor=page.next_cursor)
    return respond((200, view.model_dump_json().encode()))


@router.delete(
    "/auth/sessions/{session_id}",
    status_code=204,
    summary="End one of your sessions",
    response_class=Response,
    responses=responses(WITH_TOKEN, WITH_DATABASE, NotFound),
)
async def revoke_session(session_id: UUID, call: CurrentCall, claims: CurrentClaims) -> Response:
    """End a session; a session that is not yours does not exist."""
    await call(service.revoke_session, claims, session_id)
    return Response(status_code=204)

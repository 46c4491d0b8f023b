"""POST /admin/invitations, POST /auth/invitations/accept."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auth_manager.accounts.routes import DisplayName, Username, UserView, user_answer
from auth_manager.errors import (
    EmailTaken,
    Forbidden,
    InvalidOneTimeSecret,
    RecentAuthenticationRequired,
    UsernameTaken,
)
from auth_manager.invitations import service
from auth_manager.invitations.service import Acceptance
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Administrator, Answer, answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses
from auth_manager.web.proofs import Email, LinkFields, Locale

router = APIRouter()


class InvitationRequest(BaseModel):
    """Who is invited, and what they will have."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    roles: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Field(max_length=50, description="Besides the default ones"),
    ] = []
    locale: Locale | None = None
    invited_by: Annotated[str | None, Field(max_length=200, description="Your name, for the mail")] = None


class InvitationView(BaseModel):
    """An invitation that is on its way."""

    id: UUID


class AcceptanceRequest(LinkFields):
    """What an invited person chooses, and the invitation."""

    password: Annotated[SecretStr, Field(examples=["SecurePass123!"])]
    username: Username | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None


def _invited(invitation: UUID) -> Answer:
    return 201, InvitationView(id=invitation).model_dump_json().encode()


@router.post(
    "/admin/invitations",
    status_code=201,
    summary="Invite somebody",
    tags=["administration"],
    response_model=InvitationView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        Forbidden,
        EmailTaken,
    ),
)
async def invite(
    body: InvitationRequest,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Mail an invitation; only roles that give nothing which you lack."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "invitations:write"),
        _invited,
        service.invite,
        body.email,
        roles=body.roles,
        invited_by=body.invited_by,
        locale=body.locale,
        claims=claims,
    )


@router.post(
    "/auth/invitations/accept",
    status_code=201,
    summary="Accept an invitation",
    tags=["accounts"],
    response_model=UserView,
    responses=responses(
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidOneTimeSecret,
        EmailTaken,
        UsernameTaken,
    ),
)
async def accept_invitation(
    body: AcceptanceRequest, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create the account of an invitation; its address counts as verified."""
    acceptance = Acceptance(
        password=body.password.get_secret_value(),
        username=body.username,
        display_name=body.display_name,
        locale=body.locale,
    )
    token = body.token.get_secret_value()
    created = partial(user_answer, status=201)
    return await answer_once(call, request, idempotency_key, "", created, service.accept, token, acceptance)

"""POST /auth/invitations/accept."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field, SecretStr

from auth_manager.accounts.routes import DisplayName, Username, UserView, user_answer
from auth_manager.errors import EmailTaken, InvalidOneTimeSecret, UsernameTaken
from auth_manager.invitations import service
from auth_manager.invitations.service import Acceptance
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, responses
from auth_manager.web.proofs import LinkFields, Locale

router = APIRouter(tags=["accounts"])


class AcceptanceRequest(LinkFields):
    """What an invited person chooses, and the invitation."""

    password: Annotated[SecretStr, Field(examples=["SecurePass123!"])]
    username: Username | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None


@router.post(
    "/auth/invitations/accept",
    status_code=201,
    summary="Accept an invitation",
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

"""POST /auth/invitations/accept."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field, SecretStr

from auth_manager.accounts import Account
from auth_manager.accounts.routes import DisplayName, Username, UserView
from auth_manager.errors import EmailTaken, InvalidOneTimeSecret, TooManyAttempts, UsernameTaken
from auth_manager.invitations import service
from auth_manager.invitations.service import Acceptance
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, responses
from auth_manager.web.proofs import Locale, ProofFields

router = APIRouter(tags=["accounts"])


class AcceptanceRequest(ProofFields):
    """What an invited person chooses, and the invitation."""

    password: Annotated[SecretStr, Field(examples=["SecurePass123!"])]
    username: Username | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None


def _user(account: Account) -> Answer:
    return 201, UserView.of(account).model_dump_json().encode()


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
        TooManyAttempts,
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
    return await answer_once(
        call, request, idempotency_key, "", _user, service.accept, body.proof, acceptance
    )

"""POST /auth/password/forgot, /auth/password/reset, /auth/password/change."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auth_manager.errors import InvalidOneTimeSecret, TooManyAttempts, TooManyRequests
from auth_manager.recovery import service
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import answer_once, no_content
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses
from auth_manager.web.proofs import ByMail, MailAccepted, ProofFields, mail_accepted

router = APIRouter(tags=["recovery"])


class ResetRequest(ProofFields):
    """A new password, and what was mailed."""

    password: Annotated[SecretStr, Field(examples=["AnotherPass456!"])]


class PasswordChangeRequest(BaseModel):
    """The old and the new password."""

    model_config = ConfigDict(extra="forbid")

    current_password: SecretStr
    new_password: SecretStr
    end_other_sessions: Annotated[bool, Field(description="Sign out everywhere else")] = True


@router.post(
    "/auth/password/forgot",
    status_code=202,
    summary="Ask for a password reset",
    response_model=MailAccepted,
    responses=responses(WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, TooManyRequests),
)
async def forgot_password(
    body: ByMail, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Mail a link and a code to set a password with. The answer is the same for everyone."""
    return await answer_once(call, request, idempotency_key, "", mail_accepted, service.start, body.email)


@router.post(
    "/auth/password/reset",
    status_code=204,
    summary="Set a password by what was mailed",
    response_class=Response,
    responses=responses(
        WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, InvalidOneTimeSecret, TooManyAttempts
    ),
)
async def reset_password(
    body: ResetRequest, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Set a password; every session of the account ends."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        "",
        no_content,
        service.reset_password,
        body.proof,
        body.password.get_secret_value(),
    )


@router.post(
    "/auth/password/change",
    status_code=204,
    summary="Change your password",
    response_class=Response,
    responses=responses(WITH_TOKEN, WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, TooManyAttempts),
)
async def change_password(
    body: PasswordChangeRequest,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Change the password; other sessions end unless asked otherwise."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        str(claims.sub),
        no_content,
        service.change_password,
        claims,
        current_password=body.current_password.get_secret_value(),
        new_password=body.new_password.get_secret_value(),
        end_other_sessions=body.end_other_sessions,
    )

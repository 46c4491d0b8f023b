"""POST /auth/email-login, /auth/email-login/verify."""

from fastapi import APIRouter, Request, Response

from auth_manager.email_login import service
from auth_manager.errors import (
    AccountDisabled,
    InvalidOneTimeSecret,
    MfaEnrolmentRequired,
    MfaRequired,
    TooManyAttempts,
    TooManyRequests,
)
from auth_manager.sessions.routes import TokenResponse, tokens_answer
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, responses
from auth_manager.web.proofs import ByMail, MailAccepted, ProofFields, mail_accepted

router = APIRouter(tags=["login"])


@router.post(
    "/auth/email-login",
    status_code=202,
    summary="Ask for a mail to sign in with",
    response_model=MailAccepted,
    responses=responses(WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, TooManyRequests),
)
async def request_email_login(
    body: ByMail, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Mail a link and a code to sign in with. The answer is the same for everyone."""
    return await answer_once(call, request, idempotency_key, "", mail_accepted, service.start, body.email)


@router.post(
    "/auth/email-login/verify",
    summary="Sign in by what was mailed",
    response_model=TokenResponse,
    responses=responses(
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidOneTimeSecret,
        AccountDisabled,
        MfaRequired,
        MfaEnrolmentRequired,
        TooManyAttempts,
    ),
)
async def log_in_by_email(
    body: ProofFields, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Open a session, and take the address as proven."""
    return await answer_once(call, request, idempotency_key, "", tokens_answer, service.log_in, body.proof)

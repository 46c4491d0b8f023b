"""POST /auth/verify-email, /auth/verify-email/resend, /auth/email/change."""

from fastapi import APIRouter, Request, Response

from auth_manager.accounts.routes import UserView, user_answer
from auth_manager.errors import (
    EmailTaken,
    InvalidOneTimeSecret,
    RecentAuthenticationRequired,
    TooManyAttempts,
    TooManyRequests,
)
from auth_manager.verification import service
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses
from auth_manager.web.proofs import ByMail, MailAccepted, ProofFields, mail_accepted

router = APIRouter(tags=["verification"])


@router.post(
    "/auth/verify-email",
    summary="Prove an e-mail address",
    response_model=UserView,
    responses=responses(
        WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, InvalidOneTimeSecret, EmailTaken, TooManyAttempts
    ),
)
async def verify_email(
    body: ProofFields, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Prove the address of an account, or the one that it changes to, by what was mailed there."""
    return await answer_once(
        call, request, idempotency_key, "", user_answer, service.verify_email, body.proof
    )


@router.post(
    "/auth/verify-email/resend",
    status_code=202,
    summary="Mail another verification",
    response_model=MailAccepted,
    responses=responses(WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, TooManyRequests),
)
async def resend_verification(
    body: ByMail, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Mail another verification. The answer is the same for an address that needs none or that nobody has."""
    return await answer_once(call, request, idempotency_key, "", mail_accepted, service.resend, body.email)


@router.post(
    "/auth/email/change",
    status_code=202,
    summary="Change your e-mail address",
    response_model=MailAccepted,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        TooManyRequests,
    ),
)
async def change_email(
    body: ByMail,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Mail a proof to the new address; the old one stays until it is presented to /auth/verify-email."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        str(claims.sub),
        mail_accepted,
        service.change_email,
        claims,
        body.email,
    )

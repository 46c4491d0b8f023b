"""POST /auth/mfa/totp, /auth/mfa/totp/confirm; DELETE /auth/mfa/totp."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auth_manager.errors import (
    EmailNotVerified,
    FactorNeeded,
    NotFound,
    RecentAuthenticationRequired,
    TooManyFactors,
    TooManyRequests,
)
from auth_manager.factors.changes import enrolee_of
from auth_manager.totp import service
from auth_manager.totp.service import Enrolment
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses

router = APIRouter(tags=["second factors"])


class EnrolmentView(BaseModel):
    """What an authenticator app takes, in three forms of the same; shown once."""

    secret: Annotated[str, Field(description="Base32, to be typed")]
    uri: Annotated[str, Field(description="otpauth:// with the secret, to be opened on the device")]
    qr_svg: Annotated[str, Field(description="The URI as a QR code, to be scanned: an SVG element")]

    @classmethod
    def of(cls, enrolment: Enrolment) -> "EnrolmentView":
        """Shape an enrolment."""
        return cls(secret=enrolment.secret, uri=enrolment.uri, qr_svg=enrolment.qr_svg)


class FirstCode(BaseModel):
    """The code that the app shows now."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[SecretStr, Field(max_length=16, description="Six digits")]


class ConfirmedView(BaseModel):
    """Recovery codes, each good once; nobody can read them again."""

    recovery_codes: Annotated[list[str], Field(description="Empty where there are unused ones already")]


def enrolment_answer(enrolment: Enrolment) -> Answer:
    """Render what an authenticator app takes."""
    return 201, EnrolmentView.of(enrolment).model_dump_json().encode()


def _confirmed(codes: Sequence[str]) -> Answer:
    return 200, ConfirmedView(recovery_codes=list(codes)).model_dump_json().encode()


@router.post(
    "/auth/mfa/totp",
    status_code=201,
    summary="Begin to set up an authenticator app",
    response_model=EnrolmentView,
    responses=responses(
        WITH_TOKEN,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        EmailNotVerified,
        TooManyFactors,
    ),
)
async def start_totp(
    request: Request, call: CurrentCall, claims: CurrentClaims, idempotency_key: IdempotencyKey = None
) -> Response:
    """Make a secret. It counts for nothing until it is confirmed; a second one takes its place. No body."""
    enrolee = enrolee_of(call.resources, call.origin, claims)
    return await answer_once(
        call, request, idempotency_key, str(claims.sid), enrolment_answer, service.start, enrolee
    )


@router.post(
    "/auth/mfa/totp/confirm",
    summary="Confirm it by its first code",
    response_model=ConfirmedView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        EmailNotVerified,
        NotFound,
        TooManyFactors,
        TooManyRequests,
    ),
)
async def confirm_totp(
    body: FirstCode,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask for it at every sign-in from now on. Keep the recovery codes: they are for when the app is lost."""
    enrolee = enrolee_of(call.resources, call.origin, claims)
    code = body.code.get_secret_value()
    return await answer_once(
        call, request, idempotency_key, str(claims.sid), _confirmed, service.confirm, enrolee, code
    )


@router.delete(
    "/auth/mfa/totp",
    status_code=204,
    summary="Remove the authenticator app",
    response_class=Response,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, NotFound, FactorNeeded),
)
async def remove_totp(call: CurrentCall, claims: CurrentClaims) -> Response:
    """Recovery codes and trusted devices go with the last factor."""
    await call(service.remove, claims)
    return Response(status_code=204)

"""POST /auth/login/mfa, /auth/login/mfa/enrolment; GET /auth/mfa; recovery codes and trusted devices."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from auth_manager.errors import (
    AccountDisabled,
    EmailNotVerified,
    FactorNeeded,
    InvalidFactor,
    InvalidMfaToken,
    NotFound,
    RecentAuthenticationRequired,
    TooManyAttempts,
    TooManyFactors,
    TooManyRequests,
)
from auth_manager.mfa import service
from auth_manager.mfa.service import SecondStep
from auth_manager.reauthentication.routes import ONE_FACTOR, FactorFields
from auth_manager.sessions.routes import TokenResponse
from auth_manager.sign_ins import must_have_factor
from auth_manager.totp.routes import EnrolmentView, enrolment_answer
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once, respond
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses

router = APIRouter(tags=["second factors"])

MfaToken = Annotated[SecretStr, Field(max_length=256, description="From the answer of the first step")]


class SecondFactorRequest(FactorFields):
    """The token of the first step, and one second factor."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": list(ONE_FACTOR)})

    mfa_token: MfaToken
    trust_device: Annotated[bool, Field(description="Ask this device for no second factor for a time")] = (
        False
    )

    @model_validator(mode="after")
    def _exactly_one_factor(self) -> "SecondFactorRequest":
        if self.given_factors.count(True) != 1:
            raise ValueError("Give exactly one of totp, recovery_code and passkey.")
        return self


class SecondStepResponse(TokenResponse):
    """Tokens of a session, and what is given once."""

    device_token: Annotated[
        str | None, Field(description="Of the device that is trusted now; goes to /auth/login next time")
    ] = None
    device_expires_in: Annotated[int | None, Field(description="Seconds for which it is trusted")] = None
    recovery_codes: Annotated[list[str], Field(description="New ones, which nobody can read again")]


class EnrolmentRequest(BaseModel):
    """The token of the first step."""

    model_config = ConfigDict(extra="forbid")

    mfa_token: MfaToken


class EnrolmentConfirmation(EnrolmentRequest):
    """The token of the first step, and the first code of the authenticator app."""

    code: Annotated[SecretStr, Field(max_length=16)]


class FactorsView(BaseModel):
    """The second factors of an account."""

    totp: Annotated[bool, Field(description="Whether one-time passwords are set up")]
    totp_confirmed_at: datetime | None
    totp_last_used_at: datetime | None
    passkeys: int
    recovery_codes_left: int
    trusted_devices: int
    required: Annotated[bool, Field(description="Whether the account must have a second factor")]


class RecoveryCodesView(BaseModel):
    """New recovery codes, each good once; nobody can read them again."""

    recovery_codes: list[str]


class DeviceView(BaseModel):
    """A device that needs no second factor for a time."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str


class DeviceList(BaseModel):
    """One page of trusted devices."""

    items: list[DeviceView]
    next_cursor: str | None


def _second_step(step: SecondStep) -> Answer:
    view = SecondStepResponse.model_construct(
        **dict(TokenResponse.of(step.tokens)),
        device_token=step.device_token,
        device_expires_in=step.device_expires_in,
        recovery_codes=list(step.recovery_codes),
    )
    return 200, view.model_dump_json().encode()


def recovery_codes_answer(codes: Sequence[str]) -> Answer:
    """Render new recovery codes."""
    return 200, RecoveryCodesView(recovery_codes=list(codes)).model_dump_json().encode()


@router.post(
    "/auth/login/mfa",
    summary="Finish a sign-in with a second factor",
    response_model=SecondStepResponse,
    responses=responses(
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidMfaToken,
        InvalidFactor,
        AccountDisabled,
        EmailNotVerified,
        TooManyAttempts,
    ),
)
async def log_in_with_factor(
    body: SecondFactorRequest, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Open the session that the first step asked for. A wrong factor leaves the token good."""
    if (presented := body.presented) is None:
        raise InvalidFactor
    return await answer_once(
        call,
        request,
        idempotency_key,
        "",
        _second_step,
        service.log_in,
        body.mfa_token.get_secret_value(),
        presented,
        trust_device=body.trust_device,
    )


@router.post(
    "/auth/login/mfa/enrolment",
    status_code=201,
    summary="Set up the second factor that a sign-in asks for",
    response_model=EnrolmentView,
    responses=responses(
        WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, InvalidMfaToken, AccountDisabled, EmailNotVerified
    ),
)
async def start_enrolment(
    body: EnrolmentRequest, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Begin one-time passwords for an account that must have a second factor and has none."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        "",
        enrolment_answer,
        service.start_enrolment,
        body.mfa_token.get_secret_value(),
    )


@router.post(
    "/auth/login/mfa/enrolment/confirm",
    summary="Confirm that factor, and finish the sign-in",
    response_model=SecondStepResponse,
    responses=responses(
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidMfaToken,
        AccountDisabled,
        EmailNotVerified,
        NotFound,
        TooManyFactors,
        TooManyRequests,
    ),
)
async def finish_enrolment(
    body: EnrolmentConfirmation, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Open the session, and return the recovery codes."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        "",
        _second_step,
        service.finish_enrolment,
        body.mfa_token.get_secret_value(),
        body.code.get_secret_value(),
    )


@router.get(
    "/auth/mfa",
    summary="Look at your second factors",
    response_model=FactorsView,
    responses=responses(WITH_TOKEN, WITH_DATABASE),
)
async def read_factors(call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return what second factors you have, and whether you must have one."""
    found = await call(service.overview, claims)
    view = FactorsView(
        totp=found.totp_confirmed_at is not None,
        totp_confirmed_at=found.totp_confirmed_at,
        totp_last_used_at=found.totp_last_used_at,
        passkeys=found.passkeys,
        recovery_codes_left=found.recovery_codes_left,
        trusted_devices=found.trusted_devices,
        required=must_have_factor(call.resources.settings, found.permissions),
    )
    return respond((200, view.model_dump_json().encode()))


@router.post(
    "/auth/mfa/recovery-codes",
    summary="Make new recovery codes",
    response_model=RecoveryCodesView,
    responses=responses(
        WITH_TOKEN,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        FactorNeeded,
        TooManyRequests,
    ),
)
async def make_recovery_codes(
    request: Request, call: CurrentCall, claims: CurrentClaims, idempotency_key: IdempotencyKey = None
) -> Response:
    """Replace all of them: those of before are good for nothing."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        str(claims.sid),
        recovery_codes_answer,
        service.make_recovery_codes,
        claims,
    )


@router.get(
    "/auth/mfa/devices",
    summary="List the devices you trust",
    response_model=DeviceList,
    responses=responses(WITH_TOKEN, WITH_DATABASE),
)
async def list_devices(
    call: CurrentCall,
    claims: CurrentClaims,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return the devices that need no second factor for a time, newest first."""
    page = await call(service.list_devices, claims, limit=limit, cursor=cursor)
    view = DeviceList(
        items=[DeviceView.model_validate(row) for row in page.items], next_cursor=page.next_cursor
    )
    return respond((200, view.model_dump_json().encode()))


@router.delete(
    "/auth/mfa/devices/{device_id}",
    status_code=204,
    summary="Trust a device no longer",
    response_class=Response,
    responses=responses(WITH_TOKEN, WITH_DATABASE, NotFound),
)
async def revoke_device(device_id: UUID, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Ask it for the second factor again; a device that is not yours does not exist."""
    await call(service.revoke_device, claims, device_id)
    return Response(status_code=204)

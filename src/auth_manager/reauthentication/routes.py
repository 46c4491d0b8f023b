"""POST /auth/reauthenticate, /auth/reauthenticate/mail."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from auth_manager.errors import InvalidOneTimeSecret, MfaRequired, TooManyAttempts, TooManyRequests
from auth_manager.factors.checks import Presented
from auth_manager.proofs import Proof
from auth_manager.reauthentication import service
from auth_manager.reauthentication.service import Reauthenticated
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses
from auth_manager.web.proofs import MailAccepted, mail_accepted

router = APIRouter(tags=["sessions"])


ONE_FACTOR: tuple[dict[str, Any], ...] = (
    {"required": ["totp"]},
    {"required": ["recovery_code"]},
    {"required": ["passkey", "passkey_request"]},
)
"""What FactorFields take, for the `oneOf` of a schema."""


class FactorFields(BaseModel):
    """How a client presents a second factor, here and at /auth/login/mfa."""

    totp: Annotated[
        SecretStr | None, Field(max_length=16, description="Six digits, from an authenticator app")
    ] = None
    recovery_code: Annotated[SecretStr | None, Field(max_length=32)] = None
    passkey: Annotated[
        dict[str, Any] | None,
        Field(description="What `navigator.credentials.get()` returned, as `toJSON()` writes it"),
    ] = None
    passkey_request: Annotated[
        UUID | None, Field(description="From the answer of /auth/passkeys/authentication/options")
    ] = None

    @property
    def given_factors(self) -> list[bool]:
        """Tell for each factor whether it is there."""
        if (self.passkey is None) != (self.passkey_request is None):
            raise ValueError("Give passkey together with passkey_request.")
        return [self.totp is not None, self.recovery_code is not None, self.passkey is not None]

    @property
    def presented(self) -> Presented | None:
        """What is presented, None when no factor is."""
        if not any(self.given_factors):
            return None
        return Presented(
            totp=self.totp.get_secret_value() if self.totp else None,
            recovery_code=self.recovery_code.get_secret_value() if self.recovery_code else None,
            passkey=self.passkey,
            passkey_request=self.passkey_request,
        )


class ReauthenticateRequest(FactorFields):
    """The password; the code of a mail, with its request; or, where the account has them, a second factor."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [{"required": ["password"]}, {"required": ["request", "code"]}, *ONE_FACTOR]
        },
    )

    password: SecretStr | None = None
    request: UUID | None = None
    code: Annotated[SecretStr, Field(max_length=16)] | None = None

    @model_validator(mode="after")
    def _exactly_one_form(self) -> "ReauthenticateRequest":
        mailed = self.request is not None and self.code is not None
        partly = self.request is not None or self.code is not None
        forms = [self.password is not None, mailed, *self.given_factors]
        if forms.count(True) != 1 or partly != mailed:
            raise ValueError("Give either password, or request and code, or one second factor.")
        return self


class ReauthenticatedResponse(BaseModel):
    """An access token of the same session that says when its owner authenticated last (`auth_time`)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 -- RFC 6749 section 7.1
    expires_in: Annotated[int, Field(description="Seconds the access token lives")]
    session_id: UUID


def _token(renewed: Reauthenticated) -> Answer:
    return 200, ReauthenticatedResponse(
        access_token=renewed.access_token, expires_in=renewed.expires_in, session_id=renewed.session_id
    ).model_dump_json().encode()


@router.post(
    "/auth/reauthenticate",
    summary="Authenticate again",
    response_model=ReauthenticatedResponse,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidOneTimeSecret,
        MfaRequired,
        TooManyAttempts,
    ),
)
async def reauthenticate(
    body: ReauthenticateRequest,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Prove again who you are; the refresh token stays as it is."""
    if body.password is not None:
        return await answer_once(
            call,
            request,
            idempotency_key,
            str(claims.sid),
            _token,
            service.by_password,
            claims,
            body.password.get_secret_value(),
        )
    if presented := body.presented:
        return await answer_once(
            call, request, idempotency_key, str(claims.sid), _token, service.by_factor, claims, presented
        )
    proof = Proof(request=body.request, code=body.code.get_secret_value() if body.code else None)
    return await answer_once(
        call, request, idempotency_key, str(claims.sid), _token, service.by_code, claims, proof
    )


@router.post(
    "/auth/reauthenticate/mail",
    status_code=202,
    summary="Ask for a code to authenticate again with",
    response_model=MailAccepted,
    responses=responses(WITH_TOKEN, WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, TooManyRequests),
)
async def request_reauthentication_code(
    request: Request, call: CurrentCall, claims: CurrentClaims, idempotency_key: IdempotencyKey = None
) -> Response:
    """Mail a code to your own address, for accounts without a password. Takes no body."""
    return await answer_once(
        call, request, idempotency_key, str(claims.sid), mail_accepted, service.start, claims
    )

"""POST /auth/reauthenticate, /auth/reauthenticate/mail."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from auth_manager.errors import InvalidOneTimeSecret, TooManyAttempts, TooManyRequests
from auth_manager.proofs import Proof
from auth_manager.reauthentication import service
from auth_manager.reauthentication.service import Reauthenticated
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, WITH_TOKEN, responses
from auth_manager.web.proofs import MailAccepted, mail_accepted

router = APIRouter(tags=["sessions"])


class ReauthenticateRequest(BaseModel):
    """The password; or the code of a mail, with its request."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["password"]}, {"required": ["request", "code"]}]},
    )

    password: SecretStr | None = None
    request: UUID | None = None
    code: Annotated[SecretStr, Field(max_length=16)] | None = None

    @model_validator(mode="after")
    def _exactly_one_form(self) -> "ReauthenticateRequest":
        given = (self.password is not None, self.request is not None, self.code is not None)
        if given not in {(True, False, False), (False, True, True)}:
            raise ValueError("Give either password, or request and code.")
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
        WITH_TOKEN, WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, InvalidOneTimeSecret, TooManyAttempts
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

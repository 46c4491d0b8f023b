"""POST /auth/login."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from auth_manager.errors import (
    AccountDisabled,
    EmailNotVerified,
    FormerSystemUnavailable,
    InvalidCredentials,
    MfaEnrolmentRequired,
    MfaRequired,
    TooManyAttempts,
)
from auth_manager.login import service
from auth_manager.sessions.routes import TokenResponse, tokens_answer
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import answer_once
from auth_manager.web.problems import WITH_BODY, WITH_DATABASE, WITH_IDEMPOTENCY_KEY, responses

router = APIRouter(tags=["login"])

Identifier = Annotated[str, Field(min_length=1, max_length=320)]


class LoginRequest(BaseModel):
    """Who, by exactly one of `email`, `username` and `identifier` (either of the two), and the password."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [{"required": ["email"]}, {"required": ["username"]}, {"required": ["identifier"]}]
        },
    )

    email: Annotated[Identifier, Field(examples=["test@example.com"])] | None = None
    username: Identifier | None = None
    identifier: Identifier | None = None
    password: Annotated[SecretStr, Field(examples=["SecurePass123!"])]
    device_token: Annotated[
        SecretStr | None, Field(max_length=256, description="Of a trusted device: instead of a second factor")
    ] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "LoginRequest":
        if sum(value is not None for value in (self.email, self.username, self.identifier)) != 1:
            raise ValueError("Give exactly one of email, username and identifier.")
        return self

    @property
    def who(self) -> str:
        """The identifier that was given."""
        return self.email or self.username or self.identifier or ""


@router.post(
    "/auth/login",
    summary="Log in with a password",
    response_model=TokenResponse,
    responses=responses(
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidCredentials,
        AccountDisabled,
        EmailNotVerified,
        MfaRequired,
        MfaEnrolmentRequired,
        TooManyAttempts,
        FormerSystemUnavailable,
    ),
)
async def log_in(
    body: LoginRequest, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Open a session. Unknown user and wrong password are one answer."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        "",
        tokens_answer,
        service.log_in,
        identifier=body.who,
        password=body.password.get_secret_value(),
        device_token=body.device_token.get_secret_value() if body.device_token else None,
    )

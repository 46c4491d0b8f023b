"""POST /auth/register; GET, PATCH /auth/me."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auth_manager.accounts import Account, service
from auth_manager.accounts.service import ProfilePatch, Registered, Registration
from auth_manager.errors import (
    EmailTaken,
    SignUpClosed,
    TooManyRequests,
    UsernameTaken,
)
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once, respond
from auth_manager.web.problems import (
    WITH_BODY,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    WITH_TOKEN,
    responses,
)
from auth_manager.web.proofs import Email, Locale

router = APIRouter(tags=["accounts"])

Username = Annotated[str, Field(max_length=256, examples=["testuser"])]
DisplayName = Annotated[str, Field(max_length=200)]
Attributes = Annotated[dict[str, Any], Field(description="Any JSON object up to 4 KiB; yours to define.")]


class UserView(BaseModel):
    """A user as the API shows one."""

    id: UUID
    email: str
    email_verified: bool
    username: str | None
    display_name: str | None
    locale: str | None
    attributes: dict[str, Any]
    roles: list[str]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, account: Account) -> "UserView":
        """Shape an account."""
        return cls.model_construct(
            id=account.id,
            email=account.email,
            email_verified=account.email_verified_at is not None,
            username=account.username,
            display_name=account.display_name,
            locale=account.locale,
            attributes=account.attributes,
            roles=list(account.roles),
            created_at=account.created_at,
            updated_at=account.updated_at,
        )


def user_answer(account: Account, status: int = 200) -> Answer:
    """Render an account."""
    return status, UserView.of(account).model_dump_json().encode()


VerificationRequest = Annotated[
    UUID, Field(description="Present it to /auth/verify-email together with the code of the mail")
]


class RegisteredView(UserView):
    """A new user, and the request that the mailed code belongs to."""

    verification_request: VerificationRequest


class RegistrationAccepted(BaseModel):
    """What everyone reads where addresses must be verified first."""

    verification_request: VerificationRequest
    detail: str = "If the address can be registered, a mail is on its way."


class RegisterRequest(BaseModel):
    """A new account."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    password: Annotated[SecretStr, Field(examples=["SecurePass123!"])]
    username: Username | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None
    attributes: Attributes | None = None


class ProfileRequest(BaseModel):
    """Fields to change; one that is absent stays, null clears it, `attributes` is replaced whole."""

    model_config = ConfigDict(extra="forbid")

    username: Username | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None
    attributes: Attributes | None = None


@router.post(
    "/auth/register",
    status_code=201,
    summary="Create an account",
    response_model=RegisteredView,
    responses={
        202: {
            "model": RegistrationAccepted,
            "description": "Accepted: with `require_verified_email`, whether the address was free or not",
        },
        **responses(
            WITH_BODY,
            WITH_DATABASE,
            WITH_IDEMPOTENCY_KEY,
            EmailTaken,
            UsernameTaken,
            SignUpClosed,
            TooManyRequests,
        ),
    },
)
async def register(
    body: RegisterRequest, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create an account. With `require_verified_email` the answer is the same 202 for everyone."""
    registration = Registration(
        email=body.email,
        password=body.password.get_secret_value(),
        username=body.username,
        display_name=body.display_name,
        locale=body.locale,
        attributes=body.attributes,
    )
    return await answer_once(call, request, idempotency_key, "", _registered, service.register, registration)


def _registered(registered: Registered) -> Answer:
    if registered.account is None:
        accepted = RegistrationAccepted(verification_request=registered.verification)
        return 202, accepted.model_dump_json().encode()
    view = RegisteredView.model_construct(
        **dict(UserView.of(registered.account)), verification_request=registered.verification
    )
    return 201, view.model_dump_json().encode()


@router.get(
    "/auth/me",
    summary="Read your account",
    response_model=UserView,
    responses=responses(WITH_TOKEN, WITH_DATABASE),
)
async def read_me(call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return the account of the access token as it is now."""
    return respond(user_answer(await call(service.get_profile, claims)))


@router.patch(
    "/auth/me",
    summary="Change your profile",
    response_model=UserView,
    responses=responses(WITH_TOKEN, WITH_DATABASE, WITH_BODY, UsernameTaken),
)
async def change_me(body: ProfileRequest, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Change what is present in the body."""
    patch = ProfilePatch(
        fields=frozenset(body.model_fields_set),
        username=body.username,
        display_name=body.display_name,
        locale=body.locale,
        attributes=body.attributes,
    )
    return respond(user_answer(await call(service.change_profile, claims, patch)))

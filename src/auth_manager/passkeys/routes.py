"""/auth/passkeys: both ceremonies' options and verification, and the list of one's own."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from auth_manager.errors import (
    AccountDisabled,
    EmailNotVerified,
    FactorNeeded,
    InvalidMfaToken,
    InvalidPasskey,
    MfaEnrolmentRequired,
    MfaRequired,
    NotFound,
    PasskeyKnown,
    RecentAuthenticationRequired,
    TooManyAttempts,
    TooManyFactors,
    TooManyRequests,
)
from auth_manager.factors.changes import enrolee_of
from auth_manager.factors.passkeys import Passkey
from auth_manager.passkeys import service
from auth_manager.passkeys.service import Ceremony, Registered
from auth_manager.sessions.routes import TokenResponse, tokens_answer
from auth_manager.web.bearer import CurrentClaims, OptionalClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Answer, answer_once, respond
from auth_manager.web.problems import (
    WITH_BODY,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    WITH_TOKEN,
    responses,
)

router = APIRouter(tags=["passkeys"])

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$"),
    Field(examples=["My phone"]),
]


class CreationOptions(BaseModel):
    """What navigator.credentials.create() takes."""

    request: Annotated[UUID, Field(description="Goes back with the credential")]
    public_key: Annotated[
        dict[str, Any],
        Field(
            serialization_alias="publicKey",
            description="For PublicKeyCredential.parseCreationOptionsFromJSON()",
        ),
    ]


class RequestOptions(BaseModel):
    """What navigator.credentials.get() takes."""

    request: Annotated[UUID, Field(description="Goes back with the credential")]
    public_key: Annotated[
        dict[str, Any],
        Field(
            serialization_alias="publicKey",
            description="For PublicKeyCredential.parseRequestOptionsFromJSON()",
        ),
    ]


class NewPasskey(BaseModel):
    """What navigator.credentials.create() returned, for the options of a request."""

    model_config = ConfigDict(extra="forbid")

    request: UUID
    credential: Annotated[dict[str, Any], Field(description="PublicKeyCredential.toJSON()")]
    name: Name | None = None


class AuthenticationOptionsRequest(BaseModel):
    """Whose passkey is asked for: of the sign-in that this token goes on with. Without it, see the route."""

    model_config = ConfigDict(extra="forbid")

    mfa_token: Annotated[SecretStr | None, Field(max_length=256)] = None


class PresentedPasskey(BaseModel):
    """What navigator.credentials.get() returned, for the options of a request."""

    model_config = ConfigDict(extra="forbid")

    request: UUID
    credential: Annotated[dict[str, Any], Field(description="PublicKeyCredential.toJSON()")]


class NewName(BaseModel):
    """What a passkey is called from now on."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class PasskeyView(BaseModel):
    """A passkey as its owner sees it."""

    id: UUID
    name: str
    aaguid: Annotated[UUID, Field(description="Its model; zeroes where that is kept private")]
    attestation_format: Annotated[str, Field(description="What vouched for it: usually `none`")]
    transports: Annotated[list[str], Field(description="How it is reached: `internal`, `hybrid`, `usb`, ...")]
    backed_up: Annotated[bool, Field(description="Whether it is kept in an account of its maker's")]
    created_at: datetime
    last_used_at: datetime | None

    @classmethod
    def of(cls, passkey: Passkey) -> "PasskeyView":
        """Shape a passkey."""
        return cls.model_construct(
            id=passkey.id,
            name=passkey.name,
            aaguid=passkey.aaguid,
            attestation_format=passkey.attestation_format,
            transports=list(passkey.transports),
            backed_up=passkey.backed_up,
            created_at=passkey.created_at,
            last_used_at=passkey.last_used_at,
        )


class RegisteredPasskey(BaseModel):
    """A new passkey, and recovery codes, which nobody can read again."""

    passkey: PasskeyView
    recovery_codes: Annotated[list[str], Field(description="Empty where there are unused ones already")]


class PasskeyList(BaseModel):
    """All passkeys of an account: there are never more than fit on one page."""

    items: list[PasskeyView]
    next_cursor: None = None


def _registered(registered: Registered) -> Answer:
    view = RegisteredPasskey(
        passkey=PasskeyView.of(registered.passkey), recovery_codes=list(registered.recovery_codes)
    )
    return 201, view.model_dump_json().encode()


def _options(view: type[CreationOptions] | type[RequestOptions], ceremony: Ceremony) -> Response:
    shaped = view(request=ceremony.request, public_key=ceremony.options)
    return respond((200, shaped.model_dump_json(by_alias=True).encode()))


def _passkey(passkey: Passkey) -> Response:
    return respond((200, PasskeyView.of(passkey).model_dump_json().encode()))


@router.post(
    "/auth/passkeys/registration/options",
    summary="Begin to register a passkey",
    response_model=CreationOptions,
    responses=responses(
        WITH_TOKEN,
        WITH_DATABASE,
        RecentAuthenticationRequired,
        EmailNotVerified,
        TooManyFactors,
        TooManyRequests,
    ),
)
async def start_registration(call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return options for the browser, with a challenge that counts once. Takes no body."""
    enrolee = enrolee_of(call.resources, call.origin, claims)
    return _options(CreationOptions, await call(service.registration_options, enrolee))


@router.post(
    "/auth/passkeys/registration/verify",
    status_code=201,
    summary="Register a passkey",
    response_model=RegisteredPasskey,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        EmailNotVerified,
        PasskeyKnown,
        TooManyFactors,
        TooManyRequests,
    ),
)
async def finish_registration(
    body: NewPasskey,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Take it as a factor. Keep the recovery codes: they are for when it is lost."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        str(claims.sid),
        _registered,
        service.register,
        enrolee_of(call.resources, call.origin, claims),
        body.request,
        body.credential,
        body.name,
    )


@router.post(
    "/auth/passkeys/authentication/options",
    summary="Begin to authenticate with a passkey",
    response_model=RequestOptions,
    responses=responses(WITH_TOKEN, WITH_BODY, WITH_DATABASE, InvalidMfaToken, TooManyRequests),
    openapi_extra={"security": [{}, {"HTTPBearer": []}]},  # with a token, or without
)
async def start_authentication(
    call: CurrentCall, claims: OptionalClaims, body: AuthenticationOptionsRequest | None = None
) -> Response:
    """Return options for the browser, with a challenge that counts once.

    With `mfa_token` for /auth/login/mfa; else with an access token for /auth/reauthenticate; with neither to
    sign in, the same for everybody.
    """
    token = body.mfa_token if body else None
    ceremony = await call(
        service.authentication_options,
        claims=claims,
        mfa_token=token.get_secret_value() if token is not None else None,
    )
    return _options(RequestOptions, ceremony)


@router.post(
    "/auth/passkeys/authentication/verify",
    summary="Sign in with a passkey",
    response_model=TokenResponse,
    responses=responses(
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        InvalidPasskey,
        AccountDisabled,
        EmailNotVerified,
        MfaRequired,
        MfaEnrolmentRequired,
        TooManyAttempts,
    ),
)
async def log_in_by_passkey(
    body: PresentedPasskey, request: Request, call: CurrentCall, idempotency_key: IdempotencyKey = None
) -> Response:
    """Open a session of whoever has the passkey. One that verified its user is two factors."""
    return await answer_once(
        call, request, idempotency_key, "", tokens_answer, service.log_in, body.request, body.credential
    )


@router.get(
    "/auth/passkeys",
    summary="List your passkeys",
    response_model=PasskeyList,
    responses=responses(WITH_TOKEN, WITH_DATABASE),
)
async def list_passkeys(call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return all of them, oldest first."""
    found = await call(service.list_of, claims)
    view = PasskeyList(items=[PasskeyView.of(passkey) for passkey in found])
    return respond((200, view.model_dump_json().encode()))


@router.get(
    "/auth/passkeys/{passkey_id}",
    summary="Read one of your passkeys",
    response_model=PasskeyView,
    responses=responses(WITH_TOKEN, WITH_DATABASE, NotFound),
)
async def get_passkey(passkey_id: UUID, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return it; a passkey that is not yours does not exist."""
    return _passkey(await call(service.get, claims, passkey_id))


@router.patch(
    "/auth/passkeys/{passkey_id}",
    summary="Rename one of your passkeys",
    response_model=PasskeyView,
    responses=responses(WITH_TOKEN, WITH_BODY, WITH_DATABASE, NotFound),
)
async def rename_passkey(
    passkey_id: UUID, body: NewName, call: CurrentCall, claims: CurrentClaims
) -> Response:
    """Change its name; a passkey that is not yours does not exist."""
    return _passkey(await call(service.rename, claims, passkey_id, body.name))


@router.delete(
    "/auth/passkeys/{passkey_id}",
    status_code=204,
    summary="Remove one of your passkeys",
    response_class=Response,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, NotFound, FactorNeeded),
)
async def remove_passkey(passkey_id: UUID, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Recovery codes and trusted devices go with the last factor."""
    await call(service.remove, claims, passkey_id)
    return Response(status_code=204)

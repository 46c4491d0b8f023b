"""GET, POST /admin/users; GET, PATCH, DELETE /admin/users/{id}; PUT /admin/users/{id}/roles."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auth_manager import account_roles
from auth_manager.accounts.routes import Attributes, DisplayName, Username
from auth_manager.accounts.service import ProfilePatch
from auth_manager.directory import Entry, Filter, Status, service
from auth_manager.directory.service import EntryPatch, NewEntry
from auth_manager.errors import (
    EmailTaken,
    Forbidden,
    LastAdministrator,
    NotFound,
    PreconditionFailed,
    RecentAuthenticationRequired,
    UsernameTaken,
)
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Administrator, Answer, answer_once, respond
from auth_manager.web.preconditions import IfMatch, entity_tag, entity_tags
from auth_manager.web.problems import (
    WITH_BODY,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    WITH_TOKEN,
    responses,
)
from auth_manager.web.proofs import Email, Locale

router = APIRouter(prefix="/admin/users", tags=["administration"])

ONE = "/{account_id:uuid}"
"""What can be no id is another path, as /admin/users/bulk."""

RoleName = Annotated[str, Field(max_length=64)]
Prefix = Annotated[
    str, Field(min_length=1, max_length=254, description="How the address or the username begins")
]


class EntryView(BaseModel):
    """A user as administrators see one."""

    id: UUID
    email: str
    email_verified_at: datetime | None
    username: str | None
    display_name: str | None
    locale: str | None
    attributes: dict[str, Any]
    roles: list[str]
    factors: Annotated[list[str], Field(description="What a sign-in can ask for besides the first factor")]
    disabled_at: datetime | None
    erase_after: Annotated[
        datetime | None, Field(description="The user deleted the account: when it will be erased")
    ]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, entry: Entry) -> "EntryView":
        """Shape an entry."""
        account = entry.account
        return cls.model_construct(
            id=account.id,
            email=account.email,
            email_verified_at=account.email_verified_at,
            username=account.username,
            display_name=account.display_name,
            locale=account.locale,
            attributes=account.attributes,
            roles=list(account.roles),
            factors=list(entry.factors),
            disabled_at=account.disabled_at,
            erase_after=entry.erase_after,
            created_at=account.created_at,
            updated_at=account.updated_at,
        )


class EntryList(BaseModel):
    """One page of users."""

    items: list[EntryView]
    next_cursor: str | None


class CreationRequest(BaseModel):
    """A new user, without a password: a mailed link sets it."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    email_verified: Annotated[bool, Field(description="You vouch that the address is the user's")] = False
    username: Username | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None
    attributes: Attributes | None = None
    roles: Annotated[
        list[RoleName], Field(max_length=account_roles.MAXIMUM, description="Besides the default ones")
    ] = []


class RolesRequest(BaseModel):
    """All roles of a user."""

    model_config = ConfigDict(extra="forbid")

    roles: Annotated[list[RoleName], Field(max_length=2 * account_roles.MAXIMUM)]


class ChangeRequest(BaseModel):
    """Fields to change; one that is absent stays, null clears it, `attributes` is replaced whole."""

    model_config = ConfigDict(extra="forbid")

    email: Annotated[Email | None, Field(description="Not proven, unless `email_verified` says so")] = None
    email_verified: bool | None = None
    username: Username | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None
    attributes: Attributes | None = None

    @model_validator(mode="after")
    def _keep_the_address(self) -> Self:
        if any(getattr(self, name) is None for name in self.model_fields_set & {"email", "email_verified"}):
            raise ValueError("email and email_verified cannot be null.")
        return self


def _answer(entry: Entry) -> Response:
    response = respond((200, EntryView.of(entry).model_dump_json().encode()))
    response.headers.update(entity_tag(entry.tag))
    return response


def _created(entry: Entry) -> Answer:
    return 201, EntryView.of(entry).model_dump_json().encode()


@router.get(
    "",
    summary="Find users",
    response_model=EntryList,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, Forbidden),
)
async def list_users(
    call: CurrentCall,
    claims: CurrentClaims,
    email: Annotated[str | None, Query(max_length=320, description="A whole address")] = None,
    prefix: Annotated[Prefix | None, Query()] = None,
    role: Annotated[RoleName | None, Query()] = None,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return users whom every condition holds for, newest first."""
    wanted = Filter(email=email, prefix=prefix, role=role, status=status)
    page = await call(service.list_entries, claims, wanted, limit=limit, cursor=cursor)
    items = [EntryView.of(entry) for entry in page.items]
    view = EntryList.model_construct(items=items, next_cursor=page.next_cursor)
    return respond((200, view.model_dump_json().encode()))


@router.post(
    "",
    status_code=201,
    summary="Create a user",
    response_model=EntryView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        Forbidden,
        EmailTaken,
        UsernameTaken,
    ),
)
async def create_user(
    body: CreationRequest,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a user and mail them a link to set a password with."""
    new = NewEntry(
        email=body.email,
        email_verified=body.email_verified,
        username=body.username,
        display_name=body.display_name,
        locale=body.locale,
        attributes=body.attributes,
        roles=tuple(body.roles),
    )
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        _created,
        service.create_entry,
        claims,
        new,
    )


@router.get(
    ONE,
    summary="Read a user",
    response_model=EntryView,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, Forbidden, NotFound),
)
async def read_user(account_id: UUID, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return a user, with an ETag for If-Match."""
    return _answer(await call(service.get_entry, claims, account_id))


@router.patch(
    ONE,
    summary="Change a user",
    response_model=EntryView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        RecentAuthenticationRequired,
        Forbidden,
        NotFound,
        EmailTaken,
        UsernameTaken,
        PreconditionFailed,
    ),
)
async def change_user(
    account_id: UUID,
    body: ChangeRequest,
    call: CurrentCall,
    claims: CurrentClaims,
    if_match: IfMatch = None,
) -> Response:
    """Change what is present in the body."""
    profile = ProfilePatch(
        fields=frozenset(body.model_fields_set - {"email", "email_verified"}),
        username=body.username,
        display_name=body.display_name,
        locale=body.locale,
        attributes=body.attributes,
    )
    patch = EntryPatch(profile=profile, email=body.email, email_verified=body.email_verified)
    tags = entity_tags(if_match)
    return _answer(await call(service.change_entry, claims, account_id, patch, tags=tags))


@router.put(
    f"{ONE}/roles",
    summary="Give a user exactly these roles",
    response_model=RolesRequest,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        RecentAuthenticationRequired,
        Forbidden,
        NotFound,
        LastAdministrator,
        PreconditionFailed,
    ),
)
async def set_roles(
    account_id: UUID,
    body: RolesRequest,
    call: CurrentCall,
    claims: CurrentClaims,
    if_match: IfMatch = None,
) -> Response:
    """Replace the roles of a user; the last administrator keeps theirs."""
    roles = await call(service.set_roles, claims, account_id, body.roles, tags=entity_tags(if_match))
    view = RolesRequest.model_construct(roles=list(roles))
    return respond((200, view.model_dump_json().encode()))


@router.delete(
    ONE,
    status_code=204,
    summary="Erase a user",
    response_class=Response,
    responses=responses(
        WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, Forbidden, NotFound, LastAdministrator
    ),
)
async def delete_user(account_id: UUID, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Erase the account as its owner could, at once and for good."""
    await call(service.delete_entry, claims, account_id)
    return Response(status_code=204)

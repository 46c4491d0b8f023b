"""GET, POST /admin/roles; GET, PATCH, DELETE /admin/roles/{name}; PUT /admin/users/{id}/roles."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auth_manager.entity_tags import tag_of
from auth_manager.errors import (
    Forbidden,
    NotFound,
    PreconditionFailed,
    RecentAuthenticationRequired,
    RoleBuiltIn,
    RoleTaken,
)
from auth_manager.roles import Role, service
from auth_manager.roles.service import MAXIMUM_PERMISSIONS, RoleFields, RolePatch
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

router = APIRouter(prefix="/admin", tags=["administration"])

Name = Annotated[str, Field(max_length=64, examples=["support"])]
Description = Annotated[str, Field(max_length=500)]
Permissions = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    Field(
        max_length=MAXIMUM_PERMISSIONS,
        description="Those of this API, `*` for all of them, or your own",
        examples=[["users:read", "orders:refund"]],
    ),
]
Claims = Annotated[
    dict[str, Any], Field(description="What access tokens of its holders say besides; up to 1 KiB of JSON")
]
IsDefault = Annotated[bool, Field(description="Every new account has it")]


class RoleView(BaseModel):
    """A role."""

    name: str
    description: str
    permissions: list[str]
    claims: dict[str, Any]
    is_default: bool
    is_built_in: Annotated[bool, Field(description="It can be neither changed nor deleted")]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, role: Role) -> "RoleView":
        """Shape a role."""
        return cls.model_construct(
            name=role.name,
            description=role.description,
            permissions=list(role.permissions),
            claims=dict(role.claims),
            is_default=role.is_default,
            is_built_in=role.is_built_in,
            created_at=role.created_at,
            updated_at=role.updated_at,
        )


class RoleList(BaseModel):
    """One page of roles."""

    items: list[RoleView]
    next_cursor: str | None


class NewRole(BaseModel):
    """A role to create."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    description: Description = ""
    permissions: Permissions = []
    claims: Claims = {}
    is_default: IsDefault = False


class RoleChange(BaseModel):
    """Fields to change; one that is absent stays, `permissions` and `claims` are replaced whole."""

    model_config = ConfigDict(extra="forbid")

    description: Description | None = None
    permissions: Permissions | None = None
    claims: Claims | None = None
    is_default: IsDefault | None = None

    @model_validator(mode="after")
    def _refuse_null(self) -> Self:
        if any(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("No field of a role can be null.")
        return self


def _created(role: Role) -> Answer:
    return 201, RoleView.of(role).model_dump_json().encode()


def _answer(role: Role) -> Response:
    response = respond((200, RoleView.of(role).model_dump_json().encode()))
    response.headers.update(entity_tag(role.tag))
    return response


@router.get(
    "/roles",
    summary="List the roles",
    response_model=RoleList,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, Forbidden),
)
async def list_roles(
    call: CurrentCall,
    claims: CurrentClaims,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return roles by name."""
    page = await call(service.list_roles, claims, limit=limit, cursor=cursor)
    items = [RoleView.of(role) for role in page.items]
    view = RoleList.model_construct(items=items, next_cursor=page.next_cursor)
    return respond((200, view.model_dump_json().encode()))


@router.post(
    "/roles",
    status_code=201,
    summary="Create a role",
    response_model=RoleView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        Forbidden,
        RoleTaken,
    ),
)
async def create_role(
    body: NewRole,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a role that permits nothing you may not do yourself."""
    fields = RoleFields(body.description, body.permissions, body.claims, body.is_default)
    response = await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "roles:write"),
        _created,
        service.create_role,
        claims,
        body.name,
        fields,
    )
    # A replayed answer has a body alone.
    created = RoleView.model_validate_json(bytes(response.body))
    response.headers.update(entity_tag(tag_of(created.updated_at)))
    return response


@router.get(
    "/roles/{name}",
    summary="Read a role",
    response_model=RoleView,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, Forbidden, NotFound),
)
async def read_role(name: str, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return a role, with an ETag for If-Match."""
    return _answer(await call(service.get_role, claims, name))


@router.patch(
    "/roles/{name}",
    summary="Change a role",
    response_model=RoleView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        RecentAuthenticationRequired,
        Forbidden,
        NotFound,
        RoleBuiltIn,
        PreconditionFailed,
    ),
)
async def change_role(
    name: str, body: RoleChange, call: CurrentCall, claims: CurrentClaims, if_match: IfMatch = None
) -> Response:
    """Change what is present in the body; who has the role may do what it permits from the next call on."""
    patch = RolePatch(body.description, body.permissions, body.claims, body.is_default)
    return _answer(await call(service.change_role, claims, name, patch, tags=entity_tags(if_match)))


@router.delete(
    "/roles/{name}",
    status_code=204,
    summary="Delete a role",
    response_class=Response,
    responses=responses(
        WITH_TOKEN,
        WITH_DATABASE,
        RecentAuthenticationRequired,
        Forbidden,
        NotFound,
        RoleBuiltIn,
        PreconditionFailed,
    ),
)
async def delete_role(
    name: str, call: CurrentCall, claims: CurrentClaims, if_match: IfMatch = None
) -> Response:
    """Delete a role and take it from all who have it."""
    await call(service.delete_role, claims, name, tags=entity_tags(if_match))
    return Response(status_code=204)

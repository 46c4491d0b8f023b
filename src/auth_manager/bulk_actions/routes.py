"""POST /admin/users/bulk."""

from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auth_manager.bulk_actions import Action, service
from auth_manager.bulk_actions.service import MAXIMUM, BulkAction, BulkOutcome
from auth_manager.directory import Filter, Status
from auth_manager.directory.routes import Prefix, RoleName
from auth_manager.errors import CountChanged, Forbidden, LastAdministrator, RecentAuthenticationRequired
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall, IdempotencyKey
from auth_manager.web.idempotent import Administrator, Answer, answer_once
from auth_manager.web.problems import (
    WITH_BODY,
    WITH_DATABASE,
    WITH_IDEMPOTENCY_KEY,
    WITH_TOKEN,
    responses,
)
from auth_manager.web.proofs import Email

router = APIRouter(prefix="/admin", tags=["administration"])


class BulkFilter(BaseModel):
    """Which users: those whom every condition holds for; `{}` is everybody."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[UUID] | None, Field(max_length=1000)] = None
    email: Email | None = None
    prefix: Prefix | None = None
    role: RoleName | None = None
    status: Status | None = None


class BulkRequest(BaseModel):
    """What to do with whom. Without `expected_count` they are only counted."""

    model_config = ConfigDict(extra="forbid")

    action: Action
    role: Annotated[RoleName | None, Field(description="Of assign_role and remove_role")] = None
    filter: BulkFilter
    expected_count: Annotated[
        int | None, Field(ge=0, le=MAXIMUM, description="The `count` of the answer before")
    ] = None

    @model_validator(mode="after")
    def _name_the_role(self) -> Self:
        if (self.role is not None) != (self.action in {"assign_role", "remove_role"}):
            raise ValueError("assign_role and remove_role have a role, and no other action has one.")
        return self


class BulkView(BaseModel):
    """How many users are meant; where it was done, how many of them it made a difference to."""

    count: Annotated[int, Field(description="Users that it is done to")]
    skipped: Annotated[
        int, Field(description="Matching ones that are spared: yourself, and who may do what you may not")
    ]
    changed: int
    done: bool


def _answer(outcome: BulkOutcome) -> Answer:
    view = BulkView.model_construct(
        count=outcome.count, skipped=outcome.skipped, changed=outcome.changed, done=outcome.done
    )
    return 200, view.model_dump_json().encode()


@router.post(
    "/users/bulk",
    summary="Do one thing to many users",
    response_model=BulkView,
    responses=responses(
        WITH_TOKEN,
        WITH_BODY,
        WITH_DATABASE,
        WITH_IDEMPOTENCY_KEY,
        RecentAuthenticationRequired,
        Forbidden,
        CountChanged,
        LastAdministrator,
    ),
)
async def act_on_many(
    body: BulkRequest,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Count first; then send the same with that number as `expected_count`."""
    ids = None if body.filter.ids is None else tuple(body.filter.ids)
    wanted = Filter(
        ids=ids,
        email=body.filter.email,
        prefix=body.filter.prefix,
        role=body.filter.role,
        status=body.filter.status,
    )
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "users:write"),
        _answer,
        service.act_or_count,
        claims,
        BulkAction(body.action, wanted, body.role),
        expected_count=body.expected_count,
    )

"""GET /admin/audit."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from auth_manager.audit_trail import Filters, parse_network, service, to_utc
from auth_manager.database import Row
from auth_manager.errors import Forbidden, RecentAuthenticationRequired
from auth_manager.web.bearer import CurrentClaims
from auth_manager.web.calls import CurrentCall
from auth_manager.web.idempotent import respond
from auth_manager.web.problems import WITH_DATABASE, WITH_TOKEN, responses

router = APIRouter(prefix="/admin", tags=["administration"])


Name = Annotated[str | None, Query(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
Time = Annotated[AwareDatetime, AfterValidator(to_utc)]


class EventView(BaseModel):
    """A security event."""

    id: UUID
    occurred_at: datetime
    event: str
    outcome: Literal["success", "failure"]
    reason: Annotated[str | None, Field(description="Why an attempt failed")]
    account_id: Annotated[UUID | None, Field(description="Whose account it concerns")]
    session_id: UUID | None
    actor_id: Annotated[UUID | None, Field(description="Who did it, if not the account's owner")]
    operator: Annotated[str | None, Field(description="Who did it on the command line")]
    address: str | None
    user_agent: str
    request_id: str
    details: dict[str, Any]
    position: Annotated[int | None, Field(description="Its place in the chain; null until it has one")]

    @classmethod
    def of(cls, row: Row) -> "EventView":
        """Shape an event."""
        return cls.model_construct(**row)


class EventList(BaseModel):
    """One page of events."""

    items: list[EventView]
    next_cursor: str | None


@router.get(
    "/audit",
    summary="Search the audit trail",
    response_model=EventList,
    responses=responses(WITH_TOKEN, WITH_DATABASE, RecentAuthenticationRequired, Forbidden),
)
async def search_audit(
    call: CurrentCall,
    claims: CurrentClaims,
    event: Name = None,
    outcome: Literal["success", "failure"] | None = None,
    account_id: UUID | None = None,
    actor_id: UUID | None = None,
    operator: Name = None,
    address: Annotated[
        str | None,
        AfterValidator(parse_network),  # a default is not validated
        Query(max_length=64, description="An IP address, or a network as in 203.0.113.0/24"),
    ] = None,
    since: Annotated[Time | None, Query(description="Then or later")] = None,
    until: Annotated[Time | None, Query(description="Before that")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return events that match all that is given, the latest first. Needs `audit:read`."""
    filters = Filters(
        event=event,
        outcome=outcome,
        account_id=account_id,
        actor_id=actor_id,
        operator=operator,
        network=address,
        since=since,
        until=until,
    )
    page = await call(service.search, claims, filters, limit=limit, cursor=cursor)
    items = [EventView.of(row) for row in page.items]
    view = EventList.model_construct(items=items, next_cursor=page.next_cursor)
    return respond((200, view.model_dump_json().encode()))

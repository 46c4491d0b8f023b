"""GET, POST /admin/webhooks; GET, PATCH, DELETE /admin/webhooks/{id}; its secret, its log, a test."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from auth_manager.entity_tags import tag_of
from auth_manager.errors import (
    Forbidden,
    NotFound,
    PreconditionFailed,
    RecentAuthenticationRequired,
    TooManyWebhooks,
    WebhookDisabled,
)
from auth_manager.outbound_http import MAXIMUM_URL
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
from auth_manager.webhooks import EVERY_TYPE, TYPES, Endpoint, LoggedDelivery, service
from auth_manager.webhooks.service import EndpointWithSecret

router = APIRouter(prefix="/admin/webhooks", tags=["administration"])

WITH_PERMISSION = (*WITH_TOKEN, *WITH_DATABASE, RecentAuthenticationRequired, Forbidden)

WebhookUrl = Annotated[
    str, Field(max_length=MAXIMUM_URL, examples=["https://example.com/hooks/auth"], description="https alone")
]
Types = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    Field(
        min_length=1,
        max_length=len(TYPES) + 1,
        examples=[["user.created", "user.deleted"]],
        description="Which messages it gets; `*` is all of them, those of later versions too",
    ),
]
Description = Annotated[str, Field(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=512)]


class NewWebhook(BaseModel):
    """An endpoint to make."""

    model_config = ConfigDict(extra="forbid")

    url: WebhookUrl
    types: Types = Field(default_factory=lambda: [EVERY_TYPE])
    description: Description = ""


class WebhookChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    url: WebhookUrl = ""
    types: Types = Field(default_factory=list)
    description: Description = ""
    enabled: bool = True


class WebhookView(BaseModel):
    """An endpoint."""

    id: UUID
    url: str
    types: list[str]
    description: str
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: Annotated[
        str | None, Field(description="`administrator`; `gone`: it answered 410; `failing`: for five days")
    ]
    failing_since: Annotated[datetime | None, Field(description="The first failure since the last success")]
    previous_secret_until: Annotated[
        datetime | None, Field(description="Until then messages are signed with the previous secret too")
    ]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, endpoint: Endpoint) -> "WebhookView":
        """Shape an endpoint."""
        return cls.model_construct(
            id=endpoint.id,
            url=endpoint.url,
            types=list(endpoint.types),
            description=endpoint.description,
            enabled=endpoint.disabled_at is None,
            disabled_at=endpoint.disabled_at,
            disabled_reason=endpoint.disabled_reason,
            failing_since=endpoint.failing_since,
            previous_secret_until=endpoint.previous_secret_until,
            created_at=endpoint.created_at,
            updated_at=endpoint.updated_at,
        )


class WebhookWithSecret(WebhookView):
    """An endpoint with its secret, which is told this once."""

    secret: Annotated[str, Field(description="`whsec_...`: verifies messages (Standard Webhooks)")]


class WebhookList(BaseModel):
    """One page of endpoints."""

    items: list[WebhookView]
    next_cursor: str | None


class DeliveryView(BaseModel):
    """How a message fared; the figures are of the last attempt."""

    message_id: Annotated[UUID, Field(description="The `webhook-id`, the same at each attempt")]
    type: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    status: Annotated[int | None, Field(description="HTTP status of the answer, if there was one")]
    duration: Annotated[int | None, Field(description="Milliseconds")]
    error: Annotated[str | None, Field(description="A stable word; `status_500` for such an answer")]

    @classmethod
    def of(cls, logged: LoggedDelivery) -> "DeliveryView":
        """Shape an entry of the log."""
        return cls.model_construct(
            message_id=logged.message_id,
            type=logged.type,
            state=logged.state,
            attempts=logged.attempts,
            created_at=logged.created_at,
            last_attempt_at=logged.last_attempt_at,
            next_attempt_at=logged.next_attempt_at,
            status=logged.status,
            duration=logged.duration,
            error=logged.error,
        )


class DeliveryList(BaseModel):
    """One page of a log."""

    items: list[DeliveryView]
    next_cursor: str | None


class QueuedMessage(BaseModel):
    """A message that will be sent."""

    message_id: UUID


@router.get(
    "",
    summary="List webhook endpoints",
    response_model=WebhookList,
    responses=responses(WITH_PERMISSION),
)
async def list_webhooks(
    call: CurrentCall, claims: CurrentClaims, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Return endpoints, the newest first; never their secrets."""
    page = await call(service.list_endpoints, claims, limit=limit, cursor=cursor)
    items = [WebhookView.of(endpoint) for endpoint in page.items]
    return _render(200, WebhookList.model_construct(items=items, next_cursor=page.next_cursor))


@router.post(
    "",
    status_code=201,
    summary="Make a webhook endpoint",
    response_model=WebhookWithSecret,
    responses=responses(WITH_PERMISSION, WITH_BODY, WITH_IDEMPOTENCY_KEY, TooManyWebhooks),
)
async def create_webhook(
    body: NewWebhook,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answer with its secret, this once, and an ETag for If-Match."""
    response = await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "webhooks:write"),
        lambda made: _with_secret(201, made),
        service.create,
        claims,
        url=body.url,
        types=list(dict.fromkeys(body.types)),
        description=body.description,
    )
    return _tagged(response)


@router.get(
    "/{endpoint_id}",
    summary="Read a webhook endpoint",
    response_model=WebhookView,
    responses=responses(WITH_PERMISSION, NotFound),
)
async def get_webhook(endpoint_id: UUID, call: CurrentCall, claims: CurrentClaims) -> Response:
    """Return an endpoint, without its secret, with an ETag for If-Match."""
    return _answer(await call(service.get, claims, endpoint_id))


@router.patch(
    "/{endpoint_id}",
    summary="Change a webhook endpoint",
    response_model=WebhookView,
    responses=responses(WITH_PERMISSION, WITH_BODY, NotFound, PreconditionFailed),
)
async def change_webhook(
    endpoint_id: UUID, body: WebhookChange, call: CurrentCall, claims: CurrentClaims, if_match: IfMatch = None
) -> Response:
    """Change what is named; enabled again, an endpoint gets what waited for it."""
    changes = body.model_dump(exclude_unset=True)
    return _answer(await call(service.change, claims, endpoint_id, changes, tags=entity_tags(if_match)))


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    summary="Delete a webhook endpoint",
    response_class=Response,
    responses=responses(WITH_PERMISSION, NotFound, PreconditionFailed),
)
async def delete_webhook(
    endpoint_id: UUID, call: CurrentCall, claims: CurrentClaims, if_match: IfMatch = None
) -> Response:
    """Delete an endpoint, and with it what waits for it."""
    await call(service.delete, claims, endpoint_id, tags=entity_tags(if_match))
    return Response(status_code=204)


@router.post(
    "/{endpoint_id}/rotate-secret",
    summary="Give a webhook endpoint a new secret",
    response_model=WebhookWithSecret,
    responses=responses(WITH_PERMISSION, WITH_IDEMPOTENCY_KEY, NotFound),
)
async def rotate_webhook_secret(
    endpoint_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answer with the new secret, this once; messages are signed with both until `previous_secret_until`."""
    response = await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "webhooks:write"),
        lambda rotated: _with_secret(200, rotated),
        service.rotate_secret,
        claims,
        endpoint_id,
    )
    return _tagged(response)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    summary="Send a test message",
    response_model=QueuedMessage,
    responses=responses(WITH_PERMISSION, WITH_IDEMPOTENCY_KEY, NotFound, WebhookDisabled),
)
async def send_test_message(
    endpoint_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Send a message of the type `webhook.test`; the log says how it fared."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "webhooks:write"),
        _queued,
        service.send_test,
        claims,
        endpoint_id,
    )


@router.get(
    "/{endpoint_id}/deliveries",
    summary="Read the log of a webhook endpoint",
    response_model=DeliveryList,
    responses=responses(WITH_PERMISSION, NotFound),
)
async def list_webhook_deliveries(
    endpoint_id: UUID, call: CurrentCall, claims: CurrentClaims, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Return its messages, newest first, and how each fared."""
    page = await call(service.list_deliveries, claims, endpoint_id, limit=limit, cursor=cursor)
    items = [DeliveryView.of(logged) for logged in page.items]
    return _render(200, DeliveryList.model_construct(items=items, next_cursor=page.next_cursor))


@router.post(
    "/{endpoint_id}/deliveries/{message_id}/replay",
    status_code=202,
    summary="Send a message again",
    response_model=QueuedMessage,
    responses=responses(WITH_PERMISSION, WITH_IDEMPOTENCY_KEY, NotFound, WebhookDisabled),
)
async def replay_webhook(
    endpoint_id: UUID,
    message_id: UUID,
    request: Request,
    call: CurrentCall,
    claims: CurrentClaims,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Send it under the same `webhook-id`, whether it was delivered or given up."""
    return await answer_once(
        call,
        request,
        idempotency_key,
        Administrator(claims, "webhooks:write"),
        _queued,
        service.replay,
        claims,
        endpoint_id,
        message_id,
    )


def _render(status: int, view: BaseModel) -> Response:
    return respond((status, view.model_dump_json().encode()))


def _answer(endpoint: Endpoint) -> Response:
    response = _render(200, WebhookView.of(endpoint))
    response.headers.update(entity_tag(endpoint.tag))
    return response


def _tagged(response: Response) -> Response:
    """Add the ETag to an endpoint's answer; a replayed one has a body alone."""
    endpoint = WebhookView.model_validate_json(bytes(response.body))
    response.headers.update(entity_tag(tag_of(endpoint.updated_at)))
    return response


def _with_secret(status: int, made: EndpointWithSecret) -> Answer:
    known = WebhookView.of(made.endpoint)
    view = WebhookWithSecret.model_construct(**dict(known), secret=made.secret)
    return status, view.model_dump_json().encode()


def _queued(message_id: UUID) -> Answer:
    return 202, QueuedMessage(message_id=message_id).model_dump_json().encode()

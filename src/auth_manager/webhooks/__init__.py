"""Webhooks: what happens to accounts and sessions, posted to the endpoints of a customer's own systems."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from auth_manager.entity_tags import tag_of

TYPES = (
    "user.created",
    "users.imported",
    "user.updated",
    "user.verified",
    "user.email_changed",
    "user.password_changed",
    "user.factors_changed",
    "user.roles_changed",
    "user.locked",
    "user.unlocked",
    "user.disabled",
    "user.enabled",
    "user.erasure_scheduled",
    "user.erasure_cancelled",
    "user.deleted",
    "user.impersonated",
    "session.created",
    "session.ended",
    "sessions.ended",
)
"""What an endpoint can ask for; which events of the audit trail they are, `webhook_type_of` in
migrations/0010_webhooks.sql says."""

EVERY_TYPE = "*"

TEST_TYPE = "webhook.test"
"""Of the message that is sent on demand, whatever the endpoint asks for."""

MOST_ENDPOINTS = 20
"""Each costs a row with every event."""

SECRET_PURPOSE = "webhook secret"  # noqa: S105 -- a purpose, no secret
"""What secrets of endpoints are sealed for; bound to the endpoint's id."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where messages are posted to. `failing_since`: of the first failure since the last success."""

    id: UUID
    url: str
    types: tuple[str, ...]
    description: str
    disabled_at: datetime | None
    disabled_reason: str | None
    failing_since: datetime | None
    previous_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def tag(self) -> str:
        """What changes with every change that is made to it, not with how deliveries fare."""
        return tag_of(self.updated_at)


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What is stored of an endpoint that is made; its secret is sealed."""

    id: UUID
    url: str
    types: tuple[str, ...]
    description: str
    sealed_secret: bytes = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """How a message fared. `state` is pending, delivered or failed; the rest is of the last attempt.

    `duration` in milliseconds; `error` is a stable word, `status_500` for an answer that was no success.
    """

    message_id: UUID
    type: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    status: int | None
    duration: int | None
    error: str | None

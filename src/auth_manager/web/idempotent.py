"""Answering a POST once per Idempotency-Key; see auth_manager.idempotency for what is promised."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from fastapi import Request, Response

from auth_manager import idempotency
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import DatabaseUnavailable
from auth_manager.permissions import require_administrator
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims
from auth_manager.web.calls import JSON, Call

P = ParamSpec("P")
T = TypeVar("T")
Answer = tuple[int, bytes]
"""HTTP status and JSON body; a body of no bytes is no body."""


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who may replay what an administrator did: who has the session, and may still do it."""

    claims: AccessClaims
    permission: str


def respond(answer: Answer) -> Response:
    """Turn a rendered answer into a response."""
    status, body = answer
    return Response(body, status_code=status, media_type=JSON if body else None)


def no_content(_result: None) -> Answer:
    """Render what has nothing to say."""
    return 204, b""


async def answer_once(
    call: Call,
    request: Request,
    key: str | None,
    subject: str | Administrator,
    render: Callable[[T], Answer],
    service: Callable[Concatenate[Resources, Origin, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """Run a service that takes `record`, at most once for each key of a subject.

    `subject` is who may replay the answer: a session's id, "" before anyone is known, or an administrator, of
    whom the answer asks each time what the act itself did: whether they still may (ASVS 8.3.2).
    """
    if key is None:
        return respond(render(await call(service, *args, **kwargs)))
    body = await request.body()
    replayed_to = str(subject.claims.sid) if isinstance(subject, Administrator) else subject
    scope = f"{request.method} {request.scope['path']} {replayed_to}"

    def run() -> Answer:
        held = idempotency.claim(
            call.resources.database,
            call.resources.secret_keys.derive("idempotency"),
            scope=scope,
            key=key,
            request=body,
            now=call.origin.now,
        )
        if isinstance(held, idempotency.Replay):
            if isinstance(subject, Administrator):
                _require_still(subject)
            return int(held.answer[:3]), held.answer[3:]
        return _run_recorded(held)

    def _require_still(administrator: Administrator) -> None:
        with call.resources.database.one_trip() as connection:
            require_administrator(
                call.resources, connection, call.origin, administrator.claims, administrator.permission
            )

    def _run_recorded(held: idempotency.Claim) -> Answer:
        recorded: list[Answer] = []

        def record(connection: Connection, result: T) -> None:
            status, rendered = render(result)
            recorded.append((status, rendered))
            idempotency.complete(connection, held, b"%03d" % status + rendered)

        try:
            service(call.resources, call.origin, *args, **{**kwargs, "record": record})  # type: ignore[arg-type]
        except DatabaseUnavailable:
            raise  # a second wait for it would double the time to the answer: the lease runs out instead
        except BaseException:
            with contextlib.suppress(DatabaseUnavailable):
                idempotency.release(call.resources.database, held)
            raise
        return recorded[0]

    return respond(await call.run(run))

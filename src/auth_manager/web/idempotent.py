"""Answering a POST once per Idempotency-Key; see auth_manager.idempotency for what is promised."""

import contextlib
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from fastapi import Request, Response

from auth_manager import idempotency
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import DatabaseUnavailable
from auth_manager.resources import Resources
from auth_manager.web.calls import JSON, Call

P = ParamSpec("P")
T = TypeVar("T")
Answer = tuple[int, bytes]
"""HTTP status and JSON body; a body of no bytes is no body."""


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
    subject: str,
    render: Callable[[T], Answer],
    service: Callable[Concatenate[Resources, Origin, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """Run a service that takes `record`, at most once for each key of a subject.

    `subject` is who may replay the answer: an account id, or "" before anyone is known.
    """
    if key is None:
        return respond(render(await call(service, *args, **kwargs)))
    body = await request.body()
    scope = f"{request.method} {request.scope['path']} {subject}"

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
            return int(held.answer[:3]), held.answer[3:]
        return _run_recorded(held)

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

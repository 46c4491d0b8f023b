"""How a route reaches a service: with the process's resources, the request's origin, and the right thread.

Inside Lambda a sandbox runs one request at a time, so a service runs where it is; a thread hop would cost
1.2-1.5 ms. Under uvicorn it goes to a worker thread. The entry point chooses, by the `Runner` it gives to
create_app.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Annotated, Concatenate, ParamSpec, TypeVar

from fastapi import Depends, Header, Request

from auth_manager.audit import Origin
from auth_manager.observability import request_id
from auth_manager.resources import Resources
from auth_manager.web.languages import preferred_language

P = ParamSpec("P")
T = TypeVar("T")
Runner = Callable[[Callable[[], object]], Awaitable[object]]

JSON = "application/json"
MAXIMUM_USER_AGENT = 512
"""Characters of a User-Agent that are kept."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Makes a retry safe: the same key and body get the same answer for 24 hours.",
    ),
]


async def run_inline(function: Callable[[], T]) -> T:
    """Run where we are: for one request at a time."""
    return function()


async def run_in_thread(function: Callable[[], T]) -> T:
    """Run in a worker thread: for a server with many requests at a time."""
    from anyio.to_thread import run_sync  # noqa: PLC0415 -- Lambda never needs it

    return await run_sync(function)


@dataclass(frozen=True, slots=True)
class Call:
    """One request's way to the services."""

    resources: Resources
    origin: Origin
    run: Callable[[Callable[[], T]], Awaitable[T]]

    async def __call__(
        self, service: Callable[Concatenate[Resources, Origin, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a service function."""
        return await self.run(lambda: service(self.resources, self.origin, *args, **kwargs))


async def get_call(request: Request) -> Call:
    """Build the call of a request from the application's state."""
    return Call(
        resources=request.app.state.resources,
        origin=Origin(
            address=_address(request.client.host) if request.client else None,
            user_agent=_printable(request.headers.get("user-agent", "")),
            request_id=request_id.get(),
            now=datetime.now(UTC),
            locale=preferred_language(request.headers.get("accept-language", "")),
        ),
        run=request.app.state.runner,
    )


CurrentCall = Annotated[Call, Depends(get_call)]


def _address(host: str) -> str | None:
    """Return a peer's IP address without its zone; None for a peer that has none, as on a Unix socket."""
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text[:MAXIMUM_USER_AGENT])

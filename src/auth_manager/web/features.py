"""Routers, each loaded with the first request that it may answer, or all at once."""

from dataclasses import dataclass
from importlib import import_module

from fastapi import APIRouter
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_manager.cold_start import sparing_imports


@dataclass(frozen=True, slots=True)
class Feature:
    """Routes of one module, which calls them `router`, and what the paths of all of them begin with."""

    module: str
    prefixes: tuple[str, ...]

    def add_to(self, router: APIRouter) -> None:
        """Load the module and serve its routes.

        They are added as they are: `include_router` would analyse each of them a second time, with the first
        request, to join settings to them that we do not have, and look one router deeper in every request.
        """
        added: APIRouter = import_module(self.module).router
        router.routes.extend(added.routes)


class LazyFeatures:
    """Serve each feature from the first request on whose path begins like its own.

    That request finds all routes that may match it, so what is not there is not there (404), and `Allow`
    names every method (405). Loading waits for nothing, so no other request of this event loop comes in
    between. For a process with one thread, as `sparing_imports` says.
    """

    def __init__(self, app: ASGIApp, *, features: tuple[Feature, ...], router: APIRouter) -> None:
        self._app = app
        self._waiting = features
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Load what this request may need."""
        path = scope.get("path", "")
        for feature in [waiting for waiting in self._waiting if path.startswith(waiting.prefixes)]:
            with sparing_imports():
                feature.add_to(self._router)
            self._waiting = tuple(other for other in self._waiting if other is not feature)
        await self._app(scope, receive, send)

"""GET and POST under /account: all of the pages, and what they are dressed with."""

from fastapi import APIRouter, Response
from starlette.routing import Route

from auth_manager.pages import mailed_links, security, sign_in
from auth_manager.pages.rendering import render_script, render_style
from auth_manager.pages.visits import CurrentVisit, PageRoute

router = APIRouter(prefix="/account", route_class=PageRoute, include_in_schema=False)


@router.get("/style.css")
async def style(visit: CurrentVisit) -> Response:
    """Return the style sheet that every page has."""
    return Response(render_style(visit.settings), media_type="text/css")


@router.get("/passkeys.js")
async def script() -> Response:
    """Return the script of the pages that can use a passkey."""
    return Response(render_script(), media_type="text/javascript")


for part in (mailed_links, sign_in, security):
    router.routes.extend(part.router.routes)


async def show_page_of_form(visit: CurrentVisit) -> Response:
    """Send whoever opens the address of a form, as by a reload, to the page that leads to it."""
    is_security = visit.request.url.path.startswith("/account/security/")
    return visit.go("/account/security" if is_security else "/account")


def _list_paths(method: str) -> set[str]:
    return {
        route.path for route in router.routes if isinstance(route, Route) and method in (route.methods or ())
    }


for path in sorted(_list_paths("POST") - _list_paths("GET")):
    router.add_api_route(path.removeprefix(router.prefix), show_page_of_form, methods=["GET"])

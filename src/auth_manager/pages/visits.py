"""One browser's request for a page: its language, its form, and how it is answered."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from auth_manager.errors import AuthError, NotFound, RecentAuthenticationRequired, SessionEnded
from auth_manager.pages import browser
from auth_manager.pages.rendering import LOCALES, Locale, content_security_policy, render_page
from auth_manager.settings import Settings
from auth_manager.web import strict_form
from auth_manager.web.calls import Call, get_call


@dataclass(frozen=True, slots=True)
class Visit:
    """A request, once its form is known to be from a page of ours.

    `chosen` is the language that the person chose on a page, which its links and forms carry on.
    """

    request: Request
    call: Call
    locale: Locale
    chosen: Locale | None
    form: dict[str, str]

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.call.resources.settings

    @property
    def token(self) -> str:
        """The token of the link: of the address on the way in, of the form on the way back."""
        return self.form.get("token") or self.request.query_params.get("token", "")

    def field(self, name: str) -> str:
        """Return a field of the form, empty when it is not there; fields that nobody asks for are ignored."""
        return self.form.get(name, "")

    def id(self, name: str) -> UUID:
        """Return a field that is an id.

        Raises:
            NotFound: it is none.
        """
        try:
            return UUID(self.field(name))
        except ValueError:
            raise NotFound from None

    def page(
        self, template: str, *, error: AuthError | None = None, script: bool = False, **values: object
    ) -> Response:
        """Answer with a page, and with an error's status; `script` where a passkey can be used."""
        html = render_page(
            self.settings,
            template,
            locale=self.locale,
            error=error,
            script=script,
            suffix=f"?lang={self.chosen}" if self.chosen else "",
            token=self.token,
            languages=self.request.method == "GET",
            **values,
        )
        headers = {"Content-Security-Policy": content_security_policy(self.settings, script=script)}
        if error and error.status == 401:  # noqa: PLR2004 -- RFC 9110 section 11.6.1: never without a challenge
            headers["WWW-Authenticate"] = "Bearer"
        if error and error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return HTMLResponse(html, status_code=error.status if error else 200, headers=headers)

    def go(self, path: str) -> Response:
        """Send the browser on with a GET (RFC 9110 section 15.4.4), so that a reload repeats nothing."""
        base = urlsplit(self.settings.public_url).path
        suffix = f"?lang={self.chosen}" if self.chosen else ""
        return RedirectResponse(f"{base}{path}{suffix}", status_code=303)


async def open_visit(request: Request, *, form: dict[str, str] | None = None) -> Visit:
    """Find the language: the person's choice on a page, the browser's (Accept-Language), the setting."""
    call = await get_call(request)
    chosen = _spoken(request.query_params.get("lang"))
    locale = chosen or _spoken(call.origin.locale) or call.resources.settings.default_locale
    # Mails that this request causes speak the page's language.
    call = replace(call, origin=replace(call.origin, locale=locale))
    return Visit(request=request, call=call, locale=locale, chosen=chosen, form=form or {})


def _spoken(language: str | None) -> Locale | None:
    return next((locale for locale in LOCALES if locale == language), None)


async def receive_visit(request: Request) -> Visit:
    """Open a visit with the form of a POST.

    Raises:
        CrossSiteRequest: another site sent it.
    """
    if request.method != "POST":
        return await open_visit(request)
    browser.require_own_form(request.headers, request.app.state.resources.settings)
    return await open_visit(request, form=strict_form.parse(await request.body()))


CurrentVisit = Annotated[Visit, Depends(receive_visit)]


_FIRST: dict[type[AuthError], str] = {
    RecentAuthenticationRequired: "/account/security/confirm",
    SessionEnded: "/account",
}
"""Where a person goes who must do something else first; then they come back, and repeat the click."""


class PageRoute(APIRoute):
    """A route that answers a failure with a page that says it, and with the failure's status."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler (its documented way to handle errors of some routes)."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except (AuthError, RequestValidationError) as error:
                visit = await open_visit(request)
                if not isinstance(error, AuthError):  # an address with an id that is none
                    return visit.page("problem", error=NotFound())
                first = _FIRST.get(type(error))
                return visit.go(first) if first else visit.page("problem", error=error)

        return answer

"""What only browsers do: they send forms on behalf of other sites, and they keep cookies.

The cookie holds a session's refresh token. Pages alone read it, never the JSON API, so that no request to the
API carries a credential that its sender did not put there (ASVS 3.5.1).
"""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from auth_manager.errors import CrossSiteRequest
from auth_manager.settings import Settings

_OWN_SITES = {"same-origin", "none"}
"""Sec-Fetch-Site: from a page of ours, or by the person's own hand (a form sent again on reload)."""


def require_own_form(headers: Headers, public_url: str) -> None:
    """Refuse a form that another site sent: nobody signs a person in as somebody else (login CSRF).

    Our pages are sent with `Referrer-Policy: no-referrer`, which makes browsers say `Origin: null` for their
    forms (Fetch section 3.2). A sandboxed frame says the same, so that alone proves nothing: Sec-Fetch-Site,
    which no page can forge, must say it too. Without either header it is no browser of this decade, and has
    no cookie of anybody else to send.

    Raises:
        CrossSiteRequest: the form may be from elsewhere.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in _OWN_SITES:
        raise CrossSiteRequest
    if origin == "null" and site is None:
        raise CrossSiteRequest
    if origin not in {None, "null", origin_of(public_url)}:
        raise CrossSiteRequest


def origin_of(url: str) -> str:
    """Return the origin of an http(s) URL as browsers write it (RFC 6454 section 6.2)."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].lower()
    return f"{scheme}://{host}".removesuffix({"http": ":80", "https": ":443"}[scheme])


def read_session(request: Request, settings: Settings) -> str:
    """Return the refresh token in the cookie, empty when there is none."""
    return request.cookies.get(_cookie_name(settings), "")


def keep_session(response: Response, settings: Settings, refresh_token: str, *, seconds: int) -> None:
    """Set the cookie.

    `Lax`, because `Strict` would show a person who comes from a link in a mail as signed out. `__Host-` keeps
    other subdomains from setting it; over http, on a laptop, browsers refuse the prefix.
    """
    response.set_cookie(
        _cookie_name(settings),
        refresh_token,
        max_age=seconds,
        path="/",
        secure=_is_https(settings),
        httponly=True,
        samesite="lax",
    )


def forget_session(response: Response, settings: Settings) -> None:
    """Remove the cookie."""
    keep_session(response, settings, "", seconds=0)


def _cookie_name(settings: Settings) -> str:
    return "__Host-auth" if _is_https(settings) else "auth"


def _is_https(settings: Settings) -> bool:
    return settings.public_url.startswith("https://")

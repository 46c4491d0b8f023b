"""What only browsers do: they send forms on behalf of other sites, and they keep cookies.

One cookie holds a session's refresh token, another the token of a trusted device. Pages alone read them,
never the JSON API, so that no request to the API carries a credential that its sender did not put there
(ASVS 3.5.1).
"""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from auth_manager.errors import CrossSiteRequest
from auth_manager.settings import Settings, origin_of

_SESSION, _DEVICE = "auth", "auth-device"
"""The names of the cookies, but for their prefix."""

_OWN_SITES = {"same-origin", "none"}
"""Sec-Fetch-Site: from a page of ours, or by the person's own hand (a form sent again on reload)."""


def require_own_form(headers: Headers, settings: Settings) -> None:
    """Refuse a form that another site sent: nobody signs a person in as somebody else (login CSRF).

    Our pages are sent with `Referrer-Policy: no-referrer`, which makes browsers say `Origin: null` for their
    forms (Fetch section 3.2). A sandboxed frame says the same, so that alone proves nothing: Sec-Fetch-Site,
    which no page can forge, must say it too. Without either header it is no browser of this decade, and has
    no cookie of anybody else to send.

    A passkey's origin may be another than ours: an application's, or http://localhost on a laptop whose pages
    are at an IP address, for which no browser has passkeys. It is ours where Sec-Fetch-Site says so.

    Raises:
        CrossSiteRequest: the form may be from elsewhere.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in _OWN_SITES:
        raise CrossSiteRequest
    if origin == "null" and site is None:
        raise CrossSiteRequest
    own = {None, "null", origin_of(settings.public_url)}
    if origin not in own and not (site == "same-origin" and origin in settings.relying_party_origins):
        raise CrossSiteRequest


def read_session(request: Request, settings: Settings) -> str:
    """Return the refresh token in the cookie, empty when there is none."""
    return request.cookies.get(_name_cookie(_SESSION, settings), "")


def keep_session(response: Response, settings: Settings, refresh_token: str, *, seconds: int) -> None:
    """Set the cookie of the session."""
    _set_cookie(response, settings, _SESSION, refresh_token, seconds)


def forget_session(response: Response, settings: Settings) -> None:
    """Remove the cookie of the session."""
    _set_cookie(response, settings, _SESSION, "", 0)


def read_device(request: Request, settings: Settings) -> str | None:
    """Return the token of a trusted device, None when this is none."""
    return request.cookies.get(_name_cookie(_DEVICE, settings))


def keep_device(response: Response, settings: Settings, device_token: str, *, seconds: int) -> None:
    """Set the cookie of a trusted device, which outlives the session."""
    _set_cookie(response, settings, _DEVICE, device_token, seconds)


def _set_cookie(response: Response, settings: Settings, kind: str, value: str, seconds: int) -> None:
    """Set a cookie.

    `Lax`, because `Strict` would show a person who comes from a link in a mail as signed out. `__Host-` keeps
    other subdomains from setting it; over http, on a laptop, browsers refuse the prefix.
    """
    response.set_cookie(
        _name_cookie(kind, settings),
        value,
        max_age=seconds,
        path="/",
        secure=_is_https(settings),
        httponly=True,
        samesite="lax",
    )


def _name_cookie(kind: str, settings: Settings) -> str:
    return f"__Host-{kind}" if _is_https(settings) else kind


def _is_https(settings: Settings) -> bool:
    return settings.public_url.startswith("https://")

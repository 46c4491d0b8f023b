"""Requests of browsers from other origins (Fetch standard, "CORS protocol")."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from auth_manager.errors import MalformedRequest
from auth_manager.web.problems import problem


class Cors(CORSMiddleware):
    """Starlette's, which answers as everything here does when it refuses."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer what a browser asks before the request itself; Starlette's refusal is plain text."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:  # noqa: PLR2004 -- the only other status is 400
            return answer
        refusal = problem(MalformedRequest("Cross-origin requests of this kind are not allowed."))
        refusal.headers["Vary"] = answer.headers["Vary"]
        return refusal

"""The access token of a request (RFC 6750 section 2.1): the Authorization header and nowhere else."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from auth_manager.errors import MissingToken
from auth_manager.tokens import AccessClaims
from auth_manager.web.calls import CurrentCall

_scheme = HTTPBearer(auto_error=False, bearerFormat="JWT", description="The access token of a login")


async def get_claims(
    request: Request,
    call: CurrentCall,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> AccessClaims:
    """Verify the token's signature and claims; whether its session lives is the service's round trip.

    Raises:
        MissingToken: no Authorization header, several, or another scheme.
        InvalidToken: anything else that is wrong.
    """
    if credentials is None or len(request.headers.getlist("authorization")) != 1:
        raise MissingToken
    return call.resources.access_tokens.verify(credentials.credentials, now=call.origin.now)


async def find_claims(
    request: Request,
    call: CurrentCall,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> AccessClaims | None:
    """Return the claims of a route that works without a token too; None when no header is there.

    Raises:
        MissingToken, InvalidToken: as for `get_claims`: a header that is there must be good.
    """
    if "authorization" not in request.headers:
        return None
    return await get_claims(request, call, credentials)


CurrentClaims = Annotated[AccessClaims, Depends(get_claims)]
OptionalClaims = Annotated[AccessClaims | None, Depends(find_claims)]

"""Second factors as forms carry them: what a person types, and what a passkey signed."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import Response
from fastapi.responses import JSONResponse

from auth_manager.errors import AuthError, InvalidFactor, InvalidPasskey
from auth_manager.factors.checks import Presented
from auth_manager.pages.visits import Visit
from auth_manager.passkeys.service import Ceremony
from auth_manager.web import strict_json

FACTORS = ("passkey", "totp", "recovery_code")
"""In the order of their fields."""


def read_code(visit: Visit, name: str = "code") -> str:
    """Return a code as it was typed, without the spaces that people group digits with."""
    return visit.field(name).replace(" ", "")


def read_presented(visit: Visit) -> Presented:
    """Return the factor of the form: a passkey; else a recovery code, for which people look; else digits.

    Raises:
        InvalidFactor: there is none; nothing is counted.
        InvalidPasskey: as `read_passkey`.
    """
    if visit.field("passkey"):
        request, credential = read_passkey(visit)
        return Presented(passkey=credential, passkey_request=request)
    if visit.field("recovery_code"):
        return Presented(recovery_code=visit.field("recovery_code"))
    code = read_code(visit, "totp")
    if not code:
        raise InvalidFactor
    return Presented(totp=code)


def read_passkey(visit: Visit) -> tuple[UUID, Mapping[str, Any]]:
    """Return what the script left in the form: a request, and the credential for it.

    Raises:
        InvalidPasskey: it left nothing like that.
    """
    try:
        request = UUID(visit.field("passkey_request"))
        credential = strict_json.parse(visit.field("passkey").encode())
    except (ValueError, AuthError):
        raise InvalidPasskey from None
    if not isinstance(credential, dict):
        raise InvalidPasskey
    return request, credential


def read_asked(visit: Visit) -> list[str]:
    """Return which factors the form asked for, to ask for them again: only shown, never trusted."""
    asked = visit.field("factors").split(" ")
    return [factor for factor in FACTORS if factor in asked]


def send_options(ceremony: Ceremony) -> Response:
    """Answer the script with the options of a ceremony."""
    return JSONResponse({"request": str(ceremony.request), "options": dict(ceremony.options)})

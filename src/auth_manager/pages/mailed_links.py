"""GET and POST under /account: the pages of the links in mails.

A GET shows and uses up nothing, because programs that look for malware open every link; a POST does.
"""

from fastapi import APIRouter, Response

from auth_manager import proofs
from auth_manager.erasure import service as erasure
from auth_manager.errors import AuthError, FieldError, InvalidFields, UsernameTaken
from auth_manager.invitations import service as invitations
from auth_manager.invitations.service import Acceptance
from auth_manager.one_time_secrets import Purpose
from auth_manager.pages.visits import CurrentVisit, PageRoute, Visit
from auth_manager.proofs import Proof
from auth_manager.recovery import service as recovery
from auth_manager.verification import service as verification

router = APIRouter(prefix="/account", route_class=PageRoute, include_in_schema=False)

MAXIMUM_DISPLAY_NAME = 200
"""Characters, as in the API."""


async def confirm_link(visit: Visit, page: str, path: str, *purposes: Purpose) -> Response:
    """Show a button for a link that is still good."""
    secret = await visit.call(proofs.look_at, visit.token, *purposes)
    return visit.page("confirm", page=page, path=path, email=secret.email)


@router.get("/verify-email")
async def show_verification(visit: CurrentVisit) -> Response:
    """Ask whether an address is the person's."""
    return await confirm_link(
        visit, "verify_email", "verify-email", Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL
    )


@router.post("/verify-email")
async def verify_email(visit: CurrentVisit) -> Response:
    """Take an address as proven."""
    await visit.call(verification.verify_email, Proof(token=visit.token))
    return visit.page("message", page="verify_email")


@router.get("/keep")
async def show_keep(visit: CurrentVisit) -> Response:
    """Ask whether an account is to stay."""
    return await confirm_link(visit, "keep", "keep", Purpose.KEEP_ACCOUNT)


@router.post("/keep")
async def keep(visit: CurrentVisit) -> Response:
    """Keep an account that was to be erased."""
    await visit.call(erasure.keep, visit.token)
    return visit.page("message", page="keep")


@router.get("/reset-password")
async def show_reset(visit: CurrentVisit) -> Response:
    """Ask for a new password."""
    return await _ask_for_password(visit)


@router.post("/reset-password")
async def reset_password(visit: CurrentVisit) -> Response:
    """Set it; a password that breaks a rule uses nothing up."""
    try:
        await visit.call(recovery.reset_password, Proof(token=visit.token), visit.field("password"))
    except InvalidFields as error:
        return await _ask_for_password(visit, error)
    return visit.page("message", page="reset_password")


async def _ask_for_password(visit: Visit, error: AuthError | None = None) -> Response:
    secret = await visit.call(proofs.look_at, visit.token, Purpose.RESET_PASSWORD)
    return visit.page("reset", error=error, email=secret.email)


@router.get("/invitation")
async def show_invitation(visit: CurrentVisit) -> Response:
    """Ask an invited person for what an account needs."""
    return await _ask_invited(visit)


@router.post("/invitation")
async def accept_invitation(visit: CurrentVisit) -> Response:
    """Create the account; what breaks a rule uses nothing up."""
    try:
        await visit.call(invitations.accept, visit.token, _read_acceptance(visit))
    except (InvalidFields, UsernameTaken) as error:
        return await _ask_invited(visit, error)
    return visit.page("message", page="invitation")


def _read_acceptance(visit: Visit) -> Acceptance:
    name = visit.field("display_name")
    if len(name) > MAXIMUM_DISPLAY_NAME:
        detail = f"Over {MAXIMUM_DISPLAY_NAME} characters."
        raise InvalidFields(errors=[FieldError("/display_name", "display_name_too_long", detail)])
    return Acceptance(
        password=visit.field("password"),
        username=visit.field("username") or None,
        display_name=name or None,
        locale=visit.locale,
    )


async def _ask_invited(visit: Visit, error: AuthError | None = None) -> Response:
    secret = await visit.call(proofs.look_at, visit.token, Purpose.INVITATION)
    return visit.page(
        "invitation",
        error=error,
        email=secret.email,
        username=visit.field("username"),
        display_name=visit.field("display_name"),
    )


# --- asking for a mail -----------------------------------------------------------------------------


@router.get("/forgot-password")
async def show_forgot_password(visit: CurrentVisit) -> Response:
    """Ask for an address."""
    return visit.page("address", page="forgot_password", path="forgot-password", email="")


@router.post("/forgot-password")
async def forgot_password(visit: CurrentVisit) -> Response:
    """Mail a link to whoever has the address, and say the same to everybody (ASVS 6.3.8)."""
    email = visit.field("email")
    try:
        await visit.call(recovery.start, email)
    except InvalidFields as error:
        return visit.page("address", error=error, page="forgot_password", path="forgot-password", email=email)
    return visit.page("message", page="forgot_password")

"""GET and POST under /account: the pages of the links in mails, sign-in, and one's sessions.

A GET shows and uses up nothing, because programs that look for malware open every link; a POST does.
"""

from uuid import UUID

from fastapi import APIRouter, Response

from auth_manager import proofs
from auth_manager.email_login import service as email_login
from auth_manager.erasure import service as erasure
from auth_manager.errors import AuthError, FieldError, InvalidFields, InvalidOneTimeSecret, UsernameTaken
from auth_manager.invitations import service as invitations
from auth_manager.invitations.service import Acceptance
from auth_manager.login import service as login
from auth_manager.one_time_secrets import Purpose
from auth_manager.pages import browser
from auth_manager.pages.rendering import render_style
from auth_manager.pages.visits import CurrentVisit, PageRoute, Visit
from auth_manager.proofs import Proof
from auth_manager.recovery import service as recovery
from auth_manager.sessions import service as sessions
from auth_manager.sessions.service import LogOutScope, TokenGrant
from auth_manager.verification import service as verification

router = APIRouter(prefix="/account", route_class=PageRoute, include_in_schema=False)

SHOWN_SESSIONS = 50
MAXIMUM_DISPLAY_NAME = 200
"""Characters, as in the API."""


@router.get("/style.css")
async def style(visit: CurrentVisit) -> Response:
    """Return the style sheet that every page has."""
    return Response(render_style(visit.settings), media_type="text/css")


# --- the links in mails ----------------------------------------------------------------------------


async def _confirm(visit: Visit, page: str, path: str, *purposes: Purpose) -> Response:
    """Show a button for a link that is still good."""
    secret = await visit.call(proofs.look_at, visit.token, *purposes)
    return visit.page("confirm", page=page, path=path, email=secret.email)


@router.get("/verify-email")
async def show_verification(visit: CurrentVisit) -> Response:
    """Ask whether an address is the person's."""
    return await _confirm(visit, "verify_email", "verify-email", Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL)


@router.post("/verify-email")
async def verify_email(visit: CurrentVisit) -> Response:
    """Take an address as proven."""
    await visit.call(verification.verify_email, Proof(token=visit.token))
    return visit.page("message", page="verify_email")


@router.get("/keep")
async def show_keep(visit: CurrentVisit) -> Response:
    """Ask whether an account is to stay."""
    return await _confirm(visit, "keep", "keep", Purpose.KEEP_ACCOUNT)


@router.post("/keep")
async def keep(visit: CurrentVisit) -> Response:
    """Keep an account that was to be erased."""
    await visit.call(erasure.keep, Proof(token=visit.token))
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
        await visit.call(invitations.accept, Proof(token=visit.token), _read_acceptance(visit))
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


@router.get("/email-sign-in")
async def show_email_sign_in(visit: CurrentVisit) -> Response:
    """Ask for an address."""
    return visit.page("address", page="email_sign_in", path="email-sign-in", email="")


@router.post("/email-sign-in")
async def email_sign_in(visit: CurrentVisit) -> Response:
    """Mail a code and ask for it; or take the code, which counts for this one request (ASVS 6.6.2)."""
    if "code" in visit.form:
        return await _take_code(visit)
    email = visit.field("email")
    try:
        request = await visit.call(email_login.start, email)
    except InvalidFields as error:
        return visit.page("address", error=error, page="email_sign_in", path="email-sign-in", email=email)
    return visit.page("code", request=request)


async def _take_code(visit: Visit) -> Response:
    try:
        request = UUID(visit.field("request"))
    except ValueError:
        raise InvalidOneTimeSecret from None
    code = visit.field("code").replace(" ", "")
    try:
        tokens = await visit.call(email_login.log_in, Proof(request=request, code=code))
    except InvalidOneTimeSecret as error:
        return visit.page("code", error=error, request=request)
    return _enter(visit, tokens)


# --- signing in and out ----------------------------------------------------------------------------


@router.get("/sign-in")
async def show_sign_in(visit: CurrentVisit) -> Response:
    """Ask for a password; or, with the token of a link, whether to sign in as the one it was mailed to."""
    if visit.token:
        return await _confirm(visit, "email_sign_in_link", "sign-in", Purpose.EMAIL_LOGIN)
    return visit.page("sign-in", identifier="")


@router.post("/sign-in")
async def sign_in(visit: CurrentVisit) -> Response:
    """Open a session, by link or by password."""
    if visit.token:
        return _enter(visit, await visit.call(email_login.log_in, Proof(token=visit.token)))
    identifier = visit.field("identifier")
    try:
        tokens = await visit.call(login.log_in, identifier=identifier, password=visit.field("password"))
    except AuthError as error:
        return visit.page("sign-in", error=error, identifier=identifier)
    return _enter(visit, tokens)


def _enter(visit: Visit, tokens: TokenGrant) -> Response:
    """Keep the session in the browser, and show the account."""
    answer = visit.go("/account")
    browser.keep_session(answer, visit.settings, tokens.refresh_token, seconds=tokens.refresh_expires_in)
    return answer


@router.get("")
async def show_account(visit: CurrentVisit) -> Response:
    """Show who is signed in and where, or the ways in."""
    token = browser.read_session(visit.request, visit.settings)
    found = await visit.call(sessions.find_by_refresh_token, token) if token else None
    if found is None:
        answer = visit.page("sign-in", identifier="")
        if token:
            browser.forget_session(answer, visit.settings)
        return answer
    session, account = found
    page = await visit.call(
        sessions.list_sessions, sessions.claims_of(session, account), limit=SHOWN_SESSIONS, cursor=None
    )
    return visit.page(
        "account",
        email=account.email,
        current=session.id,
        sessions=page.items,
        more=page.next_cursor is not None,
    )


@router.post("/sign-out")
async def sign_out(visit: CurrentVisit) -> Response:
    """End this session, or with `scope=others` all the others."""
    scope: LogOutScope = "others" if visit.field("scope") == "others" else "this"
    answer = visit.go("/account")
    token = browser.read_session(visit.request, visit.settings)
    found = await visit.call(sessions.find_by_refresh_token, token)
    if found is not None:
        await visit.call(sessions.log_out, sessions.claims_of(*found), scope)
    if found is None or scope == "this":
        browser.forget_session(answer, visit.settings)
    return answer

"""GET and POST under /account: signing in by whatever was set up, and out again; the account itself."""

from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec
from uuid import UUID

from fastapi import APIRouter, Response

from auth_manager.audit import Origin
from auth_manager.email_login import service as email_login
from auth_manager.errors import (
    AuthError,
    InvalidFields,
    InvalidMfaToken,
    InvalidOneTimeSecret,
    MfaEnrolmentRequired,
    MfaRequired,
    NotFound,
)
from auth_manager.login import service as login
from auth_manager.mfa import service as mfa
from auth_manager.one_time_secrets import Purpose
from auth_manager.pages import browser
from auth_manager.pages.factor_forms import (
    FACTORS,
    read_asked,
    read_code,
    read_passkey,
    read_presented,
    send_options,
)
from auth_manager.pages.mailed_links import confirm_link
from auth_manager.pages.visits import CurrentVisit, PageRoute, Visit
from auth_manager.passkeys import service as passkeys
from auth_manager.proofs import Proof
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.sessions.service import LogOutScope, TokenGrant

P = ParamSpec("P")

router = APIRouter(prefix="/account", route_class=PageRoute, include_in_schema=False)

SHOWN_SESSIONS = 50
DAY = 86_400
"""Seconds."""


# --- the first step --------------------------------------------------------------------------------


@router.get("/sign-in")
async def show_sign_in(visit: CurrentVisit) -> Response:
    """Show the ways in; or, with the token of a link, ask whether to sign in as the one it was mailed to."""
    if visit.token:
        return await confirm_link(visit, "email_sign_in_link", "sign-in", Purpose.EMAIL_LOGIN)
    return _show_ways_in(visit)


@router.post("/sign-in")
async def sign_in(visit: CurrentVisit) -> Response:
    """Sign in by link or by password; a trusted device shows its token, too."""
    if visit.token:
        return await _sign_in(visit, email_login.log_in, Proof(token=visit.token))
    identifier = visit.field("identifier")
    try:
        return await _sign_in(
            visit,
            login.log_in,
            identifier=identifier,
            password=visit.field("password"),
            device_token=browser.read_device(visit.request, visit.settings),
        )
    except AuthError as error:
        return _show_ways_in(visit, error, identifier)


@router.get("/email-sign-in")
async def show_email_sign_in(visit: CurrentVisit) -> Response:
    """Ask for an address."""
    return visit.page("address", page="email_sign_in", path="email-sign-in", email="")


@router.post("/email-sign-in")
async def email_sign_in(visit: CurrentVisit) -> Response:
    """Mail a code and ask for it; or take the code, which counts for this one request (ASVS 6.6.2)."""
    if "code" in visit.form:
        return await _take_mailed_code(visit)
    email = visit.field("email")
    try:
        request = await visit.call(email_login.start, email)
    except InvalidFields as error:
        return visit.page("address", error=error, page="email_sign_in", path="email-sign-in", email=email)
    return visit.page("code", request=request)


async def _take_mailed_code(visit: Visit) -> Response:
    try:
        request = UUID(visit.field("request"))
    except ValueError:
        raise InvalidOneTimeSecret from None
    try:
        return await _sign_in(visit, email_login.log_in, Proof(request=request, code=read_code(visit)))
    except InvalidOneTimeSecret as error:
        return visit.page("code", error=error, request=request)


@router.post("/sign-in/passkey/options")
async def passkey_options(visit: CurrentVisit) -> Response:
    """Return what a passkey of anybody's has to sign."""
    return send_options(await visit.call(passkeys.authentication_options))


@router.post("/sign-in/passkey")
async def sign_in_by_passkey(visit: CurrentVisit) -> Response:
    """Sign in by a passkey alone, which says whose it is."""
    try:
        request, credential = read_passkey(visit)
        return await _sign_in(visit, passkeys.log_in, request, credential)
    except AuthError as error:
        return _show_ways_in(visit, error)


async def _sign_in(
    visit: Visit,
    service: Callable[Concatenate[Resources, Origin, P], TokenGrant],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """Sign in by a first factor; where a second one is missing, ask for it, or set it up."""
    try:
        tokens = await visit.call(service, *args, **kwargs)
    except MfaRequired as missing:
        asked = [factor for factor in FACTORS if factor in _listed(missing)]
        return _ask_for_factor(visit, str(missing.members["mfa_token"]), asked)
    except MfaEnrolmentRequired as missing:
        mfa_token = str(missing.members["mfa_token"])
        enrolment = await visit.call(mfa.start_enrolment, mfa_token)
        return visit.page("enrolment", mfa_token=mfa_token, enrolment=enrolment, path="enrolment")
    return _enter(visit, tokens)


def _listed(missing: MfaRequired) -> Sequence[str]:
    factors = missing.members["factors"]
    return factors if isinstance(factors, list) else []


def _show_ways_in(visit: Visit, error: AuthError | None = None, identifier: str = "") -> Response:
    return visit.page("sign-in", error=error, script=True, identifier=identifier)


def _enter(visit: Visit, tokens: TokenGrant) -> Response:
    """Keep the session in the browser, and show the account."""
    return _keep(visit, visit.go("/account"), tokens)


def _keep(visit: Visit, answer: Response, tokens: TokenGrant) -> Response:
    browser.keep_session(answer, visit.settings, tokens.refresh_token, seconds=tokens.refresh_expires_in)
    return answer


# --- the second step -------------------------------------------------------------------------------


def _ask_for_factor(
    visit: Visit, mfa_token: str, factors: list[str], error: AuthError | None = None
) -> Response:
    """Ask for a second factor. Its token travels in the form alone, never in an address (ASVS 14.2.1)."""
    return visit.page(
        "second-step",
        error=error,
        script="passkey" in factors,
        mfa_token=mfa_token,
        factors=factors,
        trust_days=visit.settings.trusted_device_lifetime // DAY,
    )


@router.post("/second-step")
async def take_factor(visit: CurrentVisit) -> Response:
    """Finish a sign-in by a second factor; a wrong one can be corrected."""
    mfa_token = visit.field("mfa_token")
    try:
        step = await visit.call(
            mfa.log_in, mfa_token, read_presented(visit), trust_device=visit.field("trust") == "yes"
        )
    except InvalidMfaToken as error:
        return _show_ways_in(visit, error)
    except AuthError as error:
        return _ask_for_factor(visit, mfa_token, read_asked(visit), error)
    answer = _enter(visit, step.tokens)
    if step.device_token and step.device_expires_in:
        browser.keep_device(answer, visit.settings, step.device_token, seconds=step.device_expires_in)
    return answer


@router.post("/second-step/passkey")
async def second_step_options(visit: CurrentVisit) -> Response:
    """Return what one of the account's passkeys has to sign."""
    ceremony = await visit.call(passkeys.authentication_options, mfa_token=visit.field("mfa_token"))
    return send_options(ceremony)


@router.post("/enrolment")
async def finish_enrolment(visit: CurrentVisit) -> Response:
    """Take the first code of an app that had to be set up, and finish the sign-in with it."""
    mfa_token = visit.field("mfa_token")
    try:
        step = await visit.call(mfa.finish_enrolment, mfa_token, read_code(visit))
    except (InvalidMfaToken, NotFound) as error:
        return _show_ways_in(visit, error)
    except InvalidFields as error:
        # The app has its secret by now: it is not shown again.
        return visit.page("enrolment", error=error, mfa_token=mfa_token, enrolment=None, path="enrolment")
    if not step.recovery_codes:
        return _enter(visit, step.tokens)
    page = visit.page("recovery-codes", codes=step.recovery_codes, next="/account")
    return _keep(visit, page, step.tokens)


# --- the account -----------------------------------------------------------------------------------


@router.get("")
async def show_account(visit: CurrentVisit) -> Response:
    """Show who is signed in and where, or the ways in."""
    token = browser.read_session(visit.request, visit.settings)
    found = await visit.call(sessions.find_by_refresh_token, token) if token else None
    if found is None:
        answer = _show_ways_in(visit)
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
    """End this session; with `scope=others` all the others; with `session` that one."""
    answer = visit.go("/account")
    token = browser.read_session(visit.request, visit.settings)
    found = await visit.call(sessions.find_by_refresh_token, token)
    if found is None:
        browser.forget_session(answer, visit.settings)
        return answer
    claims = sessions.claims_of(*found)
    if "session" in visit.form:
        await visit.call(sessions.revoke_session, claims, visit.id("session"))
        return answer
    scope: LogOutScope = "others" if visit.field("scope") == "others" else "this"
    await visit.call(sessions.log_out, claims, scope)
    if scope == "this":
        browser.forget_session(answer, visit.settings)
    return answer

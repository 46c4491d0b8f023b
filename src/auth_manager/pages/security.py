"""GET and POST under /account/security: one's second factors, passkeys and trusted devices.

Changes need a recent authentication. A service says so, the person is asked to confirm who they are
(visits.py sends them there), and then repeats the click.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from auth_manager.accounts import Account
from auth_manager.errors import (
    AuthError,
    FieldError,
    InvalidFactor,
    InvalidFields,
    InvalidOneTimeSecret,
    InvalidPasskey,
    MfaRequired,
    SessionEnded,
    TooManyAttempts,
)
from auth_manager.factors.changes import Enrolee, enrolee_of
from auth_manager.mfa import Overview
from auth_manager.mfa import service as mfa
from auth_manager.pages import browser
from auth_manager.pages.factor_forms import read_code, read_passkey, read_presented, send_options
from auth_manager.pages.visits import CurrentVisit, PageRoute, Visit
from auth_manager.passkeys import service as passkeys
from auth_manager.proofs import Proof
from auth_manager.reauthentication import service as reauthentication
from auth_manager.sessions import service as sessions
from auth_manager.tokens import AccessClaims
from auth_manager.totp import service as totp

router = APIRouter(prefix="/account/security", route_class=PageRoute, include_in_schema=False)

HERE = "/account/security"
SHOWN_DEVICES = 50
MAXIMUM_PASSKEY_NAME = 100
"""Characters, as in the API."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The visit of somebody who is signed in."""

    visit: Visit
    account: Account
    claims: AccessClaims

    @property
    def enrolee(self) -> Enrolee:
        """The person, as who sets a factor up."""
        return enrolee_of(self.visit.call.resources, self.visit.call.origin, self.claims)


async def find_signed_in(visit: CurrentVisit) -> SignedIn:
    """Return who the cookie says that it is.

    Raises:
        SessionEnded: nobody, or not any more; `/account` has the ways in.
    """
    token = browser.read_session(visit.request, visit.settings)
    found = await visit.call(sessions.find_by_refresh_token, token) if token else None
    if found is None:
        raise SessionEnded
    session, account = found
    return SignedIn(visit, account, sessions.claims_of(session, account))


CurrentPerson = Annotated[SignedIn, Depends(find_signed_in)]


@router.get("")
async def show_security(person: CurrentPerson) -> Response:
    """Show what protects the account."""
    visit = person.visit
    devices = await visit.call(mfa.list_devices, person.claims, limit=SHOWN_DEVICES, cursor=None)
    return visit.page(
        "security",
        script=True,
        overview=await visit.call(mfa.overview, person.claims),
        passkeys=await visit.call(passkeys.list_of, person.claims),
        devices=devices.items,
    )


# --- one-time passwords and recovery codes ---------------------------------------------------------


@router.post("/totp")
async def start_totp(person: CurrentPerson) -> Response:
    """Show the secret of a new authenticator app, and ask for its first code."""
    enrolment = await person.visit.call(totp.start, person.enrolee)
    return person.visit.page("enrolment", mfa_token="", enrolment=enrolment, path="security/totp/confirm")


@router.post("/totp/confirm")
async def confirm_totp(person: CurrentPerson) -> Response:
    """Take the app's first code."""
    visit = person.visit
    try:
        codes = await visit.call(totp.confirm, person.enrolee, read_code(visit))
    except InvalidFields as error:
        # The app has its secret by now: it is not shown again.
        return visit.page(
            "enrolment", error=error, mfa_token="", enrolment=None, path="security/totp/confirm"
        )
    return _show_codes(visit, codes)


@router.post("/totp/remove")
async def remove_totp(person: CurrentPerson) -> Response:
    """Remove the authenticator app."""
    await person.visit.call(totp.remove, person.claims)
    return person.visit.go(HERE)


@router.post("/recovery-codes")
async def make_recovery_codes(person: CurrentPerson) -> Response:
    """Replace the recovery codes, and show the new ones this once."""
    return _show_codes(person.visit, await person.visit.call(mfa.make_recovery_codes, person.claims))


def _show_codes(visit: Visit, codes: Sequence[str]) -> Response:
    """Show recovery codes, if there are any to show."""
    return visit.page("recovery-codes", codes=codes, next=HERE) if codes else visit.go(HERE)


# --- passkeys and trusted devices ------------------------------------------------------------------


@router.post("/passkeys/options")
async def registration_options(person: CurrentPerson) -> Response:
    """Return what a new passkey has to sign; a name that is none is said before anything is made."""
    if person.visit.field("name").strip():
        _read_name(person.visit)
    return send_options(await person.visit.call(passkeys.registration_options, person.enrolee))


@router.post("/passkeys")
async def add_passkey(person: CurrentPerson) -> Response:
    """Add a passkey, and show the recovery codes that may come with it."""
    visit = person.visit
    request, credential = read_passkey(visit)
    # Without a name it gets a number.
    name = _read_name(visit) if visit.field("name").strip() else None
    try:
        registered = await visit.call(passkeys.register, person.enrolee, request, credential, name)
    except InvalidFields:
        raise InvalidPasskey from None
    return _show_codes(visit, registered.recovery_codes)


def _read_name(visit: Visit) -> str:
    name = visit.field("name").strip()
    if not 1 <= len(name) <= MAXIMUM_PASSKEY_NAME or not name.isprintable():
        detail = f"Not 1 to {MAXIMUM_PASSKEY_NAME} printable characters."
        raise InvalidFields(errors=[FieldError("/name", "passkey_name_invalid", detail)])
    return name


@router.get("/passkeys/{passkey_id}")
async def show_passkey(person: CurrentPerson, passkey_id: UUID) -> Response:
    """Show one passkey: its name can be changed, and it can be removed."""
    return await _show_passkey(person, passkey_id)


@router.post("/passkeys/{passkey_id}")
async def rename_passkey(person: CurrentPerson, passkey_id: UUID) -> Response:
    """Give it another name."""
    visit = person.visit
    try:
        await visit.call(passkeys.rename, person.claims, passkey_id, _read_name(visit))
    except InvalidFields as error:
        return await _show_passkey(person, passkey_id, error)
    return visit.go(HERE)


async def _show_passkey(person: SignedIn, passkey_id: UUID, error: AuthError | None = None) -> Response:
    passkey = await person.visit.call(passkeys.get, person.claims, passkey_id)
    return person.visit.page("passkey", error=error, passkey=passkey)


@router.post("/passkeys/{passkey_id}/remove")
async def remove_passkey(person: CurrentPerson, passkey_id: UUID) -> Response:
    """Remove it."""
    await person.visit.call(passkeys.remove, person.claims, passkey_id)
    return person.visit.go(HERE)


@router.post("/devices")
async def revoke_device(person: CurrentPerson) -> Response:
    """End the trust in a device."""
    await person.visit.call(mfa.revoke_device, person.claims, person.visit.id("device"))
    return person.visit.go(HERE)


# --- confirming who one is -------------------------------------------------------------------------


CORRECTABLE = (
    InvalidFactor,
    InvalidFields,
    InvalidOneTimeSecret,
    InvalidPasskey,
    MfaRequired,
    TooManyAttempts,
)
"""What is said on the form itself."""


@router.get("/confirm")
async def show_confirm(person: CurrentPerson) -> Response:
    """Ask for a second factor; who has none, for the password or a mailed code."""
    return await _ask_who(person)


@router.post("/confirm")
async def confirm_person(person: CurrentPerson) -> Response:
    """Authenticate again, and go back to what needed it."""
    visit, claims = person.visit, person.claims
    request = visit.id("mail_request") if "mail_request" in visit.form else None
    try:
        if "factors" in visit.form:
            await visit.call(reauthentication.by_factor, claims, read_presented(visit))
        elif request:
            await visit.call(reauthentication.by_code, claims, Proof(request=request, code=read_code(visit)))
        else:
            await visit.call(reauthentication.by_password, claims, visit.field("password"))
    except CORRECTABLE as error:
        return await _ask_who(person, error, request)
    return visit.go(HERE)


@router.post("/confirm/mail")
async def mail_code(person: CurrentPerson) -> Response:
    """Mail a code to the person's own address, and ask for it."""
    return await _ask_who(person, request=await person.visit.call(reauthentication.start, person.claims))


@router.post("/confirm/passkey")
async def confirmation_options(person: CurrentPerson) -> Response:
    """Return what one of the person's passkeys has to sign."""
    return send_options(await person.visit.call(passkeys.authentication_options, claims=person.claims))


async def _ask_who(person: SignedIn, error: AuthError | None = None, request: UUID | None = None) -> Response:
    factors = _list_factors(await person.visit.call(mfa.overview, person.claims))
    return person.visit.page(
        "confirm-person",
        error=error,
        script="passkey" in factors,
        factors=factors,
        request=request,
        email=person.account.email,
        by_mail=not factors and person.visit.settings.mail_transport != "none",
    )


def _list_factors(overview: Overview) -> list[str]:
    """Return the factors that a person can present, in the order of their fields."""
    held = {"passkey": overview.passkeys, "totp": overview.totp_confirmed_at is not None}
    factors = [factor for factor, has in held.items() if has]
    return [*factors, "recovery_code"] if factors and overview.recovery_codes_left else factors

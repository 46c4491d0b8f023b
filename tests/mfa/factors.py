"""People with second factors, for the tests of sign-ins that ask for them."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pyotp
import pytest
from tests.verification.people import PASSWORD, Person, at, start

from auth_manager.audit import Origin
from auth_manager.errors import MfaEnrolmentRequired, MfaRequired
from auth_manager.factors.changes import enrolee_of
from auth_manager.factors.checks import Presented
from auth_manager.login import service as login
from auth_manager.mfa import service as mfa
from auth_manager.mfa.service import SecondStep
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims
from auth_manager.totp import service as totp

STEP = 30
"""Seconds of a time step (RFC 6238)."""


@dataclass
class Authenticator:
    """An authenticator app, and the recovery codes that came with it."""

    secret: str
    recovery_codes: list[str] = field(default_factory=list)

    def code(self, seconds: float = 0) -> str:
        """The code that is shown so long after this test began."""
        return self.at(start() + timedelta(seconds=seconds))

    def at(self, moment: datetime) -> str:
        return pyotp.TOTP(self.secret).at(moment)

    def wrong(self, seconds: float = 0) -> str:
        """A code that is none of the three that are good then."""
        good = {self.code(seconds + shift) for shift in (-STEP, 0, STEP)}
        return next(code for code in ("000000", "111111", "222222", "333333") if code not in good)


def person(resources: Resources, email: str = "person@example.com") -> Person:
    """Somebody whose address is proven, without a second factor."""
    return Person(resources, email=email).register().verified()


def enrol(somebody: Person, claims: AccessClaims | None = None) -> Authenticator:
    """Set one-time passwords up; the code that confirms them is of the moment this test began."""
    resources = somebody.resources
    enrolee = enrolee_of(resources, at(), claims or somebody.claims())
    app = Authenticator(totp.start(resources, at(), enrolee).secret)
    app.recovery_codes = list(totp.confirm(resources, at(), enrolee, app.code()))
    return app


def first_step(somebody: Person, origin: Origin | None = None, password: str = PASSWORD, **more: Any) -> str:
    """Sign in by password as far as it goes, and return the token to go on with."""
    with pytest.raises(MfaRequired) as raised:
        login.log_in(somebody.resources, origin or at(), identifier=somebody.email, password=password, **more)
    return str(raised.value.members["mfa_token"])


def enrolment_step(somebody: Person, origin: Origin | None = None) -> str:
    """As `first_step`, for who must set a factor up."""
    with pytest.raises(MfaEnrolmentRequired) as raised:
        login.log_in(somebody.resources, origin or at(), identifier=somebody.email, password=PASSWORD)
    return str(raised.value.members["mfa_token"])


def second_step(
    somebody: Person, token: str, *, seconds: float = STEP, trust_device: bool = False, **presented: Any
) -> SecondStep:
    """Go on with a second factor, so long after this test began."""
    return mfa.log_in(
        somebody.resources, at(seconds), token, Presented(**presented), trust_device=trust_device
    )


def claims_of(somebody: Person, step: SecondStep) -> AccessClaims:
    return somebody.claims(step.tokens)


def account_id(somebody: Person) -> UUID:
    [row] = somebody.query("SELECT id FROM accounts WHERE email = %(email)s")
    found: UUID = row["id"]
    return found

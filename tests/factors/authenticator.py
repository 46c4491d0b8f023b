"""An authenticator app, and people who have one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyotp import TOTP
from tests.verification.people import Person, at

from auth_manager.audit import Origin
from auth_manager.factors.changes import enrolee_of
from auth_manager.tokens import AccessClaims
from auth_manager.totp import service


@dataclass(frozen=True)
class App:
    """What a phone has after the QR code was scanned."""

    secret: str

    def code(self, now: datetime, *, steps: int = 0) -> str:
        """The code of a moment, or of that many time steps later."""
        return TOTP(self.secret).at(now + timedelta(seconds=30 * steps))

    def wrong_code(self, now: datetime) -> str:
        """One that is none of those that would be taken."""
        near = {self.code(now, steps=step) for step in (-1, 0, 1)}
        return next(code for code in ("000000", "111111", "222222", "333333") if code not in near)


def begin(person: Person, claims: AccessClaims, origin: Origin | None = None) -> App:
    """Scan the code; nothing is confirmed."""
    origin = origin or at()
    return App(service.start(person.resources, origin, enrolee_of(person.resources, origin, claims)).secret)


def enrol(person: Person, claims: AccessClaims, origin: Origin | None = None) -> tuple[App, Sequence[str]]:
    """Scan the code and confirm it; return the app and the recovery codes."""
    origin = origin or at()
    app = begin(person, claims, origin)
    enrolee = enrolee_of(person.resources, origin, claims)
    return app, service.confirm(person.resources, origin, enrolee, app.code(origin.now))

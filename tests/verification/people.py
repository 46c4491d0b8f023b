"""People who register, read their mail, and present what it says: for the tests of every flow by mail."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.audit import Origin
from auth_manager.database import Row
from auth_manager.directory.service import find_id
from auth_manager.email_login import service as email_login
from auth_manager.erasure import service as erasure
from auth_manager.ids import new_id
from auth_manager.invitations import service as invitations
from auth_manager.invitations.service import Acceptance
from auth_manager.login import service as login
from auth_manager.one_time_secrets import Purpose
from auth_manager.proofs import Proof
from auth_manager.reauthentication import service as reauthentication
from auth_manager.recovery import service as recovery
from auth_manager.resources import Resources
from auth_manager.roles import service as roles
from auth_manager.roles.service import RoleFields
from auth_manager.sessions.service import TokenGrant
from auth_manager.tokens import AccessClaims
from auth_manager.verification import service as verification

EMAIL = "person@example.com"
NEW_EMAIL = "new@example.com"
INVITED = "invited@example.com"
PASSWORD = "SecurePass123!"
NEW_PASSWORD = "AnotherPass456!"
_starts: dict[str, datetime] = {}


def start() -> datetime:
    """When the people of this test began to act, by the database's own clock too, which counts beside theirs.

    Once for each test: by the end of a long run what was mailed at its beginning is over.
    """
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    if test not in _starts:
        _starts.clear()
        _starts[test] = datetime.now(UTC)
    return _starts[test]


def at(seconds: float = 0, *, locale: str | None = None, user_agent: str = "pytest") -> Origin:
    return Origin("203.0.113.7", user_agent, "request", start() + timedelta(seconds=seconds), locale)


def operator(seconds: float = 0) -> Origin:
    """Who works on the command line."""
    return replace(at(seconds), operator="tester")


def create_role(resources: Resources, name: str, *permissions: str) -> str:
    roles.create_role(resources, operator(), None, name, RoleFields(permissions=permissions))
    return name


def query(resources: Resources, sql: str, **parameters: object) -> list[Row]:
    with resources.database.one_trip() as connection:
        return connection.fetch_all(sql, parameters)


@dataclass
class Person:
    """Somebody with an account at a service."""

    resources: Resources
    email: str = EMAIL
    verification: UUID = field(default_factory=new_id)

    @property
    def id(self) -> UUID:
        return find_id(self.resources, self.email)

    def register(self, *, locale: str | None = None, origin: Origin | None = None) -> "Person":
        registration = Registration(self.email, PASSWORD, locale=locale)
        registered = accounts.register(self.resources, origin or at(), registration)
        return replace(self, verification=registered.verification)

    def verified(self) -> "Person":
        """Take the address as proven."""
        self.query("UPDATE accounts SET email_verified_at = now() WHERE email = %(email)s RETURNING 1")
        return self

    def query(self, sql: str) -> list[Row]:
        return query(self.resources, sql, email=self.email)

    def log_in(self, password: str = PASSWORD, *, origin: Origin | None = None) -> TokenGrant:
        return login.log_in(self.resources, origin or at(), identifier=self.email, password=password)

    def claims(self, grant: TokenGrant | None = None) -> AccessClaims:
        token = (grant or self.log_in()).access_token
        return self.resources.access_tokens.verify(token, now=start())

    def token(self, purpose: Purpose, request: UUID) -> Proof:
        return Proof(token=self.resources.one_time_secrets.token(purpose, request))

    def code(self, purpose: Purpose, request: UUID) -> Proof:
        return Proof(request=request, code=self.resources.one_time_secrets.code(purpose, request))

    def wrong(self, purpose: Purpose, request: UUID) -> Proof:
        """A code that is off by one."""
        right = int(self.resources.one_time_secrets.code(purpose, request))
        return Proof(request=request, code=f"{(right + 1) % 10**6:06}")

    def mails(self) -> list[tuple[str, str, str | None]]:
        """Kind, recipient and language of what is in the outbox, the oldest first."""
        rows = self.query("SELECT kind, recipient, locale FROM outbox ORDER BY created_at, id")
        return [(row["kind"], row["recipient"], row["locale"]) for row in rows]

    def events(self) -> list[tuple[str, str, str | None]]:
        rows = self.query("SELECT event, outcome, reason FROM audit_events ORDER BY id")
        return [(row["event"], row["outcome"], row["reason"]) for row in rows]


@dataclass(frozen=True)
class Flow:
    """How a secret of one purpose is asked for and presented, by somebody who is signed in."""

    purpose: Purpose
    ask: Callable[[Person, AccessClaims], UUID]
    present: Callable[[Person, AccessClaims, Proof, Origin], object]
    lifetime: int
    """Seconds, as documented."""
    code: bool = True
    """Whether its mail has a code, beside or in place of the link."""


GRACE = 14 * 86_400


def _delete(person: Person, claims: AccessClaims) -> UUID:
    assert erasure.delete_own_account(person.resources, at(), claims) == start() + timedelta(seconds=GRACE)
    [row] = person.query("SELECT id FROM one_time_secrets WHERE purpose = 'keep_account'")
    request: UUID = row["id"]
    return request


def _token_of(proof: Proof) -> str:
    """Present what there is in place of a token: where no code is taken, its digits are a bad token."""
    return proof.token if proof.token is not None else proof.code or ""


FLOWS = [
    Flow(
        Purpose.VERIFY_EMAIL,
        lambda person, _: verification.resend(person.resources, at(), person.email),
        lambda person, _, proof, origin: verification.verify_email(person.resources, origin, proof),
        86_400,
    ),
    Flow(
        Purpose.CHANGE_EMAIL,
        lambda person, claims: verification.change_email(person.resources, at(), claims, NEW_EMAIL),
        lambda person, _, proof, origin: verification.verify_email(person.resources, origin, proof),
        86_400,
    ),
    Flow(
        Purpose.RESET_PASSWORD,
        lambda person, _: recovery.start(person.resources, at(), person.email),
        lambda person, _, proof, origin: recovery.reset_password(
            person.resources, origin, proof, NEW_PASSWORD
        ),
        1800,
    ),
    Flow(
        Purpose.EMAIL_LOGIN,
        lambda person, _: email_login.start(person.resources, at(), person.email),
        lambda person, _, proof, origin: email_login.log_in(person.resources, origin, proof),
        600,
    ),
    Flow(
        Purpose.REAUTHENTICATE,
        lambda person, claims: reauthentication.start(person.resources, at(), claims),
        lambda person, claims, proof, origin: reauthentication.by_code(
            person.resources, origin, claims, proof
        ),
        600,
    ),
    Flow(
        Purpose.INVITATION,
        lambda person, _: invitations.invite(person.resources, operator(), INVITED),
        lambda person, _, proof, origin: invitations.accept(
            person.resources, origin, _token_of(proof), Acceptance(NEW_PASSWORD)
        ),
        7 * 86_400,
        code=False,
    ),
    Flow(
        Purpose.KEEP_ACCOUNT,
        _delete,
        lambda person, _, proof, origin: erasure.keep(person.resources, origin, _token_of(proof)),
        GRACE,
        code=False,
    ),
]


def together(actions: Sequence[Callable[[], object]], *, threads: int = 16) -> list[object]:
    """Run every action in a thread; return what each returned or raised."""

    def run(action: Callable[[], object]) -> object:
        try:
            return action()
        except Exception as error:  # noqa: BLE001 -- an outcome like any other
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, actions))


class Browser:
    """The same over HTTP."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.resources: Resources = client.app.state.resources  # type: ignore[attr-defined]

    def post(
        self, path: str, status: int, headers: dict[str, str] | None = None, **body: str
    ) -> dict[str, Any]:
        answer = self.client.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        result: dict[str, Any] = answer.json() if answer.content else {}
        return result

    def register(self) -> dict[str, Any]:
        return self.post("/auth/register", 201, email=EMAIL, password=PASSWORD)

    def log_in(self) -> dict[str, str]:
        """Return the Authorization header."""
        granted = self.post("/auth/login", 200, email=EMAIL, password=PASSWORD)
        return {"Authorization": f"Bearer {granted['access_token']}"}

    def code(self, purpose: Purpose, request: str) -> dict[str, str]:
        return {"request": request, "code": self.resources.one_time_secrets.code(purpose, UUID(request))}

    def token(self, purpose: Purpose, request: str) -> dict[str, str]:
        return {"token": self.resources.one_time_secrets.token(purpose, UUID(request))}

    def query(self, sql: str, **parameters: object) -> list[Row]:
        return query(self.resources, sql, **parameters)

"""Somebody at a browser, with an account and an authenticator: drives the routes."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient
from httpx2 import Response
from joserfc import jws
from tests.passkeys.authenticator import Authenticator

from auth_manager.database import Row

PASSWORD = "SecurePass123!"
JSON = dict[str, Any]
Query = Callable[..., list[Row]]
REFUSED = (401, "invalid_passkey")
"""The one answer to a passkey that is not accepted."""


@dataclass
class Visitor:
    """Signed in by password from the start."""

    client: TestClient
    email: str = "person@example.com"
    authenticator: Authenticator = field(default_factory=Authenticator)
    token: str = ""
    account_id: UUID = field(init=False)

    def __post_init__(self) -> None:
        registered = self.client.post("/auth/register", json={"email": self.email, "password": PASSWORD})
        assert registered.status_code == 201, registered.text
        self.account_id = UUID(registered.json()["id"])
        self.token = self.log_in().json()["access_token"]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def log_in(self) -> Response:
        return self.client.post("/auth/login", json={"email": self.email, "password": PASSWORD})

    def creation_options(self) -> JSON:
        response = self.client.post("/auth/passkeys/registration/options", headers=self.headers)
        assert response.status_code == 200, response.text
        options: JSON = response.json()
        return options

    def finish(self, options: JSON, credential: JSON, **more: Any) -> Response:
        body = {"request": options["request"], "credential": credential} | more
        return self.client.post("/auth/passkeys/registration/verify", json=body, headers=self.headers)

    def add_passkey(self, **more: Any) -> JSON:
        """Register one, on another device where this one has one already, and return the answer."""
        if self.authenticator.passkeys:
            self.authenticator = replace(self.authenticator, passkeys=[])
        options = self.creation_options()
        response = self.finish(options, self.authenticator.create(options["publicKey"]), **more)
        assert response.status_code == 201, response.text
        answer: JSON = response.json()
        return answer

    def request_options(self, body: JSON | None = None, *, signed_in: bool = False) -> JSON:
        response = self.client.post(
            "/auth/passkeys/authentication/options",
            json=body or {},
            headers=self.headers if signed_in else {},
        )
        assert response.status_code == 200, response.text
        options: JSON = response.json()
        return options

    def present(self, options: JSON, credential: JSON) -> Response:
        body = {"request": options["request"], "credential": credential}
        return self.client.post("/auth/passkeys/authentication/verify", json=body)

    def sign_in(self, **how: Any) -> Response:
        """Sign in by the passkey alone."""
        options = self.request_options()
        return self.present(options, self.authenticator.get(options["publicKey"], **how))

    def mfa_token(self) -> str:
        """Sign in by password as far as that goes."""
        response = self.log_in()
        assert (response.status_code, response.json()["code"]) == (403, "mfa_required"), response.text
        token: str = response.json()["mfa_token"]
        return token


def problem(response: Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return response.status_code, response.json()["code"]


def claims_of(answer: JSON) -> JSON:
    """What the access token of an answer says."""
    claims: JSON = json.loads(jws.extract_compact(answer["access_token"].encode()).payload)
    return claims


def events(query: Query, event: str) -> list[tuple[str, str | None]]:
    """Outcome and reason of every such event."""
    rows = query("SELECT outcome, reason FROM audit_events WHERE event = %(event)s ORDER BY id", event=event)
    return [(row["outcome"], row["reason"]) for row in rows]

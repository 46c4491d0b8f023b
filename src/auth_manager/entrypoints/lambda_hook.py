"""The Lambda function that CodeDeploy asks before a new version of the API gets traffic.

It lives through what a person does, against the new version itself and not through the API: register, log
in, refresh, read, log out, log in again to delete. One answer that is not as expected, and the deployment is
undone.

Where addresses must be verified first, nobody new can log in. Then it checks readiness, the published keys
and that a registration is accepted; that user is left behind, as one that never verified its address. Where
everybody must have a second factor, it also checks that a login asks for one; that user is left behind too.
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from auth_manager import observability
from auth_manager.aws.deployments import Status, invoke_function, report_hook
from auth_manager.ids import new_id
from auth_manager.settings import load_settings

ADDRESS = "192.0.2.1"
"""Of the rehearsal, from a network for documentation (RFC 5737): no client shares its limits."""

Invoke = Callable[[object], object]


class Unexpected(Exception):
    """The new version did not answer as it must; the text says where, without what was sent or answered."""


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Rehearse against AUTH_HOOK_TARGET and report to CodeDeploy.

    Raises:
        ServiceUnavailable: CodeDeploy did not take the report.
    """
    observability.configure_logging(load_settings())
    target = os.environ.get("AUTH_HOOK_TARGET", "")
    status: Status = "Failed"
    steps: list[str] = []
    failure = None
    try:
        if not target:
            raise Unexpected("AUTH_HOOK_TARGET is not set")  # noqa: TRY301 -- reported like any other
        rehearse(lambda request: invoke_function(target, request), steps)
        status = "Succeeded"
    except Exception as error:  # noqa: BLE001 -- whatever it is, CodeDeploy must hear of it
        failure = str(error) if isinstance(error, Unexpected) else type(error).__name__
    observability.log_event("rehearsed", status=status, steps=steps, failure=failure)
    report_hook(event["DeploymentId"], event["LifecycleEventHookExecutionId"], status)
    return {"status": status, "steps": steps, "failure": failure}


def rehearse(invoke: Invoke, steps: list[str]) -> None:
    """Call the API as a person does; add each step that went well to `steps`.

    Raises:
        Unexpected: an answer has another status or shape than it must have.
        Exception: what `invoke` raises.
    """
    api = _Api(invoke, steps)
    api.call("ready", "GET", "/health/ready", 200)
    if not api.call("jwks", "GET", "/.well-known/jwks.json", 200).get("keys"):
        raise Unexpected("jwks: no keys")
    # The mailbox simulator of Amazon SES: what the registration mails there neither bounces nor counts.
    email = f"success+canary-{new_id()}@simulator.amazonses.com"
    person = {"email": email, "password": secrets.token_urlsafe(24)}
    if api.call("register", "POST", "/auth/register", 201, 202, body=person).get("id") is None:
        steps.append("addresses must be verified: no login")
        return
    tokens = api.call("login", "POST", "/auth/login", 200, 403, body=person)
    if tokens.get("code") == "mfa_enrolment_required":
        steps.append("a second factor must be set up: no login")
        return
    if "access_token" not in tokens:
        raise Unexpected("login: 403")
    try:
        refresh = {"refresh_token": tokens.get("refresh_token")}
        tokens = api.call("refresh", "POST", "/auth/refresh", 200, body=refresh)
        if api.call("me", "GET", "/auth/me", 200, tokens=tokens).get("email") != email:
            raise Unexpected("me: somebody else")
        api.call("logout", "POST", "/auth/logout", 204, tokens=tokens)
        api.call("logged out", "GET", "/auth/me", 401, tokens=tokens)
    finally:
        tokens = api.call("login to delete", "POST", "/auth/login", 200, body=person)
        api.call("delete", "DELETE", "/auth/me", 204, tokens=tokens)


class _Api:
    """The new version, as API Gateway would call it."""

    def __init__(self, invoke: Invoke, steps: list[str]) -> None:
        self._invoke = invoke
        self._steps = steps

    def call(
        self,
        step: str,
        method: str,
        path: str,
        *expected: int,
        body: Mapping[str, object] | None = None,
        tokens: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object of an answer with an expected status, empty for an empty body."""
        headers = {"content-type": "application/json", "user-agent": "auth-manager pre-traffic hook"}
        if tokens is not None:
            headers["authorization"] = f"Bearer {tokens.get('access_token')}"
        answer = self._invoke(
            {
                "version": "2.0",
                "rawQueryString": "",
                "headers": headers,
                "requestContext": {
                    "http": {"method": method, "path": path, "sourceIp": ADDRESS},
                    "requestId": f"hook-{new_id()}",
                },
                "body": json.dumps(body) if body is not None else None,
                "isBase64Encoded": False,
            }
        )
        status = answer.get("statusCode") if isinstance(answer, dict) else None
        if not isinstance(answer, dict) or status not in expected:
            raise Unexpected(f"{step}: {status or 'no answer'}")
        try:
            content = json.loads(answer.get("body") or "{}")
        except (ValueError, TypeError):
            raise Unexpected(f"{step}: no JSON") from None
        if not isinstance(content, dict):
            raise Unexpected(f"{step}: no JSON object")
        self._steps.append(step)
        return content

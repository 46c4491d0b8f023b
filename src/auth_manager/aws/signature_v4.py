"""Requests to AWS, signed with Signature Version 4 and sent over http.client.

Only for what a cold start or a new connection waits for: importing boto3 and building one client costs as
much as FastAPI, this an eighth of it (docs/decisions/0012-secrets-at-cold-start.md). Everything else uses
boto3. tests/aws/test_signature_v4.py holds every signature against botocore's own.

Source: AWS General Reference, "Signing AWS API requests".
"""

import hashlib
import hmac
import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from auth_manager.spending import spending

_ALGORITHM = "AWS4-HMAC-SHA256"
_CREDENTIALS_TIMEOUT = 1.0
"""Seconds for an answer of the sandbox itself."""

_EMPTY_BODY = hashlib.sha256(b"").hexdigest()


class AwsRefused(Exception):
    """AWS answered with an error, or not at all; `code` is its name for it, "" without an answer.

    `message` is its own sentence, which may quote what was sent: to look into, not to log.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a Lambda sandbox signs with."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def environment_credentials() -> Credentials | None:
    """Return the credentials of the environment, None where they come from elsewhere (a profile, a role).

    Under SnapStart the environment is as old as the snapshot. It has the address in the sandbox that gives
    the credentials of now, which are asked for each time.
    """
    access_key = os.environ.get("AWS_ACCESS_KEY_ID")
    secret_key = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return _sandbox_credentials()
    return Credentials(access_key, secret_key, os.environ.get("AWS_SESSION_TOKEN") or None)


def _sandbox_credentials() -> Credentials | None:
    """Ask where AWS_CONTAINER_CREDENTIALS_FULL_URI says, on loopback alone: boto3 knows the other places."""
    uri = urlsplit(os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", ""))
    try:
        if uri.scheme != "http" or not ip_address(uri.hostname or "").is_loopback:
            return None
    except ValueError:
        return None
    connection = http.client.HTTPConnection(uri.netloc, timeout=_CREDENTIALS_TIMEOUT)
    try:
        token = os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        path = uri._replace(scheme="", netloc="").geturl()
        connection.request("GET", path, headers={"authorization": token})
        found = json.loads(connection.getresponse().read())
        return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def call_json(
    service: str,
    target: str,
    payload: Mapping[str, object],
    *,
    region: str,
    credentials: Credentials,
    now: datetime,
    timeout: float,
    version: Literal["1.0", "1.1"] = "1.1",
) -> dict[str, Any]:
    """POST one action of a JSON protocol service; AWS_ENDPOINT_URL is honoured.

    Args:
        service: its endpoint prefix, which is also its signing name.
        target: the X-Amz-Target.
        payload: the action's input.
        region: of the endpoint and the signature.
        credentials: who signs.
        now: the time of the signature.
        timeout: seconds to connect, and again for each read.
        version: of the service's JSON protocol.

    Raises:
        AwsRefused: with AWS's code; "" when there was no answer.
    """
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or f"https://{service}.{region}.{suffix}")
    body = json.dumps(payload).encode()
    headers = sign_headers(
        host=endpoint.netloc,
        headers={"content-type": f"application/x-amz-json-{version}", "x-amz-target": target},
        body=body,
        service=service,
        region=region,
        credentials=credentials,
        now=now,
    )
    secure = endpoint.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(endpoint.netloc, timeout=timeout)
    try:
        with spending("aws_calls"):
            connection.request("POST", "/", body=body, headers=headers)
            answer = connection.getresponse()
            content = json.loads(answer.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AwsRefused("") from error
    finally:
        connection.close()
    result: dict[str, Any] = content if isinstance(content, dict) else {}
    if answer.status != http.client.OK:
        code = str(result.get("__type", answer.status)).rpartition("#")[2]
        raise AwsRefused(code, str(result.get("message", "")))
    return result


def sign_headers(
    *,
    host: str,
    headers: Mapping[str, str],
    body: bytes,
    service: str,
    region: str,
    credentials: Credentials,
    now: datetime,
) -> dict[str, str]:
    """Return the headers of a POST to / with its signature; header names are lower case."""
    signed = {**headers, "host": host, "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}"}
    if credentials.session_token:
        signed["x-amz-security-token"] = credentials.session_token
    names = sorted(signed)
    canonical = "\n".join(
        ["POST", "/", "", *(f"{name}:{signed[name].strip()}" for name in names), "", ";".join(names)]
    )
    scope = _scope(now, region, service)
    signature = _sign(f"{canonical}\n{hashlib.sha256(body).hexdigest()}", scope, credentials, now)
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return signed


def rds_token(
    *, host: str, port: int, user: str, region: str, credentials: Credentials, now: datetime
) -> str:
    """Return a database password for IAM authentication, valid for 15 minutes from `now`."""
    scope = _scope(now, region, "rds-db")
    query = {
        "Action": "connect",
        "DBUser": user,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": "900",
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token:
        query["X-Amz-Security-Token"] = credentials.session_token
    encoded = "&".join(f"{name}={quote(query[name], safe='-_.~')}" for name in sorted(query))
    canonical = f"GET\n/\n{encoded}\nhost:{host}:{port}\n\nhost\n{_EMPTY_BODY}"
    signature = _sign(canonical, scope, credentials, now)
    return f"{host}:{port}/?{encoded}&X-Amz-Signature={signature}"


def _scope(now: datetime, region: str, service: str) -> str:
    return f"{now:%Y%m%d}/{region}/{service}/aws4_request"


def _sign(canonical: str, scope: str, credentials: Credentials, now: datetime) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"{_ALGORITHM}\n{now:%Y%m%dT%H%M%SZ}\n{scope}\n{digest}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

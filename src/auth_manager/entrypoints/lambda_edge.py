"""Which requests of API Gateway are let in, and whose they are.

The HTTP API has a public address that no firewall guards. CloudFront (infra/edge.yaml) adds a header that
nobody else knows: where AUTH_ORIGIN_SECRET_ARN names that secret, a request without it is refused, whatever
its path, and the address of a client is the one that CloudFront saw. Without the setting, everybody is let in
and the address is API Gateway's: no header is believed.

What has no `requestContext.apiId` did not come by API Gateway, which always adds it, but from somebody who
may invoke the function (lambda:InvokeFunction): the hook before traffic, an operator.
"""

import hmac
import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from auth_manager.aws.secrets import fetch_previous_secret, fetch_secret
from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError, OriginRefused
from auth_manager.observability import log_event
from auth_manager.settings import MINIMUM_SECRET_BYTES, Settings

SECRET_HEADER = "x-origin-secret"  # noqa: S105 -- its name
VIEWER_HEADER = "cloudfront-viewer-address"


class Edge:
    """Lets requests in: those that show a secret of now or of before, or everybody where there is none."""

    def __init__(self, secrets: CachedSecret[tuple[bytes, ...]] | None) -> None:
        self._secrets = secrets

    def admit(self, event: dict[str, Any], *, by_gateway: bool) -> dict[str, Any]:
        """Return a checked event without the edge's headers, and with the viewer's address if it is known.

        Raises:
            OriginRefused: it should have come through the edge, and did not.
        """
        headers = dict(event["headers"])
        presented, viewer = headers.pop(SECRET_HEADER, ""), headers.pop(VIEWER_HEADER, "")
        context = event["requestContext"]
        if self._secrets is not None and by_gateway:
            if not self._is_known(presented.encode(), self._secrets):
                log_event("origin_refused", address=context["http"]["sourceIp"])
                raise OriginRefused
            address = viewer_address(viewer) or context["http"]["sourceIp"]
            context = {**context, "http": {**context["http"], "sourceIp": address}}
        return {**event, "headers": headers, "requestContext": context}

    def _is_known(self, presented: bytes, secrets: CachedSecret[tuple[bytes, ...]]) -> bool:
        """Compare; what CloudFront may have been given since is asked for, as rarely as a forger deserves."""
        if not presented:
            return False
        return _is_one_of(presented, secrets.get()) or _is_one_of(presented, secrets.refresh())


def open_edge(settings: Settings) -> Edge:
    """Read the secret in its current and its previous version, if there is one at all.

    Raises:
        ConfigurationError: it is none.
        ServiceUnavailable: it cannot be fetched now.
    """
    arn = settings.origin_secret_arn
    if not arn:
        return Edge(None)

    def fetch() -> str:
        return json.dumps([fetch_secret(arn), fetch_previous_secret(arn)])

    return Edge(CachedSecret(fetch, read_secrets))


def read_secrets(versions: str) -> tuple[bytes, ...]:
    """Return the secrets of a JSON list of versions, the current one first; a previous one may be any text.

    Raises:
        ConfigurationError: the current one is not {"value": "..."} of 32 bytes and more; never with it.
    """
    current, previous = (_value(text) for text in json.loads(versions))
    if current is None:
        raise ConfigurationError(
            f'AUTH_ORIGIN_SECRET_ARN: not {{"value": "..."}} of at least {MINIMUM_SECRET_BYTES} bytes'
        )
    return (current,) if previous is None else (current, previous)


def viewer_address(header: str) -> str | None:
    """Return the address in `198.51.100.7:46532` or `2001:db8::7:46532`, and None for anything else."""
    host, _, port = header.rpartition(":")
    try:
        return str(ip_address(host)) if port.isdecimal() else None
    except ValueError:
        return None


def _value(text: str | None) -> bytes | None:
    try:
        members = json.loads(text or "")
    except ValueError:
        return None
    value = members.get("value") if isinstance(members, Mapping) else None
    secret = value.encode() if isinstance(value, str) else b""
    return secret if len(secret) >= MINIMUM_SECRET_BYTES else None


def _is_one_of(presented: bytes, secrets: tuple[bytes, ...]) -> bool:
    return any(hmac.compare_digest(presented, secret) for secret in secrets)

"""Everything we sign: access tokens for everybody, refresh tokens and list cursors for ourselves alone.

An access token is a JWT (RFC 9068), signed with a private key so that others can verify it. We are its only
issuer and write one header for each key, so the verifier looks the header up instead of interpreting it: the
algorithm, the key and the type are ours or the token is refused, and no JSON is parsed before its signature
is verified. That is RFC 8725 sections 3.1, 3.2, 3.10, 3.11 and 3.12 in one step.

Refresh tokens and cursors never leave our own API: they carry an HMAC (secret_keys.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

from jwt.api_jws import PyJWS

from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import (
    FieldError,
    InvalidFields,
    InvalidRefreshToken,
    InvalidToken,
)
from auth_manager.secret_keys import SecretKeys
from auth_manager.signing_keys import Algorithm, KeySet, SigningKey, decode_base64url, encode_base64url

ACCESS_TOKEN_TYPE = "at+jwt"  # noqa: S105 -- a media type (RFC 9068 section 2.1)

MAXIMUM_TOKEN_LENGTH = 8192
"""Characters; refused before anything is decoded."""

LEEWAY = 60
"""Seconds by which the clocks of issuer and verifier may differ."""

MAXIMUM_CURSOR_LENGTH = 1024

_LAST_SECOND = 253_402_300_799  # the end of year 9999, the last that datetime can hold
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a verified access token says. It says nothing of the session having ended since: ask by `sid`."""

    sub: UUID
    sid: UUID
    jti: str
    client_id: str
    scope: str
    roles: tuple[str, ...]
    auth_time: datetime
    amr: tuple[str, ...]
    acr: str
    expires_at: datetime
    act: UUID | None = None
    """Who acts for the account's owner: an administrator."""


@dataclass(frozen=True, slots=True)
class IssuedAccessToken:
    """A new access token, and the seconds for which it is valid."""

    token: str = field(repr=False)
    expires_in: int


class AccessTokens:
    """Issues and verifies access tokens: with one set of keys, verifying costs one signature check.

    Args:
        keys: the current key signs, all verify; a secret's are followed as they rotate.
        issuer: the exact `iss`.
        audience: the exact `aud`.
    """

    def __init__(self, keys: KeySet | CachedSecret[KeySet], *, issuer: str, audience: str) -> None:
        self._keys = CachedSecret[KeySet].fixed(keys) if isinstance(keys, KeySet) else keys
        self._prepared = _PreparedKeys(self._keys.get())
        self._jws = PyJWS(algorithms=get_args(Algorithm))
        self._issuer = issuer
        self._audience = audience

    def issue(
        self,
        *,
        account_id: UUID,
        session_id: UUID,
        token_id: UUID,
        client_id: str,
        scope: str,
        roles: Sequence[str],
        authenticated_at: datetime,
        amr: Sequence[str],
        acr: str,
        now: datetime,
        lifetime: timedelta,
        permissions: Sequence[str] | None = None,
        custom: Mapping[str, Any] | None = None,
        act: UUID | None = None,
    ) -> IssuedAccessToken:
        """Sign an access token (RFC 9068 section 2.2). Times are cut to whole seconds, never rounded up.

        Without `permissions` it does not say them; no claim of `custom` replaces one of ours; `act` is who
        acts for the account's owner (RFC 8693 section 4.1).
        """
        issued_at, expires_in = int(now.timestamp()), int(lifetime.total_seconds())
        claims: dict[str, Any] = {
            **(custom or {}),
            "iss": self._issuer,
            "sub": str(account_id),
            "aud": self._audience,
            "client_id": client_id,
            "iat": issued_at,
            "exp": issued_at + expires_in,
            "jti": str(token_id),
            "sid": str(session_id),
            "auth_time": int(authenticated_at.timestamp()),
            "amr": list(amr),
            "acr": acr,
            "scope": scope,
            "roles": list(roles),
        }
        if permissions is not None:
            claims["permissions"] = list(permissions)
        if act is not None:
            claims["act"] = {"sub": str(act)}
        current = self._prepare(self._keys.get()).current
        if current.private_key is None:
            raise ValueError("the current key only verifies")
        token = self._jws.encode(
            json.dumps(claims, separators=(",", ":")).encode(),
            current.private_key,
            algorithm=current.algorithm,
            headers=_header(current),
            sort_headers=True,
        )
        return IssuedAccessToken(token, expires_in)

    def verify(self, token: str, *, now: datetime) -> AccessClaims:
        """Return what an access token of ours says.

        Raises:
            InvalidToken: for every reason alike, so that a forger learns nothing.
        """
        if len(token) > MAXIMUM_TOKEN_LENGTH or token.count(".") != 2:  # noqa: PLR2004 -- RFC 7515 section 3.1
            raise InvalidToken
        header, payload, signature = token.split(".")
        key = self._find_key(header)
        if key is None:
            raise InvalidToken
        try:
            content, mark = decode_base64url(payload), decode_base64url(signature)
        except ValueError:
            raise InvalidToken from None
        # PyJWT's own decode() would look at each character in Python, and parse the header that we know.
        if not key.verifies(f"{header}.{payload}".encode(), mark):
            raise InvalidToken
        return self._read_claims(_parse_claims(content), now.timestamp())

    def _find_key(self, header: str) -> SigningKey | None:
        """Look a header up; one of our form with a kid that is not known may be of a younger set of keys."""
        known = self._prepare(self._keys.get()).by_header
        key = known.get(header)
        if key is None and len(header) in {len(ours) for ours in known}:
            key = self._prepare(self._keys.refresh()).by_header.get(header)
        return key

    def _prepare(self, key_set: KeySet) -> "_PreparedKeys":
        """Return the tables of a key set, made once for each; threads that meet here make the same."""
        prepared = self._prepared
        if prepared.key_set is not key_set:
            prepared = self._prepared = _PreparedKeys(key_set)
        return prepared

    def _read_claims(self, claims: dict[str, object], now: float) -> AccessClaims:
        """Check what RFC 9068 section 4 demands, with types as strict as `issue` writes them."""
        if _text(claims, "iss") != self._issuer:
            raise InvalidToken
        if _text(claims, "aud") != self._audience:
            raise InvalidToken
        expires, issued = _time(claims, "exp"), _time(claims, "iat")
        not_before = _time(claims, "nbf") if "nbf" in claims else issued
        if now >= expires + LEEWAY:
            raise InvalidToken
        if max(issued, not_before) > now + LEEWAY:
            raise InvalidToken
        return AccessClaims(
            sub=_uuid(claims, "sub"),
            sid=_uuid(claims, "sid"),
            jti=_text(claims, "jti"),
            client_id=_text(claims, "client_id"),
            scope=_text(claims, "scope"),
            roles=_texts(claims, "roles"),
            auth_time=datetime.fromtimestamp(_time(claims, "auth_time"), UTC),
            amr=_texts(claims, "amr"),
            acr=_text(claims, "acr"),
            expires_at=datetime.fromtimestamp(expires, UTC),
            act=_actor(claims),
        )


class _PreparedKeys:
    """A key set as issuing and verifying need it."""

    def __init__(self, key_set: KeySet) -> None:
        self.key_set = key_set
        self.current = key_set.current
        self.by_header = {_encode_header(key): key for key in key_set.keys}


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Which line of rotations a refresh token belongs to, and where on it."""

    line_id: UUID
    counter: int


class RefreshTokens:
    """Refresh tokens: an HMAC over line and counter, so that storing the counter is enough.

    A token is `rt_` and the base64url of version (1 byte), line (16), counter (8, big-endian) and
    HMAC-SHA256 (32): 57 bytes, so that no character has spare bits and each token has exactly one text.
    """

    _PURPOSE = "refresh token"
    _PREFIX = "rt_"
    _VERSION = b"\x01"
    _LENGTH = 79

    def __init__(self, secret_keys: SecretKeys) -> None:
        self._secret_keys = secret_keys

    def issue(self, line_id: UUID, counter: int) -> str:
        """Return the one token of this line and counter: a retry gets the same text."""
        content = self._VERSION + line_id.bytes + counter.to_bytes(8)
        mac = self._secret_keys.sign(self._PURPOSE, content)
        return self._PREFIX + encode_base64url(content + mac)

    def parse(self, token: str) -> RefreshToken:
        """Return what a refresh token of ours says.

        Raises:
            InvalidRefreshToken: it is not one of ours. Whether it is still the latest is for the caller.
        """
        if len(token) != self._LENGTH or not token.startswith(self._PREFIX):
            raise InvalidRefreshToken
        try:
            sealed = decode_base64url(token.removeprefix(self._PREFIX))
        except ValueError:
            raise InvalidRefreshToken from None
        content, mac = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
        authentic = self._secret_keys.verifies(self._PURPOSE, content, mac)
        if not authentic or not content.startswith(self._VERSION):
            raise InvalidRefreshToken
        return RefreshToken(UUID(bytes=content[1:17]), int.from_bytes(content[17:]))


class Cursors:
    """Opaque list positions that only work where they were handed out. Signed, not encrypted."""

    _PURPOSE = "list cursor"

    def __init__(self, secret_keys: SecretKeys) -> None:
        self._secret_keys = secret_keys

    def seal(self, position: bytes, *, context: str) -> str:
        """Return a cursor for `position` in the list that `context` names, as in `sessions:<account id>`."""
        mac = self._secret_keys.sign(self._PURPOSE, _with_context(position, context))
        return encode_base64url(mac + position)

    def open(self, cursor: str, *, context: str) -> bytes:
        """Return the position in a cursor that was sealed for the same context.

        Raises:
            InvalidFields: it was not, with `?cursor` as the field.
        """
        if len(cursor) > MAXIMUM_CURSOR_LENGTH:
            raise _invalid_cursor()
        try:
            sealed = decode_base64url(cursor)
        except ValueError:
            raise _invalid_cursor() from None
        mac, position = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        if not self._secret_keys.verifies(self._PURPOSE, _with_context(position, context), mac):
            raise _invalid_cursor()
        return position


def _header(key: SigningKey) -> dict[str, str]:
    return {"alg": key.algorithm, "kid": key.kid, "typ": ACCESS_TOKEN_TYPE}


def _encode_header(key: SigningKey) -> str:
    """Return the one encoding of the header that we write, and so the one that we accept."""
    return encode_base64url(json.dumps(_header(key), separators=(",", ":")).encode())


def _parse_claims(content: bytes) -> dict[str, object]:
    """Parse the JSON object of a payload; each claim once (RFC 7519 section 4)."""
    try:
        claims = json.loads(content.decode(), object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError):
        raise InvalidToken from None
    if not isinstance(claims, dict):
        raise InvalidToken
    return claims


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _text(claims: dict[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise InvalidToken
    return value


def _texts(claims: dict[str, object], name: str) -> tuple[str, ...]:
    values = claims.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidToken
    return tuple(values)


def _uuid(claims: dict[str, object], name: str) -> UUID:
    text = _text(claims, name)
    try:
        value = UUID(text)
    except ValueError:
        raise InvalidToken from None
    if str(value) != text:  # UUID() also reads braces, urn:uuid: and capitals
        raise InvalidToken
    return value


def _actor(claims: dict[str, object]) -> UUID | None:
    """Return who acts (RFC 8693 section 4.1): an object with `sub` alone, as `issue` writes it."""
    if "act" not in claims:
        return None
    actor = claims["act"]
    if not isinstance(actor, dict) or actor.keys() != {"sub"}:
        raise InvalidToken
    return _uuid(actor, "sub")


def _time(claims: dict[str, object], name: str) -> int:
    """Seconds since 1970: an integer, which neither `true` nor `1e999` nor NaN is."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise InvalidToken
    return value


def _with_context(position: bytes, context: str) -> bytes:
    """Put the context before the position, with its length, so that no two pairs give the same bytes."""
    name = context.encode()
    return len(name).to_bytes(4) + name + position


def _invalid_cursor() -> InvalidFields:
    error = FieldError("?cursor", "invalid_cursor", "Use the next_cursor of the page before, unchanged.")
    return InvalidFields(errors=[error])

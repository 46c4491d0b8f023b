"""Rotating the signing keys: next becomes current, current becomes previous, a new key is published as next.

A key signs only after it was published for PUBLICATION, longer than any verifier keeps a JWK set (an HTTP
API's JWT authorizer keeps it up to two hours), and stays published until the last token that it may have
signed has expired. So no token ever meets a verifier that has not its key.

AWS Secrets Manager calls the four steps of `rotate` (its documentation, "Rotation by Lambda function"). Each
can be repeated. The set in use changes in the last step alone, at once and only if it is still the one that
the new set was made from; a crash before that leaves it as it was.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from auth_manager.errors import ConfigurationError
from auth_manager.signing_keys import (
    Algorithm,
    KeySet,
    State,
    generate_signing_key,
    parse_key_set,
    serialize_key_set,
)

PUBLICATION = timedelta(hours=2)
"""How long a key is published before it signs and, at least, after it was replaced."""

SLACK = timedelta(minutes=10)
"""For how long after that a key may still sign, where an old set is cached, and how far clocks may differ."""

SINCE = "since"
"""Private JWK member (RFC 7517 section 4): when the key came into its state, in Unix seconds."""

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi"})

Step = Literal["createSecret", "setSecret", "testSecret", "finishSecret"]
Jwk = dict[str, Any]


class RotationTooSoon(Exception):
    """The next key was not published for long enough to sign. Rotate again later; nothing changed."""


class RotationOutOfOrder(Exception):
    """A step came before the one it needs, or another rotation came between. Nothing changed."""


@dataclass(frozen=True, slots=True)
class SecretVersions:
    """What a rotation does with one secret in Secrets Manager.

    `stages` returns the staging labels of each version by its id; `read` the text of a version, None when it
    has none yet; `write` stores a version as AWSPENDING; `promote(new, old)` moves AWSCURRENT, and fails when
    `old` does not have it any more.
    """

    stages: Callable[[], Mapping[str, frozenset[str]]]
    read: Callable[[str], str | None]
    write: Callable[[str, str], None]
    promote: Callable[[str, str], None]


def rotate(
    step: Step,
    token: str,
    versions: SecretVersions,
    *,
    algorithm: Algorithm,
    token_lifetime: timedelta,
    now: datetime,
    replace_all: bool = False,
) -> None:
    """Take one step of a rotation.

    Args:
        step: which.
        token: the id of the new version.
        versions: of the secret with the JWK set.
        algorithm: of the keys to make.
        token_lifetime: of access tokens.
        now: the current time.
        replace_all: the secret leaked: make a set that has none of its keys, to be used at once.

    Raises:
        RotationTooSoon: by createSecret, see `advance`.
        RotationOutOfOrder: createSecret did not come first, or the current set was changed since.
        ConfigurationError: a set that is no set, or that does not work.
    """
    stages = versions.stages()
    if "AWSCURRENT" in stages.get(token, frozenset()):
        return  # finished before, and called again
    current = next((version for version, labels in stages.items() if "AWSCURRENT" in labels), None)
    if current is None:
        raise RotationOutOfOrder("the secret has no current version: put a key set into it first")
    text = versions.read(current) or ""
    pending = versions.read(token) if token in stages else None
    if step == "createSecret":
        if pending is None:
            made = renew(algorithm, now) if replace_all else None
            versions.write(
                token,
                made or advance(text, algorithm=algorithm, now=now, token_lifetime=token_lifetime),
            )
        return
    if pending is None or "AWSPENDING" not in stages[token]:
        raise RotationOutOfOrder(f"{step} needs the pending version that createSecret makes")
    if step == "setSecret":
        return  # there is no other system to tell
    check(text, pending, algorithm=algorithm, now=now, token_lifetime=token_lifetime, replace_all=replace_all)
    if step == "finishSecret":
        versions.promote(token, current)


def advance(text: str, *, algorithm: Algorithm, now: datetime, token_lifetime: timedelta) -> str:
    """Return the key set that follows `text`.

    A set without a next key, or with one that nobody dated, only gets one: nothing signs that was not
    published. A previous key loses its private half, and goes when the last token it may have signed is old.

    Raises:
        RotationTooSoon: the next key is younger than PUBLICATION.
        ConfigurationError: `text` is no key set that works.
    """
    _parse(text, algorithm)
    keys = _jwks(text)
    following = next((key for key in keys if key["state"] == "next"), None)
    fresh = generate_signing_key(algorithm, "next") | {SINCE: int(now.timestamp())}
    if following is None or "d" not in following:
        # A public half cannot sign; it stays published no longer than it was needed for that.
        return serialize_key_set([fresh, *(key for key in keys if key is not following)])
    if SINCE not in following:
        return serialize_key_set([_enter(key, "next", now) if key is following else key for key in keys])
    published = _age(following, now)
    if published < PUBLICATION:
        raise RotationTooSoon(f"the next key can sign in {PUBLICATION - published}")
    advanced = [fresh]
    for key in keys:
        if key is following:
            advanced.append(_enter(key, "current", now))
        elif key["state"] == "current":
            advanced.append(_enter(_public(key), "previous", now))
        elif not _is_over(key, now, token_lifetime):
            advanced.append(_public(key))
    return serialize_key_set(advanced)


def renew(algorithm: Algorithm, now: datetime) -> str:
    """Return a set of two new keys, for when the old ones are in wrong hands."""
    states: tuple[State, State] = ("next", "current")
    return serialize_key_set(
        generate_signing_key(algorithm, state) | {SINCE: int(now.timestamp())} for state in states
    )


def check(
    text: str,
    pending: str,
    *,
    algorithm: Algorithm,
    now: datetime,
    token_lifetime: timedelta,
    replace_all: bool = False,
) -> None:
    """Check that the pending set works, and may follow the one in use.

    Raises:
        ConfigurationError: it cannot sign, or its key does not verify what it signs.
        RotationOutOfOrder: it was made from another set than the one in use.
    """
    after = _parse(pending, algorithm)
    if not after.current.works():
        raise ConfigurationError("the new current key does not verify what it signs")
    if replace_all:
        return
    before = _parse(text, algorithm)
    may_sign = {key.kid for key in before.keys if key.state in {"current", "next"}}
    over = {
        key.kid
        for key, jwk in zip(before.keys, _jwks(text), strict=True)
        if key.state == "previous" and _is_over(jwk, now, token_lifetime)
    }
    unused = {key.kid for key in before.keys if key.state == "next"} - {after.current.kid}
    missing = {key.kid for key in before.keys} - over - unused - {key.kid for key in after.keys}
    if after.current.kid not in may_sign or missing:
        raise RotationOutOfOrder("the keys in use were changed since this rotation began: rotate again")


def _parse(text: str, algorithm: Algorithm) -> KeySet:
    try:
        return parse_key_set(text, algorithm=algorithm, local=False)
    except ConfigurationError as error:
        raise ConfigurationError(f"the secret of the signing keys: {error}") from None


def _jwks(text: str) -> list[Jwk]:
    """Return the members of a set that `_parse` took, each with its state."""
    try:
        keys: list[Jwk] = json.loads(text)["keys"]
    except ValueError:
        raise ConfigurationError("only a JWK set can be rotated: convert the PEM key first") from None
    return [{"state": "current", **key} for key in keys]


def _enter(key: Jwk, state: State, now: datetime) -> Jwk:
    return {**key, "state": state, SINCE: int(now.timestamp())}


def _public(key: Jwk) -> Jwk:
    return {member: value for member, value in key.items() if member not in _PRIVATE_MEMBERS}


def _age(key: Jwk, now: datetime) -> timedelta:
    return now - datetime.fromtimestamp(int(key[SINCE]), UTC)


def _is_over(key: Jwk, now: datetime, token_lifetime: timedelta) -> bool:
    """Tell whether every token of a previous key has expired; a key without a date is an old one."""
    return SINCE not in key or _age(key, now) >= max(PUBLICATION, token_lifetime + SLACK)

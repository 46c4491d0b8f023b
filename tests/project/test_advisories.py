"""One case for each known advisory of a peer that must not repeat here (docs/security.md lists them)."""

import base64
import hashlib
import hmac
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth_manager.errors import ConfigurationError, InvalidToken
from auth_manager.signing_keys import (
    Algorithm,
    KeySet,
    SigningKey,
    generate_signing_key,
    parse_key_set,
    serialize_key_set,
)
from auth_manager.tokens import AccessTokens

ISSUER = "https://auth.example.com"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def key_set() -> KeySet:
    """RS256 is current; ES256 was, and still verifies."""
    retired = generate_signing_key("ES256", "previous")
    jwks = serialize_key_set([generate_signing_key("RS256"), retired])
    return parse_key_set(jwks, algorithm="RS256", local=False)


@pytest.fixture(scope="module")
def tokens(key_set: KeySet) -> AccessTokens:
    return AccessTokens(key_set, issuer=ISSUER, audience="auth-manager")


@pytest.fixture(scope="module")
def claims(tokens: AccessTokens) -> dict[str, object]:
    """The claims of a good token, for an attacker to change one thing about it."""
    issued = tokens.issue(
        account_id=UUID(int=1),
        session_id=UUID(int=2),
        token_id=UUID(int=3),
        client_id="web",
        scope="account",
        roles=[],
        authenticated_at=NOW,
        amr=["pwd"],
        acr="1",
        now=NOW,
        lifetime=timedelta(minutes=15),
    )
    payload = issued.token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


def forge(header: dict[str, object], claims: object, sign: Callable[[bytes], bytes]) -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, claims)]
    message = ".".join(map(encode, parts))
    return f"{message}.{encode(sign(message.encode()))}"


def header_of(key: SigningKey, **members: object) -> dict[str, object]:
    return {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt", **members}


def is_refused(tokens: AccessTokens, token: str) -> bool:
    with pytest.raises(InvalidToken):
        tokens.verify(token, now=NOW)
    return True


class TestAccessTokens:
    """Advisories of PyJWT, Authlib and joserfc, replayed against our own verifier."""

    def test_the_forger_can_forge(
        self, tokens: AccessTokens, key_set: KeySet, claims: dict[str, object]
    ) -> None:
        """With the right key in hand its tokens pass, so each refusal below has the reason it names."""
        token = forge(header_of(key_set.current), claims, key_set.current.sign)

        assert tokens.verify(token, now=NOW).sid == UUID(int=2)

    def test_pyjwt_cve_2022_29217(
        self, tokens: AccessTokens, key_set: KeySet, claims: dict[str, object]
    ) -> None:
        """PyJWT took an OpenSSH public key for an HMAC secret: HS256 signed with what is public."""
        for key in key_set.keys:
            encodings = [
                (Encoding.OpenSSH, PublicFormat.OpenSSH),
                (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
                (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            ]
            for secret in [key.public_key.public_bytes(*encoding) for encoding in encodings]:

                def sign(message: bytes, secret: bytes = secret) -> bytes:
                    return hmac.new(secret, message, hashlib.sha256).digest()

                assert is_refused(tokens, forge(header_of(key, alg="HS256"), claims, sign))
                assert is_refused(tokens, forge(header_of(key), claims, sign))

    def test_a_symmetric_key_cannot_even_be_configured(self) -> None:
        secret = {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75"}
        algorithm: Algorithm
        for algorithm in ("RS256", "ES256"):
            with pytest.raises(ConfigurationError, match="symmetric"):
                parse_key_set(json.dumps({"keys": [secret]}), algorithm=algorithm, local=False)

    @pytest.mark.parametrize(
        "issuer", ["", "h", "https", "https://auth.example.co", "auth.example.com", "://"]
    )
    def test_pyjwt_ghsa_75c5_xw7c_p5pm(
        self, tokens: AccessTokens, key_set: KeySet, claims: dict[str, object], issuer: str
    ) -> None:
        """PyJWT 2.10.0 looked for `iss` inside the expected issuer: any part of it passed."""
        token = forge(header_of(key_set.current), {**claims, "iss": issuer}, key_set.current.sign)

        assert is_refused(tokens, token)

    @pytest.mark.parametrize(
        "members",
        [
            {"crit": ["x-unknown"], "x-unknown": "must be understood"},
            {"crit": ["b64"], "b64": False},
            {"crit": ["cnf"], "cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
            {"crit": []},
        ],
        ids=str,
    )
    def test_pyjwt_cve_2026_32597(
        self,
        tokens: AccessTokens,
        key_set: KeySet,
        claims: dict[str, object],
        members: dict[str, object],
    ) -> None:
        """PyJWT ignored `crit`, which lists what a verifier must understand or refuse (RFC 7515 4.1.11)."""
        token = forge(header_of(key_set.current, **members), claims, key_set.current.sign)

        assert is_refused(tokens, token)

    def test_pyjwt_cve_2026_48523(
        self, tokens: AccessTokens, key_set: KeySet, claims: dict[str, object]
    ) -> None:
        """PyJWT held the header's `alg` against the allowed list, then verified with the key's own algorithm.

        So the holder of a known key could sign with a refused algorithm and name an allowed one. Here both
        are one: the algorithm of the key is the only one that its header may name.
        """
        rs256, es256 = key_set.keys
        private = rs256.private_key
        assert isinstance(private, rsa.RSAPrivateKey)

        def sign_ps256(message: bytes) -> bytes:
            return private.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())

        def sign_rs512(message: bytes) -> bytes:
            return private.sign(message, padding.PKCS1v15(), hashes.SHA512())

        for sign in (sign_ps256, sign_rs512):
            assert is_refused(tokens, forge(header_of(rs256), claims, sign))
        for header in (
            header_of(rs256, alg="ES256"),
            header_of(rs256, kid=es256.kid),
            header_of(es256),
        ):
            assert is_refused(tokens, forge(header, claims, rs256.sign))

    @pytest.mark.parametrize("kid", ["ours", "theirs", "none"])
    def test_authlib_cve_2026_27962(
        self, tokens: AccessTokens, key_set: KeySet, claims: dict[str, object], kid: str
    ) -> None:
        """Authlib, given no key, verified with the `jwk` that the attacker put into the header."""
        attacker = parse_key_set(
            serialize_key_set([generate_signing_key("ES256")]), algorithm="ES256", local=False
        ).current
        header = header_of(attacker, jwk=attacker.public_jwk)
        if kid == "ours":
            header["kid"] = key_set.keys[1].kid
        if kid == "none":
            del header["kid"]

        assert is_refused(tokens, forge(header, claims, attacker.sign))
        assert is_refused(tokens, forge(header_of(attacker), claims, attacker.sign))

    @pytest.mark.parametrize("part", [0, 1, 2], ids=["header", "payload", "signature"])
    def test_authlib_cve_2025_61920(
        self, tokens: AccessTokens, key_set: KeySet, claims: dict[str, object], part: int
    ) -> None:
        """Authlib decoded parts of any size before it looked at the signature: 500 MB cost it 4 GB."""
        parts = forge(header_of(key_set.current), claims, key_set.current.sign).split(".")
        parts[part] += "A" * 20_000_000
        token = ".".join(parts)
        tracemalloc.start()
        try:
            assert is_refused(tokens, token)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 1_000_000, "bytes: nothing of the token was copied"

    @pytest.mark.parametrize("part_count", [3, 5])
    def test_joserfc_cve_2026_27932(
        self, tokens: AccessTokens, key_set: KeySet, claims: dict[str, object], part_count: int
    ) -> None:
        """joserfc derived a key from a password as often as the `p2c` of the token said: hours of work."""
        header = header_of(key_set.current) | {
            "alg": "PBES2-HS256+A128KW",
            "enc": "A128CBC-HS256",
            "p2s": "2WCTcJZ1Rvd_CJuJripQ1w",
            "p2c": 2**31 - 1,
        }
        token = forge(header, claims, key_set.current.sign)

        assert is_refused(tokens, token + ".AAAA" * (part_count - 3))

"""Access tokens: issued, and forged, malformed, misused and out of time (RFC 8725)."""

import hmac
import itertools
import json
import socket
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet as JoserfcKeySet

from auth_manager.errors import InvalidToken
from auth_manager.signing_keys import (
    Algorithm,
    KeySet,
    encode_base64url,
    generate_signing_key,
    parse_key_set,
    serialize_key_set,
)
from auth_manager.tokens import MAXIMUM_TOKEN_LENGTH, AccessClaims, AccessTokens

ISSUER = "https://auth.example.com"
AUDIENCE = "auth-manager"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = int(NOW.timestamp())
LIFETIME = timedelta(minutes=15)
ACCOUNT = UUID("01890000-0000-7000-8000-000000000001")
SESSION = UUID("01890000-0000-7000-8000-000000000002")
TOKEN = UUID("01890000-0000-7000-8000-000000000003")
ADMINISTRATOR = UUID("01890000-0000-7000-8000-000000000004")
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": str(ACCOUNT),
    "aud": AUDIENCE,
    "client_id": "web",
    "iat": SECOND,
    "exp": SECOND + 900,
    "jti": str(TOKEN),
    "sid": str(SESSION),
    "auth_time": SECOND - 60,
    "amr": ["pwd"],
    "acr": "1",
    "scope": "account",
    "roles": ["editor"],
}
UNDEFINED = object()

CAPITALISATIONS_OF_NONE = ["".join(letters) for letters in itertools.product("nN", "oO", "nN", "eE")]
OTHER_ALGORITHMS = [
    *("RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS256", "A256KW", "rs256", " RS256", ""),
    *(UNDEFINED, None, 256, ["RS256"], {"RS256": True}),
]
OTHER_KIDS = [
    *(UNDEFINED, None, "", "other", 1, True, ["{kid}"], {"kid": "{kid}"}, "{kid} ", "{kid}\x00"),
    *("../../../../dev/null", "/etc/hostname", "' OR '1'='1", "x' UNION SELECT 'secret' --", "| id"),
    "https://evil.example/jwks.json",
]
OTHER_TYPES = [
    *(UNDEFINED, None, "", 1, ["at+jwt"], "JWT", "jwt", "JOSE", "AT+JWT", "at+JWT", "at+jwt "),
    *("id+jwt", "mfa+jwt", "reset+jwt", "logout+jwt", "dpop+jwt", "application/at+jwt"),
]
HEADER_MEMBERS: list[dict[str, object]] = [
    {"jku": "https://evil.example/jwks.json"},
    {"x5u": "https://evil.example/chain.pem"},
    {"x5c": ["MIIB"]},
    {"x5t": "AA"},
    {"jwk": None},
    {"crit": []},
    {"crit": None},
    {"crit": "exp"},
    {"crit": ["exp"]},
    {"crit": ["urn:example:unknown"], "urn:example:unknown": 1},
    {"crit": ["b64"], "b64": False},
    {"b64": False},
    {"zip": "DEF"},
    {"enc": "A256GCM"},
    {"cty": "JWT"},
]
HEADERS_THAT_ARE_NONE = [
    '{"alg":"none","alg":"RS256","kid":"KID","typ":"at+jwt"}',
    '{"alg":"RS256","kid":"KID","typ":"JWT","typ":"at+jwt"}',
    *('["RS256"]', '"RS256"', "null", "1", "", "{", '{"alg":"RS256"', "[" * 3000, '{"alg":NaN}', "\ufeff{}"),
]
MALFORMED = [
    *("", ".", "..", "null", "<h>.<p>", "<h>.<p>.", "<h>..<s>", ".<p>.<s>"),
    *("<h>.<p>.<s>.", ".<h>.<p>.<s>", "<h>.<p>.<s>.<s>", "<h>.<p>.<s>.<s>.<s>"),
    *("<h>.<p>.<s>=", "<h>.<p>.<s>==", "<h>.<p>=.<s>", "<h>.<p>==.<s>", "<h>=.<p>.<s>"),
    *(" <h>.<p>.<s>", "<h>.<p>.<s>\n", "<h>.<p>. <s>", "<h>.<p1> <p2>.<s>", "<h>.<p1>\n<p2>.<s>"),
    *("<h>.<p>.<s>\x00", "<h>.<p>.<s>!", "<h>.<p>.<s>\u00e9", "<h>.<p>.<s>\ud800", "<h>.\uff45<p>.<s>"),
    *("Bearer <h>.<p>.<s>", "<h>.<p>.<s>,<h>.<p>.<s>"),
    '{"protected":"<h>","payload":"<p>","signature":"<s>"}',
    '{"payload":"<p>","signatures":[{"protected":"<h>","signature":"<s>"}]}',
]
OTHER_AUDIENCES = [
    *("", "auth", "auth-manager-2", "Auth-Manager", " auth-manager", "web", 1, True),
    *(["auth-manager"], ["auth-manager", "web"], [["auth-manager"]], [], {"auth-manager": 1}),
]
OTHER_ISSUERS = [
    *(f"{ISSUER}/", ISSUER[:-1], f"{ISSUER}.evil.example", f"{ISSUER}:443", ISSUER.upper(), ISSUER[:1]),
    *("http://auth.example.com", "https://evil.example", "", [ISSUER], 1),
]
OTHER_UUIDS = [
    *("", "1", "admin", ACCOUNT.hex, f"{{{ACCOUNT}}}", ACCOUNT.urn, f"{ACCOUNT} ", f"{ACCOUNT}\x00"),
    *("018900AB-0000-7000-8000-00000000000A", 1, [str(ACCOUNT)]),
]
NO_TIMES = [
    *(f"{SECOND}.0", f"{SECOND + 100}.5", f"{SECOND}e0", "1e999", "-1e999", "Infinity", "-Infinity", "NaN"),
    *("-1", "253402300800", "1" + "0" * 20, "9" * 3000, "9" * 5000, "true", "false", "null", "[]", "{}"),
    *(f'"{SECOND}"', '"never"', f"[{SECOND}]"),
]
NO_CLAIMS: list[str | bytes] = [
    *("", "null", "true", "1", '"claims"', "[]", "{", "[" * 5500, '{"a":' * 800 + "1" + "}" * 800),
    *(json.dumps([CLAIMS]), json.dumps(json.dumps(CLAIMS)), json.dumps(CLAIMS) + "{}"),
    *("\ufeff" + json.dumps(CLAIMS), json.dumps(CLAIMS).encode("utf-16")),
    *(json.dumps(CLAIMS).encode() + b"\xff", b"\xff\xfe\x00", b"\x00"),
]

Signer = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a token makes us call anybody: `jku` and `x5u` included."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a token caused an outbound request")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def key_sets() -> dict[Algorithm, KeySet]:
    return {algorithm: make_key_set(algorithm) for algorithm in ("RS256", "ES256")}


@pytest.fixture(params=["RS256", "ES256"])
def key_set(request: pytest.FixtureRequest, key_sets: dict[Algorithm, KeySet]) -> KeySet:
    return key_sets[request.param]


@pytest.fixture
def rsa_keys(key_sets: dict[Algorithm, KeySet]) -> KeySet:
    return key_sets["RS256"]


@pytest.fixture
def ec_keys(key_sets: dict[Algorithm, KeySet]) -> KeySet:
    return key_sets["ES256"]


def make_key_set(algorithm: Algorithm) -> KeySet:
    jwks = serialize_key_set([generate_signing_key(algorithm)])
    return parse_key_set(jwks, algorithm=algorithm, local=False)


def access_tokens(keys: KeySet) -> AccessTokens:
    return AccessTokens(keys, issuer=ISSUER, audience=AUDIENCE)


ISSUED: dict[str, Any] = {
    "account_id": ACCOUNT,
    "session_id": SESSION,
    "token_id": TOKEN,
    "client_id": "web",
    "scope": "account",
    "roles": ["editor"],
    "authenticated_at": NOW - timedelta(seconds=60),
    "amr": ["pwd"],
    "acr": "1",
    "now": NOW,
    "lifetime": LIFETIME,
}


def issue(keys: KeySet, **changes: Any) -> str:
    return access_tokens(keys).issue(**ISSUED | changes).token


def payload_of(token: str) -> Any:
    return jwt.decode(token, options={"verify_signature": False})


def verify(keys: KeySet, token: str, now: datetime = NOW) -> AccessClaims:
    return access_tokens(keys).verify(token, now=now)


def header_of(keys: KeySet, **changes: object) -> dict[str, object]:
    return changed({"alg": keys.current.algorithm, "kid": keys.current.kid, "typ": "at+jwt"}, changes)


def changed(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not UNDEFINED}


def encode(part: object) -> str:
    """A part as bytes, as JSON text, or as a value to dump."""
    if not isinstance(part, bytes):
        part = (part if isinstance(part, str) else json.dumps(part, separators=(",", ":"))).encode()
    return encode_base64url(part)


def forge(header: object, payload: object, sign: Signer) -> str:
    """The attacker's own JWS: no library that could refuse to build it."""
    message = f"{encode(header)}.{encode(payload)}"
    return f"{message}.{encode_base64url(sign(message.encode()))}"


def stolen(keys: KeySet, payload: object) -> str:
    """A token whose header and signature are right: only the payload can be at fault."""
    return forge(header_of(keys), payload, keys.current.sign)


def accepted(keys: KeySet, token: str, now: datetime = NOW) -> bool:
    return verify(keys, token, now).sid == SESSION


def refused(keys: KeySet, token: str, now: datetime = NOW) -> bool:
    """Refused as every other token is: one answer, and nothing about the reason."""
    with pytest.raises(InvalidToken) as failure:
        verify(keys, token, now)
    return failure.value.detail == InvalidToken.title() and failure.value.__cause__ is None


class TestIssue:
    def test_own_token_says_what_was_put_in(self, key_set: KeySet) -> None:
        assert verify(key_set, issue(key_set)) == AccessClaims(
            sub=ACCOUNT,
            sid=SESSION,
            jti=str(TOKEN),
            client_id="web",
            scope="account",
            roles=("editor",),
            auth_time=NOW - timedelta(seconds=60),
            amr=("pwd",),
            acr="1",
            expires_at=NOW + LIFETIME,
        )

    def test_the_forger_of_these_tests_builds_the_same_token(self, rsa_keys: KeySet) -> None:
        """Otherwise every refusal below could be about something else."""
        assert stolen(rsa_keys, CLAIMS) == issue(rsa_keys)

    def test_another_library_verifies_it_against_the_published_keys(self, key_set: KeySet) -> None:
        published = JoserfcKeySet.import_key_set(json.loads(json.dumps(key_set.public_jwks())))
        decoded = joserfc_jwt.decode(issue(key_set), published, algorithms=[key_set.current.algorithm])

        assert decoded.claims == CLAIMS
        assert decoded.header == header_of(key_set)

    def test_a_third_library_verifies_it_too(self, key_set: KeySet) -> None:
        public = jwt.PyJWK.from_dict(key_set.public_jwks()["keys"][0])
        token = issue(key_set, now=datetime.now(UTC))

        assert jwt.decode(token, public, audience=AUDIENCE, issuer=ISSUER)["sid"] == str(SESSION)

    def test_who_acts_for_somebody_is_named(self, key_set: KeySet) -> None:
        """RFC 8693 section 4.1."""
        token = issue(key_set, act=ADMINISTRATOR)
        assert payload_of(token)["act"] == {"sub": str(ADMINISTRATOR)}
        assert verify(key_set, token).act == ADMINISTRATOR
        assert verify(key_set, issue(key_set)).act is None

    def test_permissions_and_further_claims(self, key_set: KeySet) -> None:
        further = {"plan": "gold", "tags": ["a", 1, None]}
        token = issue(key_set, permissions=["users:read"], custom=further)
        assert payload_of(token) == CLAIMS | further | {"permissions": ["users:read"]}
        assert verify(key_set, token) == verify(key_set, issue(key_set))

    @pytest.mark.parametrize("name", [*CLAIMS, "act", "permissions"])
    def test_no_further_claim_replaces_one_of_ours(self, ec_keys: KeySet, name: str) -> None:
        ours = {"permissions": ["users:read"], "act": ADMINISTRATOR}
        token = issue(ec_keys, **ours, custom={name: "forged"})
        assert payload_of(token) == payload_of(issue(ec_keys, **ours))

    def test_it_expires_when_it_says(self, rsa_keys: KeySet) -> None:
        issued = access_tokens(rsa_keys).issue(
            account_id=ACCOUNT,
            session_id=SESSION,
            token_id=TOKEN,
            client_id="web",
            scope="",
            roles=[],
            authenticated_at=NOW,
            amr=[],
            acr="0",
            now=NOW + timedelta(microseconds=999_999),
            lifetime=timedelta(seconds=59, microseconds=999_999),
        )

        assert issued.expires_in == 59
        assert verify(rsa_keys, issued.token).expires_at == NOW + timedelta(seconds=59)
        assert issued.token not in repr(issued)


class TestRotation:
    def test_every_key_of_the_set_verifies_and_a_removed_one_does_not(self) -> None:
        following, current, previous = (generate_signing_key("ES256") for _ in range(3))

        def key_set_of(**states: dict[str, object]) -> KeySet:
            jwks = [jwk | {"state": state} for state, jwk in states.items()]
            return parse_key_set(serialize_key_set(jwks), algorithm="ES256", local=False)

        before = key_set_of(current=previous, next=current)
        during = key_set_of(previous=previous, current=current, next=following)
        after = key_set_of(previous=current, current=following)

        assert accepted(during, issue(before))
        assert accepted(before, issue(during))
        assert accepted(after, issue(during))
        assert accepted(during, issue(after))
        assert refused(after, issue(before))

    def test_rs256_tokens_outlive_the_change_to_es256(self) -> None:
        rs256, es256 = generate_signing_key("RS256"), generate_signing_key("ES256")
        before = parse_key_set(serialize_key_set([rs256]), algorithm="RS256", local=False)
        jwks = serialize_key_set([rs256 | {"state": "previous"}, es256])
        after = parse_key_set(jwks, algorithm="ES256", local=False)

        assert accepted(after, issue(before))
        assert refused(after, forge(header_of(after), CLAIMS, before.current.sign))
        assert refused(after, forge(header_of(before), CLAIMS, after.current.sign))


class TestRefuseForgedHeader:
    @pytest.mark.parametrize("name", CAPITALISATIONS_OF_NONE)
    def test_none_is_no_algorithm(self, rsa_keys: KeySet, name: str) -> None:
        header = header_of(rsa_keys, alg=name)

        assert refused(rsa_keys, forge(header, CLAIMS, lambda _: b""))
        assert refused(rsa_keys, forge(header, CLAIMS, rsa_keys.current.sign))

    @pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
    def test_a_public_key_is_no_hmac_secret(self, key_set: KeySet, digest: str) -> None:
        public = key_set.current.public_key
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        secrets = [
            pem,
            pem.strip(),
            pem.replace(b"\n", b"\r\n"),
            pem.replace(b"\n", b""),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            json.dumps(key_set.public_jwks()).encode(),
            json.dumps(key_set.current.public_jwk).encode(),
            key_set.current.kid.encode(),
            b"",
        ]
        for secret in secrets:

            def sign(message: bytes, secret: bytes = secret) -> bytes:
                return hmac.digest(secret, message, digest)

            assert refused(key_set, forge(header_of(key_set, alg=f"HS{digest[3:]}"), CLAIMS, sign))
            assert refused(key_set, forge(header_of(key_set), CLAIMS, sign))

    @pytest.mark.parametrize("algorithm", OTHER_ALGORITHMS)
    def test_only_the_algorithm_of_the_key_is_accepted(self, rsa_keys: KeySet, algorithm: object) -> None:
        assert refused(rsa_keys, forge(header_of(rsa_keys, alg=algorithm), CLAIMS, rsa_keys.current.sign))

    @pytest.mark.parametrize("hash_algorithm", [hashes.SHA384(), hashes.SHA512(), hashes.SHA1()])  # noqa: S303
    def test_the_right_key_with_another_hash_is_refused(
        self, rsa_keys: KeySet, hash_algorithm: hashes.HashAlgorithm
    ) -> None:
        private = rsa_keys.current.private_key
        assert isinstance(private, rsa.RSAPrivateKey)
        for scheme in (
            padding.PKCS1v15(),
            padding.PSS(padding.MGF1(hash_algorithm), padding.PSS.DIGEST_LENGTH),
        ):

            def sign(message: bytes, scheme: Any = scheme) -> bytes:
                return private.sign(message, scheme, hash_algorithm)

            assert refused(rsa_keys, forge(header_of(rsa_keys), CLAIMS, sign))

    @pytest.mark.parametrize("kid", OTHER_KIDS)
    def test_only_a_known_kid_is_accepted(self, rsa_keys: KeySet, kid: object) -> None:
        if kid is not UNDEFINED:
            kid = json.loads(json.dumps(kid).replace("{kid}", rsa_keys.current.kid))

        assert refused(rsa_keys, forge(header_of(rsa_keys, kid=kid), CLAIMS, rsa_keys.current.sign))

    def test_the_kid_of_another_service_is_refused(self, ec_keys: KeySet) -> None:
        assert refused(ec_keys, issue(make_key_set("ES256")))

    @pytest.mark.parametrize("member", HEADER_MEMBERS, ids=str)
    def test_a_header_with_anything_more_is_refused(
        self, rsa_keys: KeySet, member: dict[str, object]
    ) -> None:
        assert refused(rsa_keys, forge(header_of(rsa_keys, **member), CLAIMS, rsa_keys.current.sign))

    def test_an_embedded_key_is_not_believed(self, ec_keys: KeySet) -> None:
        attacker = make_key_set("ES256")
        for kid in (ec_keys.current.kid, attacker.current.kid):
            header = header_of(ec_keys, kid=kid, jwk=attacker.current.public_jwk)

            assert refused(ec_keys, forge(header, CLAIMS, attacker.current.sign))

    @pytest.mark.parametrize("token_type", OTHER_TYPES)
    def test_a_token_of_another_kind_is_refused(self, rsa_keys: KeySet, token_type: object) -> None:
        """9.2.2: an ID, reset or MFA token never passes as access token, whoever signed it."""
        assert refused(rsa_keys, forge(header_of(rsa_keys, typ=token_type), CLAIMS, rsa_keys.current.sign))

    @pytest.mark.parametrize("text", HEADERS_THAT_ARE_NONE)
    def test_a_header_that_is_no_plain_object_is_refused(self, rsa_keys: KeySet, text: str) -> None:
        header = text.replace("KID", rsa_keys.current.kid)

        assert refused(rsa_keys, forge(header, CLAIMS, rsa_keys.current.sign))
        assert refused(rsa_keys, forge(b"\xff\xfe" + header.encode(), CLAIMS, rsa_keys.current.sign))


class TestRefuseMalformedText:
    @pytest.mark.parametrize("template", MALFORMED)
    def test_only_three_parts_of_plain_base64url_are_read(self, ec_keys: KeySet, template: str) -> None:
        header, payload, signature = issue(ec_keys).split(".")
        parts = {"h": header, "p": payload, "s": signature, "p1": payload[:9], "p2": payload[9:]}
        for name, part in parts.items():
            template = template.replace(f"<{name}>", part)

        assert refused(ec_keys, template)

    def test_the_standard_alphabet_is_refused(self, ec_keys: KeySet) -> None:
        tokens = (issue(ec_keys) for _ in range(1000))
        message, _, signature = next(t for t in tokens if {"-", "_"} & set(t[-86:])).rpartition(".")

        assert refused(ec_keys, f"{message}.{signature.replace('-', '+').replace('_', '/')}")

    def test_one_token_has_one_text(self, ec_keys: KeySet) -> None:
        """86 characters carry 516 bits for 512: the last one has 15 other spellings of the same bytes."""
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        token = issue(ec_keys)
        first = alphabet.index(token[-1]) & 0b110000

        assert first == alphabet.index(token[-1])
        for other in alphabet[first + 1 : first + 16]:
            assert refused(ec_keys, token[:-1] + other)

    def test_eight_kilobytes_are_the_limit(self, ec_keys: KeySet) -> None:
        tokens = {len(token): token for n in range(5500, 5700) for token in [issue(ec_keys, scope="s" * n)]}
        longest = max(length for length in tokens if length <= MAXIMUM_TOKEN_LENGTH)
        too_long = min(length for length in tokens if length > MAXIMUM_TOKEN_LENGTH)

        assert too_long - longest <= 2
        assert accepted(ec_keys, tokens[longest])
        assert refused(ec_keys, tokens[too_long])

    @pytest.mark.parametrize("part", ["header", "payload", "signature", "dots"])
    def test_five_megabytes_are_refused_before_they_are_touched(self, rsa_keys: KeySet, part: str) -> None:
        header, payload, signature = issue(rsa_keys).split(".")
        much = "A" * 5_000_000
        token = {
            "header": f"{header}{much}.{payload}.{signature}",
            "payload": f"{header}.{much}.{signature}",
            "signature": f"{header}.{payload}.{much}",
            "dots": "." * 5_000_000,
        }[part]
        tokens = access_tokens(rsa_keys)
        tracemalloc.start()
        try:
            with pytest.raises(InvalidToken):
                tokens.verify(token, now=NOW)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 100_000, "bytes: splitting or decoding would have copied the token"


class TestRefuseForgedSignature:
    @pytest.mark.parametrize(
        "signature",
        [b"", b"\x00", bytes(256), bytes(384), bytes(385), b"\xff" * 384, b"\x00" * 383 + b"\x01"],
        ids=len,
    )
    def test_rsa_signature_that_is_none(self, rsa_keys: KeySet, signature: bytes) -> None:
        assert refused(rsa_keys, forge(header_of(rsa_keys), CLAIMS, lambda _: signature))

    @pytest.mark.parametrize("r", [0, 1, "n", "n+1", "2^256-1"])
    @pytest.mark.parametrize("s", [0, 1, "n", "n+1", "2^256-1"])
    def test_psychic_signatures(self, ec_keys: KeySet, r: int | str, s: int | str) -> None:
        """CVE-2022-21449: Java accepted r = s = 0 for every message."""
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        named = {"n": order, "n+1": order + 1, "2^256-1": 2**256 - 1}
        signature = b"".join(named.get(str(value), value).to_bytes(32) for value in (r, s))  # type: ignore[union-attr]

        assert refused(ec_keys, forge(header_of(ec_keys), CLAIMS, lambda _: signature))

    def test_a_der_encoded_ecdsa_signature_is_refused(self, ec_keys: KeySet) -> None:
        """RFC 7518 section 3.4: the signature is R and S, 64 octets, and has one encoding."""
        private = ec_keys.current.private_key
        assert isinstance(private, ec.EllipticCurvePrivateKey)

        def sign(message: bytes) -> bytes:
            return private.sign(message, ec.ECDSA(hashes.SHA256()))

        assert refused(ec_keys, forge(header_of(ec_keys), CLAIMS, sign))

    @pytest.mark.parametrize(
        "mangle",
        [
            lambda s: s[:-1],
            lambda s: s[1:],
            lambda s: s + b"\x00",
            lambda s: b"\x00" + s,
            lambda s: s[:32] + b"\x00" + s[32:],
            lambda s: s[::-1],
            lambda s: s + s,
            lambda s: s[: len(s) // 2],
            lambda s: bytes([s[0] ^ 1]) + s[1:],
            lambda s: s[:-1] + bytes([s[-1] ^ 1]),
            lambda s: encode_dss_signature(int.from_bytes(s[:32]), int.from_bytes(s[32:])),
        ],
    )
    def test_a_damaged_signature_is_refused(self, key_set: KeySet, mangle: Callable[[bytes], bytes]) -> None:
        assert refused(key_set, forge(header_of(key_set), CLAIMS, lambda m: mangle(key_set.current.sign(m))))

    def test_a_signature_belongs_to_its_header_and_payload(self, key_set: KeySet) -> None:
        header, payload, signature = issue(key_set).split(".")
        other = encode({**CLAIMS, "roles": ["administrator"]})

        assert refused(key_set, f"{header}.{other}.{signature}")
        assert refused(key_set, f"{payload}.{header}.{signature}")


class TestRefuseFalseClaims:
    @pytest.mark.parametrize("name", CLAIMS)
    def test_a_missing_claim_is_refused(self, ec_keys: KeySet, name: str) -> None:
        assert refused(ec_keys, stolen(ec_keys, changed(CLAIMS, {name: UNDEFINED})))
        assert refused(ec_keys, stolen(ec_keys, changed(CLAIMS, {name: None})))

    @pytest.mark.parametrize("audience", OTHER_AUDIENCES, ids=str)
    def test_only_the_exact_audience_is_accepted(self, ec_keys: KeySet, audience: object) -> None:
        """An ID token is for its client: even of the right type it is not for this API."""
        assert refused(ec_keys, stolen(ec_keys, changed(CLAIMS, {"aud": audience})))

    @pytest.mark.parametrize("issuer", OTHER_ISSUERS, ids=str)
    def test_only_the_exact_issuer_is_accepted(self, ec_keys: KeySet, issuer: object) -> None:
        assert refused(ec_keys, stolen(ec_keys, changed(CLAIMS, {"iss": issuer})))

    @pytest.mark.parametrize("name", ["sub", "sid"])
    @pytest.mark.parametrize("value", OTHER_UUIDS, ids=repr)
    def test_account_and_session_are_plain_uuids(self, ec_keys: KeySet, name: str, value: object) -> None:
        assert refused(ec_keys, stolen(ec_keys, changed(CLAIMS, {name: value})))

    @pytest.mark.parametrize("name", ["roles", "amr"])
    @pytest.mark.parametrize(
        "value", ["administrator", [1], [None], [["editor"]], {"editor": 1}, True], ids=str
    )
    def test_lists_are_lists_of_strings(self, ec_keys: KeySet, name: str, value: object) -> None:
        assert refused(ec_keys, stolen(ec_keys, changed(CLAIMS, {name: value})))

    @pytest.mark.parametrize("name", ["jti", "client_id", "scope", "acr"])
    @pytest.mark.parametrize("value", [1, True, ["x"], {"x": 1}], ids=str)
    def test_texts_are_texts(self, ec_keys: KeySet, name: str, value: object) -> None:
        assert refused(ec_keys, stolen(ec_keys, changed(CLAIMS, {name: value})))

    @pytest.mark.parametrize("name", ["exp", "iat", "nbf", "auth_time"])
    @pytest.mark.parametrize("value", NO_TIMES, ids=lambda text: text[:24])
    def test_times_are_integers_that_a_calendar_has(self, ec_keys: KeySet, name: str, value: str) -> None:
        payload = json.dumps({**CLAIMS, name: "VALUE"}).replace('"VALUE"', value)

        assert refused(ec_keys, stolen(ec_keys, payload))

    @pytest.mark.parametrize("payload", NO_CLAIMS, ids=lambda payload: repr(payload[:12]))
    def test_a_payload_that_is_no_plain_object_is_refused(
        self, ec_keys: KeySet, payload: str | bytes
    ) -> None:
        assert refused(ec_keys, stolen(ec_keys, payload))

    @pytest.mark.parametrize("name", ["sub", "exp", "aud", "unknown"])
    def test_a_claim_that_is_there_twice_is_refused(self, ec_keys: KeySet, name: str) -> None:
        member = f'"{name}":{json.dumps(CLAIMS.get(name))}'
        payload = json.dumps({"unknown": None, **CLAIMS}, separators=(",", ":"))

        assert accepted(ec_keys, stolen(ec_keys, payload))
        assert refused(ec_keys, stolen(ec_keys, payload.replace(member, f"{member},{member}")))

    @pytest.mark.parametrize(
        "act",
        [
            *(None, True, str(ACCOUNT), [], {}, {"sub": None}, {"sub": ""}, {"sub": ACCOUNT.hex}),
            {"sub": str(ACCOUNT), "act": {"sub": str(ACCOUNT)}},
            {"sub": str(ACCOUNT), "iss": ISSUER},
        ],
    )
    def test_who_acts_is_one_plain_uuid(self, ec_keys: KeySet, act: object) -> None:
        assert accepted(ec_keys, stolen(ec_keys, CLAIMS | {"act": {"sub": str(ACCOUNT)}}))
        assert refused(ec_keys, stolen(ec_keys, CLAIMS | {"act": act}))

    def test_claims_of_later_versions_are_no_obstacle(self, ec_keys: KeySet) -> None:
        assert accepted(ec_keys, stolen(ec_keys, {**CLAIMS, "nbf": SECOND, "tenant": {"id": 1.5}}))


class TestRefuseWrongTime:
    @pytest.mark.parametrize("drift", [-60, -59, 0, 59, 60])
    def test_a_clock_that_is_a_minute_off_still_works(self, ec_keys: KeySet, drift: int) -> None:
        assert accepted(ec_keys, issue(ec_keys), NOW + timedelta(seconds=drift))

    def test_a_token_expires_a_leeway_after_its_end(self, ec_keys: KeySet) -> None:
        end = NOW + LIFETIME + timedelta(seconds=60)

        assert accepted(ec_keys, issue(ec_keys), end - timedelta(microseconds=1))
        assert refused(ec_keys, issue(ec_keys), end)
        assert refused(ec_keys, issue(ec_keys), end + timedelta(days=365))

    @pytest.mark.parametrize("minutes_since_expiry", [1, 10, 30, 43])
    def test_a_clock_that_is_an_hour_late_revives_no_token(
        self, ec_keys: KeySet, minutes_since_expiry: int
    ) -> None:
        """To such a clock the token is of the future."""
        real = NOW + LIFETIME + timedelta(minutes=minutes_since_expiry)

        assert refused(ec_keys, issue(ec_keys), real - timedelta(hours=1))

    def test_a_clock_that_is_an_hour_early_lengthens_no_life(self, ec_keys: KeySet) -> None:
        issued_an_hour_early = issue(ec_keys, now=NOW + timedelta(hours=1))

        assert refused(ec_keys, issue(ec_keys), NOW + timedelta(hours=1))
        assert refused(ec_keys, issued_an_hour_early)

    @pytest.mark.parametrize("name", ["iat", "nbf"])
    def test_a_token_of_the_future_is_refused(self, ec_keys: KeySet, name: str) -> None:
        assert accepted(ec_keys, stolen(ec_keys, {**CLAIMS, name: SECOND + 60}))
        assert refused(ec_keys, stolen(ec_keys, {**CLAIMS, "nbf": SECOND, name: SECOND + 61}))

    def test_our_clock_is_the_argument_and_no_other(self, ec_keys: KeySet) -> None:
        then = datetime(1999, 1, 1, tzinfo=UTC)

        assert accepted(ec_keys, issue(ec_keys, now=then), then)

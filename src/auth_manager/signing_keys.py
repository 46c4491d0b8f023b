"""The keys that sign tokens: where they come from, which are refused, and what the world may see of them.

A key is `next` (published before it signs, so that every verifier has it by then), `current` (signs) or
`previous` (signs no more, verifies until its last token has expired). All of them verify, so a rotation fails
no verification. A `kid` is always the key's RFC 7638 thumbprint; a `kid` member in a source is not read.

Each key is parsed once, when the process starts. Validating an RSA-3072 key (primality, mostly) takes 130 ms,
signing and verifying once 1.2 ms: a self-test stands in for the validation. The sources are the operator's
own, so it is there to find a damaged key, not a hostile one.
"""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError
from auth_manager.settings import Settings

Algorithm = Literal["RS256", "ES256"]
State = Literal["next", "current", "previous"]
Jwk = dict[str, object]
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

MINIMUM_RSA_BITS = 2048
"""RFC 7518 section 3.3; ASVS 11.2.3."""

GENERATED_RSA_BITS = 3072
"""128 bits of strength (NIST SP 800-57 part 1, table 2)."""

LOCAL_MEMBER = "local"
"""The private JWK member (RFC 7517 section 4) that marks a key `make local` generated."""

PUBLISHED_KEYS = {
    "IsUn6_e04MaShXFIISMp4kG62LWzMIPy_MvSA5pJgX8": "RFC 7515 appendix A.2",
    "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U": "RFC 7515 appendix A.3",
    "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s": "RFC 7517 appendix A.2",
    "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": "RFC 7517 appendix A.2 and RFC 7638 section 3.1",
    "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI": "RFC 7520 section 3.4",
    "zFHVsM9dc4OlHIwvEnVqfKzRj1ujqYGsZnXAcgn_CqI": "the first RS256 example of jwt.io",
    "oGDmHqCJ7yzMkWEkrlZVHkvrHIyQwtlDmeq5ForUHeY": "the later RS256 example of jwt.io",
    "19J8y7Zprt2-QKLjF2I5pVk0OELX6cY2AfaAv1LC_w8": "the ES256 example of jwt.io",
}
"""RFC 7638 thumbprints of keys whose private half is in print; each was computed from the pair itself, or
from the public key and a published token that it verifies."""

_ALGORITHMS: dict[Algorithm, Any] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256, ec.SECP256R1),
}
_RSA_EXPONENT = 65_537
_COORDINATE_BYTES = 32
_PEM_KEY = re.compile(r"-----BEGIN [A-Z ]*(?:PRIVATE|PUBLIC) KEY-----.*?-----END [A-Z ]*KEY-----", re.DOTALL)
_RSA_PRIVATE_MEMBERS = {"d": "d", "p": "p", "q": "q", "dp": "dmp1", "dq": "dmq1", "qi": "iqmp"}
"""RFC 7518 section 6.3.2, and what cryptography calls the same numbers."""


def encode_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """Undo `encode_base64url`, and nothing else: each value has exactly one text.

    Raises:
        ValueError: on padding, whitespace, other alphabets, or unused trailing bits that are set.
    """
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key. Only the current one keeps its private half: the others have nothing to sign."""

    kid: str
    algorithm: Algorithm
    state: State
    public_key: PublicKey
    private_key: PrivateKey | None = field(repr=False)
    public_jwk: dict[str, str] = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Return a JWS signature (RFC 7518 sections 3.3 and 3.4).

        Raises:
            ValueError: this key has no private half.
        """
        if self.private_key is None:
            raise ValueError("this key only verifies")
        signature: bytes = _ALGORITHMS[self.algorithm].sign(message, self.private_key)
        return signature

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether this key made `signature`, with its own algorithm and no other."""
        verified: bool = _ALGORITHMS[self.algorithm].verify(message, self.public_key, signature)
        return verified

    def works(self) -> bool:
        """Tell whether the two halves belong together: what one signs, the other verifies."""
        return self.verifies(b"self-test", self.sign(b"self-test"))


@dataclass(frozen=True, slots=True)
class KeySet:
    """Every key that may verify, exactly one of which signs.

    Raises:
        ConfigurationError: without exactly one current key, or with the same key twice.
    """

    keys: tuple[SigningKey, ...]

    def __post_init__(self) -> None:
        """Refuse a set that cannot tell which key signs, or which key verifies."""
        states = [key.state for key in self.keys]
        if states.count("current") != 1:
            raise ConfigurationError(f"{states.count('current')} keys are current; exactly one must be")
        if len({key.kid for key in self.keys}) != len(self.keys):
            raise ConfigurationError("the same key is there twice (same kid)")

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        return next(key for key in self.keys if key.state == "current")

    def public_jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the JWK set to publish (RFC 7517 section 5): public members only."""
        return {"keys": [key.public_jwk for key in self.keys]}


def open_key_set(
    settings: Settings, fetch_secret: Callable[[str], str] | None = None
) -> CachedSecret[KeySet]:
    """Return the keys from the one source that is set; those of a secret are followed as they rotate.

    AUTH_SIGNING_KEYS wins over a secret, so that a laptop needs nothing but a variable.

    Args:
        settings: says where the keys are, which algorithm signs, and whether this is a laptop.
        fetch_secret: returns the text of the secret with a given ARN.

    Raises:
        ConfigurationError: naming the variable and the reason, never any key material.
        ServiceUnavailable: the secret cannot be fetched now.
    """
    sources = {
        "AUTH_SIGNING_KEYS": settings.signing_keys.get_secret_value(),
        "AUTH_SIGNING_KEYS_FILE": settings.signing_keys_file,
        "AUTH_SIGNING_KEYS_SECRET_ARN": settings.signing_keys_secret_arn,
    }
    given = [name for name, value in sources.items() if value]
    if not given:
        raise ConfigurationError(f"no signing key: set one of {', '.join(sources)}")
    if given == ["AUTH_SIGNING_KEYS", "AUTH_SIGNING_KEYS_SECRET_ARN"]:
        given.pop()
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} are both set; one must be")
    [name] = given

    def read(text: str) -> KeySet:
        try:
            return parse_key_set(text, algorithm=settings.signing_algorithm, local=settings.is_local)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None

    if name == "AUTH_SIGNING_KEYS_SECRET_ARN":
        if fetch_secret is None:
            raise ConfigurationError(f"{name}: secrets cannot be read here")
        return CachedSecret(functools.partial(fetch_secret, sources[name]), read)
    if name == "AUTH_SIGNING_KEYS_FILE":
        return CachedSecret.fixed(read(_read_file(name, Path(sources[name]))))
    return CachedSecret.fixed(read(sources[name]))


def load_key_set(settings: Settings, fetch_secret: Callable[[str], str] | None = None) -> KeySet:
    """Return the keys as they are now; as `open_key_set`."""
    return open_key_set(settings, fetch_secret).get()


def parse_key_set(text: str, *, algorithm: Algorithm, local: bool) -> KeySet:
    """Read a JWK set, or one or more PEM keys of which the first is current and the others are previous.

    A JWK may say `"state": "next" | "current" | "previous"`; a single one without a state is current. A
    `previous` or `next` key may be public only, and of another algorithm than the current one.

    Raises:
        ConfigurationError: with the reason, never with key material.
    """
    keys = _parse_pem(text) if "-----BEGIN" in text else _parse_jwk_set(text, local=local)
    key_set = KeySet(tuple(keys))
    if key_set.current.private_key is None:
        raise ConfigurationError("the current key is public only: it cannot sign")
    if key_set.current.algorithm != algorithm:
        raise ConfigurationError(
            f"the current key is for {key_set.current.algorithm}; AUTH_SIGNING_ALGORITHM is {algorithm}"
        )
    return key_set


def generate_signing_key(algorithm: Algorithm, state: State = "current") -> Jwk:
    """Return a new private JWK (RFC 7517) with its `kid` and `state`. An RSA key can take seconds."""
    private: PrivateKey
    if algorithm == "RS256":
        private = rsa.generate_private_key(_RSA_EXPONENT, GENERATED_RSA_BITS)
        rsa_numbers = private.private_numbers()
        members = {
            member: _encode_integer(getattr(rsa_numbers, name))
            for member, name in _RSA_PRIVATE_MEMBERS.items()
        }
    else:
        private = ec.generate_private_key(ec.SECP256R1())
        members = {"d": _encode_coordinate(private.private_numbers().private_value)}
    return {**_describe(private, state).public_jwk, **members, "state": state}


def parse_public_jwk(jwk: Mapping[str, object]) -> SigningKey:
    """Read the public half of a key that signed once, for as long as something has to be verified with it.

    Raises:
        ConfigurationError: it is no public key that we would sign with.
    """
    return _describe(_import_jwk({name: value for name, value in jwk.items() if name != "d"}), "previous")


def serialize_key_set(jwks: Iterable[Jwk]) -> str:
    """Return private JWKs as the JSON text, one line, that `parse_key_set` reads. It is a secret."""
    return json.dumps({"keys": list(jwks)}, separators=(",", ":"))


def _read_file(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigurationError(f"{name}: cannot be read: {reason}") from None


def _parse_pem(text: str) -> list[SigningKey]:
    # A variable of one line carries its line breaks as \n; no PEM has a backslash.
    blocks = _PEM_KEY.findall(text.replace("\\n", "\n"))
    if not blocks:
        raise ConfigurationError("no PEM key in it")
    keys = []
    for position, pem in enumerate(blocks, 1):
        with _key_at(position):
            keys.append(_describe(_import_pem(pem), "current" if position == 1 else "previous"))
    return keys


def _parse_jwk_set(text: str, *, local: bool) -> list[SigningKey]:
    try:
        document = json.loads(text)
    except ValueError:
        raise ConfigurationError("neither PEM nor JSON") from None
    jwks = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(jwks, list) or not jwks or not all(isinstance(jwk, dict) for jwk in jwks):
        raise ConfigurationError('not a JWK set: {"keys": [...]} with at least one key')
    keys = []
    for position, jwk in enumerate(jwks, 1):
        with _key_at(position):
            state = jwk.get("state", "current" if len(jwks) == 1 else None)
            if state not in get_args(State):
                raise ConfigurationError(f"its state must be one of {', '.join(get_args(State))}")
            if jwk.get(LOCAL_MEMBER) and not local:
                raise ConfigurationError("is a default key, made for local mode")
            key = _describe(_import_jwk(jwk), state)
            if jwk.get("use", "sig") != "sig" or jwk.get("alg", key.algorithm) != key.algorithm:
                raise ConfigurationError(f"its use and alg must be sig and {key.algorithm}")
            keys.append(key)
    return keys


@contextmanager
def _key_at(position: int) -> Generator[None]:
    """Say which key a refusal is about: the operator counts, as a kid may not be known yet."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"key {position}: {error}") from None


def _import_pem(pem: str) -> object:
    try:
        if "PRIVATE" in pem.partition("\n")[0]:
            return serialization.load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
        return serialization.load_pem_public_key(pem.encode())
    except TypeError:  # what cryptography raises when a password is needed
        raise ConfigurationError("is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("is not a readable PEM key") from None


def _import_jwk(jwk: Jwk) -> PublicKey | PrivateKey:
    """Turn the key members of a JWK (RFC 7518 section 6) into a key that nothing has vouched for yet."""
    if jwk.get("kty") == "oct":
        raise ConfigurationError("is symmetric: whoever verified could sign")
    if jwk.get("kty") not in {"RSA", "EC"}:
        raise ConfigurationError("is neither RSA nor EC")
    if jwk["kty"] == "EC" and jwk.get("crv") != "P-256":
        raise ConfigurationError("its curve is not P-256")
    try:
        if jwk["kty"] == "EC":
            point = ec.EllipticCurvePublicNumbers(_integer(jwk, "x"), _integer(jwk, "y"), ec.SECP256R1())
            if "d" not in jwk:
                return point.public_key()
            return ec.EllipticCurvePrivateNumbers(_integer(jwk, "d"), point).private_key()
        modulus = rsa.RSAPublicNumbers(_integer(jwk, "e"), _integer(jwk, "n"))
        if "d" not in jwk:
            return modulus.public_key()
        return rsa.RSAPrivateNumbers(
            **{name: _integer(jwk, member) for member, name in _RSA_PRIVATE_MEMBERS.items()},
            public_numbers=modulus,
        ).private_key(unsafe_skip_rsa_key_validation=True)
    except ValueError:
        raise ConfigurationError(f"its members do not make a valid {jwk['kty']} key") from None


def _describe(key: object, state: State) -> SigningKey:
    """Check a key whatever its source, and name it.

    Raises:
        ConfigurationError: too weak, not for our algorithms, published, or unable to verify what it signs.
    """
    private = key if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else None
    public = key if private is None else private.public_key()
    algorithm: Algorithm
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < MINIMUM_RSA_BITS:
            raise ConfigurationError(f"is RSA under {MINIMUM_RSA_BITS} bits")
        e, n = public.public_numbers().e, public.public_numbers().n
        if e != _RSA_EXPONENT:
            raise ConfigurationError(f"its RSA exponent is not {_RSA_EXPONENT}")
        algorithm = "RS256"
        members = {"kty": "RSA", "n": _encode_integer(n), "e": _encode_integer(e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if not isinstance(public.curve, ec.SECP256R1):
            raise ConfigurationError("its curve is not P-256")
        x, y = public.public_numbers().x, public.public_numbers().y
        algorithm = "ES256"
        members = {"kty": "EC", "crv": "P-256", "x": _encode_coordinate(x), "y": _encode_coordinate(y)}
    else:
        raise ConfigurationError("is neither RSA nor EC")
    kid = _thumbprint(members)
    if kid in PUBLISHED_KEYS:
        raise ConfigurationError(f"is published: {PUBLISHED_KEYS[kid]}")
    jwk = {**members, "use": "sig", "alg": algorithm, "kid": kid}
    described = SigningKey(kid, algorithm, state, public, private, jwk)
    if private is not None and not described.works():
        raise ConfigurationError("cannot verify what it signs: its parts do not belong together")
    return described if state == "current" else replace(described, private_key=None)


def _thumbprint(members: dict[str, str]) -> str:
    """RFC 7638 section 3: SHA-256 over the required members, sorted, without whitespace."""
    text = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return encode_base64url(hashlib.sha256(text.encode()).digest())


def _integer(jwk: Jwk, name: str) -> int:
    """RFC 7518 section 2, Base64urlUInt. Raises ValueError."""
    value = jwk.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError("missing")
    return int.from_bytes(decode_base64url(value))


def _encode_integer(value: int) -> str:
    return encode_base64url(value.to_bytes((value.bit_length() + 7) // 8))


def _encode_coordinate(value: int) -> str:
    """RFC 7518 section 6.2.1.2: as many octets as the curve has, leading zeros kept."""
    return encode_base64url(value.to_bytes(_COORDINATE_BYTES))

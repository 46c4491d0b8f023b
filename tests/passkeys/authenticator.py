"""A soft authenticator and its browser: makes passkeys and signs with them, rightly or wrongly on request.

Written from W3C Web Authentication Level 3 (sections 5.8.1, 6.1, 6.5, 8) with cryptography and cbor2, and
without the library that the service verifies with.
"""

import json
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any, Literal

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

UP, UV, BE, BS, AT, ED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80

Algorithm = Literal["ES256", "RS256", "EdDSA"]
Format = Literal["none", "packed-self", "packed", "fido-u2f"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """One for the run: making it takes longest."""
    return rsa.generate_private_key(65_537, 2048)


def generate_key(algorithm: Algorithm) -> PrivateKey:
    if algorithm == "RS256":
        return rsa_key()
    return (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ES256"
        else ed25519.Ed25519PrivateKey.generate()
    )


def cose_of(key: PrivateKey) -> dict[int, Any]:
    """RFC 9053."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        return {1: 3, 3: -257, -1: public.n.to_bytes(256), -2: public.e.to_bytes(3)}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        return {1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)}
    return {1: 1, 3: -8, -1: 6, -2: key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)}


def sign(key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(SHA256()))
    return key.sign(data)


@cache
def attestation_certificate() -> tuple[ec.EllipticCurvePrivateKey, list[bytes]]:
    """A maker's certificate and its own authority (section 8.2.1), and the key of the first."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Soft Authenticators Root")])
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Soft Authenticators"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Authenticator Attestation"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Soft Authenticator 1"),
        ]
    )
    now = datetime.now(UTC)

    def certify(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> bytes:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(authority, SHA256())
            .public_bytes(Encoding.DER)
        )

    leaf = certify(name, key.public_key(), is_authority=False)
    return key, [leaf, certify(root_name, authority.public_key(), is_authority=True)]


@dataclass
class Passkey:
    """A credential, as its authenticator keeps it."""

    rp_id: str
    user_handle: bytes
    key: PrivateKey
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    sign_count: int = 0


@dataclass
class Authenticator:
    """One device with a browser at `origin`.

    Every attribute may be changed between ceremonies: that is how a wrong one is made. `counts` False: as
    synchronised passkeys, whose counter is always zero.
    """

    origin: str = "https://auth.example.com"
    algorithm: Algorithm = "ES256"
    attestation: Format = "none"
    aaguid: bytes = bytes(16)
    verifies_user: bool = True
    present: bool = True
    eligible: bool = False
    backed_up: bool = False
    counts: bool = True
    cross_origin: bool | None = False
    passkeys: list[Passkey] = field(default_factory=list)

    def create(
        self, options: Mapping[str, Any], *, type_: str = "webauthn.create", rp_id: str | None = None
    ) -> dict[str, Any]:
        """Answer navigator.credentials.create()."""
        excluded = {decode(descriptor["id"]) for descriptor in options["excludeCredentials"]}
        if excluded & {passkey.credential_id for passkey in self.passkeys}:
            raise ValueError("InvalidStateError: it is registered already")
        passkey = Passkey(
            rp_id=rp_id or options["rp"]["id"],
            user_handle=decode(options["user"]["id"]),
            key=generate_key(self.algorithm),
        )
        self.passkeys.append(passkey)
        return self.attest(passkey, options, type_=type_)

    def attest(
        self, passkey: Passkey, options: Mapping[str, Any], *, type_: str = "webauthn.create"
    ) -> dict[str, Any]:
        """Answer for a passkey that exists: what a browser would not do."""
        client_data = self._client_data(type_, options["challenge"])
        credential = (
            self.aaguid
            + struct.pack(">H", len(passkey.credential_id))
            + passkey.credential_id
            + cbor2.dumps(cose_of(passkey.key))
        )
        data = self._authenticator_data(passkey, AT) + credential
        statement = self._statement(passkey, data, sha256(client_data).digest())
        attestation = {"fmt": self.attestation.removesuffix("-self"), "attStmt": statement, "authData": data}
        return {
            "id": encode(passkey.credential_id),
            "rawId": encode(passkey.credential_id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encode(client_data),
                "attestationObject": encode(cbor2.dumps(attestation)),
                "transports": ["internal", "hybrid"],
            },
        }

    def get(
        self,
        options: Mapping[str, Any],
        *,
        type_: str = "webauthn.get",
        passkey: Passkey | None = None,
        user_handle: bytes | None = None,
    ) -> dict[str, Any]:
        """Answer navigator.credentials.get(); `user_handle` empty: none."""
        chosen = passkey or self._choose(options)
        chosen.sign_count += int(self.counts)
        client_data = self._client_data(type_, options["challenge"])
        data = self._authenticator_data(chosen)
        handle = chosen.user_handle if user_handle is None else user_handle
        return {
            "id": encode(chosen.credential_id),
            "rawId": encode(chosen.credential_id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encode(client_data),
                "authenticatorData": encode(data),
                "signature": encode(sign(chosen.key, data + sha256(client_data).digest())),
                "userHandle": encode(handle) if handle else None,
            },
        }

    def _choose(self, options: Mapping[str, Any]) -> Passkey:
        allowed = {decode(descriptor["id"]) for descriptor in options.get("allowCredentials", [])}
        return next(
            passkey
            for passkey in reversed(self.passkeys)
            if passkey.rp_id == options["rpId"] and (not allowed or passkey.credential_id in allowed)
        )

    def _client_data(self, type_: str, challenge: str) -> bytes:
        written: dict[str, Any] = {"type": type_, "challenge": challenge, "origin": self.origin}
        if self.cross_origin is not None:
            written["crossOrigin"] = self.cross_origin
        return json.dumps(written).encode()

    def _authenticator_data(self, passkey: Passkey, flags: int = 0) -> bytes:
        flags |= UP * self.present | UV * self.verifies_user | BE * self.eligible | BS * self.backed_up
        return sha256(passkey.rp_id.encode()).digest() + struct.pack(">BI", flags, passkey.sign_count)

    def _statement(self, passkey: Passkey, data: bytes, client_data_hash: bytes) -> dict[str, Any]:
        if self.attestation == "none":
            return {}
        if self.attestation == "packed-self":
            return {"alg": cose_of(passkey.key)[3], "sig": sign(passkey.key, data + client_data_hash)}
        key, chain = attestation_certificate()
        if self.attestation == "packed":
            return {"alg": -7, "sig": sign(key, data + client_data_hash), "x5c": chain}
        point = cose_of(passkey.key)
        signed = b"\0" + data[:32] + client_data_hash + passkey.credential_id + b"\4" + point[-2] + point[-3]
        return {"sig": sign(key, signed), "x5c": chain[:1]}

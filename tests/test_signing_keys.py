"""Where signing keys come from, which are refused, and what is published of them."""

import base64
import functools
import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import ECKey, RSAKey

from auth_manager.errors import ConfigurationError
from auth_manager.settings import Settings
from auth_manager.signing_keys import (
    PUBLISHED_KEYS,
    Algorithm,
    KeySet,
    decode_base64url,
    encode_base64url,
    generate_signing_key,
    load_key_set,
    parse_key_set,
    parse_public_jwk,
    serialize_key_set,
)

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}
SECRET_ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:signing-keys-AbCdEf"

RFC_7515_A_3: dict[str, object] = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}
RFC_7517_A_2_EC: dict[str, object] = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
}
RFC_7638_3_1 = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJE"
        "CPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Q"
        "vzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6"
        "WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
}
JWT_IO_ES256 = (
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n"
    "OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n"
    "1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n"
    "-----END PRIVATE KEY-----\n"
)


@functools.cache
def jwk_of(algorithm: Algorithm, _number: int = 1) -> dict[str, object]:
    """One of a few keys; RSA keys take long to make."""
    return generate_signing_key(algorithm)


@functools.cache
def rsa_key(bits: int = 2048, exponent: int = 65_537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


def rsa_jwk(key: rsa.RSAPrivateKey) -> dict[str, object]:
    """RFC 7518 section 6.3, written once more: the code under test makes none of these sizes."""
    private = key.private_numbers()
    numbers = {"n": private.public_numbers.n, "e": private.public_numbers.e, "d": private.d, "p": private.p}
    numbers |= {"q": private.q, "dp": private.dmp1, "dq": private.dmq1, "qi": private.iqmp}
    texts = {
        name: base64.urlsafe_b64encode(n.to_bytes((n.bit_length() + 7) // 8)) for name, n in numbers.items()
    }
    return {"kty": "RSA", **{name: text.rstrip(b"=").decode() for name, text in texts.items()}}


def pem_of(key: Any, private_format: PrivateFormat = PrivateFormat.PKCS8, password: str = "") -> str:
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    text: bytes = key.private_bytes(Encoding.PEM, private_format, encryption)
    return text.decode()


def public_pem_of(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def public_only(jwk: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in jwk.items() if name not in PRIVATE_MEMBERS}


def parse(*jwks: dict[str, object], algorithm: Algorithm = "ES256", local: bool = False) -> KeySet:
    return parse_key_set(serialize_key_set(jwks), algorithm=algorithm, local=local)


def refusal(text: str, *, algorithm: Algorithm = "ES256", local: bool = False) -> str:
    """Why `text` is refused; whatever the reason is, it holds no piece of the key."""
    with pytest.raises(ConfigurationError) as failure:
        parse_key_set(text, algorithm=algorithm, local=local)
    reason = str(failure.value)
    for piece in re.findall(r"[\w+/-]{20,}", text):
        assert piece not in reason
    assert failure.value.__suppress_context__ or failure.value.__context__ is None
    return reason


def jwks_refusal(*jwks: dict[str, object], algorithm: Algorithm = "ES256", local: bool = False) -> str:
    return refusal(serialize_key_set(jwks), algorithm=algorithm, local=local)


def settings(
    *,
    signing_keys: str = "",
    signing_keys_file: str = "",
    signing_keys_secret_arn: str = "",
    signing_algorithm: Algorithm = "ES256",
    mode: Literal["local", "deployed"] = "deployed",
) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgresql://localhost/auth",
            "public_url": "https://auth.example.com",
            "secret_keys": ["0123456789abcdefghijklmnopqrstuvwxyz"],
            "signing_keys": signing_keys,
            "signing_keys_file": signing_keys_file,
            "signing_keys_secret_arn": signing_keys_secret_arn,
            "signing_algorithm": signing_algorithm,
            "mode": mode,
        }
    )


class TestBase64url:
    @pytest.mark.parametrize("data", [b"", b"\x00", b"\xfb\xff", bytes(range(256))])
    def test_round_trip(self, data: bytes) -> None:
        assert decode_base64url(encode_base64url(data)) == data

    def test_rfc_7515_appendix_c(self) -> None:
        assert encode_base64url(bytes([3, 236, 255, 224, 193])) == "A-z_4ME"

    @pytest.mark.parametrize(
        "text", ["A", "AA=", "AA==", "AB", "AAB", "A A", "AA\n", "+/+/", "AA!", "é", "\ud800"]
    )
    def test_only_the_canonical_text_is_read(self, text: str) -> None:
        with pytest.raises(ValueError):
            decode_base64url(text)


class TestGenerateSigningKey:
    def test_rsa_has_3072_bits(self) -> None:
        key = parse(jwk_of("RS256"), algorithm="RS256").current

        assert isinstance(key.public_key, rsa.RSAPublicKey)
        assert key.public_key.key_size == 3072
        assert key.public_key.public_numbers().e == 65_537

    def test_es256_is_on_p_256(self) -> None:
        key = parse(jwk_of("ES256")).current

        assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
        assert isinstance(key.public_key.curve, ec.SECP256R1)

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_another_library_reads_it(self, algorithm: Algorithm) -> None:
        jwk = jwk_of(algorithm)
        importer = RSAKey if algorithm == "RS256" else ECKey
        imported = importer.import_key({name: str(value) for name, value in jwk.items()})

        assert imported.is_private
        assert imported.thumbprint() == jwk["kid"]

    def test_no_two_are_alike(self) -> None:
        assert jwk_of("ES256", 1)["kid"] != jwk_of("ES256", 2)["kid"]

    def test_it_says_its_state(self) -> None:
        assert generate_signing_key("ES256")["state"] == "current"
        assert generate_signing_key("ES256", "next")["state"] == "next"


class TestParseJwkSet:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_the_current_key_signs_and_verifies(self, algorithm: Algorithm) -> None:
        key = parse(jwk_of(algorithm), algorithm=algorithm).current
        signature = key.sign(b"message")

        assert key.verifies(b"message", signature)
        assert not key.verifies(b"massage", signature)

    def test_a_single_key_without_state_is_current(self) -> None:
        jwk = {name: value for name, value in jwk_of("ES256").items() if name != "state"}

        assert parse(jwk).current.kid == jwk["kid"]

    def test_only_the_current_key_keeps_its_private_half(self) -> None:
        key_set = parse(
            jwk_of("ES256", 1) | {"state": "next"},
            jwk_of("ES256", 2) | {"state": "current"},
            jwk_of("ES256", 3) | {"state": "previous"},
        )

        assert [key.private_key is not None for key in key_set.keys] == [False, True, False]
        assert key_set.current.kid == jwk_of("ES256", 2)["kid"]
        with pytest.raises(ValueError, match="only verifies"):
            key_set.keys[0].sign(b"message")

    def test_a_previous_key_may_be_public_and_of_another_algorithm(self) -> None:
        retired = public_only(jwk_of("RS256")) | {"state": "previous"}

        assert [key.algorithm for key in parse(retired, jwk_of("ES256")).keys] == ["RS256", "ES256"]

    def test_the_kid_is_the_thumbprint_whatever_the_source_says(self) -> None:
        assert parse(jwk_of("ES256") | {"kid": "mine"}).current.kid == jwk_of("ES256")["kid"]

    @pytest.mark.parametrize(
        "text",
        ["{}", "[]", "null", "1", '"x"', '{"keys": null}', '{"keys": []}', '{"keys": {}}', '{"keys": ["x"]}'],
    )
    def test_what_is_no_jwk_set_is_refused(self, text: str) -> None:
        assert "not a JWK set" in refusal(text)

    @pytest.mark.parametrize("text", ["", "secret", "{", "MIIEpAIBAAKCAQEA", "\x00"])
    def test_what_is_neither_pem_nor_json_is_refused(self, text: str) -> None:
        assert "neither PEM nor JSON" in refusal(text)

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_a_symmetric_key_is_refused(self, algorithm: Algorithm) -> None:
        secret: dict[str, object] = {
            "kty": "oct",
            "k": encode_base64url(b"0123456789abcdefghijklmnopqrstuv"),
            "state": "previous",
        }

        assert "key 2: is symmetric" in jwks_refusal(jwk_of(algorithm), secret, algorithm=algorithm)

    @pytest.mark.parametrize("kty", [None, "", "OKP", "rsa", "ec", 1, ["RSA"]], ids=str)
    def test_only_rsa_and_ec_are_known(self, kty: object) -> None:
        if isinstance(kty, list):
            kty = str(kty)

        assert "neither RSA nor EC" in jwks_refusal(jwk_of("ES256") | {"kty": kty})

    @pytest.mark.parametrize("bits", [1024, 1536, 2040])
    def test_rsa_under_2048_bits_is_refused(self, bits: int) -> None:
        assert "key 1: is RSA under 2048 bits" in jwks_refusal(rsa_jwk(rsa_key(bits)), algorithm="RS256")

    def test_rsa_of_2048_bits_is_accepted(self) -> None:
        assert parse(rsa_jwk(rsa_key()), algorithm="RS256").current.algorithm == "RS256"

    def test_another_exponent_is_refused(self) -> None:
        assert "exponent" in jwks_refusal(rsa_jwk(rsa_key(2048, 3)), algorithm="RS256")

    @pytest.mark.parametrize("curve", ["P-384", "P-521", "secp256k1", "", None])
    def test_another_curve_is_refused(self, curve: object) -> None:
        assert "curve is not P-256" in jwks_refusal(jwk_of("ES256") | {"crv": curve})

    @pytest.mark.parametrize("name", ["x", "y"])
    def test_a_point_off_the_curve_is_refused(self, name: str) -> None:
        assert "valid EC key" in jwks_refusal(jwk_of("ES256") | {name: jwk_of("ES256", 2)[name]})

    @pytest.mark.parametrize("name", ["d", "p", "q", "dp", "dq", "qi", "n", "e"])
    @pytest.mark.parametrize("value", [None, "", 1, "AQAB=", "not base64!", ["AQAB"]], ids=str)
    def test_a_damaged_rsa_member_is_refused(self, name: str, value: object) -> None:
        assert "key 1:" in jwks_refusal(jwk_of("RS256") | {name: value}, algorithm="RS256")

    def test_parts_of_two_rsa_keys_are_refused(self) -> None:
        other = jwk_of("RS256", 2)
        mixed = jwk_of("RS256") | {name: other[name] for name in PRIVATE_MEMBERS & other.keys()}

        assert "key 1: its members do not make a valid RSA key" in jwks_refusal(mixed, algorithm="RS256")

    def test_a_key_that_cannot_verify_what_it_signs_is_refused(self) -> None:
        """Validating an RSA key would cost a hundred times the self-test that finds this."""
        other = jwk_of("RS256", 2)
        mixed = jwk_of("RS256") | {name: other[name] for name in ("d", "dp", "dq")}

        assert "cannot verify what it signs" in jwks_refusal(mixed, algorithm="RS256")

    def test_an_ec_key_with_the_private_half_of_another_is_refused(self) -> None:
        assert "key 1:" in jwks_refusal(jwk_of("ES256") | {"d": jwk_of("ES256", 2)["d"]})

    @pytest.mark.parametrize(
        "member",
        [
            {"alg": "RS512"},
            {"alg": "HS256"},
            {"alg": "RS256"},
            {"alg": "none"},
            {"use": "enc"},
            {"use": None},
        ],
        ids=str,
    )
    def test_a_key_for_something_else_is_refused(self, member: dict[str, object]) -> None:
        assert "use and alg must be sig and ES256" in jwks_refusal(jwk_of("ES256") | member)

    @pytest.mark.parametrize("state", ["", "active", "Current", None, 1, True])
    def test_an_unknown_state_is_refused(self, state: object) -> None:
        assert "key 1: its state must be one of next, current, previous" in jwks_refusal(
            jwk_of("ES256") | {"state": state}
        )

    def test_several_keys_need_states(self) -> None:
        stateless = {name: value for name, value in jwk_of("ES256", 2).items() if name != "state"}

        assert "key 2: its state must be one of" in jwks_refusal(jwk_of("ES256"), stateless)

    def test_a_set_without_current_key_is_refused(self) -> None:
        keys = [jwk_of("ES256", 1) | {"state": "next"}, jwk_of("ES256", 2) | {"state": "previous"}]

        assert "0 keys are current" in jwks_refusal(*keys)

    def test_a_set_with_two_current_keys_is_refused(self) -> None:
        assert "2 keys are current" in jwks_refusal(jwk_of("ES256", 1), jwk_of("ES256", 2))

    def test_a_current_key_without_private_half_is_refused(self) -> None:
        assert "public only" in jwks_refusal(public_only(jwk_of("ES256")))

    def test_the_same_key_twice_is_refused(self) -> None:
        duplicate = public_only(jwk_of("ES256")) | {"state": "previous", "kid": "another"}

        assert "twice" in jwks_refusal(jwk_of("ES256"), duplicate)

    @pytest.mark.parametrize(("algorithm", "other"), [("RS256", "ES256"), ("ES256", "RS256")])
    def test_the_setting_must_match_the_current_key(self, algorithm: Algorithm, other: Algorithm) -> None:
        reason = jwks_refusal(jwk_of(algorithm), algorithm=other)

        assert f"current key is for {algorithm}; AUTH_SIGNING_ALGORITHM is {other}" in reason

    def test_a_key_made_for_local_mode_starts_no_deployment(self) -> None:
        local_key = jwk_of("ES256") | {"local": True}

        assert "key 1: is a default key" in jwks_refusal(local_key)
        assert "key 2: is a default key" in jwks_refusal(
            jwk_of("ES256", 2), public_only(local_key) | {"state": "previous"}
        )
        assert parse(local_key, local=True).current.kid == jwk_of("ES256")["kid"]

    @pytest.mark.parametrize("local", [False, True])
    @pytest.mark.parametrize("jwk", [RFC_7515_A_3, RFC_7517_A_2_EC], ids=["RFC 7515", "RFC 7517"])
    def test_a_key_in_print_is_refused(self, jwk: dict[str, object], local: bool) -> None:  # noqa: FBT001
        assert "is published: RFC 75" in jwks_refusal(jwk, local=local)

    def test_a_key_in_print_does_not_even_verify(self) -> None:
        retired: dict[str, object] = {**RFC_7638_3_1, "state": "previous"}

        assert "key 2: is published: RFC 7517" in jwks_refusal(jwk_of("ES256"), retired)

    def test_the_published_keys_are_thumbprints(self) -> None:
        assert {len(decode_base64url(thumbprint)) for thumbprint in PUBLISHED_KEYS} == {32}
        assert "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" in PUBLISHED_KEYS, (
            "as RFC 7638 section 3.1 prints it"
        )


class TestParsePem:
    @pytest.mark.parametrize("private_format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_a_single_key_is_current(self, private_format: PrivateFormat) -> None:
        key_set = parse_key_set(pem_of(rsa_key(), private_format), algorithm="RS256", local=False)

        assert [key.state for key in key_set.keys] == ["current"]
        assert key_set.current.verifies(b"message", key_set.current.sign(b"message"))

    def test_the_first_is_current_and_the_others_are_previous(self) -> None:
        current, retired = ec.generate_private_key(ec.SECP256R1()), rsa_key()
        text = f"# since January\n{pem_of(current)}\n# before\n{public_pem_of(retired)}"
        key_set = parse_key_set(text, algorithm="ES256", local=False)

        assert [(key.state, key.algorithm) for key in key_set.keys] == [
            ("current", "ES256"),
            ("previous", "RS256"),
        ]

    def test_a_variable_of_one_line_is_read(self) -> None:
        text = pem_of(ec.generate_private_key(ec.SECP256R1())).replace("\n", "\\n")

        assert parse_key_set(text, algorithm="ES256", local=False).current.algorithm == "ES256"

    def test_openssl_ecparam_output_is_read(self) -> None:
        parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        text = parameters + pem_of(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL)

        assert parse_key_set(text, algorithm="ES256", local=False).current.algorithm == "ES256"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (pem_of(rsa_key(1024)), "is RSA under 2048 bits"),
            (pem_of(rsa_key(2048, 3)), "exponent"),
            (pem_of(ec.generate_private_key(ec.SECP384R1())), "curve is not P-256"),
            (pem_of(ec.generate_private_key(ec.SECP256K1())), "curve is not P-256"),
            (pem_of(ed25519.Ed25519PrivateKey.generate()), "neither RSA nor EC"),
            (pem_of(rsa_key(), password="correct horse"), "is encrypted"),
            (pem_of(rsa_key(), PrivateFormat.TraditionalOpenSSL, "correct horse"), "is encrypted"),
            (pem_of(rsa_key()).replace("\nM", "\nX", 1), "not a readable PEM key"),
            ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", "not a readable PEM key"),
            (public_pem_of(rsa_key()), "public only"),
            (pem_of(rsa_key()).replace("END", "STOP"), "no PEM key in it"),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "no PEM key in it"),
            (JWT_IO_ES256, "is published: the ES256 example of jwt.io"),
            (pem_of(rsa_key()) * 2, "twice"),
        ],
        ids=lambda value: "" if "-----" in value else value,
    )
    def test_an_unusable_key_is_refused(self, text: str, reason: str) -> None:
        assert reason in refusal(text, algorithm="RS256")

    def test_damaged_bytes_are_refused(self) -> None:
        """A flipped bit in the private numbers: what skipping the validation must not let through."""
        der = bytearray(rsa_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        for position in range(300, len(der) - 1, 61):
            damaged = bytearray(der)
            damaged[position] ^= 0x40
            body = base64.b64encode(damaged).decode()
            text = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"
            try:
                key = parse_key_set(text, algorithm="RS256", local=False).current
            except ConfigurationError:
                continue
            # OpenSSL checks its own result, and signs with the numbers that are not damaged.
            assert key.verifies(b"message", key.sign(b"message")), position


class TestPublicJwks:
    def test_public_members_and_nothing_more(self) -> None:
        keys = [
            jwk_of("RS256") | {"state": "next"},
            jwk_of("ES256"),
            jwk_of("ES256", 2) | {"state": "previous"},
        ]
        published = parse(*keys).public_jwks()

        assert [key.keys() for key in published["keys"]] == [
            {"kty", "n", "e", "use", "alg", "kid"},
            {"kty", "crv", "x", "y", "use", "alg", "kid"},
            {"kty", "crv", "x", "y", "use", "alg", "kid"},
        ]
        for key, jwk in zip(published["keys"], keys, strict=True):
            assert key == {name: jwk[name] for name in key}
            assert key["use"] == "sig"

    def test_coordinates_keep_their_leading_zeros(self) -> None:
        """RFC 7518 section 6.2.1.2; one key in 128 has such a coordinate."""
        scalar = next(d for d in range(1, 5000) if _x_of(d) < 2**248)
        private = ec.derive_private_key(scalar, ec.SECP256R1())
        [key] = parse_key_set(pem_of(private), algorithm="ES256", local=False).public_jwks()["keys"]

        assert len(decode_base64url(key["x"])) == 32

    def test_nothing_private_is_printed(self) -> None:
        key_set = parse(jwk_of("ES256"))

        assert str(jwk_of("ES256")["d"]) not in repr(key_set)
        assert str(jwk_of("ES256")["d"]) not in json.dumps(key_set.public_jwks())


class TestParsePublicJwk:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_it_verifies_what_the_pair_signed(self, algorithm: Algorithm) -> None:
        private = generate_signing_key(algorithm)
        key_set = parse_key_set(serialize_key_set([private]), algorithm=algorithm, local=False)
        for jwk in (key_set.current.public_jwk, private):
            read = parse_public_jwk(jwk)
            assert (read.kid, read.private_key, read.state) == (key_set.current.kid, None, "previous")
            assert read.verifies(b"m", key_set.current.sign(b"m"))

    @pytest.mark.parametrize(
        "jwk", [{}, {"kty": "oct", "k": "AAAA"}, {"kty": "EC", "crv": "P-256"}, RFC_7515_A_3]
    )
    def test_what_is_none_of_ours(self, jwk: dict[str, object]) -> None:
        with pytest.raises(ConfigurationError):
            parse_public_jwk(jwk)


class TestLoadKeySet:
    def test_from_the_variable(self) -> None:
        loaded = load_key_set(settings(signing_keys=serialize_key_set([jwk_of("ES256")])))

        assert loaded.current.kid == jwk_of("ES256")["kid"]

    def test_from_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "keys.pem"
        file.write_text(pem_of(rsa_key()))

        loaded = load_key_set(settings(signing_keys_file=str(file), signing_algorithm="RS256"))
        assert loaded.current.algorithm == "RS256"

    def test_from_the_secret(self) -> None:
        secrets = {SECRET_ARN: serialize_key_set([jwk_of("ES256")])}

        loaded = load_key_set(settings(signing_keys_secret_arn=SECRET_ARN), secrets.__getitem__)
        assert loaded.current.kid == jwk_of("ES256")["kid"]

    def test_what_fetching_the_secret_raises_passes_through(self) -> None:
        secrets: dict[str, str] = {}

        with pytest.raises(KeyError):
            load_key_set(settings(signing_keys_secret_arn=SECRET_ARN), secrets.__getitem__)

    def test_a_secret_that_nobody_can_fetch_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="AUTH_SIGNING_KEYS_SECRET_ARN"):
            load_key_set(settings(signing_keys_secret_arn=SECRET_ARN))

    def test_no_key_at_all_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no signing key: set one of AUTH_SIGNING_KEYS, "):
            load_key_set(settings())

    def test_no_key_at_all_is_refused_in_local_mode_too(self) -> None:
        with pytest.raises(ConfigurationError, match="no signing key"):
            load_key_set(settings(mode="local"))

    def test_two_sources_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigurationError, match="AUTH_SIGNING_KEYS and AUTH_SIGNING_KEYS_FILE are both set"
        ):
            load_key_set(settings(signing_keys="x", signing_keys_file=str(tmp_path)))

    def test_the_variable_wins_over_the_secret(self) -> None:
        text = serialize_key_set([jwk_of("ES256")])

        loaded = load_key_set(settings(signing_keys=text, signing_keys_secret_arn=SECRET_ARN))
        assert loaded.current.kid == jwk_of("ES256")["kid"]

    @pytest.mark.parametrize("name", ["missing.json", ".", "binary"])
    def test_an_unreadable_file_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigurationError, match="AUTH_SIGNING_KEYS_FILE: cannot be read"):
            load_key_set(settings(signing_keys_file=str(tmp_path / name)))

    def test_the_reason_names_the_variable_and_no_key(self, tmp_path: Path) -> None:
        text = serialize_key_set([jwk_of("ES256") | {"crv": "P-384"}])
        file = tmp_path / "keys.json"
        file.write_text(text)
        for name, source in {
            "AUTH_SIGNING_KEYS": settings(signing_keys=text),
            "AUTH_SIGNING_KEYS_FILE": settings(signing_keys_file=str(file)),
            "AUTH_SIGNING_KEYS_SECRET_ARN": settings(signing_keys_secret_arn=SECRET_ARN),
        }.items():
            with pytest.raises(ConfigurationError) as failure:
                load_key_set(source, {SECRET_ARN: text}.__getitem__)
            assert str(failure.value) == f"{name}: key 1: its curve is not P-256"

    def test_the_mode_decides_on_local_keys(self) -> None:
        text = serialize_key_set([jwk_of("ES256") | {"local": True}])

        assert load_key_set(settings(signing_keys=text, mode="local")).current.private_key
        with pytest.raises(ConfigurationError, match="AUTH_SIGNING_KEYS: key 1: is a default key"):
            load_key_set(settings(signing_keys=text))


def _x_of(scalar: int) -> int:
    return ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers().x

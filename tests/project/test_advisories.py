"""One case for each known advisory of a peer that must not repeat here (docs/security.md lists them).

Without a case yet, for want of the feature: federation (FastAPI-Users CVE-2025-68481, a state bound to
nobody; supabase CVE-2026-31813, an ID token of the attacker's own issuer), second factors (Kratos
GHSA-wc43-73w7-x2f5, one not asked for; allauth 0.61.0, a code used twice), OAuth clients (authentik
CVE-2026-40166, their secrets in a user's list). For allauth 65.3.0, an unknown user told by the time, see
tests/end_to_end/test_timing.py.
"""

import base64
import hashlib
import hmac
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr
from starlette.testclient import TestClient

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.audit import Origin
from auth_manager.email_login import service as email_login
from auth_manager.errors import (
    AuthError,
    ConfigurationError,
    InvalidCredentials,
    InvalidFields,
    InvalidOneTimeSecret,
    InvalidToken,
    RefreshTokenReused,
    SessionEnded,
    TooManyAttempts,
)
from auth_manager.login import service as login
from auth_manager.one_time_secrets import Purpose
from auth_manager.proofs import Proof
from auth_manager.resources import Resources
from auth_manager.secret_keys import SecretKeys
from auth_manager.sessions import service as sessions
from auth_manager.signing_keys import (
    Algorithm,
    KeySet,
    SigningKey,
    generate_signing_key,
    parse_key_set,
    serialize_key_set,
)
from auth_manager.tokens import AccessTokens, Cursors

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


# --- advisories about everything but tokens --------------------------------------------------------

PASSWORD = "a long and dull passphrase"
PERSON = {"email": "test@example.com", "username": "testuser", "password": PASSWORD}


def origin() -> Origin:
    return Origin(address="203.0.113.7", user_agent="", request_id="r", now=datetime.now(UTC))


def register(resources: Resources, **fields: Any) -> None:
    accounts.register(resources, origin(), Registration(**{**PERSON, **fields}))


def log_in(resources: Resources, identifier: str, password: str = PASSWORD) -> sessions.TokenGrant:
    return login.log_in(resources, origin(), identifier=identifier, password=password)


def bearer_of(client: TestClient) -> dict[str, str]:
    assert client.post("/auth/register", json=PERSON).status_code == 201
    body = {name: PERSON[name] for name in ("email", "password")}
    return {"Authorization": f"Bearer {client.post('/auth/login', json=body).json()['access_token']}"}


class TestPasswordsAndLogin:
    @pytest.mark.parametrize("length", [73, 128, 256])
    def test_okta_2024_bcrypt_truncation(self, resources: Resources, length: int) -> None:
        """Okta hashed id, username and password together with bcrypt, which reads 72 bytes: any would do."""
        email, username = f"{'e' * 60}@example.com", "u" * 64
        password = "".join(chr(ord("a") + n * 7 % 26) for n in range(length))
        register(resources, email=email, username=username, password=password)

        for identifier in (email, username):
            for wrong in (password[:-1] + "!", password[:72], password[:-1]):
                with pytest.raises(InvalidCredentials):
                    log_in(resources, identifier, wrong)
            log_in(resources, identifier, password)

    def test_zitadel_cve_2023_47111(self, make_resources: Callable[..., Resources]) -> None:
        """ZITADEL compared the counter before it counted: parallel guesses all came before the limit."""
        resources = make_resources(login_failures_before_delay=5)
        register(resources)

        def guess(_: int) -> type[AuthError]:
            try:
                log_in(resources, PERSON["email"], "not that one")
            except AuthError as error:
                return type(error)
            raise AssertionError("a wrong password was accepted")

        with ThreadPoolExecutor(40) as threads:
            outcomes = Counter(threads.map(guess, range(40)))

        assert outcomes == {InvalidCredentials: 5, TooManyAttempts: 35}

    def test_zitadel_cve_2024_32868(self, make_resources: Callable[..., Resources]) -> None:
        """ZITADEL's lock-out did not count every way in. Here an account has one counter for all of them."""
        resources = make_resources(login_failures_before_delay=4)
        register(resources)

        for identifier in ("test@example.com", "testuser", "TEST@Example.com", "TestUser"):
            with pytest.raises(InvalidCredentials):
                log_in(resources, identifier, "not that one")

        for identifier in ("test@example.com", "testuser", "TEST@Example.com", "TestUser"):
            with pytest.raises(TooManyAttempts):
                log_in(resources, identifier)

    @pytest.mark.parametrize("address", ["a", "", "203.0.113.7, a", "unknown", "::ffff:1:1", "%00"])
    def test_authentik_cve_2024_47070(self, client: TestClient, address: str) -> None:
        """authentik skipped the password when X-Forwarded-For held what is no address."""
        client.post("/auth/register", json=PERSON)

        answer = client.post(
            "/auth/login",
            json={"email": PERSON["email"], "password": "not that one"},
            headers={"X-Forwarded-For": address},
        )

        assert answer.json()["code"] == "invalid_credentials"

    @pytest.mark.parametrize(
        ("character", "kinds"),
        [("\u212a", ["verify_email", "already_registered"]), ("\uff4b", ["verify_email", "verify_email"])],
        ids=["kelvin sign", "full-width k"],
    )
    def test_django_cve_2019_19844(
        self, make_resources: Callable[..., Resources], character: str, kinds: list[str]
    ) -> None:
        """Django mailed the typed address, which had only to equal the owner's after case folding."""
        resources = make_resources(require_verified_email=True)
        register(resources, email="mike@example.com")
        register(resources, email=f"mi{character}e@example.com", username="another")

        with resources.database.one_trip() as connection:
            mails = connection.fetch_all("SELECT kind, recipient, account_id FROM outbox ORDER BY id")
        assert [mail["kind"] for mail in mails] == kinds
        to_the_owner = {mail["recipient"] for mail in mails if mail["account_id"] == mails[0]["account_id"]}
        assert to_the_owner == {"mike@example.com"}, "never another spelling of it"

    @pytest.mark.parametrize(
        "email",
        [
            "attacker@evil.example,test@example.com",
            "attacker@evil.example, test@example.com",
            "attacker@evil.example;test@example.com",
            "attacker@evil.example test@example.com",
            "attacker@evil.example\r\nBcc: test@example.com",
            '"attacker@evil.example,"@example.com',
            "test@example.com\x00@evil.example",
            "Test <test@example.com>",
        ],
    )
    def test_next_auth_cve_2022_35924(self, resources: Resources, email: str) -> None:
        """NextAuth took two addresses for one, and mailed the link of the one to both."""
        with pytest.raises(InvalidFields) as refused:
            register(resources, email=email)

        assert [error.code for error in refused.value.errors] == ["email_invalid"]


class TestMailedSecrets:
    def test_zitadel_cve_2024_32868_by_codes(self, make_resources: Callable[..., Resources]) -> None:
        """Codes that are mailed are another way in: each counts where the passwords do."""
        resources = make_resources(login_failures_before_delay=4)
        register(resources)
        request = email_login.start(resources, origin(), PERSON["email"])
        right = resources.one_time_secrets.code(Purpose.EMAIL_LOGIN, request)
        wrong = Proof(request=request, code=f"{(int(right) + 1) % 10**6:06}")

        for _ in range(4):
            with pytest.raises(InvalidOneTimeSecret):
                email_login.log_in(resources, origin(), wrong)

        with pytest.raises(TooManyAttempts):
            log_in(resources, "testuser")
        with pytest.raises(TooManyAttempts):
            email_login.log_in(resources, origin(), Proof(request=request, code=right))

    @pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host", "Forwarded", "X-Forwarded-Proto"])
    def test_supabase_ghsa_3529_5m8x_rpv3_and_zitadel_cve_2025_64101_by_mail(
        self, client: TestClient, header: str
    ) -> None:
        """Nothing of the request but its language reaches what the mail is composed of."""
        evil = "host=evil.example" if header == "Forwarded" else "evil.example"
        client.post("/auth/register", json=PERSON)
        resources: Resources = client.app.state.resources  # type: ignore[attr-defined]

        asked = client.post("/auth/password/forgot", json={"email": PERSON["email"]}, headers={header: evil})

        assert asked.status_code == 202
        with resources.database.one_trip() as connection:
            rows = connection.fetch_all(
                "SELECT outbox::text AS row FROM outbox WHERE kind = 'reset_password'"
            )
        assert len(rows) == 1
        assert "evil" not in rows[0]["row"]

    @pytest.mark.parametrize(
        "path", ["/auth/password/forgot", "/auth/email-login", "/auth/verify-email/resend"]
    )
    @pytest.mark.parametrize("character", ["\u212a", "\uff4b"], ids=["kelvin sign", "full-width k"])
    def test_django_cve_2019_19844_by_mail(self, client: TestClient, path: str, character: str) -> None:
        """Django's own case: the reset of another one's password, mailed to the address as typed."""
        client.post("/auth/register", json={**PERSON, "email": "mike@example.com"})
        resources: Resources = client.app.state.resources  # type: ignore[attr-defined]

        client.post(path, json={"email": f"mi{character}e@example.com"})

        with resources.database.one_trip() as connection:
            rows = connection.fetch_all("SELECT DISTINCT recipient FROM outbox WHERE recipient <> ''")
        assert [row["recipient"] for row in rows] == ["mike@example.com"]

    @pytest.mark.parametrize(
        "path", ["/auth/password/forgot", "/auth/email-login", "/auth/verify-email/resend"]
    )
    def test_next_auth_cve_2022_35924_by_mail(self, client: TestClient, path: str) -> None:
        """NextAuth's own case: a link for the first of two addresses, mailed to both."""
        client.post("/auth/register", json=PERSON)
        both = {"email": f"{PERSON['email']},attacker@evil.example"}

        answer = client.post(path, json=both)

        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "email_invalid")


class TestSessionsAndLists:
    def test_authentik_cve_2025_29928(
        self, resources: Resources, make_resources: Callable[..., Resources]
    ) -> None:
        """authentik's sessions outlived their deletion, depending on where they were kept."""
        register(resources)
        kept, revoked = log_in(resources, "testuser"), log_in(resources, "testuser")
        claims = resources.access_tokens.verify(kept.access_token, now=origin().now)
        sessions.revoke_session(resources, origin(), claims, revoked.session_id)

        for process in (resources, make_resources()):
            with pytest.raises(SessionEnded):
                sessions.refresh(process, origin(), revoked.refresh_token)
            stale = process.access_tokens.verify(revoked.access_token, now=origin().now)
            with pytest.raises(SessionEnded):
                accounts.get_profile(process, origin(), stale)

    def test_keycloak_cve_2026_9802(
        self, resources: Resources, make_resources: Callable[..., Resources]
    ) -> None:
        """Keycloak forgot at a restart which refresh tokens were used up."""
        register(resources)
        first = log_in(resources, "testuser")
        second = sessions.refresh(resources, origin(), first.refresh_token)
        with resources.database.one_trip() as connection:
            connection.add("UPDATE refresh_lines SET rotated_at = rotated_at - interval '1 minute'")
        restarted = make_resources()

        with pytest.raises(RefreshTokenReused):
            sessions.refresh(restarted, origin(), first.refresh_token)
        with pytest.raises(SessionEnded):
            sessions.refresh(restarted, origin(), second.refresh_token)

    def test_kratos_ghsa_hgx2_28f8_6g2r(
        self, resources: Resources, make_settings: Callable[..., Any]
    ) -> None:
        """Kratos sealed page tokens with a published default key, and put what they held into SQL."""
        register(resources)
        claims = resources.access_tokens.verify(log_in(resources, "testuser").access_token, now=origin().now)
        position = b"'; DROP TABLE accounts; --"
        context = f"sessions:{claims.sub}"
        forger = Cursors(SecretKeys([SecretStr("another secret, known to the attacker 0123456789")]))
        own = resources.cursors.seal(position[:16], context=context)

        with pytest.raises(InvalidFields):
            sessions.list_sessions(
                resources, origin(), claims, limit=1, cursor=forger.seal(position, context=context)
            )
        assert sessions.list_sessions(resources, origin(), claims, limit=1, cursor=own).items is not None
        with pytest.raises(ValueError, match="AUTH_SECRET_KEYS"):
            make_settings(secret_keys=())


class TestRequests:
    @pytest.mark.parametrize(
        "host", ["evil.example/health?x=", "evil.example/health#", "evil.example:80:80", "[", "a b"]
    )
    def test_starlette_cve_2026_48710(self, client: TestClient, host: str) -> None:
        """Starlette built `request.url` from any Host, so that its path was the attacker's to choose."""
        protected = client.get("/auth/me", headers={"Host": host})
        public = client.get("/.well-known/openid-configuration", headers={"Host": host})

        assert protected.status_code in {400, 401}
        assert "evil" not in protected.text + public.text

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "text/plain",
            "text/plain;application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/geo+json",
            "application/json, text/plain",
        ],
    )
    def test_fastapi_cve_2021_32677(self, client: TestClient, content_type: str | None) -> None:
        """FastAPI read JSON in a body of any type: a page of another site can send text/plain unasked."""
        headers = {} if content_type is None else {"Content-Type": content_type}

        answer = client.post("/auth/register", content=json.dumps(PERSON), headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")

    @pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host", "Forwarded", "X-Forwarded-Proto"])
    def test_supabase_ghsa_3529_5m8x_rpv3_and_zitadel_cve_2025_64101(
        self, client: TestClient, header: str
    ) -> None:
        """Both built the links in their mails from a header of whoever asked for the mail."""
        headers = {header: "host=evil.example" if header == "Forwarded" else "evil.example"}

        registered = client.post("/auth/register", json=PERSON, headers=headers)
        discovery = client.get("/.well-known/openid-configuration", headers=headers).json()

        assert "evil.example" not in registered.text
        assert discovery["issuer"] == "https://auth.example.com"
        assert discovery["jwks_uri"] == "https://auth.example.com/.well-known/jwks.json"

    def test_better_auth_cve_2025_61928(self, client: TestClient) -> None:
        """Better Auth took the user from the body where there was no session."""
        headers = bearer_of(client)
        victim = client.get("/auth/me", headers=headers).json()["id"]
        for name in ("id", "user_id", "userId", "account_id", "sub"):
            claimed = {name: victim}
            for method, path in (("PATCH", "/auth/me"), ("POST", "/auth/logout")):
                assert client.request(method, path, json=claimed).status_code in {401, 422}
                assert client.request(method, path, json=claimed, headers=headers).status_code == 422
            assert client.get("/auth/me", params=claimed).status_code == 401
            assert client.request("DELETE", "/auth/me", json=claimed).status_code == 401

        assert client.get("/auth/me", headers=headers).status_code == 200

    @pytest.mark.parametrize("field", ["email", "username", "password", "display_name", "attributes"])
    def test_psycopg2_nul_bytes(self, client: TestClient, field: str) -> None:
        """psycopg2 raises ValueError on NUL, which makes a 500 of what a client can send."""
        body: dict[str, Any] = {
            **PERSON,
            field: {"a": "b\x00"} if field == "attributes" else "nul\x00@example.com",
        }

        answer = client.post("/auth/register", json=body)

        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "nul_character")

    def test_psycopg2_nul_bytes_outside_of_a_body(self, client: TestClient) -> None:
        headers = bearer_of(client)

        assert client.get("/auth/sessions?cursor=%00", headers=headers).status_code == 422
        assert client.delete("/auth/sessions/%00", headers=headers).status_code == 404
        assert client.get("/auth/sessions", headers={**headers, "User-Agent": "a\x00b"}).status_code == 200

"""/auth/passkeys/authentication as a browser and its authenticator see it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from tests.passkeys.authenticator import (
    Authenticator,
    Passkey,
    generate_key,
)
from tests.passkeys.spoiled import SPOILED_ANYWAY, WRONG_BROWSERS, Spoil, change_response, flip_last
from tests.passkeys.visitors import REFUSED, Query, Visitor, claims_of, events, problem

MakeClient = Callable[..., TestClient]


class TestOptionsToSignIn:
    def test_are_the_same_for_everybody(self, visitor: Visitor) -> None:
        before = visitor.request_options()["publicKey"]
        visitor.add_passkey()
        after = visitor.request_options()["publicKey"]
        assert before.pop("challenge") != after.pop("challenge")
        assert (
            before
            == after
            == {"rpId": "auth.example.com", "timeout": 600_000, "userVerification": "required"}
        )

    def test_take_no_body(self, client: TestClient) -> None:
        assert client.post("/auth/passkeys/authentication/options").status_code == 200

    def test_are_limited_for_each_address(self, make_client: MakeClient) -> None:
        client = make_client(login_attempts_per_address=3)
        answers = [client.post("/auth/passkeys/authentication/options") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert problem(answers[3]) == (429, "too_many_requests")
        assert 0 < int(answers[3].headers["retry-after"]) <= 900

    @pytest.mark.parametrize(
        ("policy", "alone", "beside"),
        [
            ("required", "required", "required"),
            ("preferred", "required", "preferred"),
            ("discouraged", "discouraged", "discouraged"),
        ],
    )
    def test_ask_for_the_users_verification(
        self, make_client: MakeClient, policy: str, alone: str, beside: str
    ) -> None:
        visitor = Visitor(make_client(passkey_user_verification=policy))
        assert visitor.request_options()["publicKey"]["userVerification"] == alone
        within = visitor.request_options(signed_in=True)
        assert within["publicKey"]["userVerification"] == beside

    def test_a_token_that_is_there_must_be_good(self, client: TestClient) -> None:
        response = client.post(
            "/auth/passkeys/authentication/options", headers={"Authorization": "Bearer nonsense"}
        )
        assert problem(response) == (401, "invalid_token")

    def test_a_session_that_ended_gets_none(self, visitor: Visitor) -> None:
        visitor.client.post("/auth/logout", headers=visitor.headers)
        response = visitor.client.post("/auth/passkeys/authentication/options", headers=visitor.headers)
        assert problem(response) == (401, "session_ended")

    @pytest.mark.parametrize("token", ["ot_" + "a" * 64, "nonsense", ""])
    def test_a_sign_in_that_is_none_gets_none(self, client: TestClient, token: str) -> None:
        response = client.post("/auth/passkeys/authentication/options", json={"mfa_token": token})
        assert problem(response) == (401, "invalid_mfa_token")


class TestSignIn:
    def test_without_a_name(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        response = visitor.sign_in()
        assert response.status_code == 200, response.text
        answer = response.json()
        claims = claims_of(answer)
        assert answer["user"]["id"] == str(visitor.account_id)
        assert (claims["acr"], claims["amr"]) == ("aal2", ["mfa", "pop", "user"])
        assert events(query, "logged_in_by_passkey") == [("success", None)]
        [passkey] = query("SELECT sign_count, last_used_at FROM passkeys")
        assert passkey["sign_count"] == 1
        assert passkey["last_used_at"] is not None

    def test_of_whoever_has_it(self, client: TestClient) -> None:
        visitors = [Visitor(client, f"{name}@example.com") for name in ("one", "two")]
        for visitor in visitors:
            visitor.add_passkey()
        for visitor in visitors:
            assert visitor.sign_in().json()["user"]["email"] == visitor.email

    def test_by_a_synchronised_passkey_that_never_counts(self, visitor: Visitor, query: Query) -> None:
        device = visitor.authenticator
        device.counts, device.eligible, device.backed_up = False, True, True
        assert visitor.add_passkey()["passkey"]["backed_up"] is True
        assert [visitor.sign_in().status_code for _ in range(3)] == [200, 200, 200]
        assert events(query, "passkey_counter_regressed") == []

    def test_needs_the_user_handle_which_says_whose_it_is(self, visitor: Visitor) -> None:
        """WebAuthn section 7.2, step 6: nobody else has said it."""
        visitor.add_passkey()
        assert visitor.sign_in(user_handle=b"").status_code == 401

    def test_from_every_origin_of_the_settings(self, make_client: MakeClient) -> None:
        visitor = Visitor(
            make_client(
                passkey_rp_id="example.com",
                passkey_origins=("https://app.example.com", "https://www.example.com"),
            )
        )
        visitor.authenticator.origin = "https://app.example.com"
        visitor.add_passkey()
        assert visitor.sign_in().status_code == 200
        visitor.authenticator.origin = "https://www.example.com"
        assert visitor.sign_in().status_code == 200
        visitor.authenticator.origin = "https://auth.example.com"
        assert problem(visitor.sign_in()) == REFUSED

    def test_the_same_answer_for_the_same_key(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        options = visitor.request_options()
        body = {
            "request": options["request"],
            "credential": visitor.authenticator.get(options["publicKey"]),
        }
        answers = [
            visitor.client.post(
                "/auth/passkeys/authentication/verify", json=body, headers={"Idempotency-Key": "once"}
            )
            for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].content == answers[1].content
        assert query("SELECT count(*) AS n FROM sessions") == [{"n": 2}]

    def test_of_a_user_who_was_not_verified_is_refused(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        visitor.authenticator.verifies_user = False
        assert problem(visitor.sign_in()) == REFUSED

    def test_is_one_factor_where_verification_is_discouraged(self, make_client: MakeClient) -> None:
        visitor = Visitor(make_client(passkey_user_verification="discouraged"))
        visitor.add_passkey()
        visitor.authenticator.verifies_user = False
        claims = claims_of(visitor.sign_in().json())
        assert (claims["acr"], claims["amr"]) == ("aal1", ["pop"])

    def test_of_a_disabled_account_is_refused(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        assert problem(visitor.sign_in()) == (403, "account_disabled")
        assert query("SELECT count(*) AS n FROM rate_limits WHERE key LIKE 'login:%%' AND count > 0") == [
            {"n": 0}
        ]

    def test_of_an_unproven_address_is_refused_where_it_must_be(
        self, make_client: MakeClient, query: Query
    ) -> None:
        visitor = Visitor(make_client())
        visitor.add_passkey()
        strict = make_client(require_verified_email=True)
        visitor.client = strict
        assert problem(visitor.sign_in()) == (403, "email_not_verified")
        query("UPDATE accounts SET email_verified_at = now() RETURNING 1")
        assert visitor.sign_in().status_code == 200


class TestRefusedSignIn:
    @pytest.fixture
    def owner(self, visitor: Visitor) -> Visitor:
        visitor.add_passkey()
        return visitor

    @pytest.mark.parametrize("change", WRONG_BROWSERS.values(), ids=WRONG_BROWSERS)
    def test_in_a_wrong_place(self, owner: Visitor, change: Callable[[Authenticator], None]) -> None:
        change(owner.authenticator)
        assert problem(owner.sign_in()) == REFUSED

    def test_for_another_relying_party(self, owner: Visitor) -> None:
        mine = owner.authenticator.passkeys[0]
        mine.rp_id = "evil.example.com"
        assert problem(owner.sign_in(passkey=mine)) == REFUSED

    def test_a_registration_is_no_assertion(self, owner: Visitor) -> None:
        assert problem(owner.sign_in(type_="webauthn.create")) == REFUSED

    def test_the_key_of_somebody_else(self, owner: Visitor) -> None:
        """Its credential's id, signed by another key."""
        mine = owner.authenticator.passkeys[0]
        stranger = Passkey(mine.rp_id, mine.user_handle, generate_key("ES256"), mine.credential_id)
        assert problem(owner.sign_in(passkey=stranger)) == REFUSED

    def test_the_user_handle_of_somebody_else(self, owner: Visitor) -> None:
        assert problem(owner.sign_in(user_handle=uuid4().bytes)) == REFUSED

    def test_a_credential_that_nobody_has(self, owner: Visitor, query: Query) -> None:
        stranger = Passkey("auth.example.com", owner.account_id.bytes, generate_key("ES256"))
        assert problem(owner.sign_in(passkey=stranger)) == REFUSED
        assert events(query, "logged_in_by_passkey") == []

    @pytest.mark.parametrize(
        "spoil",
        [
            *SPOILED_ANYWAY.values(),
            change_response("signature", flip_last),
            change_response("signature", lambda _: b""),
            change_response("authenticatorData", flip_last),
            change_response("authenticatorData", lambda data: data[:32] + b"\x1d" + data[33:]),
            change_response("authenticatorData", lambda data: data[:20]),
            change_response("clientDataJSON", lambda data: data + b" "),
            lambda credential: credential["response"].update(userHandle="é"),
            lambda credential: credential.update(rawId=credential["rawId"] + "="),
        ],
        ids=[
            *SPOILED_ANYWAY,
            "signature",
            "no signature",
            "counter",
            "flags",
            "authenticatorData cut off",
            "clientDataJSON",
            "userHandle is no base64",
            "rawId is padded",
        ],
    )
    def test_spoiled(self, owner: Visitor, spoil: Spoil) -> None:
        options = owner.request_options()
        credential = owner.authenticator.get(options["publicKey"])
        spoil(credential)
        assert problem(owner.present(options, credential)) == REFUSED

    def test_every_reason_reads_the_same(self, owner: Visitor) -> None:
        stranger = Passkey("auth.example.com", owner.account_id.bytes, generate_key("ES256"))
        bodies = [
            owner.sign_in(type_="webauthn.create").json(),
            owner.sign_in(passkey=stranger).json(),
            owner.sign_in(user_handle=uuid4().bytes).json(),
        ]
        for body in bodies:
            body.pop("request_id")
        assert bodies[0] == bodies[1] == bodies[2]

    def test_a_replay(self, owner: Visitor, query: Query) -> None:
        options = owner.request_options()
        credential = owner.authenticator.get(options["publicKey"])
        assert owner.present(options, credential).status_code == 200
        assert problem(owner.present(options, credential)) == REFUSED
        assert events(query, "logged_in_by_passkey") == [("success", None), ("failure", "invalid_passkey")]

    def test_of_sixteen_parallel_uses_one_counts(self, make_client: MakeClient, query: Query) -> None:
        owner = Visitor(make_client(login_failures_before_delay=100))
        owner.authenticator.counts = False
        owner.add_passkey()
        options = owner.request_options()
        credential = owner.authenticator.get(options["publicKey"])
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda _: owner.present(options, credential), range(16)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 15
        assert query(
            "SELECT count(*) AS n FROM sessions WHERE 'pop' = ANY(amr) AND NOT 'pwd' = ANY(amr)"
        ) == [{"n": 1}]

    def test_a_challenge_that_expired(self, owner: Visitor, query: Query) -> None:
        options = owner.request_options()
        query("UPDATE one_time_secrets SET expires_at = now() RETURNING 1")
        assert problem(owner.present(options, owner.authenticator.get(options["publicKey"]))) == REFUSED

    def test_a_challenge_of_a_session(self, owner: Visitor) -> None:
        options = owner.request_options(signed_in=True)
        assert problem(owner.present(options, owner.authenticator.get(options["publicKey"]))) == REFUSED

    def test_a_challenge_of_a_second_step(self, owner: Visitor) -> None:
        options = owner.request_options({"mfa_token": owner.mfa_token()})
        assert problem(owner.present(options, owner.authenticator.get(options["publicKey"]))) == REFUSED

    def test_a_challenge_for_registration(self, owner: Visitor) -> None:
        creation, asked = owner.creation_options(), owner.request_options()
        options = asked["publicKey"] | {"challenge": creation["publicKey"]["challenge"]}
        assert problem(owner.present(creation, owner.authenticator.get(options))) == REFUSED

    def test_the_signature_of_another_challenge(self, owner: Visitor) -> None:
        first, second = owner.request_options(), owner.request_options()
        assert problem(owner.present(second, owner.authenticator.get(first["publicKey"]))) == REFUSED

    def test_a_passkey_that_was_removed(self, owner: Visitor) -> None:
        [passkey] = owner.client.get("/auth/passkeys", headers=owner.headers).json()["items"]
        owner.client.delete(f"/auth/passkeys/{passkey['id']}", headers=owner.headers)
        assert problem(owner.sign_in()) == REFUSED


class TestLimits:
    def test_failures_count_with_those_of_the_password(self, make_client: MakeClient, query: Query) -> None:
        visitor = Visitor(make_client(login_failures_before_delay=3))
        visitor.add_passkey()
        for _ in range(2):
            assert problem(visitor.sign_in(type_="webauthn.create")) == REFUSED
        wrong = {"email": visitor.email, "password": "not that one"}
        assert problem(visitor.client.post("/auth/login", json=wrong)) == (401, "invalid_credentials")
        assert problem(visitor.sign_in()) == (429, "too_many_attempts")
        assert problem(visitor.log_in()) == (429, "too_many_attempts")
        assert events(query, "account_locked") == [("failure", "3")]

    def test_passkeys_lock_too(self, make_client: MakeClient, query: Query) -> None:
        visitor = Visitor(make_client(login_failures_before_delay=3))
        visitor.add_passkey()
        answers = [visitor.sign_in(type_="webauthn.create") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert int(answers[3].headers["retry-after"]) == 30
        assert events(query, "account_locked") == [("failure", "3")]

    def test_a_success_ends_the_run(self, make_client: MakeClient, query: Query) -> None:
        visitor = Visitor(make_client(login_failures_before_delay=3))
        visitor.add_passkey()
        for _ in range(2):
            visitor.sign_in(type_="webauthn.create")
        assert visitor.sign_in().status_code == 200
        counters = query("SELECT count FROM rate_limits WHERE key LIKE 'login:account:%%'")
        assert counters == []

    def test_unknown_credentials_count_against_their_address(self, make_client: MakeClient) -> None:
        visitor = Visitor(make_client(login_attempts_per_address=5))
        stranger = Passkey("auth.example.com", visitor.account_id.bytes, generate_key("ES256"))
        options = visitor.request_options()
        credential = visitor.authenticator.get(options["publicKey"], passkey=stranger)
        statuses = [visitor.present(options, credential).status_code for _ in range(6)]
        assert statuses == [401] * 5 + [429]

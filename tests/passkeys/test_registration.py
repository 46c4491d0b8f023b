"""/auth/passkeys/registration as a browser and its authenticator see it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from tests.passkeys.authenticator import (
    Algorithm,
    Authenticator,
    Format,
    decode,
    encode,
)
from tests.passkeys.spoiled import SPOILED_ANYWAY, WRONG_BROWSERS, Spoil, change_response
from tests.passkeys.visitors import Query, Visitor, events, problem

MakeClient = Callable[..., TestClient]


def multiply_passkeys(query: Query, times: int) -> None:
    """Give the account of the one passkey there is as many more."""
    query(
        """
        INSERT INTO passkeys (id, account_id, credential_id, public_key, sign_count, name, transports, aaguid,
                              attestation_format, user_verified, backup_eligible, backed_up, created_at)
        SELECT gen_random_uuid(), account_id, number::text::bytea, public_key, 0, name, transports, aaguid,
               attestation_format, user_verified, backup_eligible, backed_up, created_at
        FROM passkeys, generate_series(1, %(times)s) AS number RETURNING 1
        """,
        times=times,
    )


class TestRegistrationOptions:
    def test_ask_for_a_passkey_that_can_sign_in_without_a_name(self, visitor: Visitor) -> None:
        options = visitor.creation_options()["publicKey"]
        assert options["rp"] == {"id": "auth.example.com", "name": "Auth Manager"}
        assert options["user"] == {
            "id": encode(visitor.account_id.bytes),
            "name": visitor.email,
            "displayName": visitor.email,
        }
        assert options["authenticatorSelection"] == {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": "preferred",
        }
        assert (options["attestation"], options["excludeCredentials"]) == ("none", [])
        assert len(decode(options["challenge"])) == 32

    def test_the_verifier_reads_them(self, visitor: Visitor) -> None:
        from webauthn.helpers import parse_authentication_options_json, parse_registration_options_json

        visitor.add_passkey()
        creation = parse_registration_options_json(visitor.creation_options()["publicKey"])
        request = parse_authentication_options_json(visitor.request_options(signed_in=True)["publicKey"])
        assert creation.exclude_credentials
        assert request.allow_credentials
        assert creation.exclude_credentials[0].id == request.allow_credentials[0].id

    def test_exclude_what_is_registered(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        options = visitor.creation_options()["publicKey"]
        assert options["excludeCredentials"] == [
            {
                "type": "public-key",
                "id": encode(visitor.authenticator.passkeys[0].credential_id),
                "transports": ["internal", "hybrid"],
            }
        ]

    def test_name_the_relying_party_of_the_settings(self, make_client: MakeClient) -> None:
        client = make_client(passkey_rp_id="example.com", passkey_user_verification="required")
        options = Visitor(client).creation_options()["publicKey"]
        assert options["rp"]["id"] == "example.com"
        assert options["authenticatorSelection"]["userVerification"] == "required"

    def test_need_a_session(self, client: TestClient) -> None:
        response = client.post("/auth/passkeys/registration/options")
        assert problem(response) == (401, "missing_token")

    def test_need_a_recent_authentication(self, make_client: MakeClient, query: Query) -> None:
        visitor = Visitor(make_client(recent_authentication=60))
        query("UPDATE sessions SET authenticated_at = now() - interval '61 s' RETURNING 1")
        refresh = visitor.log_in().json()["refresh_token"]
        query("UPDATE sessions SET authenticated_at = now() - interval '61 s' RETURNING 1")
        answer = visitor.client.post("/auth/refresh", json={"refresh_token": refresh}).json()
        visitor.token = answer["access_token"]
        response = visitor.client.post("/auth/passkeys/registration/options", headers=visitor.headers)
        assert problem(response) == (401, "insufficient_user_authentication")

    def test_need_a_proven_address_where_mail_is_sent(self, make_client: MakeClient, query: Query) -> None:
        client = make_client(mail_transport="smtp", mail_from="a@example.com", smtp_url="smtp://127.0.0.1:9")
        visitor = Visitor(client)
        response = client.post("/auth/passkeys/registration/options", headers=visitor.headers)
        assert problem(response) == (403, "email_not_verified")
        query("UPDATE accounts SET email_verified_at = now() RETURNING 1")
        visitor.add_passkey()


class TestRegistration:
    @pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
    def test_every_algorithm_signs_in(self, client: TestClient, algorithm: Algorithm) -> None:
        visitor = Visitor(client, authenticator=Authenticator(algorithm=algorithm))
        visitor.add_passkey()
        assert visitor.sign_in().status_code == 200

    @pytest.mark.parametrize("attestation", ["none", "packed-self", "packed", "fido-u2f"])
    def test_every_attestation_signs_in(self, client: TestClient, attestation: Format) -> None:
        aaguid = bytes(16) if attestation == "fido-u2f" else uuid4().bytes
        visitor = Visitor(client, authenticator=Authenticator(attestation=attestation, aaguid=aaguid))
        passkey = visitor.add_passkey()["passkey"]
        assert passkey["attestation_format"] == attestation.removesuffix("-self")
        assert UUID(passkey["aaguid"]).bytes == aaguid
        assert visitor.sign_in().status_code == 200

    def test_the_first_factor_brings_recovery_codes(self, visitor: Visitor, query: Query) -> None:
        query("UPDATE accounts SET email_verified_at = now() RETURNING 1")
        first, second = visitor.add_passkey(), visitor.add_passkey()
        assert len(set(first["recovery_codes"])) == 10
        assert second["recovery_codes"] == []
        assert events(query, "passkey_added") == [("success", None)] * 2
        mails = query(
            "SELECT details ->> 'name' AS name FROM outbox WHERE kind = 'factors_changed' ORDER BY id"
        )
        assert [mail["name"] for mail in mails] == ["Passkey 1", "Passkey 2"]

    def test_the_session_has_two_factors_then(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        [session] = query("SELECT acr, amr FROM sessions")
        assert session == {"acr": "aal2", "amr": ["mfa", "pop", "pwd", "user"]}

    def test_is_named_by_its_owner(self, visitor: Visitor) -> None:
        assert visitor.add_passkey(name="  My phone ")["passkey"]["name"] == "My phone"

    @pytest.mark.parametrize(
        "name", ["", "   ", "a" * 101, "two\nlines"], ids=["empty", "blank", "long", "lines"]
    )
    def test_a_name_that_is_none_is_refused(self, visitor: Visitor, name: str) -> None:
        options = visitor.creation_options()
        response = visitor.finish(options, visitor.authenticator.create(options["publicKey"]), name=name)
        assert response.json()["errors"][0]["pointer"] == "/name"

    def test_the_same_answer_for_the_same_key(self, visitor: Visitor) -> None:
        options = visitor.creation_options()
        body = {
            "request": options["request"],
            "credential": visitor.authenticator.create(options["publicKey"]),
        }
        headers = visitor.headers | {"Idempotency-Key": "once"}
        answers = [
            visitor.client.post("/auth/passkeys/registration/verify", json=body, headers=headers)
            for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content

    def test_of_another_account_is_refused_without_saying_whose(self, client: TestClient) -> None:
        owner, other = Visitor(client), Visitor(client, "other@example.com")
        owner.add_passkey()
        passkey = owner.authenticator.passkeys[0]
        for visitor in (owner, other):
            options = visitor.creation_options()
            response = visitor.finish(options, owner.authenticator.attest(passkey, options["publicKey"]))
            assert problem(response) == (409, "passkey_known")
            assert response.json()["detail"] == "This passkey is registered already."

    def test_twenty_are_enough(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        unused = visitor.creation_options()
        multiply_passkeys(query, 19)
        begun = visitor.client.post("/auth/passkeys/registration/options", headers=visitor.headers)
        finished = visitor.finish(unused, Authenticator().create(unused["publicKey"]))
        assert [problem(begun), problem(finished)] == [(409, "too_many_factors")] * 2

    def test_parallel_ones_stop_at_twenty(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        multiply_passkeys(query, 16)
        begun = [visitor.creation_options() for _ in range(8)]
        made = [(options, Authenticator().create(options["publicKey"])) for options in begun]
        with ThreadPoolExecutor(8) as threads:
            statuses = list(threads.map(lambda one: visitor.finish(*one).status_code, made))
        assert sorted(statuses) == [201] * 3 + [409] * 5
        assert query("SELECT count(*) AS n FROM passkeys") == [{"n": 20}]

    def test_the_user_must_be_verified_where_that_is_required(self, make_client: MakeClient) -> None:
        visitor = Visitor(make_client(passkey_user_verification="required"))
        visitor.authenticator.verifies_user = False
        options = visitor.creation_options()
        response = visitor.finish(options, visitor.authenticator.create(options["publicKey"]))
        assert response.status_code == 422
        visitor.authenticator.verifies_user = True
        visitor.add_passkey()


class TestRefusedRegistration:
    def refuse(self, visitor: Visitor, credential: dict[str, Any], options: dict[str, Any]) -> None:
        response = visitor.finish(options, credential)
        assert problem(response) == (422, "invalid_fields"), response.text
        [error] = response.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/credential", "passkey_refused")
        listed = visitor.client.get("/auth/passkeys", headers=visitor.headers).json()
        assert listed == {"items": [], "next_cursor": None}

    @pytest.mark.parametrize("change", WRONG_BROWSERS.values(), ids=WRONG_BROWSERS)
    def test_in_a_wrong_place(self, visitor: Visitor, change: Callable[[Authenticator], None]) -> None:
        options = visitor.creation_options()
        change(visitor.authenticator)
        self.refuse(visitor, visitor.authenticator.create(options["publicKey"]), options)

    def test_for_another_relying_party(self, visitor: Visitor) -> None:
        options = visitor.creation_options()
        credential = visitor.authenticator.create(options["publicKey"], rp_id="example.com")
        self.refuse(visitor, credential, options)

    def test_an_assertion_is_no_registration(self, visitor: Visitor) -> None:
        options = visitor.creation_options()
        credential = visitor.authenticator.create(options["publicKey"], type_="webauthn.get")
        self.refuse(visitor, credential, options)

    @pytest.mark.parametrize(
        "spoil",
        [
            *SPOILED_ANYWAY.values(),
            change_response("attestationObject", lambda data: data[:-1]),
            change_response("attestationObject", lambda _: b"\xff"),
            change_response("attestationObject", lambda data: data.replace(b"none", b"ours")),
            lambda credential: credential.update(id=encode(b"other"), rawId=encode(b"other")),
        ],
        ids=[*SPOILED_ANYWAY, "cut off", "no CBOR", "unknown format", "another id than it says inside"],
    )
    def test_spoiled(self, visitor: Visitor, spoil: Spoil) -> None:
        options = visitor.creation_options()
        credential = visitor.authenticator.create(options["publicKey"])
        spoil(credential)
        self.refuse(visitor, credential, options)

    @pytest.mark.parametrize("attestation", ["packed-self", "packed", "fido-u2f"])
    def test_an_attestation_of_something_else(self, client: TestClient, attestation: Format) -> None:
        """It vouches for other client data than came with it."""
        visitor = Visitor(client, authenticator=Authenticator(attestation=attestation))
        options = visitor.creation_options()
        credential = visitor.authenticator.create(options["publicKey"])
        change_response("clientDataJSON", lambda data: data + b" ")(credential)
        self.refuse(visitor, credential, options)

    def test_a_challenge_of_another_session(self, visitor: Visitor) -> None:
        options = visitor.creation_options()
        credential = visitor.authenticator.create(options["publicKey"])
        visitor.token = visitor.log_in().json()["access_token"]
        self.refuse(visitor, credential, options)

    def test_a_challenge_of_another_account(self, client: TestClient) -> None:
        victim, thief = Visitor(client), Visitor(client, "thief@example.com")
        options = victim.creation_options()
        self.refuse(thief, thief.authenticator.create(options["publicKey"]), options)

    def test_a_challenge_for_authentication(self, visitor: Visitor) -> None:
        creation, asked = visitor.creation_options(), visitor.request_options(signed_in=True)
        options = creation["publicKey"] | {"challenge": asked["publicKey"]["challenge"]}
        self.refuse(visitor, visitor.authenticator.create(options), asked)

    def test_a_challenge_that_expired(self, visitor: Visitor, query: Query) -> None:
        options = visitor.creation_options()
        query("UPDATE one_time_secrets SET expires_at = now() RETURNING 1")
        self.refuse(visitor, visitor.authenticator.create(options["publicKey"]), options)

    def test_a_challenge_that_was_used(self, visitor: Visitor) -> None:
        options = visitor.creation_options()
        first = visitor.finish(options, visitor.authenticator.create(options["publicKey"]))
        second = visitor.finish(options, visitor.authenticator.create(options["publicKey"]))
        assert first.status_code == 201
        assert problem(second) == (422, "invalid_fields")

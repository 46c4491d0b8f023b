"""/auth/passkeys, and passkeys beside a password: clones, second factors, authenticating again."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from fastapi.testclient import TestClient
from tests.passkeys.authenticator import (
    Passkey,
    encode,
)
from tests.passkeys.visitors import PASSWORD, REFUSED, Query, Visitor, claims_of, events, problem

MakeClient = Callable[..., TestClient]


class TestChallenges:
    def test_a_session_has_only_so_many_open_ones(self, client: TestClient) -> None:
        visitor = Visitor(client)
        asked = [
            client.post("/auth/passkeys/authentication/options", headers=visitor.headers, json={})
            for _ in range(21)
        ]
        assert [answer.status_code for answer in asked] == [200] * 20 + [429]
        assert asked[-1].headers["retry-after"] == "60"

    def test_transports_are_said_once_each(self, client: TestClient) -> None:
        visitor = Visitor(client)
        options = visitor.creation_options()
        credential = visitor.authenticator.create(options["publicKey"])
        credential["response"]["transports"] = ["internal", "usb"] * 2000
        assert visitor.finish(options, credential).json()["passkey"]["transports"] == ["internal", "usb"]


class TestClones:
    def clone(self, visitor: Visitor) -> Passkey:
        """A copy of the passkey before it was used."""
        mine = visitor.authenticator.passkeys[0]
        copy = Passkey(mine.rp_id, mine.user_handle, mine.key, mine.credential_id, mine.sign_count)
        assert visitor.sign_in().status_code == 200
        return copy

    def test_a_counter_that_goes_backwards_is_refused(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        copy = self.clone(visitor)
        assert problem(visitor.sign_in(passkey=copy)) == REFUSED
        assert events(query, "passkey_counter_regressed") == [("failure", "refused")]
        assert query("SELECT sign_count FROM passkeys") == [{"sign_count": 1}]

    def test_by_setting_it_is_noted_only(self, make_client: MakeClient, query: Query) -> None:
        visitor = Visitor(make_client(passkey_refuse_clones=False))
        visitor.add_passkey()
        copy = self.clone(visitor)
        assert visitor.sign_in().status_code == 200
        assert visitor.sign_in(passkey=copy).status_code == 200
        assert events(query, "passkey_counter_regressed") == [("success", None)]
        assert query("SELECT sign_count FROM passkeys") == [{"sign_count": 2}]

    def test_of_parallel_ones_with_the_same_counter_one_counts(
        self, make_client: MakeClient, query: Query
    ) -> None:
        """Each has a challenge of its own: only the counter tells them apart."""
        visitor = Visitor(make_client(login_failures_before_delay=100))
        visitor.add_passkey()
        mine = visitor.authenticator.passkeys[0]
        made = []
        for _ in range(8):
            options = visitor.request_options()
            copy = Passkey(mine.rp_id, mine.user_handle, mine.key, mine.credential_id, mine.sign_count)
            made.append((options, visitor.authenticator.get(options["publicKey"], passkey=copy)))
        with ThreadPoolExecutor(8) as threads:
            statuses = list(threads.map(lambda one: visitor.present(*one).status_code, made))
        assert sorted(statuses) == [200] + [401] * 7
        assert query("SELECT sign_count FROM passkeys") == [{"sign_count": 1}]

    def test_as_a_second_factor_it_is_refused_and_noted(self, visitor: Visitor, query: Query) -> None:
        visitor.add_passkey()
        copy = self.clone(visitor)
        token = visitor.mfa_token()
        options = visitor.request_options({"mfa_token": token})
        body = {
            "mfa_token": token,
            "passkey": visitor.authenticator.get(options["publicKey"], passkey=copy),
            "passkey_request": options["request"],
        }
        assert problem(visitor.client.post("/auth/login/mfa", json=body)) == (401, "invalid_factor")
        assert events(query, "passkey_counter_regressed") == [("failure", "refused")]


class TestSecondFactor:
    def present(self, visitor: Visitor, token: str, options: dict[str, Any]) -> Any:
        credential = visitor.authenticator.get(options["publicKey"])
        body = {"mfa_token": token, "passkey": credential, "passkey_request": options["request"]}
        return visitor.client.post("/auth/login/mfa", json=body)

    def test_finishes_a_sign_in_by_password(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        token = visitor.mfa_token()
        options = visitor.request_options({"mfa_token": token})
        assert [item["id"] for item in options["publicKey"]["allowCredentials"]] == [
            encode(visitor.authenticator.passkeys[0].credential_id)
        ]
        response = self.present(visitor, token, options)
        assert response.status_code == 200, response.text
        claims = claims_of(response.json())
        assert (claims["acr"], claims["amr"]) == ("aal2", ["mfa", "pop", "pwd", "user"])

    def test_needs_no_verified_user(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        visitor.authenticator.verifies_user = False
        token = visitor.mfa_token()
        response = self.present(visitor, token, visitor.request_options({"mfa_token": token}))
        assert claims_of(response.json())["amr"] == ["mfa", "pop", "pwd"]

    def test_a_challenge_of_another_sign_in_is_refused(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        first, second = visitor.mfa_token(), visitor.mfa_token()
        options = visitor.request_options({"mfa_token": first})
        assert problem(self.present(visitor, second, options)) == (401, "invalid_factor")

    def test_a_challenge_that_anybody_gets_is_refused(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        token = visitor.mfa_token()
        assert problem(self.present(visitor, token, visitor.request_options())) == (401, "invalid_factor")

    def test_the_passkey_of_somebody_else_is_refused(self, client: TestClient) -> None:
        victim, thief = Visitor(client), Visitor(client, "thief@example.com")
        victim.add_passkey()
        thief.add_passkey()
        token = victim.mfa_token()
        options = victim.request_options({"mfa_token": token})
        options["publicKey"].pop("allowCredentials")
        assert problem(self.present(thief, token, options)) == (401, "invalid_factor")


class TestReauthentication:
    def test_by_passkey(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        options = visitor.request_options(signed_in=True)
        body = {
            "passkey": visitor.authenticator.get(options["publicKey"]),
            "passkey_request": options["request"],
        }
        response = visitor.client.post("/auth/reauthenticate", json=body, headers=visitor.headers)
        assert response.status_code == 200, response.text
        assert claims_of(response.json())["acr"] == "aal2"

    def test_a_challenge_of_another_session_is_refused(self, visitor: Visitor) -> None:
        visitor.add_passkey()
        options = visitor.request_options(signed_in=True)
        visitor.token = visitor.sign_in().json()["access_token"]
        body = {
            "passkey": visitor.authenticator.get(options["publicKey"]),
            "passkey_request": options["request"],
        }
        response = visitor.client.post("/auth/reauthenticate", json=body, headers=visitor.headers)
        assert problem(response) == (422, "invalid_fields")
        assert response.json()["errors"][0]["pointer"] == "/passkey"


class TestOwnPasskeys:
    def test_are_listed_oldest_first(self, visitor: Visitor) -> None:
        for name in ("Phone", "Key"):
            visitor.add_passkey(name=name)
        answer = visitor.client.get("/auth/passkeys", headers=visitor.headers).json()
        assert [item["name"] for item in answer["items"]] == ["Phone", "Key"]
        assert answer["next_cursor"] is None
        assert set(answer["items"][0]) == {
            "id",
            "name",
            "aaguid",
            "attestation_format",
            "transports",
            "backed_up",
            "created_at",
            "last_used_at",
        }

    def test_are_read_and_renamed(self, visitor: Visitor) -> None:
        path = f"/auth/passkeys/{visitor.add_passkey()['passkey']['id']}"
        renamed = visitor.client.patch(path, json={"name": "Laptop"}, headers=visitor.headers)
        assert (renamed.status_code, renamed.json()["name"]) == (200, "Laptop")
        assert visitor.client.get(path, headers=visitor.headers).json() == renamed.json()

    def test_those_of_others_do_not_exist(self, client: TestClient) -> None:
        owner, other = Visitor(client), Visitor(client, "other@example.com")
        paths = [f"/auth/passkeys/{owner.add_passkey()['passkey']['id']}", f"/auth/passkeys/{uuid4()}"]
        for path in paths:
            for response in (
                client.get(path, headers=other.headers),
                client.patch(path, json={"name": "Mine"}, headers=other.headers),
                client.delete(path, headers=other.headers),
            ):
                assert problem(response) == (404, "not_found")
        [kept] = client.get("/auth/passkeys", headers=owner.headers).json()["items"]
        assert kept["name"] == "Passkey 1"

    def test_the_last_takes_recovery_codes_and_trusted_devices_with_it(
        self, visitor: Visitor, query: Query
    ) -> None:
        first, second = (visitor.add_passkey()["passkey"]["id"] for _ in range(2))
        query(
            """
            INSERT INTO trusted_devices (id, account_id, password_changed_at, created_at, last_used_at,
                                         expires_at)
            SELECT gen_random_uuid(), id, password_changed_at, now(), now(), now() + interval '1 day'
            FROM accounts RETURNING 1
            """
        )
        left = []
        for passkey_id in (first, second):
            response = visitor.client.delete(f"/auth/passkeys/{passkey_id}", headers=visitor.headers)
            assert response.status_code == 204, response.text
            left += query(
                """
                SELECT (SELECT count(*) FROM recovery_codes) AS codes,
                       (SELECT count(*) FROM trusted_devices) AS devices
                """
            )
        assert left == [{"codes": 10, "devices": 1}, {"codes": 0, "devices": 0}]
        assert events(query, "passkey_removed") == [("success", None)] * 2
        assert visitor.log_in().status_code == 200

    def test_the_last_is_kept_where_policy_asks_for_one(self, make_client: MakeClient) -> None:
        visitor = Visitor(make_client())
        first, second = (visitor.add_passkey()["passkey"]["id"] for _ in range(2))
        strict = make_client(mfa_policy="required")
        assert strict.delete(f"/auth/passkeys/{first}", headers=visitor.headers).status_code == 204
        response = strict.delete(f"/auth/passkeys/{second}", headers=visitor.headers)
        assert problem(response) == (409, "factor_needed")

    def test_are_removed_after_a_second_factor_only(self, visitor: Visitor, query: Query) -> None:
        passkey_id = visitor.add_passkey()["passkey"]["id"]
        query("UPDATE sessions SET acr = 'aal1' RETURNING 1")
        response = visitor.client.delete(f"/auth/passkeys/{passkey_id}", headers=visitor.headers)
        assert problem(response) == (401, "insufficient_user_authentication")
        assert 'acr_values="aal2"' in response.headers["www-authenticate"]

    def test_a_password_still_signs_in_an_account_without_them(self, visitor: Visitor) -> None:
        response = visitor.client.post("/auth/login", json={"email": visitor.email, "password": PASSWORD})
        assert response.status_code == 200

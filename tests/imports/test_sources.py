"""Each importer against an export in its system's documented format, and then a login."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from auth_manager.database import Row
from auth_manager.imports.batches import Progress
from auth_manager.imports.firebase import HashConfig, parse_hash_config
from auth_manager.imports.mapping import parse_mapping
from auth_manager.imports.record import Rules, check
from auth_manager.imports.refusals import Refused
from auth_manager.imports.sources import System, open_source
from auth_manager.passwords import LAZY_HASH, UNUSABLE_HASH

Import = Callable[..., Progress]
Query = Callable[[str], list[Row]]
Rejects = Callable[[], list[dict[str, Any]]]

ADA, GRACE, ALAN = "ada@example.com", "grace@example.com", "alan@example.com"

PEOPLE = [
    (System.AUTH0, "auth0.ndjson", ["ada.lovelace@example.com", GRACE], {}),
    (System.FIREBASE, "firebase.json", [ADA], {"email_missing": 1}),
    (
        System.KEYCLOAK,
        "keycloak.json",
        [ADA, GRACE, ALAN],
        {"role_unknown": 1, "service_account": 1},
    ),
    (System.SUPABASE, "supabase.csv", [ADA, GRACE, ALAN], {"deleted": 1}),
    (
        System.DJANGO,
        "django.json",
        [ADA, GRACE, ALAN, "barbara@example.com"],
        {"password_hash_refused": 1},
    ),
    (System.DJANGO, "django.csv", [ADA], {}),
    (System.WORDPRESS, "wordpress.csv", [ADA, GRACE], {"password_hash_refused": 1}),
    (System.WORDPRESS, "wordpress.json", [ADA], {}),
    (System.DEVISE, "devise.csv", [ADA, GRACE], {}),
    (System.JSON, "plain.jsonl", [ADA], {}),
]
"""System, file, who can sign in afterwards, and why others are refused."""

by_file = pytest.mark.parametrize(
    ("system", "file", "people", "refused"), PEOPLE, ids=[file for _, file, _, _ in PEOPLE]
)


def log_in(client: TestClient, identifier: str, password: str) -> int:
    return client.post("/auth/login", json={"identifier": identifier, "password": password}).status_code


class TestEverySystem:
    @by_file
    def test_people_sign_in_with_the_password_they_had(
        self,
        run_import: Import,
        client: TestClient,
        query: Query,
        samples: Path,
        password: str,
        system: System,
        file: str,
        people: list[str],
        refused: dict[str, int],
    ) -> None:
        outcome = run_import(samples / file, system)
        assert outcome.refused == refused
        assert outcome.position == outcome.created + sum(refused.values())
        before = {row["email_normalized"]: row["password_hash"] for row in _hashes(query)}
        assert len(before) == outcome.created
        for email in people:
            assert log_in(client, email, password + "?") == 401
            assert (
                before[email]
                == {row["email_normalized"]: row for row in _hashes(query)}[email]["password_hash"]
            )
            assert log_in(client, email, password) == 200
        after = {row["email_normalized"]: row["password_hash"] for row in _hashes(query)}
        for email in people:
            assert after[email].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
            assert log_in(client, email, password) == 200
            assert log_in(client, email, password + "?") == 401

    @by_file
    def test_a_second_run_creates_nothing(
        self,
        run_import: Import,
        samples: Path,
        system: System,
        file: str,
        people: list[str],  # noqa: ARG002 -- of the same table
        refused: dict[str, int],
    ) -> None:
        first = run_import(samples / file, system)
        second = run_import(samples / file, system)
        assert second.created == 0
        assert second.refused == refused | {"email_taken": first.created}

    @by_file
    def test_a_dry_run_says_the_same_and_writes_nothing(
        self,
        run_import: Import,
        query: Query,
        rejects: Rejects,
        samples: Path,
        system: System,
        file: str,
        people: list[str],  # noqa: ARG002 -- of the same table
        refused: dict[str, int],
    ) -> None:
        dry = run_import(samples / file, system, dry_run=True)
        told = rejects()
        assert _hashes(query) == []
        assert query("SELECT 1 FROM imports") == []
        assert query("SELECT 1 FROM audit_events") == []
        real = run_import(samples / file, system)
        assert (dry.position, dry.created, dry.refused) == (real.position, real.created, refused)
        assert told == rejects()

    def test_no_reject_quotes_a_hash_or_an_address(
        self, run_import: Import, samples: Path, tmp_path: Path
    ) -> None:
        for system, file, _, _ in PEOPLE:
            run_import(samples / file, system)
            written = (tmp_path / "rejects.jsonl").read_text()
            assert "example.com" not in written
            assert "$2" not in written


ODD = [
    7, -1.5, 1e300, True, "", "x", "a\0b", "\udcff", "scrypt$16384$\udcff$8$1$AAAA", "x" * 2000, [], [None],
    [7], {}, {"x": {}},
    [{"type": "password", "credentialData": '{"algorithm": "argon2", "hashIterations": 1e999}',
      "secretData": '{"salt": "", "value": ""}'}],
]  # fmt: skip
"""What a member might have in place of what it should."""


class TestOddValues:
    @pytest.mark.parametrize(
        ("system", "file"),
        [
            *((system, file) for system, file, _, _ in PEOPLE),
            (System.COGNITO, "cognito.csv"),
            (System.COGNITO, "cognito.json"),
        ],
        ids=str,
    )
    def test_the_worst_that_one_does_is_to_be_refused(self, samples: Path, system: System, file: str) -> None:
        source = open_source(system, hash_config=HashConfig("AAAA", "", 8, 14))
        rules = Rules(now=datetime.now(UTC), accepts_hash=bool, create_roles=True)
        with (samples / file).open("rb") as opened:
            records = [read.record for read in source.read(opened) if isinstance(read.record, dict)]
        refused = 0
        for record in records:
            fields = record.get("fields", record)
            for name, value in product(fields, ODD):
                odd = {**fields, name: value}
                try:
                    check(source.convert({**record, "fields": odd} if "fields" in record else odd), rules)
                except Refused:
                    refused += 1
        assert refused > len(records)


def _hashes(query: Query) -> list[Row]:
    return query("SELECT email_normalized, password_hash FROM accounts")


class TestAuth0:
    def test_what_is_kept(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "auth0.ndjson", System.AUTH0)
        ada, alan, grace = query("SELECT * FROM accounts ORDER BY email_normalized")
        assert ada["email"] == "Ada.Lovelace@example.com"
        assert ada["email_verified_at"] is not None
        assert (grace["email_verified_at"], grace["disabled_at"]) == (None, None)
        assert (alan["display_name"], alan["attributes"]) == ("Alan Turing", {"plan": "paid"})
        assert alan["disabled_at"] is not None
        assert alan["created_at"] == datetime(2021, 3, 5, 16, 34, 12, 189_000, tzinfo=UTC)
        assert query("SELECT 1 FROM account_roles") == []  # app_metadata gives no rights here

    def test_a_blocked_account_stays_shut(
        self, run_import: Import, client: TestClient, samples: Path, password: str
    ) -> None:
        run_import(samples / "auth0.ndjson", System.AUTH0)
        assert log_in(client, ALAN, password) == 403


class TestFirebase:
    def test_what_is_kept(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "firebase.json", System.FIREBASE)
        ada, off, social = query("SELECT * FROM accounts ORDER BY email_normalized")
        assert (ada["display_name"], ada["attributes"]) == ("Ada Lovelace", {})
        assert ada["created_at"] == datetime(2021, 1, 1, tzinfo=UTC)
        assert off["disabled_at"] is not None
        assert social["password_hash"] == UNUSABLE_HASH

    def test_hashes_without_their_parameters_are_refused(self, run_import: Import, samples: Path) -> None:
        outcome = run_import(samples / "firebase.json", System.FIREBASE, hash_config=None)
        assert outcome.refused == {"email_missing": 1, "hash_config_missing": 2}

    @pytest.mark.parametrize("salt", [None, "", "c2FsdA==", "?"])
    @pytest.mark.parametrize("digest", ["UkVEQUNURUQ=", "UkVEQUNURUQ"])
    def test_a_hash_that_was_left_out_is_refused(
        self, run_import: Import, tmp_path: Path, digest: str, salt: str | None
    ) -> None:
        file = tmp_path / "users.json"
        file.write_text(json.dumps({"users": [{"email": ADA, "passwordHash": digest, "salt": salt}]}))
        assert run_import(file, System.FIREBASE).refused == {"hash_redacted": 1}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "algorithm: BCRYPT",
            "base64_signer_key: AA==, rounds: x, mem_cost: 14",
            "rounds: 8, mem_cost: 14",
        ],
    )
    def test_parameters_that_are_none(self, text: str) -> None:
        with pytest.raises(ValueError):
            parse_hash_config(text)


class TestKeycloak:
    def test_what_is_kept(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "keycloak.json", System.KEYCLOAK)
        ada = query("SELECT * FROM accounts WHERE email_normalized = 'ada@example.com'")[0]
        assert str(ada["id"]) == "8f1c3b2e-7d4a-4c55-9b1e-000000000001"
        assert (ada["username"], ada["display_name"], ada["locale"]) == ("ada", "Ada Example", "fr")
        assert ada["attributes"] == {"department": "engineering"}
        assert ada["created_at"] == datetime(2021, 1, 1, tzinfo=UTC)
        assert ada["password_hash"].startswith("$pbkdf2-sha256$27500$")
        off = query("SELECT disabled_at FROM accounts WHERE email_normalized = 'off@example.com'")[0]
        assert off["disabled_at"] is not None

    def test_roles_can_be_made(self, run_import: Import, query: Query, samples: Path) -> None:
        outcome = run_import(samples / "keycloak.json", System.KEYCLOAK, create_roles=True)
        assert outcome.refused == {"service_account": 1}
        assert query("SELECT permissions FROM roles WHERE name = 'editor'") == [{"permissions": []}]
        assert query("SELECT email FROM accounts JOIN account_roles ON account_id = id") == [
            {"email": "edith@example.com"}
        ]

    @pytest.mark.parametrize(
        "credential",
        [
            {},
            {"credentialData": "x", "secretData": "{}"},
            {
                "credentialData": '{"algorithm": "md5", "hashIterations": 1}',
                "secretData": '{"salt": "", "value": ""}',
            },
            {
                "credentialData": '{"algorithm": "pbkdf2-sha256", "hashIterations": 99999999}',
                "secretData": '{"salt": "AAAA", "value": "' + "A" * 86 + '=="}',
            },
            {
                "credentialData": '{"algorithm": "argon2", "hashIterations": 5}',
                "secretData": '{"salt": "AAAA", "value": "AAAA"}',
            },
        ],
        ids=["empty", "not-json", "unknown", "too-dear", "without-parameters"],
    )  # fmt: skip
    def test_credentials_that_no_login_would_evaluate(
        self, run_import: Import, tmp_path: Path, credential: dict[str, str]
    ) -> None:
        user = {"email": ADA, "credentials": [{"type": "password", **credential}]}
        file = tmp_path / "realm.json"
        file.write_text(json.dumps({"users": [user]}))
        assert run_import(file, System.KEYCLOAK).refused == {"password_hash_refused": 1}


class TestSupabase:
    def test_what_is_kept(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "supabase.csv", System.SUPABASE)
        ada = query("SELECT * FROM accounts WHERE email_normalized = 'ada@example.com'")[0]
        assert str(ada["id"]) == "8f1c3b2e-7d4a-4c55-9b1e-000000000001"
        assert (ada["display_name"], ada["attributes"]) == ("Ada Lovelace", {"theme": "dark"})
        assert ada["email_verified_at"] == datetime(2023, 2, 1, 10, 0, 0, 123_456, tzinfo=UTC)
        assert ada["created_at"] == datetime(2023, 2, 1, 9, 59, 58, 500_000, tzinfo=UTC)
        banned = query("SELECT disabled_at FROM accounts WHERE email_normalized = 'banned@example.com'")[0]
        assert banned["disabled_at"] is not None


class TestDjango:
    def test_what_is_kept(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "django.json", System.DJANGO)
        people = {row["username"]: row for row in query("SELECT * FROM accounts")}
        assert people["ada"]["display_name"] == "Ada Lovelace"
        assert people["ada"]["created_at"] == datetime(2020, 5, 1, 8, 0, 0, 123_000, tzinfo=UTC)
        assert people["edsger"]["password_hash"] == UNUSABLE_HASH
        assert people["off"]["disabled_at"] is not None
        assert people["alan"]["password_hash"].startswith("$scrypt$ln=14,r=8,p=1$")

    def test_an_address_for_a_username_is_the_address(
        self, run_import: Import, query: Query, samples: Path
    ) -> None:
        run_import(samples / "django.csv", System.DJANGO)
        assert query("SELECT email, username FROM accounts") == [{"email": ADA, "username": None}]

    def test_other_models_are_no_users(self, run_import: Import, tmp_path: Path) -> None:
        file = tmp_path / "dump.json"
        file.write_text(json.dumps([{"model": "auth.group", "pk": 1, "fields": {"name": "x"}}]))
        assert run_import(file, System.DJANGO).refused == {"not_a_user": 1}


class TestCognito:
    @pytest.mark.parametrize("file", ["cognito.csv", "cognito.json"])
    def test_accounts_wait_for_their_first_login(
        self, run_import: Import, client: TestClient, query: Query, samples: Path, password: str, file: str
    ) -> None:
        assert run_import(samples / file, System.COGNITO).created == 2
        assert {row["password_hash"] for row in _hashes(query)} == {LAZY_HASH}
        assert log_in(client, ADA, password) == 401
        assert log_in(client, ADA, LAZY_HASH) == 401

    def test_what_is_kept(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "cognito.csv", System.COGNITO)
        ada, grace = query("SELECT * FROM accounts ORDER BY email_normalized")
        assert (ada["username"], ada["locale"], ada["attributes"]) == ("ada", "fr-FR", {"plan": "paid"})
        assert ada["email_verified_at"] is not None
        assert (grace["username"], grace["display_name"]) == (None, "Grace Hopper")
        assert grace["email_verified_at"] is None

    def test_what_the_api_lists(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "cognito.json", System.COGNITO)
        ada, off = query("SELECT * FROM accounts ORDER BY email_normalized")
        assert ada["created_at"] == datetime(2021, 6, 1, 10, 0, 0, 123_000, tzinfo=UTC)
        assert ada["attributes"] == {"plan": "paid"}
        assert off["disabled_at"] is not None


class TestWordpressAndDevise:
    def test_wordpress_says_nothing_of_addresses(
        self, run_import: Import, query: Query, samples: Path
    ) -> None:
        run_import(samples / "wordpress.csv", System.WORDPRESS)
        ada, grace = query("SELECT * FROM accounts ORDER BY email_normalized")
        assert ada["created_at"] == datetime(2018, 7, 1, 12, tzinfo=UTC)
        assert {ada["email_verified_at"], grace["email_verified_at"]} == {None}

    def test_which_the_operator_can_vouch_for(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "wordpress.csv", System.WORDPRESS, assume_verified=True)
        assert query("SELECT 1 FROM accounts WHERE email_verified_at IS NULL") == []

    def test_devise(self, run_import: Import, query: Query, samples: Path) -> None:
        run_import(samples / "devise.csv", System.DEVISE)
        ada, grace = query("SELECT * FROM accounts ORDER BY email_normalized")
        assert ada["email_verified_at"] == datetime(2019, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
        assert grace["created_at"] == datetime(2019, 1, 1, 3, 4, 5, tzinfo=UTC)
        assert grace["email_verified_at"] is None


class TestMapping:
    def test_columns_of_any_name(
        self, run_import: Import, client: TestClient, query: Query, samples: Path, password: str
    ) -> None:
        members = parse_mapping((samples / "plain-mapping.json").read_bytes())
        assert run_import(samples / "plain.csv", System.CSV, members=members).created == 1
        [ada] = query("SELECT * FROM accounts")
        assert (ada["email"], ada["locale"], ada["attributes"]) == (ADA, "fr", {"plan": "paid"})
        assert ada["email_verified_at"] == ada["created_at"] == datetime(2020, 1, 1, tzinfo=UTC)
        assert log_in(client, ADA, password) == 200

    def test_members_inside_others(self, run_import: Import, query: Query, tmp_path: Path) -> None:
        file = tmp_path / "users.jsonl"
        file.write_text(json.dumps({"contact": {"mail": ADA}, "a.b": "dotted", "tags": "editor; other"}))
        members = {"email": "contact.mail", "display_name": "a.b", "roles": "tags"}
        run_import(file, System.JSON, members=members, create_roles=True)
        assert query("SELECT display_name, email FROM accounts") == [{"display_name": "dotted", "email": ADA}]
        assert query("SELECT role FROM account_roles ORDER BY role") == [
            {"role": "editor"},
            {"role": "other"},
        ]

    @pytest.mark.parametrize(
        "text", [b"[]", b"x", b'{"mail": "email"}', b'{"email": 7}', b'{"email": {"v": 1}}']
    )
    def test_mappings_that_are_none(self, text: bytes) -> None:
        with pytest.raises(ValueError):
            parse_mapping(text)

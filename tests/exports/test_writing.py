"""What an export has: everything that belongs to an account, as the importer reads it."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from tests.backups.conftest import OPERATOR, PASSWORD, Service, run_sql

from auth_manager.database import Database
from auth_manager.exports.writing import Report, export, record_export
from auth_manager.imports.record import MEMBERS, Rules, check
from auth_manager.resources import Resources
from auth_manager.secret_keys import SecretKeys

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def service(resources: Resources) -> Any:
    service = Service(resources)
    yield service
    service.client.close()


@pytest.fixture
def query(database: Database) -> Query:
    def fetch(sql: str) -> list[dict[str, Any]]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql)

    return fetch


@pytest.fixture
def exported(resources: Resources, database_url: str) -> Callable[..., tuple[list[dict[str, Any]], Report]]:
    def run(**options: Any) -> tuple[list[dict[str, Any]], Report]:
        report = Report()
        keys = options.pop("secret_keys", resources.secret_keys)
        content = b"".join(export(database_url, keys, report, now=NOW, **options))
        *body, last = content.splitlines(keepends=True)
        assert json.loads(last) == {
            "format": "auth-manager-export",
            "end": True,
            "users": len(body) - 1,
            "sha256": hashlib.sha256(b"".join(body)).hexdigest(),
        }
        assert report.sha256 == json.loads(last)["sha256"]
        return [json.loads(line) for line in body], report

    return run


Exported = Callable[..., tuple[list[dict[str, Any]], Report]]


class TestExport:
    def test_an_account_with_everything(self, service: Service, query: Query, exported: Exported) -> None:
        query("INSERT INTO roles (name, created_at, updated_at) VALUES ('editor', now(), now()) RETURNING 1")
        service.create("anna@example.com", "admin", "editor")
        app = service.enrol("anna@example.com")
        [account] = query("SELECT * FROM accounts")
        query(
            f"""
            INSERT INTO passkeys (id, account_id, credential_id, public_key, sign_count, name, transports,
                                  aaguid, attestation_format, user_verified, backup_eligible, backed_up,
                                  created_at)
            VALUES (gen_random_uuid(), '{account["id"]}', '\\xfbff00', '\\x0102', 7, 'Key', '{{usb,nfc}}',
                    gen_random_uuid(), 'none', true, false, false, now()) RETURNING 1
            """
        )
        (header, user), report = exported()
        assert (header["users"], header["version"]) == (1, 1)
        assert [role["name"] for role in header["roles"]] == ["editor"]
        for name in ("email", "username", "display_name", "locale", "attributes", "password_hash"):
            assert user[name] == account[name]
        for name in ("email_verified_at", "created_at", "updated_at"):
            assert datetime.fromisoformat(user[name]) == account[name]
        assert (user["id"], user["roles"]) == (str(account["id"]), ["admin", "editor"])
        factors = user["factors"]
        assert factors["totp"]["secret"] == app.secret
        [passkey] = factors["passkeys"]
        assert (passkey["credential_id"], passkey["transports"]) == ("-_8A", ["usb", "nfc"])
        assert len(factors["recovery_codes"]) == len(app.recovery_codes)
        assert (report.users, report.totp, report.passkeys) == (1, 1, 1)
        assert report.recovery_codes == len(app.recovery_codes)

    def test_the_importer_takes_every_line(
        self, service: Service, exported: Exported, resources: Resources
    ) -> None:
        service.create("anna@example.com")
        service.create("boss@example.com", "admin")
        service.enrol("boss@example.com")
        (_, *users), _ = exported()
        rules = Rules(
            now=datetime.now(UTC), accepts_hash=resources.passwords.accepts, roles=frozenset({"admin"})
        )
        for user in users:
            assert user.keys() <= MEMBERS
            assert check(user, rules).email == user["email"]

    def test_numbers_and_text_are_those_of_the_database(
        self, service: Service, query: Query, resources: Resources, database_url: str
    ) -> None:
        service.create("anna@example.com")
        attributes = '{"n": 12345678901234567890.10, "t": "\\u0007\\u2028é\\n\\"\\\\", "z": null}'
        query(f"UPDATE accounts SET attributes = $${attributes}$$, display_name = E'a\\nb' RETURNING 1")
        lines = b"".join(export(database_url, resources.secret_keys, Report(), now=NOW)).split(b"\n")
        assert len(lines) == 4
        assert b"12345678901234567890.10" in lines[1]
        assert json.loads(lines[1])["attributes"]["t"] == json.loads(attributes)["t"]
        assert json.loads(lines[1])["attributes"]["z"] is None

    def test_a_secret_that_no_key_opens_is_counted_and_left_out(
        self, service: Service, exported: Exported
    ) -> None:
        service.create("anna@example.com")
        service.enrol("anna@example.com")
        other = SecretKeys((SecretStr("another-0123456789-abcdefghijklmnopqrstuv"),))
        (_, user), report = exported(secret_keys=other)
        assert "totp" not in user["factors"]
        assert (report.totp, report.totp_unreadable) == (0, 1)

    def test_a_factor_that_waits_and_codes_that_were_used_are_none(
        self, service: Service, query: Query, exported: Exported
    ) -> None:
        service.create("anna@example.com")
        service.enrol("anna@example.com")
        query("UPDATE totp_factors SET confirmed_at = NULL RETURNING 1")
        query("UPDATE recovery_codes SET used_at = now(), used_by = gen_random_uuid() RETURNING 1")
        (_, user), _ = exported()
        assert "factors" not in user

    @pytest.mark.parametrize("count", [0, 499, 500, 501, 4001])
    def test_all_of_them_in_the_order_of_their_ids(
        self, query: Query, exported: Exported, count: int
    ) -> None:
        query(
            f"""
            INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at, created_at,
                                  updated_at)
            SELECT gen_random_uuid(), n, n, '!', now(), now(), now() FROM generate_series(1, {count}) AS n
            RETURNING 1
            """
        )
        told: list[int] = []
        (header, *users), report = exported(on_start=told.append, on_written=told.append)
        assert told[0] == header["users"] == sum(told[1:]) == report.users == count
        ids = [user["id"] for user in users]
        assert ids == sorted(ids)
        assert len(set(ids)) == count

    def test_it_is_one_moment(self, service: Service, resources: Resources, database_url: str) -> None:
        service.create("anna@example.com")
        pieces = export(database_url, resources.secret_keys, Report(), now=NOW)
        header = next(pieces)
        service.create("later@example.com")
        rest = b"".join(pieces)
        assert json.loads(header)["users"] == 1
        assert b"later@example.com" not in rest


class TestRecordExport:
    def test_the_trail_names_the_operator(self, resources: Resources, database_url: str) -> None:
        record_export(resources, OPERATOR, encrypted=True)
        [event] = run_sql(
            database_url, "SELECT event, outcome, operator, details, account_id FROM audit_events"
        )
        assert event == {
            "event": "exported",
            "outcome": "success",
            "operator": "olga",
            "details": {"scope": "all", "encrypted": True},
            "account_id": None,
        }
        assert PASSWORD not in str(event)

"""Batches, resuming, duplicates, hostile files."""

import base64
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pyotp
import pytest
from fastapi.testclient import TestClient

from auth_manager.account_roles import MAXIMUM
from auth_manager.audit import Origin
from auth_manager.database import Database, Row
from auth_manager.errors import PreconditionFailed
from auth_manager.imports import load, store
from auth_manager.imports.batches import Order, Progress
from auth_manager.imports.dry_run import try_file
from auth_manager.imports.record import MEMBERS
from auth_manager.imports.refusals import FileUnreadable
from auth_manager.imports.sources import System, open_source
from auth_manager.passwords import LAZY_HASH, UNUSABLE_HASH
from auth_manager.resources import Resources

Import = Callable[..., Progress]
Query = Callable[[str], list[Row]]
Rejects = Callable[[], list[dict[str, Any]]]
WriteUsers = Callable[..., Path]


@pytest.fixture
def write_users(tmp_path: Path) -> WriteUsers:
    """Writes JSON Lines: objects, or lines as they are."""

    def write(*users: dict[str, Any] | bytes) -> Path:
        file = tmp_path / "users.jsonl"
        file.write_bytes(
            b"".join(user if isinstance(user, bytes) else json.dumps(user).encode() + b"\n" for user in users)
        )
        return file

    return write


def people(count: int, *, first: int = 0) -> Iterator[dict[str, Any]]:
    for number in range(first, first + count):
        yield {"email": f"p{number}@example.com", "username": f"person{number}", "email_verified": True}


class TestImportFile:
    def test_batches_are_told_of(
        self, resources: Resources, origin: Origin, write_users: WriteUsers, query: Query
    ) -> None:
        order = Order(write_users(*people(25)), open_source(System.JSON), batch=10)
        seen: list[Progress] = []
        outcome = load.import_file(resources, origin, order, on_progress=seen.append)
        assert [(step.position, step.created) for step in seen] == [(0, 0), (10, 10), (20, 20), (25, 25)]
        assert outcome.bytes_read == outcome.size == order.file.stat().st_size
        assert len(query("SELECT 1 FROM accounts")) == 25
        events = query(
            "SELECT details, operator, outcome FROM audit_events WHERE event = 'accounts_imported'"
        )
        assert sorted(event["details"]["count"] for event in events) == [5, 10, 10]
        assert {event["operator"] for event in events} == {"tester"}
        [run] = query("SELECT * FROM imports")
        assert (run["position"], run["created"], run["source"], run["operator"]) == (25, 25, "json", "tester")
        assert run["finished_at"] is not None

    @pytest.mark.parametrize("offset", ["+01:02:03.5", "+23:59", "-23:59", "", "Z"])
    def test_a_time_of_any_offset_is_stored(
        self, run_import: Import, write_users: WriteUsers, query: Query, offset: str
    ) -> None:
        when = f"2024-01-01T12:00:00{offset}"
        totp = {"secret": TestFactors.SECRET, "confirmed_at": when}
        user = {"email": "a@example.com", "created_at": when, "factors": {"totp": totp}}
        assert run_import(write_users(user), System.JSON).created == 1
        expected = datetime.fromisoformat(when if offset else f"{when}Z")
        [row] = query(
            "SELECT a.created_at, confirmed_at FROM accounts AS a JOIN totp_factors ON account_id = a.id"
        )
        assert set(row.values()) == {expected}

    def test_ids_are_as_old_as_the_accounts(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        run_import(
            write_users(
                {"email": "b@example.com", "created_at": "2022-01-01T00:00:00Z"},
                {"email": "a@example.com", "created_at": "2021-01-01T00:00:00+01:00"},
                {"email": "c@example.com", "id": "8f1c3b2e-7d4a-4c55-9b1e-000000000001"},
            ),
            System.JSON,
        )
        rows = query("SELECT email, id::text AS id FROM accounts WHERE email <> 'c@example.com' ORDER BY id")
        assert [row["email"][0] for row in rows] == ["a", "b"]
        assert {row["id"][14] for row in rows} == {"7"}
        assert {row["id"][19] for row in rows} <= set("89ab")

    def test_without_a_hash_there_is_no_password_unless_the_former_system_is_asked(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        run_import(write_users({"email": "a@example.com"}), System.JSON)
        run_import(write_users({"email": "b@example.com"}), System.JSON, is_lazy=True)
        rows = query("SELECT password_hash FROM accounts ORDER BY email")
        assert [row["password_hash"] for row in rows] == [UNUSABLE_HASH, LAZY_HASH]

    def test_default_roles_are_for_who_names_none(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        query(
            "INSERT INTO roles (name, is_default, created_at, updated_at)"
            " VALUES ('reader', true, now(), now()), ('editor', false, now(), now()) RETURNING 1"
        )
        file = write_users(
            {"email": "default@example.com"},
            {"email": "none@example.com", "roles": []},
            {"email": "own@example.com", "roles": ["editor", "editor"]},
            {"email": "unknown@example.com", "roles": ["nobody"]},
            {"email": "odd@example.com", "roles": ["No Name"]},
        )
        outcome = run_import(file, System.JSON)
        assert outcome.refused == {"role_unknown": 1, "role_invalid": 1}
        rows = query("SELECT email, role FROM accounts JOIN account_roles ON account_id = id ORDER BY 1, 2")
        assert [(row["email"], row["role"]) for row in rows] == [
            ("default@example.com", "reader"),
            ("own@example.com", "editor"),
        ]

    def test_another_systems_administrators_are_none_of_ours(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        query(
            "INSERT INTO roles (name, permissions, created_at, updated_at)"
            " VALUES ('support', '{users:read}', now(), now()), ('shop', '{orders:refund}', now(), now())"
            " RETURNING 1"
        )
        people = [{"email": f"{role}@example.com", "roles": [role]} for role in ("admin", "support", "shop")]
        refused = run_import(write_users(*people), System.JSON, create_roles=True)
        assert (refused.created, refused.refused) == (1, {"role_administrative": 2})
        assert [row["role"] for row in query("SELECT role FROM account_roles")] == ["shop"]
        meant = run_import(write_users(*people[:2]), System.JSON, administrators=True)
        assert (meant.created, meant.refused) == (2, {})

    def test_no_account_has_more_roles_than_by_hand(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        query(
            "INSERT INTO roles (name, is_default, created_at, updated_at)"
            " SELECT 'default' || n, true, now(), now() FROM generate_series(1, 10) AS n RETURNING 1"
        )
        roles = [f"role{number}" for number in range(MAXIMUM)]
        defaults = [f"default{number}" for number in range(1, 11)]
        file = write_users(
            {"email": "most@example.com", "roles": roles + defaults},
            {"email": "over@example.com", "roles": [*roles, "another"]},
        )
        outcome = run_import(file, System.JSON, create_roles=True)
        assert (outcome.created, outcome.refused) == (1, {"too_many_roles": 1})
        assert len(query("SELECT 1 FROM account_roles")) == MAXIMUM + 10

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_what_is_left_out_on_request(
        self, run_import: Import, write_users: WriteUsers, query: Query, *, dry_run: bool
    ) -> None:
        file = write_users(
            {"email": "joe@example.com", "username": "joe+test", "roles": ["ADMIN", 7]},
            {"email": "john@example.com", "username": "John Smith", "roles": "ROLE_USER"},
            {"email": "old@example.com", "username": "older@example.com"},
            {"email": "x@example.com", "username": "x" * 300},
            {"email": "good@example.com", "username": "good"},
            {"username": "no address"},
        )
        outcome = run_import(file, System.JSON, ignore_roles=True, drop_usernames=True, dry_run=dry_run)
        assert (outcome.created, outcome.usernames_dropped) == (5, 4)
        assert outcome.refused == {"email_missing": 1}
        names = query("SELECT username FROM accounts WHERE username IS NOT NULL")
        assert names == ([] if dry_run else [{"username": "good"}])
        assert query("SELECT 1 FROM account_roles") == []

    def test_text_of_every_kind_arrives(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        odd = 'a"b\\c{}NULL,\n\t\r \u2028 é 漢 😀 %s %(x)s \\" {"'
        user = {
            "email": "a@example.com",
            "display_name": odd,
            "attributes": {odd: [odd, None, 1.5, {"x": 10**30}]},
        }
        assert run_import(
            write_users(user, {"email": "b@example.com", "display_name": ""}), System.JSON
        ).created
        first, second = query("SELECT display_name, attributes FROM accounts ORDER BY email")
        assert (first["display_name"], first["attributes"]) == (odd, user["attributes"])
        assert second["display_name"] == ""


class TestWhatPostgresqlRefuses:
    """A record that passed the checks all the same; a division by zero stands for what nobody thought of."""

    @pytest.fixture
    def divided(self, database: Database) -> Iterator[Callable[[str], None]]:
        """Makes storing some rows an error of PostgreSQL: an index divides by what they have."""

        def run(sql: str) -> None:
            with database.one_trip() as connection:
                connection.add(sql)

        yield lambda column: run(f"CREATE INDEX odd ON {column}")
        run("DROP INDEX IF EXISTS odd")

    def test_no_value_of_a_member_is_one(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        odd = [
            7, -1.5, 1e300, 10**4000, True, "", "a\0b", "\ud800", "\udfff", "x" * 300, [], ["\0"], {},
            {"x": "\0"}, {"\ud800": 1}, {"x": 10**4000}, {"x": -5e-324}, "2024-01-01T00:00:00+23:59",
            "0001-01-01", "NULL", "9999-12-31T23:59:59-23:59", "{00000000-0000-0000-0000-00000000000A}",
            "$argon2id$\0", ["\udfff"],
        ]  # fmt: skip
        users = [
            {"email": f"odd{number}@example.com"} | {member: value}
            for number, (member, value) in enumerate(product(sorted(MEMBERS), odd))
        ]
        outcome = run_import(write_users(*users), System.JSON, create_roles=True)
        assert outcome.position == len(users)
        assert "not_storable" not in outcome.refused
        assert len(query("SELECT 1 FROM accounts")) == outcome.created > len(MEMBERS)

    @pytest.mark.parametrize("batch", [1, 7, 100])
    def test_it_alone_is_refused(
        self, run_import: Import, write_users: WriteUsers, query: Query, rejects: Rejects,
        divided: Callable[[str], None], batch: int,
    ) -> None:  # fmt: skip
        divided("accounts ((1 / length(display_name)))")
        users: list[dict[str, Any] | bytes] = list(people(20))
        users[3] = b"x\n"
        for number in (5, 6, 19):
            users[number] = {"email": f"odd{number}@example.com", "display_name": ""}
        outcome = run_import(write_users(*users), System.JSON, batch=batch)
        assert (outcome.position, outcome.created) == (20, 16)
        assert outcome.refused == {"not_json": 1, "not_storable": 3}
        found = [(reject["record"], reject["line"], reject["code"]) for reject in rejects()]
        assert found == [
            (4, 4, "not_json"), (6, 6, "not_storable"), (7, 7, "not_storable"), (20, 20, "not_storable"),
        ]  # fmt: skip
        assert len(query("SELECT 1 FROM accounts")) == 16
        [run] = query("SELECT position, created FROM imports WHERE finished_at IS NOT NULL")
        assert (run["position"], run["created"]) == (20, 16)

    def test_also_for_what_belongs_to_it(
        self, run_import: Import, write_users: WriteUsers, query: Query, rejects: Rejects,
        divided: Callable[[str], None],
    ) -> None:  # fmt: skip
        divided("totp_factors ((1 / last_step))")
        totp = {"secret": TestFactors.SECRET, "confirmed_at": "2024-01-01T00:00:00Z", "last_step": 0}
        odd = {"email": "odd@example.com", "factors": {"totp": totp}}
        outcome = run_import(write_users(*people(4), b"x\n", odd, *people(4, first=4)), System.JSON)
        assert (outcome.created, outcome.refused) == (8, {"not_json": 1, "not_storable": 1})
        assert [(reject["record"], reject["code"]) for reject in rejects()] == [
            (5, "not_json"),
            (6, "not_storable"),
        ]
        assert len(query("SELECT 1 FROM accounts")) == 8


class TestDuplicates:
    def test_in_the_file_and_in_the_database(
        self, run_import: Import, write_users: WriteUsers, query: Query, rejects: Rejects
    ) -> None:
        run_import(
            write_users(
                {"email": "old@example.com", "username": "old", "id": "8f1c3b2e-7d4a-4c55-9b1e-000000000001"}
            ),
            System.JSON,
        )
        file = write_users(
            {"email": "OLD@example.com", "username": "new1"},
            {"email": "new2@example.com", "username": "OLD"},
            {"email": "new3@example.com", "id": "8f1c3b2e-7d4a-4c55-9b1e-000000000001"},
            {"email": "new4@example.com", "username": "same"},
            {"email": "New4@Example.com"},
            {"email": "new5@example.com", "username": "Same"},
            {"email": "new6@example.com", "id": "8f1c3b2e-7d4a-4c55-9b1e-000000000002"},
            {"email": "new7@example.com", "id": "8F1C3B2E-7D4A-4C55-9B1E-000000000002"},
        )
        expected = [
            (1, "email_taken"), (2, "username_taken"), (3, "id_taken"), (5, "email_taken"),
            (6, "username_taken"), (8, "id_taken"),
        ]  # fmt: skip
        counts = {"email_taken": 2, "username_taken": 2, "id_taken": 2}
        assert run_import(file, System.JSON, dry_run=True).refused == counts
        assert [(reject["record"], reject["code"]) for reject in rejects()] == expected
        outcome = run_import(file, System.JSON)
        assert (outcome.created, outcome.refused) == (2, counts)
        assert [(reject["record"], reject["code"]) for reject in rejects()] == expected
        kept = query("SELECT email FROM accounts ORDER BY email")
        assert [row["email"] for row in kept] == ["new4@example.com", "new6@example.com", "old@example.com"]

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_across_batches(self, run_import: Import, write_users: WriteUsers, *, dry_run: bool) -> None:
        file = write_users(*people(10), *people(10, first=5))
        outcome = run_import(file, System.JSON, dry_run=dry_run, batch=4)
        assert (outcome.created, outcome.refused) == (15, {"email_taken": 5})

    def test_an_account_that_is_there_stays_as_it_is(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        run_import(write_users({"email": "a@example.com", "display_name": "Old"}), System.JSON)
        run_import(write_users({"email": "a@example.com", "display_name": "New"}), System.JSON)
        assert query("SELECT display_name FROM accounts") == [{"display_name": "Old"}]


class TestFactors:
    SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

    def test_an_authenticator_app_comes_along(
        self, run_import: Import, write_users: WriteUsers, client: TestClient, samples: Path, password: str
    ) -> None:
        user = json.loads((samples / "plain.jsonl").read_text())
        user["factors"] = {"totp": {"secret": self.SECRET, "confirmed_at": "2024-01-01T00:00:00Z"}}
        assert run_import(write_users(user), System.JSON).created == 1
        first = client.post("/auth/login", json={"identifier": "ada", "password": password})
        assert (first.status_code, first.json()["factors"]) == (403, ["totp"])
        code = pyotp.TOTP(self.SECRET).now()
        second = client.post("/auth/login/mfa", json={"mfa_token": first.json()["mfa_token"], "totp": code})
        assert second.status_code == 200

    def test_passkeys_and_recovery_codes_come_along(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        some = base64.urlsafe_b64encode(bytes(range(200, 233))).decode().rstrip("=")
        passkey = {
            "credential_id": some, "public_key": some, "sign_count": 7, "name": "A", "transports": ["usb"],
            "aaguid": "8f1c3b2e-7d4a-4c55-9b1e-000000000001", "attestation_format": "none",
            "user_verified": True, "backup_eligible": False, "backed_up": False,
            "created_at": "2024-01-01T00:00:00Z", "last_used_at": None,
        }  # fmt: skip
        code = {"code_hash": some, "salt": some, "created_at": "2024-01-01T00:00:00Z"}
        user = {"email": "a@example.com", "factors": {"passkeys": [passkey], "recovery_codes": [code]}}
        assert run_import(write_users(user), System.JSON).created == 1
        [kept] = query("SELECT * FROM passkeys")
        assert bytes(kept["credential_id"]) == bytes(kept["public_key"]) == bytes(range(200, 233))
        assert (kept["sign_count"], kept["transports"], kept["user_verified"]) == (7, ["usb"], True)
        [row] = query("SELECT code_hash FROM recovery_codes")
        assert bytes(row["code_hash"]) == bytes(range(200, 233))
        assert query("SELECT factors_of(id) AS of FROM accounts WHERE factors_changed_at IS NOT NULL") == [
            {"of": ["passkey", "recovery_code"]}
        ]

    @pytest.mark.parametrize(
        "factors",
        [
            [],
            {"sms": []},
            {"totp": {"secret": "short", "confirmed_at": "2024-01-01"}},
            {"totp": {"secret": SECRET}},
            {"totp": {"secret": SECRET, "confirmed_at": "x"}},
            {"totp": {"secret": SECRET, "confirmed_at": "2024-01-01", "last_step": "7"}},
            {"passkeys": [{}]},
            {"passkeys": "x"},
            {"recovery_codes": [{"code_hash": "?", "salt": "AA", "created_at": "2024-01-01"}]},
            {"recovery_codes": [None]},
        ],
    )
    def test_a_record_whose_factors_are_wrong_is_refused_whole(
        self, run_import: Import, write_users: WriteUsers, factors: Any
    ) -> None:
        file = write_users({"email": "a@example.com", "factors": factors or ["x"]})
        assert run_import(file, System.JSON).refused == {"factors_invalid": 1}


class TestResuming:
    def test_a_run_goes_on_where_another_stopped(
        self, resources: Resources, origin: Origin, write_users: WriteUsers, query: Query
    ) -> None:
        class Stopped(Exception):
            pass

        def stop(progress: Progress) -> None:
            if progress.position >= 20:
                raise Stopped

        order = Order(write_users(*people(50)), open_source(System.JSON), batch=10)
        with pytest.raises(Stopped):
            load.import_file(resources, origin, order, on_progress=stop)
        assert len(query("SELECT 1 FROM accounts")) == 20
        outcome = load.import_file(resources, origin, order)
        assert (outcome.resumed_at, outcome.position, outcome.created) == (20, 50, 50)
        assert len(query("SELECT 1 FROM imports")) == 1

    def test_another_file_starts_anew(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        file = write_users(b'[{"email": "a@example.com"}, {"email": "b@example.com"}, x')
        with pytest.raises(FileUnreadable):
            run_import(file, System.JSON)
        assert len(query("SELECT 1 FROM accounts")) == 2
        mended = write_users(
            b'[{"email": "a@example.com"}, {"email": "b@example.com"}, {"email": "c@example.com"}]'
        )
        outcome = run_import(mended, System.JSON)
        assert (outcome.resumed_at, outcome.created, outcome.refused) == (0, 1, {"email_taken": 2})

    def test_two_processes_do_not_import_one_file(
        self, resources: Resources, origin: Origin, write_users: WriteUsers, query: Query
    ) -> None:
        order = Order(write_users(*people(30)), open_source(System.JSON), batch=10)

        def other_process(progress: Progress) -> None:
            if progress.position == 10:
                load.import_file(resources, replace(origin, now=origin.now + timedelta(seconds=1)), order)

        with pytest.raises(PreconditionFailed, match="Another process"):
            load.import_file(resources, origin, order, on_progress=other_process)
        assert len(query("SELECT 1 FROM accounts")) == 30

    def test_who_comes_second_touches_no_rejects(
        self, resources: Resources, origin: Origin, write_users: WriteUsers, rejects: Rejects, tmp_path: Path
    ) -> None:
        order = Order(
            write_users(b"x\n" * 30), open_source(System.JSON), tmp_path / "rejects.jsonl", batch=10
        )
        refused = []

        def other_process(progress: Progress) -> None:
            for act in (load.import_file, try_file):
                with pytest.raises(PreconditionFailed, match="Another process"):
                    act(resources, origin, order)
                refused.append(progress.position)

        outcome = load.import_file(resources, origin, order, on_progress=other_process)
        assert refused == [0, 0, 10, 10, 20, 20, 30, 30]
        assert outcome.refused == {"not_json": 30}
        assert [reject["record"] for reject in rejects()] == list(range(1, 31))

    def test_rejects_of_a_batch_that_was_not_committed_are_cut_off(
        self, run_import: Import, write_users: WriteUsers, query: Query, rejects: Rejects, tmp_path: Path
    ) -> None:
        (tmp_path / "rejects.jsonl").write_text('{"record": 1}\n{"rec')
        run_import(write_users(b"x\n", {"email": "a@example.com"}), System.JSON)
        assert [reject["code"] for reject in rejects()] == ["not_json"]
        [run] = query("SELECT rejects_size FROM imports")
        assert run["rejects_size"] == (tmp_path / "rejects.jsonl").stat().st_size


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from auth_manager.app import build_resources
from auth_manager.audit import Origin
from auth_manager.imports.batches import Order
from auth_manager.imports.load import import_file
from auth_manager.imports.sources import System, open_source
from auth_manager.settings import load_settings

origin = Origin(address=None, user_agent="", request_id="cli", now=datetime.now(UTC))
order = Order(Path(sys.argv[1]), open_source(System.JSON), Path(sys.argv[2]), batch=40)
show = lambda progress: print(progress.position, flush=True)
import_file(build_resources(load_settings(), pool_size=1), origin, order, on_progress=show)
print("done", flush=True)
"""


class TestKilled:
    KILLS = 20

    def test_at_twenty_points_and_nothing_is_lost_or_doubled(
        self, database_url: str, signing_keys: str, write_users: WriteUsers,
        query: Query, rejects: Rejects, tmp_path: Path,
    ) -> None:  # fmt: skip
        """SIGKILL right after a commit, or a moment later; the same command again each time."""
        users = list(people(2_000))
        lines: list[dict[str, Any] | bytes] = []
        for number, user in enumerate(users):
            lines.append(user)
            if number % 7 == 0:
                lines.append(b"{broken\n")
            if number % 11 == 0:
                lines.append({"email": f"P{number}@example.com"})
        file = write_users(*lines)
        environment = os.environ | {
            "AUTH_PUBLIC_URL": "https://auth.example.com",
            "AUTH_DATABASE_URL": database_url,
            "AUTH_SECRET_KEYS": "0123456789abcdefghijklmnopqrstuvwxyz-test-only",
            "AUTH_SIGNING_KEYS": signing_keys,
        }
        command = [sys.executable, "-c", KILLED, str(file), str(tmp_path / "rejects.jsonl")]
        delays = random.Random(3)  # noqa: S311 -- the same in every run
        killed = 0
        for number in range(self.KILLS + 1):
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                if number == self.KILLS:
                    assert process.stdout.read().splitlines()[-1] == "done"
                    break
                assert process.stdout.readline().strip() != "done"
                time.sleep(delays.uniform(0, 0.03) if number % 2 else 0)
                process.kill()
            killed += process.returncode < 0
        assert killed >= self.KILLS - 1
        rows = query("SELECT email, username FROM accounts")
        assert sorted((row["email"], row["username"]) for row in rows) == sorted(
            (user["email"], user["username"]) for user in users
        )
        found = [(reject["record"], reject["code"]) for reject in rejects()]
        expected = [
            (number, "not_json" if isinstance(line, bytes) else "email_taken")
            for number, line in enumerate(lines, 1)
            if isinstance(line, bytes) or "username" not in line
        ]
        assert found == expected
        [run] = query("SELECT position, created, refused FROM imports WHERE finished_at IS NOT NULL")
        assert (run["position"], run["created"]) == (len(lines), len(users))
        assert sum(run["refused"].values()) == len(expected)
        [events] = query(
            "SELECT sum((details ->> 'count')::int) AS accounts FROM audit_events"
            " WHERE event = 'accounts_imported'"
        )
        assert events["accounts"] == len(users)


A = b'{"email": "a@example.com"'
"""What many bad lines begin with."""


class TestHostileFiles:
    GOOD = ({"email": "before@example.com"}, {"email": "after@example.com"})

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"{broken\n", "not_json"),
            (b'{"email": "a@example.com"} {"email": "b@example.com"}\n', "not_json"),
            (A + b', "attributes": {"n": NaN}}\n', "not_json"),
            (A + b', "attributes": {"n": 1e999}}\n', "not_json"),
            (A + b', "email": "b@example.com"}\n', "duplicate_key"),
            (A + b', "attributes": {"x": 1, "x": 2}}\n', "duplicate_key"),
            (b'{"email": "\xff@example.com"}\n', "not_utf8"),
            (b"[1, 2]\n", "not_an_object"),
            (b"null\n", "not_an_object"),
            (b'{"email": "' + b"x" * 10_000_000 + b'"}\n', "line_too_long"),
            (A + b', "attributes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "not_json"),
            (b'{"email": "a\\u0000@example.com"}\n', "nul_character"),
            (A + b', "display_name": "\\u0000"}\n', "nul_character"),
            (A + b', "attributes": {"a": ["\\u0000"]}}\n', "nul_character"),
            (A + b', "attributes": {"\\u0000": 1}}\n', "nul_character"),
            (A + b', "display_name": "\\ud800"}\n', "not_utf8"),
            (A + b', "attributes": {"a": "\\udfff"}}\n', "attributes_invalid"),
            (A + b', "attributes": [1]}\n', "attributes_invalid"),
            (A + b', "attributes": {"a": "' + b"x" * 5000 + b'"}}\n', "attributes_too_large"),
            (A + b', "attributes": {"a": [' + b"1e300," * 30 + b"1]}}\n", "attributes_too_large"),
            (
                A + b', "attributes": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}\n",
                "attributes_invalid",
            ),
            (b"{}\n", "email_missing"),
            (b'{"email": null}\n', "email_missing"),
            (b'{"email": 7}\n', "email_invalid"),
            (b'{"email": "nobody"}\n', "email_invalid"),
            (b'{"email": "a@example.com, b@example.com"}\n', "email_invalid"),
            (A + b', "e-mail": "b@example.com"}\n', "member_unknown"),
            (A + b', "username": "x"}\n', "username_invalid"),
            (A + b', "username": "a@b"}\n', "username_invalid"),
            (A + b', "locale": "../.."}\n', "locale_invalid"),
            (A + b', "display_name": "' + b"x" * 201 + b'"}\n', "display_name_too_long"),
            (A + b', "email_verified": "yes"}\n', "email_verified_invalid"),
            (A + b', "created_at": "yesterday"}\n', "created_at_invalid"),
            (A + b', "created_at": "2999-01-01"}\n', "created_at_invalid"),
            (A + b', "created_at": "1969-12-31"}\n', "created_at_invalid"),
            (A + b', "created_at": "0001-01-01T00:00:00+14:00"}\n', "created_at_invalid"),
            (A + b', "created_at": "9999-12-31T23:59:59-14:00"}\n', "created_at_invalid"),
            (A + b', "created_at": 7}\n', "created_at_invalid"),
            (A + b', "id": "7"}\n', "id_invalid"),
            (A + b', "id": 7}\n', "id_invalid"),
            (A + b', "roles": "admin"}\n', "roles_invalid"),
            (A + b', "password_hash": "secret"}\n', "password_hash_refused"),
            (A + b', "password_hash": ""}\n', "password_hash_refused"),
            (A + b', "password_hash": "$2b$31$' + b"a" * 53 + b'"}\n', "password_hash_refused"),
            (
                A + b', "password_hash": "$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$aGFzaA"}\n',
                "password_hash_refused",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else repr(value[:40]),
    )  # fmt: skip
    @pytest.mark.parametrize("dry_run", [True, False])
    def test_a_line_that_is_none_is_refused_and_the_rest_imported(
        self, run_import: Import, write_users: WriteUsers, query: Query, rejects: Rejects, line: bytes,
        code: str,
        *, dry_run: bool,
    ) -> None:  # fmt: skip
        before, after = self.GOOD
        outcome = run_import(write_users(before, line, after), System.JSON, dry_run=dry_run)
        assert (outcome.created, outcome.refused) == (2, {code: 1})
        [reject] = rejects()
        assert (reject["record"], reject["line"], reject["code"]) == (2, 2, code)
        assert len(query("SELECT 1 FROM accounts")) == (0 if dry_run else 2)

    @pytest.mark.parametrize(
        ("content", "created", "refused"),
        [
            (b'\xef\xbb\xbf[{"email": "a@example.com"}]', 1, {}),
            (b'[{"email": "a@example.com", "attributes": {"n": 36893488147419103232}}]', 1, {}),
            (b'[{"email": "a@example.com", "attributes": {"n": ' + b"9" * 4000 + b"}}]", 1, {}),
            (b'[{"email": "a@example.com", "attributes": {"n": 1e999}}, {"email": "b@example.com"}]', 1,
             {"not_json": 1}),
            (b'[{"email": "a@example.com", "email": "b@example.com"}, {"email": "c@example.com"}]', 1,
             {"duplicate_key": 1}),
        ],
        ids=["byte-order-mark", "integer", "digits", "infinite", "twice"],
    )  # fmt: skip
    def test_lists(
        self, run_import: Import, tmp_path: Path, content: bytes, created: int, refused: dict[str, int]
    ) -> None:
        file = tmp_path / "users.json"
        file.write_bytes(content)
        outcome = run_import(file, System.JSON)
        assert (outcome.created, outcome.refused) == (created, refused)

    @pytest.mark.parametrize(
        ("content", "created"),
        [
            (b'[{"email": "a@example.com"}, {"email": "\\udc00"}]', 1),
            (b'[{"email": "a@example.com"}, {"n": 1e1000000000000000000000}]', 1),
            (b'[{"email": "a@example.com"}, {"n": ' + b"9" * 5000 + b"}]", 0),
            (b'[{"email": "a@example.com"}, ' + b" " * 65_000 + b'{"n": ' + b"9" * 4301 + b"}]", 1),
            (b'[{"email": "a@example.com"}, {"email": "b@exa', 1),
            (b'[{"email": "a@example.com"}, {"email": }]', 1),
            (b'[{"email": "a@example.com"}, {"email": "\xff"}]', 1),
            (b"[" * 100_000, 0),
        ],
        ids=[
            "half-a-pair",
            "exponent",
            "digits",
            "digits-of-two-reads",
            "cut-off",
            "broken",
            "not-utf8",
            "deep",
        ],
    )
    def test_a_document_that_breaks_off_keeps_what_came_before(
        self, run_import: Import, tmp_path: Path, query: Query, content: bytes, created: int
    ) -> None:
        file = tmp_path / "users.json"
        file.write_bytes(content)
        with pytest.raises(FileUnreadable):
            run_import(file, System.JSON)
        assert len(query("SELECT 1 FROM accounts")) == created
        assert query("SELECT 1 FROM imports WHERE finished_at IS NOT NULL") == []

    @pytest.mark.parametrize(
        ("content", "created", "refused"),
        [
            (b"email,username\na@example.com,ann,x\nb@example.com,bob\n", 1, {"columns_wrong": 1}),
            (b"email,username\n\xff@example.com,ann\nb@example.com,bob\n", 1, {"not_utf8": 1}),
            (b"email,username\na@example.com,a\x00n\nb@example.com,bob\n", 1, {"nul_character": 1}),
            (b'\xef\xbb\xbfemail,display_name\r\n"a@example.com","two\nlines ""x"""\r\n\r\n', 1, {}),
            (b"email,attributes\na@example.com,{\nb@example.com,\n", 1, {"attributes_invalid": 1}),
            (
                b"email,email_verified\na@example.com,perhaps\nb@example.com,t\n",
                1,
                {"email_verified_invalid": 1},
            ),
        ],
        ids=["columns", "not-utf8", "nul", "quoted", "attributes", "flag"],
    )
    def test_rows_of_csv(
        self, run_import: Import, tmp_path: Path, content: bytes, created: int, refused: dict[str, int]
    ) -> None:
        file = tmp_path / "users.csv"
        file.write_bytes(content)
        outcome = run_import(file, System.CSV)
        assert (outcome.created, outcome.refused) == (created, refused)

    @pytest.mark.parametrize(
        "content",
        [
            b'email\na@example.com\n"b@example.com\nc@example.com\n',
            b"email,email\na@example.com,b@example.com\n",
            b"email\na@example.com\n" + b"x" * 2_000_000 + b"\n",
        ],
        ids=["quote", "columns", "endless"],
    )
    def test_csv_that_cannot_be_read_on_is_refused(
        self, run_import: Import, tmp_path: Path, content: bytes
    ) -> None:
        file = tmp_path / "users.csv"
        file.write_bytes(content)
        with pytest.raises(FileUnreadable):
            run_import(file, System.CSV)

    def test_a_batch_of_nothing_but_rejects(
        self, run_import: Import, write_users: WriteUsers, query: Query
    ) -> None:
        assert run_import(write_users(b"x\n" * 30), System.JSON, batch=10).refused == {"not_json": 30}
        assert query("SELECT 1 FROM audit_events") == []

    def test_an_empty_file(self, run_import: Import, write_users: WriteUsers) -> None:
        assert run_import(write_users(), System.JSON).position == 0


class TestArrays:
    @pytest.mark.parametrize(
        "values",
        [[None], ["NULL", None, ""], ['"', "\\", "{", "}", ",", '","'], ["\n", " a ", "é😀", '\\"\\']],
    )
    def test_postgresql_reads_them_back(self, query: Query, values: list[str | None]) -> None:
        literal = store._array(values).replace("'", "''")
        assert query(f"SELECT '{literal}'::text[] AS read") == [{"read": values}]

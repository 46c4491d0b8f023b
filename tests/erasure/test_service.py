"""Leaving: export, erasure, and changing one's mind."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import psycopg2.errors
import pytest
from tests.mfa.factors import enrol
from tests.verification.people import (
    EMAIL,
    GRACE,
    INVITED,
    NEW_EMAIL,
    NEW_PASSWORD,
    PASSWORD,
    Person,
    at,
    create_role,
    operator,
    query,
    together,
)

from auth_manager import audit, maintenance
from auth_manager.directory import service as directory
from auth_manager.email_login import service as email_login
from auth_manager.erasure.service import delete_own_account, export, keep
from auth_manager.errors import (
    AccountDisabled,
    InvalidCredentials,
    InvalidOneTimeSecret,
    RecentAuthenticationRequired,
    SessionEnded,
)
from auth_manager.factors import passkeys, trusted_devices
from auth_manager.factors.passkeys import Registration
from auth_manager.ids import new_id
from auth_manager.invitations import service as invitations
from auth_manager.invitations.service import Acceptance
from auth_manager.one_time_secrets import Purpose
from auth_manager.rate_limits import account_key
from auth_manager.reauthentication import service as reauthentication
from auth_manager.recovery import service as recovery
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.tokens import AccessClaims
from auth_manager.verification import service as verification

Make = Callable[..., Resources]


def live_a_full_life(person: Person) -> AccessClaims:
    """Leave a trace in every table; return the claims of a session."""
    resources = person.resources
    role = create_role(resources, "member")
    request = invitations.invite(resources, operator(), person.email, roles=[role])
    spare = invitations.invite(resources, operator(), person.email)
    assert spare != request
    acceptance = Acceptance(PASSWORD, "secretname", "Canary Person", "fr")
    invitations.accept(
        resources, at(), resources.one_time_secrets.token(Purpose.INVITATION, request), acceptance
    )
    grant = person.log_in(origin=at(user_agent="Canary Browser/1"))
    claims = person.claims(grant)
    person.log_in(origin=at(user_agent="Another Device/1"))
    with pytest.raises(InvalidCredentials):
        person.log_in("not that one")
    recovery.start(resources, at(), person.email)
    email_login.start(resources, at(), person.email)
    reauthentication.start(resources, at(), claims)
    verification.change_email(resources, at(), claims, NEW_EMAIL)
    verification.change_email(resources, at(), claims, "Second-New@example.com")
    collect_factors(person, claims)
    return claims


def collect_factors(person: Person, claims: AccessClaims) -> None:
    """An authenticator app with its recovery codes, a passkey, and a device that is trusted."""
    enrol(person, claims)
    credential = Registration(
        credential_id=b"credential id",
        public_key=b"public key",
        sign_count=0,
        transports=("internal",),
        aaguid=UUID(int=7),
        attestation_format="none",
        user_verified=True,
        backup_eligible=False,
        backed_up=False,
    )
    with person.resources.database.one_trip() as connection:
        passkeys.add(connection, new_id(), credential, account_id=claims.sub, name="Canary Key", now=at().now)
        trusted_devices.add(
            connection,
            new_id(),
            at(user_agent="Canary Tablet/1"),
            account_id=claims.sub,
            password_changed_at=at().now,
            lifetime=timedelta(days=30),
        )


def rows_with(resources: Resources, *needles: str) -> list[tuple[str, str]]:
    """Look for texts, whatever their case, in every column of every table; return where they are."""
    columns = query(
        resources,
        """
        SELECT table_name, column_name FROM information_schema.columns
        WHERE table_schema = 'auth_manager' AND table_name <> 'schema_migrations'
        ORDER BY table_name, column_name
        """,
    )
    assert {row["table_name"] for row in columns} >= {
        "accounts",
        "account_roles",
        "sessions",
        "refresh_lines",
        "rate_limits",
        "audit_events",
        "outbox",
        "idempotency_keys",
        "one_time_secrets",
        "known_devices",
        "totp_factors",
        "recovery_codes",
        "passkeys",
        "trusted_devices",
    }
    found = []
    for needle in needles:
        for row in columns:
            table, column = row["table_name"], row["column_name"]
            sql = f"SELECT 1 FROM {table} WHERE strpos(lower({column}::text), lower(%(needle)s)) > 0"
            found += [(table, column)] * len(query(resources, sql, needle=needle))
    return found


class TestExport:
    def test_it_holds_everything(self, resources: Resources) -> None:
        person = Person(resources)
        claims = live_a_full_life(person)

        exported = export(resources, at(1), claims)

        account = exported["account"]
        assert (account["email"], account["username"], account["display_name"], account["locale"]) == (
            EMAIL,
            "secretname",
            "Canary Person",
            "fr",
        )
        assert account["roles"] == ("member",)
        assert {session["user_agent"] for session in exported["sessions"]} == {
            "Canary Browser/1",
            "Another Device/1",
        }
        assert len(exported["devices"]) == 2
        assert {row["purpose"] for row in exported["requests"]} == {
            "reset_password",
            "email_login",
            "reauthenticate",
            "change_email",
        }
        assert {row["kind"] for row in exported["messages"]} == {
            "reset_password",
            "email_login",
            "reauthenticate",
            "change_email",
            "email_change_requested",
            "new_sign_in",
            "factors_changed",
        }
        assert [device["user_agent"] for device in exported["trusted_devices"]] == ["Canary Tablet/1"]
        assert {row["event"] for row in exported["security_events"]} >= {"exported", "logged_in"}

    def test_it_holds_every_factor_and_nothing_that_proves_one(self, resources: Resources) -> None:
        person = Person(resources)
        factors = export(resources, at(1), live_a_full_life(person))["factors"]

        [app], [passkey], codes = factors["totp"], factors["passkeys"], factors["recovery_codes"]
        assert app == {"created_at": at().now, "confirmed_at": at().now, "last_used_at": at().now}
        assert passkey == {
            "name": "Canary Key",
            "transports": ("internal",),
            "aaguid": UUID(int=7),
            "attestation_format": "none",
            "backed_up": False,
            "created_at": at().now,
            "last_used_at": None,
        }
        assert codes == [{"created_at": at().now, "used_at": None}] * 10

    def test_every_column_of_the_account_is_in_it_but_its_secrets(self, resources: Resources) -> None:
        """A column that is added later has to be decided on here."""
        person = Person(resources)
        exported = export(resources, at(1), live_a_full_life(person))
        columns = person.query(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'auth_manager' AND table_name = 'accounts'"
        )
        left_out = {row["column_name"] for row in columns} - exported["account"].keys()
        assert left_out == {
            "password_hash",
            "password_changed_at",
            "factors_changed_at",
            "email_normalized",  # the same again, folded
            "username_normalized",
            "erase_after",  # of an account that cannot sign in
        }

    def test_no_secret_is_in_it(self, resources: Resources) -> None:
        person = Person(resources)
        claims = live_a_full_life(person)
        text = json.dumps(export(resources, at(1), claims), default=str)

        [stored] = person.query("SELECT password_hash FROM accounts")
        assert stored["password_hash"] not in text
        assert "argon2" not in text
        secrets = person.query("SELECT id, purpose FROM one_time_secrets")
        assert len(secrets) == 7
        for row in secrets:
            purpose = Purpose(row["purpose"])
            for form in (resources.one_time_secrets.token, resources.one_time_secrets.code):
                assert form(purpose, row["id"]) not in text
            assert str(row["id"]) not in text
        for row in person.query("SELECT id FROM refresh_lines"):
            assert str(row["id"]) not in text

    def test_nobody_elses_is_in_it(self, resources: Resources) -> None:
        other = Person(resources, "other-canary@example.com").register()
        other.log_in(origin=at(user_agent="Other Browser"))
        text = json.dumps(export(resources, at(1), live_a_full_life(Person(resources))), default=str)
        assert "other-canary" not in text
        assert "Other Browser" not in text

    def test_it_needs_a_recent_sign_in_and_a_live_session(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        with pytest.raises(RecentAuthenticationRequired):
            export(resources, at(901), claims)
        sessions.log_out(resources, at(), claims, "this")
        with pytest.raises(SessionEnded):
            export(resources, at(), claims)


class TestErasure:
    def test_no_row_has_the_address_but_the_last_mail(self, resources: Resources) -> None:
        person = Person(resources)
        claims = live_a_full_life(person)
        before = rows_with(resources, EMAIL)
        assert {table for table, _ in before} >= {"accounts", "outbox", "one_time_secrets"}

        assert delete_own_account(resources, at(1, user_agent="Canary Browser/1"), claims) is None

        assert rows_with(resources, EMAIL) == [("outbox", "recipient")]
        assert person.mails() == [("account_erased", EMAIL, "fr")]
        assert rows_with(resources, NEW_EMAIL, "second-new", "secretname", "Canary") == []
        [message] = person.query("SELECT account_id, secret_id, details FROM outbox")
        assert (message["account_id"], message["secret_id"], message["details"]) == (None, None, {})

    def test_others_keep_what_is_theirs(self, resources: Resources) -> None:
        other = Person(resources, "other@example.com").register().verified()
        grant = other.log_in(origin=at(user_agent="Other Browser"))
        invited = invitations.invite(resources, operator(), INVITED)
        delete_own_account(resources, at(), live_a_full_life(Person(resources)))

        sessions.refresh(resources, at(), grant.refresh_token)
        assert ("verify_email", "other@example.com", None) in other.mails()
        [event] = other.query(
            "SELECT user_agent FROM audit_events WHERE event = 'logged_in' AND address IS NOT NULL"
        )
        assert event["user_agent"] == "Other Browser"
        token = resources.one_time_secrets.token(Purpose.INVITATION, invited)
        invitations.accept(resources, at(), token, Acceptance(NEW_PASSWORD))

    def test_every_session_ends_and_the_address_is_free(self, resources: Resources) -> None:
        person = Person(resources).register()
        grant = person.log_in()
        delete_own_account(resources, at(), person.claims())
        with pytest.raises(Exception, match="not valid"):
            sessions.refresh(resources, at(), grant.refresh_token)
        with pytest.raises(InvalidCredentials):
            person.log_in()
        assert person.register().log_in().account.email == EMAIL

    def test_an_address_that_nobody_proved_gets_no_last_mail(self, resources: Resources) -> None:
        person = Person(resources).register()
        delete_own_account(resources, at(), person.claims())
        assert person.mails() == []

    def test_the_trail_stays_and_names_nobody(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        delete_own_account(resources, at(), claims)
        rows = person.query("SELECT event, account_id, address, user_agent FROM audit_events ORDER BY id")
        assert [row["event"] for row in rows] == ["registered", "logged_in", "account_deleted"]
        assert {(row["account_id"], row["address"], row["user_agent"]) for row in rows} == {
            (claims.sub, None, "")
        }

    def test_nor_what_an_administrator_did_to_others(self, resources: Resources) -> None:
        person, other = Person(resources).register(), Person(resources, "other@example.com").register()
        claims = person.claims()
        with resources.database.one_trip() as connection:
            for actor_id in (claims.sub, UUID(int=7)):
                audit.append(connection, "account_disabled", at(), account_id=other.id, actor_id=actor_id)
        delete_own_account(resources, at(), claims)
        acts = person.query(
            "SELECT actor_id, address, user_agent FROM audit_events"
            " WHERE actor_id IS NOT NULL ORDER BY actor_id DESC"
        )
        assert [tuple(row.values()) for row in acts] == [
            (claims.sub, None, ""),
            (UUID(int=7), at().address, "pytest"),
        ]

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE audit_events SET address = NULL, user_agent = '', reason = 'x'",
            "UPDATE audit_events SET address = NULL, user_agent = '', account_id = NULL",
            "UPDATE audit_events SET address = NULL, user_agent = '', occurred_at = now()",
            "UPDATE audit_events SET address = NULL, user_agent = '', outcome = 'failure'",
            "UPDATE audit_events SET address = '203.0.113.8'",
            "UPDATE audit_events SET address = NULL",
            "UPDATE audit_events SET user_agent = ''",
            "DELETE FROM audit_events",
        ],
    )
    def test_nothing_else_of_it_can_be_changed(self, resources: Resources, change: str) -> None:
        person = Person(resources).register()
        with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
            person.query(change + " RETURNING 1")

    @pytest.mark.parametrize("by", ["owner", "administrator"])
    def test_it_does_not_wait_for_a_sign_in(self, resources: Resources, by: str) -> None:
        """Which locks the counter, then waits for the account: they would wait for each other."""
        person = Person(resources).register()
        claims = person.claims()
        with pytest.raises(InvalidCredentials):
            person.log_in("not that one")

        def leave() -> None:
            if by == "owner":
                delete_own_account(resources, at(), claims)
            else:
                directory.delete_entry(resources, operator(), None, claims.sub)

        with ThreadPoolExecutor(1) as pool, resources.database.transaction() as connection:
            assert connection.fetch_all(
                "SELECT key FROM rate_limits WHERE key = %(key)s FOR UPDATE", {"key": account_key(claims.sub)}
            )
            pool.submit(leave).result(timeout=30)
            gone = "SELECT id FROM accounts WHERE id = %(id)s FOR SHARE"
            assert connection.fetch_all(gone, {"id": claims.sub}) == []
        assert person.query("SELECT id FROM accounts WHERE email = %(email)s") == []

    def test_of_sixteen_at_once_one_says_so(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        claims = person.claims()
        outcomes = together([lambda: delete_own_account(resources, at(), claims)] * 16)
        assert None in outcomes
        assert {type(outcome) for outcome in outcomes} <= {type(None), SessionEnded}
        assert person.mails() == [("account_erased", EMAIL, None)]


class TestGrace:
    @pytest.fixture
    def resources(self, make_resources: Make) -> Resources:
        return make_resources(erasure_grace=GRACE)

    def leave(self, person: Person) -> str:
        """Delete the account; return the token of its mail."""
        assert delete_own_account(person.resources, at(), person.claims()) == at(GRACE).now
        [row] = person.query("SELECT id FROM one_time_secrets WHERE purpose = 'keep_account'")
        return person.resources.one_time_secrets.token(Purpose.KEEP_ACCOUNT, row["id"])

    def erase_due(self, resources: Resources, seconds: float) -> int:
        return maintenance.erase_accounts(resources.database, at(seconds))

    def test_the_account_is_disabled_and_its_sessions_end(self, resources: Resources) -> None:
        person = Person(resources).register()
        grant = person.log_in()
        request = email_login.start(resources, at(), EMAIL)
        self.leave(person)

        with pytest.raises(AccountDisabled):
            person.log_in()
        with pytest.raises(SessionEnded):
            sessions.refresh(resources, at(), grant.refresh_token)
        with pytest.raises(InvalidOneTimeSecret):
            email_login.log_in(resources, at(), person.token(Purpose.EMAIL_LOGIN, request))
        [mail] = person.query("SELECT recipient, details FROM outbox WHERE kind = 'erasure_scheduled'")
        assert mail == {"recipient": EMAIL, "details": {"erase_after": at(GRACE).now.isoformat()}}
        assert person.events()[-2:] == [
            ("erasure_scheduled", "success", None),
            ("logged_in", "failure", "account_disabled"),
        ]

    @pytest.mark.parametrize("seconds", [0, GRACE - 1])
    def test_its_owner_can_keep_it(self, resources: Resources, seconds: float) -> None:
        person = Person(resources).register()
        before = person.log_in()
        token = self.leave(person)

        keep(resources, at(seconds), token)

        assert person.log_in().account.email == EMAIL
        with pytest.raises(SessionEnded):
            sessions.refresh(resources, at(), before.refresh_token)
        assert self.erase_due(resources, 10 * GRACE) == 0
        assert ("erasure_cancelled", "success", None) in person.events()

    def test_an_operators_disabling_is_not_its_owners_to_undo(self, resources: Resources) -> None:
        person = Person(resources).register()
        token = self.leave(person)
        person.query("UPDATE accounts SET disabled_at = now() RETURNING 1")

        with pytest.raises(InvalidOneTimeSecret):
            keep(resources, at(), token)

        [account] = person.query("SELECT disabled_at IS NOT NULL AS disabled FROM accounts")
        assert account == {"disabled": True}

    def test_it_is_erased_when_it_is_due(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        kept = Person(resources, "kept@example.com").register()
        token = self.leave(person)

        assert self.erase_due(resources, GRACE - 1) == 0
        assert self.erase_due(resources, GRACE) == 1
        assert self.erase_due(resources, GRACE) == 0

        assert rows_with(resources, EMAIL) == [("outbox", "recipient")]
        assert ("account_erased", EMAIL, None) in person.mails()
        assert kept.log_in().account.email == "kept@example.com"
        with pytest.raises(InvalidOneTimeSecret):
            keep(resources, at(GRACE - 1), token)

    def test_many_are_erased_in_batches_until_the_time_is_up(self, resources: Resources) -> None:
        person = Person(resources).register()
        person.query(
            f"""
            INSERT INTO accounts (id, email, email_normalized, password_hash, password_changed_at, created_at,
                                  updated_at, disabled_at, erase_after)
            SELECT gen_random_uuid(), n::text, n::text, '!', now(), now(), now(), now(), now()
            FROM generate_series(1, {2 * maintenance.ERASURE_BATCH + 1}) AS n RETURNING 1
            """
        )
        asked = iter([True, False])
        origin = at(3600)
        erased = maintenance.erase_accounts(resources.database, origin, may_go_on=lambda: next(asked))
        assert erased == maintenance.ERASURE_BATCH
        assert maintenance.erase_accounts(resources.database, origin) == maintenance.ERASURE_BATCH + 1
        assert len(person.query("SELECT id FROM accounts")) == 1


class TestRest:
    """Of what an administrator did to others, the erasure forgets so much at once, maintenance the rest."""

    @pytest.fixture
    def left(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        """Erases an administrator of ten acts; tells how many have an address."""
        monkeypatch.setattr(audit, "ACTS", 4)
        person = Person(resources).register()
        claims, others = person.claims(), [UUID(int=number) for number in range(10)]
        with resources.database.one_trip() as connection:
            audit.append_all(connection, "disabled", at(), account_ids=others, actor_id=claims.sub)
        delete_own_account(resources, at(), claims)
        return lambda: len(
            person.query("SELECT 1 FROM audit_events WHERE actor_id IS NOT NULL AND address IS NOT NULL")
        )

    def test_so_much_with_each_run(self, resources: Resources, left: Callable[[], int]) -> None:
        counted = [left()]
        for _ in range(3):
            assert maintenance.erase_accounts(resources.database, at(3600)) == 0
            counted.append(left())
        assert counted == [6, 2, 0, 0]

    def test_not_of_whoever_was_imported_again(self, resources: Resources, left: Callable[[], int]) -> None:
        query(
            resources,
            "INSERT INTO accounts"
            " (id, email, email_normalized, password_hash, created_at, updated_at, password_changed_at)"
            " SELECT DISTINCT actor_id, 'a@example.com', 'a@example.com', '', now(), now(), now()"
            " FROM audit_events WHERE actor_id IS NOT NULL RETURNING 1",
        )
        maintenance.erase_accounts(resources.database, at(3600))
        assert left() == 6

    def test_nor_of_whoever_lives(self, resources: Resources) -> None:
        person = Person(resources).register()
        with resources.database.one_trip() as connection:
            audit.append(connection, "disabled", at(), account_id=UUID(int=1), actor_id=person.id)
        maintenance.erase_accounts(resources.database, at(3600))
        [act] = person.query("SELECT user_agent FROM audit_events WHERE actor_id IS NOT NULL")
        assert act["user_agent"] == "pytest"

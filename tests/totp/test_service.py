"""Setting up an authenticator app, and removing it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.factors.authenticator import App, begin, enrol
from tests.verification.people import Person, at, query, together

from auth_manager.errors import (
    EmailNotVerified,
    FactorNeeded,
    InvalidFields,
    NotFound,
    RecentAuthenticationRequired,
    SessionEnded,
    TooManyFactors,
)
from auth_manager.factors import recovery_codes, trusted_devices
from auth_manager.factors.changes import Enrolee, enrolee_of
from auth_manager.factors.recovery_codes import HashedCodes
from auth_manager.ids import new_id
from auth_manager.resources import Resources
from auth_manager.sessions import service as sessions
from auth_manager.tokens import AccessClaims
from auth_manager.totp import service
from auth_manager.totp.service import Rewrapping

Make = Callable[..., Resources]
OLD = "old-0123456789abcdefghijklmnopqrstuvwxyz"
NEW = "new-0123456789abcdefghijklmnopqrstuvwxyz"


def confirm(person: Person, claims: AccessClaims, code: str, seconds: float = 0) -> Any:
    origin = at(seconds)
    return service.confirm(person.resources, origin, enrolee_of(person.resources, origin, claims), code)


def factors_of(person: Person) -> list[str]:
    [row] = person.query("SELECT factors_of(id) AS factors FROM accounts WHERE email = %(email)s")
    factors: list[str] = row["factors"]
    return factors


def add_passkey(person: Person, claims: AccessClaims) -> None:
    query(
        person.resources,
        """
        INSERT INTO passkeys (id, account_id, credential_id, public_key, sign_count, name, transports, aaguid,
                              attestation_format, user_verified, backup_eligible, backed_up, created_at)
        VALUES (%(id)s, %(account_id)s, 'c', 'k', 0, 'key', '{}', %(id)s, 'none', true, false, false, now())
        RETURNING 1
        """,
        id=new_id(),
        account_id=claims.sub,
    )


def trust_device(person: Person, claims: AccessClaims) -> None:
    with person.resources.database.one_trip() as connection:
        trusted_devices.add(
            connection,
            new_id(),
            at(),
            account_id=claims.sub,
            password_changed_at=at().now,
            lifetime=at(9).now - at().now,
        )


class TestStart:
    def test_what_an_app_takes(self, make_resources: Make) -> None:
        person = Person(make_resources(product_name="Acme")).register()
        enrolment = service.start(person.resources, at(), enrolee_of(person.resources, at(), person.claims()))

        assert enrolment.uri == (
            f"otpauth://totp/Acme:person%40example.com?secret={enrolment.secret}&issuer=Acme"
        )
        assert enrolment.qr_svg.startswith("<svg ")
        assert enrolment.secret not in repr(enrolment)

    def test_it_counts_for_nothing_until_it_is_confirmed(self, resources: Resources) -> None:
        person = Person(resources).register()
        begin(person, person.claims())

        assert factors_of(person) == []
        person.log_in()
        assert "totp_added" not in [event for event, _, _ in person.events()]
        assert "factors_changed" not in [kind for kind, _, _ in person.mails()]

    def test_a_second_takes_the_place_of_the_first(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        first, second = begin(person, claims), begin(person, claims)

        with pytest.raises(InvalidFields):
            confirm(person, claims, first.code(at().now))
        confirm(person, claims, second.code(at().now))

    def test_not_beside_one_that_counts(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        enrol(person, claims)
        with pytest.raises(TooManyFactors):
            begin(person, claims)

    def test_only_after_a_recent_authentication(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        with pytest.raises(RecentAuthenticationRequired) as caught:
            begin(person, claims, at(901))
        assert 'max_age="900"' in caught.value.headers["WWW-Authenticate"]
        assert query(resources, "SELECT id FROM totp_factors") == []

    def test_a_session_that_ended_starts_none(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        sessions.log_out(resources, at(), claims, "this")
        with pytest.raises(SessionEnded):
            begin(person, claims)

    def test_an_address_must_be_proven_where_mail_is_sent(self, make_resources: Make) -> None:
        resources = make_resources(mail_transport="ses", mail_from="auth@example.com")
        person = Person(resources).register()
        claims = person.claims()
        with pytest.raises(EmailNotVerified):
            begin(person, claims)
        person.verified()
        enrol(person, claims)

    def test_one_round_trip(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        before = resources.database.round_trips
        begin(person, claims)
        assert resources.database.round_trips == before + 1


class TestConfirm:
    def test_the_app_is_a_factor_from_now_on(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        app, codes = enrol(person, person.claims())

        assert factors_of(person) == ["totp", "recovery_code"]
        assert len(codes) == 10
        assert app.secret not in str(person.events())
        assert ("totp_added", "success", None) in person.events()
        assert [kind for kind, _, _ in person.mails()][1:] == ["factors_changed"]

    def test_the_codes_that_come_back_are_those_that_are_kept(self, resources: Resources) -> None:
        person = Person(resources).register()
        _, codes = enrol(person, person.claims())
        stored = query(resources, "SELECT code_hash, salt FROM recovery_codes")

        hashed = recovery_codes.hash_code(resources.passwords, codes[7], bytes(stored[0]["salt"]))

        assert hashed in {bytes(row["code_hash"]) for row in stored}

    def test_the_session_has_two_factors_from_now_on(self, resources: Resources) -> None:
        person = Person(resources).register()
        grant, other = person.log_in(), person.log_in()
        enrol(person, person.claims(grant), at(60))

        def refreshed(token: str) -> AccessClaims:
            access = sessions.refresh(resources, at(61), token).access_token
            return resources.access_tokens.verify(access, now=at(61).now)

        mine, theirs = refreshed(grant.refresh_token), refreshed(other.refresh_token)
        assert (mine.acr, mine.amr) == ("aal2", ("mfa", "otp", "pwd"))
        assert mine.auth_time == at(60).now.replace(microsecond=0)
        assert (theirs.acr, theirs.amr) == ("aal1", ("pwd",))

    def test_a_session_with_one_factor_cannot_undo_it(self, resources: Resources) -> None:
        person = Person(resources).register()
        mine, theirs = person.claims(), person.claims()
        enrol(person, mine)
        with pytest.raises(RecentAuthenticationRequired) as caught:
            service.remove(resources, at(), theirs)
        assert 'acr_values="aal2"' in caught.value.headers["WWW-Authenticate"]
        assert "totp" in factors_of(person)

    @pytest.mark.parametrize("steps", [-1, 0, 1])
    def test_the_code_is_used_up(self, resources: Resources, steps: int) -> None:
        person = Person(resources).register()
        claims = person.claims()
        app = begin(person, claims)
        confirm(person, claims, app.code(at().now, steps=steps))

        [row] = query(resources, "SELECT last_step, last_used_at FROM totp_factors")
        assert row["last_step"] == int(at().now.timestamp()) // 30 + steps
        assert row["last_used_at"] == at().now

    def test_a_wrong_code_is_a_wrong_field_and_changes_nothing(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        app = begin(person, claims)
        with pytest.raises(InvalidFields) as caught:
            confirm(person, claims, app.wrong_code(at().now))
        assert [(e.pointer, e.code) for e in caught.value.errors] == [("/code", "code_wrong")]
        assert factors_of(person) == []
        confirm(person, claims, app.code(at().now))

    def test_nothing_waits(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        with pytest.raises(NotFound):
            confirm(person, claims, "123456")
        app, _ = enrol(person, claims)
        with pytest.raises(NotFound):
            confirm(person, claims, app.code(at().now, steps=1))

    def test_what_another_account_started_cannot_be_confirmed(self, resources: Resources) -> None:
        person, other = Person(resources).register(), Person(resources, "other@example.com").register()
        app = begin(person, person.claims())
        with pytest.raises(NotFound):
            confirm(other, other.claims(), app.code(at().now))

    def test_codes_that_are_left_stay(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        with resources.database.one_trip() as connection:
            recovery_codes.replace(connection, claims.sub, HashedCodes(b"salt", (b"a",)), now=at().now)

        _, codes = enrol(person, claims)

        assert list(codes) == []
        assert query(resources, "SELECT count(*) AS n FROM recovery_codes") == [{"n": 1}]

    def test_of_sixteen_at_once_one_gets_through(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        app = begin(person, claims)
        code = app.code(at().now)

        outcomes = together([lambda: confirm(person, claims, code)] * 16)

        confirmed = [outcome for outcome in outcomes if isinstance(outcome, list)]
        assert [len(codes) for codes in confirmed] == [10]
        assert sum(isinstance(outcome, NotFound) for outcome in outcomes) == 15
        assert query(resources, "SELECT count(*) AS n FROM recovery_codes") == [{"n": 10}]

    def test_a_sign_in_that_was_being_decided_is_decided_anew(self, resources: Resources) -> None:
        person = Person(resources).register()
        enrol(person, person.claims())
        [row] = person.query("SELECT factors_changed_at FROM accounts WHERE email = %(email)s")
        assert row["factors_changed_at"] == at().now

    def test_who_has_no_session_yet_gets_none(self, resources: Resources) -> None:
        """As when a policy asks for the factor in the middle of a sign-in."""
        person = Person(resources).register()
        claims = person.claims()
        enrolee = Enrolee(claims.sub, "registration:ticket", lambda _: None)
        app = App(service.start(resources, at(), enrolee).secret)

        service.confirm(resources, at(), enrolee, app.code(at().now))

        assert "totp" in factors_of(person)
        assert query(resources, "SELECT DISTINCT acr FROM sessions") == [{"acr": "aal1"}]

    def test_two_round_trips(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        app = begin(person, claims)
        before = resources.database.round_trips
        confirm(person, claims, app.code(at().now))
        assert resources.database.round_trips == before + 2


class TestRemove:
    def test_what_stands_in_for_factors_goes_with_the_last(self, resources: Resources) -> None:
        person = Person(resources).register().verified()
        claims = person.claims()
        enrol(person, claims)
        trust_device(person, claims)

        service.remove(resources, at(), claims)

        assert factors_of(person) == []
        for table in ("totp_factors", "recovery_codes", "trusted_devices"):
            assert query(resources, f"SELECT * FROM {table}") == []
        assert ("totp_removed", "success", None) in person.events()
        assert [kind for kind, _, _ in person.mails()][1:] == ["factors_changed"] * 2
        person.log_in()

    def test_it_stays_while_there_is_a_passkey(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        enrol(person, claims)
        add_passkey(person, claims)
        trust_device(person, claims)

        service.remove(resources, at(), claims)

        assert factors_of(person) == ["passkey", "recovery_code"]
        assert query(resources, "SELECT count(*) AS n FROM trusted_devices") == [{"n": 1}]

    def test_what_waits_to_be_confirmed_is_no_factor(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        begin(person, claims)
        with pytest.raises(NotFound):
            service.remove(resources, at(), claims)

    @pytest.mark.parametrize(
        ("policy", "admin", "refused"),
        [
            ("optional", True, False),
            ("required_for_admins", False, False),
            ("required_for_admins", True, True),
            ("required", False, True),
        ],
    )
    def test_who_must_keep_one_keeps_it(
        self, make_resources: Make, policy: str, *, admin: bool, refused: bool
    ) -> None:
        person = Person(make_resources()).register()
        claims = person.claims()
        if admin:
            person.query(
                "INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts"
                " WHERE email = %(email)s RETURNING 1"
            )
        enrol(person, claims)
        resources = make_resources(mfa_policy=policy)
        if refused:
            with pytest.raises(FactorNeeded):
                service.remove(resources, at(), claims)
            assert factors_of(person) == ["totp", "recovery_code"]
            add_passkey(person, claims)  # one is enough

        service.remove(resources, at(), claims)
        assert "totp" not in factors_of(person)

    def test_a_session_that_ended_removes_none(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        enrol(person, claims)
        sessions.log_out(resources, at(), claims, "this")
        with pytest.raises(SessionEnded):
            service.remove(resources, at(), claims)

    def test_only_after_a_recent_authentication(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        enrol(person, claims)
        old = replace(claims, auth_time=at(-901).now)
        with pytest.raises(RecentAuthenticationRequired):
            service.remove(resources, at(), old)

    def test_another_can_be_set_up_then(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        enrol(person, claims)
        service.remove(resources, at(), claims)
        _, codes = enrol(person, claims)
        assert len(codes) == 10

    def test_two_round_trips(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        enrol(person, claims)
        before = resources.database.round_trips
        service.remove(resources, at(), claims)
        assert resources.database.round_trips == before + 2


class TestRewrapSecrets:
    def test_an_old_key_can_go_afterwards(self, make_resources: Make) -> None:
        old = make_resources(secret_keys=(OLD,))
        people = [Person(old, f"person{n}@example.com").register() for n in range(5)]
        claims = [person.claims() for person in people]
        apps = [begin(person, mine) for person, mine in zip(people, claims, strict=True)]

        both = make_resources(secret_keys=(NEW, OLD))
        assert service.rewrap_secrets(both, batch=2) == Rewrapping(rewrapped=5, unreadable=0)
        assert service.rewrap_secrets(both, batch=2) == Rewrapping(rewrapped=0, unreadable=0)

        new = make_resources(secret_keys=(NEW,))
        for person, mine, app in zip(people, claims, apps, strict=True):
            confirm(replace(person, resources=new), mine, app.code(at().now))

    def test_what_no_key_opens_is_counted_and_stays(self, make_resources: Make) -> None:
        old = make_resources(secret_keys=(OLD,))
        person = Person(old).register()
        begin(person, person.claims())
        before = query(old, "SELECT sealed_secret FROM totp_factors")

        outcome = service.rewrap_secrets(make_resources(secret_keys=(NEW,)))

        assert outcome == Rewrapping(rewrapped=0, unreadable=1)
        assert [bytes(row["sealed_secret"]) for row in before] == [
            bytes(row["sealed_secret"]) for row in query(old, "SELECT sealed_secret FROM totp_factors")
        ]

    def test_who_began_with_a_key_that_is_gone_begins_again(self, make_resources: Make) -> None:
        old = make_resources(secret_keys=(OLD,))
        person = Person(old).register()
        claims = person.claims()
        app = begin(person, claims)
        person = replace(person, resources=make_resources(secret_keys=(NEW,)))
        with pytest.raises(NotFound):
            confirm(person, claims, app.code(at().now))
        enrol(person, claims)

    def test_nothing_to_do(self, resources: Resources) -> None:
        assert service.rewrap_secrets(resources) == Rewrapping(0, 0)

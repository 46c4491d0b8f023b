"""What is kept of a passkey."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from tests.verification.people import Person, query, start, together

from auth_manager.database import Connection
from auth_manager.errors import InvalidPasskey, PasskeyKnown
from auth_manager.factors import passkeys
from auth_manager.factors.passkeys import Assertion, Registration
from auth_manager.ids import new_id
from auth_manager.resources import Resources

NEW = Registration(
    credential_id=b"credential",
    public_key=b"key",
    sign_count=5,
    transports=("usb",),
    aaguid=UUID(int=0),
    attestation_format="none",
    user_verified=True,
    backup_eligible=False,
    backed_up=False,
)
USED = Assertion(sign_count=6, user_verified=True, backed_up=True, regressed=False, must_rise=True)


@pytest.fixture
def person(resources: Resources) -> Person:
    return Person(resources).register()


def account_of(person: Person) -> UUID:
    [row] = person.query("SELECT id FROM accounts WHERE email = %(email)s")
    account_id: UUID = row["id"]
    return account_id


def add(person: Person, registration: Registration = NEW) -> UUID:
    passkey_id = new_id()
    with person.resources.database.one_trip() as connection:
        passkeys.add(
            connection,
            passkey_id,
            registration,
            account_id=account_of(person),
            name="Key",
            now=start(),
        )
    return passkey_id


def use(
    person: Person, passkey_id: UUID, assertion: Assertion = USED, *, seconds: float = 0, times: int = 1
) -> None:
    def queue(connection: Connection) -> None:
        passkeys.use(
            connection,
            passkey_id,
            assertion,
            now=start() + timedelta(seconds=seconds),
            otherwise=InvalidPasskey(),
        )

    with person.resources.database.one_trip() as connection:
        queue(connection)
        connection._queued.extend(connection._queued * (times - 1))


def sign_count(person: Person) -> int:
    [row] = query(person.resources, "SELECT sign_count FROM passkeys")
    count: int = row["sign_count"]
    return count


class TestAdd:
    def test_a_credential_belongs_to_one_account(self, person: Person) -> None:
        other = Person(person.resources, email="other@example.com").register()
        add(person)
        with pytest.raises(PasskeyKnown):
            add(other)
        assert len(query(person.resources, "SELECT 1 FROM passkeys")) == 1

    def test_sent_twice_is_one(self, person: Person) -> None:
        passkey_id = new_id()
        with person.resources.database.one_trip() as connection:
            for _ in range(2):
                passkeys.add(
                    connection,
                    passkey_id,
                    NEW,
                    account_id=account_of(person),
                    name="Key",
                    now=start(),
                )
        assert len(query(person.resources, "SELECT 1 FROM passkeys")) == 1


class TestUse:
    def test_notes_what_the_authenticator_said(self, person: Person) -> None:
        use(person, add(person))
        rows = query(person.resources, "SELECT sign_count, backed_up, last_used_at FROM passkeys")
        assert rows == [{"sign_count": 6, "backed_up": True, "last_used_at": start()}]

    def test_sent_twice_is_one(self, person: Person) -> None:
        use(person, add(person), times=2)
        assert sign_count(person) == 6

    @pytest.mark.parametrize("count", [0, 4, 5])
    def test_a_counter_that_another_use_raised_is_refused(self, person: Person, count: int) -> None:
        """As read it was lower: the write decides."""
        passkey_id = add(person)
        with pytest.raises(InvalidPasskey):
            use(person, passkey_id, replace(USED, sign_count=count))
        assert sign_count(person) == 5

    @pytest.mark.parametrize("count", [0, 4, 5, 6])
    def test_where_clones_are_accepted_the_counter_never_falls(self, person: Person, count: int) -> None:
        use(person, add(person), replace(USED, sign_count=count, must_rise=False))
        assert sign_count(person) == max(count, 5)

    def test_no_counter_is_no_clone(self, person: Person) -> None:
        passkey_id = add(person, replace(NEW, sign_count=0))
        for seconds in range(3):
            use(person, passkey_id, replace(USED, sign_count=0), seconds=seconds)
        assert sign_count(person) == 0

    def test_of_sixteen_with_the_same_counter_one_counts(self, person: Person) -> None:
        passkey_id = add(person)
        outcomes = together([partial(use, person, passkey_id, seconds=each) for each in range(16)])
        assert sum(outcome is None for outcome in outcomes) == 1
        assert all(isinstance(outcome, InvalidPasskey) for outcome in outcomes if outcome is not None)

    def test_a_passkey_that_was_removed_is_refused(self, person: Person) -> None:
        passkey_id = add(person)
        with person.resources.database.one_trip() as connection:
            passkeys.remove(connection, account_of(person), passkey_id)
        with pytest.raises(InvalidPasskey):
            use(person, passkey_id)

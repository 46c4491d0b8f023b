"""Whatever is done to a trail, with every trigger off, verification names where it begins."""

import random
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from tests.audit_chain.conftest import NOW, Append

from auth_manager import audit
from auth_manager.audit_chain import checkpoints
from auth_manager.audit_chain.chaining import extend
from auth_manager.audit_chain.rows import COLUMNS, hash_event
from auth_manager.audit_chain.verification import FARTHEST_SHIFT, Verified, verify
from auth_manager.database import Database, Row
from auth_manager.ids import new_id
from auth_manager.signing_keys import KeySet

EVENTS = 12
ISSUER = "https://auth.example.com"

OTHERWISE = {
    "uuid": "'0191d6a0-0000-7000-8000-000000000000'",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
    "text": "COALESCE({0}, '') || 'x'",
    "inet": "COALESCE(set_masklen({0}, 24), '192.0.2.1')",
    "jsonb": '{0} || \'{{"roles": ["admin"]}}\'',
    "bytea": "sha256(COALESCE({0}, ''))",
    "bigint": "{0} + 1000",
}
"""Another value than a column has, by its type."""

Checks = Callable[[], Verified]


class Forger:
    """Somebody who may do anything to the table, but has no key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def do(self, *statements: str, **parameters: object) -> None:
        with self._database.transaction() as connection:
            # As a replica, PostgreSQL fires no triggers.
            connection.add("SET LOCAL session_replication_role = replica")
            for statement in statements:
                connection.add(statement, parameters)

    def rows(self) -> list[Row]:
        with self._database.one_trip() as connection:
            return connection.fetch_all(
                f"SELECT {COLUMNS} FROM audit_events WHERE position IS NOT NULL ORDER BY position"
            )

    def shift(self, first: int, by: int) -> None:
        """Renumber all from a place on."""
        self.do(
            "UPDATE audit_events SET position = -position - %(by)s WHERE position >= %(first)s",
            "UPDATE audit_events SET position = -position WHERE position < 0",
            first=first,
            by=by,
        )

    def copy_to(self, position: int, *, like: int, fitting: bool) -> str:
        """Put an event in that looks like another one; `fitting`: with hashes that follow the one before."""
        made = str(new_id())
        self.do(
            "CREATE TEMPORARY TABLE copied ON COMMIT DROP AS"
            " SELECT * FROM audit_events WHERE position = %(like)s",
            "UPDATE copied SET id = %(made)s, position = %(position)s, reason = 'forged'",
            "INSERT INTO audit_events SELECT * FROM copied",
            like=like,
            made=made,
            position=position,
        )
        if fitting:
            rows = {row["position"]: row for row in self.rows()}
            self.rehash(rows[position], bytes(rows[position - 1]["hash"]))
        return made

    def rehash(self, row: Row, previous: bytes) -> bytes:
        """Give an event the hash that its content has, after another one."""
        person = bytes(row["personal_hash"])
        own = hash_event(row, position=row["position"], previous_hash=previous, personal_hash=person)
        self.do(
            "UPDATE audit_events SET previous_hash = %(previous)s, hash = %(own)s WHERE id = %(id)s::uuid",
            previous=previous,
            own=own,
            id=row["id"],
        )
        return own


@pytest.fixture
def forger(database: Database) -> Forger:
    return Forger(database)


@pytest.fixture
def check(database: Database, key_set: KeySet, chained: Callable[[int], None]) -> Checks:
    """Verifies a trail of EVENTS events, the last of which is signed."""
    chained(EVENTS)
    checkpoints.take(database, key_set, issuer=ISSUER, now=NOW)
    return lambda: verify(database, key_set, page=5)


@pytest.fixture
def undone(forger: Forger) -> Iterator[Callable[[], None]]:
    """Puts the trail back as it is now."""
    forger.do("CREATE TABLE audit_kept AS SELECT * FROM audit_events WHERE false")

    def undo() -> None:
        forger.do("DELETE FROM audit_events", "INSERT INTO audit_events SELECT * FROM audit_kept")

    yield undo
    forger.do("DROP TABLE audit_kept")


def named(found: Verified) -> tuple[str, int, str | None]:
    assert found.fault is not None
    return found.fault.kind, found.fault.position, found.fault.event_id


class TestWholeTrail:
    def test_it_is_sound(self, check: Checks) -> None:
        assert check() == Verified(
            events=EVENTS,
            unchained=0,
            erased=0,
            checkpoints=1,
            last_checkpoint=NOW.replace(microsecond=0),
            fault=None,
            checkpoint_faults=[],
        )

    def test_no_event_at_all(self, database: Database, key_set: KeySet) -> None:
        found = verify(database, key_set)
        assert (found.is_sound, found.events, found.last_checkpoint) == (True, 0, None)

    def test_what_is_not_chained_yet_is_counted(self, check: Checks, append: Append) -> None:
        append(3, seed=2)
        found = check()
        assert (found.is_sound, found.events, found.unchained) == (True, EVENTS, 3)

    def test_a_column_of_a_later_migration_has_to_be_thought_of(self, database: Database) -> None:
        """Whoever adds one decides how the hash covers it: COLUMNS, _FIELDS and the name of the encoding."""
        with database.one_trip() as connection:
            found = connection.fetch_one(f"SELECT {COLUMNS} FROM (SELECT) x LEFT JOIN audit_events ON true")
        with database.one_trip() as connection:
            columns = connection.fetch_all(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'audit_events'"
            )
        assert found is not None
        assert set(found) == {row["column_name"] for row in columns}


class TestProperty:
    """Every change of every row, and many of several rows."""

    def test_any_column_of_any_row(
        self, database: Database, check: Checks, forger: Forger, undone: Callable[[], None]
    ) -> None:
        with database.one_trip() as connection:
            columns = connection.fetch_all(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_name = 'audit_events'"
            )
        forger.do("INSERT INTO audit_kept SELECT * FROM audit_events")
        outcomes = {row["position"]: row["outcome"] for row in forger.rows()}
        tried = 0
        for column in columns:
            name = column["column_name"]
            for position in range(1, EVENTS + 1):
                value = OTHERWISE[column["data_type"]].format(name)
                if name == "outcome":
                    value = "'failure'" if outcomes[position] == "success" else "'success'"
                forger.do(f"UPDATE audit_events SET {name} = {value} WHERE position = {position}")
                found = check().fault
                assert found is not None, (name, position)
                assert found.position == position, (name, position, found)
                assert found.kind == ("missing" if name == "position" else "altered")
                undone()
                tried += 1
        assert tried == EVENTS * 18
        assert check().is_sound

    @pytest.mark.parametrize("seed", range(8))
    def test_removed_put_in_moved(
        self, check: Checks, forger: Forger, undone: Callable[[], None], seed: int
    ) -> None:
        chance = random.Random(seed)  # noqa: S311 -- the same changes each time
        forger.do("INSERT INTO audit_kept SELECT * FROM audit_events")
        for _ in range(12):
            expected = self.change(forger, chance)
            found = check().fault
            assert found is not None, expected
            assert (found.kind, found.position, found.event_id) == expected
            undone()
        assert check().is_sound

    @staticmethod
    def change(forger: Forger, chance: random.Random) -> tuple[str, int, str | None]:
        """Change the trail; return what has to be named: kind, place, event."""
        ids = {row["position"]: row["id"] for row in forger.rows()}
        first, second = sorted(chance.sample(range(1, EVENTS + 1), 2))
        renumbered = chance.random() < 0.5
        match chance.choice(["delete", "insert", "swap places", "swap contents", "unchain"]):
            case "delete":
                last = chance.choice([first, second])
                forger.do(f"DELETE FROM audit_events WHERE position BETWEEN {first} AND {last}")
                if renumbered:
                    forger.shift(last + 1, first - last - 1)
                return "missing", first, None
            case "insert":
                place, fitting = max(first, 2), renumbered
                forger.shift(place, 1)
                like = chance.choice([place - 1, place + 1])
                return "inserted", place, forger.copy_to(place, like=like, fitting=fitting)
            case "swap places":
                forger.do(
                    f"UPDATE audit_events SET position = -position WHERE position IN ({first}, {second})",
                    f"UPDATE audit_events SET position = {first} WHERE position = -{second}",
                    f"UPDATE audit_events SET position = {second} WHERE position = -{first}",
                )
                return "altered", first, ids[second]
            case "swap contents":
                names = "occurred_at, event, reason, account_id, session_id, request_id, operator, details"
                forger.do(
                    f"UPDATE audit_events AS one SET ({names}) = (SELECT {names} FROM audit_events AS other"
                    f" WHERE other.position = {first + second} - one.position)"
                    f" WHERE position IN ({first}, {second})"
                )
                return "altered", first, ids[first]
            case _:
                forger.do(
                    "UPDATE audit_events SET position = NULL, previous_hash = NULL, personal_hash = NULL,"
                    f" hash = NULL WHERE position = {first}"
                )
                return "missing", first, None


class TestWithoutTheIndex:
    """Whoever may drop the index can give two events one place, or a place before the first."""

    @pytest.fixture(autouse=True)
    def _dropped(self, forger: Forger) -> Iterator[None]:
        forger.do("DROP INDEX audit_events_position_key")
        yield
        forger.do(
            "DELETE FROM audit_events",
            "CREATE UNIQUE INDEX audit_events_position_key ON audit_events (position)"
            " WHERE position IS NOT NULL",
        )

    @pytest.mark.parametrize("fitting", [True, False])
    @pytest.mark.parametrize("place", [2, 5, 6, EVENTS])
    def test_two_with_one_place(self, check: Checks, forger: Forger, place: int, *, fitting: bool) -> None:
        made = forger.copy_to(place, like=place, fitting=False)
        if fitting:
            before = forger.rows()[place - 2]
            [row] = [row for row in forger.rows() if row["id"] == made]
            forger.rehash(row, bytes(before["hash"]))
        assert named(check()) == ("inserted", place, made)

    @pytest.mark.parametrize("place", [0, -1, -(1 << 63)])
    def test_a_place_before_the_first(self, check: Checks, forger: Forger, place: int) -> None:
        made = forger.copy_to(place, like=1, fitting=False)
        assert named(check()) == ("inserted", place, made)


class TestManyRows:
    def test_more_were_removed_than_we_look_for(self, check: Checks, forger: Forger, append: Append) -> None:
        """It is still found, as an event that is not what it was."""
        assert check().is_sound
        append(FARTHEST_SHIFT, seed=2)
        extend(forger._database)
        extend(forger._database)
        forger.do(f"DELETE FROM audit_events WHERE position BETWEEN 2 AND {FARTHEST_SHIFT + 2}")
        forger.shift(FARTHEST_SHIFT + 3, -FARTHEST_SHIFT - 1)
        assert named(check())[:2] == ("altered", 2)

    def test_the_last_events_are_gone(self, check: Checks, forger: Forger) -> None:
        forger.do("DELETE FROM audit_events WHERE position > 8")
        found = check()
        assert named(found) == ("missing", 9, None)
        assert found.fault
        assert "12 when the checkpoint of 2030-01-02" in found.fault.reason

    def test_all_are_gone(self, check: Checks, forger: Forger) -> None:
        forger.do("DELETE FROM audit_events")
        assert named(check()) == ("missing", 1, None)

    @pytest.mark.parametrize("first", [1, 4, EVENTS])
    def test_an_event_and_all_hashes_after_it(self, check: Checks, forger: Forger, first: int) -> None:
        """The chain holds together again; the checkpoint does not."""
        rewrite(forger, first)
        assert named(check()) == ("rewritten", EVENTS, forger.rows()[-1]["id"])

    def test_an_event_and_its_own_hash(self, check: Checks, forger: Forger) -> None:
        forger.do("UPDATE audit_events SET event = 'forged' WHERE position = 4")
        row = forger.rows()[3]
        forger.rehash(row, bytes(row["previous_hash"]))
        assert named(check()) == ("altered", 4, row["id"])

    def test_the_first_says_that_one_came_before_it(self, check: Checks, forger: Forger) -> None:
        row = forger.rows()[0]
        forger.rehash(row, bytes(31) + b"1")
        assert named(check()) == ("altered", 1, row["id"])

    def test_what_comes_after_the_last_checkpoint_is_not_signed_yet(
        self, check: Checks, forger: Forger, append: Append
    ) -> None:
        """The guarantee, where it ends."""
        append(3, seed=2)
        extend(forger._database)
        rewrite(forger, EVENTS + 1)
        assert check().is_sound


def rewrite(forger: Forger, first: int) -> None:
    """Forge an event, and make the hashes of all that follow fit."""
    forger.do(f"UPDATE audit_events SET event = 'forged' WHERE position = {first}")
    rows = forger.rows()[first - 1 :]
    previous = bytes(rows[0]["previous_hash"])
    for row in rows:
        previous = forger.rehash(row, previous)


class TestErasure:
    def test_of_an_account_breaks_nothing(self, database: Database, key_set: KeySet, append: Append) -> None:
        append(40)
        while extend(database):
            pass
        nobody = audit.Origin(None, "", "r", NOW)
        for number in range(40):
            with database.one_trip() as connection:
                audit.append(connection, "account_deleted", nobody, account_id=UUID(int=number))
                audit.anonymise(connection, UUID(int=number))
        found = verify(database, key_set)
        assert (found.is_sound, found.events) == (True, 40)
        with database.one_trip() as connection:
            [left] = connection.fetch_all(
                "SELECT count(*) FILTER (WHERE account_id IS NOT NULL AND personal_salt IS NOT NULL) AS kept,"
                " count(*) FILTER (WHERE personal_salt IS NOT NULL) AS others FROM audit_events"
            )
        assert left["kept"] == 0
        assert left["others"] > 0
        assert found.erased > 0

    def test_before_it_is_chained(self, database: Database, key_set: KeySet, append: Append) -> None:
        append(40)
        for number in range(40):
            with database.one_trip() as connection:
                audit.anonymise(connection, UUID(int=number))
        extend(database)
        found = verify(database, key_set)
        assert (found.is_sound, found.events, found.erased) == (True, 40, 0)

    @pytest.mark.parametrize(
        ("left", "sound"),
        [
            ("login", False),
            ("account_deleted", True),
        ],
        ids=["and never ended", "and was imported again"],
    )
    def test_of_an_account_that_lives(
        self, database: Database, key_set: KeySet, left: str, *, sound: bool
    ) -> None:
        with database.one_trip() as connection:
            connection.add(
                "INSERT INTO accounts"
                " (id, email, email_normalized, password_hash, created_at, updated_at, password_changed_at)"
                " VALUES (%(id)s, 'a@example.com', 'a@example.com', '', now(), now(), now())",
                {"id": UUID(int=5)},
            )
            origin = audit.Origin("198.51.100.7", "browser/1", "r", NOW)
            audit.append(connection, "login", origin, account_id=UUID(int=5))
        extend(database)
        with database.one_trip() as connection:
            audit.append(connection, left, origin, account_id=UUID(int=5))
            audit.anonymise(connection, UUID(int=5))
        assert verify(database, key_set).is_sound is sound

    @pytest.mark.parametrize("erased", [True, False])
    def test_of_who_did_it(
        self, database: Database, key_set: KeySet, forger: Forger, *, erased: bool
    ) -> None:
        """Whose own act is emptied, and nobody else's on the same account."""
        administrator, account = UUID(int=7), UUID(int=5)
        origin = audit.Origin("198.51.100.7", "browser/1", "r", NOW)
        nobody = audit.Origin(None, "", "r", NOW)
        with database.one_trip() as connection:
            audit.append(connection, "account_disabled", origin, account_id=account, actor_id=administrator)
            audit.append(connection, "account_enabled", origin, account_id=account, actor_id=UUID(int=8))
            audit.append(connection, "account_deleted", nobody, account_id=administrator)
        extend(database)
        by = administrator if erased else UUID(int=8)
        forger.do(
            "UPDATE audit_events SET address = NULL, user_agent = '', personal_salt = NULL"
            " WHERE actor_id = %(by)s",
            by=by,
        )
        found = verify(database, key_set)
        assert (found.is_sound, found.erased) == ((True, 1) if erased else (False, 0))

    def test_of_an_account_that_only_vanished(
        self, database: Database, key_set: KeySet, forger: Forger
    ) -> None:
        """Its row was removed, to make the erasure of its events look like the rest of its own."""
        with database.one_trip() as connection:
            origin = audit.Origin("198.51.100.7", "browser/1", "r", NOW)
            audit.append(connection, "login", origin, account_id=UUID(int=5))
        extend(database)
        forger.do("UPDATE audit_events SET address = NULL, user_agent = '', personal_salt = NULL")
        assert named(verify(database, key_set))[:2] == ("altered", 1)

    def test_of_nobodys_event(self, database: Database, key_set: KeySet, forger: Forger) -> None:
        with database.one_trip() as connection:
            audit.append(connection, "login", audit.Origin("198.51.100.7", "", "r", NOW), failure="unknown")
        extend(database)
        forger.do("UPDATE audit_events SET address = NULL, personal_salt = NULL")
        assert named(verify(database, key_set))[:2] == ("altered", 1)

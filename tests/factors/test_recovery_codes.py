"""Recovery codes, which stand in for a factor that was lost."""

import re
import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from argon2.low_level import Type, hash_secret_raw
from tests.verification.people import Person, at, query, together

from auth_manager.errors import DatabaseUnavailable, InvalidFactor
from auth_manager.factors import recovery_codes
from auth_manager.factors.recovery_codes import HashedCodes
from auth_manager.ids import new_id
from auth_manager.resources import Resources
from auth_manager.spending import begin

SALT = b"0123456789abcdef"
CODE = "x7k2m-01abc"


def of(*hashes: bytes, salt: bytes = SALT) -> HashedCodes:
    return HashedCodes(salt, hashes)


@pytest.fixture
def account_id(resources: Resources) -> UUID:
    return Person(resources).register().claims().sub


def replace(resources: Resources, account_id: UUID, made: HashedCodes) -> None:
    with resources.database.one_trip() as connection:
        recovery_codes.replace(connection, account_id, made, now=at().now)


def use(resources: Resources, account_id: UUID, code_hash: bytes, use_id: UUID | None = None) -> None:
    with resources.database.one_trip() as connection:
        recovery_codes.use(
            connection, account_id=account_id, code_hash=code_hash, use_id=use_id or new_id(), now=at().now
        )


def left(resources: Resources, account_id: UUID) -> int:
    with resources.database.one_trip() as connection:
        row = connection.fetch_one(f"SELECT {recovery_codes.LEFT}", {"account_id": account_id})
    assert row
    return int(row["recovery_codes_left"])


class TestGenerate:
    def test_ten_that_nobody_mistakes_for_one_another(self) -> None:
        codes = recovery_codes.generate()

        assert len(set(codes)) == 10
        assert all(re.fullmatch("[0-9a-hjkmnp-tv-z]{5}-[0-9a-hjkmnp-tv-z]{5}", code) for code in codes)


class TestHashCode:
    @pytest.mark.parametrize(
        "typed",
        [
            "x7k2m-01abc",
            "X7K2M-01ABC",
            "x7k2m01abc",
            " x7k2m 01abc ",
            "X7K2M-OIABC",
            "x7k2m-olabc",
            "x-7k2m0Iabc",
        ],
    )
    def test_however_it_was_typed(self, resources: Resources, typed: str) -> None:
        expected = recovery_codes.hash_code(resources.passwords, CODE, SALT)

        assert expected is not None
        assert recovery_codes.hash_code(resources.passwords, typed, SALT) == expected

    @pytest.mark.parametrize(
        "typed",
        ["", "x7k2m-01ab", "x7k2m-01abcd", "x7k2m-01abu", "x7k2m-01ab\uff10", "x7k2m-01ab\ud800", "-" * 10],
    )
    def test_what_can_be_none_costs_no_hash(self, resources: Resources, typed: str) -> None:
        spent = begin()

        assert recovery_codes.hash_code(resources.passwords, typed, SALT) is None
        assert spent.hashes.count == 0

    def test_it_is_argon2id_with_parameters_that_no_setting_changes(
        self, make_resources: Callable[..., Resources]
    ) -> None:
        resources = make_resources(argon2_memory_kib=32_768, argon2_time_cost=3)
        spent = begin()
        found = recovery_codes.hash_code(resources.passwords, CODE, SALT)

        assert spent.hashes.count == 1
        assert found == hash_secret_raw(
            b"X7K2M01ABC", SALT, time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, type=Type.ID
        )

    def test_new_codes_are_found_by_one_hash(self, resources: Resources) -> None:
        made = recovery_codes.hash_codes(resources.passwords, ["x7k2m-01abc", "99999-99999"])

        assert len(made.salt) == 16
        assert made.hashes == tuple(
            recovery_codes.hash_code(resources.passwords, code, made.salt)
            for code in ("x7k2m01abc", "9999999999")
        )
        assert made.salt != recovery_codes.hash_codes(resources.passwords, ["x7k2m-01abc"]).salt


class TestReplace:
    def test_hashes_alone_are_kept(self, resources: Resources, account_id: UUID) -> None:
        codes = recovery_codes.generate()
        replace(resources, account_id, recovery_codes.hash_codes(resources.passwords, codes))

        [row] = query(resources, "SELECT string_agg(to_jsonb(r)::text, ' ') AS all FROM recovery_codes AS r")

        for code in codes:
            plain = code.replace("-", "").upper()
            for form in (code, code.upper(), plain, plain.encode().hex()):
                assert form not in row["all"]

    def test_those_of_before_go_used_or_not(self, resources: Resources, account_id: UUID) -> None:
        replace(resources, account_id, of(b"a", b"b"))
        use(resources, account_id, b"a")
        replace(resources, account_id, of(b"c", b"d", salt=b"another"))

        stored = query(resources, "SELECT code_hash, salt FROM recovery_codes ORDER BY code_hash")
        assert [(bytes(row["code_hash"]), bytes(row["salt"])) for row in stored] == [
            (b"c", b"another"),
            (b"d", b"another"),
        ]
        with pytest.raises(InvalidFactor):
            use(resources, account_id, b"b")

    def test_sent_twice_they_are_there_once(self, resources: Resources, account_id: UUID) -> None:
        with resources.database.one_trip() as connection:
            for _ in range(2):
                recovery_codes.replace(connection, account_id, of(b"a", b"b"), now=at().now)

        assert left(resources, account_id) == 2

    def test_of_two_sets_at_once_one_is_kept(self, resources: Resources, account_id: UUID) -> None:
        """Only one salt is looked at: codes of two could not all be found."""
        sets = [of(b"a%d" % n, b"b%d" % n, salt=b"salt%d" % n) for n in range(8)]
        together([lambda made=made: replace(resources, account_id, made) for made in sets])  # type: ignore[misc]

        stored = query(resources, "SELECT DISTINCT salt FROM recovery_codes")
        assert len(stored) == 1
        assert left(resources, account_id) == 2


class TestAddFirst:
    def add(self, resources: Resources, account_id: UUID, made: HashedCodes) -> None:
        with resources.database.one_trip() as connection:
            recovery_codes.add_first(connection, account_id, made, now=at().now)

    def test_used_ones_are_none(self, resources: Resources, account_id: UUID) -> None:
        self.add(resources, account_id, of(b"a"))
        use(resources, account_id, b"a")
        self.add(resources, account_id, of(b"b", salt=b"another"))

        assert left(resources, account_id) == 1

    def test_those_that_another_made_meanwhile_stay(self, resources: Resources, account_id: UUID) -> None:
        self.add(resources, account_id, of(b"a"))
        self.add(resources, account_id, of(b"a"))  # the same, sent twice
        with pytest.raises(DatabaseUnavailable):
            self.add(resources, account_id, of(b"b", salt=b"another"))

        use(resources, account_id, b"a")


class TestUse:
    def test_each_once(self, resources: Resources, account_id: UUID) -> None:
        replace(resources, account_id, of(b"a", b"b"))
        use(resources, account_id, b"a")
        with pytest.raises(InvalidFactor):
            use(resources, account_id, b"a")
        assert left(resources, account_id) == 1

    def test_what_is_none(self, resources: Resources, account_id: UUID) -> None:
        replace(resources, account_id, of(b"a"))
        with pytest.raises(InvalidFactor):
            use(resources, account_id, b"b")

    def test_not_that_of_another_account(self, resources: Resources, account_id: UUID) -> None:
        other = Person(resources, "other@example.com").register().claims()
        replace(resources, account_id, of(b"a"))
        with pytest.raises(InvalidFactor):
            use(resources, other.sub, b"a")

    def test_the_same_use_sent_twice_is_one(self, resources: Resources, account_id: UUID) -> None:
        replace(resources, account_id, of(b"a"))
        use_id = new_id()
        use(resources, account_id, b"a", use_id)
        use(resources, account_id, b"a", use_id)
        with pytest.raises(InvalidFactor):
            use(resources, account_id, b"a")

    def test_of_sixteen_at_once_one_gets_through(self, resources: Resources, account_id: UUID) -> None:
        replace(resources, account_id, of(b"a", b"b"))
        ready = threading.Barrier(16)

        def present() -> str:
            ready.wait()
            use(resources, account_id, b"a")
            return "used"

        outcomes = together([present] * 16)

        assert outcomes.count("used") == 1
        assert sum(isinstance(outcome, InvalidFactor) for outcome in outcomes) == 15
        assert left(resources, account_id) == 1

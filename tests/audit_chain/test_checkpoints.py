"""Checkpoints: signed, kept, and verified once their keys are retired."""

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg2.errors
import pytest
from tests.audit_chain.conftest import NOW, Append
from tests.audit_chain.test_verification import Forger, rewrite

from auth_manager.audit_chain.chaining import extend
from auth_manager.audit_chain.checkpoints import (
    TYPE,
    ChainBroken,
    Checkpoint,
    CheckpointFault,
    NoCheckpoint,
    list_checkpoints,
    read_document,
    take,
)
from auth_manager.audit_chain.verification import verify
from auth_manager.database import Database
from auth_manager.errors import InvalidToken
from auth_manager.resources import Resources
from auth_manager.signing_keys import (
    KeySet,
    decode_base64url,
    encode_base64url,
    generate_signing_key,
    parse_key_set,
    serialize_key_set,
)

ISSUER = "https://auth.example.com"

DEEP = "[" * 3000 + "]" * 3000
"""JSON that PostgreSQL takes and Python does not."""

TakeSome = Callable[..., list[Checkpoint]]


def new_key_set(*retired: KeySet) -> KeySet:
    """A new key that signs, and those of before, which verify."""
    previous: list[dict[str, object]] = [
        {**key.public_jwk, "state": "previous"} for keys in retired for key in keys.keys
    ]
    made = serialize_key_set([generate_signing_key("ES256"), *previous])
    return parse_key_set(made, algorithm="ES256", local=False)


@pytest.fixture
def take_some(database: Database, key_set: KeySet, append: Append) -> TakeSome:
    """Takes checkpoints, five events and a day apart, each by the key set given."""

    def do(*key_sets: KeySet) -> list[Checkpoint]:
        for day, keys in enumerate(key_sets or (key_set, key_set, key_set)):
            append(5, seed=day)
            extend(database)
            take(database, keys, issuer=ISSUER, now=NOW + timedelta(days=day))
        return list_checkpoints(database)

    return do


@pytest.fixture
def forger(database: Database) -> Forger:
    return Forger(database)


class TestTake:
    def test_what_it_says(self, database: Database, key_set: KeySet, take_some: TakeSome) -> None:
        first, second, third = take_some()
        assert [checkpoint.position for checkpoint in (first, second, third)] == [5, 10, 15]
        header, claims, _ = third.token.split(".")
        assert json.loads(decode_base64url(header)) == {
            "alg": "ES256",
            "kid": key_set.current.kid,
            "typ": "audit-checkpoint+jwt",
        }
        with database.one_trip() as connection:
            [last] = connection.fetch_all("SELECT hash FROM audit_events WHERE position = 15")
        said = json.loads(decode_base64url(claims))
        assert len(decode_base64url(said.pop("previous"))) == 32
        assert said == {
            "iss": ISSUER,
            "iat": int((NOW + timedelta(days=2)).timestamp()),
            "position": 15,
            "hash": encode_base64url(bytes(last["hash"])),
        }
        assert third.public_jwk == key_set.current.public_jwk
        assert third.file_name == "2030-01-04-15.json"

    def test_nothing_new_is_the_same_again(
        self, database: Database, key_set: KeySet, take_some: TakeSome
    ) -> None:
        last = take_some()[-1]
        assert take(database, key_set, issuer=ISSUER, now=NOW + timedelta(days=9)) == last

    def test_another_key_signs_the_same_place_anew(
        self, database: Database, key_set: KeySet, take_some: TakeSome
    ) -> None:
        """It vouches for the one before, whose key may be retired; then it stays."""
        last, second = take_some()[-1], new_key_set(key_set)
        again = take(database, second, issuer=ISSUER, now=NOW + timedelta(days=9))
        assert again
        assert (again.position, again.hash) == (last.position, last.hash)
        assert again.taken_at > last.taken_at
        assert take(database, second, issuer=ISSUER, now=NOW + timedelta(days=10)) == again
        assert list_checkpoints(database)[-2:] == [last, again]
        [key] = [key.public_jwk for key in second.keys if key.state == "current"]
        alone = serialize_key_set([generate_signing_key("ES256"), {**key, "state": "previous"}])
        assert verify(database, parse_key_set(alone, algorithm="ES256", local=False)).is_sound

    def test_an_idle_trail_outlives_its_keys(self, database: Database, take_some: TakeSome) -> None:
        """Nothing happens while one key follows another; and after an emergency one vouches anew."""
        take_some()
        second = new_key_set()
        for day, keys in ((8, new_key_set()), (9, second)):
            assert not verify(database, keys).is_sound
            assert take(database, keys, issuer=ISSUER, now=NOW + timedelta(days=day))
            assert verify(database, keys).is_sound
        assert [checkpoint.position for checkpoint in list_checkpoints(database)] == [5, 10, 15, 15, 15]

    @pytest.mark.parametrize("earlier", [timedelta(0), timedelta(hours=1)])
    def test_by_a_clock_that_is_behind_nothing_is_signed_anew(
        self, database: Database, take_some: TakeSome, earlier: timedelta
    ) -> None:
        last = take_some()[-1]
        assert take(database, new_key_set(), issuer=ISSUER, now=last.taken_at - earlier) == last

    def test_of_nothing(self, database: Database, key_set: KeySet) -> None:
        assert take(database, key_set, issuer=ISSUER, now=NOW) is None

    def test_what_is_not_chained_is_not_in_it(
        self, database: Database, key_set: KeySet, append: Append
    ) -> None:
        append(3)
        assert take(database, key_set, issuer=ISSUER, now=NOW) is None

    @pytest.mark.parametrize("kept", [0, 12])
    def test_a_shorter_chain_is_not_signed(
        self, database: Database, key_set: KeySet, take_some: TakeSome, forger: Forger, kept: int
    ) -> None:
        take_some()
        forger.do(f"DELETE FROM audit_events WHERE position > {kept}")
        with pytest.raises(ChainBroken):
            take(database, key_set, issuer=ISSUER, now=NOW)

    def test_nor_is_another_one(
        self, database: Database, key_set: KeySet, take_some: TakeSome, forger: Forger, append: Append
    ) -> None:
        take_some()
        rewrite(forger, 11)
        append(3)
        extend(database)
        with pytest.raises(ChainBroken, match="event 15"):
            take(database, key_set, issuer=ISSUER, now=NOW)

    def test_it_is_no_access_token(self, resources: Resources, append: Append) -> None:
        append(3)
        extend(resources.database)
        made = take(resources.database, resources.signing_keys.get(), issuer=ISSUER, now=NOW)
        assert made
        with pytest.raises(InvalidToken):
            resources.access_tokens.verify(made.token, now=NOW)

    @pytest.mark.parametrize(
        "sql",
        [
            "UPDATE audit_checkpoints SET position = 1",
            "DELETE FROM audit_checkpoints",
            "TRUNCATE audit_checkpoints",
        ],
    )
    def test_it_stays(self, database: Database, take_some: TakeSome, sql: str) -> None:
        take_some()
        with (
            pytest.raises(psycopg2.errors.RaiseException, match="append-only"),
            database.one_trip() as connection,
        ):
            connection.add(sql)


class TestFaults:
    def test_of_a_rotation_there_are_none(
        self, database: Database, key_set: KeySet, take_some: TakeSome
    ) -> None:
        """The newest vouches for those whose keys are gone."""
        second = new_key_set(key_set)
        third = new_key_set()
        take_some(key_set, second, third)
        assert verify(database, third).is_sound

    @pytest.mark.parametrize(
        ("change", "position"),
        [
            ("UPDATE audit_checkpoints SET hash = sha256('x') WHERE position = 5", 5),
            ("UPDATE audit_checkpoints SET position = 11 WHERE position = 10", 11),
            ("UPDATE audit_checkpoints SET token = replace(token, '.', '.e') WHERE position = 15", 15),
            ("UPDATE audit_checkpoints SET token = '' WHERE position = 10", 10),
            ("UPDATE audit_checkpoints SET token = repeat('W1tb', 5000) || '..' WHERE position = 10", 10),
            ("UPDATE audit_checkpoints SET taken_at = taken_at - interval '1 s' WHERE position = 10", 10),
            ("UPDATE audit_checkpoints SET taken_at = taken_at + interval '1 us' WHERE position = 10", 10),
            ("UPDATE audit_checkpoints SET taken_at = 'infinity' WHERE position = 15", 15),
            ("UPDATE audit_checkpoints SET taken_at = '4000-01-01 BC' WHERE position = 5", 5),
            (f"UPDATE audit_checkpoints SET public_jwk = '{DEEP}' WHERE position = 10", 10),
            (f"UPDATE audit_checkpoints SET public_jwk = '{'1' * 5000}' WHERE position = 10", 10),
            ("UPDATE audit_checkpoints SET public_jwk = '{}' WHERE position = 10", 10),
            ("UPDATE audit_checkpoints SET public_jwk = '[]' WHERE position = 10", 10),
            ("DELETE FROM audit_checkpoints WHERE position = 5", 10),
            ("DELETE FROM audit_checkpoints WHERE position = 10", 5),
        ],
    )  # fmt: skip
    def test_a_change_is_named(
        self,
        database: Database,
        key_set: KeySet,
        take_some: TakeSome,
        forger: Forger,
        change: str,
        position: int,
    ) -> None:
        take_some()
        forger.do(change)
        found = verify(database, key_set)
        assert (found.fault, found.is_sound) == (None, False)
        assert [fault.position for fault in found.checkpoint_faults] == [position]

    def test_somebody_elses_keys(self, database: Database, key_set: KeySet, take_some: TakeSome) -> None:
        """All was rewritten, and signed: by a key that is nobody's."""
        take_some(new_key_set(), new_key_set(), new_key_set())
        found = verify(database, key_set)
        assert [fault.position for fault in found.checkpoint_faults] == [5, 10, 15]
        assert "know its key" in found.checkpoint_faults[-1].reason

    def test_a_token_that_says_too_little_is_named(
        self, database: Database, key_set: KeySet, take_some: TakeSome, forger: Forger
    ) -> None:
        made, key = take_some()[-1], new_key_set().current
        header = {"alg": key.algorithm, "kid": key.kid, "typ": TYPE}
        claims = {"position": made.position, "hash": encode_base64url(made.hash)}
        signed = ".".join(encode_base64url(json.dumps(part).encode()) for part in (header, claims))
        token = f"{signed}.{encode_base64url(key.sign(signed.encode()))}"
        forger.do(
            f"UPDATE audit_checkpoints SET token = '{token}', public_jwk = '{json.dumps(key.public_jwk)}'"
            f" WHERE position = {made.position}"
        )
        assert [fault.position for fault in verify(database, key_set).checkpoint_faults] == [made.position]

    def test_whoever_has_the_key_replaces_all_but_what_is_kept_elsewhere(
        self, database: Database, key_set: KeySet, take_some: TakeSome, forger: Forger
    ) -> None:
        outside = read_document(take_some()[1].document)
        rewrite(forger, 4)
        forger.do("DELETE FROM audit_checkpoints")
        take(database, key_set, issuer=ISSUER, now=NOW)
        assert verify(database, key_set).is_sound
        found = verify(database, key_set, outside=[outside])
        assert found.fault
        assert (found.fault.kind, found.fault.position) == ("rewritten", 10)

    @pytest.mark.parametrize("genuine_first", [True, False])
    def test_what_was_put_beside_them_hides_none_that_is_kept_elsewhere(
        self,
        database: Database,
        key_set: KeySet,
        take_some: TakeSome,
        forger: Forger,
        *,
        genuine_first: bool,
    ) -> None:
        """Whoever rewrote the trail may add files there, too: of the same place, by a key of their own."""
        genuine = read_document(take_some()[1].document)
        rewrite(forger, 4)
        forger.do("DELETE FROM audit_checkpoints WHERE position > 0")
        rewritten = forger.rows()[genuine.position - 1]["hash"]
        forged = dataclasses.replace(genuine, hash=bytes(rewritten), token="")
        outside = [genuine, forged] if genuine_first else [forged, genuine]
        found = verify(database, key_set, outside=outside)
        assert found.fault
        assert (found.fault.kind, found.fault.position) == ("rewritten", genuine.position)

    def test_what_is_kept_elsewhere_vouches_for_a_key_that_is_gone(
        self, database: Database, take_some: TakeSome
    ) -> None:
        taken = take_some()
        others = new_key_set()
        assert len(verify(database, others).checkpoint_faults) == 3
        assert verify(database, others, outside=[taken[-1]]).is_sound

    def test_faults_are_the_oldest_first(
        self, database: Database, key_set: KeySet, take_some: TakeSome, forger: Forger
    ) -> None:
        take_some()
        forger.do("UPDATE audit_checkpoints SET hash = sha256('x')")
        assert verify(database, key_set).checkpoint_faults == [
            CheckpointFault(position, "it is not what was signed") for position in (5, 10, 15)
        ]


class TestDocument:
    def test_it_is_read_back(self, take_some: TakeSome) -> None:
        checkpoint = take_some()[-1]
        read = read_document(checkpoint.document)
        assert (read.position, read.hash, read.token) == (15, checkpoint.hash, checkpoint.token)
        assert read.public_jwk == checkpoint.public_jwk

    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content | {"checkpoint": content["checkpoint"][:-4] + "AAAA"},
            lambda content: content | {"checkpoint": "a.b"},
            lambda content: content | {"checkpoint": "W1tb" * 5000 + ".."},
            lambda content: content | {"checkpoint": None},
            lambda content: content | {"public_key": new_key_set().current.public_jwk},
            lambda content: content | {"public_key": []},
            lambda content: [content],
            lambda _: {},
        ],
    )  # fmt: skip
    def test_anything_else_is_not(self, take_some: TakeSome, change: Callable[[Any], Any]) -> None:
        content = json.loads(take_some()[-1].document)
        with pytest.raises(NoCheckpoint):
            read_document(json.dumps(change(content)).encode())

"""Ids, manifests and digests."""

import dataclasses
import hashlib
import json
import random
from datetime import UTC, datetime

import pytest

from auth_manager.backups import BackupDamaged, BackupError
from auth_manager.backups.archive import (
    Manifest,
    Part,
    RowsDigest,
    SchemaVersion,
    Table,
    make_id,
    read_manifest,
    time_of,
    write_manifest,
)

ID = "20261122T120000.000000Z-00112233"
MANIFEST = Manifest(
    id=ID,
    created_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
    product_version="1.2.3",
    migrations=(SchemaVersion(1, "accounts", "ab"), SchemaVersion(2, "sessions", "cd")),
    tables=(
        Table("accounts", ("id", "email"), 3, "0" * 64, (Part("accounts-00001.copy.gz", 3, 99, "1" * 64),)),
    ),
    sequences={"numbers": 7},
)


class TestId:
    def test_it_is_the_time_and_something_random(self) -> None:
        assert make_id(MANIFEST.created_at, b"\x00\x11\x22\x33\x44") == ID
        assert time_of(ID) == MANIFEST.created_at

    @pytest.mark.parametrize("name", ["", "x", "20261322T120000.000000Z-00112233", ID + "0", "../" + ID])
    def test_anything_else_is_none(self, name: str) -> None:
        assert time_of(name) is None


class TestManifest:
    def test_it_comes_back_as_it_was(self) -> None:
        assert read_manifest(ID, write_manifest(MANIFEST)) == MANIFEST
        assert (MANIFEST.schema_version, MANIFEST.rows, MANIFEST.size) == (2, 3, 99)

    def test_cut_anywhere_it_is_damaged(self) -> None:
        text = write_manifest(MANIFEST).rstrip()
        for length in range(len(text)):
            with pytest.raises(BackupDamaged):
                read_manifest(ID, text[:length])

    @pytest.mark.parametrize(
        "change",
        [{"product_version": "1.2.4"}, {"tables": []}, {"migrations": []}, {"sha256": "0" * 64}, {"more": 1}],
        ids=lambda change: next(iter(change)),
    )
    def test_a_change_shows(self, change: dict[str, object]) -> None:
        content = json.loads(write_manifest(MANIFEST)) | change
        with pytest.raises(BackupDamaged):
            read_manifest(ID, json.dumps(content).encode())

    @pytest.mark.parametrize("text", [b"[]", b"null", b"{}", b"\xff", b'{"sha256": "x"}'])
    def test_other_json_is_none(self, text: bytes) -> None:
        with pytest.raises(BackupDamaged):
            read_manifest(ID, text)

    @pytest.mark.parametrize(
        "manifest",
        [
            dataclasses.replace(MANIFEST, tables=(dataclasses.replace(MANIFEST.tables[0], parts=(part,)),))
            for part in (
                Part("../../accounts-00001.copy.gz", 3, 99, "1" * 64),
                Part("/etc/accounts-00001.copy.gz", 3, 99, "1" * 64),
                Part("accounts\x1b-00001.copy.gz", 3, 99, "1" * 64),
                Part("sessions-00001.copy.gz", 3, 99, "1" * 64),
            )
        ]
        + [
            dataclasses.replace(MANIFEST, migrations=()),
            dataclasses.replace(MANIFEST, migrations=MANIFEST.migrations[1:]),
        ],
    )
    def test_what_we_never_write_is_damaged(self, manifest: Manifest) -> None:
        """Who can write to the backups can compute the digest, too."""
        with pytest.raises(BackupDamaged):
            read_manifest(ID, write_manifest(manifest))

    @pytest.mark.parametrize("missing", ["id", "created_at", "migrations", "tables", "sequences"])
    def test_what_has_a_digest_and_not_everything_is_damaged(self, missing: str) -> None:
        content = json.loads(write_manifest(MANIFEST))
        del content[missing], content["sha256"]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        with pytest.raises(BackupDamaged):
            read_manifest(ID, json.dumps(content | {"sha256": digest}).encode())

    def test_that_of_another_backup_is_refused(self) -> None:
        other = dataclasses.replace(MANIFEST, id=make_id(MANIFEST.created_at, b"\xff" * 4))
        with pytest.raises(BackupDamaged):
            read_manifest(ID, write_manifest(other))

    def test_a_later_format_is_said_to_be_one(self) -> None:
        content = json.loads(write_manifest(MANIFEST)) | {"format_version": 2}
        with pytest.raises(BackupError, match="later version"):
            read_manifest(ID, json.dumps(content).encode())


class TestRowsDigest:
    def test_the_order_does_not_matter_and_all_else_does(self) -> None:
        rows = [f"{n}\ttext\n".encode() for n in range(200)]
        expected = digest_of(rows)
        random.Random(1).shuffle(rows)  # noqa: S311 -- any order will do
        assert digest_of(rows) == expected
        assert digest_of([b"".join(rows)]) == expected
        for n in range(0, 200, 17):
            changed = [*rows[:n], rows[n][:-1] + b"x\n", *rows[n + 1 :]]
            assert digest_of(changed) != expected
            assert digest_of(rows[:n] + rows[n + 1 :]) != expected
            assert digest_of([*rows, rows[n]]) != expected


def digest_of(pieces: list[bytes]) -> tuple[int, str]:
    digest = RowsDigest()
    for piece in pieces:
        digest.add(piece)
    return digest.rows, digest.hexdigest()

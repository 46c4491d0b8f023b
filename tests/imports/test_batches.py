"""How much of a file a batch holds, and who may write its rejects."""

import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from auth_manager.errors import ConfigurationError, PreconditionFailed
from auth_manager.imports.batches import (
    BATCH_BYTES,
    Batch,
    Order,
    Reject,
    halve,
    open_rejects,
    read_batches,
    write_rejects,
)
from auth_manager.imports.record import Rules
from auth_manager.imports.sources import System, open_source

RULES = Rules(now=datetime.now(UTC), accepts_hash=bool)
REJECT = Reject(1, 1, "not_json", "The line is not JSON.")


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    """Sixty records of 600 KB, of which an account keeps next to nothing."""
    file = tmp_path / "users.ndjson"
    picture = "x" * 600_000
    with file.open("w") as out:
        out.writelines(
            json.dumps({"email": f"p{n}@example.com", "picture": picture}) + "\n" for n in range(60)
        )
    return file


def read(file: Path) -> Iterator[Batch]:
    with file.open("rb") as opened:
        yield from read_batches(opened, Order(file, open_source(System.AUTH0)), RULES, skip=0)


class TestReadBatches:
    def test_a_batch_ends_after_so_many_bytes(self, heavy: Path) -> None:
        batches = list(read(heavy))
        assert sum(batch.records for batch in batches) == 60
        ends = [0, *(batch.bytes_read for batch in batches)]
        read_at_once = [end - begin for begin, end in pairwise(ends)]
        assert len(batches) == 3
        assert all(size < BATCH_BYTES + 2**20 for size in read_at_once)

    def test_records_are_not_kept_as_they_were_read(self, heavy: Path) -> None:
        tracemalloc.start()
        try:
            assert next(read(heavy)).records > 20
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < BATCH_BYTES / 2


class TestHalve:
    def test_each_part_has_its_records(self) -> None:
        places: list[tuple[int, int | None]] = [(11, 11), (13, 13), (15, 15)]
        users: list[Any] = [f"user {number}" for number, _ in places]
        rejects = [Reject(12, 12, "x", ""), Reject(14, 14, "x", "")]
        batch = Batch(users, places, rejects, 5, 0)
        first, second = halve(batch, 10)
        assert (first.records, first.users, first.rejects) == (2, users[:1], rejects[:1])
        assert (second.records, second.users, second.rejects) == (3, users[1:], rejects[1:])


class TestRejects:
    def test_two_do_not_write_one_file(self, tmp_path: Path) -> None:
        path = tmp_path / "rejects"
        with open_rejects(path) as file:
            write_rejects(file, [REJECT], behind=0)
            before = path.read_bytes()
            with pytest.raises(PreconditionFailed, match="Another process"):
                open_rejects(path)
            assert path.read_bytes() == before
        open_rejects(path).close()

    def test_what_is_behind_is_replaced(self, tmp_path: Path) -> None:
        with open_rejects(tmp_path / "rejects") as file:
            first = write_rejects(file, [REJECT], behind=0)
            write_rejects(file, [REJECT, REJECT], behind=first)
            write_rejects(file, [REJECT], behind=first)
            assert write_rejects(file, [], behind=10 * first) == 2 * first  # no hole of NULs
        assert (tmp_path / "rejects").stat().st_size == 2 * first

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="No such file or directory"):
            open_rejects(tmp_path / "nowhere" / "rejects")

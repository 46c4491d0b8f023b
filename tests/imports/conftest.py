import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from auth_manager.audit import Origin
from auth_manager.database import Database, Row
from auth_manager.imports.batches import Order, Progress
from auth_manager.imports.dry_run import try_file
from auth_manager.imports.firebase import parse_hash_config
from auth_manager.imports.load import import_file
from auth_manager.imports.sources import System, open_source
from auth_manager.resources import Resources

SAMPLES = Path(__file__).with_name("samples")

Import = Callable[..., Progress]
Query = Callable[[str], list[Row]]


@pytest.fixture
def samples() -> Path:
    """Exports in the documented format of each system; every password is the same."""
    return SAMPLES


@pytest.fixture
def password() -> str:
    return "Correct-Horse-7!"


@pytest.fixture
def origin() -> Origin:
    return Origin(
        address=None, user_agent="tests", request_id="cli-1", now=datetime.now(UTC), operator="tester"
    )


@pytest.fixture
def query(database: Database) -> Query:
    def fetch(sql: str) -> list[Row]:
        with database.one_trip() as connection:
            return connection.fetch_all(sql)

    return fetch


@pytest.fixture
def run_import(resources: Resources, origin: Origin, tmp_path: Path) -> Import:
    """Imports a file; `dry_run`, `members`, `is_lazy` and what an Order has may be given."""

    def run(file: Path, system: System, *, dry_run: bool = False, **options: Any) -> Progress:
        config = parse_hash_config((SAMPLES / "firebase-hash-config.txt").read_text())
        source = open_source(
            system,
            members=options.pop("members", None),
            hash_config=options.pop("hash_config", config if system is System.FIREBASE else None),
            is_lazy=options.pop("is_lazy", None),
        )
        order = replace(Order(file, source, tmp_path / "rejects.jsonl"), **options)
        act = try_file if dry_run else import_file
        return act(resources, origin, order)

    return run


@pytest.fixture
def rejects(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_bytes().splitlines()]

    return read

"""A trail of events of every kind, and the keys that sign its checkpoints."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from auth_manager import audit
from auth_manager.audit import Origin
from auth_manager.audit_chain.chaining import extend
from auth_manager.database import Database
from auth_manager.signing_keys import KeySet, generate_signing_key, parse_key_set, serialize_key_set

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

Append = Callable[..., None]


@pytest.fixture(scope="session")
def key_set() -> KeySet:
    return parse_key_set(serialize_key_set([generate_signing_key("ES256")]), algorithm="ES256", local=False)


@pytest.fixture
def append(database: Database) -> Append:
    """Appends so many events, whose columns are of every kind there is."""

    def do(events: int, *, seed: int = 1) -> None:
        chance = random.Random(seed)  # noqa: S311 -- the same trail each time
        for number in range(events):
            origin = Origin(
                address=chance.choice([None, "198.51.100.7", "2001:db8::7"]),
                user_agent=chance.choice(["", "browser/1", "\N{SNOWMAN} \\ 'quoted'"]),
                request_id=f"request-{number}",
                now=NOW + timedelta(microseconds=chance.randrange(10**12)),
                operator=chance.choice([None, None, "operator"]),
            )
            with database.one_trip() as connection:
                audit.append(
                    connection,
                    chance.choice(["login", "token_refreshed", "mfa_reset"]),
                    origin,
                    account_id=chance.choice([None, UUID(int=number)]),
                    session_id=chance.choice([None, UUID(int=chance.getrandbits(128))]),
                    actor_id=chance.choice([None, UUID(int=7)]),
                    failure=chance.choice([None, None, "invalid_credentials"]),
                    details=chance.choice(
                        [{}, {"roles": ["b", "a"], "count": 10**20, "x": None, "é": "\t\x7f"}]
                    ),
                )

    return do


@pytest.fixture
def chained(database: Database, append: Append) -> Callable[[int], None]:
    """Appends so many events and chains all of them."""

    def do(events: int) -> None:
        append(events)
        while extend(database):
            pass

    return do

"""The short ways of the checks lead where the long ones do."""

import random
import re
from datetime import UTC, datetime
from typing import get_args

import pytest

from auth_manager.accounts.routes import DisplayName, Username
from auth_manager.identifiers import normalize_email, normalize_username
from auth_manager.imports import record
from auth_manager.imports.refusals import Refused
from auth_manager.passwords import FOREIGN_SCHEMES
from auth_manager.web.proofs import Locale

NUMBERS = random.Random(11)  # noqa: S311 -- the same in every run
PARTS = [
    "a", "Z", "9", ".", "-", "_", "+", "@", "--", "xn--", "xn--bcher-kva", "com", "test", "local", "TEST",
    "invalid", "arpa", "onion", "localhost", "example", "é", "ß", "\u0130", "\u212a", "\ufb01", " ", '"', "'",
    "=?", "\n", "0", "info", "x" * 63, "x" * 64, "[", "]", "1.2.3.4", "ab--cd", "\u0964", "\uff0e", "\x00",
]  # fmt: skip


def made_up(length: int) -> str:
    return "".join(NUMBERS.choice(PARTS) for _ in range(NUMBERS.randint(1, length)))


def outcome(function: object, value: str) -> str | None:
    assert callable(function)
    try:
        return str(function(value))
    except (ValueError, Refused):
        return None


class TestShortWays:
    def test_of_addresses(self) -> None:
        short = 0
        for _ in range(20_000):
            address = f"{made_up(3)}@{made_up(2)}.{made_up(2)}" if NUMBERS.random() < 0.9 else made_up(6)
            assert outcome(record._normalize_email, address) == outcome(normalize_email, address), address
            short += record._PLAIN_EMAIL.fullmatch(address) is not None
        assert short > 100

    @pytest.mark.parametrize(
        "address",
        [
            "User.Name+tag@Example.COM", "INFO@example.com", "a@b.co", "a@xn--bcher-kva.example.com",
            "a@b--c.com", "a@example.test", "a@test.example.com", "a@example.c0m", "a@-b.com", "a@b-.com",
            "a@b..com", ".a@b.com", "a.@b.com", "a..b@c.com", "a@b.com.", "a@b.com\n", "a@b", "a@local.com",
            "a@" + "b" * 63 + ".com", "a@" + "b" * 64 + ".com",
            "a" * 64 + "@" + ".".join(["b" * 59] * 4) + ".com", "a@" + ".".join(["b" * 61] * 4) + ".com",
        ],
    )  # fmt: skip
    def test_of_addresses_at_the_edges(self, address: str) -> None:
        assert outcome(record._normalize_email, address) == outcome(normalize_email, address)

    def test_of_usernames(self) -> None:
        short = 0
        for _ in range(20_000):
            name = made_up(5)
            assert outcome(record._normalize_username, name) == outcome(normalize_username, name), name
            short += record._PLAIN_USERNAME.fullmatch(name) is not None
        assert short > 100


class TestLimits:
    def test_they_are_those_of_the_api(self) -> None:
        assert get_args(DisplayName)[1].metadata[0].max_length == record.MAXIMUM_DISPLAY_NAME
        assert get_args(Username)[1].metadata[0].max_length == record.MAXIMUM_USERNAME_AS_TYPED
        pattern = next(item.pattern for item in get_args(Locale)[1].metadata if hasattr(item, "pattern"))
        assert pattern == f"^{record.LOCALE.pattern}$"

    def test_ids_of_the_same_moment_differ(self) -> None:
        now = datetime.now(UTC)
        ids = {record._new_id(now) for _ in range(1_000)}
        assert len(ids) == 1_000
        assert {
            re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", one) is not None for one in ids
        } == {True}

    def test_every_scheme_has_a_form(self) -> None:
        assert {"firebase_scrypt", "wordpress_bcrypt"} <= FOREIGN_SCHEMES.keys()

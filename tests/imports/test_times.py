"""Times in the one form that PostgreSQL always takes."""

import pytest

from auth_manager.imports.times import parse_time


class TestParseTime:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2024-01-01T12:00:00", "2024-01-01T12:00:00+00:00"),
            ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00+00:00"),
            ("2024-01-01T12:00:00+01:00", "2024-01-01T11:00:00+00:00"),
            ("2024-01-01T12:00:00+01:02:03.5", "2024-01-01T10:57:56.500000+00:00"),
            ("2024-01-01T12:00:00+23:59", "2023-12-31T12:01:00+00:00"),
        ],
    )
    def test_every_offset_becomes_utc(self, text: str, expected: str) -> None:
        assert parse_time(text).isoformat() == expected

    @pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
    def test_a_year_that_utc_does_not_have(self, text: str) -> None:
        with pytest.raises(OverflowError):
            parse_time(text)

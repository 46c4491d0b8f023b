"""`make bench` can start, judges its own figures rightly, and docs/performance.md has what it prints."""

import json
from functools import partial
from pathlib import Path

import pytest

from bench import audit_chain, cold_start, growth, report, server_mode, warm_path
from bench.__main__ import SECTIONS
from bench.report import Report, Table, Target
from bench.samples import median_ms, percentile_ms, take_turns
from bench.service import Refused, event_of, read_answer

ROOT = Path(__file__).resolve().parents[2]
TABLES = [*cold_start.TABLES, *warm_path.TABLES, *server_mode.TABLES, *growth.TABLES, *audit_chain.TABLES]


class TestDocumentation:
    @pytest.mark.parametrize("title", [*TABLES, "Largest import costs of a cold start"])
    def test_each_table_has_a_heading(self, title: str) -> None:
        assert f"\n### {title}\n" in (ROOT / "docs/performance.md").read_text(encoding="utf-8")

    def test_each_section_is_named(self) -> None:
        text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
        assert [name for name in SECTIONS if f"`{name}`" not in text] == []


class TestTakeTurns:
    def test_each_action_has_as_many_samples_as_rounds(self) -> None:
        calls: list[str] = []
        found = take_turns(
            {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4, warm_up=1
        )
        assert {name: len(seconds) for name, seconds in found.items()} == {"a": 4, "b": 4}

    def test_the_order_turns_with_the_rounds(self) -> None:
        calls: list[str] = []
        take_turns({name: partial(calls.append, name) for name in "abc"}, rounds=3, warm_up=0)
        assert "".join(calls) == "abcbcacab"


class TestFigures:
    def test_medians_and_percentiles_are_milliseconds(self) -> None:
        seconds = [number / 1000 for number in range(100, 0, -1)]
        assert median_ms(seconds) == pytest.approx(50.5)
        assert percentile_ms(seconds, 99) == pytest.approx(99)
        assert percentile_ms(seconds[:1], 99) == pytest.approx(100)

    @pytest.mark.parametrize(
        ("target", "met"),
        [
            (Target("at most", 1.1, 1.2), True),
            (Target("at most", 1.3, 1.2), False),
            (Target("at least", 1.3, 1.2, at_least=True), True),
            (Target("at least", 1.1, 1.2, at_least=True), False),
        ],
        ids=["under", "over", "over, as it should be", "under, as it should not be"],
    )
    def test_a_target_is_a_bound_from_above_or_below(self, target: Target, *, met: bool) -> None:
        assert target.met is met

    def test_a_section_is_written_as_json(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "RESULTS", tmp_path)
        found = Report([Table("t", ("a", "b"), [("row", 1.5)])], samples={"row": [0.1]})

        path = report.write("section", found, machine={"cores": 2}, options={"quick": True})

        written = json.loads(path.read_text(encoding="utf-8"))
        assert written["tables"] == [{"title": "t", "columns": ["a", "b"], "rows": [["row", 1.5]]}]
        assert (written["machine"], written["samples"]) == ({"cores": 2}, {"row": [0.1]})


class TestReadAnswer:
    def test_a_refusal_stops_the_measurement(self) -> None:
        with pytest.raises(Refused, match="429"):
            read_answer({"statusCode": 429, "body": ""})

    def test_an_empty_answer_is_none(self) -> None:
        assert read_answer({"statusCode": 204, "body": ""}) is None

    def test_events_carry_the_token(self) -> None:
        assert event_of("GET", "/auth/me", None, "t")["headers"]["authorization"] == "Bearer t"

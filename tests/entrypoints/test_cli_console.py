"""What the commands share: tables, JSON, questions, the operator's name."""

import getpass
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
import typer
from rich.console import Console

from auth_manager.entrypoints.cli import console
from auth_manager.errors import ConfigurationError

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
ROW = {"id": UUID(int=7), "name": "[red]\x1b[2J", "at": NOW, "roles": ["a", "b"], "on": True, "none": None}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "output", Console(width=200))
    monkeypatch.setattr(console, "errors", Console(width=200, stderr=True))


class TestShowRows:
    def test_a_table_has_no_markup_and_nothing_that_a_terminal_obeys(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        console.show_rows([ROW], list(ROW), as_json=False, next_cursor="abc")
        printed = capsys.readouterr()
        assert "[red]\ufffd[2J" in printed.out
        assert "\x1b" not in printed.out
        assert "2030-01-02T03:04:05+00:00" in printed.out
        assert "a, b" in printed.out
        assert "yes" in printed.out
        assert printed.err == "more: --cursor abc\n"

    def test_json_is_one_document(self, capsys: pytest.CaptureFixture[str]) -> None:
        console.show_rows([ROW], ["id"], as_json=True)
        assert json.loads(capsys.readouterr().out) == {
            "items": [
                {
                    "id": "00000000-0000-0000-0000-000000000007",
                    "name": "[red]\x1b[2J",
                    "at": "2030-01-02T03:04:05Z",
                    "roles": ["a", "b"],
                    "on": True,
                    "none": None,
                }
            ],
            "next_cursor": None,
        }

    def test_what_is_no_json_is_no_output(self) -> None:
        with pytest.raises(TypeError, match="bytes is no JSON"):
            console.show_json({"a": b"x"})

    def test_nothing_is_cut_where_there_is_little_room(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(console, "output", Console(width=60))
        rows = [{name: f"{name}-{'x' * 30}" for name in ("first", "second", "third")}]
        console.show_rows(rows, list(rows[0]), as_json=False)
        printed = capsys.readouterr().out
        assert "\u2026" not in printed
        assert printed.count("x") == 90
        assert max(map(len, printed.splitlines())) <= 60

    def test_what_is_no_terminal_gets_whole_lines(self) -> None:
        program = (
            "from auth_manager.entrypoints.cli import console;"
            "console.show_rows([{'a': 'x' * 200, 'b': 'y'}], ['a', 'b'], as_json=False)"
        )
        printed = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"COLUMNS": "60"},
            capture_output=True,
            check=True,
        )
        assert b"x" * 200 in printed.stdout


class TestSay:
    def test_nothing_that_a_terminal_obeys(self, capsys: pytest.CaptureFixture[str]) -> None:
        console.say("one\x1b[2J\x9b\ntwo")
        with pytest.raises(SystemExit):
            console.refuse("the table \x1b]0;x\x07")
        printed = capsys.readouterr()
        assert printed.out == "one\ufffd[2J\ufffd\ntwo\n"
        assert printed.err == "the table \ufffd]0;x\ufffd\n"

    def test_json_on_a_terminal_neither(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        console.show_json({"name": "\x9b2J"})
        assert terminal.getvalue() == '{"name": "\\u009b2J"}\n'


class TestShowFacts:
    def test_a_line_each(self, capsys: pytest.CaptureFixture[str]) -> None:
        console.show_facts({"rows": 7, "claims": {"a": 1}}, as_json=False)
        assert capsys.readouterr().out.split() == ["rows", "7", "claims", '{"a":', "1}"]

    def test_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        console.show_facts({"rows": 7}, as_json=True)
        assert capsys.readouterr().out == '{"rows": 7}\n'


class TestRequireText:
    def test_what_a_shell_handed_on_is_no_text(self) -> None:
        console.require_text(["roles", "create", "\u00e9"])
        with pytest.raises(ConfigurationError, match="argument 2 "):
            console.require_text(["roles", os.fsdecode(b"\xff")])


class TestParseObject:
    def test_as_the_body_of_a_request(self) -> None:
        assert console.parse_object("--claims", '{"a": ["\u00e9", 1.5]}') == {"a": ["\u00e9", 1.5]}
        assert console.parse_object("--claims", None) is None

    @pytest.mark.parametrize(
        "text", ["[]", "{", '{"a": NaN}', '{"a": "\udcff"}', '{"a": 1, "a": 1}'], ids=ascii
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="--claims takes a JSON object"):
            console.parse_object("--claims", text)


@pytest.mark.parametrize(("as_json", "out"), [(False, "done\n"), (True, '{"id": 1}\n')])
def test_a_report(capsys: pytest.CaptureFixture[str], out: str, *, as_json: bool) -> None:
    console.report("done", {"id": 1}, as_json=as_json)
    assert capsys.readouterr().out == out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestConfirm:
    @pytest.fixture
    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        return lambda text: monkeypatch.setattr(sys, "stdin", Terminal(text))

    def test_yes_asks_nobody(self) -> None:
        console.confirm("Delete?", yes=True)

    def test_without_a_terminal_nothing_is_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        with pytest.raises(ConfigurationError, match="--yes"):
            console.confirm("Delete?", yes=False)

    def test_no(self, answer: Callable[[str], None]) -> None:
        answer("n\n")
        with pytest.raises(typer.Abort):
            console.confirm("Delete?", yes=False)

    def test_the_question_is_no_output(
        self, answer: Callable[[str], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        answer("y\n")
        console.confirm("Delete?", yes=False)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Delete?" in printed.err


class TestOperator:
    def test_it_is_the_user_of_the_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SUDO_USER", raising=False)
        origin = console.operator()
        assert origin.operator == getpass.getuser()
        assert origin.address is None
        assert origin.request_id.startswith("cli-")

    def test_through_sudo_it_is_who_called_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SUDO_USER", "alice")
        assert console.operating_system_user() == "alice"

    def test_a_user_without_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SUDO_USER", raising=False)

        def refuse() -> str:
            raise KeyError("no such user")

        monkeypatch.setattr(getpass, "getuser", refuse)
        assert console.operating_system_user().startswith("uid ")

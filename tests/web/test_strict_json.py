"""Strict JSON: RFC 8259 and I-JSON (RFC 7493)."""

import json
from typing import Any

import pytest

from auth_manager.errors import InvalidFields, MalformedRequest
from auth_manager.web.strict_json import MAXIMUM_DEPTH, parse


class TestParse:
    @pytest.mark.parametrize(
        "value",
        [
            {},
            [],
            None,
            "",
            0,
            -1.5e300,
            2**53,
            {"a": {"a": [{"a": 1}, {"a": 2}]}},
            "é 😀 \u2028 \x7f \u0001",
            {"é": ["\\u0000"]},
        ],
        ids=repr,
    )
    def test_json_is_read_as_it_is(self, value: Any) -> None:
        assert parse(json.dumps(value).encode()) == value
        assert parse(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value

    @pytest.mark.parametrize(
        "body",
        [
            b" ",
            b"{",
            b"{}{}",
            b"{'a':1}",
            b'{"a":1,}',
            b"{a:1}",
            b"[1,]",
            b"// c\n{}",
            b"01",
            b"+1",
            b".5",
            b"0x10",
            b'"\n"',
            b'"\\x41"',
            b'"\\u12"',
            b"nul",
            b"NaN",
            b"[Infinity]",
            b'{"a":-Infinity}',
            b"1e999",
            b"[-1e999]",
            b"9" * 5000,
            b'{"a":1,"a":1}',
            b'{"b":[{"a":1,"a":2}]}',
            b'{"a":1,"\\u0061":2}',
            b'"\\ud800"',
            b'["\\udfff"]',
            b'{"\\ud800":1}',
            b'"\\udc00\\ud800"',
            b"\xff",
            b'"\xed\xa0\x80"',
            b'"\xc0\x80"',
            b'"\xf4\x90\x80\x80"',
            b"\xef\xbb\xbf{}",
            "{}".encode("utf-16"),
            "{}".encode("utf-32"),
        ],
        ids=lambda body: repr(body[:24]),
    )
    def test_what_is_not_is_malformed(self, body: bytes) -> None:
        with pytest.raises(MalformedRequest):
            parse(body)

    def test_a_pair_of_surrogates_is_one_character(self) -> None:
        assert parse(b'"\\ud83d\\ude00"') == "😀"

    @pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")], ids=["lists", "objects"])
    def test_nesting_has_an_end(self, brackets: tuple[str, str]) -> None:
        opening, closing = brackets

        def nested(levels: int) -> bytes:
            return (opening * (levels - 1) + "[]" + closing * (levels - 1)).encode()

        parse(nested(MAXIMUM_DEPTH))
        with pytest.raises(MalformedRequest, match="32 levels"):
            parse(nested(MAXIMUM_DEPTH + 1))

    @pytest.mark.parametrize("body", [b"[" * 60_000, b'{"a":' * 10_000, b"[" * 30_000 + b"]" * 30_000])
    def test_no_nesting_exhausts_the_stack(self, body: bytes) -> None:
        with pytest.raises(MalformedRequest):
            parse(body)

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            (b'"\\u0000"', ""),
            (b'{"email":"a\\u0000"}', "/email"),
            (b'{"attributes":{"canary":["\\u0000"]}}', "/attributes"),
            (b'{"attributes":{"canary\\u0000":1}}', "/attributes"),
            (b'{"canary\\u0000":1}', ""),
            (b'{"Canary 1!":"\\u0000"}', ""),
            (b'["\\u0000"]', ""),
        ],
    )
    def test_nul_is_invalid_where_a_field_of_ours_is(self, body: bytes, pointer: str) -> None:
        with pytest.raises(InvalidFields) as caught:
            parse(body)
        assert [(error.pointer, error.code) for error in caught.value.errors] == [(pointer, "nul_character")]

    def test_messages_repeat_nothing(self) -> None:
        for body in (b'{"canary":1,"canary":2}', b"canary", b'{"a":canary}'):
            with pytest.raises(MalformedRequest) as caught:
                parse(body)
            assert "canary" not in caught.value.detail
            assert caught.value.__cause__ is None

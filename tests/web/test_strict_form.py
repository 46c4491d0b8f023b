"""Forms as every reader reads them alike."""

import pytest

from auth_manager.errors import MalformedRequest
from auth_manager.web.strict_form import MAXIMUM_FIELDS, parse


class TestParse:
    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            (b"", {}),
            (b"a=1&b=", {"a": "1", "b": ""}),
            (b"a=b%3Dc&d=e=f", {"a": "b=c", "d": "e=f"}),
            (b"a=1+2%2B3", {"a": "1 2+3"}),
            (b"a=1;b=2", {"a": "1;b=2"}),
            (b"a=%C3%A9%F0%9F%94%91", {"a": "é🔑"}),
            (b"a=%zz", {"a": "%zz"}),
            (
                b"&".join(b"f%d=" % n for n in range(MAXIMUM_FIELDS)),
                {f"f{n}": "" for n in range(MAXIMUM_FIELDS)},
            ),
        ],
        ids=str,
    )
    def test_each_field_has_its_value(self, body: bytes, fields: dict[str, str]) -> None:
        assert parse(body) == fields

    @pytest.mark.parametrize(
        "body",
        [
            b"a=1&a=1",
            b"a=1&%61=2",
            b"a",
            b"a=1&&b=2",
            b"a=%ff",
            b"a=%ed%a0%80",
            b"\xc3\xa9=1",
            b"a=%00",
            b"%00=a",
            b"&".join(b"f%d=" % n for n in range(MAXIMUM_FIELDS + 1)),
        ],
        ids=str,
    )
    def test_what_no_browser_sends_is_refused(self, body: bytes) -> None:
        with pytest.raises(MalformedRequest) as caught:
            parse(body)
        assert "=" not in caught.value.detail

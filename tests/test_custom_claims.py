"""What fits into a token, and what a JSON pointer means."""

import json
from typing import Any

import pytest

from auth_manager.custom_claims import (
    MAXIMUM_BYTES,
    MAXIMUM_LIST_BYTES,
    RESERVED,
    Chosen,
    check_name,
    check_pointer,
    choose,
)

# The document and the pointers of RFC 6901 section 5.
DOCUMENT: dict[str, Any] = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
POINTERS = [
    ("", DOCUMENT),
    ("/foo", ["bar", "baz"]),
    ("/foo/0", "bar"),
    ("/", 0),
    ("/a~1b", 1),
    ("/c%d", 2),
    ("/e^f", 3),
    ("/g|h", 4),
    ("/i\\j", 5),
    ('/k"l', 6),
    ("/ ", 7),
    ("/m~0n", 8),
]
NOWHERE = [
    "/nothing",
    "/foo/2",
    "/foo/-",
    "/foo/00",
    "/foo/-1",
    "/foo/\u0660",
    "/foo/0/bar",
    "/a~1b/x",
    "/foo/",
]


def chosen(**arguments: Any) -> Chosen:
    nothing: dict[str, Any] = {
        "roles": (),
        "permissions": (),
        "role_claims": {},
        "attributes": {},
        "attribute_claims": {},
    }
    return choose(**nothing | arguments)


class TestPointers:
    @pytest.mark.parametrize(("pointer", "value"), POINTERS)
    def test_the_examples_of_the_rfc(self, pointer: str, value: object) -> None:
        check_pointer(pointer)
        assert chosen(attributes=DOCUMENT, attribute_claims={"x": pointer}).claims == {"x": value}

    @pytest.mark.parametrize("pointer", NOWHERE)
    def test_where_there_is_nothing_there_is_no_claim(self, pointer: str) -> None:
        assert chosen(attributes=DOCUMENT, attribute_claims={"x": pointer}) == chosen()

    def test_the_escapes_are_read_once(self) -> None:
        """RFC 6901 section 4: ~01 is ~1, and not a slash."""
        document = {"~1": "tilde", "/": "slash"}
        assert chosen(attributes=document, attribute_claims={"x": "/~01"}).claims == {"x": "tilde"}

    def test_null_is_a_value(self) -> None:
        assert chosen(attributes={"a": None}, attribute_claims={"x": "/a"}).claims == {"x": None}


class TestNames:
    @pytest.mark.parametrize("name", sorted(RESERVED))
    def test_reserved(self, name: str) -> None:
        with pytest.raises(ValueError, match="reserved"):
            check_name(name)

    @pytest.mark.parametrize("name", ["plan", "https://shop.example/tier", "urn:example:x", "A" * 128])
    def test_good(self, name: str) -> None:
        check_name(name)


class TestChoose:
    def test_a_role_goes_before_an_attribute(self) -> None:
        """Who has the account writes the attribute."""
        got = chosen(
            role_claims={"plan": "free", "x": 1}, attributes={"p": "gold"}, attribute_claims={"plan": "/p"}
        )
        assert got.claims == {"plan": "free", "x": 1}

    def test_an_attribute_takes_no_room_from_a_role(self) -> None:
        got = chosen(
            role_claims={"zone": "limited"}, attributes={"p": "x" * 2030}, attribute_claims={"about": "/p"}
        )
        assert (got.claims, got.left_out) == ({"zone": "limited"}, ["about"])

    def test_a_reserved_claim_of_a_role_is_not_said(self) -> None:
        """Its row was written by hand, or by an older version."""
        assert chosen(role_claims={"sub": "x", "plan": 1}).claims == {"plan": 1}

    def test_what_does_not_fit_is_left_out_and_named(self) -> None:
        role_claims = {"a": "x" * 1500, "b": "x" * 1000, "c": 1}
        got = chosen(role_claims=role_claims)
        assert (got.claims, got.left_out) == ({"a": "x" * 1500, "c": 1}, ["b"])

    @pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
    def test_the_limit_is_exact(self, more: int, fits: bool) -> None:  # noqa: FBT001
        claims = {"a": "x" * (MAXIMUM_BYTES - len('{"a":""}') + more)}
        assert (chosen(role_claims=claims).claims == claims) is fits

    def test_letters_beyond_ascii_count_as_they_are_written(self) -> None:
        claims = {"a": "é" * 400}
        assert len(json.dumps(claims)) > MAXIMUM_BYTES
        assert chosen(role_claims=claims).left_out == ["a"]

    def test_a_list_loses_its_end(self) -> None:
        names = [f"role-{number:04}" for number in range(200)]
        got = chosen(roles=names, permissions=names)
        assert list(got.roles) == names[: len(got.roles)]
        assert len(json.dumps(list(got.roles), separators=(",", ":"))) <= MAXIMUM_LIST_BYTES + 1
        assert len(got.permissions) == len(got.roles) == MAXIMUM_LIST_BYTES // 12
        assert got.left_out == ["roles", "permissions"]

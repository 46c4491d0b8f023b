"""The one form of an e-mail address and of a username."""

import pytest

from auth_manager.identifiers import MAXIMUM_EMAIL, normalize_email, normalize_username


def wide(text: str) -> str:
    """Write ASCII letters full-width, as East Asian keyboards do."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


class TestNormalizeEmail:
    @pytest.mark.parametrize(
        ("typed", "normalized"),
        [
            ("test@example.com", "test@example.com"),
            ("Test.Name+Tag@Example.COM", "test.name+tag@example.com"),
            (f"test@{wide('example')}.com", "test@example.com"),
            ("e\u0301@example.com", "\u00e9@example.com"),
            ("\u00c9@example.com", "\u00e9@example.com"),
            ("a@b\u00fccher.example.com", "a@b\u00fccher.example.com"),
            ("a@xn--bcher-kva.example.com", "a@b\u00fccher.example.com"),
            ("stra\u00dfe@example.com", "stra\u00dfe@example.com"),
            ("a@sub.example.co.uk", "a@sub.example.co.uk"),
        ],
        ids=ascii,
    )
    def test_spellings_of_one_mailbox_are_one(self, typed: str, normalized: str) -> None:
        assert normalize_email(typed) == normalized
        assert normalize_email(normalized) == normalized

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "@",
            "canary",
            "@example.com",
            "canary@",
            "canary@example",
            "canary@localhost",
            "canary@127.0.0.1",
            "canary@[127.0.0.1]",
            "canary@example..com",
            ".canary@example.com",
            "canary.@example.com",
            "can ary@example.com",
            '"can ary"@example.com',
            "canary@example.com ",
            "canary@example.com\n",
            "Canary <canary@example.com>",
            "canary@example.com,b@example.com",
            "=?utf-8?b?DQpCY2M6?=@canary.example.com",
            "canary@-example.com",
            "canary\u200b@example.com\u0000",
            "canary@" + "a" * 64 + ".com",
            "a@" + ".".join(["canary"] * 40) + ".com",
        ],
        ids=ascii,
    )
    def test_what_no_mail_reaches_is_refused_and_not_repeated(self, text: str) -> None:
        with pytest.raises(ValueError, match="address") as caught:
            normalize_email(text)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_the_longest_address(self) -> None:
        domain = ".".join(["x" * 61] * 3) + ".com"
        longest = "a" * (MAXIMUM_EMAIL - len(domain) - 1) + "@" + domain
        assert len(longest) == 254
        assert normalize_email(longest) == longest
        with pytest.raises(ValueError, match="254"):
            normalize_email("a" + longest)


class TestNormalizeUsername:
    @pytest.mark.parametrize(
        ("typed", "normalized"),
        [
            ("testuser", "testuser"),
            ("TestUser", "testuser"),
            (wide("TestUser"), "testuser"),
            ("STRASSE", "strasse"),
            ("stra\u00dfe", "strasse"),
            ("a.b-c_d", "a.b-c_d"),
            ("\ufb01ne", "fine"),
            ("\u0391\u03a3\u039f\u03a3", "\u03b1\u03c3\u03bf\u03c3"),
            ("e\u0301mile", "\u00e9mile"),
            ("\u7528\u6237\u540d", "\u7528\u6237\u540d"),
            ("123", "123"),
            ("a" * 64, "a" * 64),
        ],
        ids=ascii,
    )
    def test_spellings_of_one_name_are_one(self, typed: str, normalized: str) -> None:
        assert normalize_username(typed) == normalized
        assert normalize_username(normalized) == normalized

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "ab",
            "a" * 65,
            "\ufdfa" * 4,
            "a@example.com",
            "a\uff20example",
            ".abc",
            "abc.",
            "-abc",
            "abc-",
            "a bc",
            "a\u00a0bc",
            "abc\n",
            "a\u200bbc",
            "a\u202ebc",
            "a/bc",
            "<abc>",
            "a'bc",
            "\U0001f600\U0001f600\U0001f600",
        ],
        ids=ascii,
    )
    def test_what_is_no_name_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="username"):
            normalize_username(text)

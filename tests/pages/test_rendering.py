"""What the pages are made of: sentences, colours, and escaping."""

import re
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from auth_manager import errors, pages
from auth_manager.errors import AuthError, FieldError, InvalidFields, TooManyAttempts
from auth_manager.pages.rendering import (
    LOCALES,
    Locale,
    contrast,
    read_texts,
    render_page,
    render_style,
    text_colour_on,
)
from auth_manager.settings import Settings

MakeSettings = Callable[..., Settings]

HERE = Path(pages.__file__).parent
SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for path in [*HERE.glob("*.py"), *HERE.glob("templates/*.html")]
)


def sentences(locale: Locale) -> dict[str, str]:
    """Every sentence of a language, by `page.name`."""
    return {
        f"{section}.{name}": text
        for section, names in read_texts(locale).items()
        for name, text in names.items()
    }


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def error_codes(kind: type[AuthError] = AuthError) -> Iterator[str]:
    for child in kind.__subclasses__():
        yield child.code
        yield from error_codes(child)


class TestTexts:
    def test_both_languages_say_everything_with_the_same_values(self) -> None:
        english, french = sentences("en"), sentences("fr")
        assert {name: places(text) for name, text in english.items()} == {
            name: places(text) for name, text in french.items()
        }

    def test_nothing_is_left_untranslated(self) -> None:
        same = {name for name, text in sentences("en").items() if sentences("fr")[name] == text}
        assert same == {"code.code"}

    def test_every_sentence_is_said_somewhere(self) -> None:
        said_by_code = {"fields", "errors"}
        of_a_page = {"title", "text", "button", "done_title", "done"}
        unused = [
            name
            for name in sentences("en")
            if name.partition(".")[0] not in said_by_code
            and f"t.{name}" not in SOURCES
            and not (name.partition(".")[2] in of_a_page and f'"{name.partition(".")[0]}"' in SOURCES)
        ]
        assert unused == []

    def test_every_error_that_has_a_sentence_exists(self) -> None:
        assert set(read_texts("en")["errors"]) - {"other"} <= set(error_codes())

    def test_every_rule_for_a_field_has_a_sentence(self) -> None:
        """Those that the forms' fields can break, as docs/errors.md lists them."""
        document = (HERE.parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
        rows = re.findall(
            r"^\| `(\w+)` \| `/(?:email|username|password|display_name|name|code|totp)`",
            document,
            re.MULTILINE,
        )
        assert len(rows) >= 10
        assert set(rows) <= set(read_texts("en")["fields"])

    def test_french_punctuation_never_starts_a_line(self) -> None:
        texts = [text for name, text in sentences("fr").items() if name != "account.time"]
        assert [text for text in texts if re.search(r"[ \w][:;?!]|'", text)] == []


class TestErrors:
    @pytest.mark.parametrize("locale", LOCALES)
    def test_an_error_without_a_sentence_gets_one_all_the_same(
        self, make_settings: MakeSettings, locale: Locale
    ) -> None:
        html = render(make_settings(), "problem", locale=locale, error=errors.InternalError("secret cause"))
        assert read_texts(locale)["errors"]["other"] in html
        assert "secret cause" not in html

    def test_a_field_without_a_sentence_gets_one_all_the_same(self, make_settings: MakeSettings) -> None:
        error = InvalidFields(errors=[FieldError("/email", "from_tomorrow", "Echo.")])
        html = render(make_settings(), "address", error=error, page="forgot_password", path="x", email="")
        assert html.count("This is not valid.") == 2

    @pytest.mark.parametrize(("seconds", "minutes"), [(1, 1), (60, 1), (61, 2), (900, 15)])
    def test_waiting_is_rounded_up(self, make_settings: MakeSettings, seconds: int, minutes: int) -> None:
        html = render(make_settings(), "problem", error=TooManyAttempts(retry_after=seconds))
        assert f"Wait {minutes} min," in html


def render(settings: Settings, template: str, **values: Any) -> str:
    given: dict[str, Any] = {"locale": "en", "suffix": "", "token": "", "languages": False}
    return render_page(settings, template, **given | values)


class TestEscaping:
    def test_a_name_is_text(self, make_settings: MakeSettings) -> None:
        settings = make_settings(product_name='<b onload="x">{email}&')
        html = render(settings, "confirm", page="email_sign_in_link", path="sign-in", email="<i>@example.com")
        assert "<b " not in html
        assert "<i>" not in html
        assert "to &lt;b onload=&#34;x&#34;&gt;{email}&amp; as &lt;i&gt;@example.com." in html

    @pytest.mark.parametrize("name", ["app_url", "brand_logo_url"])
    @pytest.mark.parametrize(
        "value",
        [
            "javascript:alert(1)",
            "//example.com",
            "https://example.com; script-src *",
            "https://example.com/ x",
            'https://example.com/"x',
            "https://user@example.com",
            "https://example.com/\n",
        ],
    )
    def test_what_is_no_web_address_stops_the_start(
        self, make_settings: MakeSettings, name: str, value: str
    ) -> None:
        with pytest.raises(ValidationError, match="http"):
            make_settings(**{name: value})

    @pytest.mark.parametrize("colour", ["red", "#fff", "#1d4ed8;}", "#1d4ed8\n"])
    def test_what_is_no_colour_stops_the_start(self, make_settings: MakeSettings, colour: str) -> None:
        with pytest.raises(ValidationError, match="brand_colour"):
            make_settings(brand_colour=colour)


class TestColours:
    def test_text_is_legible_on_any_brand(self) -> None:
        """WCAG 2.2, 1.4.3: 4.5 to 1."""
        steps = [*range(0, 256, 15)]
        worst = min(
            contrast(colour, text_colour_on(colour))
            for colour in (f"#{r:02x}{g:02x}{b:02x}" for r in steps for g in steps for b in steps)
        )
        assert worst >= 4.5

    @pytest.mark.parametrize(
        ("colour", "text"),
        [("#000000", "#ffffff"), ("#FFFFFF", "#000000"), ("#ffff00", "#000000"), ("#1d4ed8", "#ffffff")],
    )
    def test_it_is_the_better_of_black_and_white(self, colour: str, text: str) -> None:
        assert text_colour_on(colour) == text

    def test_contrast_is_as_wcag_defines_it(self) -> None:
        assert contrast("#000000", "#ffffff") == pytest.approx(21)
        assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)

    def test_every_other_colour_pair_is_legible(self, make_settings: MakeSettings) -> None:
        """The style's own colours, all of them against its two backgrounds."""
        style = render_style(make_settings(brand_colour="#abcdef"))
        assert "#abcdef" in style
        assert "BRAND" not in style
        texts = set(re.findall(r"[ {]color: (#[0-9a-f]{6})", style)) - {text_colour_on("#abcdef")}
        assert texts == {"#18181b", "#52525b", "#b91c1c"}
        assert all(contrast(text, ground) >= 4.5 for text in texts for ground in ("#ffffff", "#f4f4f5"))


class TestColdStart:
    def test_jinja_is_loaded_with_the_first_page_alone(self) -> None:
        probe = "import sys, auth_manager.app; sys.exit('jinja2' in sys.modules)"
        subprocess.run([sys.executable, "-c", probe], check=True)

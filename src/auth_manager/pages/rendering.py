"""Templates, texts and colours become HTML. Jinja is loaded with the first page, never at a cold start."""

import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

from auth_manager.errors import AuthError
from auth_manager.settings import Settings, origin_of

if TYPE_CHECKING:
    from jinja2 import Environment

Locale = Literal["en", "fr"]
LOCALES: tuple[Locale, ...] = get_args(Locale)

_HERE = Path(__file__).parent
_LINEAR_UNTIL = 0.04045
"""Where sRGB stops being linear (IEC 61966-2-1)."""


@cache
def read_texts(locale: Locale) -> dict[str, Any]:
    """Return every sentence of a language, by page and name; `{...}` are places for values."""
    return tomllib.loads((_HERE / "texts" / f"{locale}.toml").read_text(encoding="utf-8"))


@cache
def _environment() -> "Environment":
    # One of the costliest imports there are, and a login needs none of it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(
    settings: Settings,
    template: str,
    *,
    locale: Locale,
    error: AuthError | None = None,
    script: bool = False,
    **values: object,
) -> str:
    """Return the HTML of a page.

    Args:
        settings: name, logo and address of the service.
        template: a file's name, without `.html`.
        locale: the language.
        error: what went wrong with the form before, said at its top and beside its fields.
        script: whether the page has the script.
        values: what else the template wants.
    """
    texts = read_texts(locale)
    return (
        _environment()
        .get_template(f"{template}.html")
        .render(
            locale=locale,
            t=texts,
            product=settings.product_name,
            logo_url=settings.brand_logo_url,
            app_url=settings.app_url,
            base=urlsplit(settings.public_url).path,
            minimum=settings.password_minimum_length,
            script=script,
            is_local=settings.is_local,
            passkey_origins=[o for o in settings.relying_party_origins if o.startswith("http")],
            message=_say(error, texts) if error else "",
            field_errors=_say_of_fields(error, texts, settings) if error else {},
            **values,
        )
    )


def _say(error: AuthError, texts: dict[str, Any]) -> str:
    """Return the sentence for an error; one that has none is a defect of ours or of the request."""
    sentences = texts["errors"]
    minutes = -(-(error.retry_after or 0) // 60)
    sentence: str = sentences.get(error.code, sentences["other"])
    return sentence.format(minutes=minutes)


def _say_of_fields(error: AuthError, texts: dict[str, Any], settings: Settings) -> dict[str, list[str]]:
    """Return the sentences for the fields of a form, by the fields' names."""
    found: dict[str, list[str]] = {}
    for item in error.errors:
        sentence: str = texts["fields"].get(item.code, texts["fields"]["other"])
        sentence = sentence.format(minimum=settings.password_minimum_length)
        found.setdefault(item.pointer.removeprefix("/"), []).append(sentence)
    return found


def render_style(settings: Settings) -> str:
    """Return the one style sheet, in the brand's colour with text that is legible on it."""
    style = (_HERE / "templates" / "style.css").read_text(encoding="utf-8")
    colour = settings.brand_colour
    return style.replace("BRAND_COLOUR", colour).replace("BRAND_TEXT", text_colour_on(colour))


def text_colour_on(background: str) -> str:
    """Return black or white, whichever stands out more: at least 4.5 to 1 on any colour (WCAG 2.2, 1.4.3).

    A colour of luminance 0.179 is as far from black as from white: 4.58 to 1.
    """
    return "#000000" if (_luminance(background) + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours `#rrggbb`, from 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= _LINEAR_UNTIL else ((channel + 0.055) / 1.055) ** 2.4


def render_script() -> str:
    """Return the one script, which the pages have that can use a passkey."""
    return (_HERE / "templates" / "passkeys.js").read_text(encoding="utf-8")


def content_security_policy(settings: Settings, *, script: bool = False) -> str:
    """Return what a page may load and do: our style sheet, our logo, forms to ourselves.

    With `script` also our own script files, which may call us; nothing inline, no eval.
    """
    logo = f" {origin_of(settings.brand_logo_url)}" if settings.brand_logo_url else ""
    scripts = "script-src 'self'; connect-src 'self'; " if script else ""
    return (
        f"default-src 'none'; {scripts}style-src 'self'; img-src 'self'{logo}; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )

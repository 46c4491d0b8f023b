"""JSON as RFC 8259 and RFC 7493 (I-JSON) mean it, refused before anything reads it twice.

Python's own parser accepts NaN, duplicate keys, lone surrogates and UTF-16, and turns 1e999 into infinity;
each of these has let two readers of one body see two different bodies, or crashed the second one.
"""

import json
import math
import re
from typing import Any, NoReturn

from auth_manager.errors import FieldError, InvalidFields, MalformedRequest

MAXIMUM_DEPTH = 32

_FIELD_NAME = re.compile(r"[a-z_]{1,32}")
"""What a field of ours may be called; any other key is the client's own text, and not named back."""


def parse(body: bytes) -> Any:  # noqa: ANN401 -- JSON is any value
    """Parse a request body.

    Raises:
        MalformedRequest: not UTF-8, not JSON, a duplicate key, a number that is no number, a lone surrogate,
            or more than MAXIMUM_DEPTH levels.
        InvalidFields: a NUL character in a string, which PostgreSQL cannot store.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise MalformedRequest("The body is not valid UTF-8.") from None
    except RecursionError:
        raise MalformedRequest(f"The body is nested over {MAXIMUM_DEPTH} levels.") from None
    except ValueError:  # JSONDecodeError, and integers of more digits than Python converts
        raise MalformedRequest("The body is not valid JSON.") from None
    _check(value, "", 1)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedRequest("The body has a duplicate key.")
    return value


def _refuse_constant(_name: str) -> NoReturn:
    raise MalformedRequest("The body has a number that is not finite.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedRequest("The body has a number that is not finite.")
    return number


def _check(value: Any, pointer: str, depth: int) -> None:  # noqa: ANN401 -- JSON is any value
    if isinstance(value, str):
        _check_text(value, pointer)
    elif isinstance(value, dict | list):
        if depth > MAXIMUM_DEPTH:
            raise MalformedRequest(f"The body is nested over {MAXIMUM_DEPTH} levels.")
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str):
                _check_text(key, pointer)
            named = depth == 1 and isinstance(key, str) and _FIELD_NAME.fullmatch(key)
            _check(item, f"/{key}" if named else pointer, depth + 1)


def _check_text(text: str, pointer: str) -> None:
    if "\x00" in text:
        raise InvalidFields(errors=[FieldError(pointer, "nul_character", "A string contains NUL.")])
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise MalformedRequest("The body has a lone surrogate.") from None

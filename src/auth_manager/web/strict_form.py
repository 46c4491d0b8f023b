"""Forms (application/x-www-form-urlencoded, WHATWG URL section 5) that every reader reads alike.

What no browser sends is refused: a field twice, text that is not UTF-8, NUL, a pair without `=`.
"""

from urllib.parse import parse_qsl

from auth_manager.errors import MalformedRequest

MAXIMUM_FIELDS = 20


def parse(body: bytes) -> dict[str, str]:
    """Return the fields of a form, each with its one value, as typed.

    Raises:
        MalformedRequest: it is none.
    """
    if not body:
        return {}
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAXIMUM_FIELDS,
        )
    except ValueError:  # a UnicodeDecodeError is one
        raise MalformedRequest("The body is not a valid form.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise MalformedRequest("The form has a field twice.")
    if any("\x00" in text for pair in pairs for text in pair):
        raise MalformedRequest("The form has a NUL character.")
    return fields

"""If-Match (RFC 9110 section 13.1.1): change only what is still as it was read."""

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Header

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1024,
        description="The ETag of what was read: 412 where it changed since. Without it nothing is compared.",
    ),
]

_STRONG_TAG = re.compile(r'(?<!W/)"([\x21\x23-\x7e]*)"')


def entity_tags(if_match: str | None) -> Sequence[str] | None:
    """Return the tags of which one must be the current one; None where any will do.

    A weak tag never matches, nor does what is no tag.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    return _STRONG_TAG.findall(if_match)


def entity_tag(tag: str) -> dict[str, str]:
    """Return the header that says it."""
    return {"ETag": f'"{tag}"'}

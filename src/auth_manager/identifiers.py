"""What a person is found by: e-mail address and username, in the one form that is unique."""

import unicodedata

MAXIMUM_EMAIL = 254
"""Characters (RFC 5321 section 4.5.3.1.3)."""
MINIMUM_USERNAME = 3
MAXIMUM_USERNAME = 64
"""Code points after normalisation."""

_JOINERS = frozenset("._-")
_WORD_CATEGORIES = frozenset("LMN")
"""Unicode general categories: letters, the marks that many scripts write words with, and numbers."""


def normalize_email(address: str) -> str:
    """Return the unique form of an address: as email-validator normalises it, in lower case.

    Lower case and not casefold: "ß" and "ss" are two mailboxes. Mail goes to the address that its owner
    registered, never to one that merely normalises alike (CVE-2019-19844).

    Raises:
        ValueError: not an address that mail can reach; the message says why.
    """
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 -- see test_cold_start

    if len(address) > MAXIMUM_EMAIL:
        raise ValueError(f"The address is over {MAXIMUM_EMAIL} characters.")
    if "=?" in address:
        # RFC 2047 section 5: no encoded word in an address; Python's email decodes one, line breaks included.
        raise ValueError("This is not an e-mail address that mail can reach.")
    try:
        return validate_email(address, check_deliverability=False).normalized.lower()
    except EmailNotValidError:
        # Its own message quotes the address; an answer never echoes what was submitted.
        raise ValueError("This is not an e-mail address that mail can reach.") from None


def normalize_username(name: str) -> str:
    """Return the unique form of a username: NFKC, casefolded, NFKC again (Unicode section 3.13, D147).

    Look-alikes of different scripts stay different names.

    Raises:
        ValueError: too short, too long, or with a character that no username has; "@" would make it an
            address.
    """
    normalized = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    if not MINIMUM_USERNAME <= len(normalized) <= MAXIMUM_USERNAME:
        raise ValueError(f"A username has {MINIMUM_USERNAME} to {MAXIMUM_USERNAME} characters.")
    words = (unicodedata.category(char)[0] in _WORD_CATEGORIES or char in _JOINERS for char in normalized)
    if not all(words) or normalized[0] in _JOINERS or normalized[-1] in _JOINERS:
        raise ValueError("A username has letters, digits, and . _ - between them.")
    return normalized


def parse_identifier(identifier: str) -> tuple[str | None, str | None]:
    """Return the e-mail or the username to look for; neither for text that can be no identifier."""
    try:
        if "@" in identifier:
            return normalize_email(identifier), None
        return None, normalize_username(identifier)
    except ValueError:
        return None, None

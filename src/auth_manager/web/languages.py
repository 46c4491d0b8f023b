"""The language that a client asks for (RFC 9110 section 12.5.4), of those that we speak."""

LANGUAGES = ("en", "fr")

_MAXIMUM_HEADER = 256


def preferred_language(header: str) -> str | None:
    """Return the one of LANGUAGES that Accept-Language ranks highest; None when it names none of them."""
    ranked: list[tuple[float, str]] = []
    for part in header[:_MAXIMUM_HEADER].split(","):
        tag, _, parameters = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        if language in LANGUAGES and (quality := _quality(parameters)) > 0:
            ranked.append((quality, language))
    # Of equals the first: max() keeps it.
    return max(ranked, key=lambda entry: entry[0])[1] if ranked else None


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0

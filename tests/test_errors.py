"""The named failures."""

import re
from collections.abc import Iterator

import pytest

from auth_manager.errors import AuthError, DatabaseUnavailable, InvalidFields, ServiceUnavailable


def subclasses(kind: type[AuthError] = AuthError) -> Iterator[type[AuthError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


KINDS = sorted(subclasses(), key=lambda kind: kind.code)


class TestEveryError:
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
    def test_it_has_a_status_a_code_and_a_title(self, kind: type[AuthError]) -> None:
        assert kind.status in {400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 429, 500, 503}
        assert re.fullmatch(r"[a-z_]+", kind.code)
        assert re.fullmatch(r"[A-Z][^\n]*\.", kind.title())
        assert str(kind()) == kind().detail == kind.title()

    def test_codes_are_unique(self) -> None:
        codes = [kind.code for kind in KINDS]
        assert len(set(codes)) == len(codes)


class TestAuthError:
    def test_a_detail_replaces_the_title(self) -> None:
        assert InvalidFields("Too old.").detail == "Too old."
        assert str(InvalidFields("Too old.")) == "Too old."

    def test_unavailability_says_when_to_come_back(self) -> None:
        assert ServiceUnavailable().retry_after == 2
        assert DatabaseUnavailable("busy", retry_after=9).retry_after == 9
        assert issubclass(DatabaseUnavailable, ServiceUnavailable)

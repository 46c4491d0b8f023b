"""Accept-Language, as browsers send it and as they do not."""

import pytest

from auth_manager.web.languages import preferred_language


class TestPreferredLanguage:
    @pytest.mark.parametrize(
        ("header", "language"),
        [
            ("", None),
            ("fr", "fr"),
            ("FR-ca", "fr"),
            ("de, en;q=0.5", "en"),
            ("en;q=0.5, fr;q=0.8", "fr"),
            ("en, fr", "en"),
            ("fr, en", "fr"),
            ("fr ; q=0.7 , en ; q=0.9", "en"),
            ("fr;Q=0.1, en;Q=0.2", "en"),
            ("de, es", None),
            ("*", None),
            ("fr;q=0", None),
            ("fr;q=0, en;q=0.001", "en"),
            ("french", None),
            ("en_US", None),
            (",,;q=1,fr,", "fr"),
        ],
    )
    def test_the_highest_of_ours_wins(self, header: str, language: str | None) -> None:
        assert preferred_language(header) == language

    @pytest.mark.parametrize("quality", ["x", "", "nan", "inf", "-1", "2", "1e400", "0x1", "0.5;a=b"])
    def test_what_has_no_such_quality_does_not_count(self, quality: str) -> None:
        assert preferred_language(f"fr;q={quality}, en;q=0.1") == "en"

    def test_only_the_beginning_of_a_long_one_is_read(self) -> None:
        assert preferred_language("de," * 100_000 + "fr") is None
        assert preferred_language("fr," + "de," * 100_000) == "fr"

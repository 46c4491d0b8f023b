"""The two forms of a secret, and its row."""

from collections import Counter
from uuid import UUID

import pytest
from pydantic import SecretStr

from auth_manager.errors import InvalidOneTimeSecret
from auth_manager.ids import new_id
from auth_manager.one_time_secrets import OneTimeSecrets, Purpose
from auth_manager.secret_keys import SecretKeys

OLD, NEW = (
    SecretStr("0123456789abcdefghijklmnopqrstuvwxyz-old"),
    SecretStr("zyxwvutsrqponmlkjihgfedcba9876543210-new"),
)
SECRETS = OneTimeSecrets(SecretKeys([OLD]))
IDS = [UUID(int=number * 2**64) for number in range(2000)]
every_purpose = pytest.mark.parametrize("purpose", Purpose)


class TestToken:
    @every_purpose
    def test_it_names_its_secret(self, purpose: Purpose) -> None:
        secret_id = new_id()
        assert SECRETS.parse(SECRETS.token(purpose, secret_id), list(Purpose)) == (secret_id, purpose)

    @every_purpose
    def test_it_is_good_for_one_purpose(self, purpose: Purpose) -> None:
        others = [other for other in Purpose if other is not purpose]
        with pytest.raises(InvalidOneTimeSecret):
            SECRETS.parse(SECRETS.token(purpose, new_id()), others)

    def test_it_has_one_text(self) -> None:
        """Of the same length, any other text is another token: nothing is ignored at the end, or anywhere."""
        token = SECRETS.token(Purpose.INVITATION, new_id())
        assert (len(token), token[:3]) == (67, "ot_")
        for position in range(len(token)):
            for character in "Aa0-_=.+/ \n\u00e9":
                changed = token[:position] + character + token[position + 1 :]
                if changed != token:
                    with pytest.raises(InvalidOneTimeSecret):
                        SECRETS.parse(changed, list(Purpose))

    @pytest.mark.parametrize(
        "token", ["", "ot_", "A" * 67, "ot_" + "A" * 64, "rt_" + "A" * 64, "ot_" + "é" * 64]
    )
    def test_anything_else_is_none(self, token: str) -> None:
        with pytest.raises(InvalidOneTimeSecret):
            SECRETS.parse(token, list(Purpose))


class TestCode:
    @every_purpose
    def test_it_is_six_digits_of_its_own(self, purpose: Purpose) -> None:
        secret_id = new_id()
        code = SECRETS.code(purpose, secret_id)
        assert len(code) == 6
        assert code.isascii()
        assert code.isdigit()
        assert SECRETS.is_code(purpose, secret_id, code)
        assert not SECRETS.is_code(purpose, new_id(), code) or SECRETS.code(purpose, new_id()) == code

    def test_they_are_spread_evenly(self) -> None:
        codes = [SECRETS.code(Purpose.VERIFY_EMAIL, secret_id) for secret_id in IDS]
        first_digits = Counter(code[0] for code in codes)
        assert len(first_digits) == 10
        assert max(first_digits.values()) < 300, "of 2,000, each about 200"
        assert len(set(codes)) > 1990

    def test_purposes_have_different_codes(self) -> None:
        for purpose in set(Purpose) - {Purpose.VERIFY_EMAIL}:
            same = sum(SECRETS.code(purpose, i) == SECRETS.code(Purpose.VERIFY_EMAIL, i) for i in IDS)
            assert same < 3

    @pytest.mark.parametrize("code", ["", "0", "0000000", "\ud800", "\uff10\uff10\uff10\uff10\uff10\uff10"])
    def test_anything_else_is_none(self, code: str) -> None:
        assert not any(SECRETS.is_code(Purpose.VERIFY_EMAIL, secret_id, code) for secret_id in IDS[:50])


class TestRotation:
    def test_what_was_mailed_before_stays_good(self) -> None:
        rotated = OneTimeSecrets(SecretKeys([NEW, OLD]))
        secret_id = new_id()
        token, code = (
            SECRETS.token(Purpose.RESET_PASSWORD, secret_id),
            SECRETS.code(Purpose.RESET_PASSWORD, secret_id),
        )
        assert rotated.token(Purpose.RESET_PASSWORD, secret_id) != token
        assert rotated.parse(token, [Purpose.RESET_PASSWORD]) == (secret_id, Purpose.RESET_PASSWORD)
        assert rotated.is_code(Purpose.RESET_PASSWORD, secret_id, code)

    def test_it_ends_with_its_key(self) -> None:
        rotated = OneTimeSecrets(SecretKeys([NEW]))
        with pytest.raises(InvalidOneTimeSecret):
            rotated.parse(SECRETS.token(Purpose.RESET_PASSWORD, IDS[1]), [Purpose.RESET_PASSWORD])
        good = sum(
            rotated.is_code(Purpose.RESET_PASSWORD, i, SECRETS.code(Purpose.RESET_PASSWORD, i)) for i in IDS
        )
        assert good < 3

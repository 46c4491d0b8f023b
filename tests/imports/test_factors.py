"""Factors that PostgreSQL, or a login, could do nothing with are refused."""

import base64
from datetime import datetime
from typing import Any

import pytest

from auth_manager.factors.totp import matching_step
from auth_manager.imports.factors import check_factors
from auth_manager.imports.refusals import Refused

WHEN = "2024-01-01T00:00:00Z"


def passkey(**members: Any) -> dict[str, Any]:
    return {
        "credential_id": "AAAA", "public_key": "AAAA", "sign_count": 7, "name": "A", "transports": ["usb"],
        "aaguid": "8f1c3b2e-7d4a-4c55-9b1e-000000000001", "attestation_format": "none",
        "user_verified": True, "backup_eligible": False, "backed_up": False, "created_at": WHEN,
        "last_used_at": None, **members,
    }  # fmt: skip


def base64url(length: int) -> str:
    return base64.urlsafe_b64encode(b"x" * length).decode().rstrip("=")


class TestCheckFactors:
    @pytest.mark.parametrize("length", [23, 24, 26, 28, 32, 128])
    def test_a_secret_that_codes_are_made_of(self, length: int) -> None:
        found = check_factors({"totp": {"secret": "A" * length, "confirmed_at": WHEN}})
        assert found.totp is not None
        moment = datetime.fromisoformat(WHEN)
        assert matching_step(found.totp.secret, "000000", last_step=None, now=moment) is None

    @pytest.mark.parametrize("length", [16, 17, 21, 25, 27, 30, 129])
    def test_a_secret_that_none_are_made_of_is_refused(self, length: int) -> None:
        with pytest.raises(Refused):
            check_factors({"totp": {"secret": "A" * length, "confirmed_at": WHEN}})

    @pytest.mark.parametrize(
        "members",
        [
            {"credential_id": base64url(1024)},
            {"credential_id": base64url(3000)},
            {"credential_id": ""},
            {"public_key": base64url(3073)},
            {"name": "\0"},
            {"name": "\ud800"},
            {"transports": ["\0"]},
            {"attestation_format": "\udfff"},
            {"sign_count": 1 << 32},
            {"sign_count": True},
            {"created_at": "9999-12-31T23:59:59-14:00"},
            {"last_used_at": "x"},
        ],
        ids=repr,
    )
    def test_a_passkey_that_cannot_be_stored_is_refused(self, members: dict[str, Any]) -> None:
        with pytest.raises(Refused):
            check_factors({"passkeys": [passkey(**members)]})

    def test_the_longest_there_are(self) -> None:
        long = passkey(credential_id=base64url(1023), public_key=base64url(3072))
        [found] = check_factors({"passkeys": [long]}).passkeys
        assert (len(found["credential_id"]), len(found["public_key"])) == (2 * 1023, 2 * 3072)

    @pytest.mark.parametrize("name", ["code_hash", "salt"])
    def test_a_recovery_code_that_no_index_takes_is_refused(self, name: str) -> None:
        code = {"code_hash": "AAAA", "salt": "AAAA", "created_at": WHEN} | {name: base64url(3000)}
        with pytest.raises(Refused):
            check_factors({"recovery_codes": [code]})

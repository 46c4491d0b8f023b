"""The ceremonies of passkeys without HTTP."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.passkeys.authenticator import Authenticator, encode

from auth_manager.factors import ceremonies
from auth_manager.factors.passkeys import Assertion, PasskeyKey
from auth_manager.ids import new_id
from auth_manager.settings import Settings

MakeSettings = Callable[..., Settings]
CHALLENGE = bytes(range(32))


class TestCredentialId:
    @pytest.mark.parametrize(
        ("credential", "found"),
        [
            ({"rawId": "AQID"}, b"\1\2\3"),
            ({"rawId": "AQ=="}, None),
            ({"rawId": "é"}, None),
            ({"rawId": 7}, None),
            ({"id": "AQID"}, None),
            ({}, None),
            (None, None),
        ],
        ids=str,
    )
    def test_is_read_from_the_clients_json(self, credential: Any, found: bytes | None) -> None:
        assert ceremonies.credential_id_of(credential) == found


class TestVerifyAssertion:
    def assertion(
        self,
        settings: Settings,
        *,
        by: Authenticator | None = None,
        stored: int = 0,
        alone: bool = True,
        **attributes: Any,
    ) -> Assertion | None:
        """Register with an authenticator, then use it once, as `attributes` say."""
        authenticator, account_id = by or Authenticator(), new_id()
        creation = {
            "rp": {"id": "auth.example.com"},
            "user": {"id": encode(account_id.bytes)},
            "challenge": encode(CHALLENGE),
            "excludeCredentials": [],
        }
        made = ceremonies.verify_registration(settings, authenticator.create(creation), challenge=CHALLENGE)
        assert made
        for name, value in attributes.items():
            setattr(authenticator, name, value)
        options = ceremonies.request_options(settings, None, challenge=CHALLENGE)
        return ceremonies.verify_assertion(
            settings,
            authenticator.get(options),
            PasskeyKey(new_id(), made.public_key, stored, made.backup_eligible),
            account_id=account_id,
            challenge=CHALLENGE,
            alone=alone,
        )

    @pytest.mark.parametrize("eligible", ["at first", "later"])
    def test_what_may_be_copied_stays_so(self, make_settings: Callable[..., Settings], eligible: str) -> None:
        """Backup eligibility never changes (section 6.1.3); another is another authenticator."""
        at_first = eligible == "at first"
        before = Authenticator(eligible=at_first)
        assert self.assertion(make_settings(), by=before) is not None
        assert self.assertion(make_settings(), by=before, eligible=not at_first) is None

    def test_a_copy_of_what_may_not_be_copied(self, make_settings: Callable[..., Settings]) -> None:
        assert self.assertion(make_settings(), backed_up=True, eligible=False) is None

    @pytest.mark.parametrize(
        ("policy", "alone", "accepted"),
        [
            ("required", True, False),
            ("required", False, False),
            ("preferred", True, False),
            ("preferred", False, True),
            ("discouraged", True, True),
            ("discouraged", False, True),
        ],
    )
    def test_of_a_user_who_was_not_verified(
        self, make_settings: MakeSettings, policy: str, *, alone: bool, accepted: bool
    ) -> None:
        settings = make_settings(passkey_user_verification=policy)
        found = self.assertion(settings, alone=alone, verifies_user=False)
        assert (found is not None) is accepted
        assert found is None or not found.user_verified

    @pytest.mark.parametrize(
        ("stored", "counts", "regressed"),
        [(0, True, False), (1, True, True), (2, True, True), (0, False, False), (1, False, True)],
    )
    def test_a_counter_that_does_not_rise(
        self, make_settings: MakeSettings, stored: int, *, counts: bool, regressed: bool
    ) -> None:
        found = self.assertion(make_settings(), stored=stored, counts=counts)
        assert found
        assert (found.regressed, found.must_rise) == (regressed, True)

    def test_of_a_passkey_that_is_backed_up_now(self, make_settings: MakeSettings) -> None:
        found = self.assertion(make_settings(), by=Authenticator(eligible=True), backed_up=True)
        assert found
        assert found.backed_up

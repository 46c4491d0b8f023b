"""What a session is worth after its owner authenticated again (RFC 9470)."""

import pytest
from tests.mfa.factors import (
    STEP,
    claims_of,
    enrol,
    first_step,
    person,
    second_step,
)
from tests.verification.people import PASSWORD, at

from auth_manager.errors import (
    InvalidOneTimeSecret,
    RecentAuthenticationRequired,
)
from auth_manager.factors.checks import Presented
from auth_manager.mfa import service as mfa
from auth_manager.one_time_secrets import Purpose
from auth_manager.reauthentication import service as reauthentication
from auth_manager.resources import Resources
from auth_manager.totp import service as totp
from auth_manager.verification import service as verification

LOOSE = {"login_failures_before_delay": 100, "login_failures_before_lock": 100}
"""As many guesses as there may be, without delays between them."""


class TestStepUp:
    def test_a_session_has_one_factor_again_when_the_last_is_removed(self, resources: Resources) -> None:
        """Or it would pass for two when factors are set up anew elsewhere."""
        somebody = person(resources)
        app = enrol(somebody)
        claims = claims_of(somebody, second_step(somebody, first_step(somebody), totp=app.code(STEP)))
        totp.remove(resources, at(STEP), claims)
        renewed = reauthentication.by_password(resources, at(STEP), claims, PASSWORD)
        weak = resources.access_tokens.verify(renewed.access_token, now=at().now)
        assert weak.acr == "aal1"
        enrol(somebody)
        with pytest.raises(RecentAuthenticationRequired):
            mfa.make_recovery_codes(resources, at(STEP), weak)

    def test_roles_are_those_of_now(self, resources: Resources) -> None:
        """ASVS 8.3.2: whoever lost a role does not renew it."""
        somebody = person(resources)
        somebody.query("INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts RETURNING 1")
        claims = somebody.claims()
        assert claims.roles == ("admin",)
        somebody.query("DELETE FROM account_roles RETURNING 1")
        renewed = reauthentication.by_password(resources, at(), claims, PASSWORD)
        assert resources.access_tokens.verify(renewed.access_token, now=at().now).roles == ()

    def test_a_recovery_code_is_told_of(self, resources: Resources) -> None:
        somebody = person(resources)
        app = enrol(somebody)
        claims = claims_of(somebody, second_step(somebody, first_step(somebody), totp=app.code(STEP)))
        reauthentication.by_factor(
            resources, at(STEP), claims, Presented(recovery_code=app.recovery_codes[0])
        )
        assert ("recovery_code_used", "success", None) in somebody.events()

    def test_a_change_of_address_that_waits_ends_with_the_first_factor(self, resources: Resources) -> None:
        somebody = person(resources)
        claims = somebody.claims()
        request = verification.change_email(resources, at(), claims, "new@example.com")
        enrol(somebody, claims)
        with pytest.raises(InvalidOneTimeSecret):
            verification.verify_email(resources, at(), somebody.token(Purpose.CHANGE_EMAIL, request))

"""Which names of a user pool people chose, and which the pool made up."""

from typing import Any

import pytest

from auth_manager.imports.cognito import convert

EMAIL = "ada@example.com"


def listed(username: str, status: str = "CONFIRMED", **attributes: str) -> dict[str, Any]:
    """A user as ListUsers gives it."""
    found = {"email": EMAIL, **attributes}
    return {
        "Username": username,
        "Attributes": [{"Name": name, "Value": value} for name, value in found.items()],
        "UserStatus": status,
    }


MADE_UP = [
    "7a1e5b3c-1111-4222-8333-444455556666",
    "Google_113455998877665544332",
    "google_1234",
    "Facebook_10150000000000",
    "LoginWithAmazon_amzn1.account.AFAEUV7XQK",
    "SignInWithApple_000123.0a1b2c3d4e5f.0456",
]


class TestUsername:
    @pytest.mark.parametrize("username", MADE_UP)
    def test_one_that_the_pool_made_up_is_none(self, username: str) -> None:
        assert convert(listed(username))["username"] is None
        assert convert({"cognito:username": username, "email": EMAIL})["username"] is None

    @pytest.mark.parametrize(
        "username", ["ada", "google_ada", "google", "facebook_fan_1", "SignInWithApple_x"]
    )
    def test_one_that_its_owner_chose_is_kept(self, username: str) -> None:
        assert convert(listed(username))["username"] == username
        assert convert({"cognito:username": username, "email": EMAIL})["username"] == username

    def test_one_of_any_other_provider_is_none(self) -> None:
        """Whatever the pool calls it: SAML and OIDC providers have names of the operator's choice."""
        federated = "EXTERNAL_PROVIDER"
        assert convert(listed("corporate_ada", federated))["username"] is None
        assert convert(listed("corporate_ada", federated, preferred_username="ada"))["username"] == "ada"

"""Cognito as the former system."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from auth_manager.aws import cognito
from auth_manager.aws.cognito import open_cognito
from auth_manager.aws.signature_v4 import AwsRefused
from auth_manager.errors import FormerSystemUnavailable
from auth_manager.ids import new_id
from auth_manager.lazy_migration import CheckElsewhere, FormerUser

REGION = "eu-central-1"
PASSWORD = "Correct-Horse-7!"
ADA = FormerUser(new_id(), "ada@example.com", "ada")


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[CheckElsewhere]:
    """A user pool with Ada, asked through boto3: there are no credentials in the environment."""
    with mock_aws():
        client: Any = boto3.client("cognito-idp", region_name=REGION)
        pool = client.create_user_pool(PoolName="old", UsernameAttributes=["email"])["UserPool"]["Id"]
        app = client.create_user_pool_client(
            UserPoolId=pool, ClientName="migration", ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH"]
        )["UserPoolClient"]["ClientId"]
        client.admin_create_user(UserPoolId=pool, Username=ADA.email, MessageAction="SUPPRESS")
        client.admin_set_user_password(UserPoolId=pool, Username=ADA.email, Password=PASSWORD, Permanent=True)
        client.admin_create_user(
            UserPoolId=pool, Username="new@example.com", TemporaryPassword=PASSWORD, MessageAction="SUPPRESS"
        )
        monkeypatch.setattr(cognito, "environment_credentials", lambda: None)
        yield open_cognito(f"{pool}/{app}")


class TestCheck:
    def test_the_right_password(self, check: CheckElsewhere) -> None:
        assert check(ADA, PASSWORD)

    def test_a_wrong_one(self, check: CheckElsewhere) -> None:
        assert not check(ADA, "wrong")

    def test_somebody_who_is_not_there(self, check: CheckElsewhere) -> None:
        assert not check(FormerUser(new_id(), "nobody@example.com", None), PASSWORD)

    def test_a_password_that_an_administrator_gave_out(self, check: CheckElsewhere) -> None:
        assert not check(FormerUser(new_id(), "new@example.com", None), PASSWORD)

    @pytest.mark.usefixtures("check")
    def test_a_pool_that_is_not_there(self) -> None:
        with pytest.raises(FormerSystemUnavailable):
            open_cognito(f"{REGION}_Gone/client")(ADA, PASSWORD)

    @pytest.mark.parametrize("code", ["", "TooManyRequestsException", "AccessDeniedException", "500"])
    def test_whatever_else_says_nothing(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        def refuse(_region: str, _request: object) -> dict[str, Any]:
            raise AwsRefused(code)

        monkeypatch.setattr(cognito, "_call", refuse)
        with pytest.raises(FormerSystemUnavailable):
            open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

    @pytest.mark.parametrize("challenge", ["SMS_MFA", "SOFTWARE_TOKEN_MFA"])
    def test_a_second_factor_there_means_that_the_password_was_right(
        self, monkeypatch: pytest.MonkeyPatch, challenge: str
    ) -> None:
        monkeypatch.setattr(cognito, "_call", lambda *_: {"ChallengeName": challenge})
        assert open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

    def test_an_answer_of_nothing_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cognito, "_call", lambda *_: {})
        with pytest.raises(FormerSystemUnavailable):
            open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

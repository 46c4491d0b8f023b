"""Amazon Cognito as the former system of an imported account (lazy_migration)."""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from auth_manager.aws.signature_v4 import AwsRefused, call_json, environment_credentials
from auth_manager.lazy_migration import DEADLINE, CheckElsewhere, FormerUser, unavailable
from auth_manager.spending import spending

_TARGET = "AWSCognitoIdentityProviderService.AdminInitiateAuth"

_WRONG = frozenset(
    {
        "NotAuthorizedException",  # another password, or the account is disabled there
        "UserNotFoundException",
        "UserNotConfirmedException",
        "PasswordResetRequiredException",
    }
)

_NOT_THEIR_PASSWORD = frozenset({"NEW_PASSWORD_REQUIRED"})
"""The password is one that an administrator gave out, maybe long ago; whoever has it resets it here."""

Call = Callable[[Mapping[str, object]], Mapping[str, Any]]


def open_cognito(pool_and_client: str) -> CheckElsewhere:
    """Return what signs in to a user pool: `<pool id>/<client id>`, of a client without a secret.

    The client must allow ALLOW_ADMIN_USER_PASSWORD_AUTH, and our role cognito-idp:AdminInitiateAuth. A second
    factor that the pool would ask for next has no bearing here: the password was right.
    """
    pool, _, client = pool_and_client.partition("/")
    region = pool.partition("_")[0]

    def check(user: FormerUser, password: str) -> bool:
        request = {
            "UserPoolId": pool,
            "ClientId": client,
            "AuthFlow": "ADMIN_USER_PASSWORD_AUTH",
            "AuthParameters": {"USERNAME": user.email, "PASSWORD": password},
        }
        try:
            answer = _call(region, request)
        except AwsRefused as error:
            if error.code in _WRONG:
                return False
            raise unavailable(f"cognito_{error.code}") from None
        if answer.get("ChallengeName"):
            return answer["ChallengeName"] not in _NOT_THEIR_PASSWORD
        if not answer.get("AuthenticationResult"):
            raise unavailable("cognito_answer")
        return True

    return check


def _call(region: str, request: Mapping[str, object]) -> Mapping[str, Any]:
    """Ask with the credentials of the environment, where there are none with those of boto3's chain.

    Raises:
        AwsRefused: with the code of Cognito's error, "" without an answer.
    """
    credentials = environment_credentials()
    if credentials is None:
        return _call_by_boto3(region, request)
    return call_json(
        "cognito-idp",
        _TARGET,
        request,
        region=region,
        credentials=credentials,
        now=datetime.now(UTC),
        timeout=DEADLINE,
    )


def _call_by_boto3(region: str, request: Mapping[str, object]) -> Mapping[str, Any]:
    import boto3  # noqa: PLC0415 -- costs as much as FastAPI
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=DEADLINE, read_timeout=DEADLINE, retries={"total_max_attempts": 1})
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    client: Any = boto3.client("cognito-idp", region_name=region, config=config, endpoint_url=endpoint)
    try:
        with spending("aws_calls"):
            answer: Mapping[str, Any] = client.admin_initiate_auth(**request)
    except ClientError as error:
        raise AwsRefused(error.response.get("Error", {}).get("Code", "")) from error
    except BotoCoreError as error:
        raise AwsRefused("") from error
    return answer

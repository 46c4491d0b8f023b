"""Amazon Cognito as the former system of an imported account (lazy_migration)."""

import json
import os
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from auth_manager.aws.signature_v4 import AwsRefused, call_json, environment_credentials
from auth_manager.lazy_migration import DEADLINE, CheckElsewhere, FormerUser, unavailable
from auth_manager.spending import spending

_TARGET = "AWSCognitoIdentityProviderService.AdminInitiateAuth"

_WRONG = frozenset(
    {
        # Another password, or the account is disabled there; or nobody has that name, where the client
        # prevents user existence errors, as one made in the console does.
        "NotAuthorizedException",
        "UserNotFoundException",
        "UserNotConfirmedException",
        "PasswordResetRequiredException",
    }
)

_CLIENT_HAS_SECRET = "SECRET_HASH"  # noqa: S105 -- a word of an error message
"""In the message of the NotAuthorizedException that says that the client has a secret."""

_NOT_THEIR_PASSWORD = frozenset({"NEW_PASSWORD_REQUIRED"})
"""The password is one that an administrator gave out, maybe long ago; whoever has it resets it here."""


def open_cognito(pool_and_client: str) -> CheckElsewhere:
    """Return what signs in to a user pool: `<pool id>/<client id>`, of a client without a secret.

    The client must allow ALLOW_ADMIN_USER_PASSWORD_AUTH, and our role cognito-idp:AdminInitiateAuth. A second
    factor that the pool would ask for next has no bearing here: the password was right.

    Who has a username is asked for by it first, then by the address: a pool may know only one of them, and
    its refusal does not say which. Both questions together have DEADLINE.
    """
    pool, _, client = pool_and_client.partition("/")

    def check(user: FormerUser, password: str) -> bool:
        ends_at = monotonic() + DEADLINE
        for name in filter(None, (user.username, user.email)):
            request = {
                "UserPoolId": pool,
                "ClientId": client,
                "AuthFlow": "ADMIN_USER_PASSWORD_AUTH",
                "AuthParameters": {"USERNAME": name, "PASSWORD": password},
            }
            if _is_right(request, user, timeout=ends_at - monotonic()):
                return True
        return False

    return check


def _is_right(request: Mapping[str, Any], user: FormerUser, *, timeout: float) -> bool:
    """Ask once.

    Raises:
        FormerSystemUnavailable: there was no answer in time, or none that says anything.
    """
    if timeout <= 0:
        raise unavailable("cognito_timeout")
    region = request["UserPoolId"].partition("_")[0]
    try:
        answer = _call(region, request, timeout)
    except AwsRefused as error:
        if _CLIENT_HAS_SECRET in error.message:
            raise unavailable("cognito_client_has_secret") from None
        if error.code in _WRONG:
            return False
        raise unavailable(f"cognito_{error.code}") from None
    if answer.get("ChallengeName"):
        return answer["ChallengeName"] not in _NOT_THEIR_PASSWORD
    if not answer.get("AuthenticationResult"):
        raise unavailable("cognito_answer")
    return _is_of(user, answer["AuthenticationResult"])


def _is_of(user: FormerUser, tokens: Mapping[str, str]) -> bool:
    """Tell whether they are this person's: a username of here may be somebody else's there.

    The address in the ID token says it, where the client may read that. The token comes from Cognito itself,
    over TLS, so its signature would say no more (OpenID Connect Core, section 3.1.3.7).
    """
    try:
        payload = tokens["IdToken"].split(".")[1]
        address = json.loads(urlsafe_b64decode(payload + "==")).get("email")  # a JWT leaves the padding out
    except (LookupError, ValueError, AttributeError):
        raise unavailable("cognito_answer") from None
    return address is None or str(address).lower() == user.email.lower()


def _call(region: str, request: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
    """Ask with the credentials of the environment, where there are none with those of boto3's chain.

    Raises:
        AwsRefused: with the code of Cognito's error, "" without an answer.
    """
    credentials = environment_credentials()
    if credentials is None:
        return _call_by_boto3(region, request, timeout)
    return call_json(
        "cognito-idp",
        _TARGET,
        request,
        region=region,
        credentials=credentials,
        now=datetime.now(UTC),
        timeout=timeout,
    )


def _call_by_boto3(region: str, request: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
    import boto3  # noqa: PLC0415 -- costs as much as FastAPI
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1})
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    client: Any = boto3.client("cognito-idp", region_name=region, config=config, endpoint_url=endpoint)
    try:
        with spending("aws_calls"):
            answer: Mapping[str, Any] = client.admin_initiate_auth(**request)
    except ClientError as error:
        refusal = error.response.get("Error", {})
        raise AwsRefused(refusal.get("Code", ""), refusal.get("Message", "")) from error
    except BotoCoreError as error:
        raise AwsRefused("") from error
    return answer

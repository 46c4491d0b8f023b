"""AWS Secrets Manager: the text of a secret, by the cheapest way there is (docs/decisions/0012).

A secret's ARN is in the environment, never its text: the text would show in the function's configuration and
miss every rotation.
"""

import os
import time
from datetime import UTC, datetime

from auth_manager.aws.signature_v4 import AwsRefused, Credentials, call_json, environment_credentials
from auth_manager.errors import ServiceUnavailable
from auth_manager.observability import log_event, trace

TIMEOUT = 1.5
"""Seconds to connect, and again to read, in each attempt: two attempts fit into Lambda's 10 s of init."""

ATTEMPTS = 2
PAUSE = 0.1
"""Seconds between two attempts."""

_TRANSIENT = frozenset(
    {
        "",
        "429",
        "500",
        "502",
        "503",
        "504",
        "InternalFailure",
        "InternalServiceError",
        "InternalServiceErrorException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""What a second attempt can mend; "" is no answer."""


def fetch_secret(arn: str) -> str:
    """Return the text of a secret's current version.

    Raises:
        ServiceUnavailable: Secrets Manager refused or did not answer; fail closed.
    """
    credentials = environment_credentials()
    with trace("secretsmanager"):
        if credentials is None:
            return _fetch_with_boto3(arn)
        try:
            return _fetch_signed(arn, credentials)
        except AwsRefused as error:
            log_event("secret_not_fetched", reason=error.code or "no answer")
            raise ServiceUnavailable("A secret could not be read.") from error


def _fetch_signed(arn: str, credentials: Credentials) -> str:
    region = arn.split(":")[3] if arn.startswith("arn:") else os.environ.get("AWS_REGION", "")
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        try:
            answer = call_json(
                "secretsmanager",
                "secretsmanager.GetSecretValue",
                {"SecretId": arn, "VersionStage": "AWSCURRENT"},
                region=region,
                credentials=credentials,
                now=datetime.now(UTC),
                timeout=TIMEOUT,
            )
        except AwsRefused as error:
            if error.code not in _TRANSIENT or attempt + 1 == ATTEMPTS:
                raise
        else:
            return _text(answer.get("SecretString"))
    raise AwsRefused("")


def _fetch_with_boto3(arn: str) -> str:
    """Outside Lambda, and under SnapStart, credentials come from boto3's chain (profile, role, container)."""
    import boto3  # noqa: PLC0415 -- costs as much as FastAPI
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    try:
        client = boto3.client("secretsmanager", config=config)
        return _text(client.get_secret_value(SecretId=arn, VersionStage="AWSCURRENT").get("SecretString"))
    except (BotoCoreError, ClientError, AwsRefused) as error:
        log_event("secret_not_fetched", reason=type(error).__name__)
        raise ServiceUnavailable("A secret could not be read.") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise AwsRefused("NotText")
    return value

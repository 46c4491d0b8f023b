"""AWS Secrets Manager: the text of a secret, by the cheapest way there is (docs/decisions/0012).

A secret's ARN is in the environment, never its text: the text would show in the function's configuration and
miss every rotation.
"""

import os
import time
from datetime import UTC, datetime
from typing import Literal

from auth_manager.aws.signature_v4 import AwsRefused, Credentials, call_json, environment_credentials
from auth_manager.errors import ServiceUnavailable
from auth_manager.observability import log_event, trace

Stage = Literal["AWSCURRENT", "AWSPREVIOUS"]
"""Secrets Manager's labels of a secret's versions."""

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
    return _fetch(arn, "AWSCURRENT")


def fetch_previous_secret(arn: str) -> str | None:
    """Return the text of the version before the current one, None when there was none.

    Raises:
        ServiceUnavailable: Secrets Manager refused or did not answer; fail closed.
    """
    try:
        return _fetch(arn, "AWSPREVIOUS")
    except LookupError:
        return None


def _fetch(arn: str, stage: Stage) -> str:
    """Return the text of a version; LookupError when Secrets Manager knows no previous one."""
    credentials = environment_credentials()
    with trace("secretsmanager"):
        try:
            if credentials is None:
                return _fetch_with_boto3(arn, stage)
            return _fetch_signed(arn, stage, credentials)
        except AwsRefused as error:
            if stage == "AWSPREVIOUS" and error.code == "ResourceNotFoundException":
                raise LookupError("no previous version") from error
            log_event("secret_not_fetched", reason=error.code or "no answer")
            raise ServiceUnavailable("A secret could not be read.") from error


def _region_of(arn: str) -> str:
    """Return the region that a secret is in, which need not be ours: the edge's is in us-east-1."""
    return arn.split(":")[3] if arn.startswith("arn:") else os.environ.get("AWS_REGION", "")


def _fetch_signed(arn: str, stage: Stage, credentials: Credentials) -> str:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        try:
            answer = call_json(
                "secretsmanager",
                "secretsmanager.GetSecretValue",
                {"SecretId": arn, "VersionStage": stage},
                region=_region_of(arn),
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


def _fetch_with_boto3(arn: str, stage: Stage) -> str:
    """Outside Lambda credentials come from boto3's chain (profile, role, container)."""
    import boto3  # noqa: PLC0415 -- costs as much as FastAPI
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    try:
        client = boto3.client("secretsmanager", config=config, region_name=_region_of(arn) or None)
        return _text(client.get_secret_value(SecretId=arn, VersionStage=stage).get("SecretString"))
    except ClientError as error:
        raise AwsRefused(str(error.response.get("Error", {}).get("Code", ""))) from error
    except BotoCoreError as error:
        raise AwsRefused(type(error).__name__) from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise AwsRefused("NotText")
    return value

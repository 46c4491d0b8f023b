"""AWS Secrets Manager."""

from auth_manager.errors import ServiceUnavailable

CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 3.0
"""Seconds; a cold start waits for this."""


def fetch_secret(arn: str) -> str:
    """Return the text of a secret's current version.

    Raises:
        ServiceUnavailable: Secrets Manager refused or did not answer; fail closed.
    """
    # boto3 costs as much as FastAPI to import, and a secret in the environment needs none of it.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    try:
        answer = boto3.client("secretsmanager", config=config).get_secret_value(SecretId=arn)
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable("A secret could not be read.") from error
    return answer["SecretString"]

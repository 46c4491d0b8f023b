"""The calls of Secrets Manager that a rotation makes."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from auth_manager.errors import ServiceUnavailable
from auth_manager.key_rotation import SecretVersions


def open_secret(arn: str) -> SecretVersions:
    """Return what `key_rotation.rotate` works with; each call raises ServiceUnavailable when it fails."""
    import boto3  # noqa: PLC0415 -- costs as much as FastAPI
    from botocore.config import Config  # noqa: PLC0415

    config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})
    client = boto3.client("secretsmanager", config=config)

    def stages() -> Mapping[str, frozenset[str]]:
        with _mapped():
            found = client.describe_secret(SecretId=arn).get("VersionIdsToStages", {})
        return {version: frozenset(labels) for version, labels in found.items()}

    def read(version: str) -> str | None:
        try:
            with _mapped():
                return client.get_secret_value(SecretId=arn, VersionId=version)["SecretString"]
        except LookupError:
            return None

    def write(token: str, text: str) -> None:
        with _mapped():
            client.put_secret_value(
                SecretId=arn, ClientRequestToken=token, SecretString=text, VersionStages=["AWSPENDING"]
            )

    def promote(new: str, old: str) -> None:
        with _mapped():
            client.update_secret_version_stage(
                SecretId=arn, VersionStage="AWSCURRENT", MoveToVersionId=new, RemoveFromVersionId=old
            )

    return SecretVersions(stages, read, write, promote)


@contextmanager
def _mapped() -> Generator[None]:
    """Raise LookupError for what is not there, ServiceUnavailable for every other refusal."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- as above

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        response = getattr(error, "response", {})
        if response.get("Error", {}).get("Code") == "ResourceNotFoundException":
            raise LookupError("no such secret or version") from error
        raise ServiceUnavailable("Secrets Manager did not do what was asked.") from error

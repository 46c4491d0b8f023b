"""AWS Lambda and CodeDeploy, for the hook that runs before a new version gets traffic."""

import json
from typing import Any, Literal

from auth_manager.errors import ServiceUnavailable

Status = Literal["Succeeded", "Failed"]


def invoke_function(function: str, event: object) -> object:
    """Invoke a function and return its answer.

    Raises:
        ServiceUnavailable: it failed, timed out, answered no JSON, or cannot be invoked.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- boto3 costs as much as FastAPI

    try:
        answer = _client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
        content: object = json.loads(answer["Payload"].read())
    except (BotoCoreError, ClientError, ValueError) as error:
        raise ServiceUnavailable("The function could not be invoked.") from error
    if answer.get("FunctionError"):
        raise ServiceUnavailable("The function failed.")
    return content


def report_hook(deployment: str, execution: str, status: Status) -> None:
    """Tell CodeDeploy whether the deployment may go on.

    Raises:
        ServiceUnavailable: CodeDeploy did not take it; without a report it fails the deployment in an hour.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- as above

    try:
        _client("codedeploy").put_lifecycle_event_hook_execution_status(
            deploymentId=deployment, lifecycleEventHookExecutionId=execution, status=status
        )
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable("CodeDeploy did not take the report.") from error


def _client(service: Literal["lambda", "codedeploy"]) -> Any:  # noqa: ANN401 -- has no stubs here
    import boto3  # noqa: PLC0415 -- as above
    from botocore.config import Config  # noqa: PLC0415

    config = Config(connect_timeout=3, read_timeout=25, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client(service, config=config)

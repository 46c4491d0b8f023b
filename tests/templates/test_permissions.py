"""infra/bootstrap.yaml allows what deploying and running the application takes: computed, not remembered."""

import re
from collections.abc import Iterator
from typing import Final

import botocore.session
import pytest
from botocore import xform_name
from cfnlint.schema.manager import (  # type: ignore[import-untyped]  # no py.typed
    PROVIDER_SCHEMA_MANAGER,
)
from tests.templates.iam import Statement, actions, allows, grants, statements
from tests.templates.parameter_sets import APP, BOOTSTRAP, REGIONS, SETS, STACKS, deployed, resolved
from tests.templates.resolved import ACCOUNT, REGION, ROOT, arn_of, of_type

pytestmark = pytest.mark.templates

STACK = STACKS[APP]


def bootstrap(*names: str, parameter_set: str = "github") -> list[Statement]:
    """Return the statements of these policies of infra/bootstrap.yaml."""
    made = resolved(BOOTSTRAP, parameter_set)
    return statements(made, *names, stack=STACKS[BOOTSTRAP], region=REGIONS[BOOTSTRAP])


@pytest.mark.parametrize("name", SETS[APP])
class TestBoundary:
    def test_it_leaves_every_role_what_the_role_asks_for(self, name: str) -> None:
        boundary = bootstrap("Boundary", parameter_set="other secrets")
        made = deployed(APP, name)
        cut_off = [
            (role, action, resource)
            for role in of_type(made, "AWS::IAM::Role")
            for action, resource in grants(statements(made, role, stack=STACK, region=REGION))
            if not allows(boundary, action, resource)
        ]
        assert cut_off == []


class TestOtherSecrets:
    def test_without_the_parameter_secrets_of_others_are_out_of_reach(self) -> None:
        others = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:rds!cluster-0a1b2c3d-AbCdEf"
        assert allows(
            bootstrap("Boundary", parameter_set="other secrets"), "secretsmanager:GetSecretValue", others
        )
        assert not allows(bootstrap("Boundary"), "secretsmanager:GetSecretValue", others)


NOT_OURS: Final = {
    "apigateway:TagResource",  # for an HTTP API the action is POST on /tags
    "apigateway:UntagResource",  # DELETE on /tags
    "billing:GetBillingViewData",  # a budget over its own account's costs
    "codedeploy:RegisterOnPremisesInstance",
    "elasticfilesystem:DescribeMountTargets",  # no file system
    "firehose:TagDeliveryStream",
    "iam:DeleteRolePermissionsBoundary",  # never: the boundary is what limits a role
    "kms:CreateGrant",  # variables stay under Lambda's own key
    "kms:Encrypt",
    "lambda:AssociateRuntimeAlias",  # images bring their runtime
    "lambda:DeleteFunctionCodeSigningConfig",  # images cannot be signed this way
    "lambda:GetCodeSigningConfig",
    "lambda:GetLayerVersion",  # images have no layers
    "lambda:PassCapacityProvider",
    "lambda:PutFunctionCodeSigningConfig",
    "logs:DeleteDataProtectionPolicy",  # no data protection policy
    "logs:DeleteIndexPolicy",
    "logs:DeleteResourcePolicy",
    "logs:PutBearerTokenAuthentication",
    "logs:PutDataProtectionPolicy",
    "logs:PutIndexPolicy",
    "logs:PutLogGroupDeletionProtection",
    "s3:GetObjectVersion",
    "s3:REST.PUT.OBJECT",
    "s3files:ListMountTargets",
    "secretsmanager:RemoveRegionsFromReplication",  # one region
    "secretsmanager:ReplicateSecretToRegions",
    "sns:PutDataProtectionPolicy",
}
"""What the resource providers name for features that the application does not use."""

BESIDE_PROVIDERS: Final = {
    # Lambda looks whether it may pull the image, as the role that makes the function.
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
    "ecr:GetRepositoryPolicy",
    # API Gateway sets up the delivery of access logs as whoever makes the stage.
    "logs:DeleteLogDelivery",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:UpdateLogDelivery",
    # Reads, to tell what is there.
    "iam:ListRoleTags",
    "lambda:ListEventSourceMappings",
}
"""What services ask for although no resource provider names it."""

SERVICE_OF: Final = {"ApiGatewayV2": "apigateway"}
"""The IAM prefix of resource types whose service has another."""

ELSEWHERE: Final = {"codedeploy:GetDeploymentConfig"}
"""Of the resource's service, but not on the resource."""

WITHOUT_ARN: Final = {
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Permission",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SecretsManager::RotationSchedule",
}
"""Parts of another resource, on which IAM decides."""


def handled(kind: str) -> set[str]:
    """Return the actions that making, reading, changing and deleting a resource of this type takes."""
    handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema.get("handlers", {})
    return {
        action
        for operation in ("create", "read", "update", "delete")
        for action in handlers.get(operation, {}).get("permissions", [])
    }


def kinds() -> set[str]:
    return {one["Type"] for name in SETS[APP] for one in deployed(APP, name)["Resources"].values()}


class TestExecutionRole:
    def granted(self) -> list[Statement]:
        return bootstrap("ComputePolicy", "StatePolicy")

    def test_it_can_make_change_and_delete_every_resource(self) -> None:
        allowed = {action.lower() for action in actions(self.granted()) | NOT_OURS}
        missing = {
            kind: {action for action in handled(kind) if action.lower() not in allowed} for kind in kinds()
        }
        assert {kind: lacking for kind, lacking in missing.items() if lacking} == {}

    def test_nothing_is_allowed_that_no_resource_needs(self) -> None:
        needed = {action.lower() for kind in kinds() for action in handled(kind)}
        unneeded = {action for action in actions(self.granted()) if action.lower() not in needed}
        assert unneeded == BESIDE_PROVIDERS

    @pytest.mark.parametrize("name", SETS[APP])
    def test_the_names_of_all_resources_are_within_its_reach(self, name: str) -> None:
        granted, made = self.granted(), deployed(APP, name)
        wrong = []
        for resource, one in made["Resources"].items():
            if one["Type"] in WITHOUT_ARN:
                continue
            service = one["Type"].split("::")[1]
            prefix = f"{SERVICE_OF.get(service, service.lower())}:"
            arn = arn_of(made, resource, stack=STACK)
            wrong += [
                (action, arn)
                for action in handled(one["Type"]) - NOT_OURS - ELSEWHERE
                if action.lower().startswith(prefix) and not allows(granted, action, arn)
            ]
        assert wrong == []


CALL = re.compile(
    r"(?:^\s*|\$\(|\brun |\| )aws (?P<service>[a-z0-9-]+) (?P<call>wait [a-z-]+|[a-z-]+)", re.MULTILINE
)
"""A call of the script; what it prints for people is quoted."""

NO_PERMISSION: Final = {"sts:GetCallerIdentity"}
"""IAM does not ask."""

BY_SAM: Final = {
    # sam package: the template, under the hash of what is in it, and the image.
    "ecr:GetAuthorizationToken",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:PutObject",
    # docker push
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
    # sam deploy, with --role-arn
    "cloudformation:CreateChangeSet",
    "cloudformation:DescribeChangeSet",
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStacks",
    "cloudformation:ExecuteChangeSet",
    "cloudformation:GetTemplateSummary",
    "iam:PassRole",
}
"""What `sam package`, `docker push` and `sam deploy` call for the script."""

LAMBDA_ACTIONS: Final = {"Invoke": "InvokeFunction"}
"""Operations whose permission has another name."""


def called_by_script() -> Iterator[str]:
    """Yield the IAM action of every call of the AWS command line in scripts/deploy-lambda.sh."""
    session = botocore.session.get_session()
    script = (ROOT / "scripts/deploy-lambda.sh").read_text(encoding="utf-8")
    for found in CALL.finditer(script):
        service, call = found["service"], found["call"]
        if call == "get-login-password":
            yield "ecr:GetAuthorizationToken"
        elif call.startswith("wait "):
            waiter = "".join(part.capitalize() for part in call.removeprefix("wait ").split("-"))
            yield f"{service}:{session.get_waiter_model(service).get_waiter(waiter).operation}"
        else:
            operations = session.get_service_model(service).operation_names
            [operation] = [one for one in operations if xform_name(one, "-") == call]
            yield f"{service}:{LAMBDA_ACTIONS.get(operation, operation)}"


class TestDeployPolicy:
    FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-MaintenanceFunction-AbCdEfGhIjKl"
    ON: Final = {
        "cloudformation": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/0a1b2c3d",
        "ecr": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/auth-manager",
        "iam": f"arn:aws:iam::{ACCOUNT}:role/auth-manager-cloudformation",
        "lambda": FUNCTION,
        "s3:ListBucket": "arn:aws:s3:::auth-bootstrap-artefacts-abcdefghijkl",
        "s3": "arn:aws:s3:::auth-bootstrap-artefacts-abcdefghijkl/0a1b2c3d.template",
        "cloudformation:GetTemplateSummary": "*",
        "ecr:GetAuthorizationToken": "*",
    }
    """What the calls are about, by action or service."""

    def test_the_script_is_read(self) -> None:
        assert {"lambda:UpdateAlias", "lambda:UpdateFunctionCode", "sts:GetCallerIdentity"} <= set(
            called_by_script()
        )

    def test_it_allows_every_call_of_the_deploy_script(self) -> None:
        granted = bootstrap("DeployPolicy")
        refused = [
            action
            for action in sorted({*called_by_script(), *BY_SAM} - NO_PERMISSION)
            if not allows(granted, action, self.ON.get(action, self.ON[action.partition(":")[0]]))
        ]
        assert refused == []

    def test_code_changes_past_cloudformation_in_the_maintenance_function_alone(self) -> None:
        changed = {
            resource
            for action, resource in grants(bootstrap("DeployPolicy"))
            if action == "lambda:UpdateFunctionCode"
        }
        assert changed == {f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:auth-manager-*-MaintenanceFunction-*"}

    def test_it_reads_the_outputs_of_its_own_stack(self) -> None:
        own = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACKS[BOOTSTRAP]}/0a1b2c3d"
        granted = bootstrap("DeployPolicy")
        assert {action for action in actions(granted) if allows(granted, action, own)} == {
            "cloudformation:DescribeStacks",
            # On every resource, because they know none.
            "cloudformation:GetTemplateSummary",
            "ecr:GetAuthorizationToken",
        }

"""template.yaml: the promises it makes. tests/templates proves it for every set of parameters."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.templates.iam import listed
from tests.templates.parameter_sets import APP, SETS, STACKS, resolved
from tests.templates.resolved import NOTHING, ROOT, load, of_type, with_arns

from auth_manager.settings import Settings

TEMPLATE = load(APP)
FUNCTIONS = of_type(TEMPLATE, "AWS::Serverless::Function")
ROLES = of_type(TEMPLATE, "AWS::IAM::Role")

WITHOUT_RESOURCE = {
    "cloudwatch:DescribeAlarms",
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
"""The only actions allowed on "*": they know no narrower resource."""


def branches(value: Any) -> Iterator[Any]:
    """Yield a value, or every branch of its Fn::If."""
    if isinstance(value, dict) and set(value) == {"Fn::If"}:
        for branch in value["Fn::If"][1:]:
            yield from branches(branch)
    else:
        yield value


def statements(role: str) -> list[dict[str, Any]]:
    """Return every statement a role can have."""
    policies = (policy for one in ROLES[role]["Properties"].get("Policies", []) for policy in branches(one))
    return [
        statement
        for policy in policies
        if policy != NOTHING
        for statement in policy["PolicyDocument"]["Statement"]
    ]


class TestParameters:
    def test_they_are_grouped_and_described(self) -> None:
        groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [parameter for group in groups for parameter in group["Parameters"]]
        assert grouped == list(TEMPLATE["Parameters"])
        assert [name for name, one in TEMPLATE["Parameters"].items() if not one.get("Description")] == []

    def test_secret_ones_are_not_shown(self) -> None:
        hidden = {name for name, one in TEMPLATE["Parameters"].items() if one.get("NoEcho")}
        assert hidden == {"DatabaseUrl", "SigningKeys", "SecretKeys"}

    def test_every_condition_and_parameter_is_used(self) -> None:
        rest = json.dumps({key: TEMPLATE[key] for key in ("Rules", "Conditions", "Globals", "Resources")})
        for parameter in TEMPLATE["Parameters"]:
            assert f'"{parameter}"' in rest or f"${{{parameter}}}" in rest, parameter
        resources = json.dumps({key: TEMPLATE[key] for key in ("Conditions", "Globals", "Resources")})
        for condition in TEMPLATE["Conditions"]:
            assert resources.count(f'"{condition}"') > 1, condition

    def test_outputs_are_exported_under_the_name_of_the_stack(self) -> None:
        for output, one in TEMPLATE["Outputs"].items():
            assert one["Description"]
            assert one["Export"]["Name"] == {"Fn::Sub": f"${{AWS::StackName}}-{output}"}


@pytest.mark.parametrize("name", FUNCTIONS)
class TestEveryFunction:
    def test_it_has_a_role_a_log_group_and_limits_of_its_own(self, name: str) -> None:
        made = FUNCTIONS[name]["Properties"]
        prefix = name.removesuffix("Function")
        assert made["Role"] == {"Fn::GetAtt": [f"{prefix}Role", "Arn"]}
        assert made["LoggingConfig"] == {"LogGroup": {"Ref": f"{prefix}Logs"}, "LogFormat": "JSON"}
        group = TEMPLATE["Resources"][f"{prefix}Logs"]["Properties"]
        assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}
        assert made["Timeout"]
        assert made["MemorySize"]

    def test_it_shares_the_one_image(self, name: str) -> None:
        assert FUNCTIONS[name]["Metadata"] == FUNCTIONS["ApiFunction"]["Metadata"]
        assert FUNCTIONS[name]["Properties"]["PackageType"] == "Image"

    def test_its_entry_point_exists(self, name: str) -> None:
        [command] = FUNCTIONS[name]["Properties"]["ImageConfig"]["Command"]
        module, _, function = command.rpartition(".")
        assert function == "handler"
        assert (ROOT / "src" / (module.replace(".", "/") + ".py")).is_file()


class TestFunctions:
    def test_the_api_gives_up_before_the_gateway(self) -> None:
        assert FUNCTIONS["ApiFunction"]["Properties"]["Timeout"] < 30

    def test_a_message_is_hidden_for_six_timeouts(self) -> None:
        worker = FUNCTIONS["WorkerFunction"]["Properties"]
        queue = TEMPLATE["Resources"]["OutboxQueue"]["Properties"]
        assert queue["VisibilityTimeout"] >= 6 * worker["Timeout"]
        assert queue["RedrivePolicy"]["maxReceiveCount"] == 5
        assert worker["Events"]["Outbox"]["Properties"]["FunctionResponseTypes"] == [
            "ReportBatchItemFailures"
        ]

    def test_versions_are_published_for_every_change(self) -> None:
        for name in ("ApiFunction", "MaintenanceFunction"):
            made = FUNCTIONS[name]["Properties"]
            assert made["AutoPublishAlias"] == "live"
            assert made["AutoPublishAliasAllProperties"] is True

    def test_schedules_are_named_after_the_stack(self) -> None:
        schedules = [
            event["Properties"]
            for one in FUNCTIONS.values()
            for event in one["Properties"].get("Events", {}).values()
            if event["Type"] == "ScheduleV2"
        ]
        assert {json.loads(one["Input"])["action"] for one in schedules} == {
            "relay_outbox",
            "clean_up",
            "checkpoint_audit",
            "back_up",
        }
        for one in schedules:
            assert one["Name"]["Fn::Sub"].startswith("${AWS::StackName}-")
            assert one["RoleArn"] == {"Fn::GetAtt": ["SchedulerRole", "Arn"]}

    def test_plain_values_can_be_given_to_sam_local(self) -> None:
        declared = set(TEMPLATE["Globals"]["Function"]["Environment"]["Variables"])
        plain = {"AUTH_DATABASE_URL", "AUTH_SIGNING_KEYS", "AUTH_SECRET_KEYS", "AUTH_MODE", "AUTH_PUBLIC_URL"}
        assert plain <= declared

    def test_no_secret_is_in_the_environment(self) -> None:
        variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
        assert variables["AUTH_SIGNING_KEYS"] == variables["AUTH_SECRET_KEYS"] == ""
        assert variables["AUTH_DATABASE_URL"]["Fn::If"][:2] == ["OwnDatabaseSecret", ""]
        assert "{{resolve" not in json.dumps(TEMPLATE)


@pytest.mark.parametrize("name", SETS[APP])
class TestEnvironment:
    """What Globals gives every function, in every set of parameters."""

    def variables(self, name: str) -> dict[str, str]:
        made = resolved(APP, name)
        given = made["Globals"]["Function"]["Environment"]["Variables"]
        known: dict[str, str] = with_arns(made, given, stack=STACKS[APP])
        return known

    def test_the_service_starts_with_it(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable, value in self.variables(name).items():
            monkeypatch.setenv(variable, value)
        settings = Settings()
        assert not settings.is_local
        assert settings.service_name == STACKS[APP]

    def test_every_variable_is_a_setting(self, name: str) -> None:
        known = {f"AUTH_{field.upper()}" for field in Settings.model_fields}
        assert set(self.variables(name)) <= known


class TestEdge:
    def test_only_the_api_reads_the_origin_secret_and_nothing_beside_it(self) -> None:
        readers = {
            role
            for role in ROLES
            for statement in statements(role)
            if {"Ref": "OriginSecretArn"} in [statement["Resource"], *listed(statement["Resource"])]
        }
        assert readers == {"ApiRole"}
        [statement] = [one for one in statements("ApiRole") if one["Resource"] == {"Ref": "OriginSecretArn"}]
        assert statement["Action"] == "secretsmanager:GetSecretValue"


class TestSnapStart:
    def test_versions_behind_the_alias_start_from_a_snapshot(self) -> None:
        function = resolved(APP, "snapstart")["Resources"]["ApiFunction"]["Properties"]
        assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
        assert function["AutoPublishAlias"] == "live"
        assert "ProvisionedConcurrencyConfig" not in function

    def test_nothing_else_does(self) -> None:
        made = of_type(resolved(APP, "snapstart"), "AWS::Serverless::Function")
        assert [name for name, one in made.items() if "SnapStart" in one["Properties"]] == ["ApiFunction"]
        warm = resolved(APP, "provisioned")["Resources"]["ApiFunction"]["Properties"]
        assert "SnapStart" not in warm
        assert warm["ProvisionedConcurrencyConfig"] == {"ProvisionedConcurrentExecutions": 2}


class TestSecrets:
    @pytest.mark.parametrize("name", of_type(TEMPLATE, "AWS::SecretsManager::Secret"))
    def test_no_ordinary_parameter_changes_a_secret(self, name: str) -> None:
        """A change of any property is a write to the secret, whose text has been rotated since."""
        own = {"SigningKeys", "SecretKeys", "DatabaseUrl", "SecretsKmsKeyArn"}
        text = json.dumps(TEMPLATE["Resources"][name]["Properties"])
        used = {one for one in TEMPLATE["Parameters"] if f'"{one}"' in text or f"{{{one}}}" in text}
        assert used <= own

    def test_the_example_configuration_carries_none(self) -> None:
        example = (ROOT / "samconfig.toml.example").read_text(encoding="utf-8")
        for parameter in ("SigningKeys", "SecretKeys", "DatabaseUrl"):
            assert f"{parameter}=" not in example


@pytest.mark.parametrize("name", ROLES)
class TestEveryRole:
    def test_it_names_its_actions_and_resources(self, name: str) -> None:
        for statement in statements(name):
            assert "*" not in "".join(listed(statement["Action"]))
            if statement["Resource"] == "*":
                assert set(listed(statement["Action"])) <= WITHOUT_RESOURCE

    def test_it_can_be_bounded(self, name: str) -> None:
        made = ROLES[name]["Properties"]
        assert made["Path"] == {"Ref": "RolePath"}
        assert made["PermissionsBoundary"]["Fn::If"][1] == {"Ref": "PermissionsBoundaryArn"}
        assert "ManagedPolicyArns" not in made
        assert "RoleName" not in made


class TestRoles:
    @pytest.mark.parametrize(
        ("secret", "readers"),
        [
            ("SigningKeysSecret", {"ApiRole", "MaintenanceRole"}),
            ("SecretKeysSecret", {"ApiRole", "MaintenanceRole", "WorkerRole"}),
            ("DatabaseSecret", {"ApiRole", "MaintenanceRole", "WorkerRole"}),
            ("SmtpSecretArn", {"WorkerRole"}),
            ("OriginSecretArn", {"ApiRole"}),
        ],
    )
    def test_a_secret_is_read_by_those_who_need_it(self, secret: str, readers: set[str]) -> None:
        assert readers == {
            name
            for name in ROLES
            for statement in statements(name)
            if "secretsmanager:GetSecretValue" in listed(statement["Action"])
            and f"'Ref': '{secret}'" in str(statement["Resource"])
        }

    def test_only_maintenance_writes_one_secret(self) -> None:
        writers = {
            name: statement["Resource"]["Fn::If"][1]["Ref"]
            for name in ROLES
            for statement in statements(name)
            if "secretsmanager:PutSecretValue" in listed(statement["Action"])
        }
        assert writers == {"MaintenanceRole": "SigningKeysSecret"}

    def test_nobody_deletes_checkpoints_of_the_audit_trail(self) -> None:
        deleted = [
            (name, statement["Resource"]["Fn::Sub"])
            for name in ROLES
            for statement in statements(name)
            if "s3:DeleteObject" in listed(statement["Action"])
        ]
        bucket = "arn:${AWS::Partition}:s3:::${BackupBucket}"
        assert deleted == [("MaintenanceRole", f"{bucket}/${{AWS::StackName}}/backups/*")]

    def test_secrets_stay_when_the_stack_goes(self) -> None:
        secrets = of_type(TEMPLATE, "AWS::SecretsManager::Secret")
        assert set(secrets) == {"SigningKeysSecret", "SecretKeysSecret", "DatabaseSecret"}
        for one in secrets.values():
            assert one["DeletionPolicy"] == "RetainExceptOnCreate"
            assert one["UpdateReplacePolicy"] == "Retain"

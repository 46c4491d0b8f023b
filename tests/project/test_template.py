"""template.yaml: linted for every set of parameters, and the promises it makes held.

cfn-lint and sam read parameters by their defaults, so each set is written into a copy as defaults.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]  # no py.typed

from auth_manager import observability

ROOT = Path(__file__).parents[2]
SAM = ROOT / ".venv-tools/bin/sam"

KEYS = '{"keys":[' + "x" * 100 + "]}"
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:auth-manager-"
MINIMAL: dict[str, str | int] = {
    "PublicUrl": "https://auth.example.com",
    "DatabaseUrl": "postgresql://user:word@db.example.com/auth",
    "SigningKeys": KEYS,
}
SETS: dict[str, dict[str, str | int]] = {
    "minimal": {},
    "everything": {
        "Canary": "true",
        "Tracing": "true",
        "AlarmEmail": "ops@example.com",
        "MonthlyBudget": 50,
        "ProvisionedConcurrency": 2,
        "SecretKeys": "k" * 40,
        "SecretsKmsKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab",
        "PermissionsBoundaryArn": "arn:aws:iam::123456789012:policy/boundary",
    },
    "vpc": {"SubnetIds": "subnet-0a1b2c3d,subnet-0a1b2c3e", "SecurityGroupIds": "sg-0a1b2c3d"},
    "canary off": {"Canary": "false", "RotateSigningKeys": "false"},
    "canary on": {"Canary": "true", "CanaryType": "Linear10PercentEvery1Minute"},
    "existing secrets": {
        "DatabaseUrl": "",
        "SigningKeys": "",
        "DatabaseSecretArn": f"{SECRET}database-AbCdEf",
        "SigningKeysSecretArn": f"{SECRET}signing-keys-AbCdEf",
        "SecretKeysSecretArn": f"{SECRET}secret-keys-AbCdEf",
    },
    "iam": {
        "DatabaseUrl": "postgresql://auth_manager_app@db.example.com/auth?sslmode=verify-full",
        "DatabaseIam": "true",
        "DatabaseResourceId": "cluster-ABCDEFGH",
    },
    "arm64": {"Architecture": "arm64"},
    "snapstart": {"SnapStart": "true"},
}
"""Beside MINIMAL."""

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


def load() -> dict[str, Any]:
    """Return the template as plain data, with `!If` as {"Fn::If": [...]}."""
    loaded: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(ROOT / "template.yaml"))))
    return loaded


TEMPLATE = load()


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in TEMPLATE["Resources"].items() if one["Type"] == kind}


ALARMS = of_type("AWS::CloudWatch::Alarm") | of_type("AWS::CloudWatch::CompositeAlarm")
FUNCTIONS = of_type("AWS::Serverless::Function")
ROLES = of_type("AWS::IAM::Role")


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
        if policy != {"Ref": "AWS::NoValue"}
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def actions(statement: dict[str, Any]) -> list[str]:
    named = statement["Action"]
    return [named] if isinstance(named, str) else named


def write_with_defaults(path: Path, parameters: dict[str, str | int]) -> Path:
    """Write the template with these parameters as defaults."""
    lines, current = [], ""
    for line in (ROOT / "template.yaml").read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"  (\w+):", line)
        if found or re.match(r"\S", line):
            current = found[1] if found else ""
        if current in parameters and line.startswith("    Default:"):
            continue
        lines.append(line)
        if current in parameters and line.startswith("    Type: "):
            lines.append(f"    Default: {json.dumps(parameters[current])}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SETS)
class TestEveryParameterSet:
    def test_the_parameters_exist_and_are_allowed(self, name: str) -> None:
        for parameter, value in (MINIMAL | SETS[name]).items():
            declared = TEMPLATE["Parameters"][parameter]
            if "AllowedPattern" in declared:
                assert re.fullmatch(declared["AllowedPattern"], str(value)), parameter
            if "AllowedValues" in declared:
                assert value in declared["AllowedValues"], parameter

    def test_cfn_lint_finds_nothing(self, name: str, tmp_path: Path) -> None:
        copy = write_with_defaults(tmp_path / "template.yaml", MINIMAL | SETS[name])
        defaults = json.loads(json.dumps(cfn_yaml.load(str(copy))))["Parameters"]
        assert all(defaults[key]["Default"] == value for key, value in (MINIMAL | SETS[name]).items())
        lint = [str(Path(sys.executable).parent / "cfn-lint"), "--", str(copy)]
        run = subprocess.run(lint, capture_output=True, text=True, timeout=240, check=False)
        assert run.stdout + run.stderr == ""
        assert run.returncode == 0

    def test_sam_finds_it_valid(self, name: str, tmp_path: Path) -> None:
        if not SAM.exists():
            pytest.skip("sam is in .venv-tools after `make templates`")
        copy = write_with_defaults(tmp_path / "template.yaml", MINIMAL | SETS[name])
        environment = os.environ | {"SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-central-1"}
        run = subprocess.run(
            [str(SAM), "validate", "--lint", "--template", str(copy)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=environment,
        )
        assert run.returncode == 0, run.stdout + run.stderr


class TestParameters:
    def test_they_are_grouped_and_described(self) -> None:
        groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [parameter for group in groups for parameter in group["Parameters"]]
        assert grouped == list(TEMPLATE["Parameters"])
        assert [name for name, one in TEMPLATE["Parameters"].items() if not one.get("Description")] == []

    def test_secret_ones_are_not_shown(self) -> None:
        hidden = {name for name, one in TEMPLATE["Parameters"].items() if one.get("NoEcho")}
        assert hidden == {"DatabaseUrl", "SigningKeys", "SecretKeys"}

    def test_exclusive_ones_have_rules(self) -> None:
        used = [json.dumps(rule) for rule in TEMPLATE["Rules"].values()]
        for pair in (
            ("SnapStart", "ProvisionedConcurrency"),
            ("SubnetIds", "SecurityGroupIds"),
            ("DatabaseIam", "DatabaseSecretArn"),
            ("DatabaseUrl", "DatabaseSecretArn"),
            ("SigningKeys", "SigningKeysSecretArn"),
            ("SecretKeys", "SecretKeysSecretArn"),
            ("MonthlyBudget", "AlarmEmail"),
        ):
            assert any(all(f'"Ref": "{name}"' in rule for name in pair) for rule in used), pair

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
        assert {json.loads(one["Input"])["action"] for one in schedules} == {"relay_outbox", "clean_up"}
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


@pytest.mark.parametrize("name", ROLES)
class TestEveryRole:
    def test_it_names_its_actions_and_resources(self, name: str) -> None:
        for statement in statements(name):
            assert "*" not in "".join(actions(statement))
            if statement["Resource"] == "*":
                assert set(actions(statement)) <= WITHOUT_RESOURCE

    def test_it_can_be_bounded(self, name: str) -> None:
        made = ROLES[name]["Properties"]
        assert made["Path"] == {"Ref": "RolePath"}
        assert made["PermissionsBoundary"]["Fn::If"][1] == {"Ref": "PermissionsBoundaryArn"}
        assert "ManagedPolicyArns" not in made
        assert "RoleName" not in made


class TestRoles:
    def test_only_api_and_maintenance_read_secrets(self) -> None:
        readers = {
            name
            for name in ROLES
            for statement in statements(name)
            if "secretsmanager:GetSecretValue" in actions(statement)
        }
        assert readers == {"ApiRole", "MaintenanceRole"}

    def test_only_maintenance_writes_one_secret(self) -> None:
        writers = {
            name: statement["Resource"]["Fn::If"][1]["Ref"]
            for name in ROLES
            for statement in statements(name)
            if "secretsmanager:PutSecretValue" in actions(statement)
        }
        assert writers == {"MaintenanceRole": "SigningKeysSecret"}

    def test_secrets_stay_when_the_stack_goes(self) -> None:
        secrets = of_type("AWS::SecretsManager::Secret")
        assert set(secrets) == {"SigningKeysSecret", "SecretKeysSecret", "DatabaseSecret"}
        for one in secrets.values():
            assert one["DeletionPolicy"] == "RetainExceptOnCreate"
            assert one["UpdateReplacePolicy"] == "Retain"


def metrics(alarm: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return namespace, name and dimensions of every metric an alarm watches."""
    made = alarm["Properties"]
    watched = [one["MetricStat"]["Metric"] for one in made.get("Metrics", []) if "MetricStat" in one]
    return [
        (
            one["Namespace"],
            one["MetricName"],
            {dimension["Name"]: dimension["Value"] for dimension in one.get("Dimensions", [])},
        )
        for one in watched or ([made] if "MetricName" in made else [])
    ]


@pytest.mark.parametrize("name", ALARMS)
class TestEveryAlarm:
    def test_it_tells_and_takes_back(self, name: str) -> None:
        made = ALARMS[name]["Properties"]
        assert made["AlarmActions"] == made["OKActions"] == [{"Ref": "AlarmTopic"}]
        assert made["AlarmDescription"]
        if ALARMS[name]["Type"] == "AWS::CloudWatch::Alarm":
            assert made["TreatMissingData"] in {"notBreaching", "breaching"}
            assert 1 <= made["DatapointsToAlarm"] <= made["EvaluationPeriods"]

    def test_it_has_a_runbook_line(self, name: str) -> None:
        runbook = (ROOT / "docs/alarms.md").read_text(encoding="utf-8")
        assert re.search(rf"^### {name}\n\n\S", runbook, re.MULTILINE)

    def test_its_metrics_of_ours_are_emitted(self, name: str) -> None:
        for namespace, metric, dimensions in metrics(ALARMS[name]):
            if not namespace.startswith("AWS/"):
                assert namespace == observability.NAMESPACE
                assert metric in observability.METRICS
                assert dimensions == {"service": observability.SERVICE}

    def test_its_metrics_of_aws_have_their_dimensions(self, name: str) -> None:
        expected = {"AWS/ApiGateway": "ApiId", "AWS/Lambda": "FunctionName", "AWS/SQS": "QueueName"}
        for namespace, metric, dimensions in metrics(ALARMS[name]):
            if namespace in expected and metric != "ConcurrentExecutions":
                assert list(dimensions) == [expected[namespace]]


class TestAlarms:
    def test_the_runbook_has_no_others(self) -> None:
        runbook = (ROOT / "docs/alarms.md").read_text(encoding="utf-8")
        assert set(re.findall(r"^### (\w+)$", runbook, re.MULTILINE)) == set(ALARMS)

    def test_the_service_is_down_when_users_cannot_log_in(self) -> None:
        rule = ALARMS["ServiceDown"]["Properties"]["AlarmRule"]["Fn::Sub"]
        named = re.findall(r'ALARM\("\$\{(\w+)\}"\)', rule)
        assert named == ["Api5xxAlarm", "ApiThrottlesAlarm", "DatabaseFailedAlarm"]
        assert set(named) <= set(ALARMS)

    def test_a_new_version_is_taken_back_by_alarms(self) -> None:
        preference = FUNCTIONS["ApiFunction"]["Properties"]["DeploymentPreference"]
        # An Fn::If would always be true.
        assert preference["Enabled"] == {"Ref": "Canary"}
        assert {one["Ref"] for one in preference["Alarms"]} <= set(ALARMS)
        assert preference["Hooks"] == {"PreTraffic": {"Ref": "PreTrafficHookFunction"}}

    def test_the_dashboard_is_json_and_shows_metrics_of_ours(self) -> None:
        body, names = TEMPLATE["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
        shown = json.loads(body)
        titles = {one["properties"]["title"] for one in shown["widgets"]}
        assert {"Requests", "Latency, ms", "Accounts and logins", "Outbox", "Recent 5xx"} <= titles
        assert set(names) == {"ColdStarts", "Recent5xx"}
        namespace = ""
        for widget in shown["widgets"]:
            for metric in widget["properties"].get("metrics", []):
                namespace = metric[0] if metric[0].strip(".") else namespace
                if namespace == observability.NAMESPACE and metric[1] != "...":
                    assert metric[1] in observability.METRICS

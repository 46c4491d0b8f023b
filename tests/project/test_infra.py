"""The CloudFormation templates: linted for their regions, held to our own rules and to AWS's lists.

What AWS would do with them cannot be seen from here; what it would refuse, and what we would regret, can.
"""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]  # no py.typed
from cfnlint.schema.manager import (  # type: ignore[import-untyped]  # no py.typed
    PROVIDER_SCHEMA_MANAGER,
)

ROOT = Path(__file__).parents[2]
INFRA = ["infra/bootstrap.yaml", "infra/data.yaml", "infra/edge.yaml"]
TEMPLATES = [*INFRA, "template.yaml"]
REGIONS = {
    "infra/bootstrap.yaml": ["eu-central-1", "us-east-1"],
    "infra/data.yaml": ["ap-southeast-2", "eu-central-1", "eu-west-1", "us-east-1"],
    "infra/edge.yaml": ["us-east-1"],
}
MANAGED_POLICY_CHARACTERS = 6144
"""IAM's quota, white space not counted."""


def load(name: str) -> dict[str, Any]:
    """Return a template as plain data, with `!If` as {"Fn::If": [...]}."""
    loaded: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(ROOT / name))))
    return loaded


def choose(value: Any, *, conditions: bool) -> Any:
    """Return a template with every Fn::If decided, and what is AWS::NoValue then gone."""
    nothing = {"Ref": "AWS::NoValue"}
    if isinstance(value, dict):
        if set(value) == {"Fn::If"}:
            return choose(value["Fn::If"][1 if conditions else 2], conditions=conditions)
        chosen = {key: choose(item, conditions=conditions) for key, item in value.items()}
        return {key: item for key, item in chosen.items() if item != nothing}
    if isinstance(value, list):
        return [item for item in (choose(item, conditions=conditions) for item in value) if item != nothing]
    return value


def of_type(template: dict[str, Any], *types: str) -> dict[str, dict[str, Any]]:
    """Return the resources of these types by logical id."""
    return {name: one for name, one in template["Resources"].items() if one["Type"] in types}


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a structure."""
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", INFRA)
def test_cfn_lint_finds_nothing(name: str) -> None:
    """In a process of its own: as `make templates` runs it, with informational findings too."""
    lint = str(Path(sys.executable).parent / "cfn-lint")
    command = [lint, "--include-checks", "I", "--regions", *REGIONS[name], "--", name]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert run.stdout + run.stderr == ""
    assert run.returncode == 0


BREAK: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "functions_have_their_own_role_and_log_group": (
        "template.yaml",
        lambda made: made["ApiFunction"]["Properties"].pop("Role"),
    ),
    "logs_expire": (
        "infra/data.yaml",
        lambda made: made["DatabaseLogs"]["Properties"].pop("RetentionInDays"),
    ),
    "alarms_tell_and_take_back": (
        "infra/data.yaml",
        lambda made: made["CpuAlarm"]["Properties"].pop("OKActions"),
    ),
    "data_outlives_mistakes": (
        "infra/data.yaml",
        lambda made: made["Cluster"].pop("UpdateReplacePolicy"),
    ),
    "buckets_are_private": (
        "infra/bootstrap.yaml",
        lambda made: made["Artefacts"]["Properties"].pop("PublicAccessBlockConfiguration"),
    ),
    "clusters_are_encrypted_and_backed_up": (
        "infra/data.yaml",
        lambda made: made["Cluster"]["Properties"].update(StorageEncrypted=False),
    ),
    "instances_are_private": (
        "infra/data.yaml",
        lambda made: made["Reader"]["Properties"].update(PubliclyAccessible=True),
    ),
    "instances_are_encrypted_and_backed_up": (
        "infra/data.yaml",
        lambda made: made["Instance"]["Properties"].update(MasterUserPassword="secret"),
    ),
    "databases_force_tls_and_log_no_data": (
        "infra/data.yaml",
        lambda made: made["ClusterParameters"]["Properties"]["Parameters"].pop("rds.force_ssl"),
    ),
    "proxies_hold_no_secret": (
        "infra/data.yaml",
        lambda made: made["DatabaseProxy"]["Properties"].update(Auth=[{"SecretArn": "arn"}]),
    ),
    "inline_policies_name_their_actions": (
        "infra/data.yaml",
        lambda made: made["ProxyRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][0].update(
            Resource="*"
        ),
    ),
    "managed_policies_name_their_actions": (
        "infra/bootstrap.yaml",
        lambda made: made["DeployPolicy"]["Properties"]["PolicyDocument"]["Statement"][0].update(
            Action=["cloudformation:*"]
        ),
    ),
    "only_services_and_exact_tokens_assume_roles": (
        "infra/bootstrap.yaml",
        lambda made: made["GitHubDeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][
            0
        ].update(Condition={"StringLike": {"token.actions.githubusercontent.com:sub": "repo:owner/*"}}),
    ),
    "nothing_comes_in_from_everywhere": (
        "infra/data.yaml",
        lambda made: made["DatabaseSecurityGroup"]["Properties"].update(
            SecurityGroupIngress=[{"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}]
        ),
    ),
}
"""A change that breaks a rule, and the template it breaks it in."""


class TestGuard:
    """infra/guard: a rule that catches nothing proves nothing, so each meets a template that breaks it."""

    def broken_rules(self, template: dict[str, Any]) -> set[str]:
        guard = pytest.importorskip("cfn_guard_rs", reason="cfn-guard-rs has no wheel for Python 3.13")
        rules = (ROOT / "infra/guard/auth_manager.guard").read_text()
        return {
            clause.Rule.name
            for conditions in (True, False)
            for clause in guard.run_checks(choose(template, conditions=conditions), rules).not_compliant
        }

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_templates_hold(self, name: str) -> None:
        assert self.broken_rules(load(name)) == set()

    @pytest.mark.parametrize("rule", BREAK)
    def test_a_broken_template_is_caught(self, rule: str) -> None:
        name, break_one = BREAK[rule]
        template = load(name)
        break_one(template["Resources"])
        assert self.broken_rules(template) == {rule}

    def test_every_rule_has_a_broken_template(self) -> None:
        rules = (ROOT / "infra/guard/auth_manager.guard").read_text()
        assert set(re.findall(r"^rule (\w+)", rules, re.MULTILINE)) == set(BREAK)


@pytest.mark.parametrize("name", INFRA)
class TestEveryTemplate:
    def test_parameters_are_grouped_and_described(self, name: str) -> None:
        template = load(name)
        groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [parameter for group in groups for parameter in group["Parameters"]]
        assert grouped == list(template["Parameters"])
        assert [name for name, one in template["Parameters"].items() if not one.get("Description")] == []

    def test_free_text_is_limited(self, name: str) -> None:
        """A parameter that is a string takes either listed values or a pattern, but for a snapshot's name."""
        free = [
            parameter
            for parameter, one in load(name)["Parameters"].items()
            if one["Type"] == "String" and not {"AllowedValues", "AllowedPattern"} & set(one)
        ]
        assert set(free) <= {"SnapshotIdentifier"}

    def test_outputs_are_exported_under_the_name_of_the_stack(self, name: str) -> None:
        for output, one in load(name)["Outputs"].items():
            assert one["Description"]
            assert one["Export"]["Name"] == {"Fn::Sub": f"${{AWS::StackName}}-{output}"}

    def test_nothing_is_nested(self, name: str) -> None:
        assert of_type(load(name), "AWS::CloudFormation::Stack", "AWS::Serverless::Application") == {}

    def test_skips_have_reasons(self, name: str) -> None:
        for one in load(name)["Resources"].values():
            for skip in one.get("Metadata", {}).get("checkov", {}).get("skip", []):
                assert len(skip["comment"]) > 20

    def test_no_secret_is_written_down(self, name: str) -> None:
        assert not [text for text in strings(load(name)) if re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN", text)]


SERVERLESS = {
    "AWS::Serverless::Function": ["AWS::Lambda::Function", "AWS::Lambda::Permission"],
    "AWS::Serverless::HttpApi": ["AWS::ApiGatewayV2::Api", "AWS::ApiGatewayV2::Stage"],
}
NOT_OURS = {
    "apigateway:tagresource",  # for an HTTP API the action is POST on /tags
    "elasticfilesystem:describemounttargets",  # no file system
    "firehose:tagdeliverystream",
    "kms:creategrant",  # variables stay under Lambda's own key
    "kms:encrypt",
    "lambda:associateruntimealias",  # images bring their runtime
    "lambda:getcodesigningconfig",  # images cannot be signed this way
    "lambda:getlayerversion",  # images have no layers
    "lambda:passcapacityprovider",
    "logs:putbearertokenauthentication",
    "logs:putdataprotectionpolicy",
    "logs:putindexpolicy",
    "logs:putloggroupdeletionprotection",
    "billing:getbillingviewdata",  # a budget over its own account's costs
    "s3:getobjectversion",
    "s3:rest.put.object",
    "s3files:listmounttargets",
    "secretsmanager:replicatesecrettoregions",  # one region
    "sns:putdataprotectionpolicy",  # no data protection policy
}
"""What the resource providers name for features that the app does not use."""


class TestBootstrap:
    template = load("infra/bootstrap.yaml")
    resources = template["Resources"]

    def statements(self, policy: str) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = self.resources[policy]["Properties"]["PolicyDocument"]["Statement"]
        return made

    def actions(self, *policies: str) -> set[str]:
        return {
            action.lower()
            for policy in policies
            for statement in self.statements(policy)
            for action in (
                [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            )
        }

    @pytest.mark.parametrize(
        ("role", "issuer", "subject"),
        [
            (
                "GitHubDeployRole",
                "token.actions.githubusercontent.com",
                "repo:${GitHubRepository}:environment:${GitHubEnvironment}",
            ),
            (
                "GitLabDeployRole",
                "gitlab.com",
                "project_path:${GitLabProject}:ref_type:branch:ref:${GitLabBranch}",
            ),
        ],
    )
    def test_only_one_exact_subject_may_deploy(self, role: str, issuer: str, subject: str) -> None:
        [statement] = self.resources[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert set(statement["Condition"]) == {"StringEquals"}
        assert statement["Condition"]["StringEquals"][f"{issuer}:sub"] == {"Fn::Sub": subject}
        assert set(statement["Condition"]["StringEquals"]) == {f"{issuer}:sub", f"{issuer}:aud"}

    @pytest.mark.parametrize(
        "parameter", ["GitHubRepository", "GitHubEnvironment", "GitLabProject", "GitLabBranch"]
    )
    @pytest.mark.parametrize("value", ["owner/*", "own?r/name", "owner/name:ref:refs/heads/main", "a/${b}"])
    def test_a_subject_takes_neither_wildcards_nor_further_claims(self, parameter: str, value: str) -> None:
        assert re.fullmatch(self.template["Parameters"][parameter]["AllowedPattern"], value) is None

    @pytest.mark.parametrize("value", ["owner/name", "owner@12/name@345", "o-w/na.me_"])
    def test_github_repositories_may_carry_immutable_ids(self, value: str) -> None:
        assert re.fullmatch(self.template["Parameters"]["GitHubRepository"]["AllowedPattern"], value)

    def test_images_are_immutable_scanned_and_kept_ten(self) -> None:
        repository = self.resources["Repository"]
        assert repository["DeletionPolicy"] == "RetainExceptOnCreate"
        assert repository["UpdateReplacePolicy"] == "Retain"
        assert repository["Properties"]["ImageTagMutability"] == "IMMUTABLE"
        assert repository["Properties"]["ImageScanningConfiguration"] == {"ScanOnPush": True}
        [rule] = json.loads(repository["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
        assert rule["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10}
        [pull] = repository["Properties"]["RepositoryPolicyText"]["Statement"]
        assert pull["Action"] == ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        assert pull["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}

    def test_artefacts_travel_by_tls_only(self) -> None:
        refusals = self.resources["ArtefactsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        assert [one["Effect"] for one in refusals] == ["Deny", "Deny"]
        assert refusals[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert refusals[1]["Condition"] == {"NumericLessThan": {"s3:TlsVersion": "1.2"}}

    def test_ci_changes_stacks_as_the_execution_role_only(self) -> None:
        """CI itself may make nothing but change sets, images and artefacts; nothing of another stack."""
        services = {action.split(":")[0] for action in self.actions("DeployPolicy")}
        assert services == {"cloudformation", "ecr", "iam", "lambda", "s3"}
        by_sid = {one["Sid"]: one for one in self.statements("DeployPolicy")}
        assert by_sid["ChangeStacksAsExecutionRole"]["Condition"] == {
            "StringEquals": {"cloudformation:RoleArn": {"Fn::GetAtt": ["ExecutionRole", "Arn"]}}
        }
        assert by_sid["PassExecutionRole"]["Resource"] == {"Fn::GetAtt": ["ExecutionRole", "Arn"]}
        assert {one for one in self.actions("DeployPolicy") if one.startswith("iam:")} == {"iam:passrole"}

    def test_the_execution_role_cannot_reach_data_or_its_own_limits(self) -> None:
        services = {action.split(":")[0] for action in self.actions("ComputePolicy", "StatePolicy")}
        assert not services & {"rds", "cloudformation", "cloudfront", "wafv2", "sts", "organizations"}
        assert not self.actions("ComputePolicy", "StatePolicy") & {
            "iam:createpolicyversion",
            "iam:deleterolepermissionsboundary",
            "iam:createuser",
            "ecr:setrepositorypolicy",
        }

    def test_every_role_an_app_makes_is_bounded_and_passed_to_named_services(self) -> None:
        by_sid = {one["Sid"]: one for one in self.statements("ComputePolicy")}
        bounded = by_sid["MakeBoundedRoles"]
        assert bounded["Condition"] == {"StringEquals": {"iam:PermissionsBoundary": {"Ref": "Boundary"}}}
        assert {"iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"} <= set(bounded["Action"])
        for sid in ("MakeBoundedRoles", "KeepRoles", "PassRoles"):
            assert by_sid[sid]["Resource"]["Fn::Sub"].endswith(":role/${StackPrefix}/${StackPrefix}-*")
        assert set(by_sid["PassRoles"]["Condition"]["StringEquals"]["iam:PassedToService"]) == {
            "codedeploy.amazonaws.com",
            "lambda.amazonaws.com",
            "scheduler.amazonaws.com",
        }
        roles = ("MakeBoundedRoles", "KeepRoles", "PassRoles")
        elsewhere = [
            action for sid, one in by_sid.items() if sid not in roles for action in strings(one["Action"])
        ]
        assert not [action for action in elsewhere if action.startswith("iam:")]

    @pytest.mark.parametrize("policy", ["DeployPolicy", "ComputePolicy", "StatePolicy", "Boundary"])
    def test_policies_fit(self, policy: str) -> None:
        """With the longest prefix, account, region and partition in place of what Sub fills in."""
        document = copy.deepcopy(self.resources[policy]["Properties"]["PolicyDocument"])
        lengths = {"Partition": 10, "Region": 14, "AccountId": 12, "StackPrefix": 20, "URLSuffix": 16}
        text = re.sub(
            r"\$\{(?:AWS::)?(\w+)(\.\w+)?\}",
            lambda found: "x" * lengths.get(found[1], 80),
            json.dumps(document, separators=(",", ":")),
        )
        text = re.sub(r'\{"Fn::Sub":("[^"]*")\}', r"\1", text)
        text = re.sub(r'\{"(?:Ref|Fn::GetAtt)":[^}]*\}', '"' + "x" * 80 + '"', text)
        assert len(text) < MANAGED_POLICY_CHARACTERS

    def test_the_execution_role_can_make_every_resource_of_the_app(self) -> None:
        allowed = self.actions("ComputePolicy", "StatePolicy")
        types = {one["Type"] for one in load("template.yaml")["Resources"].values()}
        made = {real for one in types for real in SERVERLESS.get(one, [one])}
        missing: dict[str, set[str]] = {}
        for one in made:
            handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", one).schema.get(
                "handlers", {}
            )
            needed = {action.lower() for action in handlers.get("create", {}).get("permissions", [])}
            if one.startswith("AWS::S3::"):
                needed = {"s3:createbucket"}  # its list is every feature of S3
            if needed - allowed - NOT_OURS:
                missing[one] = needed - allowed - NOT_OURS
        assert missing == {}


class TestData:
    template = load("infra/data.yaml")
    resources = template["Resources"]

    def test_databases_end_in_a_snapshot_and_start_protected(self) -> None:
        for name in ("Cluster", "Instance"):
            database = self.resources[name]
            assert database["DeletionPolicy"] == database["UpdateReplacePolicy"] == "Snapshot"
            assert database["Properties"]["DeletionProtection"] == {"Ref": "DeletionProtection"}
            assert database["Properties"]["BackupRetentionPeriod"] == {"Ref": "BackupRetentionDays"}
        assert self.template["Parameters"]["DeletionProtection"]["Default"] == "true"
        assert self.template["Parameters"]["BackupRetentionDays"]["MinValue"] == 7

    def test_a_replacement_is_refused_by_the_given_name(self) -> None:
        assert self.resources["Cluster"]["Properties"]["DBClusterIdentifier"] == {"Ref": "Identifier"}
        assert self.resources["Instance"]["Properties"]["DBInstanceIdentifier"] == {"Ref": "Identifier"}

    def test_nothing_reaches_the_internet_by_default(self) -> None:
        assert self.template["Parameters"]["NatGateway"]["Default"] == "false"
        outward = of_type(
            self.template,
            "AWS::EC2::InternetGateway",
            "AWS::EC2::NatGateway",
            "AWS::EC2::Route",
            "AWS::EC2::VPCGatewayAttachment",
        )
        assert {one["Condition"] for one in outward.values()} == {"WithNat"}
        for subnet in of_type(self.template, "AWS::EC2::Subnet").values():
            assert "MapPublicIpOnLaunch" not in subnet["Properties"]

    def test_only_app_and_proxy_reach_the_database(self) -> None:
        ways_in = {
            name: one["Properties"]["SourceSecurityGroupId"]["Ref"]
            for name, one in of_type(self.template, "AWS::EC2::SecurityGroupIngress").items()
        }
        assert ways_in == {"DatabaseFromApp": "AppSecurityGroup", "DatabaseFromProxy": "ProxySecurityGroup"}
        assert "SecurityGroupIngress" not in self.resources["DatabaseSecurityGroup"]["Properties"]

    def test_the_alarm_topic_can_be_published_to(self) -> None:
        """An encrypted topic whose key CloudWatch cannot use drops every alarm."""
        assert self.resources["AlarmTopic"]["Properties"]["KmsMasterKeyId"] == {"Ref": "Key"}
        [allowed] = [
            one
            for one in self.resources["Key"]["Properties"]["KeyPolicy"]["Statement"]
            if one["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        ]
        assert set(allowed["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey*"}

    def test_every_database_is_watched(self) -> None:
        watched: dict[str, set[str]] = {"Aurora": set(), "Rds": set(), "both": set(), "AuroraReader": set()}
        for alarm in of_type(self.template, "AWS::CloudWatch::Alarm").values():
            watched.setdefault(alarm.get("Condition", "both"), set()).add(alarm["Properties"]["MetricName"])
        assert {"CPUUtilization", "DatabaseConnections", "Deadlocks"} <= watched["both"]
        assert {"ACUUtilization", "FreeLocalStorage", "VolumeBytesUsed"} <= watched["Aurora"]
        assert {"FreeableMemory", "FreeStorageSpace"} <= watched["Rds"]
        assert watched["AuroraReader"] == {"AuroraReplicaLag"}


class TestEdge:
    template = load("infra/edge.yaml")
    resources = template["Resources"]
    CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"

    def distribution(self) -> dict[str, Any]:
        made: dict[str, Any] = self.resources["Distribution"]["Properties"]["DistributionConfig"]
        return made

    def test_only_discovery_is_cached_and_only_as_it_says(self) -> None:
        assert self.distribution()["DefaultCacheBehavior"]["CachePolicyId"] == self.CACHING_DISABLED
        [cached] = self.distribution()["CacheBehaviors"]
        assert cached["PathPattern"] == "/.well-known/*"
        assert cached["CachePolicyId"] == {"Ref": "ByOriginHeaders"}
        policy = self.resources["ByOriginHeaders"]["Properties"]["CachePolicyConfig"]
        assert (policy["MinTTL"], policy["DefaultTTL"]) == (0, 0)

    def test_host_is_not_forwarded(self) -> None:
        """An HTTP API answers 403 to a Host that is not its own."""
        behaviours = [self.distribution()["DefaultCacheBehavior"], *self.distribution()["CacheBehaviors"]]
        assert {one["OriginRequestPolicyId"] for one in behaviours} == {
            "b689b0a8-53d0-40ab-baf2-68738e2966ac"
        }
        assert {one["ViewerProtocolPolicy"] for one in behaviours} == {"https-only"}

    def test_the_origin_secret_is_resolved_and_not_written(self) -> None:
        [origin] = self.distribution()["Origins"]
        [header] = origin["OriginCustomHeaders"]
        assert header["HeaderName"] == "X-Origin-Secret"
        for branch in header["HeaderValue"]["Fn::If"][1:]:
            assert branch["Fn::Sub"].startswith("{{resolve:secretsmanager:${OriginSecret}:SecretString:value")

    def test_the_firewall_has_rates_before_managed_rules(self) -> None:
        rules = self.resources["Firewall"]["Properties"]["Rules"]
        assert [one["Priority"] for one in rules] == list(range(len(rules)))
        groups = [one["Statement"].get("ManagedRuleGroupStatement", {}).get("Name", "rate") for one in rules]
        assert groups == [
            "rate",
            "rate",
            "AWSManagedRulesAmazonIpReputationList",
            "AWSManagedRulesKnownBadInputsRuleSet",
            "AWSManagedRulesCommonRuleSet",
        ]
        assert {one["VisibilityConfig"]["SampledRequestsEnabled"] for one in rules} == {False}

    def test_logs_leave_out_what_may_hold_codes(self) -> None:
        fields = self.resources["AccessLogDelivery"]["Properties"]["RecordFields"]
        assert not {"cs-uri-query", "cs(Cookie)", "cs(Referer)"} & set(fields)
        redacted = self.resources["FirewallLogging"]["Properties"]["RedactedFields"]
        assert {"SingleHeader": {"Name": "authorization"}} in redacted
        assert {"QueryString": {}} in redacted

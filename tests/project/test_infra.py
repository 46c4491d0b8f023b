"""infra/*.yaml: the promises they make. tests/templates proves them for every set of parameters."""

import copy
import json
import re
from typing import Any

import pytest
from tests.templates.parameter_sets import BOOTSTRAP, DATA, EDGE
from tests.templates.resolved import load, of_type, strings

INFRA = [BOOTSTRAP, DATA, EDGE]
MANAGED_POLICY_CHARACTERS = 6144
"""IAM's quota, white space not counted."""


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


class TestBootstrap:
    template = load(BOOTSTRAP)
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


class TestData:
    template = load(DATA)
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
    template = load(EDGE)
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

    def test_the_viewers_address_is_forwarded_and_host_is_not(self) -> None:
        """An HTTP API answers 403 to a Host that is not its own.

        AllViewerExceptHostHeader is the one policy that leaves Host out and sends CloudFront-Viewer-Address
        as well, in place of one that the viewer made up (CloudFront's developer guide, "Use managed origin
        request policies" and "Restrictions on edge functions").
        """
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

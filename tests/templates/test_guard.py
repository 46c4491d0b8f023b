"""infra/guard holds for every set of parameters; each rule is broken once, to see that it catches."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.templates.parameter_sets import APP, BOOTSTRAP, DATA, EVERY_SET, deployed
from tests.templates.resolved import ROOT, Template

pytestmark = pytest.mark.templates

RULES = (ROOT / "infra/guard/auth_manager.guard").read_text(encoding="utf-8")


def broken_rules(template: Template) -> set[str]:
    # Here: there is no wheel for Python 3.13, where these tests are collected and not run.
    from cfn_guard_rs.api import run_checks

    clauses = run_checks(template, RULES).not_compliant
    return {clause.Rule.name for clause in clauses if clause.Rule is not None}


def first_statement(resource: dict[str, Any]) -> dict[str, Any]:
    """Return the first statement of a role's first policy."""
    statement: dict[str, Any] = resource["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][0]
    return statement


BREAK: dict[str, tuple[str, str, Callable[[dict[str, Any]], Any]]] = {
    "functions_have_their_own_role_and_log_group": (
        APP,
        "minimal",
        lambda made: made["ApiFunction"]["Properties"].pop("Role"),
    ),
    "logs_expire": (
        DATA,
        "aurora with everything",
        lambda made: made["DatabaseLogs"]["Properties"].pop("RetentionInDays"),
    ),
    "alarms_tell_and_take_back": (
        DATA,
        "aurora with everything",
        lambda made: made["CpuAlarm"]["Properties"].pop("OKActions"),
    ),
    "data_outlives_mistakes": (
        DATA,
        "aurora with everything",
        lambda made: made["Cluster"].pop("UpdateReplacePolicy"),
    ),
    "buckets_are_private": (
        BOOTSTRAP,
        "github",
        lambda made: made["Artefacts"]["Properties"].pop("PublicAccessBlockConfiguration"),
    ),
    "clusters_are_encrypted_and_backed_up": (
        DATA,
        "aurora with everything",
        lambda made: made["Cluster"]["Properties"].update(StorageEncrypted=False),
    ),
    "instances_are_private": (
        DATA,
        "aurora with everything",
        lambda made: made["Reader"]["Properties"].update(PubliclyAccessible=True),
    ),
    "instances_are_encrypted_and_backed_up": (
        DATA,
        "rds",
        lambda made: made["Instance"]["Properties"].update(MasterUserPassword="secret"),
    ),
    "databases_force_tls_and_log_no_data": (
        DATA,
        "aurora with everything",
        lambda made: made["ClusterParameters"]["Properties"]["Parameters"].pop("rds.force_ssl"),
    ),
    "proxies_hold_no_secret": (
        DATA,
        "aurora with everything",
        lambda made: made["DatabaseProxy"]["Properties"].update(Auth=[{"SecretArn": "arn"}]),
    ),
    "inline_policies_name_their_actions": (
        DATA,
        "aurora with everything",
        lambda made: first_statement(made["ProxyRole"]).update(Resource="*"),
    ),
    "managed_policies_name_their_actions": (
        BOOTSTRAP,
        "github",
        lambda made: made["DeployPolicy"]["Properties"]["PolicyDocument"]["Statement"][0].update(
            Action=["cloudformation:*"]
        ),
    ),
    "only_services_and_exact_tokens_assume_roles": (
        BOOTSTRAP,
        "github",
        lambda made: made["GitHubDeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][
            0
        ].update(Condition={"StringLike": {"token.actions.githubusercontent.com:sub": "repo:owner/*"}}),
    ),
    "nothing_comes_in_from_everywhere": (
        DATA,
        "aurora with everything",
        lambda made: made["DatabaseSecurityGroup"]["Properties"].update(
            SecurityGroupIngress=[{"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}]
        ),
    ),
}
"""A change that breaks a rule, and the set of the template it breaks it in."""


@pytest.mark.parametrize(("template", "name"), EVERY_SET)
def test_every_set_holds(template: str, name: str) -> None:
    assert broken_rules(deployed(template, name)) == set()


@pytest.mark.parametrize("rule", BREAK)
def test_a_broken_template_is_caught(rule: str) -> None:
    template, name, break_one = BREAK[rule]
    broken = copy.deepcopy(deployed(template, name))
    break_one(broken["Resources"])
    assert broken_rules(broken) == {rule}


def test_every_rule_has_a_broken_template() -> None:
    assert set(re.findall(r"^rule (\w+)", RULES, re.MULTILINE)) == set(BREAK)

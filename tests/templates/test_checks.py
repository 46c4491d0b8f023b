"""Every template passes every linter for every set of parameters: `make templates`.

Each linter sees what it understands: sam and cfn-lint the files with a set as defaults; checkov and
parliament what CloudFormation is given, where no Fn::If hides a branch.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from tests.templates.iam import policies
from tests.templates.parameter_sets import (
    APP,
    BOOTSTRAP,
    DATA,
    EDGE,
    EVERY_SET,
    REGIONS,
    SETS,
    STACKS,
    deployed,
    parameters,
)
from tests.templates.resolved import ROOT, load, of_type, write_with_defaults

pytestmark = pytest.mark.templates

SAM = ROOT / ".venv-tools/bin/sam"
CFN_LINT = Path(sys.executable).parent / "cfn-lint"
CHECKOV = ROOT / ".venv-checkov/bin/checkov"
PARLIAMENT = ROOT / ".venv-checkov/bin/parliament"

LINTED: Final = {
    APP: ["--regions", "eu-central-1", "us-east-1"],
    BOOTSTRAP: ["--include-checks", "I", "--regions", "eu-central-1", "us-east-1"],
    DATA: ["--include-checks", "I", "--regions", "ap-southeast-2", "eu-central-1", "eu-west-1", "us-east-1"],
    EDGE: ["--include-checks", "I", "--regions", "us-east-1"],
}
"""Where each may be deployed; informational findings too, but for the application's."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a linter.

    Raises:
        FileNotFoundError: it is not installed; `make templates` does that.
    """
    environment = os.environ | {
        "AWS_DEFAULT_REGION": "eu-central-1",
        "PYTHONWARNINGS": "ignore",  # checkov's and parliament's own
        "SAM_CLI_TELEMETRY": "0",
    }
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=280, check=False, env=environment
    )


def file_name(template: str, name: str) -> str:
    return f"{Path(template).stem}-{name.replace(' ', '-')}"


@pytest.mark.parametrize("name", SETS[APP])
def test_sam_finds_it_valid(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "template.yaml"
    write_with_defaults(APP, parameters(APP, name), copy)
    ended = run(SAM, "validate", "--lint", "--template", copy)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(("template", "name"), EVERY_SET)
def test_cfn_lint_finds_nothing(template: str, name: str, tmp_path: Path) -> None:
    copy, given = tmp_path / "template.yaml", parameters(template, name)
    write_with_defaults(template, given, copy)
    defaults = load(str(copy))["Parameters"]
    assert all(defaults[parameter]["Default"] == value for parameter, value in given.items())
    ended = run(CFN_LINT, *LINTED[template], "--", copy)
    assert ended.stdout + ended.stderr == ""
    assert ended.returncode == 0


@pytest.fixture(scope="module")
def found_by_checkov(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What checkov says of every set, by outcome; all in one run, because it takes seconds to start."""
    folder = tmp_path_factory.mktemp("checkov")
    for template, name in EVERY_SET:
        made = deployed(template, name)
        (folder / f"{file_name(template, name)}.json").write_text(
            json.dumps(made, indent=1), encoding="utf-8"
        )
    ended = run(CHECKOV, "-d", folder, "--framework", "cloudformation", "--skip-download", "--output", "json")
    assert ended.stdout, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["summary"]["parsing_errors"] == 0
    read = {Path(one["file_path"]).stem for outcome in answer["results"].values() for one in outcome}
    assert read == {file_name(template, name) for template, name in EVERY_SET}
    results: dict[str, list[dict[str, Any]]] = answer["results"]
    return results


class TestCheckov:
    def test_it_finds_nothing(self, found_by_checkov: dict[str, list[dict[str, Any]]]) -> None:
        failed = found_by_checkov["failed_checks"]
        assert [(one["check_id"], one["resource"], one["file_path"]) for one in failed] == []

    def test_every_skip_is_of_use(self, found_by_checkov: dict[str, list[dict[str, Any]]]) -> None:
        skipped = found_by_checkov["skipped_checks"]
        used = {(one["resource"].rpartition(".")[2], one["check_id"]) for one in skipped}
        written = {
            (resource, skip["id"])
            for template in SETS
            for resource, one in load(template)["Resources"].items()
            for skip in one.get("Metadata", {}).get("checkov", {}).get("skip", [])
        }
        assert written - used == set()


NO_NARROWER = {
    "cloudwatch:DescribeAlarms",
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:UnassignPrivateIpAddresses",
    "lambda:DeleteEventSourceMapping",
    "lambda:GetEventSourceMapping",
    "lambda:UpdateEventSourceMapping",
}
"""Named by id or by a list, before there is one; in the Guard rules with the others that have no resource."""

ACCEPTED: Final = {
    # Younger than parliament's list; the resource provider of AWS::Lambda::Function asks for them.
    ("ComputePolicy", "UNKNOWN_ACTION", "Unknown action lambda:GetFunctionScalingConfig"),
    ("ComputePolicy", "UNKNOWN_ACTION", "Unknown action lambda:PutFunctionScalingConfig"),
    # The transform's ARN has `aws` for its account.
    ("DeployPolicy", "INVALID_ARN", "Account expected to be of form like 123456789012"),
    # An exact ARN, as AWS's examples for permissions boundaries compare it: ArnEquals takes wildcards.
    *(
        (
            policy,
            "MISMATCHED_TYPE_BUT_USABLE",
            "Type mismatch: StringEquals requires a value of type String but given Arn",
        )
        for policy in ("ComputePolicy", "DeployPolicy")
    ),
    # On a deployment group, as the documentation of AWS SAM writes it for its hooks.
    *(
        (
            policy,
            "RESOURCE_MISMATCH",
            "[{'action': 'codedeploy:PutLifecycleEventHookExecutionStatus', 'required_format': '*'}]",
        )
        for policy in ("Boundary", "PreTrafficHookRole")
    ),
}
"""What parliament finds and we know better: the resource, its issue and detail."""


class TestParliament:
    """Identity policies: it knows no others. Trust and resource policies are cfn-lint's and Guard's."""

    def test_it_finds_nothing_new(self, tmp_path: Path) -> None:
        documents = {
            json.dumps(document): f"{name}-{inline}"
            for template, parameter_set in EVERY_SET
            for name in of_type(
                deployed(template, parameter_set), "AWS::IAM::Role", "AWS::IAM::ManagedPolicy"
            )
            for inline, document in policies(
                deployed(template, parameter_set), name, stack=STACKS[template], region=REGIONS[template]
            )
        }
        for number, (document, name) in enumerate(documents.items()):
            (tmp_path / f"{name}-{number}.json").write_text(document, encoding="utf-8")

        ended = run(PARLIAMENT, "--directory", tmp_path, "--json")

        found = [json.loads(line) for line in ended.stdout.splitlines()]
        told = {
            (Path(one["location"]["filepath"]).name.partition("-")[0], one["issue"], str(one["detail"]))
            for one in found
            if one["issue"] != "RESOURCE_STAR" or not set(one["detail"]) <= NO_NARROWER
        }
        assert told == ACCEPTED, ended.stderr

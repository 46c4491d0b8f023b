"""Templates as CloudFormation sees them: parameters filled in, conditions decided, references given ARNs.

Reads the files themselves; what the SAM transform makes of template.yaml is tests/templates/translate.py's.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]  # no py.typed

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
REGION = "eu-central-1"
NOTHING = {"Ref": "AWS::NoValue"}

Template = dict[str, Any]
Parameters = Mapping[str, str | int]


@functools.cache
def load(name: str) -> Template:
    """Return a template as plain data, with `!If` as {"Fn::If": [...]}; `name` is its path from the root.

    Read once: whoever changes it changes a copy.
    """
    loaded: Template = json.loads(json.dumps(cfn_yaml.load(str(ROOT / name))))
    return loaded


def of_type(template: Template, *types: str) -> dict[str, dict[str, Any]]:
    """Return the resources of these types by logical id."""
    return {name: one for name, one in template["Resources"].items() if one["Type"] in types}


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a structure, keys left out."""
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def write_with_defaults(name: str, parameters: Parameters, path: Path) -> None:
    """Write a template with these parameters as defaults, for programs that read parameters by those."""
    lines, current = [], ""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"  (\w+):", line)
        if found or re.match(r"\S", line):
            current = found[1] if found else ""
        if current in parameters and line.startswith("    Default:"):
            continue
        lines.append(line)
        if current in parameters and line.startswith("    Type: "):
            lines.append(f"    Default: {json.dumps(parameters[current])}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Resolver:
    """Decides one template for one set of parameters."""

    def __init__(self, template: Template, parameters: Parameters, *, stack: str, region: str) -> None:
        declared = template["Parameters"]
        self.template = template
        self.values: dict[str, Any] = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::StackId": f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{stack}/0a1b2c3d",
            "AWS::StackName": stack,
            "AWS::URLSuffix": "amazonaws.com",
            **{name: one["Default"] for name, one in declared.items() if "Default" in one},
            **parameters,
        }
        assert set(declared) <= set(self.values), "a parameter without a default has no value"

    def holds(self, condition: Any) -> bool:
        """Decide a condition, by name or written out."""
        if isinstance(condition, str):
            return self.holds(self.template["Conditions"][condition])
        [(function, operands)] = condition.items()
        if function == "Condition":
            return self.holds(operands)
        if function == "Fn::Equals":
            left, right = (str(self.resolve(one)) for one in operands)
            return left == right
        decided = [self.holds(one) for one in operands]
        return {"Fn::And": all(decided), "Fn::Or": any(decided), "Fn::Not": not decided[0]}[function]

    def broken_rules(self) -> list[str]:
        """Return what the template's Rules say against the parameters."""
        return [
            assertion["AssertDescription"]
            for rule in self.template.get("Rules", {}).values()
            if "RuleCondition" not in rule or self.holds(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self.holds(assertion["Assert"])
        ]

    def resolve(self, value: Any) -> Any:
        """Fill in all that is known before anything is made; references to resources stay."""
        if isinstance(value, list):
            return [one for one in map(self.resolve, value) if one != NOTHING]
        if not isinstance(value, dict):
            return value
        match value:
            case {"Fn::If": [condition, chosen, otherwise]}:
                resolved = self.resolve(chosen if self.holds(condition) else otherwise)
            case {"Ref": name}:
                resolved = self.values.get(name, value)
            case {"Fn::Sub": operand}:
                resolved = self._substitute(operand)
            case {"Fn::FindInMap": operand}:
                name, first, second = self.resolve(operand)
                resolved = self.template["Mappings"][name][first][second]
            case {"Fn::Join": _} | {"Fn::Select": _} | {"Fn::Split": _}:
                [(function, operand)] = value.items()
                resolved = self._combine(function, *self.resolve(operand))
            case _:
                items = {key: self.resolve(item) for key, item in value.items()}
                resolved = {key: item for key, item in items.items() if item != NOTHING}
        return resolved

    def _substitute(self, operand: Any) -> Any:
        text, names = (operand, {}) if isinstance(operand, str) else operand
        values = self.values | {name: self.resolve(one) for name, one in names.items()}
        left: dict[str, Any] = {}

        def fill(found: re.Match[str]) -> str:
            known = values.get(found[1], found[0])
            if isinstance(known, dict):
                left[found[1]] = known
                return found[0]
            return str(known)

        filled = re.sub(r"\$\{([\w:.]+)\}", fill, text)
        if "${" not in filled:
            return filled
        return {"Fn::Sub": [filled, left] if left else filled}

    def _combine(self, function: str, choice: str, among: Any) -> Any:
        if function == "Fn::Split":
            return among.split(choice) if isinstance(among, str) else {function: [choice, among]}
        if not isinstance(among, list) or any(isinstance(one, dict) for one in among):
            return {function: [choice, among]}
        return choice.join(map(str, among)) if function == "Fn::Join" else among[int(choice)]


def resolve(name: str, parameters: Parameters, *, stack: str, region: str = REGION) -> Template:
    """Return a template's resources and outputs as this set of parameters makes them.

    Raises:
        AssertionError: the template's Rules refuse the set.
    """
    template = load(name)
    resolver = Resolver(template, parameters, stack=stack, region=region)
    assert resolver.broken_rules() == []
    kept = {"AWSTemplateFormatVersion": "2010-09-09"}
    if "Transform" in template:
        kept["Transform"] = template["Transform"]
    made: Template = kept | resolver.resolve({"Globals": template.get("Globals", {})})
    for section in ("Resources", "Outputs"):
        made[section] = {
            key: resolver.resolve({part: item for part, item in one.items() if part != "Condition"})
            for key, one in template[section].items()
            if "Condition" not in one or resolver.holds(one["Condition"])
        }
    return made


def arn_of(made: Template, name: str, *, stack: str, region: str = REGION) -> str:
    """Return the ARN that a resource will have, with what AWS draws at random made up.

    Raises:
        KeyError: a type whose ARN nothing asked for yet.
    """
    resource = made["Resources"][name]
    given = resource.get("Properties", {})
    drawn = f"{stack}-{name}-AbCdEfGhIjKl"
    named = next(
        (
            given[key]
            for key in (
                "QueueName",
                "TopicName",
                "Name",
                "LogGroupName",
                "AlarmName",
                "DashboardName",
                "RoleName",
            )
            if isinstance(given.get(key), str)
        ),
        drawn,
    )
    here = f"{region}:{ACCOUNT}"
    if resource["Type"] in {"AWS::Lambda::Alias", "AWS::Lambda::Version"}:
        function = given["FunctionName"]["Ref"]
        qualifier = "live" if resource["Type"] == "AWS::Lambda::Alias" else "7"
        return f"{arn_of(made, function, stack=stack, region=region)}:{qualifier}"
    return {
        "AWS::ApiGatewayV2::Api": f"arn:aws:apigateway:{region}::/apis/a1b2c3d4e5",
        "AWS::ApiGatewayV2::Stage": f"arn:aws:apigateway:{region}::/apis/a1b2c3d4e5/stages/$default",
        "AWS::Budgets::Budget": f"arn:aws:budgets::{ACCOUNT}:budget/{stack}",
        "AWS::CloudWatch::Alarm": f"arn:aws:cloudwatch:{here}:alarm:{named}",
        "AWS::CloudWatch::CompositeAlarm": f"arn:aws:cloudwatch:{here}:alarm:{named}",
        "AWS::CloudWatch::Dashboard": f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{named}",
        "AWS::CodeDeploy::Application": f"arn:aws:codedeploy:{here}:application:{drawn}",
        "AWS::CodeDeploy::DeploymentGroup": f"arn:aws:codedeploy:{here}:deploymentgroup:{drawn}/{drawn}",
        "AWS::ECR::Repository": f"arn:aws:ecr:{here}:repository/{given.get('RepositoryName')}",
        "AWS::IAM::ManagedPolicy": f"arn:aws:iam::{ACCOUNT}:policy/{drawn}",
        "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role{given.get('Path', '/')}{named}",
        "AWS::Lambda::EventSourceMapping": f"arn:aws:lambda:{here}:event-source-mapping:0a1b2c3d",
        "AWS::Lambda::Function": f"arn:aws:lambda:{here}:function:{drawn}",
        "AWS::Logs::LogGroup": f"arn:aws:logs:{here}:log-group:{named}:*",
        "AWS::RDS::DBCluster": f"arn:aws:rds:{here}:cluster:{drawn}",
        "AWS::S3::Bucket": f"arn:aws:s3:::{drawn.lower()}",
        "AWS::SNS::Topic": f"arn:aws:sns:{here}:{named}",
        "AWS::SQS::Queue": f"arn:aws:sqs:{here}:{named}",
        "AWS::Scheduler::Schedule": f"arn:aws:scheduler:{here}:schedule/default/{named}",
        "AWS::SecretsManager::Secret": f"arn:aws:secretsmanager:{here}:secret:{named}-AbCdEf",
    }[resource["Type"]]


def with_arns(made: Template, value: Any, *, stack: str, region: str = REGION) -> Any:
    """Return a part of a resolved template with references to resources replaced by ARNs or made-up ids."""
    if isinstance(value, list):
        return [with_arns(made, one, stack=stack, region=region) for one in value]
    if not isinstance(value, dict):
        return value

    def known(reference: str) -> str:
        name, _, attribute = reference.partition(".")
        if attribute.endswith("ResourceId"):
            return "cluster-ABCDEFGH"
        return arn_of(made, name, stack=stack, region=region)

    if set(value) == {"Ref"}:
        return known(value["Ref"])
    if set(value) == {"Fn::GetAtt"}:
        return known(".".join(value["Fn::GetAtt"]))
    if set(value) == {"Fn::Sub"}:
        text, names = (value["Fn::Sub"], {}) if isinstance(value["Fn::Sub"], str) else value["Fn::Sub"]
        given = {key: with_arns(made, one, stack=stack, region=region) for key, one in names.items()}
        return re.sub(r"\$\{([\w.]+)\}", lambda found: given.get(found[1]) or known(found[1]), text)
    return {key: with_arns(made, one, stack=stack, region=region) for key, one in value.items()}

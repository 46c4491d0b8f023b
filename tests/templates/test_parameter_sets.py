"""The sets say what they claim: allowed by their template, and together through every branch of it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.templates.parameter_sets import (
    APP,
    EVERY_SET,
    MINIMAL,
    REGIONS,
    SETS,
    STACKS,
    Set,
    parameters,
    resolved,
)
from tests.templates.resolved import Resolver, load


def references(value: Any) -> Iterator[str]:
    """Yield the logical ids that a part of a resolved template refers to."""
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            yield value["Ref"].partition(".")[0]
        elif set(value) == {"Fn::GetAtt"}:
            yield value["Fn::GetAtt"][0]
        elif set(value) == {"Fn::Sub"}:
            text, names = (value["Fn::Sub"], {}) if isinstance(value["Fn::Sub"], str) else value["Fn::Sub"]
            yield from (found for found in re.findall(r"\$\{(\w+)[\w.]*\}", text) if found not in names)
            yield from references(names)
        else:
            for one in value.values():
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def resolver(template: str, given: Set) -> Resolver:
    return Resolver(load(template), given, stack=STACKS[template], region=REGIONS[template])


@pytest.mark.parametrize(("template", "name"), EVERY_SET)
class TestEverySet:
    def test_the_parameters_exist_and_are_allowed(self, template: str, name: str) -> None:
        for parameter, value in parameters(template, name).items():
            declared = load(template)["Parameters"][parameter]
            if "AllowedPattern" in declared:
                assert re.fullmatch(declared["AllowedPattern"], str(value)), parameter
            if "AllowedValues" in declared:
                assert value in declared["AllowedValues"], parameter

    def test_the_rules_allow_it(self, template: str, name: str) -> None:
        assert resolver(template, parameters(template, name)).broken_rules() == []

    def test_nothing_refers_to_what_it_leaves_out(self, template: str, name: str) -> None:
        made = resolved(template, name)
        assert set(references([made["Resources"], made["Outputs"]])) <= set(made["Resources"])


@pytest.mark.parametrize("template", SETS)
class TestSets:
    def test_every_condition_holds_in_one_and_not_in_another(self, template: str) -> None:
        decided = {
            condition: {
                resolver(template, parameters(template, name)).holds(condition) for name in SETS[template]
            }
            for condition in load(template)["Conditions"]
        }
        assert {name: seen for name, seen in decided.items() if seen != {True, False}} == {}

    def test_every_listed_set_has_a_name_of_its_own(self, template: str) -> None:
        given = [tuple(sorted(parameters(template, name).items())) for name in SETS[template]]
        minimal = tuple(sorted(MINIMAL[template].items()))
        assert len({one for one in given if one != minimal}) == len([one for one in given if one != minimal])


class TestRules:
    @pytest.mark.parametrize(
        ("contradiction", "told"),
        [
            ({"SnapStart": "true", "ProvisionedConcurrency": 1}, "Lambda has SnapStart or"),
            ({"SubnetIds": "subnet-0a1b2c3d"}, "SubnetIds needs SecurityGroupIds"),
            ({"SecurityGroupIds": "sg-0a1b2c3d"}, "SecurityGroupIds needs SubnetIds"),
            ({"DatabaseUrl": ""}, "Give DatabaseUrl or"),
            ({"DatabaseIam": "true"}, "DatabaseIam needs DatabaseResourceId"),
            (
                {"DatabaseIam": "true", "DatabaseResourceId": "cluster-A", "DatabaseSecretArn": "arn"},
                "DatabaseIam takes no password",
            ),
            ({"SigningKeys": ""}, "Give SigningKeys or"),
            ({"SigningKeysSecretArn": "arn"}, "Give SigningKeys or"),
            ({"SecretKeys": "k", "SecretKeysSecretArn": "arn"}, "Give SecretKeys or"),
            ({"MonthlyBudget": 50}, "MonthlyBudget needs AlarmEmail"),
        ],
        ids=lambda given: ", ".join(given) if isinstance(given, dict) else "",
    )
    def test_exclusive_parameters_are_refused_together(self, contradiction: Set, told: str) -> None:
        [broken] = resolver(APP, MINIMAL[APP] | contradiction).broken_rules()
        assert broken.startswith(told)

"""Alarms and dashboard of template.yaml: told and taken back, explained, about what is really emitted."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.templates.parameter_sets import APP, STACKS, resolved
from tests.templates.resolved import ROOT, load, of_type, with_arns

from auth_manager import observability

TEMPLATE = load(APP)
ALARMS = of_type(TEMPLATE, "AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")

Emitted = tuple[str, str, list[str]]
"""Namespace, metric and the names of its dimensions, whose value is the stack's name."""

EMIT = """
from auth_manager import observability, settings
observability.configure_logging(settings.load_settings())
observability.enable_metrics()
for metric in observability.METRICS:
    observability.count(metric)
observability.flush_metrics()
"""


@pytest.fixture(scope="module")
def emitted() -> list[Emitted]:
    """Every metric as the code writes it, in the environment that the template gives it.

    In a process of its own, because Powertools keeps one set of metrics a process.
    """
    made = resolved(APP, "minimal")
    variables = made["Globals"]["Function"]["Environment"]["Variables"]
    run = subprocess.run(
        [sys.executable, "-c", EMIT],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | with_arns(made, variables, stack=STACKS[APP]),
    )
    [line] = [json.loads(one) for one in run.stdout.splitlines() if '"_aws"' in one]
    [directive] = line["_aws"]["CloudWatchMetrics"]
    [names] = directive["Dimensions"]
    assert {line[name] for name in names} == {STACKS[APP]}
    return [(directive["Namespace"], metric["Name"], names) for metric in directive["Metrics"]]


def plotted(dashboard: dict[str, Any]) -> Iterator[list[str]]:
    """Yield every metric of a dashboard in full: "." and "..." repeat what stands above."""
    for widget in dashboard["widgets"]:
        above: list[str] = []
        for metric in widget["properties"].get("metrics", []):
            named = [one for one in metric if isinstance(one, str)]
            if named[0] == "...":
                named = above[: len(above) - len(named) + 1] + named[1:]
            above = [above[place] if one == "." else one for place, one in enumerate(named)]
            yield above


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

    def test_its_metrics_of_ours_are_emitted(self, name: str, emitted: list[Emitted]) -> None:
        for namespace, metric, dimensions in metrics(ALARMS[name]):
            if not namespace.startswith("AWS/"):
                assert (namespace, metric, dimensions) in [
                    (one_namespace, one_metric, {key: {"Ref": "AWS::StackName"} for key in names})
                    for one_namespace, one_metric, names in emitted
                ]

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
        preference = TEMPLATE["Resources"]["ApiFunction"]["Properties"]["DeploymentPreference"]
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
        ours = [metric for metric in plotted(shown) if not metric[0].startswith("AWS/")]
        assert len(ours) > 5
        for namespace, metric, *dimensions in ours:
            assert namespace == observability.NAMESPACE
            assert metric in observability.METRICS
            assert dimensions == ["service", "${AWS::StackName}"]

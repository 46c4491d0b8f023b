"""What IAM policies allow: enough of its rules for our own, which have no Deny and no NotAction."""

import re
from collections.abc import Iterator
from typing import Any

from tests.templates.resolved import Template, with_arns

Statement = dict[str, Any]


def listed(value: str | list[str]) -> list[str]:
    """Return what a policy may write as one string or as several."""
    return [value] if isinstance(value, str) else value


def policies(made: Template, name: str, *, stack: str, region: str) -> list[tuple[str, Template]]:
    """Return the policy documents of a role or managed policy by name, with ARNs for references."""
    properties = made["Resources"][name]["Properties"]
    documents = [(one["PolicyName"], one["PolicyDocument"]) for one in properties.get("Policies", [])]
    if "PolicyDocument" in properties:
        documents.append((name, properties["PolicyDocument"]))
    return [(named, with_arns(made, one, stack=stack, region=region)) for named, one in documents]


def statements(made: Template, *names: str, stack: str, region: str) -> list[Statement]:
    """Return every statement of these roles and managed policies."""
    return [
        statement
        for name in names
        for _, document in policies(made, name, stack=stack, region=region)
        for statement in document["Statement"]
    ]


def actions(granted: list[Statement]) -> set[str]:
    """Return every action that the statements name."""
    return {action for one in granted for action in listed(one["Action"])}


def grants(granted: list[Statement]) -> Iterator[tuple[str, str]]:
    """Yield every pair of an action and a resource that the statements name."""
    for one in granted:
        for action in listed(one["Action"]):
            for resource in listed(one["Resource"]):
                yield action, resource


def allows(granted: list[Statement], action: str, resource: str) -> bool:
    """Tell whether one statement covers the action on all of the resource; conditions are taken as met.

    A resource may be a pattern itself: only a pattern at least as wide covers it.
    """
    return any(
        allowed.lower() == action.lower() and _covers(pattern, resource)
        for allowed, pattern in grants(granted)
    )


def _covers(pattern: str, resource: str) -> bool:
    """Match as IAM does: `*` stands for any text, slashes and colons too, and `?` for one character."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, resource) is not None

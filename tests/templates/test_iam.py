"""The evaluator that compares our policies is right about patterns."""

import pytest
from tests.templates.iam import allows

GRANTED = [
    {"Action": ["sqs:SendMessage", "sqs:DeleteMessage"], "Resource": "arn:aws:sqs:*:123456789012:auth-*"},
    {"Action": "s3:GetObject", "Resource": ["arn:aws:s3:::one/*", "arn:aws:s3:::tw?/*"]},
]


class TestAllows:
    @pytest.mark.parametrize(
        ("action", "resource", "allowed"),
        [
            ("sqs:SendMessage", "arn:aws:sqs:eu-central-1:123456789012:auth-outbox", True),
            ("SQS:sendmessage", "arn:aws:sqs:eu-central-1:123456789012:auth-outbox", True),
            ("sqs:ReceiveMessage", "arn:aws:sqs:eu-central-1:123456789012:auth-outbox", False),
            ("sqs:SendMessage", "arn:aws:sqs:eu-central-1:999999999999:auth-outbox", False),
            ("sqs:SendMessage", "arn:aws:sqs:eu-central-1:123456789012:auth-*", True),
            ("sqs:SendMessage", "arn:aws:sqs:eu-central-1:123456789012:*", False),
            ("sqs:SendMessage", "*", False),
            ("s3:GetObject", "arn:aws:s3:::one/two/three", True),
            ("s3:GetObject", "arn:aws:s3:::two/three", True),
            ("s3:GetObject", "arn:aws:s3:::twoo/three", False),
        ],
    )
    def test_an_action_on_a_resource(self, action: str, resource: str, allowed: bool) -> None:  # noqa: FBT001
        assert allows(GRANTED, action, resource) is allowed

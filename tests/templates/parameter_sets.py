"""The sets of parameters that every template is proven for, and what CloudFormation is given for each."""

import functools
import json
import os
import subprocess
from typing import Final

from tests.templates.resolved import ACCOUNT, REGION, ROOT, Template, of_type, resolve

APP = "template.yaml"
BOOTSTRAP = "infra/bootstrap.yaml"
DATA = "infra/data.yaml"
EDGE = "infra/edge.yaml"

STACKS: Final = {
    APP: "auth-manager-prod",
    BOOTSTRAP: "auth-bootstrap",
    DATA: "auth-data-prod",
    EDGE: "auth-edge-prod",
}
REGIONS: Final = {APP: REGION, BOOTSTRAP: REGION, DATA: REGION, EDGE: "us-east-1"}

Set = dict[str, str | int]

_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:"
_CERTIFICATE = f"arn:aws:acm:us-east-1:{ACCOUNT}:certificate/0a1b2c3d"
_PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/"

MINIMAL: Final[dict[str, Set]] = {
    APP: {
        "PublicUrl": "https://auth.example.com",
        "DatabaseUrl": "postgresql://user:word@db.example.com/auth",
        "SigningKeys": '{"keys":[' + "x" * 100 + "]}",
    },
    BOOTSTRAP: {},
    DATA: {},
    EDGE: {"ApiDomainName": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com", "AppRegion": REGION},
}
"""What has no default; every set is beside it."""

SETS: Final[dict[str, dict[str, Set]]] = {
    APP: {
        "minimal": {},
        "everything": {
            "Canary": "true",
            "Tracing": "true",
            "AlarmEmail": "ops@example.com",
            "MonthlyBudget": 50,
            "ProvisionedConcurrency": 2,
            "SecretKeys": "k" * 40,
            "SecretsKmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab",
            "PermissionsBoundaryArn": f"arn:aws:iam::{ACCOUNT}:policy/boundary",
            "SubnetIds": "subnet-0a1b2c3d,subnet-0a1b2c3e",
            "SecurityGroupIds": "sg-0a1b2c3d",
            "OriginSecretArn": f"{_SECRET}auth-manager-prod-origin-AbCdEf",
            "BackupBucket": "auth-manager-backups",
        },
        "vpc": {"SubnetIds": "subnet-0a1b2c3d,subnet-0a1b2c3e", "SecurityGroupIds": "sg-0a1b2c3d"},
        "canary off": {"Canary": "false", "RotateSigningKeys": "false"},
        "canary on": {"Canary": "true", "CanaryType": "Linear10PercentEvery1Minute"},
        "existing secrets": {
            "DatabaseUrl": "",
            "SigningKeys": "",
            "DatabaseSecretArn": f"{_SECRET}rds!cluster-0a1b2c3d-AbCdEf",
            "SigningKeysSecretArn": f"{_SECRET}auth-manager-signing-keys-AbCdEf",
            "SecretKeysSecretArn": f"{_SECRET}auth-manager-secret-keys-AbCdEf",
        },
        "iam database": {
            "DatabaseUrl": "postgresql://auth_manager_app@db.example.com/auth?sslmode=verify-full",
            "DatabaseIam": "true",
            "DatabaseResourceId": "cluster-ABCDEFGH",
        },
        "mail by ses": {"MailTransport": "ses", "MailFrom": "no-reply@example.com"},
        "mail by smtp": {
            "MailTransport": "smtp",
            "MailFrom": "no-reply@example.com",
            "SmtpSecretArn": f"{_SECRET}auth-manager-prod/smtp-AbCdEf",
        },
        "moving in": {
            "LazyMigrationUrl": "https://old.example.com/check",
            "LazyMigrationSecretArn": f"{_SECRET}auth-manager-prod/lazy-AbCdEf",
        },
        "moving in from Cognito": {"LazyMigrationCognito": "eu-central-1_aBcDeFgHi/1example23456789"},
        "backups": {
            "BackupBucket": "auth-manager-backups",
            "BackupKmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab",
        },
        "second factors": {
            "MfaPolicy": "required",
            "PasskeyRpId": "example.com",
            "PasskeyOrigins": f"https://app.example.com,android:apk-key-hash:{'a' * 43}",
        },
        "arm64": {"Architecture": "arm64"},
        "snapstart": {"SnapStart": "true"},
        "provisioned": {"ProvisionedConcurrency": 2},
        "tracing": {"Tracing": "true"},
        "behind the edge": {"OriginSecretArn": f"{_SECRET}auth-manager-prod-origin-AbCdEf"},
    },
    BOOTSTRAP: {
        "people only": {},
        "github": {"GitHubRepository": "owner/name"},
        "gitlab": {"GitLabProject": "group/project"},
        "existing providers": {
            "GitHubRepository": "owner@12/name@345",
            "GitHubProviderArn": f"{_PROVIDER}token.actions.githubusercontent.com",
            "GitLabProject": "group/project",
            "GitLabProviderArn": f"{_PROVIDER}gitlab.com",
        },
        "other secrets": {
            "GitHubRepository": "owner/name",
            "OtherSecretArns": f"{_SECRET}rds!cluster-0a1b2c3d-AbCdEf",
        },
    },
    DATA: {
        "aurora": {},
        "aurora with everything": {
            "ReaderInstance": "true",
            "Proxy": "true",
            "Zones": "3",
            "NatGateway": "true",
            "KmsEndpoint": "true",
            "LogsEndpoint": "true",
            "EmailEndpoint": "true",
            "AlarmEmail": "ops@example.com",
            "SnapshotIdentifier": "before-the-accident",
            "BackupBucketName": "auth-manager-backups",
        },
        "aurora without endpoints": {
            "NatGateway": "true",
            "SecretsManagerEndpoint": "false",
            "SqsEndpoint": "false",
        },
        "rds": {"Engine": "rds-instance", "PostgresVersion": "16"},
        "rds with a proxy": {"Engine": "rds-instance", "Proxy": "true", "PostgresVersion": "18"},
    },
    EDGE: {
        "minimal": {},
        "own domain": {
            "Alias": "auth.example.com",
            "CertificateArn": _CERTIFICATE,
            "AlarmEmail": "ops@example.com",
            "OriginSecretVersion": "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f",
        },
        "counting in us-east-1": {"ManagedRules": "count", "AppRegion": "us-east-1"},
    },
}
"""By template, then by name."""

EVERY_SET: Final = [(template, name) for template, sets in SETS.items() for name in sets]

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/auth-manager:0123456789ab"


def parameters(template: str, name: str) -> Set:
    """Return a set with what has no default."""
    return MINIMAL[template] | SETS[template][name]


@functools.cache
def resolved(template: str, name: str) -> Template:
    """Return a template as a set makes it, before the SAM transform."""
    return resolve(template, parameters(template, name), stack=STACKS[template], region=REGIONS[template])


@functools.cache
def deployed(template: str, name: str) -> Template:
    """Return what CloudFormation makes resources of: the template of a set, transformed.

    Needs .venv-tools, because the transform holds pydantic back.
    """
    made = resolved(template, name)
    if "Transform" not in made:
        return made
    for function in of_type(made, "AWS::Serverless::Function").values():
        function["Properties"]["ImageUri"] = IMAGE  # as `sam package` does
    run = subprocess.run(
        [ROOT / ".venv-tools/bin/python", ROOT / "tests/templates/translate.py"],
        input=json.dumps(made),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"AWS_DEFAULT_REGION": REGION},
    )
    assert run.returncode == 0, run.stderr
    translated: Template = json.loads(run.stdout)
    return translated

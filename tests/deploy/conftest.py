"""The real scripts/deploy-lambda.sh, sam and Docker, against MiniStack on this machine instead of AWS.

MiniStack has an environment of its own, .venv-ministack (`pip install 'ministack[full]' awscli`).
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from auth_manager.signing_keys import generate_signing_key, serialize_key_set

PROJECT = Path(__file__).resolve().parents[2]
MINISTACK = PROJECT / ".venv-ministack/bin/python"
ACCOUNT = "123456789012"
REGION = "eu-central-1"
STACK = "auth-manager-staging"

TAKEN_OUT = {
    "Api5xxAlarm": "MiniStack refuses alarms of metric math",
    "Api4xxAlarm": "the same",
    "ConcurrencyAlarm": "the same",
    "ServiceDown": "MiniStack refuses AWS::CloudWatch::CompositeAlarm",
    "SigningKeysRotation": "MiniStack refuses AWS::SecretsManager::RotationSchedule",
    "Budget": "MiniStack refuses AWS::Budgets::Budget",
}
"""Everything of template.yaml that is not deployed here. Besides, the scripts run with:

--skip-migrations: invoking an image takes MiniStack into Docker; tests/end_to_end invoke the handlers;
--skip-smoke-test (or a URL that does not answer): MiniStack ignores the routes in an API's Body;
Canary=false, the default: MiniStack refuses CodeDeploy.
"""

# MiniStack hands out AWS's own registry as where to log in.
LAUNCH = """
import os
from ministack.services import ecr
answer = ecr.json_response
def json_response(body, *others, **named):
    for one in body.get("authorizationData", []):
        one["proxyEndpoint"] = "http://localhost:" + os.environ["GATEWAY_PORT"]
    return answer(body, *others, **named)
ecr.json_response = json_response
from ministack.app import main
main()
"""


def take_out(template: str, names: Mapping[str, str]) -> str:
    """Return the template without these resources, and without what only they were for."""
    for name in names:
        template, found = re.subn(rf"\n  {name}:\n(?:    .*\n|\n(?=    ))+", "\n", template)
        assert found == 1, name
        template = re.sub(rf'"\$\{{{name}\.Arn\}}",? ?', "", template)  # the dashboard
        template = re.sub(rf"\n +- !Ref {name}(?=\n)", "", template)  # the deployment's alarms
    for name in names:
        assert not re.search(rf"(!Ref |\$\{{){name}\b", template), name
    return template.replace("\n  WithBudget:", "\n  # WithBudget:")


@dataclass(frozen=True, slots=True)
class Account:
    """An AWS account inside MiniStack, and a clone of the project that deploys to it."""

    project: Path
    environment: dict[str, str]

    def aws(self, *command: str) -> Any:
        """Run the AWS command line; return what it answered."""
        run = subprocess.run(
            ["aws", *command, "--output", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout or "null")

    def deploy(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/deploy-lambda.sh as a person would."""
        return subprocess.run(
            ["scripts/deploy-lambda.sh", *arguments],
            cwd=self.project,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
        )

    def commit(self) -> str:
        """Change something that is in the image; return the commit."""
        with (self.project / "src/auth_manager/__init__.py").open("a", encoding="utf-8") as file:
            file.write(f"# {time.monotonic_ns()}\n")
        return self.git("commit", "--all", "--message", "a change") and self.git(
            "rev-parse", "--short=12", "HEAD"
        )

    def git(self, *command: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        run = subprocess.run(
            ["git", *identity, *command], cwd=self.project, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    def wait_for(self, status: str) -> None:
        """Wait until the stack is in a status."""
        give_up_at = time.monotonic() + 60
        while True:
            [stack] = self.aws("cloudformation", "describe-stacks", "--stack-name", STACK)["Stacks"]
            if stack["StackStatus"] == status:
                return
            assert time.monotonic() < give_up_at, stack
            time.sleep(0.5)

    def outputs(self) -> dict[str, str]:
        [stack] = self.aws("cloudformation", "describe-stacks", "--stack-name", STACK)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    def function(self) -> str:
        return self.outputs()["ApiFunctionName"]

    def live(self) -> str:
        """The version that has the traffic."""
        alias = self.aws("lambda", "get-alias", "--function-name", self.function(), "--name", "live")
        version: str = alias["FunctionVersion"]
        return version

    def live_image(self) -> str:
        answer = self.aws("lambda", "get-function", "--function-name", self.function(), "--qualifier", "live")
        image: str = answer["Code"]["ImageUri"]
        return image


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    if not MINISTACK.exists():
        pytest.skip("MiniStack is not in .venv-ministack")
    directory = tmp_path_factory.mktemp("deploy")
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(directory / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
        "PATH": os.pathsep.join([os.environ["PATH"], str(MINISTACK.parent)]),
    }
    with _ministack(directory / "ministack", port):
        clone = _clone(directory / "project", port)
        made = Account(clone, environment)
        yield made


@pytest.fixture(scope="module")
def first_secrets() -> dict[str, str]:
    keys = json.loads(serialize_key_set([generate_signing_key("RS256")]))
    return {
        "AUTH_DATABASE_URL": "postgresql://auth:word@db.example.com/auth",
        "AUTH_SIGNING_KEYS": json.dumps(keys),
    }


def _clone(project: Path, port: int) -> Path:
    """Make a working tree with the template that MiniStack takes, a samconfig.toml and a first commit."""
    shutil.copytree(PROJECT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PROJECT / "scripts", project / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", ".dockerignore", ".gitignore", "requirements.txt"):
        shutil.copy(PROJECT / name, project / name)
    (project / ".venv-tools").symlink_to(PROJECT / ".venv-tools")
    (project / ".git/info").mkdir(parents=True)
    template = (PROJECT / "template.yaml").read_text(encoding="utf-8")
    (project / "template.yaml").write_text(take_out(template, TAKEN_OUT), encoding="utf-8")
    (project / "samconfig.toml").write_text(
        f"""version = 0.1
[staging.global.parameters]
region = "{REGION}"
stack_name = "{STACK}"
[staging.deploy.parameters]
image_repository = "localhost:{port}/auth-manager"
capabilities = "CAPABILITY_IAM"
parameter_overrides = ["PublicUrl=https://auth.example.com", "ProductName=Our accounts"]
""",
        encoding="utf-8",
    )
    account = Account(project, {})
    account.git("init", "--quiet")
    # A link, which .gitignore's .venv*/ does not mean.
    (project / ".git/info/exclude").write_text(".venv-tools\n", encoding="utf-8")
    account.git("add", "--all")
    account.git("commit", "--quiet", "--message", "first")
    return project


class _ministack:  # noqa: N801 -- a context manager, read like a function
    def __init__(self, state: Path, port: int) -> None:
        self.state, self.port = state, port

    def __enter__(self) -> None:
        self.state.mkdir()
        environment = os.environ | {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "IOT_MTLS_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent",
            "MINISTACK_REGION": REGION,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,  # whose registry it is: docker push does not say
            "S3_DATA_DIR": str(self.state / "s3"),
            "STATE_DIR": str(self.state / "state"),
        }
        with (self.state / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(MINISTACK), "-c", LAUNCH], env=environment, stdout=log, stderr=log
            )
        give_up_at = time.monotonic() + 60
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"http://localhost:{self.port}/v2/", timeout=5).close()
                return
            assert self.process.poll() is None, (self.state / "log").read_text()
            assert time.monotonic() < give_up_at, (self.state / "log").read_text()
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        sys.stdout.write((self.state / "log").read_text(errors="replace")[-2000:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

"""The real scripts/deploy-lambda.sh, sam, Docker and PostgreSQL, against MiniStack instead of AWS."""

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.deploy import ministack
from tests.deploy.ministack import PROJECT, REGION

from auth_manager.database import Database
from auth_manager.local.postgres import EmbeddedPostgres, start_embedded
from auth_manager.signing_keys import generate_signing_key, serialize_key_set

STACK = "auth-manager-staging"
BOOTSTRAP = "auth-bootstrap"


@dataclass(frozen=True, slots=True)
class Account:
    """An AWS account inside MiniStack, and a clone of the project that deploys to it."""

    project: Path
    environment: dict[str, str]
    printed: set[str] = field(default_factory=set)

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
        run = subprocess.run(
            ["scripts/deploy-lambda.sh", *arguments],
            cwd=self.project,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        self.printed.add(run.stdout)
        return run

    def commit(self, changes: dict[str, str]) -> str:
        """Append to files of the package; return the commit."""
        for name, text in changes.items():
            with (self.project / "src/auth_manager" / name).open("a", encoding="utf-8") as file:
                file.write(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a change")
        return self.head()

    def undo_commit(self) -> None:
        self.git("reset", "--quiet", "--hard", "HEAD~1")

    def head(self) -> str:
        return self.git("rev-parse", "--short=12", "HEAD")

    def git(self, *command: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        run = subprocess.run(
            ["git", *identity, *command], cwd=self.project, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    def wait_for(self, status: str) -> None:
        """Wait until the stack is in a status."""
        give_up_at = time.monotonic() + 60
        while (found := self.stack()["StackStatus"]) != status:
            assert time.monotonic() < give_up_at, found
            time.sleep(0.5)

    def stack(self, name: str = STACK) -> dict[str, Any]:
        [found] = self.aws("cloudformation", "describe-stacks", "--stack-name", name)["Stacks"]
        assert isinstance(found, dict)
        return found

    def outputs(self, name: str = STACK) -> dict[str, str]:
        return {one["OutputKey"]: one["OutputValue"] for one in self.stack(name)["Outputs"]}

    def function(self) -> str:
        return self.outputs()["ApiFunctionName"]

    def versions(self) -> list[str]:
        """The published versions of the API function."""
        listed = self.aws("lambda", "list-versions-by-function", "--function-name", self.function())[
            "Versions"
        ]
        return [one["Version"] for one in listed if one["Version"] != "$LATEST"]

    def live(self) -> str:
        """The version that has the traffic."""
        alias = self.aws("lambda", "get-alias", "--function-name", self.function(), "--name", "live")
        version: str = alias["FunctionVersion"]
        return version

    def live_image(self) -> str:
        answer = self.aws("lambda", "get-function", "--function-name", self.function(), "--qualifier", "live")
        image: str = answer["Code"]["ImageUri"]
        return image

    def route_everything(self) -> str:
        """Make the route $default, to the alias live; return the API's URL."""
        [api] = self.aws("apigatewayv2", "get-apis")["Items"]
        alias = self.aws("lambda", "get-alias", "--function-name", self.function(), "--name", "live")
        integration = self.aws(
            *(
                "apigatewayv2",
                "create-integration",
                "--api-id",
                api["ApiId"],
                "--integration-type",
                "AWS_PROXY",
            ),
            *("--integration-uri", alias["AliasArn"], "--payload-format-version", "2.0"),
        )
        self.aws(
            *("apigatewayv2", "create-route", "--api-id", api["ApiId"], "--route-key", "$default"),
            *("--target", f"integrations/{integration['IntegrationId']}"),
        )
        return f"{self.environment['AWS_ENDPOINT_URL']}/_aws/execute-api/{api['ApiId']}/$default"


@pytest.fixture(scope="session")
def gateway() -> str:
    """An address of this machine that containers reach."""
    spec = importlib.util.spec_from_file_location("sam_local", PROJECT / "scripts/sam_local.py")
    assert spec is not None
    assert spec.loader is not None
    sam_local = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sam_local)
    address: str = sam_local.container_gateway()
    return address


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, gateway: str) -> Iterator[Account]:
    assert ministack.PYTHON.exists(), "make test-deploy installs MiniStack"
    directory = tmp_path_factory.mktemp("deploy")
    port = _free_port(gateway)
    repository = f"localhost:{port}/auth-manager"
    docker_host = ministack.docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AUTH_"))
    } | {
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": ministack.ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(directory / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
        "DOCKER_CONFIG": str(directory / "docker"),  # where docker login writes
        "DOCKER_HOST": docker_host,
        "PATH": os.pathsep.join([str(ministack.PYTHON.parent), os.environ["PATH"]]),
    }
    with ExitStack() as stack:
        printed = stack.enter_context(ministack.images_removed(repository))
        stack.enter_context(ministack.running(directory / "ministack", port, gateway, docker_host))
        made = Account(directory / "project", environment, printed)
        _clone(made, repository)
        yield made


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory, gateway: str) -> Iterator[EmbeddedPostgres]:
    """An empty server, where containers reach it."""
    directory = tmp_path_factory.mktemp("postgres")
    with start_embedded(directory, listen=(gateway, _free_port(gateway)), durable=False) as server:
        yield server


@pytest.fixture(scope="module")
def deployed_database(own_postgres: EmbeddedPostgres) -> Iterator[Database]:
    """What the deployed functions work with."""
    database = Database(own_postgres.url, deadline=30)
    yield database
    database.close()


@pytest.fixture(scope="module")
def first_secrets(own_postgres: EmbeddedPostgres, gateway: str) -> dict[str, str]:
    url = urlsplit(own_postgres.tcp_url or "")
    keys = json.loads(serialize_key_set([generate_signing_key("RS256")]))
    return {
        "AUTH_DATABASE_URL": url._replace(
            netloc=url.netloc.replace(gateway, "host.docker.internal")
        ).geturl(),
        "AUTH_SIGNING_KEYS": json.dumps(keys),
        "AUTH_SECRET_KEYS": secrets.token_hex(32),
    }


def _clone(account: Account, repository: str) -> None:
    """Make a working tree with the template that MiniStack takes, a samconfig.toml and a first commit."""
    project = account.project
    for name in ("src", "scripts", "infra"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", ".dockerignore", ".gitignore", "requirements.txt"):
        shutil.copy(PROJECT / name, project / name)
    (project / ".venv-tools").symlink_to(PROJECT / ".venv-tools")
    template = (PROJECT / "template.yaml").read_text(encoding="utf-8")
    (project / "template.yaml").write_text(ministack.take_out(template), encoding="utf-8")
    parameters = f"""
stack_name = "{STACK}"
region = "{REGION}"
image_repository = "{repository}"
capabilities = "CAPABILITY_IAM"
parameter_overrides = ["PublicUrl=https://auth.example.com", "ProductName=Our accounts"]
"""
    (project / "samconfig.toml").write_text(
        f"version = 0.1\n[staging.deploy.parameters]{parameters}[production.deploy.parameters]{parameters}",
        encoding="utf-8",
    )
    account.git("init", "--quiet")
    # A link, which .gitignore's .venv*/ does not mean.
    (project / ".git/info").mkdir(exist_ok=True)
    (project / ".git/info/exclude").write_text(".venv-tools\n", encoding="utf-8")
    account.git("add", "--all")
    account.git("commit", "--quiet", "--message", "first")


def _free_port(gateway: str) -> int:
    """Return a port that is free on loopback and on the gateway."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        if gateway != "127.0.0.1":
            with socket.socket() as other:
                other.bind((gateway, port))
        return port

"""MiniStack, an AWS on this machine, and what it cannot do.

TAKEN_OUT are taken out of the template. Besides, it refuses CodeDeploy (Canary stays "false", its default),
ignores the routes in an API's Body (`Account.route_everything` makes the one there is), has its API at a URL
of its own (tests give the script --url), and generates secrets with commas (AUTH_SECRET_KEYS is given).
"""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]  # no py.typed

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = PROJECT / ".venv-ministack/bin/python"
ACCOUNT = "123456789012"
REGION = "eu-central-1"

TAKEN_OUT = {
    "Api5xxAlarm": "MiniStack refuses alarms of metric math",
    "Api4xxAlarm": "the same",
    "ConcurrencyAlarm": "the same",
    "ServiceDown": "MiniStack refuses AWS::CloudWatch::CompositeAlarm",
    "SigningKeysRotation": "MiniStack refuses AWS::SecretsManager::RotationSchedule",
    "Budget": "MiniStack refuses AWS::Budgets::Budget",
}
"""Every resource of template.yaml that is not deployed here. What names one goes with it: an alarm of the
canary, alarms that the dashboard shows, the budget's condition. test_nothing_else_differs holds it."""


def take_out(template: str) -> str:
    """Return the template without these resources, and without what names them."""
    for name in TAKEN_OUT:
        template, found = re.subn(rf"\n  {name}:\n(?:    .*\n|\n(?=    ))+", "\n", template)
        assert found == 1, name
        template = re.sub(rf'"\$\{{{name}\.Arn\}}",? ?', "", template)  # the dashboard
        template = re.sub(rf"\n +- !Ref {name}(?=\n)", "", template)  # the canary's alarms
    return re.sub(r"\n  WithBudget: .*", "", template)


def read_template(text: str, path: Path) -> dict[str, Any]:
    """Return a template as plain data, with `!If` as {"Fn::If": [...]}; the path is where to write it."""
    path.write_text(text, encoding="utf-8")
    read: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(path))))
    return read


@contextmanager
def running(directory: Path, port: int, gateway: str, docker_host: str) -> Iterator[None]:
    """MiniStack on a port of loopback, and of the gateway by which containers reach this machine."""
    directory.mkdir()
    name = f"auth-manager-test-{os.getpid()}"  # of containers, with the port
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "AUTH_"))}
    binds = [
        argument for address in sorted({"127.0.0.1", gateway}) for argument in ("--bind", f"{address}:{port}")
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(PYTHON), "-m", "hypercorn", "ministack.app:app", *binds, "--keep-alive", "75"],
            env=environment
            | {
                "GATEWAY_PORT": str(port),
                "IOT_MTLS_ENABLED": "0",
                "MINISTACK_ACCOUNT_ID": ACCOUNT,  # whose registry it is: docker push does not say
                "MINISTACK_DOCKER_TIMEOUT": "60",
                "MINISTACK_HOSTNAME": name,
                "MINISTACK_REGION": REGION,
                "S3_DATA_DIR": str(directory / "s3"),
                "STATE_DIR": str(directory / "state"),
                "TMPDIR": str(directory),
                "DOCKER_HOST": docker_host,
            },
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_it_answers(process, port, directory / "log")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)  # it removes its containers
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        left = docker("ps", "--all", "--quiet", "--filter", f"label=ministack.instance={name}:{port}").split()
        if left:
            docker("rm", "--force", "--volumes", *left)


def docker(*arguments: str) -> str:
    """Run docker; return what it printed."""
    run = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@contextmanager
def images_removed(repository: str) -> Iterator[set[str]]:
    """Remove, at the end, this machine's copies of a repository's images, under all their names.

    Yields:
        A set to fill with what sam printed while it built: of a build in two stages, Docker leaves the first
        one's image without a name.
    """
    started = docker("info", "--format", "{{.SystemTime}}")
    printed: set[str] = set()
    try:
        yield printed
    finally:
        ours = set(docker("images", "--quiet", repository).split())
        named = _inspect(ours, '{{join .RepoTags " "}}').split()
        if named:
            docker("rmi", *named)
        steps = {step for text in printed for step in re.findall(r"---> ([0-9a-f]{12})\b", text)}
        nameless = steps & set(docker("images", "--quiet", "--filter", "dangling=true").split())
        for line in _inspect(nameless, "{{.Created}} {{.Id}}").splitlines():
            made, identifier = line.split()
            if made > started:
                docker("rmi", identifier)


def _inspect(images: set[str], template: str) -> str:
    return docker("image", "inspect", "--format", template, *sorted(images)) if images else ""


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        with suppress(OSError):
            urllib.request.urlopen(f"http://localhost:{port}/v2/", timeout=5).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_at, log.read_text()
        time.sleep(0.2)

"""The pipelines of GitHub and GitLab: what can be held without their linters, which `make pipelines` runs."""

import json
import os
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ENVIRONMENTS = ["dev", "staging", "prod"]
CHECKS = {
    "coverage",
    "lint",
    "pipelines",
    "scan code requirements",
    "templates",
    "test",
    "test-browser",
    "test-container",
    "test-deploy",
    "types",
}
"""The make targets that a change must pass, with their arguments."""

PERMISSIONS = {"contents": "read", "id-token": "write"}
"""What a job may hold at most: to check out, and to ask for the token that AWS trusts."""


def load(path: Path) -> dict[str, Any]:
    """Return a YAML file; YAML 1.1's `on:` comes as True."""
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def workflow(name: str) -> dict[str, Any]:
    return load(ROOT / ".github/workflows" / name)


def github_steps(name: str) -> Iterator[dict[str, Any]]:
    for job in workflow(name)["jobs"].values():
        yield from job.get("steps", [])


def github_scripts(name: str) -> list[str]:
    """Every command line of a workflow, with the matrix's targets in place of $TARGET."""
    scripts = [step["run"] for step in github_steps(name) if "run" in step]
    matrix = [one for job in workflow(name)["jobs"].values() for one in matrix_of(job)]
    return [script.replace('"$TARGET"', target) for script in scripts for target in matrix or [""]]


def matrix_of(job: dict[str, Any]) -> list[str]:
    return [one["target"] for one in job.get("strategy", {}).get("matrix", {}).get("include", [])]


def gitlab() -> dict[str, Any]:
    return load(ROOT / ".gitlab-ci.yml")


def gitlab_jobs() -> dict[str, dict[str, Any]]:
    """Every job with what it extends merged in, in the order of the stages."""
    pipeline = gitlab()
    every = {name: job for name, job in pipeline.items() if isinstance(job, dict)}
    jobs = {}
    for name, job in every.items():
        if "stage" not in job:
            continue
        merged = dict(job)
        parent = job.get("extends")
        while parent:
            merged = {**every[parent], **merged}
            parent = every[parent].get("extends")
        jobs[name] = merged
    return dict(sorted(jobs.items(), key=lambda item: pipeline["stages"].index(item[1]["stage"])))


def gitlab_scripts(*names: str) -> list[str]:
    """Every command line of these jobs, or of all, with the matrix's targets in place of $TARGET."""
    scripts = []
    for name, job in gitlab_jobs().items():
        targets = [one["TARGET"] for one in job.get("parallel", {}).get("matrix", [])] or [""]
        if not names or name in names:
            scripts += [line.replace('"$TARGET"', target) for line in job["script"] for target in targets]
    return scripts


def make_calls(scripts: list[str]) -> set[str]:
    """What the scripts make: each target, with the parts that ARGS choose; without variables and options."""
    calls = set()
    for script in scripts:
        for words in re.findall(r"\bmake ([^&|;\n']+)", script):
            parsed = shlex.split(words)
            chosen = [part for word in parsed if word.startswith("ARGS=") for part in word[5:].split()]
            parts = [part for part in chosen if not part.startswith("--")]
            calls |= {" ".join([target, *parts]) for target in parsed if "=" not in target}
    return calls


def every_script() -> list[str]:
    return [*gitlab_scripts(), *(line for path in WORKFLOWS for line in github_scripts(path.name))]


class TestChecks:
    def test_both_pipelines_run_the_same(self) -> None:
        # GitLab's job takes Debian's Chromium.
        assert make_calls(github_scripts("ci.yml")) - {"browser --with-deps", "browser"} == CHECKS
        assert make_calls(gitlab_scripts("lint", "test", "browser", "container", "scan")) == CHECKS

    def test_both_build_and_scan_the_same_image(self) -> None:
        assert make_calls(github_scripts("deploy.yml")) == {"image", "scan image"}
        assert make_calls(gitlab_scripts("build")) == {"image", "scan image"}

    def test_every_target_exists(self) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        makefile = makefile.replace("$(TOOLS)", ".venv-tools")
        calls = {call.split()[0] for call in make_calls(every_script())}
        assert calls >= {"lint", "image", ".venv-tools/.installed"}
        assert [call for call in sorted(calls) if f"\n{call}:" not in makefile] == []

    def test_both_test_every_supported_python(self) -> None:
        github = workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
        pythons = [("3.11", "test"), ("3.12", "test"), ("3.13", "coverage")]
        assert [(one["python"], one["target"]) for one in github] == pythons
        assert [(one["PYTHON"], one["TARGET"]) for one in gitlab()["test"]["parallel"]["matrix"]] == pythons

    def test_a_scan_that_cannot_run_fails(self) -> None:
        scans = {line for line in every_script() if "make scan" in line}
        assert len(scans) == 2
        assert all("--complete" in line for line in scans)

    def test_nothing_is_allowed_to_fail(self) -> None:
        pipelines = [*WORKFLOWS, ROOT / ".gitlab-ci.yml"]
        for path in pipelines:
            assert not re.search(
                r"allow_failure|continue-on-error|\|\| true", path.read_text(encoding="utf-8")
            )

    def test_changes_are_checked_before_they_are_merged(self) -> None:
        assert "pull_request" in workflow("ci.yml")[True]  # type: ignore[index]  # YAML 1.1's `on:`
        sources = [rule["if"] for rule in gitlab()["workflow"]["rules"]]
        assert '$CI_PIPELINE_SOURCE == "merge_request_event"' in sources


class TestDeploy:
    def test_one_environment_after_the_other(self) -> None:
        jobs = workflow("deploy.yml")["jobs"]
        assert list(jobs) == ["check", "build", *ENVIRONMENTS]
        assert [jobs[name].get("needs") for name in jobs] == [None, *list(jobs)[:-1]]
        assert [jobs[name]["with"]["environment"] for name in ENVIRONMENTS] == ENVIRONMENTS
        assert jobs["check"]["uses"] == "./.github/workflows/ci.yml"
        assert gitlab()["stages"] == ["lint", "test", "scan", "build", *ENVIRONMENTS]
        assert list(gitlab_jobs())[-3:] == ENVIRONMENTS
        assert [gitlab_jobs()[name]["environment"]["name"] for name in ENVIRONMENTS] == ENVIRONMENTS

    def test_a_later_environment_never_starts_beside_an_earlier_one(self) -> None:
        """GitLab's `needs` would let a job start before the stages in front of it have ended."""
        assert [name for name, job in gitlab_jobs().items() if "needs" in job] == []

    def test_only_the_main_branch_is_deployed_and_only_when_asked_for(self) -> None:
        deploy = workflow("deploy.yml")
        assert deploy[True]["push"] == {"branches": ["main"]}  # type: ignore[index]  # YAML 1.1's `on:`
        assert deploy["jobs"]["build"]["if"] == "vars.DEPLOY == 'true' && github.ref == 'refs/heads/main'"
        wanted = '$DEPLOY == "true" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH'
        for name in ["build", *ENVIRONMENTS]:
            assert [rule["if"] for rule in gitlab_jobs()[name]["rules"]] == [wanted]

    def test_a_person_approves_production(self) -> None:
        """On GitHub the environment's required reviewers: the workflow only names the environment."""
        manual = [
            name for name, job in gitlab_jobs().items() if job.get("rules", [{}])[0].get("when") == "manual"
        ]
        assert manual == ["prod"]
        job = workflow("deploy-environment.yml")["jobs"]["deploy"]
        assert job["environment"] == "${{ inputs.environment }}"

    def test_an_environment_has_one_deployment_at_a_time(self) -> None:
        job = workflow("deploy-environment.yml")["jobs"]["deploy"]
        assert job["concurrency"] == {
            "group": "deploy-${{ inputs.environment }}",
            "cancel-in-progress": False,
        }
        for name in ENVIRONMENTS:
            assert gitlab_jobs()[name]["resource_group"] == name
            assert gitlab_jobs()[name]["interruptible"] is False

    def test_the_image_that_was_scanned_is_deployed_and_tried(self) -> None:
        upload = next(
            step for step in github_steps("deploy.yml") if "upload-artifact" in step.get("uses", "")
        )
        artefacts = [".aws-sam/image.tar", ".aws-sam/build/template.yaml"]
        assert upload["with"]["path"].split() == artefacts
        assert upload["with"]["include-hidden-files"] is True
        assert gitlab()["build"]["artifacts"]["paths"] == artefacts
        deployments = [line for line in every_script() if "scripts/deploy-lambda.sh" in line]
        assert len(deployments) == 1 + len(ENVIRONMENTS)
        for line in deployments:
            assert "--skip-build" in line
            assert not re.search("--skip-(smoke-test|migrations)|--create-stack", line)

    def test_the_script_knows_every_option(self) -> None:
        script = (ROOT / "scripts/deploy-lambda.sh").read_text(encoding="utf-8")
        lines = " ".join(line for line in every_script() if "scripts/deploy-lambda.sh" in line)
        options = set(re.findall(r"--[a-z0-9-]+", lines))
        assert options >= {"--env", "--skip-build", "--role-arn"}
        assert [
            option for option in sorted(options) if f"{option})" not in script and f"{option} |" not in script
        ] == []

    def test_software_is_installed_before_there_are_credentials(self) -> None:
        steps = list(github_steps("deploy-environment.yml"))
        kinds = [step.get("uses", "").partition("@")[0] or step["run"].split()[0] for step in steps]
        assert kinds[-2:] == ["aws-actions/configure-aws-credentials", "scripts/deploy-lambda.sh"]
        lines = [line.split()[0] for line in gitlab()[".deploy"]["script"]]
        assert lines[-3:] == ["export", "printf", "scripts/deploy-lambda.sh"]


class TestTrust:
    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_actions_are_pinned_by_commit(self, path: Path) -> None:
        """A tag can be moved to other code; the comment says which release the commit is."""
        for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(
                r"\./\.github/workflows/[\w-]+\.yml|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line
            )

    def test_an_action_has_one_pin(self) -> None:
        pins: dict[str, set[str]] = {}
        for path in WORKFLOWS:
            for action, commit in re.findall(r"uses: ([\w./-]+)@(\S+)", path.read_text(encoding="utf-8")):
                pins.setdefault(action, set()).add(commit)
        assert pins
        assert [action for action, commits in pins.items() if len(commits) > 1] == []

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_permissions_are_the_least(self, path: Path) -> None:
        content = load(path)
        assert content["permissions"] == {}
        for name, job in content["jobs"].items():
            deploys = name in ENVIRONMENTS or path.name == "deploy-environment.yml"
            assert job["permissions"] == (PERMISSIONS if deploys else {"contents": "read"})

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_checkouts_keep_no_token(self, path: Path) -> None:
        for step in github_steps(path.name):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False

    @pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".gitlab-ci.yml"], ids=lambda path: path.name)
    def test_there_are_no_long_lived_keys(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"(?i)access[_-]key|secret|session[_-]token|pull_request_target|workflow_run", text
        )

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_no_expression_is_part_of_a_script(self, path: Path) -> None:
        """What `${{ }}` brings into a script is run; from the environment it is only text."""
        assert [step["run"] for step in github_steps(path.name) if "${{" in step.get("run", "")] == []

    def test_gitlab_asks_for_the_audience_that_the_role_trusts(self) -> None:
        bootstrap = (ROOT / "infra/bootstrap.yaml").read_text(encoding="utf-8")
        audience = re.search(r"GitLabAudience:\n    Type: String\n    Default: (\S+)", bootstrap)
        assert audience
        for name in ENVIRONMENTS:
            assert gitlab_jobs()[name]["id_tokens"] == {"AWS_ID_TOKEN": {"aud": audience[1]}}
        assert [name for name, job in gitlab_jobs().items() if "id_tokens" in job] == ENVIRONMENTS

    def test_a_deployment_reads_no_cache(self) -> None:
        assert [gitlab_jobs()[name]["cache"] for name in ENVIRONMENTS] == [[], [], []]
        used = [step.get("uses", "") for step in github_steps("deploy-environment.yml")]
        assert not [action for action in used if re.search("cache|setup-", action)]


class TestDocs:
    def test_every_variable_is_documented(self) -> None:
        documented = (ROOT / "docs/pipelines.md").read_text(encoding="utf-8")
        text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
        variables = set(re.findall(r"vars\.(\w+)", text))
        assert variables >= {"DEPLOY", "AWS_ROLE_ARN", "SAMCONFIG"}
        assert [name for name in sorted(variables) if f"`{name}`" not in documented] == []


class Advisories(BaseHTTPRequestHandler):
    """Answers, and knows nothing: what pip-audit makes of an answer is its own affair."""

    def do_GET(self) -> None:
        self.send_response(405)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def advisories() -> Iterator[str]:
    """Serve on a free port of the loopback; give the URL."""
    with HTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens: taken, but deaf."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class TestScan:
    """scripts/scan.sh, with stand-ins for bandit and pip-audit that find something or nothing."""

    def scan(self, scanners: Path, *arguments: str, url: str, finding: bool = False) -> tuple[int, str]:
        (scanners / "bin").mkdir(parents=True, exist_ok=True)
        for name in ("bandit", "pip-audit"):
            program = scanners / "bin" / name
            program.write_text(f"#!/bin/sh\necho ran-{name} {json.dumps('$*')}\nexit {int(finding)}\n")
            program.chmod(0o755)
        run = subprocess.run(
            ["scripts/scan.sh", *arguments],
            cwd=ROOT,
            env={**os.environ, "SCANNERS": str(scanners), "OSV_URL": url, "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return run.returncode, run.stdout + run.stderr

    def test_no_finding_passes(self, tmp_path: Path) -> None:
        with advisories() as url:
            status, output = self.scan(tmp_path, "code", "requirements", url=url)
        assert status == 0
        assert "code: bandit found nothing" in output
        audited = set(re.findall(r"ran-pip-audit .*--requirement (\S+)", output))
        assert audited == {path.name for path in ROOT.glob("requirements*.txt")}

    @pytest.mark.parametrize("part", ["code", "requirements"])
    def test_a_finding_fails(self, tmp_path: Path, part: str) -> None:
        with advisories() as url:
            status, output = self.scan(tmp_path, part, url=url, finding=True)
        assert status == 1
        assert output.endswith(f"{part}: failed\n")

    def test_a_finding_in_one_hides_none_in_the_next(self, tmp_path: Path) -> None:
        with advisories() as url:
            _, output = self.scan(tmp_path, "code", "requirements", url=url, finding=True)
        assert "code: failed" in output
        assert "requirements: failed" in output

    def test_advisories_out_of_reach_are_said_and_passed_over(self, tmp_path: Path, closed_port: int) -> None:
        status, output = self.scan(
            tmp_path, "requirements", url=f"http://127.0.0.1:{closed_port}/", finding=True
        )
        assert status == 0
        assert output == f"requirements: skipped, http://127.0.0.1:{closed_port}/ is out of reach (curl: 7)\n"

    def test_advisories_out_of_reach_fail_a_complete_scan(self, tmp_path: Path, closed_port: int) -> None:
        status, output = self.scan(
            tmp_path, "--complete", "requirements", url=f"http://127.0.0.1:{closed_port}/"
        )
        assert status == 1
        assert "requirements: skipped" in output

    def test_an_unknown_part_is_wrong_usage(self, tmp_path: Path) -> None:
        status, output = self.scan(tmp_path, "everything", url="http://127.0.0.1/")
        assert status == 2
        assert output.startswith("Usage: scripts/scan.sh")

"""What scripts/deploy-lambda.sh refuses, and how it names an image, where no AWS is needed to see it.

`aws` is a program that answers as AWS would, for what test_deploy_lambda.py cannot get from MiniStack.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.deploy.ministack import PROJECT, read_template

CONFIGURATION = """
[staging.global.parameters]
region = "eu-central-1"
stack_name = "auth-manager-staging"
[staging.deploy.parameters]
image_repository = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/auth-manager"
[nameless.global.parameters]
region = "eu-central-1"
[nowhere.global.parameters]
stack_name = "auth-manager-nowhere"
[imageless.global.parameters]
region = "eu-central-1"
stack_name = "auth-manager-imageless"
"""
# What AWS says, where the script asks only: $STATUS is the stack's, $ECR the registry's answer.
AWS = """#!/bin/sh
case "$1 $2" in
    "sts get-caller-identity") printf '123456789012\\tarn:aws:iam::123456789012:user/ada\\n' ;;
    "cloudformation describe-stacks") printf '%s\\n' "$STATUS" ;;
    "ecr describe-images") printf '%s\\n' "$ECR" >&2; exit 254 ;;
    *) echo "not expected: $*" >&2; exit 99 ;;
esac
"""
NOT_RUNNING = "#!/bin/sh\nexit 1\n"
NOT_THERE = "An error occurred (ImageNotFoundException) when calling the DescribeImages operation"
NEEDED = (
    "awk",
    "bash",
    "cat",
    "cp",
    "curl",
    "cut",
    "dirname",
    "env",
    "git",
    "grep",
    "mkdir",
    "mktemp",
    "python3",
    "rm",
)

RIGHTS = {
    "ecr get-login-password": "ecr:GetAuthorizationToken",
    "lambda invoke": "lambda:InvokeFunction",
    "lambda wait function-updated": "lambda:GetFunctionConfiguration",
}
"""Of calls whose action has another name."""


def as_action(call: str) -> str:
    """Return what IAM calls it: of `ecr describe-images`, ecr:DescribeImages."""
    service, command = call.split()
    return f"{service}:{command.title().replace('-', '')}"


@dataclass(frozen=True, slots=True)
class Clone:
    """A working tree, and a PATH that has nothing but what the script needs."""

    project: Path
    path: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["scripts/deploy-lambda.sh", *arguments],
            cwd=self.project,
            env={"PATH": str(self.path), "HOME": str(self.project)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def git(self, *command: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        run = subprocess.run(
            ["git", *identity, *command], cwd=self.project, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    def program(self, name: str, text: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).write_text(text, encoding="utf-8")
        (self.path / name).chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    made = Clone(tmp_path / "project", tmp_path / "bin")
    (made.project / "scripts").mkdir(parents=True)
    made.path.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, name
        # Not a link: what a version manager puts on the PATH looks at its own directory.
        made.program(name, f'#!/bin/sh\nexec {found} "$@"\n')
    (made.path / "bash").unlink()
    (made.path / "bash").symlink_to(shutil.which("bash") or "")
    made.program("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    made.program("aws", AWS)
    made.program("sam", "#!/bin/sh\n")
    made.program("docker", NOT_RUNNING)
    for name in ("deploy-lambda.sh", "smoke-test.sh"):
        shutil.copy(PROJECT / "scripts" / name, made.project / "scripts" / name)
    shutil.copy(PROJECT / "template.yaml", made.project)
    (made.project / "samconfig.toml").write_text(CONFIGURATION, encoding="utf-8")
    (made.project / ".gitignore").write_text("samconfig.toml\n", encoding="utf-8")
    made.git("init", "--quiet")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "first")
    return made


class TestUsage:
    def test_help_needs_no_aws_and_names_every_option(self, clone: Clone) -> None:
        for name in ("aws", "sam", "docker", "git", "python3"):
            (clone.path / name).unlink()
        (clone.project / "samconfig.toml").unlink()
        shown = clone.run("--env", "anything", "-h")
        assert shown.returncode == 0
        assert clone.run("--help").stdout == shown.stdout
        script = (clone.project / "scripts/deploy-lambda.sh").read_text(encoding="utf-8")
        cases = script[script.index("parse_arguments() {") : script.index("find_tools() {")]
        options = set(re.findall(r"(?<=[ (])--?[a-z][a-z-]*(?=[ )])", cases))
        assert len(options) == 18
        for option in options:
            assert re.search(rf"^  .*{option}[ ,\n]", shown.stdout, re.MULTILINE), option

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--nonsense"],
            ["staging"],
            ["--env"],
            ["--env", "--yes"],
            ["--role-arn", "-y"],
            ["--rollback", "x1"],
            ["--rollback", "--create-stack"],
        ],
        ids=" ".join,
    )
    def test_wrong_usage_is_refused(self, clone: Clone, arguments: list[str]) -> None:
        refused = clone.run(*arguments)
        assert refused.returncode == 2
        assert "scripts/deploy-lambda.sh --help" in refused.stdout


class TestTools:
    @pytest.mark.parametrize("tool", ["sam", "aws", "git", "curl", "python3"])
    def test_a_tool_that_is_missing_is_named(self, clone: Clone, tool: str) -> None:
        (clone.path / tool).unlink()
        refused = clone.run()
        assert refused.returncode == 1
        assert f"deploy-lambda: {tool} is not there\n" in refused.stdout

    def test_an_old_python_is_refused(self, clone: Clone) -> None:
        clone.program("python3", NOT_RUNNING)
        refused = clone.run()
        assert refused.returncode == 1
        assert "Python 3.11 or newer is needed" in refused.stdout

    @pytest.mark.parametrize(
        ("docker", "told"),
        [("", "docker is not there"), (NOT_RUNNING, "Docker is not running, or you may not use it")],
    )
    def test_a_build_needs_docker(self, clone: Clone, docker: str, told: str) -> None:
        (clone.path / "docker").unlink()
        if docker:
            clone.program("docker", docker)
        refused = clone.run(STATUS="CREATE_COMPLETE", ECR=NOT_THERE)
        assert refused.returncode == 1
        assert told in refused.stdout


class TestConfiguration:
    def test_a_missing_file_is_named(self, clone: Clone) -> None:
        (clone.project / "samconfig.toml").unlink()
        refused = clone.run()
        assert refused.returncode == 1
        assert "there is no samconfig.toml\n  cp samconfig.toml.example samconfig.toml" in refused.stdout

    def test_a_file_that_is_not_toml_is_named(self, clone: Clone) -> None:
        (clone.project / "samconfig.toml").write_text("[staging", encoding="utf-8")
        refused = clone.run()
        assert refused.returncode == 1
        assert "deploy-lambda: samconfig.toml: " in refused.stdout
        assert "Traceback" not in refused.stdout

    @pytest.mark.parametrize(
        ("environment", "told"),
        [
            ("unknown", "samconfig.toml has no stack_name for unknown"),
            ("nameless", "samconfig.toml has no stack_name for nameless"),
            ("nowhere", "no region"),
            ("imageless", "samconfig.toml has no image_repository for imageless"),
        ],
    )
    def test_what_is_missing_in_it_is_named(self, clone: Clone, environment: str, told: str) -> None:
        refused = clone.run("--env", environment, STATUS="CREATE_COMPLETE")
        assert refused.returncode == 1
        assert f"deploy-lambda: {told}\n" in refused.stdout

    def test_a_directory_without_a_commit_is_refused(self, clone: Clone) -> None:
        shutil.rmtree(clone.project / ".git")
        refused = clone.run(STATUS="CREATE_COMPLETE")
        assert refused.returncode == 1
        assert "there is no commit to name the image after" in refused.stdout

    def test_a_build_that_was_never_made_cannot_be_deployed(self, clone: Clone) -> None:
        refused = clone.run("--skip-build", STATUS="CREATE_COMPLETE")
        assert refused.returncode == 1
        assert "nothing was built yet" in refused.stdout


class TestImageNames:
    def test_a_commit_is_its_own_name(self, clone: Clone) -> None:
        shown = clone.run("--create-stack", "--dry-run", ECR=NOT_THERE)
        assert shown.returncode == 0, shown.stdout
        assert f"/auth-manager:{clone.git('rev-parse', '--short=12', 'HEAD')}-x86_64\n" in shown.stdout

    def test_an_image_of_another_architecture_is_another_image(self, clone: Clone) -> None:
        line = 'parameter_overrides = ["Architecture=arm64"]\n'
        text = CONFIGURATION.replace("[nameless", f"{line}[nameless")
        (clone.project / "samconfig.toml").write_text(text, encoding="utf-8")
        shown = clone.run(
            *("--image-repository", "registry/auth-manager", "--create-stack", "--dry-run"), ECR=NOT_THERE
        )
        commit = clone.git("rev-parse", "--short=12", "HEAD")
        assert f"would run: docker push --quiet registry/auth-manager:{commit}-arm64\n" in shown.stdout

    def test_changes_that_are_not_committed_have_names_of_their_own(self, clone: Clone) -> None:
        tags = []
        for content in ("one", "two", "one"):
            (clone.project / "extra").write_text(content, encoding="utf-8")
            shown = clone.run("--create-stack", "--dry-run", ECR=NOT_THERE)
            [pushed] = [line for line in shown.stdout.splitlines() if "would run: docker push" in line]
            tags.append(pushed.rpartition(":")[2])
        assert tags[0] == tags[2] != tags[1]
        assert all(tag.startswith(f"{clone.git('rev-parse', '--short=12', 'HEAD')}-dirty-") for tag in tags)
        assert clone.git("status", "--porcelain") == "?? extra"


class TestProduction:
    @pytest.fixture(autouse=True)
    def _production(self, clone: Clone) -> None:
        text = CONFIGURATION.replace("staging.", "production.")
        (clone.project / "samconfig.toml").write_text(text, encoding="utf-8")

    def test_it_wants_a_clean_tree(self, clone: Clone) -> None:
        (clone.project / "extra").touch()
        refused = clone.run("--env", "production", "--yes", STATUS="CREATE_COMPLETE")
        assert refused.returncode == 1
        assert "changes that are not committed, and this is production" in refused.stdout

    @pytest.mark.parametrize("arguments", [(), ("--rollback",)], ids=["deploy", "rollback"])
    def test_it_wants_a_confirmation(self, clone: Clone, arguments: tuple[str, ...]) -> None:
        refused = clone.run("--env", "production", *arguments, STATUS="CREATE_COMPLETE")
        assert refused.returncode == 1
        assert "nobody is here to confirm a change of production" in refused.stdout
        confirmed = clone.run(
            "--env", "production", "--yes", *arguments, STATUS="CREATE_COMPLETE", ECR=NOT_THERE
        )
        assert "confirm" not in confirmed.stdout

    def test_it_refuses_a_build_of_changes_that_were_not_committed(self, clone: Clone) -> None:
        (clone.project / ".gitignore").write_text(".aws-sam/\nsamconfig.toml\n", encoding="utf-8")
        clone.git("commit", "--quiet", "--all", "--message", "ignore")
        (clone.project / ".aws-sam/build").mkdir(parents=True)
        built = "Properties:\n  ImageUri: apifunction:0123456789ab-dirty-0123456789ab\n"
        (clone.project / ".aws-sam/build/template.yaml").write_text(built, encoding="utf-8")
        refused = clone.run("--env", "production", "--skip-build", "--yes", STATUS="CREATE_COMPLETE")
        assert refused.returncode == 1
        assert "changes that are not committed, and this is production" in refused.stdout


class TestAnswersOfAws:
    def test_the_caller_is_printed(self, clone: Clone) -> None:
        refused = clone.run("-r", "eu-west-3", STATUS="CREATE_FAILED")
        assert refused.stdout.startswith(
            "deploy-lambda: staging: stack auth-manager-staging in eu-west-3 of account 123456789012, "
            "as arn:aws:iam::123456789012:user/ada\n"
        )

    @pytest.mark.parametrize(
        ("status", "told"),
        [
            ("ROLLBACK_FAILED", "delete-stack --stack-name auth-manager-staging --region eu-central-1"),
            ("CREATE_FAILED", "delete-stack --stack-name auth-manager-staging --region eu-central-1"),
            ("DELETE_FAILED", "delete-stack --stack-name auth-manager-staging --region eu-central-1"),
            ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback --stack-name auth-manager-staging"),
            ("UPDATE_IN_PROGRESS", "is being changed (UPDATE_IN_PROGRESS)"),
            ("REVIEW_IN_PROGRESS", "does not exist"),
        ],
    )
    def test_a_stack_that_cannot_be_updated_is_refused(self, clone: Clone, status: str, told: str) -> None:
        for arguments in ((), ("--rollback",)):
            refused = clone.run(*arguments, STATUS=status)
            assert refused.returncode == 1
            assert told in refused.stdout

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            ("An error occurred (RepositoryNotFoundException)", "not found in eu-central-1"),
            ("An error occurred (AccessDeniedException)", "the image repository cannot be looked at"),
        ],
    )
    def test_a_repository_out_of_reach_is_refused(self, clone: Clone, answer: str, told: str) -> None:
        refused = clone.run(STATUS="CREATE_COMPLETE", ECR=answer)
        assert refused.returncode == 1
        assert told in refused.stdout
        assert answer in refused.stdout


class TestFirstSecrets:
    """They are for a stack that is made; one that exists may have rotated its keys since."""

    @pytest.mark.parametrize(
        ("arguments", "status", "given"),
        [
            (("--create-stack",), "", True),
            (("--create-stack",), "CREATE_COMPLETE", False),
            ((), "CREATE_COMPLETE", False),
        ],
    )
    def test_only_a_new_stack_gets_them(
        self, clone: Clone, tmp_path: Path, arguments: tuple[str, ...], status: str, *, given: bool
    ) -> None:
        # The registry is asked once the parameters are written.
        copying = AWS.replace(
            '"ecr describe-images")', '"ecr describe-images") cp "$TMPDIR"/*/*.yaml "$SEEN";'
        )
        clone.program("aws", copying)
        (tmp_path / "work").mkdir()
        seen = tmp_path / "parameters.json"

        clone.run(
            *arguments,
            STATUS=status,
            ECR="An error occurred (RepositoryNotFoundException)",
            AUTH_SIGNING_KEYS="the first keys",
            TMPDIR=str(tmp_path / "work"),
            SEEN=str(seen),
        )

        assert ("SigningKeys" in json.loads(seen.read_text(encoding="utf-8"))) is given


class TestRights:
    def test_every_call_is_allowed_to_the_deploy_role(self, tmp_path: Path) -> None:
        """By DeployPolicy of infra/bootstrap.yaml, which pipelines have; GetCallerIdentity needs no right."""
        script = (PROJECT / "scripts/deploy-lambda.sh").read_text(encoding="utf-8")
        calls = set(re.findall(r"(?:\$\(|run |^ +)aws ([a-z]+ (?:wait )?[a-z-]+)", script, re.MULTILINE))
        bootstrap = (PROJECT / "infra/bootstrap.yaml").read_text(encoding="utf-8")
        policy = read_template(bootstrap, tmp_path / "bootstrap.yaml")["Resources"]["DeployPolicy"]
        allowed: set[str] = set()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            allowed.update([actions] if isinstance(actions, str) else actions)
        needed = {RIGHTS.get(call) or as_action(call) for call in calls - {"sts get-caller-identity"}}
        assert len(needed) == 9
        assert needed <= allowed

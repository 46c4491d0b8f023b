"""scripts/deploy-lambda.sh through the life of a stack, in order."""

import json

import pytest
from tests.deploy.conftest import STACK, Account

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

# MiniStack cannot do these two: see TAKEN_OUT.
HERE = ("--skip-migrations", "--skip-smoke-test")


class TestRefusals:
    def test_help_needs_nothing(self, account: Account) -> None:
        shown = account.deploy("--help", PATH="/usr/bin:/bin")
        assert shown.returncode == 0
        for flag in (
            "--create-stack",
            "--skip-build",
            "--profile",
            "--region",
            "--env",
            "--dry-run",
            "--rollback",
        ):
            assert flag in shown.stdout

    @pytest.mark.parametrize("arguments", [["--nonsense"], ["--env"], ["--rollback", "x1"]])
    def test_wrong_usage_is_refused(self, account: Account, arguments: list[str]) -> None:
        assert account.deploy(*arguments).returncode == 2

    def test_an_unknown_environment_is_refused(self, account: Account) -> None:
        refused = account.deploy("--env", "nowhere")
        assert refused.returncode == 1
        assert "samconfig.toml has no stack_name for nowhere" in refused.stdout

    def test_missing_credentials_are_named(self, account: Account) -> None:
        refused = account.deploy(AWS_ACCESS_KEY_ID="", AWS_EC2_METADATA_DISABLED="true")
        assert refused.returncode == 1
        assert "no AWS credentials that work" in refused.stdout

    def test_docker_that_does_not_run_is_named(self, account: Account) -> None:
        refused = account.deploy(DOCKER_HOST="unix:///nonexistent")
        assert refused.returncode == 1
        assert "Docker is not running" in refused.stdout

    def test_a_missing_stack_is_refused(self, account: Account) -> None:
        for arguments in ([], ["--rollback"]):
            refused = account.deploy(*arguments)
            assert refused.returncode == 1
            assert f"stack {STACK} does not exist" in refused.stdout

    def test_a_missing_repository_is_refused(self, account: Account) -> None:
        refused = account.deploy("--create-stack")
        assert refused.returncode == 1
        assert "not found" in refused.stdout
        assert "infra/bootstrap.yaml makes it" in refused.stdout

    def test_a_stack_whose_creation_failed_must_be_deleted(self, account: Account) -> None:
        math = {"Metrics": [{"Id": "one", "Expression": "1"}], "EvaluationPeriods": 1, "Threshold": 1}
        alarm = {"ComparisonOperator": "GreaterThanThreshold", **math}
        template = json.dumps(
            {"Resources": {"Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}}
        )
        account.aws("cloudformation", "create-stack", "--stack-name", STACK, "--template-body", template)
        account.wait_for("ROLLBACK_COMPLETE")
        try:
            refused = account.deploy("--create-stack")
            assert refused.returncode == 1
            assert "ROLLBACK_COMPLETE" in refused.stdout
            assert f"delete-stack --stack-name {STACK}" in refused.stdout
        finally:
            account.aws("cloudformation", "delete-stack", "--stack-name", STACK)


class TestLife:
    def test_it_is_created(self, account: Account, first_secrets: dict[str, str]) -> None:
        account.aws("ecr", "create-repository", "--repository-name", "auth-manager")
        done = account.deploy("--create-stack", *HERE, **first_secrets)
        assert done.returncode == 0, done.stdout
        assert account.live() == "1"
        sha = account.git("rev-parse", "--short=12", "HEAD")
        assert account.live_image().endswith(sha)
        for secret in first_secrets.values():
            assert secret not in done.stdout

    def test_the_secrets_are_kept_as_given(self, account: Account, first_secrets: dict[str, str]) -> None:
        for name, variable in (("signing-keys", "AUTH_SIGNING_KEYS"), ("database", "AUTH_DATABASE_URL")):
            kept = account.aws("secretsmanager", "get-secret-value", "--secret-id", f"{STACK}/{name}")
            assert kept["SecretString"] == first_secrets[variable]
        made = account.aws("secretsmanager", "get-secret-value", "--secret-id", f"{STACK}/secret-keys")
        assert len(made["SecretString"]) == 64

    def test_the_function_has_no_secret_in_its_configuration(
        self, account: Account, first_secrets: dict[str, str]
    ) -> None:
        configuration = account.aws(
            "lambda", "get-function-configuration", "--function-name", account.function()
        )
        variables = configuration["Environment"]["Variables"]
        assert not set(first_secrets.values()) & set(variables.values())
        assert variables["AUTH_PRODUCT_NAME"] == "Our accounts"

    def test_the_same_again_changes_nothing(self, account: Account) -> None:
        image = account.live_image()
        done = account.deploy(*HERE)
        assert done.returncode == 0, done.stdout
        assert account.live() == "1"
        assert account.live_image() == image

    def test_a_dry_run_changes_nothing(self, account: Account) -> None:
        sha = account.commit()
        shown = account.deploy("--dry-run")
        assert shown.returncode == 0, shown.stdout
        assert "would run:" in shown.stdout
        assert account.live() == "1"
        assert not account.live_image().endswith(sha)

    def test_a_new_image_gets_the_traffic(self, account: Account) -> None:
        sha = account.git("rev-parse", "--short=12", "HEAD")
        done = account.deploy(*HERE)
        assert done.returncode == 0, done.stdout
        assert account.live() == "2"
        assert account.live_image().endswith(sha)

    def test_what_does_not_work_is_taken_back(self, account: Account) -> None:
        account.commit()
        image = account.live_image()
        done = account.deploy("--skip-migrations", "--url", "http://127.0.0.1:1")
        assert done.returncode == 3, done.stdout
        assert account.live() == "2"
        assert account.live_image() == image

    def test_a_rollback_goes_to_the_version_before(self, account: Account) -> None:
        done = account.deploy("--rollback", "--skip-smoke-test")
        assert done.returncode == 0, done.stdout
        assert account.live() == "1"
        refused = account.deploy("--rollback", "--skip-smoke-test")
        assert refused.returncode == 1
        assert "there is no version before 1" in refused.stdout

    def test_a_rollback_goes_to_the_version_named(self, account: Account) -> None:
        refused = account.deploy("--rollback", "99", "--skip-smoke-test")
        assert refused.returncode == 1
        assert "there is no version 99" in refused.stdout
        done = account.deploy("--rollback", "3", "--skip-smoke-test")
        assert done.returncode == 0, done.stdout
        assert account.live() == "3"

    def test_the_secrets_outlive_it(self, account: Account, first_secrets: dict[str, str]) -> None:
        account.aws("cloudformation", "delete-stack", "--stack-name", STACK)
        account.aws("cloudformation", "wait", "stack-delete-complete", "--stack-name", STACK)
        refused = account.deploy("--rollback")
        assert f"stack {STACK} does not exist" in refused.stdout
        kept = account.aws("secretsmanager", "get-secret-value", "--secret-id", f"{STACK}/signing-keys")
        assert kept["SecretString"] == first_secrets["AUTH_SIGNING_KEYS"]

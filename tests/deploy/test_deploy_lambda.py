"""scripts/deploy-lambda.sh through the life of a stack, in order: real sam, Docker, images and PostgreSQL.

MiniStack is the AWS (see ministack.py), and the deployed functions run in containers. So it is shown that the
migrations of the new image are in the database before the traffic moves, that a version whose migrations fail
gets none, and that one whose login is broken is taken back. What cannot be shown without AWS:

- a canary: CodeDeploy's steps, its alarms taking a version back (tests/entrypoints drive the hook);
- what the roles of infra/bootstrap.yaml allow, and that CloudFormation acts as one: MiniStack lets everybody
  do everything here, and sam is only seen to be given the role;
- the alarms of metric math, the composite one, the budget, and Secrets Manager starting a rotation;
- the routes, throttling and CORS of the HTTP API.
"""

import json
from pathlib import Path

import pytest
from tests.deploy.conftest import BOOTSTRAP, STACK, Account
from tests.deploy.ministack import TAKEN_OUT, read_template, take_out

from auth_manager.database import Database

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

NO_DOCKER = {"DOCKER_HOST": "unix:///nonexistent"}
BROKEN_LOGIN = '\n\ndef log_in(*_: object, **__: object) -> None:\n    raise RuntimeError("broken")\n'


class TestRefusals:
    def test_missing_credentials_are_named(self, account: Account) -> None:
        refused = account.deploy(AWS_ACCESS_KEY_ID="", AWS_EC2_METADATA_DISABLED="true")
        assert refused.returncode == 1
        assert "no AWS credentials that work" in refused.stdout

    def test_an_unknown_profile_is_named(self, account: Account) -> None:
        refused = account.deploy("--profile", "nobody")
        assert refused.returncode == 1
        assert "no AWS credentials that work" in refused.stdout
        assert "nobody" in refused.stdout

    @pytest.mark.parametrize("arguments", [(), ("--rollback",)], ids=["deploy", "rollback"])
    def test_a_missing_stack_is_refused(self, account: Account, arguments: tuple[str, ...]) -> None:
        refused = account.deploy(*arguments)
        assert refused.returncode == 1
        assert f"stack {STACK} does not exist in eu-central-1" in refused.stdout

    def test_the_caller_is_printed_and_the_region_of_the_command_line_used(self, account: Account) -> None:
        refused = account.deploy("-r", "eu-west-3")
        assert (
            f"staging: stack {STACK} in eu-west-3 of account 123456789012, as arn:aws:iam::" in refused.stdout
        )
        assert "does not exist in eu-west-3" in refused.stdout

    def test_a_missing_repository_is_refused(self, account: Account) -> None:
        refused = account.deploy("--create-stack")
        assert refused.returncode == 1
        assert "/auth-manager not found in eu-central-1" in refused.stdout
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


@pytest.fixture(scope="module")
def bootstrapped(account: Account) -> dict[str, str]:
    """infra/bootstrap.yaml, deployed; its outputs."""
    account.aws(
        *(
            "cloudformation",
            "create-stack",
            "--stack-name",
            BOOTSTRAP,
            "--capabilities",
            "CAPABILITY_NAMED_IAM",
        ),
        *("--template-body", f"file://{account.project}/infra/bootstrap.yaml"),
    )
    account.aws("cloudformation", "wait", "stack-create-complete", "--stack-name", BOOTSTRAP)
    return account.outputs(BOOTSTRAP)


@pytest.fixture(scope="module")
def url(account: Account) -> str:
    """Where the API answers, once there is one."""
    return account.route_everything()


def applied(database: Database) -> list[int]:
    """The migrations that the database has."""
    with database.one_trip() as connection:
        rows = connection.fetch_all("SELECT version FROM auth_manager.schema_migrations ORDER BY version")
    return [row["version"] for row in rows]


def accounts(database: Database) -> int:
    with database.one_trip() as connection:
        [row] = connection.fetch_all("SELECT count(*) FROM auth_manager.accounts")
    number: int = row["count"]
    return number


def next_migration(account: Account, sql: str) -> dict[str, str]:
    """A change that adds a migration."""
    number = len(list((account.project / "src/auth_manager/migrations").glob("*.sql"))) + 1
    return {f"migrations/{number:04}_next.sql": sql}


class TestLife:
    def test_a_build_needs_docker(self, account: Account, bootstrapped: dict[str, str]) -> None:
        assert bootstrapped["RepositoryUri"].endswith("/auth-manager")
        refused = account.deploy("--create-stack", **NO_DOCKER)
        assert refused.returncode == 1
        assert "Docker is not running" in refused.stdout

    def test_it_is_created(
        self,
        account: Account,
        bootstrapped: dict[str, str],
        first_secrets: dict[str, str],
        deployed_database: Database,
    ) -> None:
        done = account.deploy(
            *("--create-stack", "--skip-smoke-test"),
            *("--role-arn", bootstrapped["ExecutionRoleArn"], "--s3-bucket", bootstrapped["ArtefactsBucket"]),
            **first_secrets,
        )
        assert done.returncode == 0, done.stdout
        assert account.live() == "1"
        assert account.live_image().endswith(f"/auth-manager:{account.head()}-x86_64")
        migrations = sorted((account.project / "src/auth_manager/migrations").glob("*.sql"))
        assert applied(deployed_database) == [int(each.name[:4]) for each in migrations]
        for secret in first_secrets.values():
            assert secret not in done.stdout

    def test_the_template_travels_by_the_bucket_of_the_bootstrap_stack(
        self, account: Account, bootstrapped: dict[str, str]
    ) -> None:
        stored = account.aws("s3api", "list-objects-v2", "--bucket", bootstrapped["ArtefactsBucket"])
        assert len(stored["Contents"]) == 1

    def test_nothing_else_differs(self, account: Account, tmp_path: Path) -> None:
        """From template.yaml to what is deployed: TAKEN_OUT, and the image that the script names."""
        answer = account.aws(
            *("cloudformation", "get-template", "--stack-name", STACK, "--template-stage", "Original")
        )
        body = answer["TemplateBody"]
        text = body if isinstance(body, str) else json.dumps(body)
        deployed = read_template(text, tmp_path / "deployed.yaml")
        project = Path(__file__).parents[2] / "template.yaml"
        expected = read_template(project.read_text(encoding="utf-8"), tmp_path / "template.yaml")
        resources = expected["Resources"]
        for name in TAKEN_OUT:
            del resources[name]
        del expected["Conditions"]["WithBudget"]
        preference = resources["ApiFunction"]["Properties"]["DeploymentPreference"]
        preference["Alarms"] = [one for one in preference["Alarms"] if one["Ref"] not in TAKEN_OUT]
        body = resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
        for name in TAKEN_OUT:
            body[0] = body[0].replace(f'"${{{name}.Arn}}", ', "")
        functions = [one for one in resources.values() if one["Type"] == "AWS::Serverless::Function"]
        for function in functions:
            function["Properties"]["ImageUri"] = account.live_image()
        assert len(functions) == 4
        for name, resource in resources.items():
            made = deployed["Resources"].pop(name)
            assert made["Metadata"].pop("SamResourceId") == name  # sam's own
            assert made == {"Metadata": {}} | resource, name
        assert deployed == expected | {"Resources": {}}

    def test_the_secrets_are_kept_as_given(self, account: Account, first_secrets: dict[str, str]) -> None:
        for name, variable in (
            ("signing-keys", "AUTH_SIGNING_KEYS"),
            ("secret-keys", "AUTH_SECRET_KEYS"),
            ("database", "AUTH_DATABASE_URL"),
        ):
            kept = account.aws("secretsmanager", "get-secret-value", "--secret-id", f"{STACK}/{name}")
            assert kept["SecretString"] == first_secrets[variable]

    def test_the_function_has_no_secret_in_its_configuration(
        self, account: Account, first_secrets: dict[str, str]
    ) -> None:
        configuration = account.aws(
            "lambda", "get-function-configuration", "--function-name", account.function()
        )
        variables = configuration["Environment"]["Variables"]
        assert not set(first_secrets.values()) & set(variables.values())
        assert variables["AUTH_PRODUCT_NAME"] == "Our accounts"

    def test_the_same_again_changes_nothing_and_needs_no_docker(
        self, account: Account, bootstrapped: dict[str, str], deployed_database: Database, url: str
    ) -> None:
        """Confirmed, as production; role and bucket from samconfig.toml from here on; then the smoke test."""
        with (account.project / "samconfig.toml").open("a", encoding="utf-8") as file:
            for name in ("staging", "production"):
                file.write(f"[{name}.global.parameters]\n")
                file.write(f'role_arn = "{bootstrapped["ExecutionRoleArn"]}"\n')
                file.write(f's3_bucket = "{bootstrapped["ArtefactsBucket"]}"\n')
        image = account.live_image()
        done = account.deploy("--env", "production", "--yes", "--url", url, **NO_DOCKER)
        assert done.returncode == 0, done.stdout
        assert f"image already there: {image}" in done.stdout
        assert f"{url} works" in done.stdout
        assert (account.live(), account.live_image(), account.versions()) == ("1", image, ["1"])
        assert accounts(deployed_database) == 0

    def test_a_dry_run_changes_nothing(
        self, account: Account, bootstrapped: dict[str, str], deployed_database: Database
    ) -> None:
        before = applied(deployed_database)
        sql = (
            "CREATE TABLE auth_manager.proof (made timestamptz CONSTRAINT proof_made NOT NULL DEFAULT now());"
        )
        account.commit(next_migration(account, sql))
        shown = account.deploy("--dry-run", **NO_DOCKER)
        assert shown.returncode == 0, shown.stdout
        for step in (
            "sam build",
            "docker push",
            "lambda update-function-code",
            "lambda invoke",
            "sam deploy",
        ):
            assert step in shown.stdout.replace(".venv-tools/bin/", "")
        assert (
            f" --s3-bucket {bootstrapped['ArtefactsBucket']} --role-arn {bootstrapped['ExecutionRoleArn']} "
            in (shown.stdout)
        )
        assert account.versions() == ["1"]
        assert applied(deployed_database) == before

    def test_a_new_image_migrates_and_gets_the_traffic(
        self, account: Account, deployed_database: Database, url: str
    ) -> None:
        before = applied(deployed_database)
        done = account.deploy("--url", url)
        assert done.returncode == 0, done.stdout
        assert account.live() == "2"
        assert account.live_image().endswith(f"{account.head()}-x86_64")
        assert applied(deployed_database) == [*before, before[-1] + 1]
        assert done.stdout.index("migrating the database") < done.stdout.index("Initiating deployment")

    def test_migrations_that_fail_leave_the_traffic_where_it_is(
        self, account: Account, deployed_database: Database, url: str
    ) -> None:
        before, image = applied(deployed_database), account.live_image()
        account.commit(next_migration(account, "SELECT 1 / 0;"))
        refused = account.deploy("--url", url)
        assert refused.returncode == 1, refused.stdout
        assert "the migrations failed, and traffic stays where it is" in refused.stdout
        assert (account.live(), account.live_image(), account.versions()) == ("2", image, ["1", "2"])
        assert applied(deployed_database) == before
        account.undo_commit()

    def test_what_does_not_work_is_taken_back(self, account: Account, url: str) -> None:
        image = account.live_image()
        account.commit({"login/service.py": BROKEN_LOGIN})
        done = account.deploy("--url", url)
        assert done.returncode == 3, done.stdout
        assert "POST /auth/login answered 500 instead of 200" in done.stdout
        assert (account.live(), account.live_image(), account.versions()) == ("2", image, ["1", "2", "3"])

    def test_it_is_tried_and_taken_back_when_it_comes_again(self, account: Account, url: str) -> None:
        done = account.deploy("--url", url)
        assert done.returncode == 3, done.stdout
        assert "image already there" in done.stdout
        assert "traffic goes to version 3" in done.stdout
        assert account.live() == "2"
        account.undo_commit()

    def test_a_rollback_goes_to_the_version_before(self, account: Account, url: str) -> None:
        done = account.deploy("--rollback", "--url", url, **NO_DOCKER)
        assert done.returncode == 0, done.stdout
        assert f"{url} works" in done.stdout
        assert account.live() == "1"
        refused = account.deploy("--rollback")
        assert refused.returncode == 1
        assert "there is no version before 1" in refused.stdout

    def test_a_rollback_goes_to_the_version_named(self, account: Account, url: str) -> None:
        refused = account.deploy("--rollback", "99")
        assert refused.returncode == 1
        assert "there is no version 99" in refused.stdout
        broken = account.deploy("--rollback", "3", "--url", url)
        assert broken.returncode == 1
        assert "does not work with version 3 either" in broken.stdout
        done = account.deploy("--rollback", "2", "--url", url)
        assert done.returncode == 0, done.stdout
        assert account.live() == "2"

    def test_what_was_built_is_pushed_without_a_build(self, account: Account, url: str) -> None:
        """The last build is that of the broken login, which is not the commit any more."""
        image = account.live_image()
        built = (account.project / ".aws-sam/build/template.yaml").read_text(encoding="utf-8")
        assert image.rpartition(":")[2].removesuffix("-x86_64") not in built
        shown = account.deploy("--skip-build", "--dry-run")
        assert shown.returncode == 0, shown.stdout
        assert "sam build" not in shown.stdout
        [tag] = {line.split(":")[-1] for line in built.splitlines() if "ImageUri" in line}
        assert f"image already there: {image.rpartition(':')[0]}:{tag}-x86_64" in shown.stdout
        account.aws(
            *("ecr", "batch-delete-image", "--repository-name", "auth-manager"),
            *("--image-ids", f"imageTag={tag}-x86_64"),
        )
        done = account.deploy("--skip-build", "--url", url)
        assert done.returncode == 3, done.stdout
        assert "docker push" not in done.stdout
        assert "Step 1/" not in done.stdout
        pushed = account.aws("ecr", "list-images", "--repository-name", "auth-manager")["imageIds"]
        assert f"{tag}-x86_64" in {one.get("imageTag") for one in pushed}

    def test_the_secrets_outlive_it(self, account: Account, first_secrets: dict[str, str]) -> None:
        account.aws("cloudformation", "delete-stack", "--stack-name", STACK)
        account.aws("cloudformation", "wait", "stack-delete-complete", "--stack-name", STACK)
        refused = account.deploy("--rollback")
        assert f"stack {STACK} does not exist" in refused.stdout
        kept = account.aws("secretsmanager", "get-secret-value", "--secret-id", f"{STACK}/signing-keys")
        assert kept["SecretString"] == first_secrets["AUTH_SIGNING_KEYS"]


class TestTakeOut:
    def test_a_resource_that_is_not_there_is_noticed(self) -> None:
        with pytest.raises(AssertionError, match="Api5xxAlarm"):
            take_out("Resources:\n  Other:\n    Type: X\n")

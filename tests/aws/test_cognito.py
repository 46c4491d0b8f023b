"""Cognito as the former system."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest
from moto import mock_aws

from auth_manager import observability
from auth_manager.aws import cognito
from auth_manager.aws.cognito import open_cognito
from auth_manager.aws.signature_v4 import AwsRefused
from auth_manager.errors import FormerSystemUnavailable
from auth_manager.ids import new_id
from auth_manager.lazy_migration import DEADLINE, CheckElsewhere, FormerUser
from auth_manager.settings import Settings

REGION = "eu-central-1"
PASSWORD = "Correct-Horse-7!"
ADA = FormerUser(new_id(), "ada@example.com", "ada")


MakePool = Callable[..., tuple[Any, str, CheckElsewhere]]


@pytest.fixture
def make_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePool]:
    """Creates a user pool; it is asked through boto3, as there are no credentials in the environment."""
    with mock_aws():
        client: Any = boto3.client("cognito-idp", region_name=REGION)
        monkeypatch.setattr(cognito, "environment_credentials", lambda: None)

        def make(**options: object) -> tuple[Any, str, CheckElsewhere]:
            pool = client.create_user_pool(PoolName="old", **options)["UserPool"]["Id"]
            app = client.create_user_pool_client(
                UserPoolId=pool,
                ClientName="migration",
                ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH"],
                ReadAttributes=["email"],
            )["UserPoolClient"]["ClientId"]
            return client, pool, open_cognito(f"{pool}/{app}")

        yield make


def create(client: Any, pool: str, username: str, email: str, password: str = PASSWORD) -> None:
    attributes = [{"Name": "email", "Value": email}]
    client.admin_create_user(
        UserPoolId=pool, Username=username, UserAttributes=attributes, MessageAction="SUPPRESS"
    )
    client.admin_set_user_password(UserPoolId=pool, Username=username, Password=password, Permanent=True)


@pytest.fixture
def check(make_pool: MakePool) -> CheckElsewhere:
    """A user pool that signs in by the address, with Ada."""
    client, pool, check = make_pool(UsernameAttributes=["email"])
    create(client, pool, ADA.email, ADA.email)
    client.admin_create_user(
        UserPoolId=pool, Username="new@example.com", TemporaryPassword=PASSWORD, MessageAction="SUPPRESS"
    )
    return check


class Cognito:
    """Answers AdminInitiateAuth on loopback, which moto's own does not refuse as the real one does."""

    def __init__(self, refusal: Mapping[str, str]) -> None:
        cognito = self
        self.questions = 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                cognito.questions += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                content = json.dumps(refusal).encode()
                self.send_response(400)
                self.send_header("x-amzn-errortype", refusal["__type"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class TestNames:
    """A pool signs in by usernames, or by addresses, or by both."""

    def test_a_pool_of_usernames(self, make_pool: MakePool) -> None:
        client, pool, check = make_pool()
        create(client, pool, "ada", ADA.email)
        assert check(ADA, PASSWORD)
        assert not check(ADA, "wrong")
        assert not check(FormerUser(ADA.id, ADA.email, None), PASSWORD)

    def test_a_username_that_is_somebody_else_there_opens_nothing(self, make_pool: MakePool) -> None:
        client, pool, check = make_pool(UsernameAttributes=["email"])
        create(client, pool, "mallory@example.com", "mallory@example.com")
        assert not check(FormerUser(ADA.id, ADA.email, "mallory@example.com"), PASSWORD)
        create(client, pool, ADA.email, ADA.email, PASSWORD + "2")
        assert check(FormerUser(ADA.id, ADA.email, "mallory@example.com"), PASSWORD + "2")

    def test_a_client_that_may_not_read_the_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cognito, "_call", lambda *_: {"AuthenticationResult": {"IdToken": "e30.e30.x"}})
        assert open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

    @pytest.mark.parametrize("code", ["UserNotFoundException", "NotAuthorizedException"])
    @pytest.mark.parametrize("known", [ADA.username, ADA.email])
    def test_two_questions_at_most_whatever_the_refusal_is_called(
        self, monkeypatch: pytest.MonkeyPatch, code: str, known: str
    ) -> None:
        """A client that prevents user existence errors refuses a name as it refuses a password."""
        asked = []

        def answer(_region: str, request: dict[str, Any], _timeout: float) -> dict[str, Any]:
            parameters = request["AuthParameters"]
            asked.append(parameters["USERNAME"])
            if parameters != {"USERNAME": known, "PASSWORD": PASSWORD}:
                raise AwsRefused(code, "Incorrect username or password.")
            return {"AuthenticationResult": {"IdToken": "e30.e30.x"}}

        monkeypatch.setattr(cognito, "_call", answer)
        check = open_cognito(f"{REGION}_AbC/client")
        assert check(ADA, PASSWORD)
        assert asked == ["ada", "ada@example.com"][: 1 if known == "ada" else 2]
        asked.clear()
        assert not check(ADA, "wrong")
        assert asked == ["ada", "ada@example.com"]

    def test_both_questions_together_have_the_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([100.0, 100.0, 102.0, 200.0, 200.0, 203.5])
        timeouts = []

        def refuse(_region: str, _request: object, timeout: float) -> dict[str, Any]:
            timeouts.append(timeout)
            raise AwsRefused("UserNotFoundException")

        monkeypatch.setattr(cognito, "monotonic", lambda: next(clock))
        monkeypatch.setattr(cognito, "_call", refuse)
        check = open_cognito(f"{REGION}_AbC/client")
        assert not check(ADA, PASSWORD)
        with pytest.raises(FormerSystemUnavailable):
            check(ADA, PASSWORD)
        assert timeouts == [DEADLINE, DEADLINE - 2, DEADLINE]


class TestCheck:
    def test_the_right_password(self, check: CheckElsewhere) -> None:
        assert check(ADA, PASSWORD)

    def test_a_wrong_one(self, check: CheckElsewhere) -> None:
        assert not check(ADA, "wrong")

    def test_somebody_who_is_not_there(self, check: CheckElsewhere) -> None:
        assert not check(FormerUser(new_id(), "nobody@example.com", None), PASSWORD)

    def test_a_password_that_an_administrator_gave_out(self, check: CheckElsewhere) -> None:
        assert not check(FormerUser(new_id(), "new@example.com", None), PASSWORD)

    @pytest.mark.usefixtures("check")
    def test_a_pool_that_is_not_there(self) -> None:
        with pytest.raises(FormerSystemUnavailable):
            open_cognito(f"{REGION}_Gone/client")(ADA, PASSWORD)

    @pytest.mark.parametrize("code", ["", "TooManyRequestsException", "AccessDeniedException", "500"])
    def test_whatever_else_says_nothing(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        def refuse(*_: object) -> dict[str, Any]:
            raise AwsRefused(code)

        monkeypatch.setattr(cognito, "_call", refuse)
        with pytest.raises(FormerSystemUnavailable):
            open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

    @pytest.mark.parametrize("challenge", ["SMS_MFA", "SOFTWARE_TOKEN_MFA"])
    def test_a_second_factor_there_means_that_the_password_was_right(
        self, monkeypatch: pytest.MonkeyPatch, challenge: str
    ) -> None:
        monkeypatch.setattr(cognito, "_call", lambda *_: {"ChallengeName": challenge})
        assert open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

    def test_an_answer_of_nothing_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cognito, "_call", lambda *_: {})
        with pytest.raises(FormerSystemUnavailable):
            open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

    @pytest.mark.parametrize("tokens", [{"AccessToken": "x"}, {"IdToken": "x"}, {"IdToken": "x.bnVsbA.x"}])
    def test_an_answer_without_a_readable_id_token_says_nothing(
        self, monkeypatch: pytest.MonkeyPatch, tokens: dict[str, str]
    ) -> None:
        monkeypatch.setattr(cognito, "_call", lambda *_: {"AuthenticationResult": tokens})
        with pytest.raises(FormerSystemUnavailable):
            open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)

    @pytest.mark.parametrize("by_boto3", [False, True], ids=["signed", "boto3"])
    def test_a_client_with_a_secret_says_nothing_and_the_log_says_why(
        self,
        monkeypatch: pytest.MonkeyPatch,
        make_settings: Callable[..., Settings],
        capsys: pytest.CaptureFixture[str],
        *,
        by_boto3: bool,
    ) -> None:
        observability.configure_logging(make_settings())
        endpoint = Cognito(
            {
                "__type": "NotAuthorizedException",
                "message": "Client abc is configured with secret but SECRET_HASH was not received",
            }
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        if by_boto3:
            monkeypatch.setattr(cognito, "environment_credentials", lambda: None)
        try:
            with pytest.raises(FormerSystemUnavailable):
                open_cognito(f"{REGION}_AbC/client")(ADA, PASSWORD)
        finally:
            endpoint.close()
        assert endpoint.questions == 1
        [line] = map(json.loads, capsys.readouterr().out.splitlines())
        assert (line["message"], line["reason"]) == (
            "lazy_migration_unavailable",
            "cognito_client_has_secret",
        )

"""SES, against moto; its refusals by botocore's own stub."""

from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID  # type: ignore[attr-defined]
from moto.ses.models import ses_backends
from tests.mail.scenes import NOW, SENDER, body, message

from auth_manager.aws.ses import open_ses
from auth_manager.mail import Email, MailRefused, MailUnavailable
from auth_manager.mail.compose import Composer
from auth_manager.one_time_secrets import OneTimeSecrets
from auth_manager.secret_keys import SecretKeys
from auth_manager.settings import Settings

REGION = "eu-central-1"


@pytest.fixture
def compose(make_settings: Callable[..., Settings]) -> Callable[..., Email]:
    settings = make_settings(mail_from=SENDER)
    composer = Composer(settings, OneTimeSecrets(SecretKeys(settings.secret_keys)))
    return lambda **members: composer.compose(message(**members), now=NOW)


@pytest.fixture
def ses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield boto3.client("sesv2")


class TestSend:
    def test_the_whole_mail_goes_out_as_it_is(self, ses: Any, compose: Callable[..., Email]) -> None:
        ses.create_email_identity(EmailIdentity="no-reply@example.com")
        email = compose(locale="fr", recipient="test@bücher.example.com")
        open_ses()(email)
        [sent] = ses_backends[DEFAULT_ACCOUNT_ID][REGION].sent_messages
        content = message_from_bytes(sent.raw_data.encode(), policy=policy.default)
        assert content["To"] == "test@xn--bcher-kva.example.com"
        assert content["From"] == "Démo <no-reply@example.com>"
        assert content["X-Entity-Ref-ID"] == email.id
        assert body(content, "plain") == body(email.content, "plain")
        assert body(content, "html") == body(email.content, "html")

    def test_it_does_not_speak_smtputf8(self, ses: Any, compose: Callable[..., Email]) -> None:  # noqa: ARG002
        with pytest.raises(MailRefused, match="address_needs_smtputf8"):
            open_ses()(compose(recipient="jörg@example.com"))

    def test_no_answer_is_temporary(
        self, compose: Callable[..., Email], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(MailUnavailable, match="ses_no_answer"):
            open_ses()(compose())

    @pytest.mark.parametrize(
        ("code", "text", "failure", "reason"),
        [
            ("TooManyRequestsException", "Rate exceeded", MailUnavailable, "ses_TooManyRequestsException"),
            ("LimitExceededException", "Daily quota", MailUnavailable, "ses_LimitExceededException"),
            ("SendingPausedException", "paused", MailUnavailable, "ses_SendingPausedException"),
            ("AccountSuspendedException", "x", MailUnavailable, "ses_AccountSuspendedException"),
            (
                "MailFromDomainNotVerifiedException",
                "x",
                MailUnavailable,
                "ses_MailFromDomainNotVerifiedException",
            ),
            ("AccessDeniedException", "x", MailUnavailable, "ses_AccessDeniedException"),
            ("InternalFailure", "x", MailUnavailable, "ses_InternalFailure"),
            (
                "MessageRejected",
                "Email address is not verified. The following identities failed: test@example.com",
                MailUnavailable,
                "ses_MessageRejected",
            ),
            ("MessageRejected", "Address blacklisted: test@example.com", MailRefused, "ses_content_refused"),
            ("BadRequestException", "Missing final '@domain'", MailRefused, "ses_request_refused"),
        ],
    )
    def test_refusals(
        self,
        compose: Callable[..., Email],
        monkeypatch: pytest.MonkeyPatch,
        code: str,
        text: str,
        failure: type[MailUnavailable] | type[MailRefused],
        reason: str,
    ) -> None:
        client = boto3.client("sesv2", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="y")
        monkeypatch.setattr(boto3, "client", lambda *_args, **_options: client)
        with Stubber(client) as stub:
            stub.add_client_error("send_email", code, text)
            with pytest.raises(failure, match=f"^{reason}$"):
                open_ses()(compose())

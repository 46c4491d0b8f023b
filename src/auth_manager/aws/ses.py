"""AWS SES."""

from email.policy import SMTP
from typing import TYPE_CHECKING

from auth_manager.mail import Email, MailRefused, MailUnavailable, Send

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_PERMANENT = {"MessageRejected": "content_refused", "BadRequestException": "request_refused"}
"""What no later attempt changes. Everything else is time's or an operator's to mend: throttling, a quota, a
sending pause, an identity that is not verified yet."""

_UNVERIFIED = "not verified"
"""MessageRejected says this of an identity, which is mended by verifying it."""


def open_ses() -> Send:
    """Return what sends by SES, in the region of the environment, with the credentials of boto3's chain.

    SES writes a Message-ID of its own; X-Entity-Ref-ID stays. It does not speak SMTPUTF8.
    """
    import boto3  # noqa: PLC0415 -- costs as much as FastAPI
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=3, read_timeout=8, retries={"mode": "standard", "total_max_attempts": 2})
    client = boto3.client("sesv2", config=config)

    def send(email: Email) -> None:
        if email.needs_smtputf8:
            raise MailRefused("address_needs_smtputf8")
        try:
            client.send_email(
                FromEmailAddress=email.sender,
                Destination={"ToAddresses": [email.recipient]},
                Content={"Raw": {"Data": email.content.as_bytes(policy=SMTP)}},
            )
        except ClientError as error:
            raise _failure(error) from error
        except BotoCoreError as error:
            raise MailUnavailable("ses_no_answer") from error

    return send


def _failure(error: "ClientError") -> MailRefused | MailUnavailable:
    found = error.response.get("Error", {})
    code = found.get("Code", "")
    if code in _PERMANENT and _UNVERIFIED not in found.get("Message", ""):
        return MailRefused(f"ses_{_PERMANENT[code]}")
    return MailUnavailable(f"ses_{code}")

"""How a client presents what was mailed: fields that several routes share."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from auth_manager.proofs import Proof
from auth_manager.web.idempotent import Answer

Email = Annotated[str, Field(max_length=320, examples=["test@example.com"])]
Locale = Annotated[
    str,
    Field(
        max_length=35,
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$",
        description="A BCP 47 language tag; mails come in it where there are templates for it.",
        examples=["fr"],
    ),
]


class ByMail(BaseModel):
    """To whom a mail goes."""

    model_config = ConfigDict(extra="forbid")

    email: Email


class MailAccepted(BaseModel):
    """What everyone reads, whether a mail is on its way or not."""

    request: Annotated[UUID, Field(description="Present it together with the code of the mail")]
    detail: str = "If this can be done, a mail is on its way."


def mail_accepted(request: UUID) -> Answer:
    """Render the answer to everyone who asks for a mail."""
    return 202, MailAccepted(request=request).model_dump_json().encode()


Token = Annotated[SecretStr, Field(max_length=256, description="From the link")]


class LinkFields(BaseModel):
    """The `token` of a link whose mail has no code."""

    model_config = ConfigDict(extra="forbid")

    token: Token


class ProofFields(BaseModel):
    """Either the `token` of a link, or a `code` with the `request` that it was mailed for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["token"]}, {"required": ["request", "code"]}]},
    )

    token: Token | None = None
    request: Annotated[UUID, Field(description="From the answer that announced the mail")] | None = None
    code: Annotated[SecretStr, Field(max_length=16, description="Six digits, from the mail")] | None = None

    @model_validator(mode="after")
    def _exactly_one_form(self) -> "ProofFields":
        by_code = self.request is not None and self.code is not None
        partly = self.request is not None or self.code is not None
        if (self.token is not None) == partly or (partly and not by_code):
            raise ValueError("Give either token, or request and code.")
        return self

    @property
    def proof(self) -> Proof:
        """What is presented."""
        return Proof(
            token=self.token.get_secret_value() if self.token else None,
            request=self.request,
            code=self.code.get_secret_value() if self.code else None,
        )

"""Every failure the service names: one class each, with its HTTP status and its stable code.

The first docstring line of a class is its public title (RFC 9457 `title`); docs/errors.md lists them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid member of a request body or query, without the submitted value.

    `pointer` is an RFC 6901 JSON pointer into the body, or `?name` for a query parameter.
    """

    pointer: str
    code: str
    detail: str


class AuthError(Exception):
    """The request failed."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after: int | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        """Describe this occurrence.

        Args:
            detail: what a person reads; never submitted data, never internals.
            retry_after: whole seconds until a retry can succeed.
            errors: invalid fields, for 422.
            headers: further response headers.
            members: further members of the problem (RFC 9457 section 3.2), which JSON can say.
        """
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.retry_after = retry_after
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    @classmethod
    def title(cls) -> str:
        """Return the public title: the first line of the class docstring."""
        return (cls.__doc__ or AuthError.__doc__ or "").strip().splitlines()[0]


class InternalError(AuthError):
    """Something went wrong on our side."""


# --- the shape of a request ------------------------------------------------------------------------


class MalformedRequest(AuthError):
    """The request is malformed."""

    status = 400
    code = "malformed_request"


class OriginRefused(AuthError):
    """Requests are taken from the edge alone."""

    status = 403
    code = "origin_refused"


class NotFound(AuthError):
    """There is nothing here."""

    status = 404
    code = "not_found"


class MethodNotAllowed(AuthError):
    """This resource does not support that method."""

    status = 405
    code = "method_not_allowed"


class PreconditionFailed(AuthError):
    """This was changed since you read it."""

    status = 412
    code = "precondition_failed"


class BodyTooLarge(AuthError):
    """The request body is too large."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaType(AuthError):
    """The request body must be application/json."""

    status = 415
    code = "unsupported_media_type"


class InvalidFields(AuthError):
    """Some fields are invalid."""

    status = 422
    code = "invalid_fields"


class IdempotencyKeyReused(AuthError):
    """This Idempotency-Key was used for another request."""

    status = 422
    code = "idempotency_key_reused"


class IdempotencyKeyInProgress(AuthError):
    """A request with this Idempotency-Key is still running."""

    status = 409
    code = "idempotency_key_in_progress"


class TooManyRequests(AuthError):
    """Too many requests."""

    status = 429
    code = "too_many_requests"


class CrossSiteRequest(AuthError):
    """This form was not sent from one of our own pages."""

    status = 403
    code = "cross_site_request"


# --- accounts --------------------------------------------------------------------------------------


class EmailTaken(AuthError):
    """An account with this e-mail address exists."""

    status = 409
    code = "email_taken"


class UsernameTaken(AuthError):
    """An account with this username exists."""

    status = 409
    code = "username_taken"


# --- logging in ------------------------------------------------------------------------------------


class InvalidCredentials(AuthError):
    """The credentials are not valid."""

    status = 401
    code = "invalid_credentials"


class TooManyAttempts(AuthError):
    """Too many failed attempts."""

    status = 429
    code = "too_many_attempts"


class AccountDisabled(AuthError):
    """This account is disabled."""

    status = 403
    code = "account_disabled"


class EmailNotVerified(AuthError):
    """The e-mail address is not verified yet."""

    status = 403
    code = "email_not_verified"


class MfaRequired(AuthError):
    """A second factor is needed.

    `mfa_token` goes to /auth/login/mfa with one of `factors`, within `expires_in` seconds.
    """

    status = 403
    code = "mfa_required"


class MfaEnrolmentRequired(AuthError):
    """A second factor must be set up first.

    `mfa_token` goes to /auth/login/mfa/enrolment, within `expires_in` seconds.
    """

    status = 403
    code = "mfa_enrolment_required"


class InvalidMfaToken(AuthError):
    """The sign-in is too old, or was finished before; start again."""

    status = 401
    code = "invalid_mfa_token"


class InvalidFactor(AuthError):
    """The second factor is not valid."""

    status = 401
    code = "invalid_factor"


class InvalidPasskey(AuthError):
    """The passkey was not accepted."""

    status = 401
    code = "invalid_passkey"


class FactorNeeded(AuthError):
    """This account needs a second factor."""

    status = 409
    code = "factor_needed"


class PasskeyKnown(AuthError):
    """This passkey is registered already."""

    status = 409
    code = "passkey_known"


class TooManyFactors(AuthError):
    """There are as many of these as an account may have."""

    status = 409
    code = "too_many_factors"


class Forbidden(AuthError):
    """You may not do this."""

    status = 403
    code = "forbidden"


class LastAdministrator(AuthError):
    """Somebody has to remain who may administer."""

    status = 409
    code = "last_administrator"


class CountChanged(AuthError):
    """Another number of accounts is meant by now."""

    status = 409
    code = "count_changed"


class RoleBuiltIn(AuthError):
    """A built-in role can be neither changed nor deleted."""

    status = 409
    code = "role_built_in"


class RoleTaken(AuthError):
    """A role with this name exists."""

    status = 409
    code = "role_taken"


class TooManyWebhooks(AuthError):
    """There are as many webhook endpoints as there may be."""

    status = 409
    code = "too_many_webhooks"


class WebhookDisabled(AuthError):
    """This webhook endpoint is disabled."""

    status = 409
    code = "webhook_disabled"


class InvalidOneTimeSecret(AuthError):
    """The code or the link is not valid, or was used before."""

    status = 400
    code = "invalid_one_time_secret"


class SignUpClosed(AuthError):
    """An account needs an invitation here."""

    status = 403
    code = "sign_up_closed"


# --- tokens and sessions ---------------------------------------------------------------------------


class MissingToken(AuthError):
    """An access token is needed."""

    status = 401
    code = "missing_token"


class InvalidToken(AuthError):
    """The access token is not valid."""

    status = 401
    code = "invalid_token"


class SessionEnded(AuthError):
    """The session has ended."""

    status = 401
    code = "session_ended"


class RecentAuthenticationRequired(AuthError):
    """This needs a recent authentication.

    RFC 9470: the challenge carries `error="insufficient_user_authentication"` and `max_age`.
    """

    status = 401
    code = "insufficient_user_authentication"


class InvalidRefreshToken(AuthError):
    """The refresh token is not valid."""

    status = 401
    code = "invalid_refresh_token"


class RefreshTokenReused(AuthError):
    """The refresh token was used before; its session has ended."""

    status = 401
    code = "refresh_token_reused"


# --- the service itself ----------------------------------------------------------------------------


class ServiceUnavailable(AuthError):
    """The service is not available right now."""

    status = 503
    code = "service_unavailable"

    def __init__(self, detail: str = "", *, retry_after: int = 2) -> None:
        """A 503 always says when to come back (RFC 9110 section 10.2.3)."""
        super().__init__(detail, retry_after=retry_after)


class DatabaseUnavailable(ServiceUnavailable):
    """The database is not available right now."""

    code = "database_unavailable"


class FormerSystemUnavailable(ServiceUnavailable):
    """The system that this account came from does not answer right now."""

    code = "former_system_unavailable"


class NotReady(ServiceUnavailable):
    """A part the service needs is not ready."""

    code = "not_ready"


class ConfigurationError(Exception):
    """The service refuses to start: a setting is missing, weak or contradictory.

    Not an `AuthError`: it is raised before there is a request to answer.
    """

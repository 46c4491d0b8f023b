"""What each route may spend when it succeeds, without an Idempotency-Key: the one table.

A test drives every route and fails when one spends more, or less, than it says here. At run time what is
over budget is logged, so that a repeated round trip or a second hash shows where it happens.
"""

from dataclasses import dataclass

from auth_manager.spending import Spent


@dataclass(frozen=True, slots=True)
class Budget:
    """Round trips to the database, password hashes, calls to AWS where a queue is configured."""

    round_trips: int
    hashes: int = 0
    aws_calls: int = 0

    def covers(self, spent: Spent) -> bool:
        """Tell whether a request stayed within it."""
        return (
            spent.round_trips.count <= self.round_trips
            and spent.hashes.count <= self.hashes
            and spent.aws_calls.count <= self.aws_calls
        )


BUDGETS = {
    "GET /health": Budget(0),
    "GET /health/ready": Budget(1),
    "GET /.well-known/jwks.json": Budget(0),
    "GET /.well-known/openid-configuration": Budget(0),
    # The limit before the hash, everything else after it. Verified mode: once more, because a transaction
    # must see whether the address was free before it can say so.
    "POST /auth/register": Budget(3, hashes=1, aws_calls=1),
    "GET /auth/me": Budget(1),
    "PATCH /auth/me": Budget(1),
    "DELETE /auth/me": Budget(1, aws_calls=1),
    # A list each: nobody exports often.
    "GET /auth/me/export": Budget(11),
    "POST /auth/me/keep": Budget(2),
    # Reserve or find; then use. A new address has a notice for the old one.
    "POST /auth/verify-email": Budget(2, aws_calls=1),
    # The limit; then the secret and its mail.
    "POST /auth/verify-email/resend": Budget(2, aws_calls=1),
    "POST /auth/email/change": Budget(2, aws_calls=1),
    "POST /auth/password/forgot": Budget(2, aws_calls=1),
    # The account between the two, for the words that its password must not be made of.
    "POST /auth/password/reset": Budget(3, hashes=1, aws_calls=1),
    "POST /auth/password/change": Budget(2, hashes=2, aws_calls=1),
    "POST /auth/invitations/accept": Budget(2, hashes=1),
    # Reserve and read; then write the outcome. A hash of other parameters is made anew: once.
    "POST /auth/login": Budget(2, hashes=2),
    "POST /auth/email-login": Budget(2, aws_calls=1),
    # Look at the link, or count a guess of the code; the account, and the lock of a link; then the session.
    "POST /auth/email-login/verify": Budget(3),
    # Reserve and read; then use the factor and open the session.
    "POST /auth/login/mfa": Budget(2, hashes=1),
    "POST /auth/login/mfa/enrolment": Budget(2),
    # The ticket, the pending factor, its confirmation with ten recovery codes; then the account, the session.
    "POST /auth/login/mfa/enrolment/confirm": Budget(5, hashes=10),
    "GET /auth/mfa": Budget(1),
    "POST /auth/mfa/totp": Budget(1),
    # What waits; then its confirmation with ten recovery codes.
    "POST /auth/mfa/totp/confirm": Budget(2, hashes=10),
    "DELETE /auth/mfa/totp": Budget(2),
    "POST /auth/mfa/recovery-codes": Budget(2, hashes=10),
    "GET /auth/mfa/devices": Budget(1),
    "DELETE /auth/mfa/devices/{device_id}": Budget(1),
    "POST /auth/passkeys/registration/options": Budget(1),
    # The challenge; then the passkey, with ten recovery codes.
    "POST /auth/passkeys/registration/verify": Budget(2, hashes=10),
    # The limit of what anybody may ask for; then the challenge.
    "POST /auth/passkeys/authentication/options": Budget(2),
    # Reserve and read; then open the session.
    "POST /auth/passkeys/authentication/verify": Budget(2),
    "GET /auth/passkeys": Budget(1),
    "GET /auth/passkeys/{passkey_id}": Budget(1),
    "PATCH /auth/passkeys/{passkey_id}": Budget(1),
    # Who has which, locked; then the removal.
    "DELETE /auth/passkeys/{passkey_id}": Budget(2),
    "GET /admin/users": Budget(1),
    "POST /admin/users": Budget(1, aws_calls=1),
    # Who they are, locked; then the act.
    "POST /admin/users/bulk": Budget(2),
    "GET /admin/users/{account_id}": Budget(1),
    # A new address has a proof, and a notice for the old one.
    "PATCH /admin/users/{account_id}": Budget(1, aws_calls=1),
    "DELETE /admin/users/{account_id}": Budget(1, aws_calls=1),
    "POST /admin/users/{account_id}/disable": Budget(1),
    "POST /admin/users/{account_id}/enable": Budget(1),
    "POST /admin/users/{account_id}/unlock": Budget(1),
    "POST /admin/users/{account_id}/recovery": Budget(1, aws_calls=1),
    "POST /admin/users/{account_id}/logout": Budget(1),
    "POST /admin/users/{account_id}/mfa-reset": Budget(1),
    # The account, locked; then the session.
    "POST /admin/users/{account_id}/impersonate": Budget(2),
    "GET /admin/users/{account_id}/sessions": Budget(1),
    "DELETE /admin/users/{account_id}/sessions/{session_id}": Budget(1),
    # Whether the address is free; then the invitation.
    "POST /admin/invitations": Budget(2, aws_calls=1),
    "GET /admin/roles": Budget(1),
    "POST /admin/roles": Budget(1),
    "GET /admin/roles/{name}": Budget(1),
    # The role, locked; then the change. Before the end of one also how many have it.
    "PATCH /admin/roles/{name}": Budget(2),
    "DELETE /admin/roles/{name}": Budget(3),
    # What the account has, locked; then the change.
    "PUT /admin/users/{account_id}/roles": Budget(2),
    "GET /admin/webhooks": Budget(1),
    "POST /admin/webhooks": Budget(1),
    "GET /admin/webhooks/{endpoint_id}": Budget(1),
    "PATCH /admin/webhooks/{endpoint_id}": Budget(1),
    "DELETE /admin/webhooks/{endpoint_id}": Budget(1),
    # The new secret; then what the endpoint is now, and the note of the answer.
    "POST /admin/webhooks/{endpoint_id}/rotate-secret": Budget(2),
    "POST /admin/webhooks/{endpoint_id}/test": Budget(1, aws_calls=1),
    "GET /admin/webhooks/{endpoint_id}/deliveries": Budget(1),
    "POST /admin/webhooks/{endpoint_id}/deliveries/{message_id}/replay": Budget(1, aws_calls=1),
    "GET /admin/audit": Budget(1),
    "POST /auth/refresh": Budget(1),
    "POST /auth/logout": Budget(1),
    "GET /auth/sessions": Budget(1),
    "DELETE /auth/sessions/{session_id}": Budget(1),
    "POST /auth/reauthenticate": Budget(2, hashes=1),
    "POST /auth/reauthenticate/mail": Budget(2, aws_calls=1),
}

"""Inviting a person to an account, and accepting: the way in where sign-up is closed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from auth_manager import account_roles, audit, one_time_secrets, outbox, rate_limits
from auth_manager.accounts import Account
from auth_manager.accounts import service as accounts_service
from auth_manager.accounts import store as accounts_store
from auth_manager.accounts.service import Registration
from auth_manager.administrators import actor, authorize
from auth_manager.audit import Origin
from auth_manager.errors import EmailTaken, InvalidOneTimeSecret
from auth_manager.idempotency import Record
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.outbox import Kind, NewMessage
from auth_manager.proofs import lifetime, look_at, parse_email
from auth_manager.resources import Resources
from auth_manager.tokens import AccessClaims


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What an invited person chooses; the address is the invitation's."""

    password: str = field(repr=False)
    username: str | None = None
    display_name: str | None = None
    locale: str | None = None


def invite(
    resources: Resources,
    origin: Origin,
    email: str,
    *,
    roles: Sequence[str] = (),
    invited_by: str | None = None,
    locale: str | None = None,
    claims: AccessClaims | None = None,
    record: Record[UUID] | None = None,
) -> UUID:
    """Mail an invitation, on an administrator's or an operator's word; return its request.

    Args:
        resources: of this process.
        origin: where they are.
        email: who is invited.
        roles: that the account will have, besides the default ones.
        invited_by: a name for the mail.
        locale: language of the mail.
        claims: of the administrator, None for an operator.
        record: of an Idempotency-Key.

    Raises:
        InvalidFields: it is no address, or there is no such role.
        EmailTaken: the person has an account.
        Forbidden: the caller lacks invitations:write, or what one of the roles gives.
        RecentAuthenticationRequired, SessionEnded: as for `authorize`.
    """
    email_normalized = parse_email(email)
    secret = OneTimeSecret(
        id=new_id(),
        purpose=Purpose.INVITATION,
        account_id=None,
        email=email,
        email_normalized=email_normalized,
        details={"roles": sorted(set(roles)), "inviter_id": str(claims.sub) if claims else None},
        limit_key=rate_limits.unknown_key(email_normalized),
        expires_at=origin.now + lifetime(resources.settings, Purpose.INVITATION),
    )
    details = {"invited_by": invited_by} if invited_by else {}
    message = NewMessage(new_id(), Kind.INVITATION, origin.now, secret_id=secret.id, details=details)
    with resources.database.transaction() as connection:
        authorize(resources, connection, origin, claims, "invitations:write")
        account_roles.require_known(connection, roles)
        if claims is not None:
            account_roles.require_roles_permitted(connection, claims.sub, roles)
        if accounts_store.is_taken(connection, email_normalized):
            raise EmailTaken
        one_time_secrets.add(connection, secret, now=origin.now)
        outbox.add(connection, message, recipient=email, locale=locale)
        audit.append(
            connection,
            "invited",
            origin,
            **actor(claims),
            details={"request": str(secret.id), "roles": list(roles)},
        )
        if record:
            record(connection, secret.id)
    resources.hand_over([message.id])
    log_event("invited", request=secret.id)
    return secret.id


def accept(
    resources: Resources,
    origin: Origin,
    token: str,
    acceptance: Acceptance,
    *,
    record: Record[Account] | None = None,
) -> Account:
    """Create the account of an invitation, verified and with its roles, in two round trips.

    By the token alone: its mail has no code. A role that was deleted since, or that the inviter could no
    longer give, is not given.

    Raises:
        InvalidOneTimeSecret: used, expired, foreign.
        InvalidFields: a field breaks a rule; the invitation stays good.
        UsernameTaken, EmailTaken: by another account; the invitation stays good.
    """
    secret = look_at(resources, origin, token, Purpose.INVITATION)
    if secret.email is None:
        raise InvalidOneTimeSecret
    registration = Registration(
        email=secret.email,
        password=acceptance.password,
        username=acceptance.username,
        display_name=acceptance.display_name,
        locale=acceptance.locale,
    )
    roles = [str(role) for role in secret.details.get("roles", ())]
    inviter = secret.details.get("inviter_id")
    new = accounts_service.prepare_verified(resources, origin, registration)
    with resources.database.transaction() if record else resources.database.one_trip() as connection:
        one_time_secrets.use(connection, secret.id, use_id=new_id(), now=origin.now)
        accounts_store.insert(connection, new)
        account_roles.grant_invited(
            connection, new.id, roles, inviter_id=UUID(inviter) if inviter else None, now=origin.now
        )
        audit.append(connection, "registered_by_invitation", origin, account_id=new.id)
        account = accounts_store.get(connection, new.id)
        if record:
            record(connection, account)
    count("registered")
    log_event("registered", account_id=new.id, invited=True)
    return account

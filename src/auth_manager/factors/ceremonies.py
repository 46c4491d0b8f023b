"""The two ceremonies of passkeys (W3C Web Authentication Level 3): their challenges, options, verification.

py_webauthn verifies; what it leaves to its caller is done here: the credential's own id, the user handle,
frames of other sites, and counters that go backwards.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from auth_manager import audit, one_time_secrets
from auth_manager.accounts import Account
from auth_manager.audit import Origin
from auth_manager.database import Connection
from auth_manager.errors import TooManyRequests
from auth_manager.factors.passkeys import Assertion, Passkey, PasskeyKey, Registration
from auth_manager.ids import new_id
from auth_manager.observability import count, log_event
from auth_manager.one_time_secrets import OneTimeSecret, Purpose
from auth_manager.proofs import lifetime
from auth_manager.resources import Resources
from auth_manager.settings import Settings
from auth_manager.signing_keys import decode_base64url, encode_base64url

if TYPE_CHECKING:
    from webauthn.authentication.verify_authentication_response import VerifiedAuthentication
    from webauthn.registration.verify_registration_response import VerifiedRegistration

CHALLENGE_BYTES = 32
"""Twice what WebAuthn asks for (section 13.4.3)."""

MAXIMUM_CHALLENGES = 20
"""Open ones of one session, or of one sign-in: more than anybody clicks in ten minutes."""

_ALGORITHMS = (-8, -7, -257)
"""COSE: EdDSA, ES256, RS256; what every authenticator of today has one of, best first."""

_MAXIMUM_CREDENTIAL_ID = 1023
"""Bytes (WebAuthn section 4, "credential ID")."""


@dataclass(frozen=True, slots=True)
class NewChallenge:
    """What has to be signed, and the request that goes back with the signature. `write` queues its row."""

    request: UUID
    value: bytes = field(repr=False)
    write: Callable[[Connection], None]


def new_challenge(
    settings: Settings,
    origin: Origin,
    purpose: Purpose,
    *,
    context: str,
    account_id: UUID | None = None,
) -> NewChallenge:
    """Make a challenge that is good once, for this purpose, in this context."""
    value = secrets.token_bytes(CHALLENGE_BYTES)
    secret = OneTimeSecret(
        id=new_id(),
        purpose=purpose,
        account_id=account_id,
        email=None,
        email_normalized=None,
        details=challenge_details(value, context),
        limit_key="passkey",  # nobody guesses it
        expires_at=origin.now + lifetime(settings, purpose),
    )
    return NewChallenge(
        secret.id, value, lambda connection: one_time_secrets.add(connection, secret, now=origin.now)
    )


def require_few_challenges(connection: Connection, context: str, origin: Origin) -> None:
    """Queue the guard: TooManyRequests where a session or a sign-in has as many open as it may have."""
    connection.add(
        """
        SELECT require(
            (SELECT count(*) FROM one_time_secrets
             WHERE details ->> 'context' = %(context)s AND expires_at > %(now)s AND used_at IS NULL
            ) < %(maximum)s,
            'too_many_challenges')
        """,
        {"context": context, "now": origin.now, "maximum": MAXIMUM_CHALLENGES},
        refused={"too_many_challenges": TooManyRequests(retry_after=60)},
    )


def challenge_details(challenge: bytes, context: str) -> dict[str, str]:
    """Return what the one-time secret of a challenge keeps: what must be signed, and what it is good for."""
    return {"challenge": encode_base64url(challenge), "context": context}


def creation_options(
    settings: Settings, account: Account, known: Sequence[Passkey], *, challenge: bytes
) -> dict[str, Any]:
    """Return PublicKeyCredentialCreationOptionsJSON: a passkey that can sign in without a name.

    No attestation is asked for, which would cost people a question about their privacy.
    """
    return {
        "rp": {"id": settings.relying_party_id, "name": settings.product_name},
        "user": {
            "id": encode_base64url(account.id.bytes),
            "name": account.email,
            "displayName": account.display_name or account.email,
        },
        "challenge": encode_base64url(challenge),
        "pubKeyCredParams": [{"type": "public-key", "alg": algorithm} for algorithm in _ALGORITHMS],
        "timeout": settings.mfa_token_lifetime * 1000,
        "excludeCredentials": _descriptors(known),
        "authenticatorSelection": {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": settings.passkey_user_verification,
        },
        "attestation": "none",
    }


def request_options(
    settings: Settings, allowed: Sequence[Passkey] | None, *, challenge: bytes
) -> dict[str, Any]:
    """Return PublicKeyCredentialRequestOptionsJSON; `allowed` None: of whoever has a passkey here.

    A passkey that is the only factor has to verify its user, unless that is discouraged.
    """
    verification = settings.passkey_user_verification
    if allowed is None and verification == "preferred":
        verification = "required"
    options: dict[str, Any] = {
        "challenge": encode_base64url(challenge),
        "rpId": settings.relying_party_id,
        "timeout": settings.mfa_token_lifetime * 1000,
        "userVerification": verification,
    }
    if allowed is not None:
        options["allowCredentials"] = _descriptors(allowed)
    return options


def _descriptors(passkeys: Sequence[Passkey]) -> list[dict[str, Any]]:
    return [
        {
            "type": "public-key",
            "id": encode_base64url(passkey.credential_id),
            "transports": list(passkey.transports),
        }
        for passkey in passkeys
    ]


def credential_id_of(credential: Mapping[str, Any] | None) -> bytes | None:
    """Return the id of a credential in a client's JSON, None when it has none."""
    raw_id = credential.get("rawId") if credential else None
    if not isinstance(raw_id, str):
        return None
    try:
        return decode_base64url(raw_id)
    except ValueError:
        return None


def verify_registration(
    settings: Settings, credential: Mapping[str, Any], *, challenge: bytes
) -> Registration | None:
    """Verify what navigator.credentials.create() returned, attestation included; None when anything is wrong.

    No list of roots is kept: an attestation that is sent must be right, but no maker is asked for.
    """
    from webauthn import verify_registration_response  # noqa: PLC0415 -- heavy: only who needs it loads it
    from webauthn.helpers import (  # noqa: PLC0415 -- same
        decode_credential_public_key,
        decoded_public_key_to_cryptography,
        parse_registration_credential_json,
    )
    from webauthn.helpers.cose import COSEAlgorithmIdentifier  # noqa: PLC0415 -- same

    try:
        parsed = parse_registration_credential_json(dict(credential))
        _refuse_other_frames(parsed.response.client_data_json)
        verified = verify_registration_response(
            credential=parsed,
            expected_challenge=challenge,
            expected_rp_id=settings.relying_party_id,
            expected_origin=list(settings.relying_party_origins),
            require_user_verification=settings.passkey_user_verification == "required",
            supported_pub_key_algs=[COSEAlgorithmIdentifier(algorithm) for algorithm in _ALGORITHMS],
        )
        # A key that cannot be read now could never be used.
        decoded_public_key_to_cryptography(decode_credential_public_key(verified.credential_public_key))
    except Exception as error:  # noqa: BLE001 -- parsers of what strangers send: whatever they raise, it is no good
        log_event("passkey_not_verified", ceremony="registration", reason=type(error).__name__)
        return None
    if verified.credential_id != parsed.raw_id or len(parsed.raw_id) > _MAXIMUM_CREDENTIAL_ID:
        return None
    return Registration(
        credential_id=verified.credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        transports=tuple(dict.fromkeys(transport.value for transport in parsed.response.transports or ())),
        aaguid=UUID(verified.aaguid),
        attestation_format=str(getattr(verified.fmt, "value", verified.fmt)),
        user_verified=verified.user_verified,
        backup_eligible=_is_backup_eligible(verified),
        backed_up=verified.credential_backed_up,
    )


def _is_backup_eligible(verified: "VerifiedRegistration | VerifiedAuthentication") -> bool:
    from webauthn.helpers.structs import CredentialDeviceType  # noqa: PLC0415 -- as above

    return verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE


def verify_assertion(
    settings: Settings,
    credential: Mapping[str, Any],
    key: PasskeyKey,
    *,
    account_id: UUID,
    challenge: bytes,
    alone: bool,
) -> Assertion | None:
    """Verify what navigator.credentials.get() returned; None when anything is wrong.

    Args:
        settings: names the relying party, and whether users must be verified.
        credential: the client's JSON.
        key: of the passkey that it names.
        account_id: whose passkey it is: a user handle must say the same, and alone there must be one.
        challenge: what had to be signed.
        alone: whether it is the only factor.
    """
    from webauthn import verify_authentication_response  # noqa: PLC0415 -- heavy: only who needs it loads it
    from webauthn.helpers import parse_authentication_credential_json  # noqa: PLC0415 -- same

    policy = settings.passkey_user_verification
    try:
        parsed = parse_authentication_credential_json(dict(credential))
        _refuse_other_frames(parsed.response.client_data_json)
        verified = verify_authentication_response(
            credential=parsed,
            expected_challenge=challenge,
            expected_rp_id=settings.relying_party_id,
            expected_origin=list(settings.relying_party_origins),
            credential_public_key=key.public_key,
            credential_current_sign_count=0,  # a counter that goes backwards is no forgery: see `regressed`
            require_user_verification=policy == "required" or (alone and policy != "discouraged"),
        )
    except Exception as error:  # noqa: BLE001 -- parsers of what strangers send: whatever they raise, it is no good
        log_event("passkey_not_verified", ceremony="authentication", reason=type(error).__name__)
        return None
    handle = parsed.response.user_handle
    if (handle or alone) and handle != account_id.bytes:
        return None  # who signs in without a name is named by it (section 7.2, step 6)
    if _is_backup_eligible(verified) != key.backup_eligible:
        return None  # it never changes (section 7.2, step 19)
    return Assertion(
        sign_count=verified.new_sign_count,
        user_verified=verified.user_verified,
        backed_up=verified.credential_backed_up,
        regressed=max(verified.new_sign_count, key.sign_count) > 0
        and verified.new_sign_count <= key.sign_count,
        must_rise=settings.passkey_refuse_clones,
    )


def _refuse_other_frames(client_data: bytes) -> None:
    """Raise ValueError for a ceremony inside a frame of another site, which py_webauthn does not look at."""
    from webauthn.helpers import parse_client_data_json  # noqa: PLC0415 -- as above

    if parse_client_data_json(client_data).cross_origin:
        raise ValueError("the ceremony ran in a frame of another site")


def accept(
    resources: Resources,
    origin: Origin,
    credential: Mapping[str, Any],
    key: PasskeyKey,
    *,
    account_id: UUID,
    challenge: bytes,
    alone: bool,
) -> Assertion | None:
    """Verify an assertion, as `verify_assertion`, and decide about a counter that went backwards.

    That is written to the audit trail, in a round trip of its own, whether it is refused or not.
    """
    assertion = verify_assertion(
        resources.settings, credential, key, account_id=account_id, challenge=challenge, alone=alone
    )
    if assertion is None or not assertion.regressed:
        return assertion
    with resources.database.one_trip() as connection:
        audit.append(
            connection,
            "passkey_counter_regressed",
            origin,
            account_id=account_id,
            failure="refused" if assertion.must_rise else None,
        )
    count("passkey_counter_regressed")
    log_event(
        "passkey_counter_regressed", account_id=account_id, passkey_id=key.id, refused=assertion.must_rise
    )
    return None if assertion.must_rise else assertion

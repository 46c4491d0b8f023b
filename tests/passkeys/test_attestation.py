"""py_webauthn's published registrations of real authenticators, through our route.

Each file of vectors/ says where it is from. What its certificates were valid at is the library's time here,
as in its own tests; the service's time is today.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from OpenSSL.crypto import X509Store
from tests.passkeys.authenticator import decode, encode
from tests.passkeys.visitors import Visitor

from auth_manager import one_time_secrets
from auth_manager.database import Database, Row
from auth_manager.factors.ceremonies import challenge_details
from auth_manager.ids import new_id
from auth_manager.one_time_secrets import OneTimeSecret, Purpose

VECTORS = {path.stem: path for path in sorted(Path(__file__).with_name("vectors").glob("*.json"))}
FORMATS = {"none", "packed", "fido-u2f", "tpm", "apple", "android-key", "android-safetynet"}

Query = Callable[..., list[Row]]
MakeClient = Callable[..., TestClient]


def read(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads(VECTORS[name].read_text())
    return vector


def travel(monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any]) -> None:
    """Give the library, and nobody else, the time at which a vector was right."""
    if moment := vector["certificates_valid_at"]:

        def store_of_then() -> X509Store:
            store = X509Store()
            store.set_time(datetime.fromisoformat(moment))
            return store

        monkeypatch.setattr(
            import_module("webauthn.helpers.validate_certificate_chain"),
            "_generate_new_cert_store",
            store_of_then,
        )
    if answered_at := vector.get("answered_at"):

        class Clock:
            time = staticmethod(lambda: answered_at)

        monkeypatch.setattr(import_module("webauthn.helpers.verify_safetynet_timestamp"), "time", Clock)


def begin(visitor: Visitor, database: Database, query: Query, challenge: str) -> dict[str, Any]:
    """Write the challenge that a vector signed, as if this session had asked for options."""
    [session] = query("SELECT id, now() AS now FROM sessions")
    secret = OneTimeSecret(
        id=new_id(),
        purpose=Purpose.PASSKEY_REGISTRATION,
        account_id=visitor.account_id,
        email=None,
        email_normalized=None,
        details=challenge_details(decode(challenge), f"registration:{session['id']}"),
        limit_key="passkey",
        expires_at=session["now"] + timedelta(minutes=10),
    )
    with database.one_trip() as connection:
        one_time_secrets.add(connection, secret, now=session["now"])
    return {"request": str(secret.id)}


def visit(make_client: MakeClient, vector: dict[str, Any]) -> Visitor:
    return Visitor(make_client(passkey_rp_id=vector["rp_id"], passkey_origins=(vector["origin"],)))


def test_there_is_a_vector_of_every_format() -> None:
    assert {read(name)["format"] for name in VECTORS} == FORMATS


@pytest.mark.parametrize("name", VECTORS)
def test_verifies(
    name: str, make_client: MakeClient, database: Database, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = read(name)
    travel(monkeypatch, vector)
    visitor = visit(make_client, vector)
    options = begin(visitor, database, query, vector["challenge"])

    response = visitor.finish(options, vector["credential"])

    assert response.status_code == 201, response.text
    assert response.json()["passkey"]["attestation_format"] == vector["format"]
    [passkey] = query("SELECT credential_id, attestation_format FROM passkeys")
    assert bytes(passkey["credential_id"]) == decode(vector["credential"]["id"])
    assert passkey["attestation_format"] == vector["format"]


@pytest.mark.parametrize("name", [name for name in VECTORS if not name.startswith("none")])
def test_one_changed_byte_of_client_data_is_refused(
    name: str, make_client: MakeClient, database: Database, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attestation vouches for it; white space changes its meaning in nothing else."""
    vector = read(name)
    travel(monkeypatch, vector)
    visitor = visit(make_client, vector)
    options = begin(visitor, database, query, vector["challenge"])
    answer = vector["credential"]["response"]
    answer["clientDataJSON"] = encode(decode(answer["clientDataJSON"]) + b" ")
    assert visitor.finish(options, vector["credential"]).status_code == 422


@pytest.mark.parametrize("name", ["apple", "android-key", "android-safetynet"])
def test_certificates_that_expired_are_refused(
    name: str, make_client: MakeClient, database: Database, query: Query
) -> None:
    vector = read(name)
    visitor = visit(make_client, vector)
    options = begin(visitor, database, query, vector["challenge"])
    assert visitor.finish(options, vector["credential"]).status_code == 422

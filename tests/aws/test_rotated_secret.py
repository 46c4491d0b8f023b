"""Rotations of the signing keys in moto's Secrets Manager, well and badly."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, get_args
from uuid import UUID, uuid4

import boto3
import pytest
from moto import mock_aws

from auth_manager.aws.rotated_secret import open_secret
from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError, ServiceUnavailable
from auth_manager.key_rotation import PUBLICATION, RotationOutOfOrder, RotationTooSoon, Step, rotate
from auth_manager.signing_keys import generate_signing_key, parse_key_set, serialize_key_set
from auth_manager.tokens import AccessTokens

START = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
LIFETIME = timedelta(minutes=15)
STEPS: tuple[Step, ...] = get_args(Step)


class Rotated:
    """One secret, the time, and what the world sees of it."""

    def __init__(self) -> None:
        self.client = boto3.client("secretsmanager", region_name="eu-central-1")
        text = serialize_key_set([generate_signing_key("ES256")])
        self.arn = self.client.create_secret(Name=f"keys-{uuid4()}", SecretString=text)["ARN"]
        self.versions = open_secret(self.arn)
        self.now = START
        self.lifetime = LIFETIME

    def step(self, step: Step, token: str, **options: Any) -> None:
        rotate(
            step,
            token,
            self.versions,
            algorithm="ES256",
            token_lifetime=self.lifetime,
            now=self.now,
            **options,
        )

    def rotate(self, **options: Any) -> None:
        token = str(uuid4())
        for step in STEPS:
            self.step(step, token, **options)

    def put(self, text: str) -> None:
        """What an operator's put-secret-value does; moto would leave two versions AWSCURRENT."""
        stages = self.versions.stages()
        old = next(version for version, labels in stages.items() if "AWSCURRENT" in labels)
        new = self.client.put_secret_value(SecretId=self.arn, SecretString=text, VersionStages=["OPERATOR"])[
            "VersionId"
        ]
        self.client.update_secret_version_stage(
            SecretId=self.arn, VersionStage="AWSCURRENT", MoveToVersionId=new, RemoveFromVersionId=old
        )

    def text(self) -> str:
        # Named, because moto takes another version for the one that has no name.
        return self.client.get_secret_value(SecretId=self.arn, VersionStage="AWSCURRENT")["SecretString"]

    def kids(self) -> dict[str, list[str]]:
        kids: dict[str, list[str]] = {"next": [], "current": [], "previous": []}
        for key in parse_key_set(self.text(), algorithm="ES256", local=False).keys:
            kids[key.state].append(key.kid)
        return kids


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotated]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield Rotated()


class TestRotate:
    def test_the_first_one_only_publishes_a_next_key(self, secret: Rotated) -> None:
        [before] = secret.kids()["current"]
        secret.rotate()
        assert secret.kids()["current"] == [before]
        assert len(secret.kids()["next"]) == 1
        assert secret.kids()["previous"] == []

    def test_then_each_key_moves_up(self, secret: Rotated) -> None:
        secret.rotate()
        for _ in range(3):
            secret.now += timedelta(days=30)
            before = secret.kids()
            secret.rotate()
            after = secret.kids()
            assert after["current"] == before["next"]
            assert after["previous"] == before["current"]
            assert after["next"] != before["next"]

    def test_a_previous_key_has_no_private_half(self, secret: Rotated) -> None:
        secret.rotate()
        secret.now += timedelta(days=30)
        secret.rotate()
        held = {key["state"]: "d" in key for key in json.loads(secret.text())["keys"]}
        assert held == {"next": True, "current": True, "previous": False}

    def test_a_next_key_that_is_too_young_does_not_sign(self, secret: Rotated) -> None:
        secret.rotate()
        before = secret.text()
        secret.now += PUBLICATION - timedelta(seconds=1)
        with pytest.raises(RotationTooSoon, match="0:00:01"):
            secret.rotate()
        assert secret.text() == before
        secret.now += timedelta(seconds=1)
        secret.rotate()
        assert secret.text() != before

    @pytest.mark.parametrize(
        ("lifetime", "kept"),
        [(timedelta(minutes=15), PUBLICATION), (timedelta(days=1), timedelta(days=1, minutes=10))],
        ids=["as long as verifiers cache", "as long as its tokens live"],
    )
    def test_a_previous_key_stays_as_long_as_it_is_needed(
        self, secret: Rotated, lifetime: timedelta, kept: timedelta
    ) -> None:
        secret.lifetime = lifetime
        secret.rotate()
        secret.now += PUBLICATION
        [old] = secret.kids()["current"]
        secret.rotate()
        replaced_at = secret.now
        while secret.now < replaced_at + kept - PUBLICATION:
            secret.now += PUBLICATION
            if secret.now < replaced_at + kept:
                secret.rotate()
                assert old in secret.kids()["previous"]
        secret.now = replaced_at + kept + PUBLICATION
        secret.rotate()
        assert old not in secret.kids()["previous"]

    def test_a_next_key_without_a_date_is_dated_first(self, secret: Rotated) -> None:
        keys = [generate_signing_key("ES256", "next"), *json.loads(secret.text())["keys"]]
        secret.put(serialize_key_set(keys))
        before = secret.kids()
        secret.rotate()
        assert secret.kids() == before
        with pytest.raises(RotationTooSoon):
            secret.rotate()
        secret.now += PUBLICATION
        secret.rotate()
        assert secret.kids()["current"] == before["next"]

    def test_after_a_leak_no_old_key_is_left(self, secret: Rotated) -> None:
        secret.rotate()
        leaked = {kid for kids in secret.kids().values() for kid in kids}
        secret.rotate(replace_all=True)
        after = secret.kids()
        assert [len(after[state]) for state in ("next", "current", "previous")] == [1, 1, 0]
        assert not leaked & {kid for kids in after.values() for kid in kids}


class TestBadOrder:
    @pytest.mark.parametrize("step", STEPS[1:])
    def test_no_step_comes_before_the_first(self, secret: Rotated, step: Step) -> None:
        before = secret.text()
        with pytest.raises(RotationOutOfOrder, match="createSecret"):
            secret.step(step, str(uuid4()))
        assert secret.text() == before

    def test_each_step_can_be_repeated(self, secret: Rotated) -> None:
        secret.rotate()
        secret.now += PUBLICATION
        [expected], token = secret.kids()["next"], str(uuid4())
        for step in STEPS:
            for _ in range(3):
                secret.step(step, token)
                secret.now += timedelta(seconds=5)
        assert secret.kids()["current"] == [expected]
        after = secret.text()
        for step in (*STEPS, *reversed(STEPS)):
            secret.step(step, token)
        assert secret.text() == after

    def test_a_rotation_that_was_overtaken_is_refused(self, secret: Rotated) -> None:
        secret.rotate()
        secret.now += PUBLICATION
        late = str(uuid4())
        secret.step("createSecret", late)
        secret.rotate(replace_all=True)
        after = secret.text()
        for step in STEPS[1:]:
            with pytest.raises(RotationOutOfOrder):
                secret.step(step, late)
        assert secret.text() == after

    def test_keys_that_an_operator_changed_meanwhile_stay(self, secret: Rotated) -> None:
        secret.rotate()
        secret.now += PUBLICATION
        token = str(uuid4())
        secret.step("createSecret", token)
        own = serialize_key_set([generate_signing_key("ES256")])
        secret.put(own)
        secret.step("setSecret", token)
        for step in STEPS[2:]:
            with pytest.raises(RotationOutOfOrder, match="rotate again"):
                secret.step(step, token)
        assert secret.text() == own

    def test_a_pending_set_that_does_not_work_is_refused(self, secret: Rotated) -> None:
        token, before = str(uuid4()), secret.text()
        secret.versions.write(token, '{"keys": []}')
        for step in STEPS[2:]:
            with pytest.raises(ConfigurationError, match="not a JWK set"):
                secret.step(step, token)
        assert secret.text() == before

    def test_a_secret_without_keys_is_refused(self, secret: Rotated) -> None:
        secret.put("not keys")
        with pytest.raises(ConfigurationError, match="neither PEM nor JSON"):
            secret.rotate()

    def test_secrets_manager_that_refuses_is_unavailable(self, secret: Rotated) -> None:
        with pytest.raises(ServiceUnavailable):
            secret.versions.promote("none", "none")
        with pytest.raises(LookupError):
            open_secret("arn:aws:secretsmanager:eu-central-1:123456789012:secret:none-abcdef").stages()


class Crash(Exception):
    """The function was killed here."""


class TestCrash:
    @pytest.mark.parametrize("first", [True, False], ids=["first rotation", "later rotation"])
    @pytest.mark.parametrize("call", ["stages", "read", "write", "promote"])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_between_any_two_calls_is_harmless(
        self, secret: Rotated, monkeypatch: pytest.MonkeyPatch, *, first: bool, call: str, when: str
    ) -> None:
        if not first:
            secret.rotate()
            secret.now += PUBLICATION
        works: Callable[..., Any] = getattr(secret.versions, call)
        healthy, before, token = secret.versions, secret.kids(), str(uuid4())

        def die(*arguments: str) -> Any:
            if when == "after":
                works(*arguments)
            raise Crash

        for step in STEPS:
            parts = {name: getattr(healthy, name) for name in ("stages", "read", "write", "promote")}
            monkeypatch.setattr(secret, "versions", type(healthy)(**parts | {call: die}))
            try:
                secret.step(step, token)
            except Crash:
                assert parse_key_set(secret.text(), algorithm="ES256", local=False).current.works()
            monkeypatch.setattr(secret, "versions", healthy)
            secret.step(step, token)  # as Secrets Manager tries again
        expected = before["current"] if first else before["next"]
        assert secret.kids()["current"] == expected


class Instance:
    """An API instance with a cache of its own age, that asks at moments of its own."""

    def __init__(self, secret: Rotated) -> None:
        def read(text: str) -> Any:
            return parse_key_set(text, algorithm="ES256", local=False)

        self.secret = secret
        self.keys = CachedSecret(secret.text, read, clock=self.now)
        self.tokens = AccessTokens(self.keys, issuer="https://auth.example.com", audience="auth-manager")

    def now(self) -> float:
        return self.secret.now.timestamp()

    def issue(self) -> str:
        return self.tokens.issue(
            account_id=UUID(int=1),
            session_id=UUID(int=2),
            token_id=uuid4(),
            client_id="first-party",
            scope="account",
            roles=(),
            authenticated_at=self.secret.now,
            amr=("pwd",),
            acr="aal1",
            now=self.secret.now,
            lifetime=LIFETIME,
        ).token


class Verifier:
    """Somebody else's: it keeps the published set for two hours and never asks before that."""

    def __init__(self, secret: Rotated, api: Instance) -> None:
        self.secret, self.api = secret, api
        self.fetched_at = datetime.min.replace(tzinfo=UTC)
        self.kids: set[str] = set()

    def knows(self, token: str) -> bool:
        from jwt import get_unverified_header

        if self.secret.now - self.fetched_at >= timedelta(hours=2):
            self.fetched_at = self.secret.now
            self.kids = {key["kid"] for key in self.api.keys.get().public_jwks()["keys"]}
        return get_unverified_header(token)["kid"] in self.kids


class TestWhileRotating:
    def test_ten_thousand_verifications_and_no_failure(self, secret: Rotated) -> None:
        """Tokens of before, during and after each step, at instances and verifiers of every cache age."""
        secret.rotate()
        secret.now += PUBLICATION
        instances = [Instance(secret)]
        verifiers: list[Verifier] = []
        live: list[tuple[datetime, str]] = []
        verified, signers = 0, set()
        token, pending = str(uuid4()), list(STEPS)
        for minute in range(5 * 60):
            secret.now += timedelta(minutes=1)
            if minute % 7 == 0 and len(instances) < 8:
                instances.append(Instance(secret))
                verifiers.append(Verifier(secret, instances[-1]))
            if minute >= 20 and minute % 3 == 0 and pending:
                secret.step(pending.pop(0), token)
            if minute == 200:
                token, pending = str(uuid4()), list(STEPS)
            if minute % 2 == 0:
                issuer = instances[minute // 2 % len(instances)]
                live.append((secret.now, issuer.issue()))
                signers.add(live[-1][1].partition(".")[0])
            live = [entry for entry in live if secret.now - entry[0] < LIFETIME]
            for _, access in live:
                for instance in instances[minute % 2 :: 2]:
                    instance.tokens.verify(access, now=secret.now)
                    verified += 1
                assert all(verifier.knows(access) for verifier in verifiers)
                verified += len(verifiers)
        assert verified >= 10_000
        assert len(signers) == 3
        assert pending == []

    def test_a_key_is_published_for_two_hours_before_it_signs(self, secret: Rotated) -> None:
        history: list[tuple[datetime, dict[str, list[str]]]] = []
        for _ in range(400):
            secret.now += timedelta(minutes=7)
            try:
                secret.rotate()
            except RotationTooSoon:
                continue
            history.append((secret.now, secret.kids()))
        seen: dict[str, datetime] = {history[0][1]["current"][0]: START - timedelta(days=1)}
        for moment, kids in history:
            for kid in kids["next"]:
                seen.setdefault(kid, moment)
            assert moment - seen[kids["current"][0]] >= PUBLICATION
        for (_, before), (_, after) in pairwise(history):
            assert before["current"][0] in after["previous"] + after["current"]
        assert len(history) > 10

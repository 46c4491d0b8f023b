"""Roles in tokens, by every way that issues one; who administers; and races."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import jwt
import pytest
from fastapi.testclient import TestClient
from tests.mfa.factors import STEP, account_id, enrol, first_step, person, second_step
from tests.passkeys.visitors import Visitor
from tests.verification.people import PASSWORD, Person, at, create_role, operator, together

from auth_manager import observability, permissions
from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import ProfilePatch, Registration
from auth_manager.audit import Origin
from auth_manager.email_login import service as email_login
from auth_manager.errors import (
    Forbidden,
    InvalidFields,
    LastAdministrator,
    MfaEnrolmentRequired,
    NotFound,
    PreconditionFailed,
    RoleTaken,
)
from auth_manager.factors.checks import Presented
from auth_manager.one_time_secrets import Purpose
from auth_manager.reauthentication import service as reauthentication
from auth_manager.resources import Resources
from auth_manager.roles import service
from auth_manager.roles.service import RoleFields, RolePatch, set_roles
from auth_manager.sessions.service import refresh
from auth_manager.tokens import MAXIMUM_TOKEN_LENGTH

Make = Callable[..., Resources]

NOBODY = UUID("01890000-0000-7000-8000-000000000001")


def payload_of(token: str) -> Any:
    return jwt.decode(token, options={"verify_signature": False})


def give(somebody: Person, *roles: str) -> UUID:
    """Give somebody these roles; return their id."""
    found = account_id(somebody)
    set_roles(somebody.resources, operator(), None, found, roles)
    return found


def administrator(resources: Resources, email: str) -> UUID:
    registration = Registration(email, PASSWORD)
    return accounts.create_verified(resources, operator(), registration, roles=["admin"]).id


class TestTokens:
    def test_roles_alone_by_default(self, resources: Resources) -> None:
        somebody = person(resources)
        create_role(resources, "support", "users:read")
        give(somebody, "support")
        claims = payload_of(somebody.log_in().access_token)
        assert claims["roles"] == ["support"]
        assert "permissions" not in claims

    def test_permissions_where_they_are_asked_for(self, make_resources: Make) -> None:
        resources = make_resources(token_permissions=True)
        somebody = person(resources)
        assert payload_of(somebody.log_in().access_token)["permissions"] == []
        create_role(resources, "support", "users:read", "orders:refund")
        create_role(resources, "clerk", "orders:refund", "orders:read")
        give(somebody, "support", "clerk")
        assert payload_of(somebody.log_in().access_token)["permissions"] == [
            "orders:read",
            "orders:refund",
            "users:read",
        ]

    def test_claims_of_roles_the_first_name_wins(self, resources: Resources) -> None:
        somebody = person(resources)
        for name, claims in (("b", {"plan": "b", "only_b": [1]}), ("a", {"plan": "a"})):
            service.create_role(resources, operator(), None, name, RoleFields(claims=claims))
        give(somebody, "b", "a")
        claims = payload_of(somebody.log_in().access_token)
        assert (claims["plan"], claims["only_b"]) == ("a", [1])

    def test_claims_of_attributes(self, make_resources: Make) -> None:
        pointers = {"plan": "/billing/plan", "first_team": "/teams/0", "missing": "/nothing"}
        resources = make_resources(attribute_claims=pointers)
        somebody = person(resources)
        grant = somebody.log_in()
        attributes = {"billing": {"plan": "gold"}, "teams": [{"id": 7}]}
        patch = ProfilePatch(frozenset({"attributes"}), attributes=attributes)
        accounts.change_profile(resources, at(), somebody.claims(grant), patch)
        claims = payload_of(refresh(resources, at(1), grant.refresh_token).access_token)
        assert (claims["plan"], claims["first_team"]) == ("gold", {"id": 7})
        assert "missing" not in claims

    def test_what_is_new_is_in_the_next_token(self, make_resources: Make) -> None:
        """Refreshed, and after authenticating again; the database is read each time (ASVS 8.3.2)."""
        resources = make_resources(token_permissions=True)
        somebody = person(resources)
        grant = somebody.log_in()
        fields = RoleFields(permissions=["orders:refund"], claims={"plan": "gold"})
        service.create_role(resources, operator(), None, "support", fields)
        give(somebody, "support")
        claims = somebody.claims(grant)
        again = reauthentication.by_password(resources, at(1), claims, PASSWORD)
        refreshed = refresh(resources, at(2), grant.refresh_token)
        for token in (again.access_token, refreshed.access_token):
            said = payload_of(token)
            assert (said["roles"], said["permissions"], said["plan"]) == (
                ["support"],
                ["orders:refund"],
                "gold",
            )
        service.delete_role(resources, operator(), None, "support")
        said = payload_of(refresh(resources, at(3), refreshed.refresh_token).access_token)
        assert (said["roles"], said["permissions"], "plan" in said) == ([], [], False)

    def test_after_a_second_factor(self, make_resources: Make) -> None:
        somebody = _clerk(make_resources(token_permissions=True))
        app = enrol(somebody)
        step = second_step(somebody, first_step(somebody), totp=app.code(STEP))
        assert _said(step.tokens.access_token) == CLERK

    def test_after_reauthenticating_with_one(self, make_resources: Make) -> None:
        somebody = _clerk(make_resources(token_permissions=True))
        claims = somebody.claims()
        app = enrol(somebody, claims)
        presented = Presented(totp=app.code(STEP))
        again = reauthentication.by_factor(somebody.resources, at(STEP), claims, presented)
        assert _said(again.access_token) == CLERK

    def test_after_a_mailed_link(self, make_resources: Make) -> None:
        somebody = _clerk(make_resources(token_permissions=True))
        request = email_login.start(somebody.resources, at(), somebody.email)
        grant = email_login.log_in(somebody.resources, at(1), somebody.token(Purpose.EMAIL_LOGIN, request))
        assert _said(grant.access_token) == CLERK

    def test_after_a_passkey(self, make_client: Callable[..., TestClient]) -> None:
        client = make_client(token_permissions=True)
        visitor = Visitor(client)
        visitor.add_passkey()
        _make_clerk(client.app.state.resources, visitor.account_id)  # type: ignore[attr-defined]
        assert _said(visitor.sign_in().json()["access_token"]) == CLERK

    def test_a_token_stays_far_below_its_limit(
        self,
        make_resources: Make,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """However much an account is given: what is over is left out, and said in the log."""
        names = {f"a{number}": f"/a{number}" for number in range(3)}
        resources = make_resources(token_permissions=True, attribute_claims=names)
        somebody = person(resources)
        for number in range(40):
            held = [f"orders:{'x' * 50}{number:02}{index}" for index in range(3)]
            fields = RoleFields(permissions=held, claims={f"c{number}": "x" * 900})
            service.create_role(resources, operator(), None, f"{'r' * 60}{number:02}", fields)
        give(somebody, *[f"{'r' * 60}{number:02}" for number in range(40)])
        grant = somebody.log_in()
        patch = ProfilePatch(frozenset({"attributes"}), attributes={f"a{n}": "é" * 600 for n in range(3)})
        accounts.change_profile(resources, at(), somebody.claims(grant), patch)
        observability.configure_logging(resources.settings)
        token = refresh(resources, at(1), grant.refresh_token).access_token
        assert len(token) < MAXIMUM_TOKEN_LENGTH - 1024
        assert resources.access_tokens.verify(token, now=at(1).now).sub == somebody.claims(grant).sub
        [logged] = [
            json.loads(line) for line in capsys.readouterr().out.splitlines() if "claims_left_out" in line
        ]
        assert {"a0", "roles", "permissions"} <= set(logged["claims"])


class TestImpersonated:
    """What `act` is for; how such a session begins is told elsewhere."""

    def test_a_refreshed_token_keeps_who_acts_and_ends_with_the_session(self, resources: Resources) -> None:
        somebody = person(resources)
        acting = administrator(resources, "admin@example.com")
        create_role(resources, "impersonator", "users:impersonate")
        set_roles(resources, operator(), None, acting, ["admin", "impersonator"])
        grant = somebody.log_in()
        with resources.database.one_trip() as connection:
            connection.add(
                "UPDATE sessions SET impersonator_id = %(acting)s, expires_at = %(end)s",
                {"acting": acting, "end": at(600).now},
            )
        refreshed = refresh(resources, at(1), grant.refresh_token)
        claims = resources.access_tokens.verify(refreshed.access_token, now=at(1).now)
        assert claims.act == acting
        assert claims.expires_at <= at(600).now
        with pytest.raises(Forbidden):
            reauthentication.by_password(resources, at(1), claims, PASSWORD)


class TestMfaPolicy:
    @pytest.mark.parametrize("permission", ["*", "users:read", "webhooks:write", "users:impersonate"])
    def test_who_may_administer_needs_a_factor(self, make_resources: Make, permission: str) -> None:
        resources = make_resources(mfa_policy="required_for_admins")
        somebody = person(resources)
        create_role(resources, "some", permission)
        give(somebody, "some")
        with pytest.raises(MfaEnrolmentRequired):
            somebody.log_in()

    def test_who_may_only_do_what_is_yours_needs_none(self, make_resources: Make) -> None:
        resources = make_resources(mfa_policy="required_for_admins")
        somebody = person(resources)
        create_role(resources, "clerk", "orders:refund")
        give(somebody, "clerk")
        assert somebody.log_in().account.roles == ("clerk",)


class TestLastAdministrator:
    def test_two_who_remove_each_other(self, resources: Resources) -> None:
        """One of the two stays, whatever the order; and again, many times."""
        for round_ in range(8):
            pair = [administrator(resources, f"admin{round_}{which}@example.com") for which in "ab"]
            others = {row["account_id"] for row in _admins(resources)} - set(pair)
            for other in others:
                set_roles(resources, operator(), None, other, [])
            barrier = threading.Barrier(2)

            def remove(account_id: UUID, barrier: threading.Barrier = barrier) -> object:
                barrier.wait()
                return set_roles(resources, operator(), None, account_id, [])

            outcomes = together([lambda one=one: remove(one) for one in pair])  # type: ignore[misc]
            failures = [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)]
            assert failures == [LastAdministrator]
            assert len(_admins(resources)) == 1

    def test_one_who_is_disabled_does_not_count(self, resources: Resources) -> None:
        first, second = (administrator(resources, f"{name}@example.com") for name in ("a", "b"))
        with resources.database.one_trip() as connection:
            connection.add("UPDATE accounts SET disabled_at = now() WHERE id = %(id)s", {"id": second})
        with pytest.raises(LastAdministrator):
            set_roles(resources, operator(), None, first, [])
        assert set_roles(resources, operator(), None, second, []) == []

    def test_who_is_none_is_not_asked(self, resources: Resources) -> None:
        somebody = person(resources)
        found = give(somebody)
        with resources.database.one_trip() as connection:
            permissions.keep_an_administrator(connection, [found])

    def test_several_at_once(self, resources: Resources) -> None:
        pair = [administrator(resources, f"{name}@example.com") for name in ("a", "b")]
        with pytest.raises(LastAdministrator), resources.database.one_trip() as connection:
            permissions.keep_an_administrator(connection, pair)
        with resources.database.one_trip() as connection:
            permissions.keep_an_administrator(connection, pair[:1])


class TestPermissions:
    @pytest.mark.parametrize(
        ("held", "wanted", "permitted"),
        [
            ([], [], True),
            ([], ["users:read"], False),
            (["users:read"], ["users:read"], True),
            (["users:read"], ["users:read", "users:write"], False),
            (["*"], ["users:read", "orders:refund", "*"], True),
            (["*"], ["users:impersonate"], False),
            (["*"], ["users:read", "users:impersonate"], False),
            (["*", "users:impersonate"], ["users:impersonate", "users:read"], True),
            (["users:impersonate"], ["*"], False),
        ],
    )
    def test_who_has_what_may_do_what(
        self,
        resources: Resources,
        held: list[str],
        wanted: list[str],
        permitted: bool,  # noqa: FBT001
    ) -> None:
        somebody = person(resources)
        create_role(resources, "some", *held)
        found = give(somebody, "some")
        try:
            with resources.database.one_trip() as connection:
                permissions.require_permissions(connection, found, wanted)
        except Forbidden:
            assert not permitted
        else:
            assert permitted

    def test_nobody_has_none(self, resources: Resources) -> None:
        with pytest.raises(Forbidden), resources.database.one_trip() as connection:
            permissions.require_permission(connection, NOBODY, "users:read")

    def test_who_is_above_whom(self, resources: Resources) -> None:
        admin = administrator(resources, "admin@example.com")
        create_role(resources, "spy", "users:impersonate")
        spy = give(person(resources), "spy")
        for actor, target, above in ((admin, spy, True), (spy, admin, True), (admin, admin, False)):
            try:
                with resources.database.one_trip() as connection:
                    permissions.require_not_above(connection, actor, [target])
            except Forbidden:
                assert above
            else:
                assert not above


class TestRoles:
    def test_one_of_the_parallel_changes_wins(self, resources: Resources) -> None:
        create_role(resources, "support")
        tag = service.get_role(resources, operator(), None, "support").tag

        def change(number: int) -> object:
            patch = RolePatch(description=str(number))
            return service.change_role(resources, operator(), None, "support", patch, tags=[tag])

        outcomes = together([lambda number=number: change(number) for number in range(6)], threads=6)  # type: ignore[misc]
        assert sum(isinstance(outcome, PreconditionFailed) for outcome in outcomes) == 5

    def test_a_change_is_later_than_the_one_before_on_a_slow_clock(self, resources: Resources) -> None:
        create_role(resources, "support")
        first = service.get_role(resources, operator(), None, "support")
        slow = replace(operator(), now=at(-3600).now)
        changed = service.change_role(resources, slow, None, "support", RolePatch(description="x"))
        assert changed.updated_at > first.updated_at

    def test_a_creation_sent_twice_is_one(self, resources: Resources) -> None:
        create_role(resources, "support", "orders:read")
        create_role(resources, "support", "orders:read")
        with pytest.raises(RoleTaken):
            create_role(resources, "support", "orders:refund")

    def test_operators_may_give_everything_and_nobody_else_comes_in_without_a_token(
        self, resources: Resources
    ) -> None:
        create_role(resources, "spy", "users:impersonate")
        for origin in (at(), Origin(None, "", "request", at().now)):
            with pytest.raises(Forbidden):
                service.create_role(resources, origin, None, "other", RoleFields())
            with pytest.raises(Forbidden):
                set_roles(resources, origin, None, NOBODY, [])

    def test_of_nobody(self, resources: Resources) -> None:
        for act in (service.grant_role, service.revoke_role):
            with pytest.raises(NotFound):
                act(resources, operator(), NOBODY, "admin")

    def test_there_are_at_most_fifty_of_one_account(self, resources: Resources) -> None:
        for number in range(51):
            create_role(resources, f"r{number}")
        found = give(person(resources), *[f"r{number}" for number in range(50)])
        with pytest.raises(InvalidFields):
            service.grant_role(resources, operator(), found, "r50")
        roles = service.revoke_role(resources, operator(), found, "r0")
        assert len(roles) == 49
        assert "r50" in service.grant_role(resources, operator(), found, "r50")

    def test_claims_are_as_large_as_the_database_writes_them(self, resources: Resources) -> None:
        """Or no later change of the role could be stored."""
        with pytest.raises(InvalidFields, match="invalid") as caught:
            service.create_role(resources, operator(), None, "big", RoleFields(claims={"a": [1e300] * 5}))
        assert [error.code for error in caught.value.errors] == ["claims_too_large"]
        largest = RoleFields(claims={"a": [1e300, 1e-300, 1e300], "b": "x" * 100})
        service.create_role(resources, operator(), None, "large", largest)
        patch = RolePatch(
            description="x", claims=service.get_role(resources, operator(), None, "large").claims
        )
        assert service.change_role(resources, operator(), None, "large", patch).description == "x"

    def test_those_that_every_new_account_has_do_not_count(self, resources: Resources) -> None:
        for number in range(51):
            fields = RoleFields(is_default=number < 2)
            service.create_role(resources, operator(), None, f"r{number}", fields)
        somebody = give(person(resources), *[f"r{number}" for number in range(51)])
        assert len(service.grant_role(resources, operator(), somebody, "admin")) == 52


def _admins(resources: Resources) -> list[dict[str, Any]]:
    with resources.database.one_trip() as connection:
        return connection.fetch_all("SELECT account_id FROM account_roles WHERE role = 'admin'")


CLERK = (["clerk"], ["orders:refund"], "gold")


def _clerk(resources: Resources) -> Person:
    somebody = person(resources)
    _make_clerk(resources, account_id(somebody))
    return somebody


def _make_clerk(resources: Resources, somebody: UUID) -> None:
    fields = RoleFields(permissions=["orders:refund"], claims={"plan": "gold"})
    service.create_role(resources, operator(), None, "clerk", fields)
    set_roles(resources, operator(), None, somebody, ["clerk"])


def _said(token: str) -> tuple[Any, Any, Any]:
    claims = payload_of(token)
    return claims["roles"], claims["permissions"], claims["plan"]

"""Inviting, accepting, and sign-up that is closed to others."""

from collections.abc import Callable
from uuid import UUID

import pytest
from tests.verification.people import INVITED, NEW_PASSWORD, PASSWORD, Person, at, create_role, operator

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.admin import service as administration
from auth_manager.erasure import service as erasure
from auth_manager.errors import (
    EmailTaken,
    Forbidden,
    InvalidFields,
    InvalidOneTimeSecret,
    SignUpClosed,
    UsernameTaken,
)
from auth_manager.invitations.service import Acceptance, accept, invite
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources
from auth_manager.roles import service as roles
from auth_manager.roles.service import RoleFields

Make = Callable[..., Resources]


@pytest.fixture
def closed(make_resources: Make) -> Resources:
    return make_resources(sign_up="closed")


def create_administrator(resources: Resources) -> None:
    """Another one than the test is about, who may not be the last."""
    claims = Person(resources, "other@example.com").register().verified().claims()
    roles.set_roles(resources, operator(), None, claims.sub, ["admin"])


def token_of(resources: Resources, request: UUID) -> str:
    return resources.one_time_secrets.token(Purpose.INVITATION, request)


class TestAccept:
    def test_the_account_is_verified_and_has_its_roles(self, closed: Resources) -> None:
        person = Person(closed, "Invited@Example.com")
        roles = [create_role(closed, "editor"), "admin"]
        request = invite(closed, operator(), person.email, roles=roles, invited_by="Ann", locale="fr")
        assert person.mails() == [("invitation", "Invited@Example.com", "fr")]
        acceptance = Acceptance(NEW_PASSWORD, "invited", "In Vited", "fr-CA")

        account = accept(closed, at(5), token_of(closed, request), acceptance)

        assert (account.email, account.username, account.display_name, account.locale) == (
            "Invited@Example.com",
            "invited",
            "In Vited",
            "fr-CA",
        )
        assert (account.roles, account.email_verified_at) == (("admin", "editor"), at(5).now)
        assert person.log_in(NEW_PASSWORD).account == account
        assert person.events()[1:3] == [
            ("invited", "success", None),
            ("registered_by_invitation", "success", None),
        ]

    def test_what_is_wrong_with_the_form_leaves_it_good(self, closed: Resources) -> None:
        accounts.create_verified(closed, at(), Registration("other@example.com", PASSWORD, "taken"))
        token = token_of(closed, invite(closed, operator(), INVITED))

        for _ in range(6):
            with pytest.raises(InvalidFields):
                accept(closed, at(), token, Acceptance("short"))
            with pytest.raises(UsernameTaken):
                accept(closed, at(), token, Acceptance(NEW_PASSWORD, "Taken"))
        assert accept(closed, at(100), token, Acceptance(NEW_PASSWORD, "free")).username == "free"

    def test_it_invites_one_account(self, resources: Resources) -> None:
        requests = [invite(resources, operator(), INVITED, roles=["admin"]) for _ in range(2)]
        tokens = [token_of(resources, request) for request in requests]
        accept(resources, at(), tokens[0], Acceptance(NEW_PASSWORD))
        with pytest.raises(InvalidOneTimeSecret):
            accept(resources, at(), tokens[0], Acceptance(NEW_PASSWORD))
        with pytest.raises(EmailTaken):
            accept(resources, at(), tokens[1], Acceptance(NEW_PASSWORD))

    def test_an_older_one_does_not_outlive_the_account(self, resources: Resources) -> None:
        """Its roles were taken away, or its owner left: neither comes back by a mail of last week."""
        person = Person(resources, INVITED)
        first, left = (token_of(resources, invite(resources, operator(), INVITED)) for _ in range(2))
        accept(resources, at(), first, Acceptance(NEW_PASSWORD))
        erasure.delete_own_account(resources, at(), person.claims(person.log_in(NEW_PASSWORD)))
        with pytest.raises(InvalidOneTimeSecret):
            accept(resources, at(), left, Acceptance(NEW_PASSWORD))

    def test_a_role_that_was_deleted_is_not_given(self, resources: Resources) -> None:
        invited = invite(resources, operator(), INVITED, roles=[create_role(resources, "brief")])
        roles.delete_role(resources, operator(), None, "brief")
        assert accept(resources, at(), token_of(resources, invited), Acceptance(NEW_PASSWORD)).roles == ()

    def test_an_inviter_who_lost_a_permission_gives_it_to_nobody(self, resources: Resources) -> None:
        """Otherwise an invitation to oneself would bring back what was taken away."""
        for name, permission in (("inviter", "invitations:write"), ("clerk", "orders:refund")):
            create_role(resources, name, permission)
        inviter = Person(resources).register().verified()
        claims = inviter.claims(inviter.log_in())
        roles.set_roles(resources, operator(), None, claims.sub, ["inviter", "clerk"])
        tokens = [
            token_of(resources, invite(resources, at(), email, roles=["clerk"], claims=claims))
            for email in (INVITED, "second@example.com")
        ]
        assert accept(resources, at(), tokens[0], Acceptance(NEW_PASSWORD)).roles == ("clerk",)
        roles.set_roles(resources, operator(), None, claims.sub, ["inviter"])
        assert accept(resources, at(), tokens[1], Acceptance(NEW_PASSWORD)).roles == ()

    def test_an_inviter_who_may_no_longer_invite_gives_nothing(self, resources: Resources) -> None:
        """Nor one who is disabled: who has to go would come back by an invitation to oneself."""
        inviter = Person(resources).register().verified()
        claims = inviter.claims(inviter.log_in())
        roles.set_roles(resources, operator(), None, inviter_id := claims.sub, ["admin"])
        create_role(resources, "clerk", "orders:refund")
        tokens = [
            token_of(resources, invite(resources, at(), email, roles=[role], claims=claims))
            for email, role in ((INVITED, "clerk"), ("second@example.com", "admin"))
        ]
        create_administrator(resources)
        roles.set_roles(resources, operator(), None, inviter_id, ["clerk"])
        assert accept(resources, at(), tokens[0], Acceptance(NEW_PASSWORD)).roles == ()
        roles.set_roles(resources, operator(), None, inviter_id, ["admin"])
        administration.disable(resources, operator(), None, inviter_id)
        assert accept(resources, at(), tokens[1], Acceptance(NEW_PASSWORD)).roles == ()

    def test_the_answer_has_the_default_roles(self, resources: Resources) -> None:
        roles.create_role(resources, operator(), None, "member", RoleFields(is_default=True))
        token = token_of(resources, invite(resources, operator(), INVITED, roles=["admin"]))
        assert accept(resources, at(), token, Acceptance(NEW_PASSWORD)).roles == ("admin", "member")


class TestInvite:
    def test_a_role_that_nobody_made(self, resources: Resources) -> None:
        with pytest.raises(InvalidFields) as refused:
            invite(resources, operator(), INVITED, roles=["admin", "nonesuch"])
        assert [error.pointer for error in refused.value.errors] == ["/roles"]

    def test_a_role_that_gives_what_the_inviter_lacks(self, resources: Resources) -> None:
        inviter = Person(resources).register().verified()
        claims = inviter.claims(inviter.log_in())
        with pytest.raises(Forbidden):
            invite(resources, at(), INVITED, claims=claims)
        role = create_role(resources, "inviter", "invitations:write")
        roles.set_roles(resources, operator(), None, claims.sub, [role])
        invite(resources, at(), INVITED, roles=[role], claims=claims)
        with pytest.raises(Forbidden):
            invite(resources, at(), "second@example.com", roles=["admin"], claims=claims)

    def test_nobody_in_particular(self, resources: Resources) -> None:
        with pytest.raises(Forbidden):
            invite(resources, at(), INVITED)

    def test_who_has_an_account_is_not_invited(self, resources: Resources) -> None:
        person = Person(resources).register()
        with pytest.raises(EmailTaken):
            invite(resources, operator(), person.email.upper())
        assert [kind for kind, _, _ in person.mails()] == ["verify_email"]

    def test_it_needs_an_address(self, resources: Resources) -> None:
        with pytest.raises(InvalidFields):
            invite(resources, operator(), "nobody")


class TestClosedSignUp:
    def test_a_stranger_is_refused(self, closed: Resources) -> None:
        person = Person(closed)
        with pytest.raises(SignUpClosed):
            person.register()
        assert (person.query("SELECT id FROM accounts"), person.mails()) == ([], [])

    @pytest.mark.parametrize("email", ["a@example.com", "a@EXAMPLE.com", "a@bücher.example.org"])
    def test_an_open_domain_is_not(self, make_resources: Make, email: str) -> None:
        resources = make_resources(sign_up="closed", sign_up_domains="Example.com,bücher.example.org")
        assert Person(resources, email).register().mails() == [("verify_email", email, None)]

    @pytest.mark.parametrize(
        "email", ["a@sub.example.com", "a@notexample.com", "a@example.com.evil.org", "example.com@evil.org"]
    )
    def test_a_likeness_of_one_is(self, make_resources: Make, email: str) -> None:
        resources = make_resources(sign_up="closed", sign_up_domains="example.com")
        with pytest.raises(SignUpClosed):
            Person(resources, email).register()

    def test_verified_mode_tells_nothing_of_accounts(self, make_resources: Make) -> None:
        resources = make_resources(
            sign_up="closed", sign_up_domains="example.com", require_verified_email=True
        )
        accounts.create_verified(resources, at(), Registration("taken@evil.org", PASSWORD))
        for email in ("taken@evil.org", "free@evil.org"):
            with pytest.raises(SignUpClosed):
                Person(resources, email).register()

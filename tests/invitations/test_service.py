"""Inviting, accepting, and sign-up that is closed to others."""

from collections.abc import Callable
from uuid import UUID

import pytest
from tests.verification.people import INVITED, NEW_PASSWORD, PASSWORD, Person, at

from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.erasure import service as erasure
from auth_manager.errors import EmailTaken, InvalidFields, InvalidOneTimeSecret, SignUpClosed, UsernameTaken
from auth_manager.invitations.service import Acceptance, accept, invite
from auth_manager.one_time_secrets import Purpose
from auth_manager.resources import Resources

Make = Callable[..., Resources]


@pytest.fixture
def closed(make_resources: Make) -> Resources:
    return make_resources(sign_up="closed")


def token_of(resources: Resources, request: UUID) -> str:
    return resources.one_time_secrets.token(Purpose.INVITATION, request)


class TestAccept:
    def test_the_account_is_verified_and_has_its_roles(self, closed: Resources) -> None:
        person = Person(closed, "Invited@Example.com")
        request = invite(closed, at(), person.email, roles=["editor", "admin"], invited_by="Ann", locale="fr")
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
        assert person.events()[:2] == [
            ("invited", "success", None),
            ("registered_by_invitation", "success", None),
        ]

    def test_what_is_wrong_with_the_form_leaves_it_good(self, closed: Resources) -> None:
        accounts.create_verified(closed, at(), Registration("other@example.com", PASSWORD, "taken"))
        token = token_of(closed, invite(closed, at(), INVITED))

        for _ in range(6):
            with pytest.raises(InvalidFields):
                accept(closed, at(), token, Acceptance("short"))
            with pytest.raises(UsernameTaken):
                accept(closed, at(), token, Acceptance(NEW_PASSWORD, "Taken"))
        assert accept(closed, at(100), token, Acceptance(NEW_PASSWORD, "free")).username == "free"

    def test_it_invites_one_account(self, resources: Resources) -> None:
        requests = [invite(resources, at(), INVITED, roles=["admin"]) for _ in range(2)]
        tokens = [token_of(resources, request) for request in requests]
        accept(resources, at(), tokens[0], Acceptance(NEW_PASSWORD))
        with pytest.raises(InvalidOneTimeSecret):
            accept(resources, at(), tokens[0], Acceptance(NEW_PASSWORD))
        with pytest.raises(EmailTaken):
            accept(resources, at(), tokens[1], Acceptance(NEW_PASSWORD))

    def test_an_older_one_does_not_outlive_the_account(self, resources: Resources) -> None:
        """Its roles were taken away, or its owner left: neither comes back by a mail of last week."""
        person = Person(resources, INVITED)
        first, left = (token_of(resources, invite(resources, at(), INVITED)) for _ in range(2))
        accept(resources, at(), first, Acceptance(NEW_PASSWORD))
        erasure.delete_own_account(resources, at(), person.claims(person.log_in(NEW_PASSWORD)))
        with pytest.raises(InvalidOneTimeSecret):
            accept(resources, at(), left, Acceptance(NEW_PASSWORD))


class TestInvite:
    def test_who_has_an_account_is_not_invited(self, resources: Resources) -> None:
        person = Person(resources).register()
        with pytest.raises(EmailTaken):
            invite(resources, at(), person.email.upper())
        assert [kind for kind, _, _ in person.mails()] == ["verify_email"]

    def test_it_needs_an_address(self, resources: Resources) -> None:
        with pytest.raises(InvalidFields):
            invite(resources, at(), "nobody")


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

"""What holds for every secret that is mailed, whatever it is for."""

from collections.abc import Callable
from functools import partial
from uuid import UUID

import pytest
from pydantic import SecretStr
from tests.verification.people import EMAIL, FLOWS, GRACE, PASSWORD, Flow, Person, at, together

from auth_manager.email_login import service as email_login
from auth_manager.errors import (
    InvalidCredentials,
    InvalidFields,
    InvalidOneTimeSecret,
    TooManyAttempts,
    TooManyRequests,
)
from auth_manager.ids import new_id
from auth_manager.one_time_secrets import OneTimeSecrets, Purpose
from auth_manager.proofs import Proof, look_at
from auth_manager.reauthentication import service as reauthentication
from auth_manager.recovery import service as recovery
from auth_manager.resources import Resources
from auth_manager.secret_keys import SecretKeys
from auth_manager.tokens import AccessClaims
from auth_manager.verification import service as verification

Make = Callable[..., Resources]
Scene = tuple[Person, AccessClaims]

every_flow = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.purpose.value)
every_code = pytest.mark.parametrize(
    "flow", [flow for flow in FLOWS if flow.code], ids=lambda flow: flow.purpose.value
)
every_form = pytest.mark.parametrize(
    ("flow", "form"),
    [(flow, form) for flow in FLOWS for form in ("token", "code") if flow.code or form == "token"],
    ids=lambda value: value if isinstance(value, str) else value.purpose.value,
)


@pytest.fixture
def scene(make_resources: Make) -> Scene:
    person = Person(make_resources(erasure_grace=GRACE)).register()
    return person, person.claims()


def proof_of(person: Person, form: str, purpose: Purpose, request: UUID) -> Proof:
    return person.token(purpose, request) if form == "token" else person.code(purpose, request)


class TestProve:
    @every_form
    def test_it_counts_once(self, scene: Scene, flow: Flow, form: str) -> None:
        person, claims = scene
        proof = proof_of(person, form, flow.purpose, flow.ask(person, claims))

        flow.present(person, claims, proof, at())
        for again in (proof, proof):
            with pytest.raises(InvalidOneTimeSecret):
                flow.present(person, claims, again, at())

    @every_form
    def test_it_counts_until_it_expires(self, scene: Scene, flow: Flow, form: str) -> None:
        person, claims = scene
        proof = proof_of(person, form, flow.purpose, flow.ask(person, claims))

        with pytest.raises(InvalidOneTimeSecret):
            flow.present(person, claims, proof, at(flow.lifetime))
        flow.present(person, claims, proof, at(flow.lifetime - 1))

    @every_form
    def test_a_slow_clock_revives_nothing(self, scene: Scene, flow: Flow, form: str) -> None:
        person, claims = scene
        proof = proof_of(person, form, flow.purpose, flow.ask(person, claims))
        person.query("UPDATE one_time_secrets SET expires_at = now() RETURNING 1")

        with pytest.raises(InvalidOneTimeSecret):
            flow.present(person, claims, proof, at(-3600))

    @every_flow
    def test_it_is_good_for_nothing_else(self, scene: Scene, flow: Flow) -> None:
        person, claims = scene
        request = flow.ask(person, claims)
        ours = [person.token(flow.purpose, request), person.code(flow.purpose, request)]
        to_one_place = {Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL}

        for other in FLOWS:
            if other.purpose == flow.purpose or {other.purpose, flow.purpose} == to_one_place:
                continue
            made_up = [person.token(other.purpose, request), person.code(other.purpose, request)]
            for proof in ours + made_up:
                with pytest.raises(InvalidOneTimeSecret):
                    other.present(person, claims, proof, at())
        flow.present(person, claims, ours[1 if flow.code else 0], at())

    @every_flow
    def test_nobody_elses_counts(self, scene: Scene, flow: Flow) -> None:
        """A code belongs to its request; a token that we did not sign is none."""
        person, claims = scene
        request = flow.ask(person, claims)
        forger = OneTimeSecrets(SecretKeys([SecretStr("another secret, known to the attacker 0123456789")]))
        code, token = person.code(flow.purpose, request), person.token(flow.purpose, request)
        assert code.code is not None
        assert token.token is not None
        strangers = [
            Proof(request=new_id(), code=code.code),
            Proof(token=forger.token(flow.purpose, request)),
            person.token(flow.purpose, new_id()),
            person.code(flow.purpose, new_id()),
            Proof(token=token.token + "A"),
            Proof(token=token.token[:-1]),
            Proof(token=""),
            Proof(token=str(request)),
            Proof(request=request),
            Proof(code=code.code),
            Proof(),
        ]

        for proof in strangers:
            with pytest.raises(InvalidOneTimeSecret):
                flow.present(person, claims, proof, at())
        flow.present(person, claims, token, at())

    @every_flow
    def test_of_sixteen_at_once_one_gets_through(self, make_resources: Make, flow: Flow) -> None:
        resources = make_resources(erasure_grace=GRACE, login_failures_before_delay=100)
        person = Person(resources).register()
        claims = person.claims()
        proof = person.token(flow.purpose, flow.ask(person, claims))

        outcomes = together([lambda: flow.present(person, claims, proof, at())] * 16)

        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(refused) == 15, outcomes
        assert {type(outcome) for outcome in refused} == {InvalidOneTimeSecret}


class TestGuesses:
    """ASVS 6.3.1 and 6.6.3."""

    @every_code
    def test_after_five_wrong_codes_the_right_one_is_refused(self, scene: Scene, flow: Flow) -> None:
        person, claims = scene
        request = flow.ask(person, claims)

        for proof in [person.wrong(flow.purpose, request)] * 5 + [person.code(flow.purpose, request)]:
            with pytest.raises(InvalidOneTimeSecret):
                flow.present(person, claims, proof, at())
        flow.present(person, claims, person.token(flow.purpose, request), at())

    @every_code
    def test_the_fifth_may_be_right(self, scene: Scene, flow: Flow) -> None:
        person, claims = scene
        request = flow.ask(person, claims)

        for _ in range(4):
            with pytest.raises(InvalidOneTimeSecret):
                flow.present(person, claims, person.wrong(flow.purpose, request), at())
        flow.present(person, claims, person.code(flow.purpose, request), at())

    @every_code
    def test_a_right_code_is_no_failure(self, scene: Scene, flow: Flow) -> None:
        person, claims = scene
        flow.present(person, claims, person.code(flow.purpose, flow.ask(person, claims)), at())

        assert (
            person.query("SELECT key FROM rate_limits WHERE key LIKE 'login:account:%%' AND count > 0") == []
        )
        assert (
            person.query("SELECT key FROM rate_limits WHERE key LIKE 'login:unknown:%%' AND count > 0") == []
        )

    @pytest.mark.parametrize(
        "code", ["", "12345", "1234567", " 123456", "\uff11\uff12\uff13\uff14\uff15\uff16", "\ud800"]
    )
    def test_only_its_own_six_digits_are_a_code(self, scene: Scene, code: str) -> None:
        person, _ = scene
        with pytest.raises(InvalidOneTimeSecret):
            verification.verify_email(person.resources, at(), Proof(request=person.verification, code=code))

    def test_codes_and_passwords_are_one_limit(self, make_resources: Make) -> None:
        person = Person(make_resources(login_failures_before_delay=4)).register()
        claims = person.claims()
        reset = recovery.start(person.resources, at(), EMAIL)
        login = email_login.start(person.resources, at(), EMAIL)
        with pytest.raises(InvalidOneTimeSecret):
            recovery.reset_password(
                person.resources, at(), person.wrong(Purpose.RESET_PASSWORD, reset), "AnotherPass456!"
            )
        with pytest.raises(InvalidCredentials):
            person.log_in("not that one")
        with pytest.raises(InvalidFields):
            reauthentication.by_password(person.resources, at(), claims, "not that one")
        with pytest.raises(InvalidOneTimeSecret):
            verification.verify_email(
                person.resources, at(), person.wrong(Purpose.VERIFY_EMAIL, person.verification)
            )

        attempts: list[Callable[[], object]] = [
            person.log_in,
            lambda: reauthentication.by_password(person.resources, at(), claims, PASSWORD),
            lambda: email_login.log_in(person.resources, at(), person.code(Purpose.EMAIL_LOGIN, login)),
            lambda: email_login.log_in(person.resources, at(), person.token(Purpose.EMAIL_LOGIN, login)),
            lambda: recovery.reset_password(
                person.resources, at(), person.code(Purpose.RESET_PASSWORD, reset), "AnotherPass456!"
            ),
            lambda: recovery.change_password(
                person.resources,
                at(),
                claims,
                current_password=PASSWORD,
                new_password="AnotherPass456!",
                end_other_sessions=True,
            ),
        ]
        for attempt in attempts:
            with pytest.raises(TooManyAttempts) as caught:
                attempt()
            assert caught.value.retry_after == 30

    def test_of_five_hundred_at_once_no_more_than_the_limit_are_looked_at(self, make_resources: Make) -> None:
        """Passwords, and codes of fifty requests, all of one account."""
        resources = make_resources(mails_per_recipient=1000, mail_requests_per_address=1000)
        person = Person(resources).register()
        requests = [recovery.start(resources, at(), EMAIL) for _ in range(50)]

        def guess_code(request: UUID) -> None:
            proof = person.wrong(Purpose.RESET_PASSWORD, request)
            recovery.reset_password(resources, at(), proof, "AnotherPass456!")

        codes = [partial(guess_code, request) for request in requests * 5]
        passwords = [lambda: person.log_in("not that one")] * 250
        mixed = [guess for pair in zip(codes, passwords, strict=True) for guess in pair]
        outcomes = [type(outcome) for outcome in together(mixed, threads=40)]

        assert len(outcomes) == 500
        assert outcomes.count(InvalidCredentials) + outcomes.count(InvalidOneTimeSecret) == 10
        assert outcomes.count(TooManyAttempts) == 490
        [counter] = person.query("SELECT count FROM rate_limits WHERE key LIKE 'login:account:%%'")
        assert counter["count"] == 10

    def test_of_five_hundred_at_one_code_five_are_looked_at(self, make_resources: Make) -> None:
        person = Person(make_resources(login_failures_before_delay=100)).register()
        request = recovery.start(person.resources, at(), EMAIL)
        wrong = person.wrong(Purpose.RESET_PASSWORD, request)

        outcomes = together(
            [lambda: recovery.reset_password(person.resources, at(), wrong, "AnotherPass456!")] * 500
        )

        assert {type(outcome) for outcome in outcomes} == {InvalidOneTimeSecret}
        assert len(person.query("SELECT id FROM audit_events WHERE reason = 'reset_password'")) == 5
        assert len(person.query("SELECT id FROM audit_events WHERE event = 'code_presented'")) == 5
        [counter] = person.query("SELECT count FROM rate_limits WHERE key LIKE 'login:account:%%'")
        assert counter["count"] == 5

    @pytest.mark.parametrize("what", ["made up", "used", "expired", "exhausted", "of another purpose"])
    def test_at_no_open_request_nothing_is_written(self, resources: Resources, what: str) -> None:
        """Nobody has to sign in for it and no limit counts it: only the log may grow."""
        person = Person(resources).register()
        request, moment = recovery.start(resources, at(), EMAIL), at()
        wrong = person.wrong(Purpose.RESET_PASSWORD, request)

        def guess(proof: Proof) -> None:
            with pytest.raises(InvalidOneTimeSecret):
                recovery.reset_password(resources, moment, proof, "AnotherPass456!")

        if what == "made up":
            wrong = person.wrong(Purpose.RESET_PASSWORD, new_id())
        if what == "used":
            proof = person.code(Purpose.RESET_PASSWORD, request)
            recovery.reset_password(resources, at(), proof, "AnotherPass456!")
        if what == "expired":
            moment = at(1800)
        if what == "exhausted":
            for _ in range(5):
                guess(wrong)
        if what == "of another purpose":
            wrong = person.wrong(Purpose.VERIFY_EMAIL, person.verification)
        before = _rows(person)

        for _ in range(3):
            guess(wrong)

        assert _rows(person) == before


def _rows(person: Person) -> list[str]:
    tables = "audit_events", "rate_limits", "one_time_secrets", "outbox"
    sql = " UNION ALL ".join(f"SELECT row_to_json({table})::text AS row FROM {table}" for table in tables)
    return sorted(row["row"] for row in person.query(sql))


class TestEnumeration:
    """ASVS 6.3.8: what limits there are tell no more than the answers do."""

    @pytest.mark.parametrize("ask", [recovery.start, email_login.start, verification.resend])
    @pytest.mark.parametrize("who", ["unverified", "verified", "disabled", "nobody"])
    def test_a_limit_reached_by_passwords_holds_for_codes(
        self, make_resources: Make, ask: Callable[..., UUID], who: str
    ) -> None:
        resources = make_resources(login_failures_before_delay=3)
        person = Person(resources)
        if who != "nobody":
            person = person.register()
        if who == "verified":
            person.verified()
        if who == "disabled":
            person.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        request = ask(resources, at(), EMAIL)
        for _ in range(3):
            with pytest.raises(InvalidCredentials):
                person.log_in("not that one")

        purpose = {
            recovery.start: Purpose.RESET_PASSWORD,
            email_login.start: Purpose.EMAIL_LOGIN,
            verification.resend: Purpose.VERIFY_EMAIL,
        }[ask]
        present = next(flow.present for flow in FLOWS if flow.purpose is purpose)
        with pytest.raises(TooManyAttempts):
            present(person, None, person.wrong(purpose, request), at())  # type: ignore[arg-type]

    @pytest.mark.parametrize("taken", [False, True])
    def test_it_does_for_a_registration(self, make_resources: Make, *, taken: bool) -> None:
        resources = make_resources(
            require_verified_email=True, reveal_unverified_email=False, login_failures_before_delay=3
        )
        person = Person(resources).register()
        if taken:
            person = person.verified().register()
        for _ in range(3):
            with pytest.raises(InvalidCredentials):
                person.log_in("not that one")

        with pytest.raises(TooManyAttempts):
            verification.verify_email(
                resources, at(), person.wrong(Purpose.VERIFY_EMAIL, person.verification)
            )

    def test_a_taken_address_gives_the_stranger_nothing(self, make_resources: Make) -> None:
        resources = make_resources(require_verified_email=True)
        owner = Person(resources).register()
        stranger = owner.register()

        for proof in (
            owner.code(Purpose.VERIFY_EMAIL, stranger.verification),
            owner.token(Purpose.VERIFY_EMAIL, stranger.verification),
        ):
            with pytest.raises(InvalidOneTimeSecret):
                verification.verify_email(resources, at(), proof)


class TestMailLimits:
    @pytest.mark.parametrize("ask", [recovery.start, email_login.start, verification.resend])
    @pytest.mark.parametrize("known", [True, False])
    def test_a_recipient_gets_five_an_hour(
        self, resources: Resources, ask: Callable[..., UUID], *, known: bool
    ) -> None:
        if known:
            Person(resources).register()
        for spelling in (EMAIL, EMAIL.upper(), EMAIL, EMAIL, EMAIL):
            ask(resources, at(), spelling)
        with pytest.raises(TooManyRequests) as caught:
            ask(resources, at(1), EMAIL)
        assert caught.value.retry_after == 3599
        ask(resources, at(1), "another@example.com")
        ask(resources, at(3600), EMAIL)

    def test_a_client_asks_for_sixty_an_hour(self, resources: Resources) -> None:
        for number in range(60):
            recovery.start(resources, at(), f"{number}@example.com")
        with pytest.raises(TooManyRequests):
            email_login.start(resources, at(), EMAIL)

    def test_a_refused_client_takes_nothing_from_a_recipient(self, make_resources: Make) -> None:
        resources = make_resources(mail_requests_per_address=1, mails_per_recipient=2)
        recovery.start(resources, at(), EMAIL)
        for _ in range(5):
            with pytest.raises(TooManyRequests):
                recovery.start(resources, at(), EMAIL)
        recovery.start(resources, at(3600), EMAIL)

    def test_no_address_is_no_recipient(self, resources: Resources) -> None:
        with pytest.raises(InvalidFields) as caught:
            recovery.start(resources, at(), "nobody")
        assert [(error.pointer, error.code) for error in caught.value.errors] == [("/email", "email_invalid")]


class TestRequestByMail:
    @pytest.mark.parametrize(
        ("account", "asked_in", "language"), [(None, "fr", "fr"), ("fr", "en", "fr"), (None, None, None)]
    )
    def test_the_accounts_language_comes_first(
        self, resources: Resources, account: str | None, asked_in: str | None, language: str | None
    ) -> None:
        person = Person(resources).register(locale=account)
        recovery.start(resources, at(1, locale=asked_in), EMAIL)

        assert person.mails()[1] == ("reset_password", EMAIL, language)

    def test_it_goes_to_the_address_that_its_owner_registered(self, resources: Resources) -> None:
        person = Person(resources, "Person@Example.com").register()
        recovery.start(resources, at(1), "PERSON@example.COM")

        assert person.mails()[1] == ("reset_password", "Person@Example.com", None)

    @pytest.mark.parametrize("who", ["nobody", "disabled"])
    def test_nobody_gets_nothing(self, resources: Resources, who: str) -> None:
        person = Person(resources)
        if who == "disabled":
            person.register()
            person.query("UPDATE accounts SET disabled_at = now() RETURNING 1")
        request = email_login.start(resources, at(1), EMAIL)

        assert person.mails()[-1:] == [("nothing", "", None)]
        [row] = person.query("SELECT account_id, email FROM one_time_secrets WHERE purpose = 'email_login'")
        assert (row["account_id"], row["email"]) == (None, None)
        for proof in (person.code(Purpose.EMAIL_LOGIN, request), person.token(Purpose.EMAIL_LOGIN, request)):
            with pytest.raises(InvalidOneTimeSecret):
                email_login.log_in(resources, at(1), proof)

    def test_older_requests_stay_good(self, resources: Resources) -> None:
        """Otherwise whoever knows an address keeps its owner from ever using one."""
        person = Person(resources).register()
        request = recovery.start(resources, at(), EMAIL)
        recovery.start(resources, at(), EMAIL)

        recovery.reset_password(
            resources, at(), person.code(Purpose.RESET_PASSWORD, request), "AnotherPass456!"
        )


class TestLookAt:
    def test_nothing_is_used_up(self, resources: Resources) -> None:
        person = Person(resources).register()
        token = person.token(Purpose.VERIFY_EMAIL, person.verification).token
        assert token is not None
        for _ in range(20):
            secret = look_at(resources, at(), token, Purpose.CHANGE_EMAIL, Purpose.VERIFY_EMAIL)
            assert (secret.purpose, secret.email) == (Purpose.VERIFY_EMAIL, EMAIL)

        verification.verify_email(resources, at(), Proof(token=token))
        with pytest.raises(InvalidOneTimeSecret):
            look_at(resources, at(), token, Purpose.VERIFY_EMAIL)

    def test_what_nobody_was_sent_is_not_good(self, resources: Resources) -> None:
        person = Person(resources)
        token = person.token(Purpose.RESET_PASSWORD, recovery.start(resources, at(), EMAIL)).token
        assert token is not None
        with pytest.raises(InvalidOneTimeSecret):
            look_at(resources, at(), token, Purpose.RESET_PASSWORD)


class TestRepr:
    def test_it_shows_no_secret(self) -> None:
        assert "123456" not in repr(Proof(request=new_id(), code="123456"))
        assert "ot_" not in repr(Proof(token="ot_abc"))

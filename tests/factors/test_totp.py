"""One-time passwords by time."""

import base64
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID
from xml.etree import ElementTree as ET

import pytest
from tests.factors.authenticator import App, begin, enrol
from tests.verification.people import Person, at, query, together

from auth_manager import sealed_values
from auth_manager.database import Row
from auth_manager.errors import InvalidFactor, NotFound, TooManyFactors
from auth_manager.factors import totp
from auth_manager.factors.changes import enrolee_of
from auth_manager.ids import new_id
from auth_manager.resources import Resources
from auth_manager.totp import service

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
NOW = datetime(2026, 5, 4, 12, 0, 10, tzinfo=UTC)
STEP = int(NOW.timestamp()) // 30
APP = App(RFC_SECRET)


def matching(code: str, *, last_step: int | None = None) -> int | None:
    return totp.matching_step(RFC_SECRET, code, last_step=last_step, now=NOW)


class TestMatchingStep:
    @pytest.mark.parametrize(
        ("seconds", "code"),
        [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ],
    )
    def test_rfc_6238_appendix_b(self, seconds: int, code: str) -> None:
        """Its codes have eight digits; ours are the last six of them (RFC 4226 section 5.3)."""
        now = datetime.fromtimestamp(seconds, UTC)

        assert totp.matching_step(RFC_SECRET, code[2:], last_step=None, now=now) == seconds // 30

    @pytest.mark.parametrize("steps", [-1, 0, 1])
    def test_the_step_before_and_the_next_will_do(self, steps: int) -> None:
        assert matching(APP.code(NOW, steps=steps)) == STEP + steps

    @pytest.mark.parametrize("steps", [-2, 2])
    def test_two_steps_off_will_not(self, steps: int) -> None:
        assert matching(APP.code(NOW, steps=steps)) is None

    @pytest.mark.parametrize("steps", [-1, 0])
    def test_no_step_that_was_used_or_passed_by(self, steps: int) -> None:
        assert matching(APP.code(NOW, steps=steps), last_step=STEP) is None

    def test_the_step_after_the_last_one_will_do(self) -> None:
        assert matching(APP.code(NOW, steps=1), last_step=STEP) == STEP + 1

    @pytest.mark.parametrize(
        "disguise",
        [
            pytest.param(
                lambda code: code.translate({ord("0") + d: 0xFF10 + d for d in range(10)}), id="wide"
            ),
            pytest.param(
                lambda code: code.translate({ord("0") + d: 0x660 + d for d in range(10)}), id="arabic"
            ),
            pytest.param(lambda code: f"{code[:3]} {code[3:]}", id="space inside"),
            pytest.param(lambda code: f" {code}", id="space before"),
            pytest.param(lambda code: f"{code}\n", id="line break"),
            pytest.param(lambda code: code[:5], id="five digits"),
            pytest.param(lambda code: code + "0", id="seven digits"),
            pytest.param(lambda code: "0" + code, id="zero before"),
            pytest.param(lambda code: f"-{code[1:]}", id="sign"),
            pytest.param(lambda code: f"{code[:5]}\ud800", id="surrogate"),
            pytest.param(lambda _: "", id="nothing"),
        ],
    )
    def test_six_ascii_digits_and_nothing_else(self, disguise: Callable[[str], str]) -> None:
        assert matching(disguise(APP.code(NOW))) is None


class TestProvision:
    def test_a_secret_has_160_bits(self) -> None:
        first, second = totp.generate_secret(), totp.generate_secret()

        assert len(base64.b32decode(first)) == 20
        assert first != second

    def test_the_uri_says_all_that_an_app_needs(self) -> None:
        uri = urlsplit(
            totp.provisioning_uri(RFC_SECRET, issuer="Acme: & Sons", account_name="a+b@example.com")
        )

        assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
        assert unquote(uri.path) == "/Acme: & Sons:a+b@example.com"
        assert parse_qs(uri.query) == {"secret": [RFC_SECRET], "issuer": ["Acme: & Sons"]}

    def test_the_qr_code_is_an_svg_that_loads_and_runs_nothing(self) -> None:
        svg = totp.render_qr("otpauth://totp/x?secret=AAAA")

        root = ET.fromstring(svg)  # noqa: S314 -- our own
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        names = {name for element in root.iter() for name in element.attrib}
        assert tags <= {"svg", "g", "path"}
        assert names <= {"width", "height", "viewBox", "transform", "fill", "stroke", "d"}
        assert re.findall(r"\w+://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]


def rows(resources: Resources) -> list[Row]:
    return query(resources, "SELECT * FROM totp_factors ORDER BY id")


class TestAddPending:
    def test_sent_twice_it_is_there_once(self, resources: Resources) -> None:
        claims = Person(resources).register().claims()
        add = partial(totp.add_pending, totp_id=new_id(), account_id=claims.sub, sealed_secret=b"x", now=NOW)
        with resources.database.one_trip() as connection:
            add(connection)
            add(connection)

        assert len(rows(resources)) == 1

    def test_the_table_does_not_tell_the_secret(self, resources: Resources) -> None:
        person = Person(resources).register()
        app = begin(person, person.claims())

        [row] = rows(resources)

        stored = bytes(row["sealed_secret"])
        assert app.secret.encode() not in stored
        assert base64.b32decode(app.secret) not in stored

    def test_in_the_row_of_another_account_it_does_not_open(self, resources: Resources) -> None:
        person, other = Person(resources).register(), Person(resources, "other@example.com").register()
        mine, theirs = person.claims(), other.claims()
        app = begin(person, mine)
        begin(other, theirs)
        query(
            resources,
            """
            UPDATE totp_factors SET sealed_secret = (
                SELECT sealed_secret FROM totp_factors WHERE account_id = %(mine)s
            ) WHERE account_id = %(theirs)s RETURNING 1
            """,
            mine=mine.sub,
            theirs=theirs.sub,
        )

        with pytest.raises(NotFound):
            service.confirm(resources, at(), enrolee_of(resources, at(), theirs), app.code(at().now))


class TestConfirm:
    def test_sent_twice_it_is_confirmed_once(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        begin(person, claims)
        [row] = rows(resources)
        confirm = partial(totp.confirm, totp_id=row["id"], account_id=claims.sub, now=NOW)
        use_id = new_id()
        with resources.database.one_trip() as connection:
            confirm(connection, step=STEP, use_id=use_id)
            confirm(connection, step=STEP, use_id=use_id)

        with pytest.raises(NotFound), resources.database.one_trip() as connection:
            confirm(connection, step=STEP + 1, use_id=new_id())
        assert [row["last_step"] for row in rows(resources)] == [STEP]

    def test_another_that_was_started_in_the_same_moment_is_not_added(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        enrol(person, claims)
        late = new_id()
        query(
            resources,
            """
            INSERT INTO totp_factors (id, account_id, sealed_secret, created_at)
            VALUES (%(id)s, %(account_id)s, 'x', %(now)s) RETURNING 1
            """,
            id=late,
            account_id=claims.sub,
            now=NOW,
        )

        with pytest.raises(TooManyFactors), resources.database.one_trip() as connection:
            totp.confirm(connection, late, claims.sub, step=STEP, use_id=new_id(), now=NOW)


class TestUse:
    @pytest.fixture
    def enrolled(self, resources: Resources) -> UUID:
        """The id of an app whose last step is long over."""
        person = Person(resources).register()
        enrol(person, person.claims(), at())
        [row] = query(resources, "UPDATE totp_factors SET last_step = 1000 RETURNING id")
        totp_id: UUID = row["id"]
        return totp_id

    def use(self, resources: Resources, totp_id: UUID, step: int, use_id: UUID | None = None) -> None:
        with resources.database.one_trip() as connection:
            totp.use(connection, totp_id=totp_id, step=step, use_id=use_id or new_id(), now=NOW)

    @pytest.mark.parametrize("step", [999, 1000])
    def test_a_step_that_was_used_or_passed_by_is_refused(
        self, resources: Resources, enrolled: UUID, step: int
    ) -> None:
        with pytest.raises(InvalidFactor):
            self.use(resources, enrolled, step)

    def test_a_younger_one_is_used(self, resources: Resources, enrolled: UUID) -> None:
        self.use(resources, enrolled, 1001)

        assert [(row["last_step"], row["last_used_at"]) for row in rows(resources)] == [(1001, NOW)]

    def test_the_same_use_sent_twice_is_one(self, resources: Resources, enrolled: UUID) -> None:
        use_id = new_id()
        self.use(resources, enrolled, 1001, use_id)
        self.use(resources, enrolled, 1001, use_id)
        with pytest.raises(InvalidFactor):
            self.use(resources, enrolled, 1001)

    def test_of_sixteen_at_once_one_gets_through(self, resources: Resources, enrolled: UUID) -> None:
        ready = threading.Barrier(16)

        def present() -> str:
            ready.wait()
            self.use(resources, enrolled, 1001)
            return "used"

        outcomes = together([present] * 16)

        assert outcomes.count("used") == 1
        assert sum(isinstance(outcome, InvalidFactor) for outcome in outcomes) == 15

    def test_one_that_waits_to_be_confirmed_is_not_used(self, resources: Resources) -> None:
        person = Person(resources).register()
        begin(person, person.claims())
        [row] = query(resources, "UPDATE totp_factors SET last_step = 1 RETURNING id")
        with pytest.raises(InvalidFactor):
            self.use(resources, row["id"], 1001)


class TestSeal:
    def test_the_table_can_be_read_with_the_key_alone(self, resources: Resources) -> None:
        person = Person(resources).register()
        claims = person.claims()
        app = begin(person, claims)
        [row] = rows(resources)
        stored = bytes(row["sealed_secret"])

        opened = sealed_values.open_value(
            resources.secret_keys, totp.PURPOSE, stored, bound_to=claims.sub.bytes
        )

        assert opened.decode() == app.secret

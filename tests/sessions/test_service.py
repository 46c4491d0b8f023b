"""Refreshing over time, by many at once, and across server keys; what log-outs write down."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from auth_manager import observability
from auth_manager.accounts import service as accounts
from auth_manager.accounts.service import Registration
from auth_manager.audit import Origin
from auth_manager.database import Database, Row
from auth_manager.errors import (
    AuthError,
    InvalidRefreshToken,
    RefreshTokenReused,
    SessionEnded,
)
from auth_manager.login.service import log_in
from auth_manager.resources import Resources
from auth_manager.sessions import service
from auth_manager.sessions.service import TokenGrant, list_sessions, log_out, refresh, revoke_session

Query = Callable[..., list[Row]]

EMAIL = "test@example.com"
PASSWORD = "SecurePass123!"
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = 86_400
OLD_KEY = "the-first-secret-of-this-deployment-abcdef"
NEW_KEY = "another-secret-after-the-rotation-0123456789"


def at(seconds: float = 0) -> Origin:
    return Origin("203.0.113.7", "pytest", "request", NOW + timedelta(seconds=seconds))


def sign_in(resources: Resources, seconds: float = 0) -> TokenGrant:
    return log_in(resources, at(seconds), identifier=EMAIL, password=PASSWORD)


@pytest.fixture
def resources(resources: Resources) -> Resources:
    """The default resources, with one account."""
    accounts.register(resources, at(), Registration(EMAIL, PASSWORD))
    return resources


class TestExpiry:
    def test_a_session_idles_out(self, resources: Resources) -> None:
        token = refresh(resources, at(14 * DAY - 1), sign_in(resources).refresh_token).refresh_token
        with pytest.raises(InvalidRefreshToken):
            refresh(resources, at(28 * DAY - 1), token)
        assert refresh(resources, at(28 * DAY - 2), token).refresh_expires_in == 14 * DAY

    def test_refreshing_never_moves_the_absolute_limit(self, resources: Resources, query: Query) -> None:
        grant = sign_in(resources)
        [before] = query("SELECT expires_at FROM sessions")
        for day in (13, 26, 39, 52, 65, 78):
            grant = refresh(resources, at(day * DAY), grant.refresh_token)
        assert grant.refresh_expires_in == 12 * DAY
        assert query("SELECT expires_at FROM sessions") == [before]
        assert before["expires_at"] == NOW + timedelta(days=90)
        last = refresh(resources, at(90 * DAY - 60), grant.refresh_token)
        assert (last.expires_in, last.refresh_expires_in) == (60, 60)
        with pytest.raises(InvalidRefreshToken):
            refresh(resources, at(90 * DAY), last.refresh_token)

    def test_a_clock_that_runs_behind_does_not_shorten_a_session(
        self, resources: Resources, query: Query
    ) -> None:
        grant = refresh(resources, at(100), sign_in(resources).refresh_token)
        refresh(resources, at(40), grant.refresh_token)
        assert query("SELECT last_used_at FROM sessions") == [{"last_used_at": NOW + timedelta(seconds=100)}]


class TestReuse:
    def age_rotations(self, query: Query, seconds: float) -> None:
        """Move the last rotation into the past of the database's clock."""
        query(
            "UPDATE refresh_lines SET rotated_at = clock_timestamp() - %(age)s RETURNING 1",
            age=timedelta(seconds=seconds),
        )

    def test_the_grace_is_ten_seconds_of_the_database(self, resources: Resources, query: Query) -> None:
        first = sign_in(resources)
        second = refresh(resources, at(), first.refresh_token)
        self.age_rotations(query, 9)
        assert refresh(resources, at(DAY), first.refresh_token).refresh_token == second.refresh_token
        self.age_rotations(query, 10.1)
        with pytest.raises(RefreshTokenReused):
            refresh(resources, at(), first.refresh_token)

    def test_two_steps_behind_is_a_reuse_within_the_grace_too(self, resources: Resources) -> None:
        first = sign_in(resources)
        second = refresh(resources, at(), first.refresh_token)
        third = refresh(resources, at(), second.refresh_token)
        with pytest.raises(RefreshTokenReused):
            refresh(resources, at(), first.refresh_token)
        with pytest.raises(SessionEnded):
            refresh(resources, at(), third.refresh_token)

    def test_it_ends_that_session_alone_and_is_written_down(
        self, resources: Resources, query: Query, flush_metrics: Callable[[], str]
    ) -> None:
        other = sign_in(resources)
        first = sign_in(resources)
        refresh(resources, at(), first.refresh_token)
        self.age_rotations(query, 60)
        with pytest.raises(RefreshTokenReused):
            refresh(resources, at(5), first.refresh_token)
        refresh(resources, at(5), other.refresh_token)
        [session] = query("SELECT id, ended_at, end_reason FROM sessions WHERE ended_at IS NOT NULL")
        assert session == {
            "id": first.session_id,
            "ended_at": NOW + timedelta(seconds=5),
            "end_reason": "refresh_token_reused",
        }
        [event] = query("SELECT * FROM audit_events WHERE event = 'refresh_token_reused'")
        assert (event["outcome"], event["reason"]) == ("failure", "session_ended")
        assert (event["account_id"], event["session_id"]) == (first.account.id, first.session_id)
        assert '"refresh_token_reused":[1.0]' in flush_metrics()

    @pytest.fixture
    def flush_metrics(self, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
        """Collects metrics; returns what they were since, as EMF."""
        observability.enable_metrics()

        def flush() -> str:
            observability.flush_metrics()
            return capsys.readouterr().out

        return flush


class TestParallelRefreshes:
    def test_all_get_the_one_successor(self, resources: Resources, query: Query) -> None:
        grant = sign_in(resources)
        with ThreadPoolExecutor(8) as pool:
            grants = list(pool.map(lambda _: refresh(resources, at(), grant.refresh_token), range(24)))
        assert len({each.refresh_token for each in grants}) == 1
        assert query("SELECT counter FROM refresh_lines") == [{"counter": 2}]
        refresh(resources, at(), grants[0].refresh_token)

    def test_a_deletion_at_the_same_moment_is_no_deadlock(
        self, resources: Resources, database: Database
    ) -> None:
        """Deleting locks the session, then its lines; a refresh between the two must not hold a line."""
        grant = sign_in(resources)
        outcome: list[AuthError] = []

        def refresh_meanwhile() -> None:
            try:
                refresh(resources, at(), grant.refresh_token)
            except AuthError as error:
                outcome.append(error)

        thread = threading.Thread(target=refresh_meanwhile)
        with database.transaction() as connection:
            connection.fetch_all("SELECT id FROM sessions FOR UPDATE")
            thread.start()
            while not connection.fetch_all("SELECT pid FROM pg_locks WHERE NOT granted"):
                time.sleep(0.005)
            connection.fetch_all("DELETE FROM accounts RETURNING id")
        thread.join()
        assert [type(error) for error in outcome] == [InvalidRefreshToken]


class TestServerKeys:
    @pytest.fixture
    def grant(self, make_resources: Callable[..., Resources]) -> TokenGrant:
        """Tokens of a server with the old key."""
        old = make_resources(secret_keys=(OLD_KEY,))
        accounts.register(old, at(), Registration(EMAIL, PASSWORD))
        return sign_in(old)

    def test_a_token_of_the_old_key_is_accepted_during_a_rotation(
        self, make_resources: Callable[..., Resources], grant: TokenGrant
    ) -> None:
        rotating = make_resources(secret_keys=(NEW_KEY, OLD_KEY))
        renewed = refresh(rotating, at(), grant.refresh_token)
        assert (
            refresh(make_resources(secret_keys=(NEW_KEY,)), at(), renewed.refresh_token).account.email
            == EMAIL
        )

    def test_a_token_of_another_key_is_none(
        self, make_resources: Callable[..., Resources], grant: TokenGrant, query: Query
    ) -> None:
        with pytest.raises(InvalidRefreshToken):
            refresh(make_resources(secret_keys=(NEW_KEY,)), at(), grant.refresh_token)
        assert query("SELECT ended_at FROM sessions") == [{"ended_at": None}]


class TestTokens:
    def test_roles_and_profile_are_those_of_the_moment(self, resources: Resources, query: Query) -> None:
        grant = sign_in(resources)
        query("INSERT INTO account_roles SELECT id, 'admin', now() FROM accounts RETURNING 1")
        query("UPDATE accounts SET display_name = 'New name' RETURNING 1")
        renewed = refresh(resources, at(60), grant.refresh_token)
        claims = resources.access_tokens.verify(renewed.access_token, now=at(60).now)
        assert claims.roles == renewed.account.roles == ("admin",)
        assert renewed.account.display_name == "New name"

    def test_refreshing_is_no_authentication(self, resources: Resources) -> None:
        grant = sign_in(resources)
        renewed = refresh(resources, at(3600), grant.refresh_token)
        claims = resources.access_tokens.verify(renewed.access_token, now=at(3600).now)
        assert claims.auth_time == NOW
        assert claims.amr == ("pwd",)

    def test_nothing_stored_is_a_token(self, resources: Resources, query: Query) -> None:
        grant = sign_in(resources)
        [row] = query(
            "SELECT (SELECT string_agg(s::text, '') FROM sessions AS s)"
            " || (SELECT string_agg(l::text, '') FROM refresh_lines AS l) AS everything"
        )
        assert str(grant.session_id) in row["everything"]
        for part in (grant.refresh_token.removeprefix("rt_")[-32:], grant.access_token.split(".")[2]):
            assert part not in row["everything"]


class TestLogOut:
    @pytest.mark.parametrize("scope", ["this", "others", "all"])
    def test_the_event_and_the_reason_are_written(
        self, resources: Resources, query: Query, scope: service.LogOutScope
    ) -> None:
        grant = sign_in(resources)
        sign_in(resources)
        claims = resources.access_tokens.verify(grant.access_token, now=NOW)
        log_out(resources, at(9), claims, scope)
        [event] = query("SELECT * FROM audit_events WHERE event LIKE 'logged_out%%'")
        assert event["event"] == f"logged_out_{scope}"
        assert (event["outcome"], event["reason"]) == ("success", None)
        assert (event["account_id"], event["session_id"]) == (grant.account.id, grant.session_id)
        ended = query("SELECT id, ended_at, end_reason FROM sessions WHERE ended_at IS NOT NULL")
        assert len(ended) == {"this": 1, "others": 1, "all": 2}[scope]
        assert {row["end_reason"] for row in ended} == {"logged_out"}
        assert {row["ended_at"] for row in ended} == {NOW + timedelta(seconds=9)}

    def test_an_ended_session_keeps_its_first_reason(self, resources: Resources, query: Query) -> None:
        first, second = sign_in(resources), sign_in(resources)
        claims = resources.access_tokens.verify(second.access_token, now=NOW)
        revoke_session(resources, at(1), claims, first.session_id)
        log_out(resources, at(2), claims, "all")
        rows = query("SELECT end_reason, ended_at FROM sessions ORDER BY id")
        assert [row["end_reason"] for row in rows] == ["revoked", "logged_out"]
        assert rows[0]["ended_at"] == NOW + timedelta(seconds=1)

    def test_a_session_past_its_end_cannot_act(self, resources: Resources) -> None:
        claims = resources.access_tokens.verify(sign_in(resources).access_token, now=NOW)
        late = at(90 * DAY)
        for act in (
            lambda: log_out(resources, late, claims, "all"),
            lambda: revoke_session(resources, late, claims, claims.sid),
            lambda: list_sessions(resources, late, claims, limit=1, cursor=None),
        ):
            with pytest.raises(SessionEnded):
                act()

    def test_the_session_of_another_account_does_not_make_claims_valid(
        self, resources: Resources, query: Query
    ) -> None:
        grant = sign_in(resources)
        claims = resources.access_tokens.verify(grant.access_token, now=NOW)
        accounts.register(resources, at(), Registration("other@example.com", PASSWORD))
        [other] = query("SELECT id FROM accounts WHERE email = 'other@example.com'")
        with pytest.raises(SessionEnded):
            log_out(resources, at(), replace(claims, sub=other["id"]), "all")

"""Logs and metrics in this process; tests/end_to_end has them as Lambda writes them."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from auth_manager import observability
from auth_manager.database import Database
from auth_manager.errors import DatabaseUnavailable
from auth_manager.observability import (
    configure_logging,
    count,
    enable_metrics,
    flush_metrics,
    log_event,
    log_failure,
    request_id,
)
from auth_manager.settings import Settings

Capture = pytest.CaptureFixture[str]

LOCAL = {"mode": "local", "public_url": "http://127.0.0.1:8000"}


def fail_inside(message: str) -> None:
    try:
        int(message)
    except ValueError as error:
        raise DatabaseUnavailable from error


class TestJson:
    def test_each_event_is_an_object_on_a_line(
        self, make_settings: Callable[..., Settings], capsys: Capture
    ) -> None:
        configure_logging(make_settings())
        token = request_id.set("request-1")
        log_event("login_failed", reason="a\r\nb", address=None)
        log_event("second")
        request_id.reset(token)
        first, second = capsys.readouterr().out.splitlines()
        entry = json.loads(first)
        assert entry["message"] == "login_failed"
        assert entry["reason"] == "a\r\nb"
        assert entry["request_id"] == "request-1"
        assert entry["level"] == "INFO"
        assert json.loads(second)["message"] == "second"

    def test_a_failure_is_logged_without_its_message(
        self, make_settings: Callable[..., Settings], capsys: Capture
    ) -> None:
        configure_logging(make_settings())
        with pytest.raises(DatabaseUnavailable) as caught:
            fail_inside("canary")
        log_failure("database_unavailable", caught.value)
        output = capsys.readouterr().out
        entry = json.loads(output)
        assert (entry["level"], entry["error"], entry["cause"]) == (
            "ERROR",
            "DatabaseUnavailable",
            "ValueError",
        )
        assert entry["at"][-1].endswith("fail_inside")
        assert "canary" not in output

    def test_the_level_is_a_setting(self, make_settings: Callable[..., Settings], capsys: Capture) -> None:
        configure_logging(make_settings(log_level="ERROR"))
        log_event("not this")
        log_event("this", level=logging.ERROR)
        assert json.loads(capsys.readouterr().out)["message"] == "this"

    def test_before_it_is_configured_nothing_is_written(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        monkeypatch.setattr(observability._Telemetry, "logger", None)
        log_event("nothing")
        assert capsys.readouterr() == ("", "")


class TestReadable:
    def test_a_line_for_people(self, make_settings: Callable[..., Settings], capsys: Capture) -> None:
        configure_logging(make_settings(**LOCAL))
        token = request_id.set("request-1")
        log_event("login failed\n", reason="a\r\nb \x1b[31m ü", number=1)
        request_id.reset(token)
        [line] = capsys.readouterr().out.splitlines()
        time, level, rest = line.split(maxsplit=2)
        assert len(time) == len("12:34:56")
        assert level == "INFO"
        assert rest == ('login failed\\n reason="a\\r\\nb \\u001b[31m \\u00fc" number=1 request_id=request-1')


class TestSecrets:
    """ASVS 16.2.5: nothing that a person entrusts to us reaches a log, in either form."""

    PASSWORD = "Serinus-canaria-9!"
    EMAIL = "canary-mail@example.com"

    def drive(self, client: TestClient, database: Database) -> list[str]:
        """Succeed, fail and crash with secrets; return them."""
        login = {"email": self.EMAIL, "password": self.PASSWORD}
        key = {"Idempotency-Key": "canary-key"}
        agent = {"User-Agent": "canary-agent\tx"}
        client.post("/auth/register", json=login | {"username": "canaryname"}, headers=key | agent)
        client.post("/auth/register", json=login)
        client.post("/auth/register", json=login | {"canary-field": "canary"})
        client.post("/auth/login", json=login | {"password": "canary-wrong"})
        client.post("/auth/login", content=b"{canary", headers={"Content-Type": "application/json"})
        tokens = client.post("/auth/login", json=login, headers=key).json()
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        refresh = {"refresh_token": tokens["refresh_token"]}
        client.post("/auth/refresh", json=refresh)
        client.post("/auth/refresh", json={"refresh_token": "rt_canary"})
        client.get("/auth/me?token=canary", headers=bearer)
        for broken in ("accounts", "rate_limits", "sessions", "idempotency_keys", "audit_events"):
            self.rename(database, broken, "gone")
            try:
                answers = [
                    client.post("/auth/register", json=login | {"email": "canary@x.com"}),
                    client.post("/auth/login", json=login),
                    client.post("/auth/refresh", json=refresh, headers=key),
                    client.patch("/auth/me", json={"display_name": "canary"}, headers=bearer),
                ]
                defects = [answer.text for answer in answers if answer.status_code == 500]
                assert defects
                assert "canary" not in str(defects)
            finally:
                self.rename(database, "gone", broken)
        client.post("/auth/logout", headers=bearer)
        return ["canary", self.PASSWORD, tokens["access_token"][-40:], tokens["refresh_token"][-40:]]

    def rename(self, database: Database, table: str, name: str) -> None:
        with database.one_trip() as connection:
            connection.add(f"ALTER TABLE {table} RENAME TO {name}")

    @pytest.mark.parametrize("overrides", [{}, LOCAL], ids=["json", "readable"])
    def test_none_is_logged(
        self,
        make_client: Callable[..., TestClient],
        make_settings: Callable[..., Settings],
        database: Database,
        capsys: Capture,
        overrides: dict[str, Any],
    ) -> None:
        configure_logging(make_settings(**overrides, log_level="DEBUG"))
        found = self.drive(make_client(**overrides), database)
        written = "".join(capsys.readouterr())
        assert written.count("request_id") > 20
        assert written.count("unhandled_error") >= 4
        assert "42P01" in written
        assert [secret for secret in found if secret in written] == []

    def test_line_breaks_in_what_was_sent_do_not_make_lines(
        self, make_client: Callable[..., TestClient], make_settings: Callable[..., Settings], capsys: Capture
    ) -> None:
        configure_logging(make_settings())
        body = {"identifier": "a\r\nforged\r\n", "password": "x\r\nforged"}
        make_client().post("/auth/login", json=body)
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["message"] for line in lines] == ["login_failed", "request"]


class TestMetrics:
    def test_counts_are_flushed_as_emf_once(self, capsys: Capture) -> None:
        enable_metrics()
        count("registered")
        count("registered")
        flush_metrics()
        flush_metrics()
        [line] = capsys.readouterr().out.splitlines()
        emitted = json.loads(line)
        assert emitted["registered"] == [1.0, 1.0]
        [directive] = emitted["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "AuthManager"
        assert directive["Dimensions"] == [["service"]]
        assert directive["Metrics"] == [{"Name": "registered", "Unit": "Count"}]

    def test_only_documented_metrics_exist(self) -> None:
        with pytest.raises(ValueError, match="surprise"):
            count("surprise")

    def test_without_a_sink_nothing_happens(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        monkeypatch.setattr(observability._Telemetry, "metrics", None)
        count("registered")
        flush_metrics()
        assert capsys.readouterr().out == ""

"""Where the database's URL comes from, and a password that changes under a running service."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

import pytest

from auth_manager.app import connect_database
from auth_manager.aws.database_access import open_database_url, read_database_secret, with_iam_token
from auth_manager.aws.signature_v4 import Credentials, rds_token
from auth_manager.cached_secret import CachedSecret
from auth_manager.errors import ConfigurationError, DatabaseUnavailable
from auth_manager.settings import Settings

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:database-abcdef"
TEMPLATE = "postgresql://db.example.com:6432/auth?sslmode=verify-full"
NOW = datetime(2026, 11, 22, 6, 40, tzinfo=UTC)

MakeSettings = Callable[..., Settings]


class TestReadDatabaseSecret:
    @pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
    def test_a_url(self, scheme: str) -> None:
        assert read_database_secret(f"{scheme}://a:b@c/d\n", TEMPLATE) == f"{scheme}://a:b@c/d"

    def test_user_and_password_are_put_into_the_template(self) -> None:
        text = json.dumps({"username": "api@x", "password": "p/w:%@ü"})

        url = read_database_secret(text, TEMPLATE)

        assert url.endswith("@db.example.com:6432/auth?sslmode=verify-full")
        parts = urlsplit(url)
        assert (unquote(parts.username or ""), unquote(parts.password or "")) == ("api@x", "p/w:%@ü")

    def test_the_secrets_own_address_wins(self) -> None:
        members = {"username": "a", "password": "b", "host": "h.example.com", "port": 5433, "dbname": "n"}

        assert read_database_secret(json.dumps(members), TEMPLATE) == (
            "postgresql://a:b@h.example.com:5433/n?sslmode=verify-full"
        )
        assert read_database_secret(json.dumps(members), "") == "postgresql://a:b@h.example.com:5433/n"

    @pytest.mark.parametrize(
        "text",
        ["", "canary", "[]", "null", '{"username": "canary"}', '{"username": "a", "password": "canary"}'],
    )
    def test_anything_else_is_refused_without_repeating_it(self, text: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            read_database_secret(text, "")

        assert "AUTH_DATABASE_SECRET_ARN" in str(caught.value)
        assert "canary" not in str(caught.value)


class TestOpenDatabaseUrl:
    def test_a_password_in_the_environment_wins(self, make_settings: MakeSettings) -> None:
        url = "postgresql://a:b@c/d"
        source = open_database_url(make_settings(database_url=url, database_secret_arn=ARN))

        assert source.url() == url

    def test_a_secret_that_nobody_can_fetch_is_refused(self, make_settings: MakeSettings) -> None:
        with pytest.raises(ConfigurationError, match="AUTH_DATABASE_SECRET_ARN"):
            open_database_url(make_settings(database_url=TEMPLATE, database_secret_arn=ARN))

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("postgresql://api@db.example.com/auth", "sslmode=verify-full"),
            ("postgresql://api@db.example.com/auth?sslmode=require", "sslmode=verify-full"),
            ("postgresql://db.example.com/auth?sslmode=verify-full", "a user and a host"),
            ("postgresql://api@/auth?sslmode=verify-full", "a user and a host"),
        ],
    )
    def test_iam_needs_a_checked_server(self, make_settings: MakeSettings, url: str, reason: str) -> None:
        with pytest.raises(ConfigurationError, match=reason):
            open_database_url(make_settings(database_url=url, database_iam=True))

    def test_an_iam_token_is_made_for_each_connection(
        self, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        url = "postgresql://api@db.example.com/auth?sslmode=verify-full"
        source = open_database_url(make_settings(database_url=url, database_iam=True))

        assert "X-Amz-Signature" in unquote(urlsplit(source.url()).password or "")
        assert source.renewed_url is None


class TestWithIamToken:
    @pytest.mark.parametrize("found", ["in the environment", "by boto3"])
    def test_the_token_is_the_password(self, monkeypatch: pytest.MonkeyPatch, found: str) -> None:
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        if found == "by boto3":
            monkeypatch.setattr("auth_manager.aws.database_access.environment_credentials", lambda: None)

        url = with_iam_token("postgresql://a%40b@db.example.com/auth?sslmode=verify-full", NOW)

        parts = urlsplit(url)
        token = unquote(parts.password or "")
        assert parts.username == "a%40b"
        assert (parts.hostname, parts.port, parts.path) == ("db.example.com", 5432, "/auth")
        assert token.startswith("db.example.com:5432/?Action=connect&DBUser=a%40b&")
        if found == "in the environment":
            assert token == rds_token(
                host="db.example.com",
                port=5432,
                user="a@b",
                region="eu-central-1",
                credentials=Credentials("AKIDEXAMPLE", "secret"),
                now=NOW,
            )


class TestRefusedLogin:
    """The role in the cached secret was replaced by another: the server refuses it."""

    def secret_of(self, user: str, server_url: str) -> str:
        parts = urlsplit(server_url)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{user}@{host}").geturl()

    def test_the_secret_is_read_again_and_used_at_once(
        self, make_settings: MakeSettings, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [self.secret_of("nobody_any_more", database_url), database_url]
        fetched: list[str] = []

        def fetch(arn: str) -> str:
            fetched.append(arn)
            return texts[min(len(fetched), len(texts)) - 1]

        monkeypatch.setitem(CachedSecret.__init__.__kwdefaults__ or {}, "retry_after", 0.0)
        database = connect_database(
            make_settings(database_url="", database_secret_arn=ARN), fetch_secret=fetch
        )
        with database.one_trip() as connection:
            assert connection.fetch_one("SELECT 1 AS one") == {"one": 1}
        assert fetched == [ARN, ARN]
        database.close()

    def test_the_same_url_is_not_tried_twice(self, make_settings: MakeSettings, database_url: str) -> None:
        wrong = self.secret_of("nobody_any_more", database_url)
        failed: list[bool] = []
        source = make_settings(database_url="", database_secret_arn=ARN)
        database = connect_database(source, fetch_secret=lambda _: wrong)
        database._on_connect_failed = lambda: failed.append(True)

        with pytest.raises(DatabaseUnavailable), database.one_trip() as connection:
            connection.fetch_one("SELECT 1")

        assert failed == [True]
        database.close()

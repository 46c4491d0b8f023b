"""Handing mail in, to real servers: well, full, suspicious, in clear, gone."""

import smtplib
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.mail.scenes import NOW, MailServer, body, message, serve_mail

from auth_manager.errors import ConfigurationError
from auth_manager.mail import Email, MailRefused, MailUnavailable, smtp
from auth_manager.mail.compose import Composer
from auth_manager.mail.smtp import parse_url, send

PASSWORD = "p@ss-canary/%"


@pytest.fixture
def email(make_composer: Callable[..., Composer]) -> Email:
    return make_composer().compose(message(), now=NOW)


def certificate_for(name: str, directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate that signs itself, at `certificate.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return context


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate for localhost that this process trusts."""
    context = certificate_for("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    return context


class TestParseUrl:
    @pytest.mark.parametrize(
        ("url", "host", "port", "security"),
        [
            ("smtps://mail.example.com", "mail.example.com", 465, "tls"),
            ("smtp://mail.example.com", "mail.example.com", 587, "starttls"),
            ("smtp://mail.example.com:25/", "mail.example.com", 25, "starttls"),
            ("smtp://127.0.0.1:1025?tls=none", "127.0.0.1", 1025, "none"),
            ("smtp://localhost?tls=none", "localhost", 587, "none"),
            ("smtp://[::1]:25?tls=none", "::1", 25, "none"),
        ],
    )
    def test_what_it_means(self, url: str, host: str, port: int, security: str) -> None:
        server = parse_url(url, local=False)
        assert (server.host, server.port, server.security) == (host, port, security)

    def test_the_password_is_decoded_and_not_shown(self) -> None:
        server = parse_url("smtps://AKIA:p%40ss-canary%2F%25@mail.example.com", local=False)
        assert (server.user, server.password) == ("AKIA", PASSWORD)
        assert "canary" not in repr(server)

    def test_a_network_of_ones_own_may_be_in_clear_in_local_mode(self) -> None:
        assert parse_url("smtp://mailpit:1025?tls=none", local=True).security == "none"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "mail.example.com",
            "http://mail.example.com",
            "smtp://",
            "smtp://canary@",
            "smtp://u:canary@host:port",
            "smtp://u:canary@host/path",
            "smtp://u:canary@host?tls=maybe",
            "smtp://u:canary@host?tls=none",
            "smtp://u:canary@host?x=1",
            "smtps://localhost?tls=none",
            "smtp://u:canary@10.0.0.1?tls=none",
            "smtp://[::1",
        ],
    )
    def test_what_cannot_be_used_refuses_the_start(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="AUTH_SMTP_URL") as caught:
            parse_url(url, local=False)
        assert "canary" not in str(caught.value)


class TestSend:
    def test_it_arrives_with_both_parts(self, mail_server: MailServer, email: Email) -> None:
        send(parse_url(mail_server.url, local=False), email)
        [(recipient, content)] = mail_server.received
        assert recipient == "test@example.com"
        assert content["Message-ID"] == f"<{email.id}@example.com>"
        assert body(content, "plain") == body(email.content, "plain")
        assert body(content, "html") == body(email.content, "html")

    def test_a_local_part_beyond_ascii_needs_smtputf8(
        self, mail_server: MailServer, make_composer: Callable[..., Composer]
    ) -> None:
        """RFC 6531."""
        email = make_composer().compose(message(recipient="jörg@bücher.example.com"), now=NOW)
        send(parse_url(mail_server.url, local=False), email)
        [(recipient, content)] = mail_server.received
        assert recipient == "jörg@xn--bcher-kva.example.com"
        assert content["To"] == "jörg@xn--bcher-kva.example.com"
        assert "SMTPUTF8" in mail_server.options

    def test_a_server_without_it_never_takes_that(self, make_composer: Callable[..., Composer]) -> None:
        email = make_composer().compose(message(recipient="jörg@example.com"), now=NOW)
        with serve_mail(enable_SMTPUTF8=False) as server:
            with pytest.raises(MailRefused, match="address_needs_smtputf8"):
                send(parse_url(server.url, local=False), email)
            assert server.received == []

    @pytest.mark.parametrize(
        ("reply", "failure", "reason"),
        [
            ("550 5.1.1 test@example.com: no such user", MailRefused, "recipient_refused_550"),
            ("450 4.2.1 try later", MailUnavailable, "recipient_refused_450"),
            ("421 too busy", MailUnavailable, "recipient_refused_421"),
        ],
    )
    def test_a_refused_recipient(
        self, mail_server: MailServer, email: Email, reply: str, failure: type[Exception], reason: str
    ) -> None:
        mail_server.at_recipient = {"test@example.com": reply}
        with pytest.raises(failure, match=f"^{reason}$"):
            send(parse_url(mail_server.url, local=False), email)

    @pytest.mark.parametrize(
        ("reply", "failure", "reason"),
        [
            ("554 5.7.1 spam", MailRefused, "content_refused_554"),
            ("452 4.3.1 full", MailUnavailable, "content_refused_452"),
        ],
    )
    def test_refused_content(
        self, mail_server: MailServer, email: Email, reply: str, failure: type[Exception], reason: str
    ) -> None:
        mail_server.at_data = reply
        with pytest.raises(failure, match=f"^{reason}$"):
            send(parse_url(mail_server.url, local=False), email)

    def test_a_refused_sender_is_for_an_operator_to_mend(self, email: Email) -> None:
        with serve_mail(data_size_limit=100) as server, pytest.raises(MailUnavailable, match="smtp_552"):
            send(parse_url(server.url, local=False), email)

    def test_nobody_listens(self, email: Email) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"smtp://127.0.0.1:{probe.getsockname()[1]}?tls=none"
            with pytest.raises(MailUnavailable, match="smtp_no_connection"):
                send(parse_url(url, local=False), email)

    def test_a_server_that_says_nothing(self, email: Email, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(smtp, "TIMEOUT", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"smtp://127.0.0.1:{silent.getsockname()[1]}?tls=none"
            with pytest.raises(MailUnavailable, match="smtp_no_connection"):
                send(parse_url(url, local=False), email)

    def test_a_rude_good_bye_does_not_make_it_a_failure(
        self, mail_server: MailServer, email: Email, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was taken: a failure now would send it twice."""

        def hang_up(self: smtplib.SMTP) -> None:
            self.close()
            raise smtplib.SMTPResponseException(500, b"what?")

        monkeypatch.setattr(smtplib.SMTP, "quit", hang_up)
        send(parse_url(mail_server.url, local=False), email)
        assert len(mail_server.received) == 1


class TestSecurity:
    @pytest.fixture
    def auth(self) -> dict[str, Any]:
        """aiosmtpd's options for a server that wants a password, over TLS alone."""

        def authenticate(
            _server: Any, _session: Any, _envelope: Any, mechanism: str, data: Any
        ) -> AuthResult:
            assert mechanism in {"LOGIN", "PLAIN"}
            success = (data.login, data.password) == (b"user", PASSWORD.encode())
            return AuthResult(success=success, handled=success)

        return {"authenticator": authenticate, "auth_required": True}

    def test_starttls(self, email: Email, trusted: ssl.SSLContext) -> None:
        with serve_mail(tls_context=trusted, require_starttls=True) as server:
            send(parse_url(server.url, local=False), email)
            assert len(server.received) == 1

    def test_tls_from_the_first_byte(self, email: Email, trusted: ssl.SSLContext) -> None:
        with serve_mail(tls=trusted) as server:
            send(parse_url(server.url, local=False), email)
            assert len(server.received) == 1

    def test_log_in(self, email: Email, trusted: ssl.SSLContext, auth: dict[str, Any]) -> None:
        with serve_mail(tls_context=trusted, **auth) as server:
            named = replace(parse_url(server.url, local=False), user="user", password=PASSWORD)
            send(named, email)
            assert len(server.received) == 1
            with pytest.raises(MailUnavailable, match="smtp_535"):
                send(replace(named, password="wrong"), email)
            with pytest.raises(MailUnavailable, match="smtp_530"):
                send(replace(named, user=""), email)

    def test_a_server_without_tls_gets_nothing(self, mail_server: MailServer, email: Email) -> None:
        """As where somebody on the way took STARTTLS out of its answer (RFC 3207 section 6)."""
        url = mail_server.url.removesuffix("?tls=none")
        with pytest.raises(MailUnavailable, match="smtp_no_connection"):
            send(parse_url(url, local=False), email)
        assert mail_server.received == []

    @pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
    def test_a_certificate_that_nobody_vouches_for(
        self, email: Email, tmp_path: Path, *, implicit: bool
    ) -> None:
        context = certificate_for("localhost", tmp_path)
        options: dict[str, Any] = {"tls": context} if implicit else {"tls_context": context}
        with serve_mail(**options) as server:
            with pytest.raises(MailUnavailable, match="smtp_no_connection"):
                send(parse_url(server.url, local=False), email)
            assert server.received == []

    def test_a_certificate_for_another_name(
        self, email: Email, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context = certificate_for("elsewhere.example.com", tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        with serve_mail(tls_context=context) as server:
            with pytest.raises(MailUnavailable, match="smtp_no_connection"):
                send(parse_url(server.url, local=False), email)
            assert server.received == []

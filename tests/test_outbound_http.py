"""Posting to addresses that others typed in: what is reached, what is not, and how long it may take."""

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.webhooks.receivers import Behaviour, Receiver, certificate_for, serve, serve_badly

from auth_manager.outbound_http import (
    MAXIMUM_BODY,
    CannotPost,
    InvalidUrl,
    Outbound,
    look_up,
    parse_url,
)

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serve() as one:
        yield one


def reason(outbound: Outbound, url: str) -> str:
    with pytest.raises(CannotPost) as caught:
        outbound.post(url, HEADERS, b"{}")
    return caught.value.reason


def resolving(*answers: str) -> Callable[[str], Sequence[str]]:
    return lambda _host: answers


class TestParseUrl:
    @pytest.mark.parametrize(
        ("url", "host", "port", "target", "authority"),
        [
            ("https://example.com", "example.com", 443, "/", "example.com"),
            ("https://example.com:443/a?b=c", "example.com", 443, "/a?b=c", "example.com"),
            ("https://EXAMPLE.com:8443/", "example.com", 8443, "/", "example.com:8443"),
            ("http://example.com/x%20y", "example.com", 80, "/x%20y", "example.com"),
            ("https://bücher.example/", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"),
            ("https://[2001:DB8::1]:8443/", "2001:db8::1", 8443, "/", "[2001:db8::1]:8443"),
            ("https://8.8.8.8/", "8.8.8.8", 443, "/", "8.8.8.8"),
        ],
    )
    def test_what_it_says(self, url: str, host: str, port: int, target: str, authority: str) -> None:
        parsed = parse_url(url)
        assert (parsed.host, parsed.port, parsed.target, parsed.authority) == (host, port, target, authority)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "example.com",
            "//example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "https://",
            "https:///path",
            "https://user@example.com/",
            "https://user:password@example.com/",
            "https://:@example.com/",
            "https://example.com\\@127.0.0.1/",
            "https://example.com/#fragment",
            "https://example.com/a b",
            "https://example.com/\r\nHost: evil",
            "https://example.com/\x00",
            "https://example.com/é",
            "https://example.com:0/",
            "https://example.com:22/",
            "https://example.com:80/",
            "https://example.com:65536/",
            "https://example.com:x/",
            "https://exa mple.com/",
            "https://example..com/",
            "https://-example.com/",
            "https://example.com./",
            "https://localhost./",
            "https://0x7f.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://127.1/",
            "https://017700000001/",
            "https://0177.0.0.1/",
            "https://example.1/",
            "https://①②⑦.⓪.⓪.①.x.1/",
            "https://[fe80::1%25eth0]/",
            "https://[::1/",
            "https://" + "a" * 64 + ".example/",
            "https://example.com/" + "a" * 2048,
        ],
    )
    def test_what_is_none(self, url: str) -> None:
        with pytest.raises(InvalidUrl):
            parse_url(url)


class TestCheck:
    @pytest.mark.parametrize(
        "url",
        [
            "http://example.com/",
            "https://localhost/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:8.8.8.8]/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://[fd00:ec2::254]/",
            "https://①②⑦.⓪.⓪.①/",
        ],
    )
    def test_what_no_look_up_is_needed_to_refuse(self, url: str) -> None:
        with pytest.raises(InvalidUrl):
            Outbound().check(url)
        assert reason(Outbound(), url) == "invalid_url"

    def test_in_clear_only_where_the_operator_allows_networks(self) -> None:
        assert Outbound(LOOPBACK).check("http://localhost:8000/").port == 8000


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",  # noqa: S104 -- refused
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "192.0.0.1",
            "192.0.0.9",
            "192.0.0.192",
            "168.63.129.16",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "::ffff:0:7f00:1",
            "::ffff:0:808:808",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:1::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "2002:7f00:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "ff02::1",
        ],
    )
    def test_what_is_not_public_is_refused(self, address: str) -> None:
        """Also beside a public one, wherever it stands."""
        for answers in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
            assert (
                reason(Outbound(resolve=resolving(*answers)), "https://hooks.example/") == "address_refused"
            )

    @pytest.mark.parametrize(
        "address",
        [
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "0.0.0.0",  # noqa: S104 -- refused
            "224.0.0.1",
            "::a9fe:a9fe",
            "::ffff:169.254.169.254",
            "::ffff:0:a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::1",
            "2001:0:808:808::5601:5601",
        ],
    )
    def test_some_no_operator_can_allow(self, address: str) -> None:
        everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
        outbound = Outbound(everything, resolve=resolving(address))
        assert reason(outbound, "http://hooks.example/") == "address_refused"

    @pytest.mark.parametrize(
        "address", ["::7f00:1", "::ffff:127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::1"]
    )
    def test_all_of_ipv6_is_not_all_of_ipv4(self, address: str, receiver: Receiver) -> None:
        """Who allows the former has not allowed what it leads to; who allows both has."""
        all_of_ipv6 = Outbound((ip_network("::/0"),), resolve=resolving(address))
        assert reason(all_of_ipv6, f"http://hooks.example:{receiver.port}/") == "address_refused"
        both = Outbound((ip_network("::/0"), ip_network("127.0.0.0/8")), resolve=resolving(address))
        assert both._may_reach(ip_address(address), "http")
        assert receiver.received == []

    def test_a_nat64_leads_to_what_is_public(self) -> None:
        outbound = Outbound((ip_network("64:ff9b::/96"),))
        assert outbound.check("https://[64:ff9b::8.8.8.8]/").host == "64:ff9b::808:808"
        with pytest.raises(InvalidUrl):
            outbound.check("https://[64:ff9b::10.0.0.1]/")

    @pytest.mark.parametrize(
        "address", ["8.8.8.8", "192.1.0.1", "2600::1", "2a00:1450:4001::1", "2001:4860::1"]
    )
    def test_what_is_public_is_not_refused(self, address: str) -> None:
        assert Outbound()._may_reach(ip_address(address), "https")

    def test_localhost_by_the_system_itself(self) -> None:
        """`localhost` and whatever the resolver of this machine reads as an address."""
        assert set(look_up("localhost")) <= {"127.0.0.1", "::1"}
        assert look_up("2130706433") == ["127.0.0.1"]
        assert (
            reason(Outbound(resolve=lambda _: look_up("localhost")), "https://a.example/")
            == "address_refused"
        )

    @pytest.mark.parametrize("answers", [[], ["no address"]])
    def test_a_name_without_an_address(self, answers: list[str]) -> None:
        assert reason(Outbound(resolve=resolving(*answers)), "https://hooks.example/") == "host_not_found"

    def test_a_name_that_nobody_has(self) -> None:
        def fail(_host: str) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "canary")

        assert reason(Outbound(resolve=fail), "https://hooks.example/") == "host_not_found"

    def test_a_resolver_that_hangs(self) -> None:
        def hang(_host: str) -> Sequence[str]:
            time.sleep(3)
            return ["8.8.8.8"]

        before = time.monotonic()
        assert reason(Outbound(resolve=hang, deadline=0.2), "https://hooks.example/") == "timeout"
        assert time.monotonic() - before < 1

    def test_rebinding_changes_nothing(self, receiver: Receiver) -> None:
        """One look-up, and the connection goes to what it said: the second answer is never asked for."""
        asked: list[str] = []

        def rebind(host: str) -> Sequence[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        only_the_first = Outbound((ip_network("127.0.0.1/32"),), resolve=rebind)
        url = f"http://rebind.example:{receiver.port}/"
        assert only_the_first.post(url, HEADERS, b"{}").status == 204
        assert asked == ["rebind.example"]
        assert receiver.received[0].headers["host"] == f"rebind.example:{receiver.port}"

    def test_public_first_then_private(self) -> None:
        """The public one, where nothing listens for us, is what is asked; the private one is never."""
        asked: list[str] = []

        def rebind(host: str) -> Sequence[str]:
            asked.append(host)
            return ["192.0.2.1"] if len(asked) == 1 else ["127.0.0.1"]

        with serve() as private:
            # TEST-NET-1 stands for a public one: allowed, and not there.
            outbound = Outbound((ip_network("192.0.2.0/24"),), resolve=rebind, deadline=0.5)
            url = f"http://rebind.example:{private.port}/"
            assert reason(outbound, url) in {"timeout", "not_connected"}
            assert reason(outbound, url) == "address_refused"
            assert private.received == []
        assert len(asked) == 2

    def test_the_next_address_is_tried(self, receiver: Receiver) -> None:
        outbound = Outbound(LOOPBACK, resolve=resolving("::1", "127.0.0.2", "127.0.0.1"))
        assert outbound.post(f"http://hooks.example:{receiver.port}/", HEADERS, b"{}").status == 204


class TestPost:
    def test_the_request(self, receiver: Receiver) -> None:
        answer = Outbound(LOOPBACK).post(receiver.url, {**HEADERS, "X-Test": "1"}, b'{"a":1}')
        assert answer.status == 204
        [received] = receiver.received
        assert (received.path, received.body) == ("/hooks?tenant=1", b'{"a":1}')
        assert received.headers == {
            "host": f"localhost:{receiver.port}",
            "connection": "close",
            "content-length": "7",
            "content-type": "application/json",
            "x-test": "1",
        }

    def test_no_proxy_of_the_environment(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert Outbound(LOOPBACK).post(receiver.url, HEADERS, b"{}").status == 204

    def test_a_redirect_is_not_followed(self, receiver: Receiver) -> None:
        for location in ("http://169.254.169.254/latest/meta-data/", receiver.url):
            receiver.answers, receiver.location = [307], location
            assert Outbound(LOOPBACK).post(receiver.url, HEADERS, b"{}").status == 307
        assert len(receiver.received) == 2

    def test_nobody_listens(self) -> None:
        assert reason(Outbound(LOOPBACK), "http://127.0.0.1:1024/") == "not_connected"


class TestTls:
    @pytest.fixture
    def trust(self, tmp_path: Path) -> Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]:
        def make(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
            server = certificate_for(name, tmp_path)
            return server, ssl.create_default_context(cafile=tmp_path / "certificate.pem")

        return make

    def test_the_host_is_who_it_says(
        self, trust: Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]
    ) -> None:
        server, ours = trust("hooks.example")
        names: list[str | None] = []
        server.sni_callback = lambda _connection, name, _context: names.append(name)
        with serve(tls=server) as receiver:
            outbound = Outbound(LOOPBACK, resolve=resolving("127.0.0.1"), trust=ours)
            assert outbound.post(f"https://hooks.example:{receiver.port}/", HEADERS, b"{}").status == 204
        assert names == ["hooks.example"]

    def test_another_name_is_refused(
        self, trust: Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]
    ) -> None:
        server, ours = trust("other.example")
        with serve(tls=server) as receiver:
            outbound = Outbound(LOOPBACK, resolve=resolving("127.0.0.1"), trust=ours)
            assert reason(outbound, f"https://hooks.example:{receiver.port}/") == "tls_failed"
        assert receiver.received == []

    def test_an_authority_that_nobody_knows_is_refused(
        self, trust: Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]
    ) -> None:
        server, _ = trust("hooks.example")
        with serve(tls=server) as receiver:
            outbound = Outbound(LOOPBACK, resolve=resolving("127.0.0.1"))
            assert reason(outbound, f"https://hooks.example:{receiver.port}/") == "tls_failed"
        assert receiver.received == []

    def test_a_server_that_speaks_no_tls(self, receiver: Receiver) -> None:
        assert reason(Outbound(LOOPBACK), f"https://localhost:{receiver.port}/") == "tls_failed"

    def test_a_handshake_that_never_ends(self) -> None:
        with serve_badly(lambda _: time.sleep(3)) as port:
            outbound = Outbound(LOOPBACK, deadline=0.3)
            before = time.monotonic()
            assert reason(outbound, f"https://127.0.0.1:{port}/") == "timeout"
            assert time.monotonic() - before < 1


def drip(before: bytes, drop: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.sendall(before)
        for _ in range(200):
            connection.sendall(drop)
            time.sleep(0.02)

    return behave


def say(answer: bytes) -> Behaviour:
    return lambda connection: connection.sendall(answer)


def pour(before: bytes, drop: bytes, megabytes: list[float]) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.sendall(before)
        while True:
            connection.sendall(drop)
            megabytes[0] += len(drop) / 1e6

    return behave


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


OK = b"HTTP/1.1 200 OK\r\n"


class TestHostileAnswers:
    @pytest.mark.parametrize(
        ("behaviour", "expected"),
        [
            (drip(b"", b"H"), {"timeout", "no_answer"}),
            (drip(OK, b"X-A: b\r\n"), {"timeout"}),
            (drip(OK + b"X-A: ", b"b"), {"timeout"}),
            (drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), {"timeout"}),
            (lambda _: time.sleep(3), {"timeout"}),
            (reset, {"no_answer"}),
            (say(b""), {"no_answer"}),
            (say(b"\x00\xff" * 100), {"no_answer"}),
            (say(b"HTTP/9.9 200 OK\r\n\r\n"), {"no_answer"}),
            (say(b"HTTP/1.1 twohundred OK\r\n\r\n"), {"no_answer"}),
            (say(b"HTTP/1.1 99 OK\r\n\r\n"), {"no_answer"}),
            (say(OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n"), {"no_answer"}),
            (say(OK + b"X: a\r\n" * 200 + b"\r\n"), {"no_answer"}),
        ],
        ids=[
            "dripping status",
            "dripping headers",
            "dripping value",
            "endless continue",
            "silence",
            "reset",
            "nothing",
            "no HTTP",
            "another HTTP",
            "status in words",
            "status too small",
            "huge header",
            "too many headers",
        ],
    )
    def test_no_answer_in_time_or_none_at_all(self, behaviour: Behaviour, expected: set[str]) -> None:
        with serve_badly(behaviour) as port:
            before = time.monotonic()
            assert reason(Outbound(LOOPBACK, deadline=0.5), f"http://127.0.0.1:{port}/") in expected
            assert time.monotonic() - before < 1.5

    @pytest.mark.parametrize(
        "behaviour",
        [
            drip(OK + b"Content-Length: 100000\r\n\r\n", b"a"),
            drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
            say(OK + b"Transfer-Encoding: chunked\r\n\r\nno number\r\n"),
            say(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n"),
            say(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n"),
            say(OK + b"Content-Length: 10\r\n\r\nabc"),
            say(OK + b"Content-Length: -1\r\n\r\nabc"),
            say(OK + b"Content-Length: many\r\n\r\nabc"),
            say(OK + b"Content-Encoding: gzip\r\n\r\nnone"),
        ],
        ids=[
            "dripping body",
            "dripping chunks",
            "chunk of no size",
            "chunk of a huge size",
            "chunk of a negative size",
            "short body",
            "negative length",
            "length in words",
            "no gzip",
        ],
    )
    def test_the_status_counts_whatever_the_body_is(self, behaviour: Behaviour) -> None:
        with serve_badly(behaviour) as port:
            before = time.monotonic()
            answer = Outbound(LOOPBACK, deadline=0.5).post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
            assert answer.status == 200
            assert time.monotonic() - before < 1.5

    @pytest.mark.parametrize(
        ("before", "drop"),
        [
            (OK + b"\r\n", b"a" * 65_536),
            (OK + b"Content-Length: 99999999999\r\n\r\n", b"a" * 65_536),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"a" * 65_536 + b"\r\n"),
        ],
        ids=["until it closes", "of a huge length", "in chunks"],
    )
    def test_an_endless_body_is_left_alone_after_its_beginning(self, before: bytes, drop: bytes) -> None:
        poured = [0.0]
        with serve_badly(pour(before, drop, poured)) as port:
            started = time.monotonic()
            assert Outbound(LOOPBACK).post(f"http://127.0.0.1:{port}/", HEADERS, b"{}").status == 200
            assert time.monotonic() - started < 2
        # What the two kernels hold besides.
        assert poured[0] < MAXIMUM_BODY / 1e6 + 20

"""POST to an address that somebody typed in, without letting them reach what only we can reach (SSRF).

The host is looked up once. Every address that it has must be public, or in a network that the operator
allows, and the connection goes to the very address that was looked at: who changes the answer of their name
server in between (DNS rebinding) changes nothing. Redirects are answers like any other. Proxies of the
environment are not asked. One deadline holds for all of it: look-up, connection, TLS, headers.
"""

import http.client
import io
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Literal
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str], Sequence[str]]
"""Returns the IP addresses of a host; raises OSError."""

DEADLINE = 10.0
"""Seconds for one POST, all included."""

CONNECT_TIMEOUT = 4.0
"""Seconds for one of several addresses: the next one may do better."""

MAXIMUM_BODY = 64 * 1024
"""Bytes of an answer that are read, and thrown away, so that its sender sees no broken connection."""

DRAIN_TIMEOUT = 1.0
"""Seconds for that."""

MAXIMUM_URL = 2048

_DEFAULT_PORTS = {"https": 443, "http": 80}
_FIRST_UNPRIVILEGED_PORT = 1024
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""What stands last in an IPv4 address, however oddly written (WHATWG URL section 3.5)."""

_LOOPBACK = ipaddress.IPv6Address("::1")

_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this very host
            "169.254.0.0/16",  # link-local, and the metadata of every cloud
            "100.100.100.200/32",  # metadata of Alibaba Cloud
            "168.63.129.16/32",  # and of Azure
            "192.0.0.0/24",  # protocol assignments, and metadata of Oracle Cloud
            "224.0.0.0/3",  # multicast, reserved, broadcast
            "::/128",
            "fe80::/10",
            "fd00:ec2::/32",  # AWS: metadata, DNS, time
            "fd20:ce::254/128",  # metadata of Google Cloud
            "ff00::/8",
        ),
    )
)
"""Nobody's endpoint, whatever the operator allows."""

_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.88.99.0/24",  # relays of 6to4
            "::/3",  # ways into IPv4, and nothing that was given out: that is 2000::/3 alone
            "2001::/23",  # protocol assignments, Teredo
            "2002::/16",  # 6to4
            "3fff::/20",  # documentation (RFC 9637)
            "4000::/2",
            "8000::/1",
        ),
    )
)
"""What `is_global` is too kind to, or knows in newer versions of Python alone."""

_IPV4_LAST = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "::/96",  # IPv4-compatible
            "::ffff:0:0/96",  # IPv4-mapped
            "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
            "64:ff9b::/96",  # NAT64 (RFC 6052)
        ),
    )
)
"""Whose last 32 bits are an IPv4 address."""


class CannotPost(Exception):
    """There is no answer; `reason` is a stable word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidUrl(Exception):
    """Not a URL that we post to; the message says why, without it."""


@dataclass(frozen=True, slots=True)
class Url:
    """What a URL says, as it is used. `host` is in ASCII, without the brackets of an IPv6 address."""

    scheme: Literal["https", "http"]
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The `Host` header (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> Url:
    """Read a URL strictly: what two programs could read differently is none.

    Raises:
        InvalidUrl: it is not one we post to.
    """
    if len(url) > MAXIMUM_URL or not url.isprintable() or any(c in url for c in ' \\"<>^`{|}'):
        raise InvalidUrl("is too long, or has characters that no URL has")
    try:
        parts = urlsplit(url)
        port, name = parts.port, parts.hostname
    except ValueError:
        raise InvalidUrl("is no URL") from None
    if parts.scheme not in _DEFAULT_PORTS or not name:
        raise InvalidUrl("must begin with https:// and a host")
    if "@" in parts.netloc:
        raise InvalidUrl("must have no user and no password")
    if parts.fragment or not (parts.path + parts.query).isascii():
        raise InvalidUrl("must have no fragment, and only ASCII after the host")
    scheme: Literal["https", "http"] = "https" if parts.scheme == "https" else "http"
    port = _DEFAULT_PORTS[scheme] if port is None else port
    if port != _DEFAULT_PORTS[scheme] and port < _FIRST_UNPRIVILEGED_PORT:
        raise InvalidUrl("has a port that is neither the usual one nor above 1023")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(scheme, _read_host(name), port, target)


def _read_host(name: str) -> str:
    with suppress(ValueError):
        address = ipaddress.ip_address(name)
        if getattr(address, "scope_id", None):
            raise InvalidUrl("has an address with a zone")
        return str(address)
    try:
        host = name if name.isascii() else name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise InvalidUrl("has no valid host name") from None
    if not _HOST_NAME.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise InvalidUrl("has no valid host name")
    return host


def look_up(host: str) -> list[str]:
    """Return the addresses of a host, as the system's resolver knows them. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status alone, because the body may be something that only we could fetch."""

    status: int


@dataclass(frozen=True)
class Outbound:
    """Posts to public addresses, and to those in `allowed_networks`, which may also be reached in clear.

    `trust` are the authorities of TLS, by default the system's.
    """

    allowed_networks: tuple[Network, ...] = ()
    resolve: Resolve = look_up
    deadline: float = DEADLINE
    trust: ssl.SSLContext | None = None

    def check(self, url: str) -> Url:
        """Return what a URL says, if it can be posted to as far as one can tell without looking its host up.

        Raises:
            InvalidUrl: it cannot.
        """
        parsed = parse_url(url)
        if parsed.scheme == "http" and not self.allowed_networks:
            raise InvalidUrl("must begin with https://")
        with suppress(ValueError):
            address = ipaddress.ip_address(parsed.host)
            if not self._may_reach(address, parsed.scheme):
                raise InvalidUrl("has an address that is not public")
        if parsed.host == "localhost" and not self.allowed_networks:
            raise InvalidUrl("has an address that is not public")
        return parsed

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post, and return the answer, whatever it is.

        Raises:
            CannotPost: `invalid_url`, `host_not_found`, `address_refused`, `not_connected`, `tls_failed`,
                `timeout`, `no_answer`.
        """
        clock = _Deadline(self.deadline)
        try:
            parsed = self.check(url)
        except InvalidUrl:
            raise CannotPost("invalid_url") from None
        addresses = self._addresses(parsed, clock)
        try:
            with self._connect(parsed, addresses, clock) as connection:
                return _exchange(connection, parsed, headers, body, clock)
        except TimeoutError:
            raise CannotPost("timeout") from None
        except (http.client.HTTPException, OSError, ValueError):
            raise CannotPost("timeout" if clock.is_over else "no_answer") from None

    def _addresses(self, url: Url, clock: "_Deadline") -> list[Address]:
        """Look the host up, once; all of its addresses must be allowed."""
        try:
            # A scope would be one of a link-local address.
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in self._resolve(url.host, clock)]
        except TimeoutError:
            raise CannotPost("timeout") from None
        except (OSError, ValueError):
            raise CannotPost("host_not_found") from None
        if not found:
            raise CannotPost("host_not_found")
        if not all(self._may_reach(address, url.scheme) for address in found):
            raise CannotPost("address_refused")
        return found

    def _resolve(self, host: str, clock: "_Deadline") -> Sequence[str]:
        """Give the resolver no more than the deadline: it has time-outs of its own, and knows no other."""
        answers: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self.resolve(host))
            except (OSError, UnicodeError) as error:
                answers.put(error if isinstance(error, OSError) else OSError(str(error)))

        threading.Thread(target=ask, name="look-up", daemon=True).start()
        try:
            answer = answers.get(timeout=clock.remaining())
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _may_reach(self, address: Address, scheme: str) -> bool:
        within = _ipv4_within(address)
        if any(_is_in(one, _NEVER) for one in (address, *within)):
            return False
        if not all(_is_public(one) or _is_in(one, self.allowed_networks) for one in within):
            return False
        if _is_in(address, self.allowed_networks):
            return True
        return scheme == "https" and _is_public(address)

    def _connect(self, url: Url, addresses: Sequence[Address], clock: "_Deadline") -> socket.socket:
        """Connect to the first address that takes it, by TLS as the host's name if the URL says so."""
        for address in addresses:
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 -- IPv6
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(min(CONNECT_TIMEOUT, clock.remaining()))
                connection.connect((str(address), url.port))
            except OSError:
                connection.close()
                continue
            return self._secure(connection, url, clock) if url.scheme == "https" else connection
        raise CannotPost("timeout" if clock.is_over else "not_connected")

    def _secure(self, connection: socket.socket, url: Url, clock: "_Deadline") -> socket.socket:
        try:
            connection.settimeout(clock.remaining())
            return self._tls.wrap_socket(connection, server_hostname=url.host)
        except BaseException as error:
            connection.close()
            if isinstance(error, ssl.SSLError | ssl.CertificateError) and not clock.is_over:
                raise CannotPost("tls_failed") from None
            raise

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self.trust or ssl.create_default_context()


def _ipv4_within(address: Address) -> Sequence[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that one of IPv6 leads to, by translation or in a tunnel."""
    if isinstance(address, ipaddress.IPv4Address) or address == _LOOPBACK:
        return ()
    if _is_in(address, _IPV4_LAST):
        return (ipaddress.IPv4Address(address.packed[-4:]),)
    return (*filter(None, [address.sixtofour]), *(address.teredo or ()))


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _is_public(address: Address) -> bool:
    return address.is_global and not _is_in(address, _NOT_PUBLIC)


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def shorten(self, seconds: float) -> None:
        """Leave no more than so many seconds."""
        self._end = min(self._end, time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return how many seconds are left. Raises TimeoutError: none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._end


class _Stream(io.RawIOBase):
    """A socket's bytes, each read within the deadline: a time-out of each alone would let a drip go on."""

    def __init__(self, connection: socket.socket, clock: _Deadline) -> None:
        self._connection = connection
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 -- io's own type
        self._connection.settimeout(self._clock.remaining())
        return self._connection.recv_into(buffer)


class _Timed:
    """As much of a socket as http.client asks for."""

    def __init__(self, connection: socket.socket, clock: _Deadline) -> None:
        self._connection = connection
        self._clock = clock

    def makefile(self, _mode: str) -> IO[bytes]:
        return io.BufferedReader(_Stream(self._connection, self._clock))

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self._clock.remaining())
        self._connection.sendall(data)

    def close(self) -> None:
        """Whoever opened the connection closes it."""


def _exchange(
    connection: socket.socket, url: Url, headers: Mapping[str, str], body: bytes, clock: _Deadline
) -> Answer:
    exchange = http.client.HTTPConnection(url.host)
    exchange.auto_open = 0
    exchange.sock = _Timed(connection, clock)  # it asks a socket for no more
    exchange.putrequest("POST", url.target, skip_host=True, skip_accept_encoding=True)
    for name, value in {
        "Host": url.authority,
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }.items():
        exchange.putheader(name, value)
    exchange.endheaders(body)
    response = exchange.getresponse()
    with suppress(http.client.HTTPException, OSError, ValueError):
        clock.shorten(DRAIN_TIMEOUT)
        response.read(MAXIMUM_BODY)
    return Answer(response.status)

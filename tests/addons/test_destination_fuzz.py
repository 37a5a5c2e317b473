"""Random spellings of destinations, through mitmproxy's own parsers and the verdict, up to the system's connect().

A case names one destination, or several, in every place HTTP has for one: absolute URI, Host, CONNECT, TLS server name,
`:authority`, `:path`. Where Governor grants it,
- the socket address that is dialled is one that was judged for the judged host;
- every one of these places, read by the WHATWG rules (Node's `URL`), is a URL with exactly the judged host and port;
- the request that would be sent, put together as a URL from its Host header and its path, leads there as well.

Hosts are compared without the trailing dot, IPv4 inside IPv6 (`::ffff:0:0/96`) as IPv4. What reaches nobody is not
read: white space around a header field, which mitmproxy takes off, and a server name that is no host name, which it
drops (the hello to the origin has the tunnel's name). An absolute URI with port 0 is sent to the scheme's own port:
mitmproxy reads it so. A part that is no URL in WHATWG's terms is never granted.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from itertools import count
from random import Random
from typing import Any

import pytest
from hpack import Encoder
from mitmproxy import ctx, http
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.net import check
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from OpenSSL import SSL

from addons import authority as certificates
from addons import origin_failure
from addons.home import Home
from addons.judged import Judged
from addons.refusal_rate import RefusalRate
from kernel.facts import Address
from tests.addons import destinations
from tests.addons.destinations import Url, read, whatwg, written
from tests.addons.inside import Inside, inside
from tests.conftest import SCALE, scaled

SEED = int(os.environ.get("GOVERNOR_FUZZ_SEED", "1"))
CASES = 100_000 if SCALE >= 10 else scaled(1_000)
AT_ONCE, IN_A_ROW = 16, 20
SECONDS = 2.0
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
POLICY = """\
version: 1
rules:
  - {allow: public, address: public-internet, schemes: [http, https], ports: 1-65535, methods: any}
  - {allow: inside, to: [loopback, private-networks, link-local], schemes: [http, https], ports: 1-65535, methods: any}
"""
_CLIENT: contextvars.ContextVar[str] = contextvars.ContextVar("client")


@dataclass
class Case:
    """What one client sends. `claims` are the URLs that its parts are to a reader, each with the part's name."""

    number: int
    kind: str
    claims: list[tuple[str, str]] = field(default_factory=list)

    def says(self, part: str, url: str) -> None:
        self.claims.append((part, url))

    def __str__(self) -> str:
        return f"GOVERNOR_FUZZ_SEED={SEED}, case {self.number}, {self.kind}: {self.claims}"


@dataclass(frozen=True)
class Grant:
    """One request that was let through: the judged destination, and the request as it would be sent."""

    case: int
    url: Url
    addresses: tuple[Address, ...]
    client: str
    sent: str


@dataclass
class Watched:
    """Everything that a run let through, and every socket address it dialled for which client and server name."""

    grants: list[Grant] = field(default_factory=list)
    dialled: list[tuple[str, str, int, str]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    def server_connect(self, data: ServerConnectionHookData) -> None:
        _CLIENT.set(data.client.id)

    def judged(self, flow: http.HTTPFlow, judged: Judged) -> None:
        self.codes[str(judged.verdict.code)] += 1
        if not judged.verdict.lets_through:
            return
        assert judged.host is not None
        assert judged.port is not None
        request = flow.request
        said = request.data.headers.get("host") or request.data.authority.decode() or _netloc(judged)
        self.grants.append(Grant(
            int(request.headers["x-case"]), Url(judged.host.name, judged.port), judged.addresses,
            flow.client_conn.id, f"{request.scheme}://{said}{read(request.data.path)}"))


def _netloc(judged: Judged) -> str:
    assert judged.host is not None
    name = f"[{judged.host.name}]" if ":" in judged.host.name else judged.host.name
    return f"{name}:{judged.port}"


# Clients


class Client:
    """A connection to the proxy, opened when it is needed and again after it ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, content: bytes) -> bytes:
        """Send bytes; the head of what comes back, with its body where it has a length; empty when nothing comes."""
        try:
            reader, writer = await self._open()
            writer.write(content)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
            length = _LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            # Of its own answers mitmproxy closes the connection after all but the one to CONNECT.
            if not length and not head.startswith(b"HTTP/1.1 200 "):
                self.close()
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return b""
        return head

    async def exchange(self, content: bytes) -> bytes:
        """Send bytes, and what comes next; empty at the end."""
        try:
            reader, writer = await self._open()
            writer.write(content)
            return await asyncio.wait_for(reader.read(65536), SECONDS)
        except OSError:
            return b""

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Secured:
    """TLS over a client's connection that checks nothing and lets any bytes be the server name."""

    def __init__(self, client: Client, server_name: bytes, protocol: bytes) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos([protocol])
        self._client, self._tls = client, SSL.Connection(context, None)
        if server_name:
            self._tls.set_tlsext_host_name(server_name)
        self._tls.set_connect_state()

    async def handshake(self) -> bool:
        while True:
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                if not await self._exchange():
                    return False
            except SSL.Error:
                return False
            else:
                return True

    async def ask(self, content: bytes, ended: Callable[[bytes], bool]) -> bytes:
        """Send bytes and read until `ended` says so, or the end."""
        with contextlib.suppress(SSL.Error):
            self._tls.send(content)
        got = b""
        while not ended(got):
            try:
                got += self._tls.recv(65536)
            except SSL.WantReadError:
                if not await self._exchange():
                    return b""
            except SSL.Error:
                return b""
        return got

    async def _exchange(self) -> bool:
        content = b""
        with contextlib.suppress(SSL.WantReadError):
            content = self._tls.bio_read(1 << 20)
        content = await self._client.exchange(content)
        if content:
            self._tls.bio_write(content)
        return bool(content)


# Cases


class Maker:
    """Makes the requests of one case; what they say of their destination goes into its claims."""

    def __init__(self, number: int, kind: str) -> None:
        self.chance = Random(f"{SEED}/{number}")
        self.number = number
        self.case = Case(number, kind)
        self._where, self._port = destinations.place(self.chance), destinations.port(self.chance)
        self._wildness = self.chance.choice((0.0, 0.05, 0.2, 0.5))

    def follow(self, lead: Maker) -> None:
        """Be one more request in the tunnel that `lead` opened."""
        self._where, self._port = lead._where, lead._port
        self.case.claims += [claim for claim in lead.case.claims if claim[0] in ("CONNECT", "server name")]

    def authority(self, port: str | None = None) -> str:
        """The case's destination, or now and then another one."""
        chance = self.chance
        where = self._where if chance.random() > self._wildness / 2 else destinations.place(chance)
        return destinations.authority(chance, where, self._port if port is None else port, self._wildness)

    def host_lines(self, scheme: str) -> bytes:
        lines = b""
        for _ in range(self.chance.choices((1, 0, 2), (20, 1, 1))[0]):
            said = self.authority().replace("\n", "")
            lines += b"Host: " + written(said) + b"\r\n"
            self.case.says("Host", f"{scheme}://{read(written(said).strip())}")
        return lines

    def request(self, target: str, scheme: str) -> bytes:
        target = target.replace("\n", "")
        return (b"GET " + written(target) + b" HTTP/1.1\r\n" + self.host_lines(scheme)
                + f"X-Case: {self.number}\r\n\r\n".encode())

    def absolute(self) -> bytes:
        scheme = self.chance.choices(("http", "https", "HTTP", "ftp", "ws", "http:", ""), (40, 10, 3, 1, 1, 1, 1))[0]
        target = f"{scheme}://{self.authority()}{destinations.path(self.chance)}"
        self.case.says("target", read(written(target).strip()))
        return self.request(target, "https" if scheme == "https" else "http")

    def connect(self) -> bytes:
        """A CONNECT; the port that the tunnel's requests mean by default is the case's."""
        self._port = self._port or self.chance.choice((":80", ":443"))
        said = self.authority().replace("\n", "")
        self.case.says("CONNECT", f"http://{read(written(said).strip())}")
        return b"CONNECT " + written(said) + b" HTTP/1.1\r\n\r\n"

    def inner(self, scheme: str) -> bytes:
        target = destinations.path(self.chance) or "/"
        if self.chance.random() < 0.1:
            target = f"{scheme}://{self.authority()}{target}"
            self.case.says("target", read(written(target).strip()))
        return self.request(target, scheme)

    def server_name(self) -> bytes:
        said = written(self.authority("")).replace(b"\0", b"")[:255] if self.chance.random() < 0.9 else b""
        if _names_a_host(said):
            self.case.says("server name", f"https://{read(said)}")
        return said

    def fields(self) -> list[tuple[bytes, bytes]]:
        authority, path = written(self.authority()), written(destinations.path(self.chance))
        self.case.says(":authority", f"https://{read(authority)}")
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", authority), (b":path", path)]
        if self.chance.random() < 0.1:
            del fields[2]
            self.case.claims.pop()
        if len(fields) == 3 or self.chance.random() < 0.1:
            said = written(self.authority())
            fields.append((b"host", said))
            self.case.says("host", f"https://{read(said.strip())}")
        return [*fields, (b"x-case", str(self.number).encode())]


def _names_a_host(said: bytes) -> bool:
    """Whether mitmproxy takes this for a server name."""
    return check.is_valid_host(said)


type Talk = Callable[[Maker], Awaitable[bool]]
type Begin = Callable[[Maker, Client], Awaitable[Talk | None]]


async def absolute(makers: Iterator[Maker], client: Client) -> None:
    for maker in makers:
        await client.ask(maker.absolute())


def in_tunnels(begin: Begin) -> Callable[[Iterator[Maker], Client], Awaitable[None]]:
    """Each tunnel carries requests until it ends; all of them answer for what its CONNECT and its hello said."""
    async def drive(makers: Iterator[Maker], client: Client) -> None:
        lead, talk = None, None
        for maker in makers:
            if talk is None or lead is None:
                lead, talk = maker, await begin(maker, client)
            else:
                maker.follow(lead)
            if talk is None or not await talk(maker):
                client.close()
                talk = None
    return drive


async def tunnel(maker: Maker, client: Client) -> Talk | None:
    if not (await client.ask(maker.connect())).startswith(b"HTTP/1.1 200 "):
        return None

    async def talk(maker: Maker) -> bool:
        return bool(await client.ask(maker.inner("http")))

    return talk


async def encrypted(maker: Maker, client: Client) -> Talk | None:
    tls = await secured(maker, client, b"http/1.1")
    if tls is None:
        return None

    async def talk(maker: Maker) -> bool:
        return bool(await tls.ask(maker.inner("https"), _whole))

    return talk


async def http_2(maker: Maker, client: Client) -> Talk | None:
    tls = await secured(maker, client, b"h2")
    if tls is None:
        return None
    encoder, opening, streams = Encoder(), [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"")], count(1, 2)

    async def talk(maker: Maker) -> bool:
        stream, start = next(streams), opening.pop() if opening else b""
        content = start + _frame(1, 5, stream, encoder.encode(maker.fields()))
        return bool(await tls.ask(content, partial(_ended, stream)))

    return talk


async def secured(maker: Maker, client: Client, protocol: bytes) -> Secured | None:
    """TLS in a tunnel; None where the tunnel was refused or the handshake failed."""
    if await tunnel(maker, client) is None:
        return None
    tls = Secured(client, maker.server_name(), protocol)
    return tls if await tls.handshake() else None


def _whole(got: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def _ended(stream: int, got: bytes) -> bool:
    """Whether the stream or the connection is over."""
    while len(got) >= 9:
        length, kind, flags, of = int.from_bytes(got[:3], "big"), got[3], got[4], int.from_bytes(got[5:9], "big")
        if kind == 7 or (of == stream and (kind == 3 or (kind in (0, 1) and flags & 1))):
            return True
        got = got[9 + length:]
    return False


_KINDS: dict[str, tuple[int, Callable[[Iterator[Maker], Client], Awaitable[None]]]] = {
    "absolute URI": (55, absolute), "tunnel": (25, in_tunnels(tunnel)), "TLS": (9, in_tunnels(encrypted)),
    "HTTP/2": (11, in_tunnels(http_2))}


# The run


def address_of(name: str) -> str:
    """The one public address that a name has here."""
    digest = hashlib.blake2b(name.encode(), digest_size=3).digest()
    return str(ip_address(b"\x17" + digest))


@contextlib.contextmanager
def watching(place: Inside, watched: Watched) -> Iterator[None]:
    """Note every verdict and every dial; nothing is really dialled."""
    loop, judge = asyncio.get_running_loop(), place.judge
    real_connect, real_request = loop.sock_connect, judge.request
    judge._log._rate = RefusalRate(count().__next__)

    async def connect(sock: Any, address: tuple[str, int]) -> None:
        if (client := _CLIENT.get(None)) is None:
            await real_connect(sock, address)
            return
        watched.dialled.append((client, address[0], address[1], ""))
        raise ConnectionRefusedError

    async def request(handler: Any, connection: Any, flow: http.HTTPFlow) -> Judged:
        judged = await real_request(handler, connection, flow)
        watched.judged(flow, judged)
        return judged

    async def look_up(name: str) -> list[str]:
        return [address_of(name)]

    place.resolver._ask = look_up  # type: ignore[method-assign]
    judge.request = request  # type: ignore[method-assign]
    loop.sock_connect = connect  # type: ignore[method-assign]
    origin_failure.install(place.hooks.answers.origin_failed)
    try:
        yield
    finally:
        loop.sock_connect = real_connect  # type: ignore[method-assign]
        origin_failure._answer = None


async def drive(place: Inside) -> dict[int, Case]:
    """Send all cases, some at once."""
    cases: dict[int, Case] = {}
    starts = iter(range(0, CASES, IN_A_ROW))

    async def work() -> None:
        client = Client(place.port)
        for first in starts:
            kind = Random(f"{SEED}/{first}").choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])[0]
            makers = [Maker(number, kind) for number in range(first, min(first + IN_A_ROW, CASES))]
            cases.update({maker.number: maker.case for maker in makers})
            await _KINDS[kind][1](iter(makers), client)
            client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return cases


async def test_a_grant_dials_what_was_judged_and_what_every_reader_of_urls_sees(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    if destinations.node() is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    monkeypatch.setattr("tests.addons.inside._LONGEST_SECONDS", 3600.0)
    watched = Watched()
    certificates.ensure(home.paths.ca, datetime.now(UTC))
    async with inside(home, TlsConfig(), watched, policy=POLICY) as place:
        ctx.options.update(confdir=str(home.paths.ca))
        with watching(place, watched):
            cases = await drive(place)

    kinds = Counter(cases[grant.case].kind for grant in watched.grants)
    assert wrong_dials(watched) == []
    assert wrong_readings(watched, cases) == []
    # Much was granted and much refused, or nothing was shown. A handful of cases can be all of a kind.
    if CASES >= 1_000:
        assert all(kinds[kind] > CASES * weight / 1000 for kind, (weight, _) in _KINDS.items())
        assert watched.codes["DESTINATION_MISMATCH"] + watched.codes["NON_CANONICAL"] > CASES / 20


def wrong_dials(watched: Watched) -> list[str]:
    """Every dial of a client to an address that was not judged for a destination of its own."""
    judged = {(grant.client, str(address), grant.url.port) for grant in watched.grants for address in grant.addresses}
    named = [grant for grant in watched.grants
             if {str(a) for a in grant.addresses} != {_true_address(grant.url.host)}]
    return [f"{dial}" for dial in watched.dialled if dial[:3] not in judged] + [str(grant) for grant in named]


def _true_address(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return address_of(host)


def wrong_readings(watched: Watched, cases: dict[int, Case]) -> list[str]:
    """Every grant of which a part means something else, or nothing, to the WHATWG rules."""
    asked = [(grant, part, text) for grant in watched.grants
             for part, text in [*cases[grant.case].claims, ("sent", grant.sent)]]
    answers = whatwg([text for _, _, text in asked])
    return [f"{part} {text!r} is {answer}, judged {grant.url}; {cases[grant.case]}"
            for (grant, part, text), answer in zip(asked, answers, strict=True)
            if not _same(part, answer, grant.url)][:20]


def _same(part: str, read: Url | None, judged: Url) -> bool:
    if read is None or read.host != judged.host:
        return False
    # A server name has no port. Port 0, which nobody can dial, is to mitmproxy the scheme's own.
    return read.port == judged.port or part == "server name" or (part == "target" and read.port == 0)

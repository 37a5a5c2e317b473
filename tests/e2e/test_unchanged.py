"""An allowed exchange arrives as it was sent: the bytes through Governor beside those of a direct exchange.

`RESPONSES` and `REQUESTS` say for each message what may come out differently; where they say nothing, not a byte may.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brotli
import h2.config
import h2.connection
import h2.events
import pytest

from tests.e2e import wire
from tests.e2e.process import Governor, started
from tests.e2e.readers import STRICT

pytestmark = pytest.mark.e2e

SECONDS = 20.0
GZIPPED, BROTLI = gzip.compress(b"hello " * 100, mtime=0), brotli.compress(b"hello " * 100)
LONG = b"x" * 20_000


def head(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((*lines, b"", b"")) + body


@dataclass(frozen=True)
class Case:
    """A message as it is sent, and as it arrives where that is not the same. `why` names the change."""

    sent: bytes
    arrives: bytes | None = None
    why: str = ""
    method: bytes = b"GET"

    @property
    def expected(self) -> bytes:
        return self.sent if self.arrives is None else self.arrives


RESPONSES: dict[str, Case] = {
    "plain": Case(head(b"HTTP/1.1 200 OK", b"Content-Length: 2", body=b"ok")),
    "order, case and duplicates": Case(head(
        b"HTTP/1.1 200 OK", b"x-b: 1", b"X-A: 2", b"sErVeR: Odd", b"Set-Cookie: a=b; Path=/", b"CONTENT-length: 2",
        b"x-B: 3", b"set-cookie: c=d", b"Date: now", body=b"ok")),
    "a reason of its own": Case(head(b"HTTP/1.1 299 It's  done: \xe9\xff!", b"Content-Length: 0")),
    "an empty reason": Case(head(b"HTTP/1.1 404 ", b"Content-Length: 0")),
    "no reason": Case(head(b"HTTP/1.1 404", b"Content-Length: 0"), head(b"HTTP/1.1 404 ", b"Content-Length: 0"),
                      "the space before an absent reason, which RFC 9112 demands, is put there"),
    "values in latin-1 and UTF-8": Case(head(
        b"HTTP/1.1 200 OK", b"X-A: caf\xe9", b"X-B: caf\xc3\xa9", b"Content-Length: 0")),
    "an empty value": Case(head(b"HTTP/1.1 200 OK", b"X-Empty: ", b"Content-Length: 0")),
    "odd spaces around values": Case(
        head(b"HTTP/1.1 200 OK", b"X-A:none", b"X-B:  two \t", b"Content-Length: 0"),
        head(b"HTTP/1.1 200 OK", b"X-A: none", b"X-B: two", b"Content-Length: 0"),
        "one space stands before a value and none behind it, which no reader may take for a part of it"),
    "a long value": Case(head(b"HTTP/1.1 200 OK", b"X-Long: " + LONG, b"Content-Length: 0")),
    "204": Case(head(b"HTTP/1.1 204 No Content", b"X-A: b")),
    "304 with the length of what it does not bring": Case(
        head(b"HTTP/1.1 304 Not Modified", b'ETag: "v1"', b"Content-Length: 1000")),
    "206": Case(head(b"HTTP/1.1 206 Partial Content", b"Content-Range: bytes 1-2/9", b'ETag: W/"v"',
                     b"Content-Length: 2", body=b"ok")),
    "a redirect": Case(head(b"HTTP/1.1 302 Found", b"Location: //other.example/%7Ex?q=%20+#f", b"Content-Length: 0")),
    "500": Case(head(b"HTTP/1.1 500 Oh", b"Content-Length: 3", body=b"no\n")),
    "HEAD": Case(head(b"HTTP/1.1 200 OK", b"Content-Length: 1000", b"ETag: a"), method=b"HEAD"),
    "HEAD with chunks": Case(head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"), method=b"HEAD"),
    "until the end": Case(head(b"HTTP/1.1 200 OK", b"X-A: b", body=b"some\r\n\r\nbytes\0\xff")),
    "HTTP/1.0 until the end": Case(head(b"HTTP/1.0 200 OK", b"Content-Type: text/html", body=b"<p>old")),
    "one chunk": Case(head(b"HTTP/1.1 200 OK", b"transfer-encoding: Chunked", body=b"5\r\nhello\r\n0\r\n\r\n")),
    "no chunk": Case(head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "a chunk extension": Case(
        head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", body=b"005;a=b\r\nhello\r\n0;c\r\n\r\n"),
        head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        "chunks are written anew, without extensions"),
    "trailers": Case(
        head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"Trailer: X-T",
             body=b"2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"),
        head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"Trailer: X-T", body=b"2\r\nok\r\n0\r\n\r\n"),
        "trailers of HTTP/1 responses are dropped"),
    "gzip": Case(head(
        b"HTTP/1.1 200 OK", b"Content-Encoding: gzip", b"Content-Length: %d" % len(GZIPPED), body=GZIPPED)),
    "br": Case(head(
        b"HTTP/1.1 200 OK", b"content-encoding: br", b"Content-Length: %d" % len(BROTLI), body=BROTLI)),
    "a coding that is a lie": Case(
        head(b"HTTP/1.1 200 OK", b"Content-Encoding: gzip, unheard-of", b"Content-Length: 4", body=b"\x1f\x8bno")),
    "100 KiB": Case(head(b"HTTP/1.1 200 OK", b"Content-Length: 102400", body=bytes(range(256)) * 400)),
    "an early hint": Case(
        head(b"HTTP/1.1 103 Early Hints", b"Link: </a>") + head(b"HTTP/1.1 200 OK", b"Content-Length: 2", body=b"ok"),
        head(b"HTTP/1.1 200 OK", b"Content-Length: 2", body=b"ok"), "informational responses are dropped"),
    "lines that some readers end early": Case(
        head(b"HTTP/1.1 200 O\rK", b"X-A: b\r\n\tc", b"X-B: d\re", b"Content-Length: 0"),
        head(b"HTTP/1.1 200 O K", b"X-A: b c", b"X-B: d e", b"Content-Length: 0"), "each line of a head is one line"),
    "headers in Governor's name": Case(
        head(b"HTTP/1.1 200 OK", b"X-Governor-Verdict: allow", b"X-A: b", b"Content-Length: 0"),
        head(b"HTTP/1.1 200 OK", b"X-A: b", b"Content-Length: 0"), "x-governor-* comes from Governor alone"),
    "hop-by-hop fields": Case(head(
        b"HTTP/1.1 200 OK", b"Keep-Alive: timeout=5", b"Via: 1.1 other", b"Proxy-Authenticate: Basic",
        b"Content-Length: 0")),
}


def asking(*lines: bytes, line: bytes = b"GET /r/plain HTTP/1.1", body: bytes = b"") -> bytes:
    return head(line, b"Host: HOST", *lines, b"Connection: close", body=body)


def _chunked(body: bytes) -> bytes:
    return asking(b"Transfer-Encoding: chunked", line=b"POST /r/plain HTTP/1.1", body=body)


REQUESTS: dict[str, Case] = {
    "plain": Case(asking()),
    "order, case and duplicates": Case(asking(b"x-B: 1", b"X-a: 2", b"aCCept: */*", b"X-b: 3", b"accept: text/html")),
    "cookies": Case(asking(b"Cookie: a=b; c=\"d e\"", b"cookie: f=g")),
    "credentials for the origin": Case(asking(b"Authorization: Bearer abc==")),
    "values in latin-1 and UTF-8": Case(asking(b"X-A: caf\xe9", b"X-B: caf\xc3\xa9")),
    "a long value": Case(asking(b"X-Long: " + LONG)),
    "a query in every spelling": Case(asking(line=b"GET /r/plain?a=%7e&b=+%20&&c=%C3%A9;d=/?e=//..//&A=[1] HTTP/1.1")),
    "an empty query": Case(asking(line=b"GET /r/plain? HTTP/1.1"), asking(), "an empty query loses its ?"),
    "a path in its normal spelling": Case(asking(line=b"GET /r/plain/~a/%2F%20b;c=d,e!$&'()*+=:@-._ HTTP/1.1")),
    "a path in another spelling": Case(
        asking(line=b"GET //r/%70lain/%7Ea/%c3%a9\"/ HTTP/1.1"), asking(line=b"GET /r/plain/~a/%C3%A9%22/ HTTP/1.1"),
        "the path is sent in the spelling that was judged"),
    "a method of its own": Case(asking(line=b"PROPFIND /r/plain HTTP/1.1")),
    "a method in lower case": Case(asking(line=b"get /r/plain HTTP/1.1"), asking(), "the method is sent in upper case"),
    "HTTP/1.0": Case(asking(line=b"GET /r/plain HTTP/1.0")),
    "a body": Case(asking(b"Content-Length: 8", line=b"POST /r/plain HTTP/1.1", body=b"\0\r\n\r\n\xff\xfe\n")),
    "a body of no bytes": Case(asking(b"Content-Length: 0", line=b"POST /r/plain HTTP/1.1")),
    "neither body nor length": Case(asking(line=b"POST /r/plain HTTP/1.1")),
    "a body of 100 KiB": Case(asking(b"content-length: 102400", line=b"PUT /r/plain HTTP/1.1",
                                     body=bytes(range(256)) * 400)),
    "a compressed body": Case(asking(b"Content-Encoding: gzip", b"Content-Length: %d" % len(GZIPPED),
                                     line=b"POST /r/plain HTTP/1.1", body=GZIPPED)),
    "one chunk": Case(_chunked(b"4\r\nfour\r\n0\r\n\r\n")),
    "two chunks": Case(
        _chunked(b"2;a=b\r\nfo\r\n02\r\nur\r\n0\r\n\r\n"), _chunked(b"4\r\nfour\r\n0\r\n\r\n"),
        "a body is read whole before its verdict, and so is one chunk"),
    "a range and conditions": Case(asking(b"Range: bytes=1-2", b'If-None-Match: W/"a", "b"', b"If-Modified-Since: x")),
    "an expectation": Case(
        asking(b"Expect: 100-continue", b"Content-Length: 4", line=b"POST /r/plain HTTP/1.1", body=b"four"),
        asking(b"Content-Length: 4", line=b"POST /r/plain HTTP/1.1", body=b"four"),
        "Expect: 100-continue is answered here"),
    "credentials for the proxy": Case(asking(b"Proxy-Authorization: Bearer x", b"X-A: b"), asking(b"X-A: b"),
                                      "Proxy-Authorization is for Governor"),
    "headers in Governor's name": Case(asking(b"X-Governor-Agent: root", b"X-A: b"), asking(b"X-A: b"),
                                       "x-governor-* comes from Governor alone"),
    "odd spaces around values": Case(asking(b"X-A:none", b"X-B:  two \t"), asking(b"X-A: none", b"X-B: two"),
                                     "one space stands before a value and none behind it"),
}


# An origin that says what it is told, and remembers what it heard


@dataclass
class Script:
    port: int = 0
    heard: list[bytes] = field(default_factory=list)


@contextlib.asynccontextmanager
async def scripted(chain: Path | None = None) -> AsyncIterator[Script]:
    """Speaks HTTP/1 alone, and would over TLS let a client choose HTTP/2: one that speaks HTTP/1 to us must not."""
    script, writers = Script(), set[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        content = b""
        while not (found := STRICT.next_request(content)) and (more := await reader.read(65536)):
            content += more
        script.heard.append(content)
        if found:
            name = found[0].start.split()[1].decode("latin-1").partition("?")[0].split("/")[2]
            writer.write(list(RESPONSES.values())[int(name)].sent if name.isdigit() else RESPONSES["plain"].sent)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=_serving(chain, "h2", "http/1.1"))
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def _serving(chain: Path | None, *alpn: str) -> ssl.SSLContext | None:
    if chain is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.set_alpn_protocols(list(alpn))
    return context


# Ways to it


type Way = Callable[[bytes], Awaitable[bytes]]


def direct(script: Script, trusted: Path | None = None) -> Way:
    async def send(content: bytes) -> bytes:
        context = None if trusted is None else wire.trusting(trusted)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", script.port, ssl=context, server_hostname="localhost" if context else None)
        return await _said(reader, writer, content)
    return send


def proxied(governor: Governor, script: Script) -> Way:
    async def send(content: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", governor.port)
        method, target, rest = content.split(b" ", 2)
        return await _said(reader, writer, b"%b http://localhost:%d%b %b" % (method, script.port, target, rest))
    return send


def tunnelled(governor: Governor, script: Script) -> Way:
    context = wire.trusting(governor.ca)
    context.set_alpn_protocols(["http/1.1", "h2"])

    async def send(content: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", governor.port)
        writer.write(f"CONNECT localhost:{script.port} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(context, server_hostname="localhost")
        return await _said(reader, writer, content)
    return send


async def _said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> bytes:
    """Everything that comes back, without the 100 that a proxy may send for itself."""
    writer.write(content)
    got = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while more := await asyncio.wait_for(reader.read(65536), SECONDS):
            got += more
    writer.close()
    return got.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")


@dataclass(frozen=True)
class Route:
    """One origin, and the two ways to it."""

    name: str
    script: Script
    direct: Way
    governed: Way


@pytest.fixture(scope="module")
def governor(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Governor]:
    with started(tmp_path_factory.mktemp("governor"), trust=certificate[1]) as governor:
        yield governor


@contextlib.asynccontextmanager
async def routes(governor: Governor, certificate: tuple[Path, Path]) -> AsyncIterator[list[Route]]:
    chain, trusted = certificate
    async with scripted() as clear, scripted(chain) as tls:
        yield [Route("HTTP", clear, direct(clear), proxied(governor, clear)),
               Route("TLS", tls, direct(tls, trusted), tunnelled(governor, tls))]


async def test_responses_arrive_as_they_were_sent(governor: Governor, certificate: tuple[Path, Path]) -> None:
    wrong = []
    async with routes(governor, certificate) as ways:
        for route in ways:
            for number, (name, case) in enumerate(RESPONSES.items()):
                request = b"%b /r/%d HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % (
                    case.method, number, route.script.port)
                assert await route.direct(request) == case.sent
                if (got := await route.governed(request)) != case.expected:
                    wrong.append((route.name, name, case.why, got[:500]))

    assert wrong == []


async def test_requests_arrive_as_they_were_sent(governor: Governor, certificate: tuple[Path, Path]) -> None:
    wrong = []
    async with routes(governor, certificate) as ways:
        for route in ways:
            host = b"Localhost:%d" % route.script.port
            for name, case in REQUESTS.items():
                sent, expected = (text.replace(b"HOST", host, 1) for text in (case.sent, case.expected))
                await route.direct(sent)
                answer = await route.governed(sent)
                plainly, governed = route.script.heard[-2:]
                assert plainly == sent
                if governed != expected or answer != RESPONSES["plain"].sent:
                    wrong.append((route.name, name, case.why, governed[:500], answer[:200]))

    assert wrong == []


def test_every_change_has_a_reason() -> None:
    assert [name for table in (RESPONSES, REQUESTS) for name, case in table.items()
            if (case.arrives is None) != (case.why == "")] == []


# HTTP/2


Fields = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Exchange:
    """One HTTP/2 exchange: the fields of both heads in their order, bodies and trailers."""

    request: Fields
    response: Fields
    upload: bytes = b""
    body: bytes = b""
    trailers: Fields = ()


def _asked(*fields: tuple[bytes, bytes], method: bytes = b"GET", path: bytes = b"/a?b=%7e&c") -> Fields:
    return ((b":method", method), (b":scheme", b"https"), (b":authority", b"AUTHORITY"), (b":path", path), *fields)


EXCHANGES: dict[str, Exchange] = {
    "plain": Exchange(_asked(), ((b":status", b"200"), (b"content-length", b"2")), body=b"ok"),
    "order and duplicates": Exchange(
        _asked((b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3"), (b"user-agent", b"odd")),
        ((b":status", b"200"), (b"x-b", b"1"), (b"set-cookie", b"a=b"), (b"x-a", b"2"), (b"set-cookie", b"c=d"))),
    "cookies in crumbs": Exchange(
        _asked((b"cookie", b"a=b"), (b"cookie", b"c=d")), ((b":status", b"204"),)),
    "a body without a length": Exchange(_asked(), ((b":status", b"200"),), body=bytes(range(256)) * 200),
    "an upload": Exchange(
        _asked((b"content-length", b"4"), method=b"POST"), ((b":status", b"201"),), upload=b"\0\r\n\xff"),
    "trailers": Exchange(_asked((b"te", b"trailers")), ((b":status", b"200"), (b"trailer", b"x-t")), body=b"ok",
                         trailers=((b"x-t", b"1"), (b"grpc-status", b"0"))),
    "latin-1 and UTF-8": Exchange(_asked((b"x-a", b"caf\xe9")), ((b":status", b"200"), (b"x-b", b"caf\xc3\xa9"))),
    "compressed": Exchange(_asked((b"accept-encoding", b"gzip, br")), (
        (b":status", b"200"), (b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(GZIPPED))), body=GZIPPED),
    "304": Exchange(_asked((b"if-none-match", b'"a"')), ((b":status", b"304"), (b"etag", b'"a"'))),
    "HEAD": Exchange(_asked(method=b"HEAD"), ((b":status", b"200"), (b"content-length", b"1000"))),
}


@dataclass
class Seen:
    """One side of an exchange, as the other side got it."""

    fields: Fields = ()
    body: bytes = b""
    trailers: Fields = ()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: h2.connection.H2Connection,
                handle: Callable[[Any], bool]) -> None:
    """Feed events to `handle` until it returns True or the other side ends."""
    writer.write(state.data_to_send())
    while content := await asyncio.wait_for(reader.read(65536), SECONDS):
        over = [handle(event) for event in state.receive_data(content)]
        writer.write(state.data_to_send())
        if any(over):
            return


def _state(*, client: bool) -> h2.connection.H2Connection:
    state = h2.connection.H2Connection(h2.config.H2Configuration(
        client_side=client, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False,
        normalize_inbound_headers=False))
    state.initiate_connection()
    return state


def _note(seen: Seen, state: h2.connection.H2Connection, event: Any) -> bool:
    match event:
        case h2.events.RequestReceived() | h2.events.ResponseReceived():
            seen.fields = tuple((bytes(name), bytes(value)) for name, value in event.headers or ())
        case h2.events.TrailersReceived():
            seen.trailers = tuple((bytes(name), bytes(value)) for name, value in event.headers or ())
        case h2.events.DataReceived():
            seen.body += event.data or b""
            state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        case h2.events.StreamEnded():
            return True
    return False


def _send(state: h2.connection.H2Connection, stream: int, fields: Fields, body: bytes, trailers: Fields) -> None:
    state.send_headers(stream, list(fields), end_stream=not body and not trailers)
    for start in range(0, len(body), 16384):
        state.send_data(stream, body[start:start + 16384])
    if trailers:
        state.send_headers(stream, list(trailers), end_stream=True)
    elif body:
        state.end_stream(stream)


@contextlib.asynccontextmanager
async def http2_origin(chain: Path, exchanges: Iterator[Exchange], heard: list[Seen]) -> AsyncIterator[int]:
    """Answers each connection with the next exchange's response."""
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state, seen, exchange = _state(client=False), Seen(), next(exchanges)

        def handle(event: Any) -> bool:
            if _note(seen, state, event):
                heard.append(seen)
                _send(state, 1, exchange.response, exchange.body, exchange.trailers)
            return False

        with contextlib.suppress(OSError, ssl.SSLError):
            await _talk(reader, writer, state, handle)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=_serving(chain, "h2"))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], exchange: Exchange, request: Fields) -> Seen:
    state, seen = _state(client=True), Seen()
    _send(state, 1, request, exchange.upload, ())
    await _talk(*streams, state, lambda event: _note(seen, state, event))
    streams[1].transport.abort()
    return seen


def _named(fields: Fields, authority: str) -> Fields:
    return tuple((name, authority.encode() if value == b"AUTHORITY" else value) for name, value in fields)


_ORDER = (b":method", b":scheme", b":path", b":authority")


def _in_order(fields: Fields) -> Fields:
    """The pseudo-header fields in mitmproxy's order, which means nothing; all others as they are."""
    named = dict(fields)
    return (*((name, named[name]) for name in _ORDER), *(field for field in fields if field[0] not in _ORDER))


async def _tunnel(governor: Governor, authority: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", governor.port)
    writer.write(f"CONNECT {authority} HTTP/1.1\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await writer.start_tls(_trusting(governor.ca), server_hostname="localhost")
    return reader, writer


def _trusting(ca: Path) -> ssl.SSLContext:
    context = wire.trusting(ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_http2_exchanges_arrive_as_they_were_sent(governor: Governor, certificate: tuple[Path, Path]) -> None:
    heard, wrong = list[Seen](), []
    twice = (exchange for exchange in EXCHANGES.values() for _ in range(2))
    async with http2_origin(certificate[0], twice, heard) as port:
        authority = f"localhost:{port}"
        for name, exchange in EXCHANGES.items():
            request = _named(exchange.request, authority)
            plainly = await _ask(await asyncio.open_connection(
                "127.0.0.1", port, ssl=_trusting(certificate[1]), server_hostname="localhost"), exchange, request)
            governed = await _ask(await _tunnel(governor, authority), exchange, request)
            assert plainly == Seen(exchange.response, exchange.body, exchange.trailers)
            assert heard[-2] == Seen(request, exchange.upload)
            if governed != plainly or heard[-1] != Seen(_in_order(request), exchange.upload):
                wrong.append((name, governed, heard[-1]))

    assert wrong == []

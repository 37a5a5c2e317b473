"""Every connection and every request that began leaves an entry, is part of one, or is counted in one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from mitmproxy import ctx
from mitmproxy.addons.tlsconfig import TlsConfig

from addons import http2_limits
from addons.home import Home
from addons.refusal_rate import PER_SECOND
from tests.addons.inside import SECONDS, Inside, get, inside, raw_origin, until_closed
from tests.addons.test_heads import connection
from tests.conftest import scaled


async def ending(place: Inside) -> tuple[str, str | None]:
    (entry,) = await place.wait_for("connection")
    return entry["result"], entry["code"]


async def decision(place: Inside) -> tuple[str, str, str]:
    (entry,) = await place.wait_for("decision")
    return entry["verdict"], entry["code"], entry["reason"]


async def left(place: Inside, content: bytes) -> None:
    """A client that sends this and leaves."""
    async with connection(place) as (_, writer):
        writer.write(content)
        await writer.drain()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(("content", "result"), [
    (b"", "no_request"),
    (b"GET http://localhost/ HTTP/1.1\r\nHost: lo", "incomplete_request"),
    (b"GE", "no_request"),
])
async def test_a_client_that_leaves_before_its_request_is_whole_leaves_an_entry(
        home: Home, content: bytes, result: str) -> None:
    async with inside(home) as place:
        await left(place, content)

        assert await ending(place) == (result, None)
        assert place.entries("decision") == []


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_a_client_that_leaves_in_the_midst_of_a_body_leaves_a_decision(home: Home, framing: str) -> None:
    async with raw_origin() as origin, inside(home) as place:
        await left(place, get(origin.url, framing, method="POST") + b"5\r\nhello")

        assert await decision(place) == ("deny", "MALFORMED", "it did not arrive whole")
        await asyncio.sleep(0.1)
        assert place.entries("connection") == []
        assert origin.received == []


async def test_a_chunk_that_is_none_leaves_a_decision(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        await place.ask(get(origin.url, "Transfer-Encoding: chunked", method="POST") + b"zz\r\n")

        assert await decision(place) == ("deny", "MALFORMED", "it did not arrive whole")
        assert origin.received == []


async def test_a_request_that_was_judged_leaves_no_second_entry(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        await place.get(origin.url)
        await place.get("http://localhost/denied/x")
        await place.wait_for("decision", 2)
        await asyncio.sleep(0.2)

        assert len(place.entries("decision")) == 2
        assert place.entries("connection") == []
        assert len(place.hooks.clients) == 0
        assert place.admission._together == 0


async def test_a_thousand_connections_without_a_request_are_all_written_or_counted(home: Home) -> None:
    count = scaled(1000)
    async with inside(home) as place:
        busy = asyncio.Semaphore(50)

        async def garbage(content: bytes) -> None:
            async with busy:
                _, writer = await asyncio.open_connection("127.0.0.1", place.port)
                writer.write(content)
                writer.close()

        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(garbage(b"GARBAGE\r\n\r\n" if number % 2 else b""))
        async with asyncio.timeout(SECONDS * 4):
            while len(place.hooks.clients):
                await asyncio.sleep(0.05)
        counted: Counter[str] = Counter()
        for source, uncounted in place.rate.drain().items():
            assert source == "127.0.0.1 connections"
            counted += uncounted.counts
        await asyncio.sleep(0.2)

        # The clock of this place stands still: all this is one second.
        assert len(place.entries("connection")) == PER_SECOND
        assert PER_SECOND + counted.total() == count
        assert set(counted) <= {"MALFORMED", "BUSY"}


# In tunnels


CONNECT = b"CONNECT localhost:443 HTTP/1.1\r\n\r\n"


async def opened(place: Inside, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(CONNECT)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("content", [b"SSH-2.0-OpenSSH_9.6\r\n", b"SSH-2.0-OpenSSH_9.6 Debian-3\r\n", b"\x00\x01\x02",
                                     b"\x13BitTorrent protocol"])
async def test_a_tunnel_ends_at_once_where_neither_tls_nor_http_is_spoken(home: Home, content: bytes) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        await opened(place, reader, writer)
        writer.write(content)

        assert await until_closed(reader) == b""
        assert await ending(place) == ("refused", "PROTOCOL_REFUSED")


@pytest.mark.parametrize("piece", [1, 2, 5])
async def test_http_in_a_tunnel_is_known_however_it_is_cut(home: Home, piece: int) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(f"CONNECT localhost:{origin.port} HTTP/1.1\r\n\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        content = f"GET / HTTP/1.1\r\nHost: localhost:{origin.port}\r\nConnection: close\r\n\r\n".encode()
        for at in range(0, len(content), piece):
            writer.write(content[at:at + piece])
            await asyncio.sleep(0.001)

        assert (await until_closed(reader)).startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_request_in_a_tunnel_is_told_so(home: Home) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        await opened(place, reader, writer)
        writer.write(b"GET x\r\n\r\n")

        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await place.wait_for("connection"))[0]["result"] == "malformed"


async def test_a_connect_inside_a_tunnel_is_malformed(home: Home) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        await opened(place, reader, writer)
        writer.write(CONNECT)

        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")
        entries = await place.wait_for("decision", 2)
        assert [(entry["verdict"], entry["code"]) for entry in entries] == [("allow", "TUNNEL"), ("deny", "MALFORMED")]


# HTTP/2


@asynccontextmanager
async def inside_tls(home: Home) -> AsyncIterator[Inside]:
    async with inside(home, TlsConfig()) as place:
        ctx.options.update(confdir=str(home.paths.ca))
        yield place


class Http2Client:
    """An HTTP/2 client inside a tunnel that checks nothing of what it sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False))
        self.state.initiate_connection()

    def flush(self) -> None:
        self.writer.write(self.state.data_to_send())

    async def until_closed(self) -> list[h2.events.Event]:
        """What comes until the proxy closes the connection."""
        self.flush()
        return self.state.receive_data(await until_closed(self.reader))


async def http2(place: Inside, authority: str) -> Http2Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(f"CONNECT {authority} HTTP/1.1\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    await writer.start_tls(context, server_hostname="localhost")
    return Http2Client(reader, writer)


def fields(**changed: str) -> list[tuple[str, str]]:
    return list({":method": "GET", ":scheme": "https", ":authority": "localhost", ":path": "/", **changed}.items())


async def goes_away(client: Http2Client) -> bool:
    return any(isinstance(event, h2.events.ConnectionTerminated) for event in await client.until_closed())


@pytest.mark.parametrize("bad", [{"Upper": "x"}, {"connection": "close"}, {":path": ""}, {":authority": "user@x"},
                                 {"te": "gzip"}])
async def test_an_http_2_head_that_breaks_the_protocol_ends_the_connection_and_leaves_an_entry(
        home: Home, bad: dict[str, str]) -> None:
    async with inside_tls(home) as place:
        client = await http2(place, "localhost:443")
        client.state.send_headers(1, fields(**bad), end_stream=True)

        assert await goes_away(client)
        assert await ending(place) == ("protocol_error", "MALFORMED")


async def test_a_scheme_that_is_none_is_refused_on_its_stream_alone(home: Home) -> None:
    async with inside_tls(home) as place:
        client = await http2(place, "localhost:443")
        client.state.send_headers(1, fields(**{":scheme": "ftp"}), end_stream=True)
        client.flush()
        async with asyncio.timeout(SECONDS):
            while not (answers := [event for event in client.state.receive_data(await client.reader.read(65536))
                                   if isinstance(event, h2.events.ResponseReceived)]):
                client.flush()

        assert dict(answers[0].headers)[b":status"] == b"400"
        assert [entry["code"] for entry in await place.wait_for("decision", 2)] == ["TUNNEL", "MALFORMED"]
        client.writer.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def floods() -> list[Any]:
    head = b"\x82\x87\x84\x41\x09localhost"
    resets = b"".join(frame(1, 5, stream, head) + frame(3, 0, stream, (8).to_bytes(4, "big"))
                      for stream in range(1, 2 * http2_limits.RESETS + 5, 2))
    many = http2_limits.IDLE_FRAMES + 1
    piece = b"\x00" * 16000
    return [
        pytest.param(resets, id="streams that are reset at once"),
        pytest.param(frame(6, 0, 0, bytes(8)) * many, id="pings"),
        pytest.param(frame(4, 0, 0, bytes((0, 3, 0, 0, 0, 9))) * many, id="settings"),
        pytest.param(frame(2, 0, 1, bytes(5)) * many, id="priorities"),
        pytest.param(frame(0xBE, 0, 1, b"") * many, id="frames of no known type"),
        pytest.param(frame(1, 4, 1, head) + frame(0, 0, 1, b"") * many, id="empty pieces of a body"),
        pytest.param(frame(1, 0, 1, piece) + frame(9, 0, 1, piece) * 10, id="a head without an end"),
        pytest.param(frame(1, 0, 1, b"") + frame(9, 0, 1, b"") * 70, id="a head in empty pieces"),
        pytest.param(frame(1, 5, 1, head + b"\x40\x01x\x7f\x81\x7e" + b"y" * 16000) , id="a long field"),
    ]


@pytest.mark.parametrize("content", floods())
async def test_an_http_2_client_that_only_costs_is_cut_off_and_leaves_an_entry(home: Home, content: bytes) -> None:
    async with inside_tls(home) as place:
        client = await http2(place, "localhost:443")
        client.flush()
        client.writer.write(content)

        assert await goes_away(client)
        entries = await place.wait_for("connection")
        assert (entries[0]["result"], entries[0]["code"]) == ("protocol_error", "MALFORMED")


async def test_a_header_list_over_64_kib_is_refused(home: Home) -> None:
    async with inside_tls(home) as place:
        client = await http2(place, "localhost:443")
        client.state.send_headers(1, [*fields(), *((f"x-{number}", "y" * 4000) for number in range(20))],
                                  end_stream=True)

        assert await goes_away(client)
        assert await ending(place) == ("protocol_error", "MALFORMED")


async def test_streams_that_a_client_gives_up_leave_their_entries(home: Home) -> None:
    async with inside_tls(home) as place:
        client = await http2(place, "localhost:443")
        for stream in (1, 3, 5):
            client.state.send_headers(stream, fields(**{":method": "POST"}))
            client.flush()
            await asyncio.sleep(0.1)
            client.state.reset_stream(stream, 8)
        client.flush()
        entries = await place.wait_for("decision", 4)

        assert [entry["code"] for entry in entries] == ["TUNNEL", *["MALFORMED"] * 3]
        client.writer.close()


# Handshakes


async def test_a_client_that_rejects_our_certificate_is_named_until_it_takes_it(home: Home) -> None:
    async with inside_tls(home) as place:
        loop, strict, lax = asyncio.get_running_loop(), ssl.create_default_context(), ssl.create_default_context()
        lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE

        def handshake(context: ssl.SSLContext, agent: str) -> None:
            with socket.create_connection(("127.0.0.1", place.port), 5) as plain:
                plain.sendall(b"CONNECT localhost:443 HTTP/1.1\r\nUser-Agent: %s\r\n\r\n" % agent.encode())
                assert plain.recv(4096).startswith(b"HTTP/1.1 200 ")
                with context.wrap_socket(plain, server_hostname="localhost"):
                    pass

        for _ in range(2):
            with pytest.raises(ssl.SSLError):
                await loop.run_in_executor(None, handshake, strict, "curl/8.5.0 x")
        with pytest.raises(ssl.SSLError):
            await loop.run_in_executor(None, handshake, strict, "\x1b[31mevil/1")
        await place.wait_for("connection", 3)
        hints = place.hooks.rejections.hints()
        await loop.run_in_executor(None, handshake, lax, "curl/9")
        async with asyncio.timeout(SECONDS):
            while len(place.hooks.rejections.hints()) > 1:
                await asyncio.sleep(0.01)

        assert sorted(hints) == [
            "a client (local) at 127.0.0.1 rejected our certificate 1 time: see certs/README.md",
            "curl (local) at 127.0.0.1 rejected our certificate 2 times: see certs/README.md"]
        assert [entry["result"] for entry in place.entries("connection")] == ["handshake_failed"] * 3

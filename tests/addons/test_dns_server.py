"""The sockets of mode dns, real ones: over UDP and TCP, within bounds, whoever answers and whatever comes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import pytest
from mitmproxy.proxy.mode_servers import DnsInstance

from addons import dns_server
from addons.connections import ClientConnection


class Echo:
    """Answers with what came, and who sent it over what."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, str, bool]] = []
        self.seen: list[ClientConnection] = []
        self.lost: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, message: bytes, connection: ClientConnection, *, udp: bool) -> bytes | None:
        self.asked.append((message, connection.peer, udp))
        self.seen.append(connection)
        await self.gate.wait()
        return None if message == b"silence" else message

    def dropped(self, connection: ClientConnection) -> None:
        self.lost.append(connection.peer)


@contextlib.asynccontextmanager
async def open_at(host: str = "127.0.0.1") -> AsyncIterator[tuple[Echo, int]]:
    echo = Echo()
    before, dns_server._answers = dns_server._answers, echo
    servers = await dns_server.listen(None, host, 0)
    try:
        yield echo, servers[0].sockets[0].getsockname()[1]
    finally:
        dns_server._answers = before
        for each in servers:
            each.close()


@contextlib.contextmanager
def client(port: int, host: str = "127.0.0.1", source: str = "") -> Any:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.bind((source, 0))
        made.connect((host, port))
        yield made


async def got(made: socket.socket, seconds: float = 5.0) -> bytes:
    async with asyncio.timeout(seconds):
        return await asyncio.get_running_loop().sock_recv(made, 65535)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_every_address_is_served_in_both_families_and_over_both_protocols(host: str) -> None:
    async with open_at("") as (echo, port):
        with client(port, host) as made:
            made.send(b"over udp")
            assert await got(made) == b"over udp"
        reader, writer = await asyncio.open_connection(host, port)
        for text in (b"one", b"two"):
            writer.write(struct.pack("!H", len(text)) + text)
            assert await reader.readexactly(2 + len(text)) == struct.pack("!H", len(text)) + text
        writer.close()

    assert echo.asked == [(b"over udp", host, True), (b"one", host, False), (b"two", host, False)]


async def test_what_has_no_answer_gets_none_and_its_connection_ends() -> None:
    async with open_at() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\7silence")
        assert await reader.read() == b""
        writer.close()
        with client(port) as made:
            made.send(b"silence")
            made.send(b"speech")
            assert await got(made) == b"speech"


@pytest.mark.parametrize("sent", [b"\0\0", b"\x10\x01" + b"x" * 4097])
async def test_no_question_is_empty_or_longer_than_questions_are(sent: bytes) -> None:
    async with open_at() as (echo, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

        assert echo.asked == []


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_IDLE_SECONDS", 0.1)
    async with open_at() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_who_does_not_read_its_answers_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(dns_server, "_A_SECOND", 1_000_000)
    async with open_at() as (_, port):
        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(made, ("127.0.0.1", port))
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(10):
                    while True:
                        await loop.sock_sendall(made, b"\x10\0" + b"x" * 4096)


async def test_one_address_has_so_many_questions_under_way_and_then_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_MOST_OF_ONE", 3)
    async with open_at() as (echo, port):
        echo.gate.clear()
        with client(port) as made:
            for number in range(10):
                made.send(bytes([number]))
            async with asyncio.timeout(5):
                while len(echo.asked) + len(echo.lost) < 10:
                    await asyncio.sleep(0.01)
            assert len(echo.asked) == 3
            assert echo.lost == ["127.0.0.1"] * 7
            echo.gate.set()
            for _ in range(3):
                await got(made)
            made.send(b"again")
            assert await got(made) == b"again"


async def test_all_addresses_together_have_so_many_questions_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_MOST", 3)
    async with open_at() as (echo, port):
        echo.gate.clear()
        with contextlib.ExitStack() as made:
            for number in range(5):
                made.enter_context(client(port, source=f"127.0.0.{number + 2}")).send(b"x")
            async with asyncio.timeout(5):
                while len(echo.asked) + len(echo.lost) < 5:
                    await asyncio.sleep(0.01)

        assert (len(echo.asked), len(echo.lost)) == (3, 2)
        echo.gate.set()


async def test_a_question_shows_whence_it_came_where_it_arrived_and_for_which_sandbox(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_sandbox", "coder-1")
    async with open_at() as (echo, port):
        with client(port, source="127.0.0.7") as made:
            made.send(b"x")
            await got(made)

        (seen,) = echo.seen
        assert (seen.peer, seen.address, seen.listener_port, seen.sandbox) == (
            "127.0.0.7", ip_address("127.0.0.7"), port, "coder-1")


async def test_one_address_has_so_many_connections_and_then_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_MOST_CONNECTIONS_OF_ONE", 2)

    async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\3tcp")
        with contextlib.suppress(ConnectionError):
            return reader, writer, await reader.read(5)
        return reader, writer, b""

    async with open_at() as (echo, port):
        first, second, third = [await connected(port) for _ in range(3)]
        assert [first[2], second[2], third[2]] == [b"\0\3tcp", b"\0\3tcp", b""]
        assert echo.lost == ["127.0.0.1"]
        first[1].write_eof()
        assert await first[0].read() == b""
        again = await connected(port)
        assert again[2] == b"\0\3tcp"
        for _, writer, _ in (first, second, third, again):
            writer.close()


async def test_what_one_address_asks_beyond_its_share_of_a_second_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_A_SECOND", 5)
    monkeypatch.setattr(dns_server, "monotonic", lambda: 7.0)
    async with open_at() as (echo, port):
        with client(port) as made:
            for number in range(8):
                made.send(bytes([number]))
            for _ in range(5):
                await got(made)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\3tcp")
        assert await reader.read() == b""
        writer.close()

        assert (len(echo.asked), len(echo.lost)) == (5, 4)
        monkeypatch.setattr(dns_server, "monotonic", lambda: 8.0)
        with client(port) as made:
            made.send(b"again")
            assert await got(made) == b"again"


async def test_a_port_that_somebody_has_is_not_shared() -> None:
    async with open_at() as (_, port):
        with pytest.raises(OSError, match="in use"):
            await dns_server.listen(None, "127.0.0.1", port)


def test_mitmproxy_opens_the_sockets_of_mode_dns_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_answers", None)
    dns_server.install(Echo.__new__(Echo))
    dns_server.install(Echo.__new__(Echo))

    assert DnsInstance.listen is dns_server.listen
    assert dns_server.listen.ungoverned is not dns_server.listen  # type: ignore[attr-defined]

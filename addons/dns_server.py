"""Mode `dns`: the sockets at which clients ask for names, over UDP and TCP.

mitmproxy's own layer is not used. Each port of a client would be a connection of its own there for twenty seconds; a
message may hold names that grow without a bound as pointers lead to pointers; and what it cannot answer itself it sends
on. Here nothing is sent on: a question has an answer of `Lookups`, or none.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from mitmproxy.proxy.mode_servers import DnsInstance

from addons import redirected
from addons.connections import ClientConnection
from addons.port_lock import bound_sockets
from kernel.source_networks import source_address

# A page with all that it loads asks for a hundred names. What is beyond costs no more than to be counted.
_A_SECOND = 200
# At a time, so that a flood of one address leaves the others their turn.
_MOST_OF_ONE = 32
_MOST = 1024
_MOST_CONNECTIONS_OF_ONE = 16
# Two octets can say more, and no question needs it.
_LONGEST_BYTES = 4096
_IDLE_SECONDS = 10.0
_BACKLOG = 128


class Answers(Protocol):
    """Who answers. Nothing of it raises."""

    def answer(self, message: bytes, connection: ClientConnection, *, udp: bool) -> Awaitable[bytes | None]:
        """What to send back; None for nothing."""

    def dropped(self, connection: ClientConnection) -> None:
        """A question was not read, or a connection not served: too many came."""


_answers: Answers | None = None
_sandbox: str | None = None


def install(answers: Answers, sandbox: str | None = None) -> None:
    """Have mode dns answered here; `sandbox` is the agent that asks, where only its sandbox can. Installing again
    replaces both.
    """
    global _answers, _sandbox
    _answers, _sandbox = answers, sandbox
    if not hasattr(DnsInstance.listen, "ungoverned"):
        listen.ungoverned = DnsInstance.listen  # type: ignore[attr-defined]
        DnsInstance.listen = listen  # type: ignore[method-assign,assignment]


async def reopen(servers: Sequence[Any]) -> None:
    """Close what mitmproxy opened before `install`, and open it again."""
    for server in servers:
        opened = tuple(server._servers) if isinstance(server, DnsInstance) else ()
        if opened and not any(isinstance(each, Datagrams) for each in opened):
            await server.stop()
            for each in opened:
                if not isinstance(each, asyncio.Server):
                    # Its port is free only then.
                    await each.wait_closed()
            await server.start()


async def listen(_: Any, host: str, port: int) -> list[Any]:
    """The servers at a port, in each family and over both protocols."""
    streams = bound_sockets(host, port, socket.SOCK_STREAM, socket.SO_REUSEADDR)
    try:
        datagrams = bound_sockets(host, streams[0].getsockname()[1], socket.SOCK_DGRAM)
    except OSError:
        for each in streams:
            each.close()
        raise
    return await serving(streams, datagrams)


async def serving(streams: Sequence[socket.socket], datagrams: Sequence[socket.socket]) -> list[Any]:
    """Servers at sockets that are bound: what a `DnsInstance` keeps of its own."""
    loop, limits = asyncio.get_running_loop(), _Limits()
    servers: list[Any] = [await asyncio.start_server(limits.connected, sock=each, backlog=_BACKLOG)
                          for each in streams]
    for each in datagrams:
        transport, _ = await loop.create_datagram_endpoint(lambda: _Questions(limits), sock=each)
        servers.append(Datagrams(transport))
    return servers


class Datagrams:
    """What mitmproxy asks of a server, for a socket of datagrams."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return (self._transport.get_extra_info("socket"),)

    def close(self) -> None:
        self._transport.close()


class _Limits:
    """How many questions and connections of one address, and of all, are under way, and how many come in a second."""

    def __init__(self) -> None:
        self._second, self._in_second = 0, Counter[str]()
        self._questions: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def has_room(self, connection: ClientConnection) -> bool:
        """Count a question; False where its client has had its share. Who gets no answer over UDP asks again."""
        now = int(monotonic())
        if now != self._second:
            self._second, self._in_second = now, Counter()
        self._in_second[connection.peer] += 1
        if (self._in_second[connection.peer] <= _A_SECOND and self._questions[connection.peer] < _MOST_OF_ONE
                and self._under_way < _MOST):
            return True
        _drop(connection)
        return False

    @property
    def _under_way(self) -> int:
        return len(self._tasks)

    def begin(self, peer: str, answering: Callable[[], Awaitable[None]]) -> None:
        """Answer in a task of its own."""
        self._questions[peer] += 1

        async def run() -> None:
            try:
                await answering()
            finally:
                _less(self._questions, peer)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client over TCP: its questions one after the other."""
        connection = _client(writer.get_extra_info("peername"), writer)
        peer = connection.peer
        if self._connections[peer] < _MOST_CONNECTIONS_OF_ONE and self._connections.total() < _MOST:
            self._connections[peer] += 1
            try:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    while await _answer_next(reader, writer, connection, self):
                        pass
                await _end(writer)
            finally:
                _less(self._connections, peer)
        else:
            _drop(connection)
            writer.close()


def _drop(connection: ClientConnection) -> None:
    if _answers is not None:
        _answers.dropped(connection)


def _less(counter: Counter[str], peer: str) -> None:
    counter[peer] -= 1
    if not counter[peer]:
        del counter[peer]


async def _end(writer: asyncio.StreamWriter) -> None:
    """Close a connection once its client has read what was said; at once where it does not read."""
    writer.close()
    try:
        async with asyncio.timeout(_IDLE_SECONDS):
            await writer.wait_closed()
    except OSError:
        # Closed alone, it would stay open for as long as its client likes.
        writer.transport.abort()


async def _answer_next(reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                       connection: ClientConnection, limits: _Limits) -> bool:
    """Read a question and answer it. False where there is nothing more to say."""
    async with asyncio.timeout(_IDLE_SECONDS):
        size = int.from_bytes(await reader.readexactly(2))
        if not 0 < size <= _LONGEST_BYTES:
            return False
        message = await reader.readexactly(size)
    if not limits.has_room(connection):
        return False
    said = None if _answers is None else await _answers.answer(message, connection, udp=False)
    if said is None:
        return False
    writer.write(len(said).to_bytes(2) + said)
    async with asyncio.timeout(_IDLE_SECONDS):
        await writer.drain()
    return True


class _Questions(asyncio.DatagramProtocol):
    """Questions over UDP."""

    _transport: asyncio.DatagramTransport

    def __init__(self, limits: _Limits) -> None:
        self._limits = limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        connection = _client(addr, self._transport)
        if not self._limits.has_room(connection):
            return

        async def answer() -> None:
            said = None if _answers is None else await _answers.answer(data, connection, udp=True)
            if said is not None and not self._transport.is_closing():
                self._transport.sendto(said, addr)

        self._limits.begin(connection.peer, answer)


def _client(address: tuple[Any, ...], end: Any) -> ClientConnection:
    """Who asks, and where it arrived. `end` is asyncio's, with the socket behind it."""
    peer = str(address[0])
    return ClientConnection(peer, arrived_at=redirected.arrived(end), sandbox=_sandbox, address=source_address(peer))

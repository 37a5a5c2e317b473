"""mitmproxy at sockets that were made elsewhere: those of a command's network, of which it is no part itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from mitmproxy.proxy.mode_servers import AsyncioServerInstance

_MOST_PEERS = 1024
_MOST_WAITING = 32


def serve_at(sockets: Mapping[str, socket.socket]) -> None:
    """Have mitmproxy in this process open no ports of its own. A name begins with the mode that the socket is for."""
    AsyncioServerInstance.listen = _listening(sockets)  # type: ignore[method-assign]


def _listening(sockets: Mapping[str, socket.socket]) -> Any:
    async def listen(self: Any, _host: str, _port: int) -> list[Any]:
        mode = self.mode.type_name
        ours = [each for name, each in sockets.items() if name.partition("/")[0] == mode]
        if not ours:
            raise OSError(f"no socket was handed over for mode {mode}")
        return [await _served(self.handle_stream, each) for each in ours]

    return listen


async def _served(handle: Any, listening: socket.socket) -> Any:
    if listening.type == socket.SOCK_STREAM:
        return await asyncio.start_server(handle, sock=listening)
    # Once it is connected to the loop, it reads.
    listening.setblocking(False)  # noqa: FBT003
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(partial(Datagrams, handle), sock=listening)
    return protocol


class Datagrams(asyncio.DatagramProtocol):
    """A UDP socket as mitmproxy knows one: a stream of datagrams for each peer."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._streams: dict[Any, DatagramStream] = {}
        self._transport: Any = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def sockets(self) -> tuple[Any, ...]:
        return (self._transport.get_extra_info("socket"),)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        stream = self._streams.get(addr)
        if stream is None:
            if len(self._streams) >= _MOST_PEERS:
                return
            stream = self._streams[addr] = DatagramStream(self._transport, addr, partial(self._streams.pop, addr, None))
            task = asyncio.get_running_loop().create_task(self._handle(stream, stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        stream.feed(data)

    def error_received(self, exc: Exception) -> None:
        """A peer was gone before its answer came."""

    def close(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.close()
        self._transport.close()


class DatagramStream:
    """What one peer sends, datagram by datagram, and the way back to it."""

    def __init__(self, transport: Any, peer: Any, closed: Any) -> None:
        self._transport, self._peer, self._closed = transport, peer, closed
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take a datagram; it is lost where too many wait, as datagrams are."""
        if not self._ended and not self._waiting.full():
            self._waiting.put_nowait(data)

    async def read(self, _most: int = -1) -> bytes:
        """The next datagram; nothing at the end."""
        if self._ended and self._waiting.empty():
            return b""
        return await self._waiting.get()

    def write(self, data: bytes) -> None:
        if not self._ended:
            self._transport.sendto(data, self._peer)

    async def drain(self) -> None:
        """Nothing waits."""

    def write_eof(self) -> None:
        """Datagrams have no end."""

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._closed()
            if self._waiting.empty():
                self._waiting.put_nowait(b"")

    def is_closing(self) -> bool:
        return self._ended

    async def wait_closed(self) -> None:
        """It is, at once."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "transport_protocol":
                return "udp"
            case "peername":
                return self._peer
            case "sockname":
                return self._transport.get_extra_info("sockname")
            case _:
                return default

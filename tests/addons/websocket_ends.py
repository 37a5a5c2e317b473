"""Both ends of a WebSocket through a proxy under Governor. Frames are written by hand, so that they may be wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from wsproto.frame_protocol import Frame, FrameDecoder

from addons import websocket_layer
from kernel.measures import WebSocketMeasures
from kernel.verdict import Code
from tests.addons.inside import SECONDS, Inside

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

type Sent = tuple[int, bytes, bool]


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, reserved: int = 0,
          length: bytes | None = None) -> bytes:
    """One frame. `length` takes the place of what stands for the payload's length, without the mask bit."""
    first = opcode | (0x80 if final else 0) | reserved << 4
    written = bytearray(length if length is not None else _length(len(payload)))
    if not masked:
        return bytes((first,)) + bytes(written) + payload
    key = b"\x01\x80\xff\x33"
    written[0] |= 0x80
    return bytes((first,)) + bytes(written) + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def _length(size: int) -> bytes:
    if size < 126:
        return bytes((size,))
    return b"\x7e" + struct.pack("!H", size) if size < 65536 else b"\x7f" + struct.pack("!Q", size)


def fragments(opcode: int, parts: list[bytes], *, masked: bool = True) -> bytes:
    """A message in these fragments."""
    return b"".join(
        frame(CONTINUATION if number else opcode, part, final=number == len(parts) - 1, masked=masked)
        for number, part in enumerate(parts))


def closing(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close."""
    return struct.pack("!H", code) + reason


class Frames:
    """What one end receives: whole frames as (opcode, payload, final)."""

    def __init__(self, reader: asyncio.StreamReader, *, from_client: bool) -> None:
        self._reader, self._decoder = reader, FrameDecoder(client=not from_client)
        self._opcode: int | None = None
        self._part = b""
        self.got: list[Sent] = []

    async def next(self) -> Sent | None:
        """The next whole frame, None at the end of the connection."""
        async with asyncio.timeout(SECONDS):
            while (found := self._whole()) is None:
                try:
                    data = await self._reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._decoder.receive_bytes(data)
        self.got.append(found)
        return found

    async def rest(self) -> list[Sent]:
        """All frames from here to the end of the connection."""
        found = []
        while (one := await self.next()) is not None:
            found.append(one)
        return found

    def _whole(self) -> Sent | None:
        while (part := self._decoder.process_buffer()) is not None:
            self._opcode = int(part.opcode) if self._opcode is None else self._opcode
            self._part += _bytes(part)
            if part.frame_finished:
                found = (self._opcode, self._part, part.message_finished)
                self._opcode, self._part = None, b""
                return found
        return None


def _bytes(part: Frame) -> bytes:
    assert isinstance(part.payload, bytes)
    return part.payload


@dataclass
class End:
    """One end of an open WebSocket."""

    writer: asyncio.StreamWriter
    frames: Frames

    def send(self, *content: bytes) -> None:
        self.writer.write(b"".join(content))

    async def next(self) -> Sent | None:
        return await self.frames.next()

    async def rest(self) -> list[Sent]:
        return await self.frames.rest()


@dataclass
class Watching:
    """A watch that remembers what the layer told it."""

    limits: WebSocketMeasures = field(default_factory=WebSocketMeasures)
    up: int = 0
    down: int = 0
    codes: list[Code] = field(default_factory=list)

    def meter(self, bytes_up: int, bytes_down: int) -> None:
        self.up, self.down = self.up + bytes_up, self.down + bytes_down

    def refused(self, code: Code) -> str:
        self.codes.append(code)
        return f"{code} main/7"


@dataclass
class Opened:
    """A WebSocket that is open from end to end."""

    client: End
    origin: End


@contextlib.asynccontextmanager
async def open_websocket(place: Inside, watch: Any, *, with_answer: bytes = b"",
                         tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
                         tunnel: bool = False) -> AsyncIterator[Opened]:
    """Open a WebSocket through the proxy, which is watched by `watch` or by what this says of a flow.

    `with_answer` follows the origin's 101; `tls` are the contexts of the client and of the origin.
    """
    websocket_layer.install(watch if callable(watch) else lambda _: watch)
    arrived: asyncio.Queue[End] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"xtensions" not in head
        accept = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + with_answer)
        await arrived.put(End(writer, Frames(reader, from_client=True)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls[1] if tls else None)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    origin = None
    try:
        if tls or tunnel:
            writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        if tls:
            await writer.start_tls(tls[0], server_hostname="localhost")
        target = "/" if tls or tunnel else f"http://localhost:{port}/"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode())
        async with asyncio.timeout(SECONDS):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            origin = await arrived.get()
        yield Opened(End(writer, Frames(reader, from_client=False)), origin)
    finally:
        writer.close()
        if origin is not None:
            origin.writer.close()
        server.close()


def data_of(got: list[Sent]) -> list[Sent]:
    """Those of the frames that are part of a message."""
    return [one for one in got if one[0] < CLOSE]


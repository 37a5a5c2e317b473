"""A provider of models on loopback, made by these tests: it answers as it is told to, and keeps what it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """One answer: its pieces, sent with a chunk each; then the end, or none."""

    pieces: Sequence[bytes]
    status: int = 200
    content_type: str = "text/event-stream"
    coding: str = ""
    breaks_off: bool = False
    pause: float = 0.0


@dataclass
class Provider:
    port: int = 0
    answer: Callable[[dict[str, Any]], Answer] = lambda asked: Answer([b"{}"], content_type="application/json")
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What the calls said, in order."""
        return [json.loads(body) for body in self.bodies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        body = await reader.readexactly(int(lines.get(b"content-length", 0)))
        self.heads.append(head)
        self.bodies.append(body)
        answer = self.answer(json.loads(body or b"{}"))
        coding = f"Content-Encoding: {answer.coding}\r\n" if answer.coding else ""
        writer.write((f"HTTP/1.1 {answer.status} Said\r\nContent-Type: {answer.content_type}\r\n{coding}"
                      "Transfer-Encoding: chunked\r\n\r\n").encode())
        for piece in answer.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(answer.pause)
        if answer.breaks_off:
            raise ConnectionResetError
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@contextlib.asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    place = Provider()
    server = await asyncio.start_server(place.serve, "127.0.0.1", 0)
    place.port = server.sockets[0].getsockname()[1]
    async with server:
        yield place


def post(host: str, port: int, path: str, body: bytes, *headers: str) -> bytes:
    """A call as bytes for a proxy, the connection closed after it."""
    lines = "".join(f"{line}\r\n" for line in (
        f"Host: {host}:{port}", "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close",
        *headers))
    return f"POST http://{host}:{port}{path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def chunked(answer: bytes) -> bytes:
    """The body of a chunked answer."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[:int(size, 16)], rest[int(size, 16) + 2:]
    return body

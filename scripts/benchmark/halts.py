"""Halts: how long after an operator's halt the last byte of each open stream has passed, its end included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from addons import control
from scripts.benchmark.contenders import Contender

FLOWS = 1_000
AGENT = "local"
POLICY = f"""\
version: 1
rules:
  - allow: origin
    to: localhost
    address: 127.0.0.0/8
    schemes: [http]
    ports: 1-65535
    methods: reads
limits:
  - {{in-flight: {FLOWS}}}
"""
PATIENCE_SECONDS = 60.0
_BEGINNINGS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: x\n\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + bytes(100_000),
)
"""Of an event stream, and of a download, in turns."""


async def measure_halts(contender: Contender, home: Path) -> dict[str, str]:
    """The time from the operator's word to the end of each of many open flows, as their clients see it."""
    async with _origin() as port:
        streams = await asyncio.gather(*(_begun(contender.port, port, number) for number in range(FLOWS)))
        ends = [asyncio.create_task(_ended(reader)) for reader, _ in streams]
        began = time.perf_counter()
        said = await asyncio.to_thread(
            control.request, home, "agents", PATIENCE_SECONDS, act="halt", agent=AGENT, reason="measured")
        answered = time.perf_counter()
        took = sorted((end - began) * 1000 for end in await asyncio.gather(*ends))
        for _, writer in streams:
            writer.close()
    if not said.get("changed"):
        raise ValueError(f"nobody was halted: {said}")
    return {f"halt with {FLOWS:,} open streams: to the end of one, p50 and p99; to the answer":
            f"{took[len(took) // 2]:.1f} and {took[len(took) * 99 // 100]:.1f} ms; {(answered - began) * 1000:.1f} ms"}


@asynccontextmanager
async def _origin() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(_BEGINNINGS[int(head.split(b" ", 2)[1].rpartition(b"/")[2]) % 2])
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=FLOWS)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _begun(proxy_port: int, origin_port: int, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A flow of which all that the origin has sent has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy_port, limit=2**20)
    authority = f"localhost:{origin_port}"
    writer.write(f"GET http://{authority}/{number} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"the proxy answered {head[:80]!r}")
    await (reader.readexactly(100_000) if number % 2 else reader.readuntil(b"data: x\n\n\r\n"))
    return reader, writer


async def _ended(reader: asyncio.StreamReader) -> float:
    while await reader.read(65536):
        pass
    return time.perf_counter()

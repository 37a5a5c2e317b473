"""Halts: how long after an operator's word the last byte of each open stream has passed, and its client sees its end.

Half of the streams are event streams, half downloads; on each something comes every two seconds, in turns.
"""

from __future__ import annotations

import asyncio
import contextlib
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
INTERVAL_SECONDS = 2.0
_EVENT = b"data: x\n\n"
_HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n",
)
_PIECES = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT), bytes(1000)


async def measure_halts(contender: Contender, home: Path) -> dict[str, str]:
    """The time from the operator's word to the end of each of many open flows, as their clients see it."""
    async with _origin() as port:
        streams = await asyncio.gather(*(_begun(contender.port, port, number) for number in range(FLOWS)))
        ends = [asyncio.create_task(_ended(reader, number)) for number, (reader, _) in enumerate(streams)]
        await asyncio.sleep(INTERVAL_SECONDS)
        began = time.perf_counter()
        said = await asyncio.to_thread(
            control.request, home, "agents", PATIENCE_SECONDS, act="halt", agent=AGENT, reason="measured")
        answered = time.perf_counter()
        times = await asyncio.gather(*ends)
        for _, writer in streams:
            writer.close()
    if not said.get("changed"):
        raise ValueError(f"nobody was halted: {said}")
    passed, ended = (sorted(max(0.0, each - began) * 1000 for each in column) for column in zip(*times, strict=True))
    last = len(times) * 99 // 100
    return {
        f"halt with {FLOWS:,} open streams, to the last byte, p99 and last":
            f"{passed[last]:.1f} and {passed[-1]:.1f} ms",
        "the same, to the end that a client sees, p50 and p99": f"{ended[last // 2]:.1f} and {ended[last]:.1f} ms",
        "the same, to the operator's answer": f"{(answered - began) * 1000:.1f} ms",
    }


@asynccontextmanager
async def _origin() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        number = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
        writer.write(_HEADS[number % 2] + _PIECES[number % 2])
        await asyncio.sleep(INTERVAL_SECONDS * number / FLOWS)
        with contextlib.suppress(ConnectionError):
            while not (reader.at_eof() or writer.is_closing()):
                writer.write(_PIECES[number % 2])
                await asyncio.sleep(INTERVAL_SECONDS)
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
    await (reader.readexactly(1000) if number % 2 else reader.readuntil(_EVENT))
    return reader, writer


async def _ended(reader: asyncio.StreamReader, number: int) -> tuple[float, float]:
    """When the last of what the origin sent has come, and when the stream has ended."""
    last = 0.0
    while part := await reader.read(65536):
        if number % 2 or _EVENT in part:
            last = time.perf_counter()
    return last, time.perf_counter()

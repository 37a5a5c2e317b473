"""Event streams: how long an event takes from the origin, through a proxy, to the client.

Origin and client live in one process, so that one clock stamps an event where it is sent and reads it where it arrives.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Any

STREAMS = 8
INTERVAL_SECONDS = 0.02
PATIENCE_SECONDS = 20.0
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = re.compile(rb'data: (?:[^\n]*"content":")?(\d+)[^\n]*\n\n')
_ASKED = re.compile(rb"(GET|POST) \S*?/(\d+)(?:/v1/chat/completions)? HTTP")
_CALL = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"say numbers"}]}'
_CHUNK = (b'{"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
          b'"delta":{"content":"%d"},"finish_reason":null}],"usage":null}')


@dataclass
class Run:
    """One slice of events. What arrives during the warm-up is not counted.

    `model`: they are the answer of a model, in OpenAI's language.
    """

    proxy_port: int
    origin_port: int
    warm_seconds: float
    seconds: float
    model: bool = False
    delays_ms: list[float] = field(default_factory=list)
    counting: bool = False
    arrived: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, stamp: int) -> None:
        self.arrived += 1
        if self.arrived >= STREAMS:
            self.begun.set()
        if self.counting:
            self.delays_ms.append((time.perf_counter_ns() - stamp) / 1e6)
            if len(self.delays_ms) >= STREAMS:
                self.enough.set()


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One stream of the origin: an event every `INTERVAL_SECONDS` until the client leaves.

    The streams take turns, by the clock: where they fall together, an event waits for those before it.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    found = _ASKED.match(head)
    if found is None:
        raise ConnectionError(f"the origin was asked {head[:80]!r}, which names no stream")
    posted, number = found[1] == b"POST", int(found[2])
    if posted:
        await reader.readexactly(len(_CALL))
    writer.write(_HEAD)
    loop = asyncio.get_running_loop()
    try:
        while not reader.at_eof():
            turn = loop.time() / INTERVAL_SECONDS - number / STREAMS
            await asyncio.sleep((1 - turn % 1) * INTERVAL_SECONDS)
            event = b"data: %b\n\n" % ((_CHUNK if posted else b"%d") % time.perf_counter_ns())
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
    finally:
        writer.close()


async def _listen(run: Run, number: int) -> None:
    """One stream of the client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", run.proxy_port)
    authority = f"localhost:{run.origin_port}"
    if run.model:
        head = f"POST http://{authority}/{number}/v1/chat/completions HTTP/1.1\r\nContent-Length: {len(_CALL)}\r\n"
    else:
        head = f"GET http://{authority}/{number} HTTP/1.1\r\n"
    writer.write(f"{head}Host: {authority}\r\nContent-Type: application/json\r\n\r\n".encode())
    writer.write(_CALL if run.model else b"")
    try:
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        if b" 200 " not in answer[:20]:
            raise ConnectionError(f"the proxy answered {answer[:80]!r}")
        unread = b""
        while content := await reader.read(65536):
            unread += content
            end = 0
            for found in _EVENT.finditer(unread):
                run.note(int(found[1]))
                end = found.end()
            unread = unread[end:]
        raise ConnectionError("the proxy ended the stream")
    finally:
        writer.close()


async def _clock(run: Run) -> None:
    """Count for the run's seconds after the warm-up; on a busy machine until there were some events."""
    await run.begun.wait()
    await asyncio.sleep(run.warm_seconds)
    run.counting = True
    await asyncio.sleep(run.seconds)
    await run.enough.wait()


async def measure(run: Run) -> dict[str, Any]:
    """Drive the run. The first problem of any stream ends it and is what it reports."""
    server = await asyncio.start_server(_send, "127.0.0.1", run.origin_port)
    busy = time.process_time()
    listening = [asyncio.create_task(_listen(run, number)) for number in range(STREAMS)]
    clock = asyncio.create_task(_clock(run))
    try:
        done, _ = await asyncio.wait([clock, *listening], timeout=run.warm_seconds + run.seconds + PATIENCE_SECONDS,
                                     return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (clock, *listening):
            task.cancel()
        ended = await asyncio.gather(clock, *listening, return_exceptions=True)
        server.close()
    if clock not in done:
        problems = [problem for problem in ended if isinstance(problem, Exception)]
        return {"error": f"{problems[0]}" if problems else "too few events came"}
    ordered = sorted(run.delays_ms)
    at = {f"p{share:g}_ms": ordered[int(len(ordered) * share / 100)] for share in (50, 90, 99)}
    return {"requests_per_second": len(ordered) / run.seconds, "requests": run.arrived,
            "client_busy": time.process_time() - busy, **at}

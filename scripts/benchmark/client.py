"""A closed-loop load generator in a process of its own: a job per line in, what it measured per line out."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from scripts.benchmark import events
from scripts.benchmark.codecs import BadAnswer, Codec, Http1, Http2

PATIENCE_SECONDS = 20.0


@dataclass
class Run:
    """One slice of load. What is sent during the warm-up is not counted."""

    axis: str
    proxy_port: int
    origin_port: int
    connections: int
    warm_seconds: float
    seconds: float
    latencies: list[float] = field(default_factory=list)
    counting: bool = False
    active: bool = True
    answers: int = 0
    all_connected: asyncio.Event = field(default_factory=asyncio.Event)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def encrypted(self) -> bool:
        return not self.axis.startswith("plain")

    @property
    def one_request_each(self) -> bool:
        return self.axis.endswith("new")

    def codec(self) -> Codec:
        authority = f"localhost:{self.origin_port}"
        if self.axis == "h2":
            return Http2(authority)
        target = "/" if self.encrypted else f"http://{authority}/"
        return Http1(f"GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode())

    def note(self, began: float) -> None:
        if self.counting:
            self.latencies.append(time.perf_counter() - began)
            if len(self.latencies) == self.connections:
                self.enough.set()
            return
        self.answers += 1
        if self.answers >= self.connections:
            self.all_connected.set()


class Loop(asyncio.Protocol):
    """Sends a request, waits for the answer, sends the next, until the run or the connection's share of it is over."""

    def __init__(self, run: Run, codec: Codec, began: float) -> None:
        self._run, self._codec, self._began = run, codec, began
        self.finished = asyncio.get_running_loop().create_future()

    def start(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.write(self._codec.opening + self._codec.request())

    def data_received(self, data: bytes) -> None:
        try:
            complete = self._codec.feed(data)
        except BadAnswer as problem:
            self._end(problem)
            return
        if replies := self._codec.replies():
            self._transport.write(replies)
        if not complete:
            return
        self._run.note(self._began)
        if self._run.one_request_each or not self._run.active:
            self._end(None)
            return
        self._began = time.perf_counter()
        self._transport.write(self._codec.request())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the proxy closed the connection"))

    def _end(self, problem: Exception | None) -> None:
        if self.finished.done():
            return
        if problem:
            self.finished.set_exception(problem)
        else:
            self.finished.set_result(None)


async def _connection(run: Run, context: ssl.SSLContext) -> None:
    """One connection through the proxy, from the connect to its last answer."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    requests = Loop(run, run.codec(), began)
    if not run.encrypted:
        transport, _ = await loop.create_connection(lambda: requests, "127.0.0.1", run.proxy_port)
        requests.start(transport)
    else:
        authority = f"localhost:{run.origin_port}"
        codec = Http1(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        tunnel = Loop(Run("plain_new", 0, 0, 0, 0, 0), codec, began)
        transport, _ = await loop.create_connection(lambda: tunnel, "127.0.0.1", run.proxy_port)
        tunnel.start(transport)
        await tunnel.finished
        secured = await loop.start_tls(transport, requests, context, server_hostname="localhost")
        assert secured is not None
        transport = secured
        requests.start(transport)
    try:
        await requests.finished
    finally:
        transport.close()


async def _worker(run: Run, context: ssl.SSLContext) -> None:
    while run.active:
        await asyncio.wait_for(_connection(run, context), run.warm_seconds + run.seconds + PATIENCE_SECONDS)


async def _clock(run: Run) -> float:
    """Let connections and warm-up pass, count for the run's seconds, end the run. How long it really counted."""
    await run.all_connected.wait()
    await asyncio.sleep(run.warm_seconds)
    run.counting, began = True, time.perf_counter()
    await asyncio.sleep(run.seconds)
    # On a busy machine a slice is longer rather than empty.
    await run.enough.wait()
    run.counting = run.active = False
    return time.perf_counter() - began


async def measure(run: Run) -> dict[str, Any]:
    """Drive the run. The first problem of any connection ends it and is what it reports."""
    context = ssl.create_default_context()
    # The load generator measures a proxy whose certificates it does not need to trust.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"] if run.axis == "h2" else ["http/1.1"])
    busy = time.process_time()
    try:
        async with asyncio.TaskGroup() as group:
            clock = group.create_task(_clock(run))
            for _ in range(run.connections):
                group.create_task(_worker(run, context))
    except BaseExceptionGroup as problems:
        expected, others = problems.split((OSError, BadAnswer, TimeoutError))
        if others or not expected:
            raise
        return {"error": f"{type(expected.exceptions[0]).__name__}: {expected.exceptions[0]}"}
    milliseconds = sorted(seconds * 1000 for seconds in run.latencies)
    at = {f"p{share:g}_ms": milliseconds[int(len(milliseconds) * share / 100)] for share in (50, 90, 99)}
    # `requests` are all that were answered, as the proxy's CPU time is that of all.
    return {"requests_per_second": len(milliseconds) / clock.result(), "requests": run.answers + len(milliseconds),
            "client_busy": time.process_time() - busy, **at}


def main() -> None:
    """Serve jobs from standard input until it ends."""
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_measured(json.loads(line)))), flush=True)


def _measured(job: dict[str, Any]) -> Coroutine[Any, Any, dict[str, Any]]:
    if job["axis"] in ("events", "models"):
        return events.measure(events.Run(
            job["proxy_port"], job["origin_port"], job["warm_seconds"], job["seconds"], model=job["axis"] == "models"))
    return measure(Run(**job))


if __name__ == "__main__":
    main()

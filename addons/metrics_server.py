"""`/metrics`, `/healthz` and `/readyz` on a port of their own, and nothing else.

One daemon thread with its own event loop, so that a proxy whose loop stands still can still be asked whether it turns.
A scraper that is stuck costs a coroutine for some seconds: connections are counted, heads bounded, each has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from addons.errors import StartCode, StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from addons.metrics import Metrics

MAX_CONNECTIONS = 16
MAX_HEAD_BYTES = 8192
EXCHANGE_SECONDS = 5.0
STOP_SECONDS = 2.0

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"

Answer = tuple[HTTPStatus, str, bytes]


class MetricsServer:
    """Answers on `address`. `health` says whether the proxy's loop turns, `ready` names each check and its result."""

    def __init__(
        self,
        address: tuple[str, int],
        metrics: Metrics,
        health: Callable[[], bool],
        ready: Callable[[], Mapping[str, bool]],
    ) -> None:
        self.address = address
        self._metrics, self._health, self._ready = metrics, health, ready
        self._open = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> None:
        """Open the port and serve it; `StartRefused` when it cannot be had. Then `address` holds the real port."""
        listener = _listen(self.address)
        self.address = listener.getsockname()[:2]
        self._loop, self._stopping = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, listener, self._stopping), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port. Safe to call twice, or before `start`."""
        if self._loop is None or self._stopping is None or self._thread is None:
            return
        with contextlib.suppress(RuntimeError):
            # The loop has already ended.
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS)

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, stopping: asyncio.Event) -> None:
        try:
            loop.run_until_complete(self._serve(listener, stopping))
        finally:
            loop.close()
            listener.close()

    async def _serve(self, listener: socket.socket, stopping: asyncio.Event) -> None:
        server = await asyncio.start_server(self._exchange, sock=listener, limit=MAX_HEAD_BYTES)
        await stopping.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._respond(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._open -= 1

    def _respond(self, head: bytes) -> bytes:
        method, target, accept = _parse(head)
        if method not in ("GET", "HEAD"):
            return _response((HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"GET or HEAD\n"), "GET")
        try:
            answer = self._answer(target.partition("?")[0], accept)
        except Exception as fault:  # noqa: BLE001
            # What failed is for the operator; a scraper learns the class alone.
            self._metrics.fault("metrics_server")
            answer = (HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, type(fault).__name__.encode() + b"\n")
        return _response(answer, method)

    def _answer(self, path: str, accept: str) -> Answer:
        match path:
            case "/metrics":
                body, content_type = self._metrics.render(accept)
                return HTTPStatus.OK, content_type, body
            case "/healthz":
                turns = self._health()
                return _status(turns), _JSON, _json({"healthy": turns})
            case "/readyz":
                checks = dict(self._ready())
                ready = all(checks.values())
                return _status(ready), _JSON, _json({"ready": ready, "checks": checks})
            case _:
                return HTTPStatus.NOT_FOUND, _TEXT, b"/metrics /healthz /readyz\n"


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _busy(address, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise _busy(address, error) from error
    return listener


def _busy(address: tuple[str, int], error: OSError) -> StartRefused:
    host, port = address
    problem = error.strerror or str(error)
    return StartRefused(
        StartCode.PORT_BUSY, f"metrics address {host}:{port}: {problem} (free it or set governor_metrics)"
    )


def _parse(head: bytes) -> tuple[str, str, str]:
    lines = head.decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    fields = (line.partition(":") for line in lines[1:])
    accept = next((value.strip() for name, _, value in fields if name.lower() == "accept"), "")
    return method, rest.partition(" ")[0], accept


def _status(good: bool) -> HTTPStatus:
    return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _response(answer: Answer, method: str) -> bytes:
    status, content_type, body = answer
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)

"""Governor's hooks around a real mitmproxy proxy inside the test: real kernel, lane and sockets, no second process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.test import taddons

from addons import (
    gate,
    patches,
    policy_store,
)
from addons.admission import Admission
from addons.book import Book
from addons.deadlines import Deadlines
from addons.governed import Governed
from addons.home import Home
from addons.hooks import Hooks
from addons.identity import Registry
from addons.in_flight import InFlight
from addons.judge import Judge
from addons.lane import Lane
from addons.metrics import Metrics
from addons.mirror import Mirror
from addons.outcomes import Outcomes
from addons.refusal_rate import RefusalRate
from addons.request_bodies import RequestBodies
from addons.request_names import RequestNames
from addons.resolver import Resolver
from addons.spool import Room
from kernel.standings import Own
from tests.addons.logs import entries, open_book, open_lane

AT_EASE = Own(None, None, ())

HTTP_ALONE = """\
version: 1
contact: "#agent-platform"
rules:
  - allow: local
    to: [localhost, "*.example.org", 127.0.0.0/8]
    address: 127.0.0.0/8
    schemes: [http, https]
    ports: 1-65535
    methods: any
    except: {paths: ["/denied/**"]}
"""
POLICY = HTTP_ALONE + """\
  - allow: local-websockets
    to: localhost
    address: 127.0.0.0/8
    schemes: [ws, wss]
    ports: 1-65535
    methods: [GET]
    websocket: {max-frame: 1MiB}
    except: {paths: ["/denied/**"]}
"""
SECONDS = 8.0
_LONGEST_SECONDS = 60.0


@dataclass
class Inside:
    """A proxy that listens, and everything of Governor's around it."""

    home: Home
    lane: Lane
    book: Book
    governed: Governed
    registry: Registry
    metrics: Metrics
    resolver: Resolver
    outcomes: Outcomes
    bodies: RequestBodies
    judge: Judge
    admission: Admission
    hooks: Hooks
    port: int = 0
    rate: RefusalRate = field(default_factory=lambda: RefusalRate(lambda: 0.0))
    answers: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one type that are durable by now."""
        return [entry for entry in entries(self.home) if entry["type"] == kind]

    async def wait_for(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """The entries of a type once there are `count` of them."""
        async with asyncio.timeout(SECONDS):
            while len(found := self.entries(kind)) < count:
                await asyncio.sleep(0.01)
        return found

    async def ask(self, content: bytes) -> bytes:
        """Everything that comes back for these bytes, until the proxy closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(content)
            return await until_closed(reader)
        finally:
            writer.close()

    async def get(self, url: str, *headers: str) -> bytes:
        """The answer to one plain GET through the proxy."""
        return await self.ask(get(url, *headers))


def get(url: str, *headers: str, method: str = "GET", host: str | None = None) -> bytes:
    """A request to a proxy as bytes, the connection closed after it."""
    lines = "".join(f"{line}\r\n" for line in (f"Host: {host or url.split('/')[2]}", "Connection: close", *headers))
    return f"{method} {url} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


async def until_closed(reader: asyncio.StreamReader, seconds: float = 4.0) -> bytes:
    """What a peer sends until it closes; one that leaves its client waiting fails the test."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await asyncio.wait_for(reader.read(65536), seconds):
            got += chunk
    return got


@dataclass
class RawOrigin:
    """An origin that records bytes as they come and answers each connection with fixed bytes."""

    port: int
    received: list[bytes]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


@contextlib.asynccontextmanager
async def raw_origin(answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                     then: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None) -> AsyncIterator[RawOrigin]:
    """An origin on loopback: `answer` to each request head, then `then`."""
    received: list[bytes] = []
    tasks: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(received)
        received.append(b"")
        tasks.add(writer)
        answered = 0
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                received[number] += chunk
                while received[number].count(b"\r\n\r\n") > answered:
                    answered += 1
                    writer.write(answer)
                    if then is not None:
                        await then(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield RawOrigin(server.sockets[0].getsockname()[1], received)
    finally:
        server.close()
        for writer in tasks:
            writer.close()


@contextlib.asynccontextmanager
async def inside(home: Home, *others: Any, policy: str = POLICY, deadline: float = 5.0,
                 mode: str = "regular", files: int = 4096) -> AsyncIterator[Inside]:
    """A proxy under Governor's hooks, with other addons in its chain. Every name resolves to 127.0.0.1 at first."""
    loop = asyncio.get_running_loop()
    lane, metrics = open_lane(home, loop=loop), Metrics("0", "0")
    registry = Registry(home.paths.agents)
    in_flight, bodies = InFlight(), RequestBodies(home.paths.folder, Room())
    book = open_book(lane, lambda: place.governed)
    resolver, outcomes = Resolver(loop), Outcomes(lane, book, metrics, in_flight)
    book.on_halt, book.on_halt_all, book.on_reads_only = outcomes.end_agent, outcomes.end_all, outcomes.end_writes
    rate, governed = RefusalRate(lambda: 0.0), _governed(home, policy, registry)
    judge = Judge(lambda: place.governed, lane, registry, resolver, metrics, lambda: frozenset({place.port}),
                  rate, bodies, in_flight, Mirror(lambda: place.governed, lambda: 0.0, lambda agent: AT_EASE), book,
                  RequestNames(bytes(32)))
    admission = Admission(rate, files)
    hooks = Hooks(judge, outcomes, lane, metrics, bodies, admission)
    place = Inside(home, lane, book, governed, registry, metrics, resolver, outcomes, bodies, judge, admission, hooks,
                   rate=rate)
    resolver._ask = _answering(place)  # type: ignore[method-assign]
    with _installed(place, bodies, deadline):
        async with asyncio.timeout(_LONGEST_SECONDS), _listening(place, others, mode):
            try:
                yield place
            finally:
                resolver.release()
                lane.close("stopped")


def _governed(home: Home, policy: str, registry: Registry) -> Governed:
    file = home.paths.folder / "policy.yaml"
    file.write_text(policy)
    return policy_store.first([file], home.paths, registry)


def _answering(place: Inside) -> Any:
    async def answer(name: str) -> list[str]:
        place.asked.append(name)
        if name not in place.answers and not name.endswith(("localhost", "example.org")):
            raise OSError("no such name")
        return place.answers.get(name, ["127.0.0.1"])

    return answer


@contextlib.contextmanager
def _installed(place: Inside, bodies: RequestBodies, deadline: float) -> Any:
    hooks, deadlines = place.hooks, Deadlines(gate.end, deadline)
    patches.install(hooks, place.outcomes, bodies, deadlines)
    deadlines.start(asyncio.get_running_loop())
    try:
        yield
    finally:
        gate.close()
        uninstall()


def uninstall() -> None:
    """Give mitmproxy its own hooks back."""
    for handler in (ProxyConnectionHandler, ReplayHandler):
        original = getattr(handler.handle_hook, "ungoverned", None)
        if original is not None:
            handler.handle_hook = original  # type: ignore[method-assign]


@contextlib.asynccontextmanager
async def _listening(place: Inside, others: tuple[Any, ...], mode: str) -> AsyncIterator[None]:
    server = Proxyserver()
    with taddons.context(*others, server, NextLayer()) as context:
        context.configure(server, mode=[mode], listen_host="127.0.0.1", listen_port=0, connection_strategy="lazy",
                          rawtcp=False)
        assert await server.setup_servers()
        server.running()
        place.port = server.listen_addrs()[0][1]
        place.resolver.seal()
        try:
            yield
        finally:
            for handler in tuple(server.connections.values()):
                with contextlib.suppress(KeyError, AssertionError):
                    handler.close_connection(handler.client)
            await server.servers.update([])
            await asyncio.sleep(0)

"""Whatever passes, memory stays: large downloads, bombs, and event streams, which arrive as they are sent."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard

from tests.conftest import scaled
from tests.e2e import wire
from tests.e2e.origins import Origin, _Handler, serving
from tests.e2e.process import Governor, started
from tests.e2e.watch import MIB, Held

pytestmark = pytest.mark.e2e

DOWNLOAD_MIB = min(1024, scaled(128))
DOWNLOAD_ADDS, BOMB_ADDS = 64 * MIB, 32 * MIB
BLOCK = bytes(range(256)) * 256
EVENTS = 40


@dataclass
class Stage:
    """What the origin serves by path. `events` is released by the client for each event that may be sent."""

    bombs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    events: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class _StageHandler(_Handler):
    stage = Stage()

    def reply(self) -> None:
        path, _, argument = self.path.lstrip("/").partition("?")
        {"chunked": self._chunked, "sized": self._sized, "events": self._events, "bomb": self._bomb,
         "until-end": self._events}.get(path, super().reply)(*([argument] if argument else []))

    def _head(self, **fields: str) -> None:
        self.send_response(200)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _chunked(self, blocks: str) -> None:
        self._head(transfer_encoding="chunked")
        for _ in range(int(blocks)):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
        self.wfile.write(b"0\r\n\r\n")

    def _sized(self, blocks: str) -> None:
        self._head(content_length=str(int(blocks) * len(BLOCK)))
        for _ in range(int(blocks)):
            self.wfile.write(BLOCK)

    def _bomb(self, name: str) -> None:
        coding, body = self.stage.bombs[name]
        self._head(content_encoding=coding, content_length=str(len(body)))
        self.wfile.write(body)

    def _events(self) -> None:
        chunked = self.path == "/events"
        self.close_connection = not chunked
        self._head(content_type="text/event-stream", **({"transfer_encoding": "chunked"} if chunked else {}))
        for number in range(EVENTS):
            assert self.stage.events.acquire(timeout=20)
            content = event(number)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content) if chunked else content)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


def event(number: int) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (number, b"x" * number)


@dataclass(frozen=True)
class Scene:
    governor: Governor
    http: Origin
    https: Origin
    held: Held


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Scene]:
    chain, trusted = certificate
    with (serving(_StageHandler) as plain, serving(_StageHandler, chain) as tls,
          started(tmp_path_factory.mktemp("governor"), trust=trusted) as governor):
        scene = Scene(governor, plain, tls, Held(governor.process.pid))
        # What Python and its libraries take once, for the first body of its kind, is not what a body costs.
        for path in ("chunked?32", "sized?32"):
            assert download(scene, path) == 32 * len(BLOCK)
        yield scene


def download(scene: Scene, path: str) -> int:
    """The bytes of body that a client receives, which keeps none of them."""
    with opened(scene.governor, scene.http, path) as answer:
        return sum(map(len, iter(lambda: answer.read1(MIB), b"")))


@contextlib.contextmanager
def opened(governor: Governor, origin: Origin, path: str) -> Iterator[Any]:
    """The answer to a GET through Governor, its body unread."""
    with contextlib.ExitStack() as stack:
        target, host = f"/{path}", f"localhost:{origin.port}"
        if origin.scheme == "https":
            connection: socket.socket = stack.enter_context(wire.tunnel(governor.port, governor.ca, host))
        else:
            connection, target = stack.enter_context(wire.dial(governor.port)), f"http://{host}/{path}"
        connection.settimeout(60)
        connection.sendall(wire.request("GET", target, (("Host", host), ("Connection", "close"))))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        yield answer


def outcome_of(governor: Governor, act: Callable[[], None]) -> dict[str, Any]:
    """The one outcome entry that comes of `act`."""
    begun = sum(entry["stage"] == "request" for entry in governor.entries("decision"))
    governor.wait_for_entry("outcome", begun)
    act()
    return governor.wait_for_entry("outcome", begun + 1)[-1]


@pytest.mark.parametrize("framing", ["chunked", "sized"])
def test_a_large_download_costs_no_memory_and_is_counted_to_the_byte(scene: Scene, framing: str) -> None:
    blocks = DOWNLOAD_MIB * MIB // len(BLOCK)
    before, got = scene.held.forget_peak(), []
    outcome = outcome_of(scene.governor, lambda: got.append(download(scene, f"{framing}?{blocks}")))

    added = scene.held.peak - before
    assert got == [DOWNLOAD_MIB * MIB]
    assert added < DOWNLOAD_ADDS
    assert (outcome["result"], outcome["bytes_down"]) == ("completed", DOWNLOAD_MIB * MIB)


# Some tens of kilobytes that stand for hundreds of megabytes.

def _gzip() -> bytes:
    return gzip.compress(bytes(64 * MIB))


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", _gzip),
    "gzip-in-gzip": ("gzip, gzip", lambda: gzip.compress(_gzip() * 400)),
    "br": ("br", lambda: brotli.compress(bytes(256 * MIB), quality=1)),
    "zstd": ("zstd", lambda: zstandard.ZstdCompressor(level=1).compress(bytes(512 * MIB))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_no_memory_in_either_direction(scene: Scene, name: str) -> None:
    coding, made = BOMBS[name]
    body = made()
    _StageHandler.stage.bombs[name] = (coding, body)
    before = scene.held.forget_peak()
    received = download(scene, f"bomb?{name}")
    answer = wire.ask(scene.governor.port, wire.plain(
        "POST", f"{scene.http.url}/upload", ("Content-Encoding", coding), ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))), body=body))

    added = scene.held.peak - before
    assert received == len(body)
    assert answer is not None
    assert answer.status in (200, 403, 413)
    assert added < BOMB_ADDS


@pytest.mark.parametrize(("scheme", "path"), [
    ("http", "events"), ("http", "until-end"), ("https", "events"), ("https", "until-end"),
])
def test_each_event_of_a_stream_arrives_before_the_next_is_sent(scene: Scene, scheme: str, path: str) -> None:
    arrived: list[bytes] = []

    def listen() -> None:
        with opened(scene.governor, scene.http if scheme == "http" else scene.https, path) as answer:
            # The origin sends no event before the last one is here: what holds one back holds all.
            for number in range(EVENTS):
                _StageHandler.stage.events.release()
                arrived.append(answer.read(len(event(number))))
            arrived.append(answer.read())

    outcome = outcome_of(scene.governor, listen)

    assert arrived == [*map(event, range(EVENTS)), b""]
    assert (outcome["result"], outcome["bytes_down"]) == ("completed", sum(map(len, arrived)))


def test_each_event_of_a_stream_arrives_over_http2_before_the_next_is_sent(scene: Scene) -> None:
    got = b""

    def listen() -> None:
        nonlocal got
        authority = f"localhost:{scene.https.port}"
        with wire.tunnel(scene.governor.port, scene.governor.ca, authority, alpn=("h2",)) as connection:
            client = wire.Http2(connection)
            client.send(wire.fields("GET", authority, "/events"))
            for number in range(EVENTS):
                _StageHandler.stage.events.release()
                got += client.body(len(event(number)))
            got += client.body(None)

    outcome = outcome_of(scene.governor, listen)

    assert got == b"".join(map(event, range(EVENTS)))
    assert (outcome["result"], outcome["bytes_down"]) == ("completed", len(got))

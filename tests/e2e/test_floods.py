"""What a flooding agent costs its neighbour: little throughput, no entry of its log, and a bounded memory."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from addons.admission import Admission
from addons.refusal_rate import PER_SECOND, RefusalRate
from tests.conftest import SCALE
from tests.e2e import load, wire
from tests.e2e.load import Job
from tests.e2e.process import POLICY, Governor, started
from tests.e2e.watch import MIB, Held

pytestmark = pytest.mark.e2e

EVERYDAY = SCALE < 10
SLICE_SECONDS = 0.7 if EVERYDAY else 3.0
# What the neighbour keeps is shown and gates nothing: whatever else the machine does would decide. Measured alone:
# GOVERNOR_TEST_SCALE=10 scripts/test -s tests/e2e/test_floods.py
PAIRS = 1 if EVERYDAY else 7
OTHER_ADDRESS, THIRD_ADDRESS = "127.0.0.2", "127.0.0.3"
# What a connection that only stands there costs, mitmproxy's part and ours.
IDLE_BYTES = 100 * 1024
IDLE = min(2000, Admission(RefusalRate(time.time), resource.getrlimit(resource.RLIMIT_NOFILE)[1]).most)


class _Answering(asyncio.Protocol):
    """An origin that answers each head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._unread = transport, b""

    def data_received(self, data: bytes) -> None:
        *heads, self._unread = (self._unread + data).split(b"\r\n\r\n")
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * len(heads))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def origin() -> Iterator[int]:
    """The port of an origin that costs next to nothing."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(_Answering, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Flooded:
    """A Governor with two agents, and what each of them sends."""

    def __init__(self, governor: Governor, origin: int, neighbour: str, flooder: str) -> None:
        self.governor, self.origin, self.neighbour, self.flooder = governor, origin, neighbour, flooder
        self._read = 0

    def request(self, token: str, path: str = "/", more: str = "") -> str:
        authority = f"localhost:{self.origin}"
        login = base64.b64encode(f"x:{token}".encode()).decode()
        return (f"{'POST' if more else 'GET'} http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n"
                f"Proxy-Authorization: Basic {login}\r\n{more}\r\n")

    def new_entries(self) -> tuple[int, int]:
        """How many entries the log has more than at the last time: the neighbour's decisions, and all others but
        outcomes."""
        # What was answered is there, but the last outcomes.
        time.sleep(0.2)
        lines = self._new_lines()
        decisions = sum(b'"agent":{"by":"proxy-auth","id":"neighbour"}' in line for line in lines)
        outcomes = sum(b'"type":"outcome"' in line for line in lines)
        return decisions, len(lines) - 1 - decisions - outcomes

    def _new_lines(self) -> list[bytes]:
        """Whole lines since the last time, and what comes behind the last LF."""
        before, found = self._read, b""
        for path in self.governor.segments:
            size = path.stat().st_size
            with path.open("rb") as segment:
                segment.seek(min(before, size))
                found += segment.read()
            before = max(0, before - size)
        lines = found.split(b"\n")
        self._read += sum(len(line) + 1 for line in lines[:-1])
        return lines

    def throughput(self) -> float:
        """Requests a second of the neighbour in one slice."""
        counted = load.count(Job("ask", self.governor.port, self.request(self.neighbour), 4, seconds=SLICE_SECONDS))
        self.asked = counted.answers
        return counted.answers / SLICE_SECONDS

    def alone(self) -> float:
        """The same while nobody else asks anything."""
        found = self.throughput()
        self.new_entries()
        return found


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory, origin: int) -> Iterator[Flooded]:
    with started(tmp_path_factory.mktemp("flooded"), POLICY) as governor:
        tokens = [json.loads(governor.verb("agents", "add", name, "--json").stdout)["token"]
                  for name in ("neighbour", "flooder")]
        yield Flooded(governor, origin, *tokens)


def floods(at: Flooded) -> dict[str, Job]:
    port, chunked = at.governor.port, "Transfer-Encoding: chunked\r\n"
    return {
        "denied requests": Job("ask", port, at.request(at.flooder, "/denied/x"), 32),
        "denied requests on many connections": Job("ask", port, at.request(at.flooder, "/denied/x"), 256),
        "garbage": Job("dial", port, "GARBAGE\r\n\r\n", 32, OTHER_ADDRESS),
        "wrong tokens": Job("ask", port, at.request("gov_" + "x" * 43), 32, OTHER_ADDRESS),
        "idle connections": Job("hold", port, "", 900, OTHER_ADDRESS),
        "slow heads": Job("drip", port, "GET http://localhost/ HTTP/1.1\r\nX: " + "y" * 2000, 100, OTHER_ADDRESS),
        "heads without an end": Job("dial", port, "GET http://localhost/ HTTP/1.1\r\nX: " + "y" * 100_000, 32,
                                    OTHER_ADDRESS),
        "tiny chunks": Job("push", port, at.request(at.flooder, more=chunked) + "1\r\nx\r\n", 4),
    }


FLOODS = ["denied requests", "garbage", "wrong tokens", "slow heads", "tiny chunks"]
MORE_FLOODS = ["denied requests on many connections", "idle connections", "heads without an end"]


@pytest.mark.parametrize("flood", FLOODS if EVERYDAY else FLOODS + MORE_FLOODS)
def test_a_flood_costs_the_neighbour_little_and_the_log_less(flooded: Flooded, flood: str) -> None:
    kept: list[float] = []
    while len(kept) < PAIRS:
        alone, began = flooded.alone(), time.monotonic()
        with load.running(floods(flooded)[flood]) as counted:
            time.sleep(1.5 if "many" in flood else 0.5)
            flooding = flooded.throughput()
        decisions, others = flooded.new_entries()
        seconds = time.monotonic() - began
        kept.append(flooding / alone)
        print(f"{flood}: {alone:.0f}/s alone, {flooding:.0f}/s ({kept[-1]:.0%}); {counted}; {others / seconds:.0f} "
              "entries/s of others")

        assert decisions == flooded.asked
        # Twenty of each kind a second, and the counts of the rest.
        assert others <= (seconds + 1) * (2 * PER_SECOND + 5)
    print(f"{flood}: median {median(kept):.0%}")


@pytest.mark.parametrize(("name", "jobs", "most"), [
    pytest.param("idle", [("hold", "", IDLE // 2, OTHER_ADDRESS), ("hold", "", IDLE // 2, THIRD_ADDRESS)],
                 IDLE * IDLE_BYTES, id="2,000 idle connections"),
    pytest.param("heads", [("hold", "GET http://localhost/ HTTP/1.1\r\nX: ", 100, OTHER_ADDRESS)],
                 32 * MIB, id="100 heads of a megabyte"),
    pytest.param("chunks", [("push", "tiny chunks", 8, OTHER_ADDRESS)], 32 * MIB, id="tiny chunks"),
])
def test_memory_stays_bounded_under(flooded: Flooded, name: str, jobs: list[tuple[str, str, int, str]],
                                    most: int) -> None:
    held = Held(flooded.governor.process.pid)
    before = held.forget_peak()
    with contextlib.ExitStack() as running:
        for kind, content, at_once, address in jobs:
            sent = floods(flooded)[content].content if content in floods(flooded) else content
            running.enter_context(load.running(Job(
                kind, flooded.governor.port, sent, at_once, address, padding=MIB if name == "heads" else 0)))
        until = time.monotonic() + 60
        time.sleep(1.0 if EVERYDAY else 5.0)
        while name == "idle" and len(held.descriptors) < IDLE and time.monotonic() < until:
            time.sleep(0.1)
        descriptors, grown = len(held.descriptors), held.peak - before
    print(f"{name}: {grown / MIB:.1f} MiB more, {descriptors} descriptors")

    assert name != "idle" or descriptors >= IDLE
    assert grown < most


def test_connections_that_the_end_meets_are_written_or_counted(tmp_path: Path) -> None:
    count = 2 * PER_SECOND
    with started(tmp_path, POLICY) as governor:
        opened = [wire.dial(governor.port) for _ in range(count)]
        opened[0].sendall(b"GET http://localhost/ HTTP/1.1\r\n")
        # Once this one is answered, those before it have been taken in.
        assert governor.curl("http://gist.example.org/")[0] == 403
        governor.stop()
        for connection in opened:
            connection.close()

        written = governor.entries("connection")
        counted = sum(sum(entry["counts"].values()) for entry in governor.entries("refusals"))
        assert len(written) + counted == count
        assert {entry["result"] for entry in written} == {"no_request"}
        assert governor.verify()["result"] == "verified"

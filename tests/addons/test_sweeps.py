"""Connections on which nothing goes on end after their time; what was let through never does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from mitmproxy.test import tflow

from addons import answer_hooks, client_hooks, request_hooks, sweeps, tunnel_hooks
from addons.connections import ClientConnection
from addons.home import Home
from addons.request_bodies import RequestBodies
from addons.spool import Room
from addons.sweeps import Overdue, overdue
from kernel.facts import Host
from kernel.measures import Cap
from tests.addons.inside import SECONDS, Inside, get, inside, raw_origin, until_closed
from tests.addons.test_heads import connection
from tests.addons.test_request_bodies import post

NOW = 10_000.0


@pytest.fixture
def bodies(tmp_path: Path) -> RequestBodies:
    return RequestBodies(tmp_path, Room())


def held(**fields: object) -> ClientConnection:
    made = ClientConnection("127.0.0.1")
    for name, value in {"since": NOW, "requests": 1, **fields}.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(("fields", "seconds", "how"), [
    pytest.param({"requests": 0}, sweeps.HEAD_SECONDS, Overdue.TIMED_OUT, id="nothing was ever sent"),
    pytest.param({"requests": 0, "redirected_to": (ip_address("192.0.2.1"), 443)}, sweeps.TUNNEL_SECONDS,
                 Overdue.TIMED_OUT, id="a redirected one that waits for its origin to speak"),
    pytest.param({"head_since": NOW}, sweeps.HEAD_SECONDS, Overdue.TIMED_OUT, id="a head that does not end"),
    pytest.param({"handshake_since": NOW}, sweeps.HANDSHAKE_SECONDS, Overdue.TIMED_OUT, id="a handshake"),
    pytest.param({"tunnel": (Host("x.example.org", None), 1)}, sweeps.TUNNEL_SECONDS, Overdue.TIMED_OUT,
                 id="an empty tunnel"),
    pytest.param({"tunnel": (Host("x.example.org", None), 1), "entered": True}, sweeps.IDLE_SECONDS, Overdue.OVER,
                 id="a tunnel at rest"),
    pytest.param({}, sweeps.IDLE_SECONDS, Overdue.OVER, id="an idle connection"),
    pytest.param({"close_at": NOW + 1, "open_flows": {"x"}}, 0.9, Overdue.OVER, id="one that was refused"),
])
def test_each_kind_of_waiting_has_its_time(
        bodies: RequestBodies, fields: dict[str, object], seconds: float, how: Overdue) -> None:
    assert overdue(held(**fields), bodies, NOW + seconds) is None
    assert overdue(held(**fields), bodies, NOW + seconds + 0.2) is how


def test_what_was_let_through_has_all_the_time_it_wants(bodies: RequestBodies) -> None:
    assert overdue(held(open_flows={"x"}, head_since=NOW), bodies, NOW + 1_000_000) is None


def test_a_body_has_its_time_from_its_last_byte(bodies: RequestBodies) -> None:
    flow = tflow.tflow()
    flow.request.timestamp_end = None
    uploading = held(begun={flow.id: flow})
    bodies.expect(flow, "coder-1", Cap(100, None))

    assert overdue(uploading, bodies, NOW) is None
    assert overdue(uploading, bodies, NOW + 50) is None
    bodies.add(flow, b"x")
    assert overdue(uploading, bodies, NOW + 59) is None
    assert overdue(uploading, bodies, NOW + 59 + sweeps.BODY_SECONDS) is None
    assert overdue(uploading, bodies, NOW + 60 + sweeps.BODY_SECONDS) is Overdue.TIMED_OUT


def test_a_request_that_is_whole_or_held_is_not_a_stalled_body(bodies: RequestBodies) -> None:
    whole, paused = tflow.tflow(), tflow.tflow()
    paused.request.timestamp_end = None
    paused.intercept()
    for flow in (whole, paused):
        waiting = held(begun={flow.id: flow})
        overdue(waiting, bodies, NOW)

        assert overdue(waiting, bodies, NOW + 1_000) is None


# On real connections, with a clock that jumps


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (answer_hooks, client_hooks, request_hooks, tunnel_hooks):
        monkeypatch.setattr(module, "monotonic", made)
    return made


async def settled(place: Inside) -> None:
    async with asyncio.timeout(SECONDS):
        while len(place.hooks.clients) == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


@pytest.mark.parametrize(("content", "seconds"), [
    pytest.param(b"", sweeps.HEAD_SECONDS, id="silent"),
    pytest.param(b"GET http://localhost/ HTTP/1.1\r\nX: ", sweeps.HEAD_SECONDS, id="in a head"),
    pytest.param(b"CONNECT localhost:443 HTTP/1.1\r\n\r\n", sweeps.TUNNEL_SECONDS, id="in an empty tunnel"),
    pytest.param(b"CONNECT localhost:443 HTTP/1.1\r\n\r\n\x16\x03\x01\x02\x00", sweeps.HANDSHAKE_SECONDS,
                 id="in a handshake"),
])
async def test_a_client_that_never_goes_on_is_cut_off_and_leaves_an_entry(
        home: Home, clock: Clock, content: bytes, seconds: float) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        writer.write(content)
        await settled(place)
        clock.ahead = seconds - 5
        place.hooks.connections.sweep()
        assert len(place.hooks.clients) > 0
        clock.ahead = seconds + 5
        place.hooks.connections.sweep()
        with contextlib.suppress(ConnectionError):
            await until_closed(reader)

        (entry,) = await place.wait_for("connection")
        assert (entry["result"], entry["code"]) == ("timed_out", None)
        assert place.hooks.rejections.hints() == []


async def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_any_other(home: Home, clock: Clock) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        for _ in range(7):
            writer.write(b"G")
            await settled(place)
            place.hooks.connections.sweep()
            clock.ahead += 5
        with contextlib.suppress(ConnectionError):
            await until_closed(reader)

        assert (await place.wait_for("connection"))[0]["result"] == "timed_out"


async def test_a_body_that_stops_coming_ends_its_connection_and_leaves_a_decision(home: Home, clock: Clock) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, "Content-Length: 10") + b"hello")
        await settled(place)
        place.hooks.connections.sweep()
        clock.ahead = sweeps.BODY_SECONDS + 1
        place.hooks.connections.sweep()
        with contextlib.suppress(ConnectionError):
            await until_closed(reader)

        (entry,) = await place.wait_for("decision")
        assert (entry["code"], entry["reason"]) == ("MALFORMED", "it did not arrive whole")
        await asyncio.sleep(0.1)
        assert place.entries("connection") == []
        assert origin.received == []


async def test_an_idle_connection_is_closed_without_a_word_after_five_minutes(home: Home, clock: Clock) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(get(origin.url).replace(b"Connection: close\r\n", b""))
        await reader.readuntil(b"\r\n\r\nok")
        await asyncio.sleep(0.1)
        clock.ahead = sweeps.IDLE_SECONDS - 5
        place.hooks.connections.sweep()
        assert len(place.hooks.clients) > 0
        clock.ahead = sweeps.IDLE_SECONDS + 5
        place.hooks.connections.sweep()

        assert await until_closed(reader) == b""
        await place.wait_for("outcome")
        assert place.entries("connection") == []


async def test_a_stream_that_says_nothing_for_an_hour_goes_on(home: Home, clock: Clock) -> None:
    going = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with raw_origin(going) as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(get(origin.url))
        await reader.readuntil(b"\r\n\r\n")
        clock.ahead = 3600.0
        place.hooks.connections.sweep()
        await asyncio.sleep(0.1)

        assert not reader.at_eof()
        assert place.entries("outcome") == []


async def test_a_refused_client_that_goes_on_sending_is_cut_off(home: Home, clock: Clock) -> None:
    async with inside(home) as place, connection(place) as (_, writer):
        writer.write(b"GARBAGE\r\n\r\n")
        await place.wait_for("connection")
        clock.ahead = sweeps.LINGER_SECONDS + 1
        place.hooks.connections.sweep()
        async with asyncio.timeout(SECONDS):
            while len(place.hooks.clients):
                await asyncio.sleep(0.01)

        assert len(place.entries("connection")) == 1
        writer.close()

"""What was granted within hours does not outlive them, whether anything passes or not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from addons import websocket_layer
from addons.home import Home
from kernel.hours import told
from tests.addons.inside import inside
from tests.addons.test_limits import events, origin, outcome, policy
from tests.addons.test_request_bodies import connection, first_line, post
from tests.addons.websocket_ends import CLOSE, TEXT, closing, frame, open_websocket


@pytest.fixture(autouse=True)
def nobody_watched() -> Iterator[None]:
    yield
    websocket_layer.install(lambda _: None)


def soon() -> str:
    """A second that is at least one second away."""
    return told(int(time.time()) + 2)


def refused_in_words(event: bytes) -> dict[str, Any]:
    name, _, data = event.partition(b"\n")
    assert name == b"event: error"
    return json.loads(data.removeprefix(b"data: "))


async def test_no_body_is_invited_once_the_hours_are_over(home: Home) -> None:
    async with inside(home, policy=policy("expires: 1970-02-01")) as place, connection(place) as (reader, writer):
        writer.write(post("http://localhost/", "Content-Length: 6", "Expect: 100-continue"))

        assert await first_line(reader) == b"HTTP/1.1 403 Forbidden by Governor: DEFAULT_DENY\r\n"


@pytest.mark.parametrize("pause", [
    pytest.param(0.05, id="while events come"),
    pytest.param(4.0, id="while nothing comes"),
])
async def test_an_event_stream_ends_in_words_with_the_hours_of_its_rule(home: Home, pause: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(int(4 / pause)):
            writer.write(b"data: x\n\n")
            await asyncio.sleep(pause)

    async with origin(answer) as url, inside(home, policy=policy(f"expires: {soon()}")) as place:
        got = (await place.get(url)).partition(b"\r\n\r\n")[2]

        *passed, last = events(got)
        assert set(passed) == {b"data: x"}
        assert refused_in_words(last)["code"] == "OUT_OF_HOURS"
        entry = await outcome(place)
        assert (entry["result"], entry["code"]) == ("cut", "OUT_OF_HOURS")


async def test_a_stream_goes_on_where_another_rule_still_grants_it(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(60):
            writer.write(b"data: x\n\n")
            await asyncio.sleep(0.05)
        writer.close()

    more = policy(f"expires: {soon()}") + policy().partition("rules:\n")[2].replace("local\n", "always\n", 1)
    async with origin(answer) as url, inside(home, policy=more) as place:
        got = (await place.get(url)).partition(b"\r\n\r\n")[2]

        assert events(got) == [b"data: x"] * 60
        assert (await outcome(place))["result"] == "completed"


async def test_a_stream_ends_when_the_hours_of_a_refusal_begin(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
        await asyncio.sleep(4)

    refusing = policy() + f"  - {{deny: later, except: {{methods: any, expires: {soon()}}}}}\n"
    async with origin(answer) as url, inside(home, policy=refusing) as place:
        got = (await place.get(url)).partition(b"\r\n\r\n")[2]

        assert refused_in_words(events(got)[-1])["rule"] == "later"


async def test_an_answer_that_begins_after_the_hours_is_not_passed_on(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(2.1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    async with origin(answer) as url, inside(home, policy=policy(f"expires: {soon()}")) as place:
        got = await place.get(url)

        assert got.startswith(b"HTTP/1.1 403 ")
        assert b"secret" not in got
        assert (await outcome(place))["code"] == "OUT_OF_HOURS"


async def test_a_websocket_closes_with_the_hours_of_its_rule_though_nothing_passes(home: Home) -> None:
    granted = policy("schemes: [ws, wss]", "websocket: {}", f"expires: {soon()}").replace(
        "    schemes: [http, https]\n", "", 1)
    async with inside(home, policy=granted) as place, open_websocket(place, place.outcomes.watch) as opened:
        opened.client.send(frame(TEXT, b"hello"))
        assert await opened.origin.next() == (TEXT, b"hello", True)
        last = await opened.client.next()
        opened.client.send(frame(CLOSE))
        await opened.origin.rest()
        entry = await outcome(place)

        assert last == (CLOSE, closing(1008, f"OUT_OF_HOURS {entry['decision']}".encode()), True)
        assert (entry["result"], entry["code"]) == ("cut", "OUT_OF_HOURS")


async def test_a_request_is_judged_by_the_clock(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with origin(answer) as url, inside(home, policy=policy("expires: 2020-01-01")) as place:
        assert (await place.get(url)).startswith(b"HTTP/1.1 403 ")
        assert [entry["code"] for entry in await place.wait_for("decision")] == ["DEFAULT_DENY"]

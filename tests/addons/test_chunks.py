"""Bodies in tiny chunks: read whole, in turns, whatever comes between them."""

from __future__ import annotations

import asyncio
import time

import pytest

from addons import admission, chunks
from addons.home import Home
from tests.addons.inside import SECONDS, get, inside, raw_origin
from tests.addons.test_heads import connection
from tests.addons.test_request_bodies import chunked, post


@pytest.fixture(autouse=True)
def small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "IN_A_TURN", 10)
    monkeypatch.setattr(admission, "_TURN_SECONDS", 0.02)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 95])
async def test_a_body_in_tiny_chunks_arrives_whole_with_what_follows(home: Home, count: int) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, "Transfer-Encoding: chunked") + chunked(b"x" * count, 1))
        assert (await asyncio.wait_for(reader.readline(), SECONDS)).startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b"ok")

        assert origin.received[0].endswith(b"%x\r\n%s\r\n0\r\n\r\n" % (count, b"x" * count))
        writer.write(get(origin.url))
        assert (await asyncio.wait_for(reader.readline(), SECONDS)).startswith(b"HTTP/1.1 200 ")


async def test_tiny_chunks_wait_for_their_turn(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        began = time.monotonic()
        answer = await place.ask(get(origin.url, "Transfer-Encoding: chunked", method="POST") + chunked(b"x" * 100, 1))

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began > 9 * 0.02


async def test_a_body_in_tiny_chunks_that_never_ends_leaves_its_entry(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 35)
        writer.write_eof()

        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        assert (await place.wait_for("decision"))[0]["code"] == "MALFORMED"
        assert origin.received == []


async def test_trailers_behind_tiny_chunks_are_seen(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        body = chunked(b"x" * 30, 1)[:-2] + b"X: y\r\n\r\n"
        answer = await place.ask(get(origin.url, "Transfer-Encoding: chunked", method="POST") + body)

        assert answer.startswith(b"HTTP/1.1 403 Forbidden by Governor: TRAILERS\r\n")


# Answers


ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("count", [1, 9, 10, 11, 95])
async def test_an_answer_in_tiny_chunks_arrives_whole_and_in_turns(home: Home, count: int) -> None:
    async with (raw_origin(ANSWER + chunked(b"x" * count, 1)) as origin, inside(home) as place,
                connection(place) as (reader, writer)):
        for _ in range(2):
            began = time.monotonic()
            writer.write(post(origin.url, "Content-Length: 0"))
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), SECONDS)

            assert answer.count(b"x") == count
            assert time.monotonic() - began > (count - 1) // 10 * 0.02
        assert len(origin.received) == 1


async def test_an_answer_in_tiny_chunks_that_breaks_off_does_not_look_complete(home: Home) -> None:
    async def leave(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with raw_origin(ANSWER + b"1\r\nx\r\n" * 35, leave) as origin, inside(home) as place:
        answer = await place.get(origin.url)

        assert answer.partition(b"\r\n\r\n")[2].count(b"x") == 35
        assert not answer.endswith(b"0\r\n\r\n")
        assert (await place.wait_for("outcome"))[0]["result"] == "failed"

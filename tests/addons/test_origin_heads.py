"""What comes before an answer, and what never becomes one."""

from __future__ import annotations

import asyncio
import re

import pytest

from addons import backlog, origin_heads
from addons.home import Home
from tests.addons.inside import get, inside, raw_origin
from tests.addons.test_limits import origin, outcome

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("before", [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 2000,
    pytest.param(b"HTTP/1.1  1_02 x\r\n\r\n", id="a number that mitmproxy reads as 102"),
])
async def test_an_informational_answer_is_not_the_answer(home: Home, before: bytes) -> None:
    async with raw_origin(before + OK) as raw, inside(home) as place:
        assert await place.get(raw.url) == OK
        assert (await outcome(place))["status"] == 200


@pytest.mark.parametrize(("sent", "passed"), [
    (b"HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK \r\nContent-Length: 2\r\n\r\nok"),
    (b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 O K\r\nContent-Length: 2\r\n\r\nok"),
    (b"HTTP/1.1 200 OK\r\nA: b\r\rHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
     b"HTTP/1.1 200 OK\r\nA: b HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nContent-Length: 2\r\n\r\nok",
     b"HTTP/1.1 200 OK\r\nA: b c\r\nContent-Length: 2\r\n\r\nok"),
    (b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 2\r\n\r\nok",
     b"HTTP/1.1 200 OK\r\nA: b c\r\nContent-Length: 2\r\n\r\nok"),
], ids=["after the reason", "in the reason", "in a value", "a folded line", "NUL"])
async def test_no_character_of_a_head_ends_a_line_early(home: Home, sent: bytes, passed: bytes) -> None:
    async with raw_origin(sent) as raw, inside(home) as place:
        assert await place.get(raw.url) == passed


async def test_informational_answers_in_pieces_are_read_like_whole_ones(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + OK:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)

    async with origin(answer) as url, inside(home) as place:
        assert await place.get(url) == OK


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 100 Continue\r\nA: "])
async def test_a_head_that_does_not_end_ends_the_exchange(home: Home, start: bytes) -> None:
    async with raw_origin(start + b"a" * (origin_heads.MOST_BYTES + 1)) as raw, inside(home) as place:
        answer = await place.get(raw.url)

        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway by Governor: ORIGIN_FAILED\r\n")
        assert (await outcome(place))["result"] == "failed"


@pytest.mark.parametrize("lines", [b"5;" + b"x" * 70_000, b"2\r\nok\r\n0\r\n" + b"x" * 70_000])
async def test_lines_of_a_chunked_answer_that_do_not_end_end_the_exchange(home: Home, lines: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with raw_origin(head + lines) as raw, inside(home) as place:
        assert not (await place.get(raw.url)).endswith(b"0\r\n\r\n")
        assert (await outcome(place))["result"] == "failed"


async def test_a_client_that_sends_on_without_end_while_it_waits_is_cut_off(home: Home) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with origin(never) as url, inside(home) as place:
        head = get(url).replace(b"Connection: close\r\n", b"")
        assert await place.ask(head + bytes(backlog.MOST_BYTES + 200_000)) == b""
        assert (await outcome(place))["result"] == "aborted"


async def test_requests_that_are_sent_at_once_are_answered_in_turn(home: Home) -> None:
    async with raw_origin() as raw, inside(home) as place:
        head = get(raw.url).replace(b"Connection: close\r\n", b"")
        denied = get("http://localhost/denied/x").replace(b"Connection: close\r\n", b"")
        answer = await place.ask(head + denied + get(raw.url))

        assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"403", b"200"]

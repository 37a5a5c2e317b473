"""What is no request: answered in Governor's words, written down, and never kept for longer than it may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from addons import heads
from addons.first_bytes import Speaks, spoken
from addons.home import Home
from tests.addons.inside import SECONDS, Inside, get, inside, raw_origin, until_closed

FIELDS = {"type", "title", "status", "detail", "verdict", "code", "rule", "agent", "flow", "entry", "next_step",
          "error"}


def parts(answer: bytes) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The status line, the headers and the problem of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return status, headers, json.loads(body)


@asynccontextmanager
async def connection(place: Inside) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    try:
        yield reader, writer
    finally:
        writer.close()


NO_REQUESTS = [
    pytest.param(b"GARBAGE\r\n\r\n", id="one word"),
    pytest.param(b"\x00\x01\x02\x03", id="bytes"),
    pytest.param(b"SSH-2.0-OpenSSH_9.6 Debian\r\n", id="SSH"),
    pytest.param(b"GET http://localhost/\r\n\r\n", id="no version"),
    pytest.param(b"GET http://exa mple.org/ HTTP/1.1\r\n\r\n", id="a blank in the URL"),
    pytest.param(b"GET http://user@localhost\\@x/ HTTP/1.1\r\n\r\n", id="an invalid host"),
    pytest.param(b"GET http://localhost/ HTTP/1.1\r\n folded: first\r\n\r\n", id="a continued line first"),
    pytest.param(b"GET http://localhost/ HTTP/1.1\r\nno colon\r\n\r\n", id="a header without a colon"),
    pytest.param(b"CONNECT localhost HTTP/1.1\r\n\r\n", id="CONNECT without a port"),
    pytest.param(b"\r\n" * 100, id="blank lines"),
]


@pytest.mark.parametrize("content", NO_REQUESTS)
async def test_what_is_no_request_is_told_so_and_leaves_an_entry(home: Home, content: bytes) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        for at in range(0, len(content), max(1, len(content) // 2)):
            writer.write(content[at:at + max(1, len(content) // 2)])
            await asyncio.sleep(0.02)
        status, headers, problem = parts(await until_closed(reader))

        assert status == "HTTP/1.1 400 Bad Request by Governor: MALFORMED"
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-governor-code"] == "MALFORMED"
        assert set(problem) == FIELDS
        (entry,) = await place.wait_for("connection")
        assert (entry["client"], entry["result"], entry["code"]) == ("127.0.0.1", "malformed", "MALFORMED")
        assert headers["x-governor-entry"] == problem["entry"] == f"main/{entry['seq']}"


MALFORMED = [
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", "it names no destination", id="no Host"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", "it names no destination", id="a Host that is none"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it names no destination", id="HTTP/2 by prior knowledge"),
    pytest.param(b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: ten\r\n\r\n", heads._BAD_FIELDS, id="a bad length"),
    pytest.param(b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                 heads._BAD_FIELDS, id="two lengths"),
    pytest.param(b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                 heads._BAD_FIELDS, id="a length and chunks"),
    pytest.param(b"POST %s HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: mine\r\n\r\n", heads._BAD_FIELDS,
                 id="an unknown coding"),
    pytest.param(b"GET %s HTTP/1.1\r\nHost : %s\r\n\r\n", heads._BAD_FIELDS, id="a blank before the colon"),
    pytest.param(b"GET %s HTTP/1.1\r\nHost: %s\r\nX\0Y: z\r\n\r\n", heads._BAD_FIELDS, id="a NUL in a name"),
    pytest.param(b"GET ftp://localhost:21/ HTTP/1.1\r\nHost: localhost\r\n\r\n", heads._BAD_SCHEME, id="ftp"),
    pytest.param(b"GET %s HTTP/1.1\r\nHost: %s\r\n" + b"a: b\r\n" * heads.MOST_FIELDS + b"\r\n", heads.TOO_MANY,
                 id="many fields"),
]


@pytest.mark.parametrize(("content", "reason"), MALFORMED)
async def test_a_request_without_one_reading_is_told_why_and_leaves_a_decision(
        home: Home, content: bytes, reason: str) -> None:
    async with raw_origin() as origin, inside(home) as place:
        if b"%s" in content:
            content = content % (origin.url.encode(), f"localhost:{origin.port}".encode())
        status, headers, problem = parts(await asyncio.wait_for(place.ask(content), SECONDS))

        assert status == "HTTP/1.1 400 Bad Request by Governor: MALFORMED"
        assert problem["detail"].endswith(f": {reason}")
        (entry,) = await place.wait_for("decision")
        assert (entry["verdict"], entry["code"], entry["reason"]) == ("deny", "MALFORMED", reason)
        assert headers["x-governor-entry"] == f"main/{entry['seq']}"
        await asyncio.sleep(0.2)
        assert place.entries("connection") == []
        assert origin.received == []


@pytest.mark.parametrize("pieces", [1, 10])
async def test_a_head_larger_than_64_kib_is_refused(home: Home, pieces: int) -> None:
    head = get("http://localhost/", "X: " + "y" * heads.MOST_BYTES)
    async with inside(home) as place, connection(place) as (reader, writer):
        for at in range(0, len(head), len(head) // pieces):
            writer.write(head[at:at + len(head) // pieces])
            await asyncio.sleep(0)
        status, _, problem = parts(await until_closed(reader))

        assert status.startswith("HTTP/1.1 400 ")
        assert problem["detail"] == "Governor refused a connection: headers larger than 64 KiB"


async def test_a_head_of_almost_64_kib_passes_with_its_body_and_the_request_behind_it(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        room = heads.MOST_BYTES - len(get(origin.url, "Content-Length: 70000", "X: ", method="POST"))
        large = get(origin.url, "Content-Length: 70000", "X: " + "y" * room, method="POST").replace(
            b"Connection: close\r\n", b"")
        answer = await place.ask(large + bytes(70000) + get(origin.url))

        assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_a_blank_line_before_a_request_is_skipped(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        assert (await place.ask(b"\r\n\r\n" + get(origin.url))).startswith(b"HTTP/1.1 200 ")


async def test_bytes_after_a_refused_head_are_read_and_forgotten(home: Home) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        writer.write(b"GARBAGE\r\n\r\n" + get("http://localhost/denied/x"))
        answer = await until_closed(reader)
        writer.write(get("http://localhost/denied/x"))
        await asyncio.sleep(0.2)

        assert answer.count(b"\r\ncache-control") == 1
        assert place.entries("decision") == []


async def test_no_word_of_a_malformed_request_is_in_its_answer_or_in_the_log(home: Home) -> None:
    async with inside(home) as place:
        answers = [await place.ask(content) for content in (
            b"GET http://localhost/?token=s3cret\r\n\r\n",
            b"GET http://localhost/?token=s3cret HTTP/1.1\r\nA : s3cret\r\n\r\n")]
        await place.wait_for("connection")
        await place.wait_for("decision")

        assert b"s3cret" not in b"".join(answers)
        assert b"s3cret" not in (home.paths.lane("main") / "000000.jsonl").read_bytes()


@pytest.mark.parametrize(("data", "what"), [
    (b"", Speaks.UNDECIDED), (b"G", Speaks.UNDECIDED), (b"GET", Speaks.UNDECIDED), (b"GET /", Speaks.HTTP),
    (b"\r\nGET /", Speaks.HTTP), (b"\r\n", Speaks.UNDECIDED), (b"\r\n" * 40, Speaks.HTTP),
    (b"\x16", Speaks.UNDECIDED), (b"\x16\x03", Speaks.UNDECIDED), (b"\x16\x03\x01", Speaks.TLS),
    (b"\x16\x04", Speaks.NEITHER), (b"SSH-2.0-x y\r\n", Speaks.NEITHER), (b"\x00", Speaks.NEITHER),
    (b"x" * 33, Speaks.NEITHER), (b"EHLO\r\n", Speaks.NEITHER), (b"PRI * HTTP/2.0\r\n", Speaks.HTTP),
])
def test_the_first_bytes_tell_what_is_spoken(data: bytes, what: Speaks) -> None:
    assert spoken(data) is what

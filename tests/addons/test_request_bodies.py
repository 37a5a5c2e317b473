"""Bodies before their verdict: read no further than allowed, answered once they are refused, sent as they came."""

from __future__ import annotations

import asyncio
import hashlib
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from addons import policy_store
from addons.home import Home
from addons.spool import IN_MEMORY_BYTES, Body, Room
from tests.addons.inside import POLICY, SECONDS, Inside, get, inside, raw_origin

CONTINUE = b"HTTP/1.1 100 "


@asynccontextmanager
async def connection(place: Inside) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def first_line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(SECONDS):
        return await reader.readline()


def post(url: str, *headers: str) -> bytes:
    return get(url, *headers, method="POST").replace(b"Connection: close\r\n", b"")


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at:at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# Refused before the body


@pytest.mark.parametrize("framing", ["Content-Length: 6", "Transfer-Encoding: chunked"])
async def test_no_body_is_invited_to_a_destination_that_is_refused(home: Home, framing: str) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        writer.write(post("http://localhost/denied/x", framing, "Expect: 100-continue"))

        assert await first_line(reader) == b"HTTP/1.1 403 Forbidden by Governor: DEFAULT_DENY\r\n"
        (decision,) = await place.wait_for("decision")
        assert (decision["verdict"], decision["code"]) == ("deny", "DEFAULT_DENY")


async def test_a_body_is_invited_where_the_request_may_pass(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, "Content-Length: 6", "Expect: 100-continue"))
        invited = await first_line(reader)
        await reader.readline()
        writer.write(b"secret")

        assert invited.startswith(CONTINUE)
        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"
        assert origin.received[0].endswith(b"\r\n\r\nsecret")


async def test_after_a_short_body_that_was_refused_the_connection_goes_on(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(post("http://localhost/denied/x", "Content-Length: 6") + b"secret")
        refused = await reader.readuntil(b"\r\n\r\n")
        length = int(refused.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(get(origin.url))

        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"
        assert b"secret" not in b"".join(origin.received)


async def test_after_a_long_body_that_was_refused_the_connection_ends(home: Home) -> None:
    async with inside(home) as place:
        answer = await place.ask(post("http://localhost/denied/x", "Content-Length: 1000000") + noise(1_000_000))

        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert answer.startswith(b"HTTP/1.1 403 ")


# Too large


async def test_a_length_over_the_limit_is_refused_before_the_body(home: Home) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        writer.write(post("http://localhost/", f"Content-Length: {16 * 2**20 + 1}", "Expect: 100-continue"))

        assert await first_line(reader) == b"HTTP/1.1 413 Content Too Large by Governor: BODY_TOO_LARGE\r\n"
        assert (await place.wait_for("decision"))[0]["code"] == "BODY_TOO_LARGE"


async def test_a_body_that_grows_over_the_limit_is_refused_while_it_comes(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, "Transfer-Encoding: chunked"))
        piece = b"%x\r\n%s\r\n" % (2**20, bytes(2**20))
        for _ in range(17):
            writer.write(piece)
            await writer.drain()

        assert await first_line(reader) == b"HTTP/1.1 413 Content Too Large by Governor: BODY_TOO_LARGE\r\n"
        assert (await place.wait_for("decision"))[0]["code"] == "BODY_TOO_LARGE"
        assert origin.received == []
        assert list(home.paths.folder.glob("tmp*")) == []


async def test_where_there_is_no_room_for_a_body_its_client_is_told_to_wait(home: Home) -> None:
    async with inside(home) as place, connection(place) as (reader, writer):
        place.bodies._room = Room(4 * 1000)
        writer.write(post("http://localhost/", "Content-Length: 2000") + bytes(2000))

        assert await first_line(reader) == b"HTTP/1.1 503 Service Unavailable by Governor: BUSY\r\n"
        assert (await place.wait_for("decision"))[0]["code"] == "BUSY"
        assert place.bodies._room.held_bytes == 0


async def test_a_disk_that_takes_no_body_refuses_the_request(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        place.bodies._folder = Path("/nowhere")
        answer = await place.ask(post(origin.url, "Content-Length: 2000000") + bytes(2_000_000))

        assert origin.received == []
        assert not answer.startswith(b"HTTP/1.1 2")


# Sent as they came


@pytest.mark.parametrize("size", [1, 65536, IN_MEMORY_BYTES, IN_MEMORY_BYTES + 1, 5_000_000])
@pytest.mark.parametrize("framed", ["length", "chunks"])
async def test_a_body_of_any_length_arrives_as_it_was_sent(home: Home, size: int, framed: str) -> None:
    body, got = noise(size), asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        digest = hashlib.sha256()
        if b"content-length" in head.lower():
            digest.update(await reader.readexactly(size))
        else:
            while length := int(await reader.readline(), 16):
                digest.update(await reader.readexactly(length))
                await reader.readline()
        got.set_result(digest.hexdigest())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://localhost:{server.sockets[0].getsockname()[1]}/"
    async with server, inside(home) as place, connection(place) as (reader, writer):
        if framed == "length":
            writer.write(post(url, f"Content-Length: {size}") + body)
        else:
            writer.write(post(url, "Transfer-Encoding: chunked") + chunked(body, 300_000))

        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"
        assert await got == hashlib.sha256(body).hexdigest()
        (outcome,) = await place.wait_for("outcome")
        assert (outcome["result"], outcome["bytes_up"]) == ("completed", size)
        assert place.entries("decision")[0]["in"]["body_bytes"] == size
        assert place.bodies._room.held_bytes == 0


async def test_another_addons_body_takes_the_place_of_a_long_one(home: Home) -> None:
    class Replacing:
        def request(self, flow: object) -> None:
            flow.request.content = b"mine"  # type: ignore[attr-defined]

    async with raw_origin() as origin, inside(home, Replacing()) as place:
        body = bytes(2_000_000)
        async with connection(place) as (reader, writer):
            writer.write(post(origin.url, f"Content-Length: {len(body)}") + body)

            assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"
        assert origin.received[0].endswith(b"\r\n\r\nmine")
        assert place.entries("decision")[0]["in"]["body_bytes"] == 4


async def test_a_client_that_leaves_during_its_body_leaves_no_room_taken(home: Home) -> None:
    async with inside(home) as place:
        async with connection(place) as (_, writer):
            writer.write(post("http://localhost/", "Content-Length: 3000000") + bytes(2_000_000))
            async with asyncio.timeout(SECONDS):
                while place.bodies._room.held_bytes < 2_000_000:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(SECONDS):
            while place.bodies._room.held_bytes:
                await asyncio.sleep(0.01)

        assert [entry["code"] for entry in await place.wait_for("decision")] == ["MALFORMED"]


# The spool


def test_a_long_body_lies_in_a_file_without_a_name(tmp_path: Path) -> None:
    body = Body(tmp_path, Room(), "a")
    content = noise(3_000_000)
    for at in range(0, len(content), 65536):
        assert body.write(content[at:at + 65536])

    assert body.spooled
    assert list(tmp_path.iterdir()) == []
    assert b"".join(body.chunks()) == content
    assert body.content == b""


def test_one_owner_has_a_quarter_of_the_room(tmp_path: Path) -> None:
    room = Room(4000)
    greedy, modest = Body(tmp_path, room, "greedy"), Body(tmp_path, room, "modest")

    assert greedy.write(bytes(1000))
    assert not greedy.write(b"1")
    assert modest.write(bytes(1000))
    greedy.close()
    greedy.close()
    assert room.held_bytes == 1000


def test_one_owner_has_no_more_bodies_than_are_allowed(tmp_path: Path) -> None:
    room = Room(bodies_each=2)
    first, second, third, others = (Body(tmp_path, room, owner) for owner in ("a", "a", "a", "b"))

    assert [first.write(b"x"), second.write(b"x"), third.write(b"x"), others.write(b"x")] == [True, True, False, True]
    first.close()
    assert third.write(b"x")


def test_where_many_bodies_wait_they_wait_on_disk(tmp_path: Path) -> None:
    room = Room()
    bodies = [Body(tmp_path, room, f"agent-{number % 8}") for number in range(400)]
    for body in bodies:
        for _ in range(8):
            assert body.write(bytes(65536))

    assert room.memory_bytes < 100 * 2**20
    assert room.held_bytes == 400 * 8 * 65536
    assert b"".join(bodies[-1].chunks()) == bytes(8 * 65536)
    for body in bodies:
        body.close()
    assert (room.memory_bytes, room.held_bytes) == (0, 0)


def test_tiny_pieces_take_little_more_memory_than_their_bytes(tmp_path: Path) -> None:
    tracemalloc.start()
    body = Body(tmp_path, Room(), "a")
    for _ in range(100_000):
        body.write(b"x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert body.size == 100_000
    assert peak < 4 * body.size


async def test_a_body_is_refused_by_the_policy_that_set_its_limit_when_another_has_come_since(
    home: Home, tmp_path: Path
) -> None:
    limit = "limits:\n  - {max-request: 10}\n"
    changed = tmp_path / "changed.yaml"
    changed.write_text(POLICY)
    async with inside(home, policy=POLICY + limit) as place, connection(place) as (reader, writer):
        before = place.governed
        writer.write(post("http://localhost:1/x", "Transfer-Encoding: chunked", "Expect: 100-continue"))
        assert (await first_line(reader)).startswith(CONTINUE)
        place.governed = policy_store.first([changed], home.paths, place.registry)
        writer.write(chunked(b"x" * 11, 11))
        (decision,) = await place.wait_for("decision")

    assert (decision["code"], decision["rule"]) == ("BODY_TOO_LARGE", "limits-1")
    assert decision["policy"] == before.policy.digest != place.governed.policy.digest

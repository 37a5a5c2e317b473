"""An orderly end: who is under way finishes, who is not is let go, and what stays open ends in words."""

from __future__ import annotations

import asyncio
import socket

import pytest

from addons.draining import drain
from tests.addons.inside import get, inside, raw_origin, until_closed

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n"


async def test_a_stream_that_does_not_end_in_time_ends_in_words(home):
    async with inside(home) as place, raw_origin(EVENTS, then=lambda _: asyncio.sleep(30)) as origin:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(get(f"{origin.url}/events"))
        begun = await reader.readuntil(b"data: one\n\n")
        await drain(place.hooks, place.outcomes, 0.3)
        rest = await until_closed(reader)
        writer.close()
        (outcome,) = await place.wait_for("outcome")

    assert b"200 OK" in begun
    assert b"event: error" in rest
    assert b"Governor is being stopped" in rest
    assert (outcome["result"], outcome["code"]) == ("cut", "BUSY")


async def test_an_upload_that_ends_in_time_has_its_answer_and_nobody_new_comes_in(home):
    async with inside(home) as place, raw_origin() as origin:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        head, _, _ = get(f"{origin.url}/up", "Content-Length: 4", method="POST").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n12")
        await writer.drain()
        while not any(connection.begun for _, connection in place.hooks.clients.items()):
            await asyncio.sleep(0.01)
        draining = asyncio.create_task(drain(place.hooks, place.outcomes, 5))
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(b"34")
        answered = await until_closed(reader)
        writer.close()
        await draining

    assert b"200 OK" in answered
    assert origin.received[0].endswith(b"1234")


async def test_an_upload_whose_verdict_takes_its_time_has_its_answer(home):
    async def asked(name: str) -> list[str]:
        await asyncio.sleep(1)
        return ["127.0.0.1"]

    async with inside(home) as place, raw_origin() as origin:
        place.resolver._ask = asked
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        head, _, _ = get(f"{origin.url}/up", "Content-Length: 4", method="POST").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n12")
        await writer.drain()
        draining = asyncio.create_task(drain(place.hooks, place.outcomes, 5))
        await asyncio.sleep(0.7)
        writer.write(b"34")
        answered = await until_closed(reader)
        writer.close()
        await draining

    assert b"200 OK" in answered


async def test_a_client_that_has_not_read_its_answer_is_waited_for(home):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    async with inside(home) as place, raw_origin(answer) as origin:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", place.port))
        while not len(place.hooks.clients):
            await asyncio.sleep(0.01)
        ((handler, _),) = place.hooks.clients.items()
        writer = handler.transports[handler.client].writer
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.sendall(get(f"{origin.url}/long").replace(b"Connection: close\r\n", b""))
        await place.wait_for("outcome")
        assert writer.transport.get_write_buffer_size() > 0
        await drain(place.hooks, place.outcomes, 1)

        assert len(place.hooks.clients) == 1
        client.close()


async def test_a_client_with_nothing_under_way_is_let_go(home):
    async with inside(home) as place, raw_origin() as origin:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(get(f"{origin.url}/one").replace(b"Connection: close\r\n", b""))
        await reader.readuntil(b"\r\n\r\nok")
        async with asyncio.timeout(4):
            await drain(place.hooks, place.outcomes, 60)
        assert await until_closed(reader) == b""
        writer.close()

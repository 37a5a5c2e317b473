"""A policy grants WebSockets, or none: judged before the upgrade, governed after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from addons import websocket_layer
from addons.home import Home
from tests.addons.inside import HTTP_ALONE, get, inside, raw_origin
from tests.addons.websocket_ends import CLOSE, KEY, TEXT, closing, frame, open_websocket

GRANTED = HTTP_ALONE + """\
  - allow: talk
    to: [localhost]
    address: 127.0.0.0/8
    ports: 1-65535
    schemes: [ws, wss]
    methods: any
    paths: ["/"]
    websocket: {max-frame: 100, max-rate: 3/hour}
"""
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
ASKED = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")


@pytest.fixture(autouse=True)
def nobody_watched() -> Iterator[None]:
    yield
    websocket_layer.install(lambda _: None)


def switching(*fields: bytes) -> bytes:
    return b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(fields) + b"\r\nhello"


async def test_a_granted_websocket_is_written_down_and_governed(home: Home) -> None:
    async with inside(home, policy=GRANTED) as place, open_websocket(place, place.outcomes.watch) as opened:
        opened.client.send(frame(TEXT, b"hello"))
        assert await opened.origin.next() == (TEXT, b"hello", True)
        opened.client.send(frame(TEXT, b"x" * 101))
        told = await opened.client.next()
        opened.client.send(frame(CLOSE))
        await opened.origin.rest()
        (decision,), (outcome,) = await place.wait_for("decision"), await place.wait_for("outcome")

        assert (decision["verdict"], decision["rule"], decision["in"]["scheme"]) == ("allow", "talk", "ws")
        assert told == (CLOSE, closing(1008, f"BODY_TOO_LARGE {outcome['decision']}".encode()), True)
        assert (outcome["result"], outcome["status"], outcome["code"]) == ("cut", 101, "BODY_TOO_LARGE")
        assert outcome["bytes_up"] == 5 + 6


async def test_a_websocket_that_closes_is_completed(home: Home) -> None:
    async with inside(home, policy=GRANTED) as place, open_websocket(place, place.outcomes.watch) as opened:
        opened.client.send(frame(CLOSE, closing(1000)))
        await opened.origin.next()
        opened.origin.send(frame(CLOSE, closing(1000), masked=False))
        await opened.client.rest()
        (outcome,) = await place.wait_for("outcome")

        assert (outcome["result"], outcome["status"], outcome["code"]) == ("completed", 101, None)


@pytest.mark.parametrize(("policy", "headers", "code"), [
    pytest.param(HTTP_ALONE, ASKED, "UPGRADE_REFUSED", id="no grant of WebSockets"),
    pytest.param(GRANTED, ("Connection: Upgrade", "Upgrade: h2c"), "UPGRADE_REFUSED", id="another protocol"),
    pytest.param(GRANTED, (*ASKED, "Upgrade: foo"), "UPGRADE_REFUSED", id="a second protocol"),
    pytest.param(GRANTED, (*ASKED[:2], "Sec-WebSocket-Version: 8", ASKED[3]), "UPGRADE_REFUSED", id="another version"),
])
async def test_an_upgrade_without_a_grant_never_reaches_its_origin(
        home: Home, policy: str, headers: tuple[str, ...], code: str) -> None:
    async with raw_origin() as origin, inside(home, policy=policy) as place:
        answer = await place.get(f"{origin.url}/", *headers)

        assert f"Forbidden by Governor: {code}".encode() in answer
        assert origin.received == []


@pytest.mark.parametrize("answer", [
    pytest.param(switching(b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n"), id="no proof"),
    pytest.param(switching(b"Upgrade: foo\r\n", b"Connection: Upgrade\r\n", ACCEPT), id="another protocol"),
    pytest.param(switching(b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", ACCEPT,
                           b"Sec-WebSocket-Extensions: permessage-deflate\r\n"), id="an extension"),
])
async def test_an_origin_that_answers_with_another_protocol_is_cut_off(home: Home, answer: bytes) -> None:
    async with raw_origin(answer) as origin, inside(home, policy=GRANTED) as place:
        websocket_layer.install(place.outcomes.watch)
        request = get(f"{origin.url}/", *ASKED).replace(b"Connection: close\r\n", b"")
        assert await place.ask(request) == b""
        (outcome,) = await place.wait_for("outcome")

        assert (outcome["result"], outcome["code"]) == ("cut", "UPGRADE_REFUSED")


async def test_a_plain_request_may_not_be_answered_with_a_websocket(home: Home) -> None:
    async with raw_origin(switching(b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", ACCEPT)) as origin, \
            inside(home, policy=GRANTED) as place:
        websocket_layer.install(place.outcomes.watch)

        assert await place.get(f"{origin.url}/", *ASKED[2:]) == b""


async def test_an_origin_may_decline(home: Home) -> None:
    async with raw_origin() as origin, inside(home, policy=GRANTED) as place:
        request = get(f"{origin.url}/", *ASKED, "Sec-WebSocket-Extensions: permessage-deflate")
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(request.replace(b"Connection: close\r\n", b""))

        assert await reader.readuntil(b"\r\n\r\nok")
        assert b"xtensions" not in origin.received[0]
        assert b"Upgrade: websocket\r\n" in origin.received[0]
        writer.close()

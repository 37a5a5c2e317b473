"""Governed WebSockets through a real proxy: what passes, what is cut, and in which words."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy import ctx, http

from addons import websocket_layer
from addons.home import Home
from kernel.measures import Rate, WebSocketMeasures
from kernel.verdict import Code
from tests.addons.inside import SECONDS, Inside, inside, raw_origin
from tests.addons.websocket_ends import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Opened,
    Watching,
    closing,
    data_of,
    fragments,
    frame,
    open_websocket,
)
from tests.conftest import scaled

SECRET = b"s3cret-0123456789"
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"


@pytest.fixture(autouse=True)
def no_watch_stays() -> Iterator[None]:
    yield
    websocket_layer.install(lambda _: None)


def flow_of(place: Inside) -> http.HTTPFlow:
    (opened,) = place.outcomes._open.values()
    return opened.flow


async def refused(opened: Opened) -> tuple[int, bytes]:
    """The code and reason in which the client is told; both connections end after it, and the origin got no message."""
    told = await opened.client.next()
    assert told is not None
    assert told[0] == CLOSE
    opened.client.send(frame(CLOSE, told[1]))
    # What it sends can be the inside of a frame that never ends.
    opened.client.writer.write_eof()
    assert await opened.client.rest() == []
    assert data_of(await opened.origin.rest()) == []
    return int.from_bytes(told[1][:2]), told[1][2:]


class Acting:
    """An addon that does something to each message."""

    def __init__(self, act: Any) -> None:
        self._act, self.flows = act, []

    def websocket_message(self, flow: http.HTTPFlow) -> Any:
        self.flows.append(flow)
        return self._act(flow)


# What passes


@pytest.mark.parametrize("parts", [
    pytest.param([b"hello"], id="one frame"),
    pytest.param([b""], id="empty"),
    pytest.param([b"he", b"", b"llo", b""], id="fragments, some empty"),
    pytest.param(["é€".encode()[:1], "é€".encode()[1:3], "é€".encode()[3:]], id="fragments within a character"),
    pytest.param([b"x" * 70_000, b"y" * 300], id="long ones"),
])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
async def test_messages_arrive_as_they_were_sent_in_both_directions(home: Home, kind: int, parts: list[bytes]) -> None:
    expected = [(CONTINUATION if number else kind, part, number == len(parts) - 1) for number, part in enumerate(parts)]
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(fragments(kind, parts))
        opened.origin.send(fragments(kind, parts, masked=False))

        assert [await opened.origin.next() for _ in parts] == expected
        assert [await opened.client.next() for _ in parts] == expected


async def test_any_fragments_arrive_unchanged_and_no_control_payload_of_the_client_does(home: Home) -> None:
    chosen, sent, content = random.Random(5), [], b""
    for _ in range(scaled(60)):
        parts = [chosen.randbytes(chosen.choice((0, 1, 5, 125, 126, 2000))) for _ in range(chosen.randint(1, 6))]
        for number, part in enumerate(parts):
            one = (CONTINUATION if number else BINARY, part, number == len(parts) - 1)
            sent.append(one)
            content += frame(one[0], part, final=one[2])
            if chosen.random() < 0.3:
                content += frame(chosen.choice((PING, PONG)), SECRET)
    content += frame(CLOSE, closing(4321, SECRET))
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        while content:
            cut = chosen.randint(1, 3000)
            opened.client.send(content[:cut])
            content = content[cut:]
            await asyncio.sleep(0)
        while (got := await opened.origin.next()) is not None and got[0] != CLOSE:
            continue

    received = opened.origin.frames.got
    assert data_of(received) == sent
    assert {one for one in received if one[0] >= CLOSE} == {(PING, b"", True), (CLOSE, closing(4321), True)}


async def test_a_websocket_in_a_tunnel_without_tls_passes(home: Home) -> None:
    async with inside(home) as place, open_websocket(place, Watching(), tunnel=True) as opened:
        opened.client.send(frame(PING, SECRET), frame(TEXT, b"hello"))

        assert [await opened.origin.next() for _ in range(2)] == [(PING, b"", True), (TEXT, b"hello", True)]


async def test_what_the_origin_sends_together_with_its_answer_passes(home: Home) -> None:
    async with inside(home) as place, open_websocket(
            place, Watching(), with_answer=frame(TEXT, b"first", masked=False)) as opened:
        assert await opened.client.next() == (TEXT, b"first", True)


async def test_a_ping_is_answered_where_it_arrives_and_passed_on_empty(home: Home) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(PING, SECRET))
        assert await opened.client.next() == (PONG, SECRET, True)
        assert await opened.origin.next() == (PING, b"", True)

        opened.origin.send(frame(PONG, masked=False), frame(PING, b"theirs", masked=False))
        assert await opened.origin.next() == (PONG, b"theirs", True)
        assert await opened.client.next() == (PING, b"", True)


async def test_a_client_closes_with_its_code_and_without_its_reason(home: Home) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(CLOSE, closing(4321, SECRET)))
        assert await opened.origin.next() == (CLOSE, closing(4321), True)
        opened.origin.send(frame(TEXT, b"last words", masked=False), frame(CLOSE, closing(1000, b"bye"), masked=False))

        assert await opened.client.rest() == [(TEXT, b"last words", True), (CLOSE, closing(1000, b"bye"), True)]
        assert await opened.origin.rest() == []


async def test_a_close_without_a_code_stays_without_one(home: Home) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.origin.send(frame(CLOSE, masked=False))

        assert await opened.client.next() == (CLOSE, b"", True)


async def test_an_end_that_never_answers_a_close_is_not_waited_for(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_layer, "_CLOSING_SECONDS", 0.05)
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(CLOSE, closing(1000)))

        assert await opened.client.rest() == []


@pytest.mark.parametrize("leaves", ["client", "origin"])
async def test_when_one_end_goes_the_other_is_closed(home: Home, leaves: str) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        gone, left = (opened.client, opened.origin) if leaves == "client" else (opened.origin, opened.client)
        gone.send(frame(TEXT, b"unfinished", final=False, masked=leaves == "client"))
        gone.writer.write_eof()

        assert await left.rest() == []
        assert await gone.rest() == []


async def test_the_bytes_of_both_directions_are_metered(home: Home) -> None:
    watch = Watching()
    async with inside(home) as place, open_websocket(place, watch) as opened:
        opened.client.send(frame(BINARY, b"x" * 1000))
        opened.origin.send(frame(BINARY, b"x" * 5000, masked=False))
        await opened.client.next()
        await opened.origin.next()

        assert (watch.up, watch.down) == (1000 + 8, 5000 + 4)


async def test_only_the_last_message_is_kept(home: Home) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        for number in range(3):
            opened.client.send(frame(TEXT, b"%d" % number))
            await opened.origin.next()

        data = flow_of(place).websocket
        assert data is not None
        assert [message.content for message in data.messages] == [b"2"]


# What is too much


@pytest.mark.parametrize("content", [
    pytest.param(frame(BINARY, b"x" * 1001), id="in one frame"),
    pytest.param(frame(BINARY, length=b"\x7e\x03\xe9"), id="in the head of a frame that has not come"),
    pytest.param(fragments(BINARY, [b"x" * 600, b"x" * 401]), id="in fragments"),
    pytest.param(fragments(TEXT, [b"x" * 600, b"x" * 401])[:-300], id="in fragments without an end"),
    pytest.param(frame(BINARY, final=False) + frame(CONTINUATION, final=False) * 2000, id="in empty fragments"),
])
async def test_a_message_that_is_too_large_is_never_forwarded(home: Home, content: bytes) -> None:
    watch = Watching(WebSocketMeasures(max_frame_bytes=1000))
    async with inside(home) as place, open_websocket(place, watch) as opened:
        opened.client.send(content)

        assert await refused(opened) == (1008, b"BODY_TOO_LARGE main/7")
        assert watch.codes == [Code.BODY_TOO_LARGE]


async def test_a_message_of_just_the_allowed_size_passes(home: Home) -> None:
    watch = Watching(WebSocketMeasures(max_frame_bytes=1000))
    async with inside(home) as place, open_websocket(place, watch) as opened:
        opened.client.send(fragments(BINARY, [b"x" * 600, b"x" * 400]))

        assert [len((await opened.origin.next() or (0, b"", True))[1]) for _ in range(2)] == [600, 400]


async def test_a_message_may_not_exceed_one_mebibyte_where_the_policy_says_nothing(home: Home) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(BINARY, length=b"\x7f" + (1024 * 1024 + 1).to_bytes(8)))

        assert await refused(opened) == (1008, b"BODY_TOO_LARGE main/7")


async def test_what_the_origin_sends_is_limited_too(home: Home) -> None:
    async with inside(home) as place, open_websocket(
            place, Watching(WebSocketMeasures(max_frame_bytes=10))) as opened:
        opened.origin.send(frame(BINARY, b"x" * 11, masked=False))

        assert await refused(opened) == (1008, b"BODY_TOO_LARGE main/7")


async def test_a_client_that_goes_on_sending_still_reads_why_it_was_cut(home: Home) -> None:
    watch = Watching(WebSocketMeasures(max_frame_bytes=1000))
    async with inside(home) as place, open_websocket(place, watch) as opened:
        opened.client.send(frame(BINARY, b"x" * 400_000))
        await opened.client.writer.drain()

        assert await refused(opened) == (1008, b"BODY_TOO_LARGE main/7")


async def test_a_client_that_takes_no_notice_of_the_end_is_cut_off(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_layer, "_LINGER_SECONDS", 0.05)
    async with inside(home) as place, open_websocket(
            place, Watching(WebSocketMeasures(max_frame_bytes=10))) as opened:
        opened.client.send(frame(BINARY, b"x" * 11))
        await opened.client.next()

        assert await opened.client.rest() == []


@pytest.mark.parametrize("kind", [TEXT, PING, PONG])
async def test_more_than_the_agreed_rate_ends_the_websocket_whatever_is_sent(home: Home, kind: int) -> None:
    watch = Watching(WebSocketMeasures(max_rate=Rate(3, 3600)))
    async with inside(home) as place, open_websocket(place, watch) as opened:
        opened.client.send(frame(kind, b"x") * 4)
        while (told := await opened.client.next()) is not None and told[0] != CLOSE:
            continue
        opened.client.send(frame(CLOSE))

        assert told == (CLOSE, closing(1008, b"RATE_LIMITED main/7"), True)
        assert [one[0] for one in await opened.origin.rest()] == {
            TEXT: [TEXT] * 3, PING: [PING] * 3, PONG: []}[kind] + [CLOSE]


async def test_the_rate_of_an_origin_is_its_own_affair(home: Home) -> None:
    watch = Watching(WebSocketMeasures(max_rate=Rate(1, 3600)))
    async with inside(home) as place, open_websocket(place, watch) as opened:
        opened.origin.send(frame(TEXT, b"x", masked=False) * 5)

        assert [await opened.client.next() for _ in range(5)] == [(TEXT, b"x", True)] * 5


# What is no WebSocket


@pytest.mark.parametrize(("content", "code"), [
    pytest.param(frame(TEXT, SECRET, masked=False), 1002, id="no mask"),
    pytest.param(frame(TEXT, SECRET, reserved=4), 1002, id="the compression bit"),
    pytest.param(frame(TEXT, SECRET, reserved=1), 1002, id="a reserved bit"),
    pytest.param(frame(3, SECRET), 1002, id="an unknown opcode"),
    pytest.param(frame(11, SECRET), 1002, id="an unknown control opcode"),
    pytest.param(frame(TEXT, b"\xff\xfe"), 1007, id="text that is none"),
    pytest.param(fragments(TEXT, [b"\xe2\x82", b"x"]), 1007, id="text that is none across fragments"),
    pytest.param(fragments(TEXT, [b"x", b"\xe2\x82"]), 1007, id="text that ends within a character"),
    pytest.param(frame(CONTINUATION, SECRET), 1002, id="a continuation of nothing"),
    pytest.param(frame(TEXT, b"x", final=False) + frame(TEXT, SECRET), 1002, id="a message within a message"),
    pytest.param(frame(PING, b"x" * 126), 1002, id="a long ping"),
    pytest.param(frame(PING, b"x", final=False), 1002, id="a ping in fragments"),
    pytest.param(frame(TEXT, b"x", length=b"\x7e\0\x01"), 1002, id="a length in more bytes than needed"),
    pytest.param(frame(TEXT, b"x", length=b"\x7f\xff" + b"\0" * 7), 1002, id="a negative length"),
    pytest.param(frame(CLOSE, b"x"), 1002, id="half a close code"),
    pytest.param(frame(CLOSE, closing(1005)), 1002, id="a close code that is never sent"),
    pytest.param(frame(CLOSE, closing(1016)), 1002, id="a close code that nobody knows"),
    pytest.param(frame(CLOSE, closing(999)), 1002, id="a close code below all"),
    pytest.param(frame(CLOSE, closing(1000, b"\xff")), 1007, id="a close reason that is no text"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 1002, id="another protocol"),
])
async def test_malformed_bytes_end_the_websocket_and_nothing_of_them_passes(
        home: Home, caplog: pytest.LogCaptureFixture, content: bytes, code: int) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(content)
        told = await opened.client.next()
        opened.client.writer.write_eof()

        assert told == (CLOSE, closing(code, b"MALFORMED main/7"), True)
        assert await opened.client.rest() == []
        assert await opened.origin.rest() == [(CLOSE, closing(1001), True)]
    assert "crashed" not in caplog.text


async def test_nothing_passes_after_a_close(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(CLOSE, closing(1000)), frame(TEXT, SECRET))

        assert await opened.origin.rest() == [(CLOSE, closing(1000), True)]
        await opened.client.rest()
    assert "crashed" not in caplog.text


async def test_a_malformed_origin_ends_the_websocket(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.origin.send(frame(TEXT, b"masked"))

        assert await opened.client.next() == (CLOSE, closing(1002, b"MALFORMED main/7"), True)
        await opened.origin.rest()
    assert "crashed" not in caplog.text


@pytest.mark.parametrize("fields", [
    pytest.param(b"Upgrade: websocket\r\n", id="no proof"),
    pytest.param(b"Upgrade: foo\r\n" + ACCEPT, id="another protocol"),
    pytest.param(b"Upgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\n" + ACCEPT, id="an extension"),
])
async def test_an_origin_that_answers_with_another_protocol_is_cut_off(home: Home, fields: bytes) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + fields + b"\r\nhello"
    websocket_layer.install(lambda _: Watching())
    async with raw_origin(answer) as origin, inside(home) as place:
        assert await place.get(f"{origin.url}/", "Upgrade: websocket", "Connection: Upgrade",
                               "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}") == b""
        (outcome,) = await place.wait_for("outcome")

        assert (outcome["result"], outcome["code"]) == ("cut", "UPGRADE_REFUSED")


# Who else speaks


async def test_an_injected_message_is_not_sent(home: Home) -> None:
    watch = Watching()
    async with inside(home) as place, open_websocket(place, watch) as opened:
        ctx.master.commands.call("inject.websocket", flow_of(place), False, SECRET, True)

        assert await refused(opened) == (1008, b"EDITED main/7")


@pytest.mark.parametrize("act", [
    pytest.param(lambda flow: setattr(flow.websocket.messages[-1], "content", b"other"), id="content"),
    pytest.param(lambda flow: setattr(flow.websocket.messages[-1], "type", 2), id="type"),
    pytest.param(http.HTTPFlow.kill, id="killed"),
])
async def test_an_edited_message_is_not_sent(home: Home, act: Any) -> None:
    async with inside(home, Acting(act)) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(TEXT, b"mine"))

        assert await refused(opened) == (1008, b"EDITED main/7")


async def test_a_dropped_message_is_not_sent_and_the_next_one_is(home: Home) -> None:
    def drop(flow: http.HTTPFlow) -> None:
        assert flow.websocket is not None
        if flow.websocket.messages[-1].content == b"drop":
            flow.websocket.messages[-1].drop()

    async with inside(home, Acting(drop)) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(TEXT, b"drop"), frame(TEXT, b"keep"))

        assert await opened.origin.next() == (TEXT, b"keep", True)


async def test_what_comes_while_a_message_is_held_waits_within_bounds(home: Home) -> None:
    holding, limits = Acting(http.HTTPFlow.intercept), WebSocketMeasures(max_frame_bytes=1000)
    async with inside(home, holding) as place, open_websocket(place, Watching(limits)) as opened:
        opened.client.send(frame(TEXT, b"held"))
        while not holding.flows:
            await asyncio.sleep(0.01)
        opened.client.send(frame(TEXT, b"x" * 1000) * 600)

        assert await refused(opened) == (1008, b"BUSY main/7")
        holding.flows[0].resume()


async def test_what_has_passed_no_longer_counts_as_waiting(home: Home) -> None:
    watch = Watching(WebSocketMeasures(max_frame_bytes=1000))
    async with inside(home) as place, open_websocket(place, watch) as opened:
        for _ in range(40):
            opened.client.send(frame(BINARY, b"x" * 1000) * 10)
            assert [await opened.origin.next() for _ in range(10)] == [(BINARY, b"x" * 1000, True)] * 10

        assert watch.codes == []


async def test_a_held_message_passes_when_it_is_let_go(home: Home) -> None:
    holding = Acting(http.HTTPFlow.intercept)
    async with inside(home, holding) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(TEXT, b"held"))
        while not holding.flows:
            await asyncio.sleep(0.01)
        holding.flows[0].resume()

        assert await opened.origin.next() == (TEXT, b"held", True)


async def test_a_hook_that_fails_lets_nothing_through(home: Home) -> None:
    async def cancelled(_: http.HTTPFlow) -> None:
        raise asyncio.CancelledError

    async with inside(home, Acting(cancelled)) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(frame(TEXT, SECRET))

        assert await opened.client.rest() == []
        assert await opened.origin.rest() == []


# The end from outside


@pytest.mark.parametrize("held", [False, True])
async def test_it_can_be_ended_from_outside_in_words_whatever_is_held(home: Home, held: bool) -> None:
    holding, watch = Acting(http.HTTPFlow.intercept), Watching()
    others = (holding,) if held else ()
    async with inside(home, *others) as place, open_websocket(place, watch) as opened:
        if held:
            opened.client.send(frame(TEXT, SECRET))
            while not holding.flows:
                await asyncio.sleep(0.01)
        flow = flow_of(place)
        websocket_layer.close(flow, Code.AGENT_HALTED)

        assert await refused(opened) == (1008, b"AGENT_HALTED main/7")
        if held:
            flow.resume()
            await asyncio.sleep(0.05)
        websocket_layer.close(flow, Code.AGENT_HALTED)
        assert watch.codes == [Code.AGENT_HALTED]
        assert data_of(opened.origin.frames.got) == []


async def test_a_websocket_that_ended_is_told_once(home: Home) -> None:
    class Counting:
        ends = 0

        def websocket_end(self, _: http.HTTPFlow) -> None:
            self.ends += 1

    counting = Counting()
    async with inside(home, counting) as place:
        for _ in range(2):
            async with open_websocket(place, Watching(WebSocketMeasures(max_frame_bytes=1))) as opened:
                opened.client.send(frame(TEXT, b"too long"))
                await refused(opened)
        async with asyncio.timeout(SECONDS):
            while counting.ends < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)

        assert counting.ends == 2


# What fails


async def test_a_websocket_that_nobody_watches_is_closed_at_once(home: Home) -> None:
    async with inside(home) as place, open_websocket(place, None) as opened:
        opened.client.send(frame(TEXT, SECRET))

        assert await refused(opened) == (1008, b"UPGRADE_REFUSED")


@pytest.mark.parametrize("error", [RuntimeError(SECRET.decode()), asyncio.CancelledError()], ids=["error", "cancelled"])
@pytest.mark.parametrize("what", ["limits", "meter", "refused"])
async def test_a_watch_that_fails_ends_the_websocket(
        home: Home, caplog: pytest.LogCaptureFixture, what: str, error: BaseException) -> None:
    class Failing(Watching):
        def __getattribute__(self, name: str) -> Any:
            if name == what:
                raise error
            return super().__getattribute__(name)

    async with inside(home) as place, open_websocket(place, Failing()) as opened:
        opened.client.send(frame(TEXT, SECRET))
        if what == "refused":
            assert await opened.origin.next() == (TEXT, SECRET, True)
            opened.client.send(frame(3))
        told = await opened.client.next()
        opened.client.send(frame(CLOSE))

        assert told == (None if what == "refused" else (CLOSE, closing(1008, b"FAULT main/7"), True))
        assert await opened.client.rest() == []
        assert data_of(await opened.origin.rest()) == []
    assert SECRET.decode() not in caplog.text
    assert "crashed" not in caplog.text


async def test_no_payload_is_logged(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with inside(home) as place, open_websocket(place, Watching()) as opened:
        opened.client.send(*(frame(kind, SECRET) for kind in (PING, PONG, TEXT)), frame(CLOSE, closing(1000, SECRET)))
        opened.origin.send(frame(PING, SECRET, masked=False), frame(CLOSE, closing(1000), masked=False))
        await opened.client.rest()

    assert SECRET.decode() not in caplog.text


async def test_installing_again_changes_nothing_but_the_watch() -> None:
    websocket_layer.install(lambda _: None)
    first = websocket_layer.websocket.WebsocketLayer
    websocket_layer.install(lambda _: Watching())

    assert websocket_layer.websocket.WebsocketLayer is first
    assert first is websocket_layer.GovernedWebsocket

"""What a policy says of sizes and numbers, and bodies that pass while they come, as clients and origins see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from mitmproxy.addons.tlsconfig import TlsConfig

from addons.crashes import CrashedLayer
from addons.gate import end
from addons.home import Home
from tests.addons.inside import SECONDS, Inside, get, inside, raw_origin
from tests.addons.test_connection_log import fields, http2
from tests.addons.test_request_bodies import connection, first_line, post
from tests.addons.test_websocket_tls import contexts, trust_anybody

RULE = """\
version: 1
rules:
  - allow: local
    to: localhost
    address: 127.0.0.0/8
    schemes: [http, https]
    ports: 1-65535
    methods: any
"""


def policy(*more: str, limits: str = "") -> str:
    return RULE + "".join(f"    {line}\n" for line in more) + (f"limits:\n  - {limits}\n" if limits else "")


@asynccontextmanager
async def origin(answer: Any) -> AsyncIterator[str]:
    """An origin that speaks with `answer(reader, writer)`; its URL."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}/"


async def decided(place: Inside) -> tuple[str, str, str | None]:
    (decision,) = await place.wait_for("decision")
    return decision["verdict"], decision["code"], decision["rule"]


async def outcome(place: Inside) -> dict[str, Any]:
    (entry,) = await place.wait_for("outcome")
    return entry


# Sizes of requests


@pytest.mark.parametrize(("said", "by"), [
    ({"more": ("max-request: 10",)}, "local"), ({"limits": "max-request: 10"}, "limits-1")])
@pytest.mark.parametrize("framing", ["Content-Length: 11", "Transfer-Encoding: chunked"])
async def test_a_body_over_the_policys_limit_is_refused_by_its_name(
        home: Home, said: dict[str, Any], by: str, framing: str) -> None:
    rules = policy(*said.get("more", ()), limits=said.get("limits", ""))
    body = b"b\r\n01234567890\r\n0\r\n\r\n" if "chunked" in framing else b"01234567890"
    async with raw_origin() as raw, inside(home, policy=rules) as place, connection(place) as (reader, writer):
        writer.write(post(raw.url, framing) + body)

        assert (await first_line(reader)).startswith(b"HTTP/1.1 413 ")
        assert await decided(place) == ("deny", "BODY_TOO_LARGE", by)
        assert raw.received == []


async def test_a_rule_may_allow_more_than_the_default(home: Home) -> None:
    size = 17 * 2**20

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (origin(answer) as url, inside(home, policy=policy("max-request: 20MiB")) as place,
                connection(place) as (reader, writer)):
        writer.write(post(url, f"Content-Length: {size}") + bytes(size))

        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"


async def test_a_url_over_the_policys_limit_is_refused(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=policy(limits="max-url: 100")) as place:
        answer = await place.get(f"{raw.url}/{'x' * 100}")

        assert answer.startswith(b"HTTP/1.1 414 URI Too Long by Governor: URL_TOO_LONG\r\n")
        assert await decided(place) == ("deny", "URL_TOO_LONG", "limits-1")


# Sizes of answers


async def test_an_answer_that_says_it_is_too_large_is_refused_whole(home: Home) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + bytes(101)
    async with raw_origin(large) as raw, inside(home, policy=policy("max-response: 100")) as place:
        answer = await place.get(raw.url)

        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"detail":"Governor refused GET to localhost: the answer is larger than 100 bytes (local)"' in answer
        assert bytes(101) not in answer
        assert ((await outcome(place))["result"], (await outcome(place))["code"]) == ("cut", "BODY_TOO_LARGE")


async def test_an_answer_that_grows_too_large_is_cut_and_does_not_look_complete(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            writer.write(b"a\r\n0123456789\r\n")
            await asyncio.sleep(0.001)
        writer.write(b"0\r\n\r\n")

    async with origin(answer) as url, inside(home, policy=policy("max-response: 95")) as place:
        got = await place.get(url)

        assert got.count(b"0123456789") == 9
        assert not got.endswith(b"0\r\n\r\n")
        told = await outcome(place)
        assert (told["result"], told["code"], told["bytes_down"]) == ("cut", "BODY_TOO_LARGE", 95)


def events(data: bytes) -> list[bytes]:
    return [part for part in data.replace(b"\r\n", b"\n").split(b"\n\n") if part]


async def test_an_event_stream_is_cut_behind_a_whole_event_and_in_words(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(100):
            writer.write(b"data: %03d\n\n" % number)
            await asyncio.sleep(0.001)

    async with origin(answer) as url, inside(home, policy=policy("max-response: 95")) as place:
        got = (await place.get(url)).partition(b"\r\n\r\n")[2]

        *passed, last = events(got)
        assert passed == [b"data: %03d" % number for number in range(len(passed))]
        assert len(b"data: 000\n\n") * len(passed) <= 95
        name, _, data = last.partition(b"\n")
        told = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: error"
        assert (told["code"], told["rule"]) == ("BODY_TOO_LARGE", "local")
        assert (await outcome(place))["result"] == "cut"


async def test_the_head_of_a_large_file_may_be_asked_for(home: Home) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with raw_origin(head) as raw, inside(home, policy=policy("max-response: 100")) as place:
        assert (await place.ask(get(raw.url, method="HEAD"))).startswith(b"HTTP/1.1 200 OK\r\n")


# Flows at a time


async def test_an_agent_has_no_more_flows_open_than_the_policy_says(home: Home) -> None:
    waiting = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await waiting.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with origin(answer) as url, inside(home, policy=policy(limits="in-flight: 2")) as place:
        first, second = (asyncio.create_task(place.get(url)) for _ in range(2))
        await place.wait_for("decision", 2)
        third = await place.get(url)
        waiting.set()
        await asyncio.gather(first, second)
        fourth = await place.get(url)

        assert third.startswith(b"HTTP/1.1 503 Service Unavailable by Governor: BUSY\r\n")
        assert [(entry["code"], entry["rule"]) for entry in place.entries("decision")] == [
            ("ALLOW", "local"), ("ALLOW", "local"), ("BUSY", "limits-1"), ("ALLOW", "local")]
        assert fourth.startswith(b"HTTP/1.1 200 ")


# Bodies that pass while they come


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each chunk of a request while the next is awaited."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while length := int(await reader.readline() or b"0", 16):
        piece = await reader.readexactly(length + 2)
        writer.write(b"%x\r\n%s" % (length, piece))
    writer.write(b"0\r\n\r\n")


STREAMS, CHUNKED = "stream-request: yes", "Transfer-Encoding: chunked"
SECRET = b"6\r\nsecret\r\n0\r\n\r\n"


async def test_a_body_passes_while_it_comes_where_a_rule_says_so(home: Home) -> None:
    async with (origin(echo) as url, inside(home, policy=policy(STREAMS)) as place,
                connection(place) as (reader, writer)):
        writer.write(post(url, "Transfer-Encoding: chunked"))
        async with asyncio.timeout(SECONDS):
            for piece in (b"first", b"second"):
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await reader.readuntil(piece)
            writer.write(b"0\r\n\r\n")
            await reader.readuntil(b"0\r\n\r\n")

        told = await outcome(place)
        assert (told["result"], told["bytes_up"], told["bytes_down"]) == ("completed", 11, 11)
        (decision,) = place.entries("decision")
        assert (decision["verdict"], decision["in"]["body_bytes"]) == ("allow", None)


async def test_a_body_that_waits_for_its_invitation_streams_too(home: Home) -> None:
    async with (origin(echo) as url, inside(home, policy=policy(STREAMS)) as place,
                connection(place) as (reader, writer)):
        writer.write(post(url, f"{CHUNKED}\r\nExpect: 100-Continue"))
        async with asyncio.timeout(SECONDS):
            invitation = await reader.readuntil(b"\r\n\r\n")
            writer.write(SECRET)
            answer = await reader.readuntil(b"0\r\n\r\n")

        assert invitation == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"secret" in answer
        assert (await outcome(place))["result"] == "completed"
        assert place.entries("fault") == []


async def test_a_body_that_streams_waits_for_its_durable_decision(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=policy(STREAMS)) as place, connection(place) as (_, writer):
        commit, durable = place.lane.commit, asyncio.Event()

        def slow(*arguments: Any) -> Any:
            number, written = commit(*arguments)

            async def later() -> None:
                await durable.wait()
                await written

            return number, asyncio.ensure_future(later())

        place.lane.commit = slow  # type: ignore[method-assign]
        writer.write(post(raw.url, CHUNKED) + SECRET)
        await place.wait_for("decision")
        await asyncio.sleep(0.1)
        before = list(raw.received)
        durable.set()
        async with asyncio.timeout(SECONDS):
            while not raw.received:
                await asyncio.sleep(0.01)

        assert before == []


async def test_a_body_that_streams_is_cut_where_it_grows_too_large(home: Home) -> None:
    got = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            got.extend(chunk)

    async with (origin(answer) as url, inside(home, policy=policy(STREAMS, "max-request: 100")) as place,
                connection(place) as (reader, writer)):
        writer.write(post(url, "Transfer-Encoding: chunked"))
        for _ in range(15):
            writer.write(b"a\r\n0123456789\r\n")
            await asyncio.sleep(0.01)

        assert await first_line(reader) == b"HTTP/1.1 413 Content Too Large by Governor: BODY_TOO_LARGE\r\n"
        told = await outcome(place)
        assert (told["result"], told["code"]) == ("cut", "BODY_TOO_LARGE")
        assert got.count(b"0123456789") <= 10
        assert not got.endswith(b"0\r\n\r\n")


async def test_an_event_stream_says_that_the_body_it_answers_has_grown_too_large(home: Home) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n")
        await reader.read()

    async with (origin(answer) as url, inside(home, policy=policy(STREAMS, "max-request: 10")) as place,
                connection(place) as (reader, writer)):
        writer.write(post(url, CHUNKED))
        async with asyncio.timeout(SECONDS):
            await reader.readuntil(b"data: first\n\n")
            writer.write(b"b\r\n01234567890\r\n")
            got = await reader.read()

        name, _, data = got.strip().partition(b"\ndata: ")
        assert (name, json.loads(data)["detail"]) == (
            b"event: error", "Governor ended POST to localhost: its body is larger than 10 bytes (local)")
        assert ((await outcome(place))["result"], (await outcome(place))["code"]) == ("cut", "BODY_TOO_LARGE")


async def test_a_request_that_streams_and_is_refused_brings_no_byte_to_its_origin(home: Home) -> None:
    async with (raw_origin() as raw, inside(home, policy=policy(STREAMS, "paths: [/ok]")) as place,
                connection(place) as (reader, writer)):
        writer.write(post(f"{raw.url}/other", CHUNKED) + SECRET)

        assert (await first_line(reader)).startswith(b"HTTP/1.1 403 ")
        assert raw.received == []


async def test_an_upload_to_an_origin_that_cannot_be_reached_gets_the_502_that_explains(home: Home) -> None:
    async with inside(home, policy=policy(STREAMS)) as place:
        answer = await place.ask(post("http://localhost:1/", CHUNKED) + SECRET)

        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway by Governor: ORIGIN_FAILED\r\n")
        assert ((await outcome(place))["result"], place.bodies._room.held_bytes) == ("not_sent", 0)


async def test_trailers_of_a_body_that_streams_do_not_reach_the_origin(home: Home) -> None:
    got = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            got.extend(chunk)

    async with (origin(answer) as url, inside(home, policy=policy(STREAMS)) as place,
                connection(place) as (_, writer)):
        writer.write(post(url, "Transfer-Encoding: chunked") + b"2\r\nab\r\n0\r\nX-Late: secret\r\n\r\n")

        assert (await outcome(place))["code"] == "TRAILERS"
        assert b"secret" not in got


async def test_another_addon_cannot_make_a_body_stream(home: Home) -> None:
    class Streaming:
        def requestheaders(self, flow: Any) -> None:
            flow.request.stream = True

    async with raw_origin() as raw, inside(home, Streaming(), policy=policy("paths: [/ok]")) as place:
        answer = await place.ask(get(f"{raw.url}/other", CHUNKED, method="POST") + SECRET)

        assert answer.startswith(b"HTTP/1.1 403 ")
        assert raw.received == []


async def test_a_body_that_streams_is_invited(home: Home) -> None:
    async with (raw_origin() as raw, inside(home, policy=policy(STREAMS)) as place,
                connection(place) as (reader, writer)):
        writer.write(post(raw.url, CHUNKED, "Expect: 100-continue"))
        async with asyncio.timeout(SECONDS):
            invited = await reader.readuntil(b"\r\n\r\n")
        writer.write(SECRET)

        assert invited.startswith(b"HTTP/1.1 100 ")
        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"


async def test_a_get_with_a_body_is_judged_whole_where_bodies_stream(home: Home) -> None:
    async with (raw_origin() as raw, inside(home, policy=policy(STREAMS).replace("any", "[GET]")) as place,
                connection(place) as (reader, writer)):
        writer.write(get(raw.url, CHUNKED) + SECRET)

        assert (await first_line(reader)).startswith(b"HTTP/1.1 403 ")
        assert await decided(place) == ("deny", "METHOD_OVERRIDE", None)
        assert raw.received == []


async def test_a_whole_answer_ends_the_body_that_still_streams(home: Home) -> None:
    """An origin may answer at once and go on reading: its flow is over in the log and no longer counted as open."""
    async with (raw_origin() as raw, inside(home, policy=policy(STREAMS)) as place,
                connection(place) as (reader, writer)):
        writer.write(post(raw.url, CHUNKED))
        async with asyncio.timeout(SECONDS):
            await reader.readuntil(b"\r\n\r\nok")
        await place.wait_for("outcome")
        writer.write(b"6\r\nsecret\r\n0\r\nX-Late: secret\r\n\r\n" + post(raw.url, "Content-Length: 0"))

        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"
        assert [entry["code"] for entry in await place.wait_for("decision", 2)] == ["ALLOW", "ALLOW"]
        assert [b"secret" in got for got in raw.received] == [False, False]
        assert place.entries("fault") == []


async def test_a_verdict_that_comes_after_its_client_was_ended_leaves_nothing_open(home: Home) -> None:
    """A crash ends a connection while another of its requests is judged: no count may stay behind."""
    async with raw_origin() as raw, inside(home) as place, connection(place) as (_, writer):
        asked, answered = asyncio.Event(), asyncio.Event()

        async def resolve(_: str) -> Any:
            asked.set()
            await answered.wait()
            return (ip_address("127.0.0.1"),)

        place.resolver.resolve = resolve  # type: ignore[method-assign]
        writer.write(get(raw.url))
        await asyncio.wait_for(asked.wait(), SECONDS)
        ((handler, _),) = place.hooks.clients.items()
        handler.layer = CrashedLayer(handler.layer.context)
        end(handler)
        async with asyncio.timeout(SECONDS):
            while len(place.hooks.clients):
                await asyncio.sleep(0.01)
        answered.set()

        assert (await outcome(place))["result"] == "aborted"
        assert (len(place.outcomes), place.judge._in_flight._together) == (0, 0)
        assert raw.received == []


async def test_nothing_of_a_stream_reaches_an_origin_that_has_answered_whole(home: Home, tmp_path: Path) -> None:
    """Over HTTP/2 trailers would follow even though they are refused."""
    got: list[h2.events.Event] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        while data := await reader.read(65536):
            for event in state.receive_data(data):
                got.append(event)
                if isinstance(event, h2.events.RequestReceived):
                    state.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            writer.write(state.data_to_send())

    _, tls = contexts(tmp_path)
    tls.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server, inside(home, TlsConfig(), policy=policy(STREAMS)) as place:
        trust_anybody(tmp_path)
        authority = f"localhost:{server.sockets[0].getsockname()[1]}"
        client = await http2(place, authority)
        client.state.send_headers(1, fields(**{":method": "POST", ":authority": authority}))
        client.flush()
        await outcome(place)
        client.state.send_data(1, b"more")
        client.state.send_headers(1, [("x-late", "secret")], end_stream=True)
        client.flush()
        async with asyncio.timeout(SECONDS):
            while not any(isinstance(event, h2.events.StreamReset | h2.events.StreamEnded) for event in got):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)

        assert not any(isinstance(event, h2.events.DataReceived | h2.events.TrailersReceived) for event in got)
        assert [entry["code"] for entry in place.entries("decision")] == ["TUNNEL", "ALLOW"]
        client.writer.close()

"""What Governor does at mitmproxy's hooks, seen from a client and from an origin that sends what it likes."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any

import pytest
from mitmproxy import ctx, exceptions, http
from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.test import tflow

from addons import agents_file
from addons.home import Home
from kernel.identity import digest
from tests.addons.inside import Inside, get, inside, raw_origin

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Calling:
    """An addon with one hook."""

    def __init__(self, hook: str, act: Any) -> None:
        setattr(self, hook, act)


def raising(error: BaseException) -> Any:
    def act(*_: Any) -> None:
        raise error

    return act


async def outcome(place: Inside) -> tuple[str, str | None]:
    (entry,) = await place.wait_for("outcome")
    return entry["result"], entry["code"]


async def exchange(place: Inside, *requests: bytes, quiet: float = 1.0) -> bytes:
    """What comes back on one connection for these requests, sent one after the other, until nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    got = b""
    try:
        for content in requests:
            writer.write(content)
            try:
                while chunk := await asyncio.wait_for(reader.read(65536), quiet):
                    got += chunk
            except TimeoutError:
                continue
    finally:
        writer.close()
    return got


def kept(url: str, *headers: str) -> bytes:
    return get(url, *headers).replace(b"Connection: close\r\n", b"")


# An answer that looks like ours


async def test_an_origin_cannot_answer_in_governors_name(home: Home) -> None:
    spoof = b"HTTP/1.1 200 OK\r\nX-Governor-Verdict: deny\r\nx-GOVERNOR-x: y\r\nContent-Length: 2\r\n\r\nok"
    async with raw_origin(spoof) as origin, inside(home) as place:
        assert await place.get(origin.url) == OK


async def test_a_client_cannot_speak_to_an_origin_in_governors_name(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        await place.get(origin.url, "X-Governor-Agent: trusted", "X-Other: y")

        assert b"overnor" not in origin.received[0]
        assert b"X-Other: y" in origin.received[0]


async def test_a_refusal_keeps_its_headers_whatever_another_addon_writes_on_the_flow(home: Home) -> None:
    def promote(flow: http.HTTPFlow) -> None:
        flow.metadata["governor.verdict"] = "allow"

    async with inside(home, Calling("responseheaders", promote)) as place:
        assert b"\r\nx-governor-code: DEFAULT_DENY\r\n" in await place.get("http://localhost/denied/x")


async def test_an_allowed_answer_is_metered_whatever_another_addon_writes_on_the_flow(home: Home) -> None:
    def demote(flow: http.HTTPFlow) -> None:
        flow.metadata["governor.verdict"] = "deny"

    spoof = OK.replace(b"\r\n", b"\r\nX-Governor-Code: NEVER\r\n", 1)
    async with raw_origin(spoof) as origin, inside(home, Calling("responseheaders", demote)) as place:
        assert await place.get(origin.url) == OK
        assert (await place.wait_for("outcome"))[0]["status"] == 200


async def test_an_answer_of_another_addon_is_passed_on_and_the_decision_is_closed_as_not_sent(home: Home) -> None:
    def answer(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(200, b"mine")

    async with raw_origin() as origin, inside(home, Calling("request", answer)) as place:
        assert b"mine" in await place.get(origin.url)
        assert await outcome(place) == ("not_sent", None)
        assert origin.received == []


async def test_an_answer_of_another_addon_gives_way_to_a_refusal(home: Home) -> None:
    def answer(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(200, b"mine")

    async with inside(home, Calling("request", answer)) as place:
        assert (await place.get("http://localhost/denied/x")).startswith(b"HTTP/1.1 403 ")


# Faults while an answer comes


async def test_an_answer_that_is_refused_at_its_head_brings_no_byte_of_its_body(home: Home) -> None:
    hidden = b"HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n"
    spoof = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(hidden), hidden)
    failing = Calling("responseheaders", raising(exceptions.OptionsError("broken")))
    async with raw_origin(spoof) as origin, inside(home, failing) as place:
        got = await exchange(place, kept(origin.url), kept(origin.url))

        assert got.count(b"HTTP/1.1 403 Forbidden by Governor: FAULT\r\n") == 2
        assert b"299" not in got
        assert [entry["result"] for entry in await place.wait_for("outcome", 2)] == ["cut", "cut"]


@pytest.mark.parametrize("upgrade", [b"websocket", b"foo"])
async def test_an_origin_that_changes_the_protocol_unasked_is_cut_off(home: Home, upgrade: bytes) -> None:
    switching = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nhello" % upgrade
    async with raw_origin(switching) as origin, inside(home) as place:
        assert await place.get(origin.url, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x") == b""
        assert await outcome(place) == ("cut", "UPGRADE_REFUSED")
        assert origin.received[0].count(b"\r\n\r\n") == 1
        assert origin.received[0].endswith(b"\r\n\r\n")


# Trailers


async def test_request_trailers_over_http_1_are_refused(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        answer = await place.ask(
            get(origin.url, "Transfer-Encoding: chunked", method="POST") + b"2\r\nab\r\n0\r\nX: y\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 403 Forbidden by Governor: TRAILERS\r\n")
        assert origin.received == []


async def test_response_trailers_over_http_1_are_dropped_and_the_answer_ends_whole(home: Home) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    async with raw_origin(head + b"X-Governor-Verdict: deny\r\nX: y\r\n\r\n") as origin, inside(home) as place:
        assert await place.get(origin.url) == head + b"\r\n"
        assert await outcome(place) == ("completed", None)


async def test_a_chunked_request_without_trailers_passes_as_it_is(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        content = get(origin.url, "Transfer-Encoding: chunked", method="POST") + b"2\r\nab\r\n0\r\n\r\n"

        assert await place.ask(content) == OK
        assert origin.received[0].endswith(b"\r\n\r\n2\r\nab\r\n0\r\n\r\n")


# Clients that leave, operators that replay


async def test_a_client_that_leaves_before_the_decision_is_durable_sends_nothing(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        commit, durable = place.lane.commit, asyncio.Event()

        def slow(*arguments: Any) -> Any:
            number, written = commit(*arguments)

            async def later() -> None:
                await durable.wait()
                await written

            return number, asyncio.ensure_future(later())

        place.lane.commit = slow  # type: ignore[method-assign]
        _, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(get(origin.url))
        async with asyncio.timeout(5):
            while not place.entries("decision"):
                await asyncio.sleep(0.01)
        writer.close()
        await asyncio.sleep(0.1)
        durable.set()

        assert await outcome(place) == ("aborted", None)
        assert origin.received == []
        assert len(place.outcomes) == 0


async def test_a_connection_that_is_closed_while_its_peers_end_is_handled_does_not_stay_open(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(kept(origin.url))
        await reader.readuntil(b"\r\n\r\nok")
        ((handler, _),) = place.hooks.clients.items()
        await handler._server_event_lock.acquire()
        writer.write_eof()
        await asyncio.sleep(0.1)
        task = handler.transports[handler.client].handler
        assert task is not None
        task.cancel("closed by command")
        await asyncio.sleep(0.1)
        handler._server_event_lock.release()

        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_replay_is_refused_recorded_and_comes_to_an_end(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        flow = tflow.tflow(req=http.Request.make("GET", origin.url))
        flow.metadata["governor.verdict"] = "allow"
        await asyncio.wait_for(ReplayHandler(flow, ctx.options).replay(), 5)

        assert flow.response is not None
        assert flow.response.headers["x-governor-code"] == "PROTOCOL_REFUSED"
        assert (await place.wait_for("decision"))[0]["code"] == "PROTOCOL_REFUSED"
        assert origin.received == []


# Protocols that are not governed


@pytest.mark.parametrize("hook", ["tcp_start", "tcp_message", "udp_message", "quic_start_client"])
async def test_traffic_without_a_verdict_loses_its_connections_on_both_sides(home: Home, hook: str) -> None:
    async with raw_origin() as origin, inside(home) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(kept(origin.url))
        await reader.readuntil(b"\r\n\r\nok")
        ((handler, _),) = place.hooks.clients.items()
        sides = [transport.writer for transport in handler.transports.values()]
        guard, flow = place.hooks.guards()[hook], tflow.ttcpflow()
        assert guard.before is not None
        with pytest.raises(Exception, match="not governed") as ungoverned:
            guard.before(handler, flow)
        guard.refuse(handler, flow, ungoverned.value)

        assert [side.is_closing() for side in sides if side] == [True, True]
        assert await reader.read() == b""
        writer.close()


# Who asks


def register(home: Home, **tokens: str) -> None:
    for name, token in tokens.items():
        agents_file.change(home.paths.agents, partial(
            agents_file.changed, act=agents_file.Act.ADD, name=name, sha256=digest(token), operator="root",
            now="2026-01-02T03:04:05.000006Z"))


def bearer(token: str) -> str:
    return f"Proxy-Authorization: Bearer {token}"


def agents(place: Inside) -> list[str | None]:
    return [entry["agent"]["id"] for entry in place.entries("decision")]


async def test_each_request_on_a_connection_has_the_identity_it_brings(home: Home) -> None:
    register(home, one="gov_1", two="gov_2")
    async with raw_origin() as origin, inside(home) as place:
        got = await exchange(place, kept(origin.url, bearer("gov_1")), kept(origin.url, bearer("gov_2")),
                             kept(origin.url), kept(origin.url, bearer("gov_1"), bearer("gov_2")))

        assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"200", b"200", b"407", b"407"]
        assert agents(place) == ["one", "two", None, None]
        assert b"gov_" not in b"".join(origin.received)


async def test_a_tunnel_has_the_identity_of_its_connect_and_no_token_inside_counts_or_leaves(home: Home) -> None:
    register(home, one="gov_1", two="gov_2")
    async with raw_origin() as origin, inside(home) as place:
        connect = f"CONNECT localhost:{origin.port} HTTP/1.1\r\n{bearer('gov_1')}\r\n\r\n".encode()
        within = f"GET / HTTP/1.1\r\nHost: localhost:{origin.port}\r\n{bearer('gov_2')}\r\n\r\n".encode()
        got = await exchange(place, connect, within)

        assert got.endswith(OK)
        assert agents(place) == ["one", "one"]
        assert b"gov_" not in origin.received[0]


async def test_no_other_addon_sees_a_token(home: Home) -> None:
    seen: list[str] = []
    register(home, one="gov_1")
    watching = Calling("requestheaders", lambda flow: seen.extend(flow.request.headers))
    async with raw_origin() as origin, inside(home, watching) as place:
        await place.get(origin.url, bearer("gov_1"))

        assert seen == ["Host", "Connection"]


# Bodies


async def test_a_body_does_not_leave_before_its_verdict_whatever_another_addon_says(home: Home) -> None:
    def stream(flow: http.HTTPFlow) -> None:
        flow.request.stream = True

    async with raw_origin() as origin, inside(home, Calling("requestheaders", stream)) as place:
        answer = await place.ask(get(f"{origin.url}/denied/x", "Content-Length: 6", method="POST") + b"secret")

        assert answer.startswith(b"HTTP/1.1 403 ")
        assert origin.received == []


# What Governor itself answers


async def test_the_reserved_name_is_answered_here_recorded_and_asked_of_nobody(home: Home) -> None:
    async with inside(home) as place:
        await place.get("http://localhost/denied/x")
        me = await place.get("http://governor.internal/me")
        refusals = await place.get("http://governor.internal/refusals")

        assert b'"agent":"local"' in me
        assert b'"code":"DEFAULT_DENY"' in refusals
        assert b"denied" not in refusals
        assert place.asked == []
        decisions, outcomes = place.entries("decision"), await place.wait_for("outcome", 2)
        assert [(entry["verdict"], entry["rule"]) for entry in decisions] == [
            ("deny", None), ("allow", None), ("allow", None)]
        assert [entry["result"] for entry in outcomes] == ["not_sent", "not_sent"]


async def test_the_reserved_name_asks_for_the_same_identity_as_any_other(home: Home) -> None:
    register(home, one="gov_1")
    async with inside(home) as place:
        assert (await place.get("http://governor.internal/me")).startswith(b"HTTP/1.1 407 ")
        assert b'"agent":"one"' in await place.get("http://governor.internal/me", bearer("gov_1"))

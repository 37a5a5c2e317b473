"""A layer of mitmproxy's that crashes costs its own client the connection, at once, and nobody else anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.test import tflow

from addons.home import Home
from tests.addons.inside import Inside, inside, raw_origin

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"


def crashing(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    original = getattr(HttpStream, method)

    def crash(self: Any, *arguments: Any) -> Any:
        if self.flow is not None and self.flow.request.path.startswith("/crash"):
            raise ZeroDivisionError("what an agent sent")
        return (yield from original(self, *arguments))

    monkeypatch.setattr(HttpStream, method, crash)


@pytest.mark.parametrize("method", ["make_server_connection", "send_response", "start_response_stream"])
async def test_a_crashed_layer_ends_its_connections_and_no_other(
        home: Home, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    crashing(monkeypatch, method)
    answer = CHUNKED if method == "start_response_stream" else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with raw_origin(answer) as origin, inside(home) as place:
        beside, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(f"GET {origin.url}/passes HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode())
        crashed = await place.get(f"{origin.url}/crash")

        if method != "start_response_stream":
            assert crashed == b""
        if method != "make_server_connection":
            assert (await beside.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        await assert_cleaned_up(place)
        assert b'governor_faults_total{where="CrashedLayer"}' in place.metrics.render()[0]
        assert [entry["error"] for entry in await place.wait_for("fault")] == ["ZeroDivisionError"]
        outcomes = await place.wait_for("outcome", 2)
        assert {entry["decision"] for entry in outcomes} == {
            f"main/{entry['seq']}" for entry in place.entries("decision")}


async def test_a_replay_whose_layer_crashes_comes_to_an_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing(monkeypatch, "send_response")
    flow = tflow.tflow()
    flow.request.path = "/crash"
    async with inside(home) as place:
        await asyncio.wait_for(ReplayHandler(flow, ctx.options).replay(), 5)

        assert [entry["error"] for entry in await place.wait_for("fault")] == ["ZeroDivisionError"]


async def assert_cleaned_up(place: Inside) -> None:
    async with asyncio.timeout(5):
        while len(place.hooks.clients):
            await asyncio.sleep(0.01)

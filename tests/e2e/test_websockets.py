"""WebSockets of a real client and a real server through a real Governor."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.e2e.process import Governor, started

pytestmark = pytest.mark.e2e

POLICY = """\
version: 1
contact: "#agent-platform"
rules:
  - allow: talk
    to: [localhost]
    address: 127.0.0.0/8
    ports: 1-65535
    schemes: [ws, wss]
    methods: any
    paths: [/talk]
    websocket: {max-frame: 100KB, max-rate: 50/minute}
"""


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Governor]:
    with started(tmp_path_factory.mktemp("governor"), POLICY, trust=certificate[1]) as governor:
        yield governor


@contextlib.asynccontextmanager
async def echoing(tls: ssl.SSLContext) -> AsyncIterator[tuple[int, list[str | bytes]]]:
    """A server that sends every message back, and what it got."""
    got: list[str | bytes] = []

    async def talk(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse(heartbeat=0.2)
        await answer.prepare(request)
        async for message in answer:
            got.append(message.data)
            await (answer.send_str if message.type is aiohttp.WSMsgType.TEXT else answer.send_bytes)(message.data)
        return answer

    app = web.Application()
    app.router.add_get("/{any}", talk)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1], got
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def place(governed: Governor, chain: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, str, list[str | bytes]]]:
    """A client's session, where its server is, and what that gets."""
    origin, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=governed.ca)
    origin.load_cert_chain(chain)
    async with (echoing(origin) as (port, got), asyncio.timeout(30),
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client)) as session):
        yield session, f"wss://localhost:{port}", got


async def test_a_client_and_a_server_talk_and_keep_each_other_alive(
        governed: Governor, certificate: tuple[Path, Path]) -> None:
    async with place(governed, certificate[0]) as (session, url, _):
        async with session.ws_connect(f"{url}/talk", proxy=governed.proxy, compress=15, heartbeat=0.2) as talking:
            await talking.send_str("héllo")
            assert await talking.receive_str() == "héllo"
            await talking.send_bytes(b"x" * 90_000)
            assert await talking.receive_bytes() == b"x" * 90_000
            await asyncio.sleep(1)
            await talking.send_str("still there")
            assert await talking.receive_str() == "still there"

        assert talking.close_code == 1000
    outcome = governed.wait_for_entry("outcome")[-1]
    assert (outcome["result"], outcome["status"]) == ("completed", 101)
    assert outcome["bytes_up"] > 90_000 < outcome["bytes_down"]


async def test_a_message_that_is_too_large_ends_in_words(
        governed: Governor, certificate: tuple[Path, Path]) -> None:
    async with place(governed, certificate[0]) as (session, url, got):
        async with session.ws_connect(f"{url}/talk", proxy=governed.proxy) as talking:
            await talking.send_bytes(b"x" * 200_000)
            told = await talking.receive()

        assert told.type is aiohttp.WSMsgType.CLOSE
        assert (told.data, told.extra.split()[0]) == (1008, "BODY_TOO_LARGE")
        assert got == []


async def test_a_websocket_that_no_rule_grants_is_refused_before_it_opens(
        governed: Governor, certificate: tuple[Path, Path]) -> None:
    async with place(governed, certificate[0]) as (session, url, got):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403") as refused:
            await session.ws_connect(f"{url}/other", proxy=governed.proxy)

        assert refused.value.headers is not None
        assert refused.value.headers["x-governor-code"] == "UPGRADE_REFUSED"
        assert got == []

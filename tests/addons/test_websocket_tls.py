"""WebSockets inside TLS on both sides, and the way over HTTP/2 that stays closed (RFC 8441)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from cryptography.hazmat.primitives import serialization
from mitmproxy import certs, ctx
from mitmproxy.addons.tlsconfig import TlsConfig

from addons import websocket_layer
from addons.home import Home
from kernel.measures import WebSocketMeasures
from kernel.verdict import Code
from tests.addons.inside import SECONDS, inside, raw_origin
from tests.addons.websocket_ends import (
    CLOSE,
    PING,
    TEXT,
    Watching,
    closing,
    frame,
    open_websocket,
)


@pytest.fixture(autouse=True)
def no_watch_stays() -> Iterator[None]:
    yield
    websocket_layer.install(lambda _: None)


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client that trusts anybody, and an origin with a certificate that our proxy does not look at."""
    entry = certs.CertStore.from_store(folder, "origin", 2048).get_cert("localhost", [])
    pem = folder / "origin.pem"
    key = entry.privatekey.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(key + entry.cert.to_pem())
    client, origin = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    origin.load_cert_chain(pem)
    return client, origin


def trust_anybody(folder: Path) -> None:
    ctx.options.update(confdir=str(folder / "ca"), ssl_insecure=True)


async def test_a_websocket_inside_tls_passes_and_is_cut_in_words(home: Home, tmp_path: Path) -> None:
    watch = Watching(WebSocketMeasures(max_frame_bytes=100))
    async with inside(home, TlsConfig()) as place:
        trust_anybody(tmp_path)
        async with open_websocket(place, watch, tls=contexts(tmp_path)) as opened:
            opened.client.send(frame(PING, b"theirs"), frame(TEXT, b"hello"))
            assert [await opened.origin.next() for _ in range(2)] == [(PING, b"", True), (TEXT, b"hello", True)]
            opened.origin.send(frame(TEXT, b"world", masked=False))
            await opened.client.next()
            assert await opened.client.next() == (TEXT, b"world", True)

            opened.client.send(frame(TEXT, b"x" * 101))
            assert await opened.client.next() == (CLOSE, closing(1008, b"BODY_TOO_LARGE main/7"), True)
            opened.client.send(frame(CLOSE, closing(1008)))
            assert await opened.client.rest() == []
            assert await opened.origin.rest() == [(CLOSE, closing(1001), True)]
            assert watch.codes == [Code.BODY_TOO_LARGE]


async def test_it_can_be_ended_from_outside_inside_tls(home: Home, tmp_path: Path) -> None:
    async with inside(home, TlsConfig()) as place:
        trust_anybody(tmp_path)
        async with open_websocket(place, Watching(), tls=contexts(tmp_path)) as opened:
            (open_flow,) = place.outcomes._open.values()
            websocket_layer.close(open_flow.flow, Code.AGENT_HALTED)

            assert await opened.client.next() == (CLOSE, closing(1008, b"AGENT_HALTED main/7"), True)
            assert await opened.origin.rest() == [(CLOSE, closing(1001), True)]


async def test_a_websocket_over_http_2_reaches_no_origin(home: Home, tmp_path: Path) -> None:
    """RFC 8441: the proxy does not offer it, and a client that asks nevertheless gets no stream."""
    async with raw_origin() as origin, inside(home, TlsConfig()) as place:
        trust_anybody(tmp_path)
        client, _ = contexts(tmp_path)
        client.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(f"CONNECT localhost:{origin.port} HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(client, server_hostname="localhost")
        state = h2.connection.H2Connection(h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False))
        state.initiate_connection()
        state.send_headers(1, [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/"),
            (":authority", f"localhost:{origin.port}"), ("sec-websocket-version", "13")])
        writer.write(state.data_to_send())
        ended, answers, offered = False, list[str](), None
        async with asyncio.timeout(SECONDS):
            while not ended:
                data = await reader.read(65536)
                for event in state.receive_data(data) if data else [None]:
                    if isinstance(event, h2.events.RemoteSettingsChanged):
                        offered = event.changed_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL, offered)
                    if isinstance(event, h2.events.ResponseReceived):
                        answers.append(dict(event.headers)[":status"])  # type: ignore[index]
                    ended |= event is None or isinstance(
                        event, h2.events.StreamReset | h2.events.ConnectionTerminated | h2.events.StreamEnded)
        writer.close()

        assert offered is None or offered.new_value == 0
        assert all(not answer.startswith(("1", "2")) for answer in answers)
        assert origin.received == []

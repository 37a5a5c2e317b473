"""Answers that their HTTP/2 client does not read: they wait at their origin, and arrive whole when they are read."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from mitmproxy.addons.tlsconfig import TlsConfig

from addons.home import Home
from tests.addons.inside import SECONDS, inside
from tests.addons.test_connection_log import Http2Client, fields, http2
from tests.addons.test_websocket_tls import contexts, trust_anybody

SIZE = 48 * 2**20


async def http1_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytearray) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
    while len(sent) < SIZE:
        writer.write(bytes(65536))
        await writer.drain()
        sent.extend(bytes(65536))


async def http2_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytearray) -> None:
    state, asked = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False)), False
    state.initiate_connection()
    while len(sent) < SIZE:
        if not asked:
            for event in state.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.RequestReceived):
                    asked = True
                    state.send_headers(1, [(":status", "200")])
        else:
            state.send_data(1, bytes(16384), end_stream=len(sent) + 16384 == SIZE)
            sent.extend(bytes(16384))
        writer.write(state.data_to_send())
        await writer.drain()


async def read(client: Http2Client, *, acknowledging: bool) -> int:
    """The bytes of the answer that come until it ends, or until nothing more comes."""
    count = 0
    with contextlib.suppress(TimeoutError):
        while data := await asyncio.wait_for(client.reader.read(65536), SECONDS if acknowledging else 1):
            for event in client.state.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    count += len(event.data)
                    if acknowledging:
                        client.state.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.StreamEnded):
                    return count
            client.flush()
    return count


@pytest.mark.parametrize(("answer", "protocol"), [(http1_answer, "http/1.1"), (http2_answer, "h2")])
async def test_an_answer_that_nobody_reads_waits_at_its_origin(
        home: Home, tmp_path: Path, answer: object, protocol: str) -> None:
    sent = bytearray()
    _, tls = contexts(tmp_path)
    tls.set_alpn_protocols([protocol])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await answer(reader, writer, sent)  # type: ignore[operator]

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server, inside(home, TlsConfig()) as place:
        trust_anybody(tmp_path)
        authority = f"localhost:{server.sockets[0].getsockname()[1]}"
        client = await http2(place, authority)
        client.state.send_headers(1, fields(**{":authority": authority}), end_stream=True)
        client.flush()
        unread = await read(client, acknowledging=False)
        waiting = len(sent)
        client.state.acknowledge_received_data(unread, 1)
        client.flush()

        assert unread == 65535
        assert waiting < SIZE // 2
        assert unread + await read(client, acknowledging=True) == SIZE
        client.writer.close()

"""Origins that keep every byte of every connection, and answer what a strict reader reads. For HTTP/1 and HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.e2e.readers import STRICT, Broken, Message

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
type Answer = Callable[[Message], bytes]


@dataclass
class Recorder:
    """A running origin. `streams` holds the bytes of each HTTP/1 connection, `requests` the requests of HTTP/2 as
    (method, authority, path, content type)."""

    port: int = 0
    streams: list[bytearray] = field(default_factory=list)
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)


def _always_ok(request: Message) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" if request.start.startswith(b"HEAD ") else OK


@contextlib.asynccontextmanager
async def recording(chain: Path | None = None, *, http2: bool = False,
                    answer: Answer = _always_ok) -> AsyncIterator[Recorder]:
    """An origin on a free port of 127.0.0.1; over TLS where `chain` (key and certificate) is given."""
    recorder, writers = Recorder(), set[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError, ssl.SSLError):
            if http2:
                await _serve_http2(recorder, reader, writer)
            else:
                await _serve_http1(recorder, reader, writer, answer)
        writer.close()
        writers.discard(writer)

    context = None
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    recorder.port = server.sockets[0].getsockname()[1]
    try:
        yield recorder
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def _serve_http1(recorder: Recorder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                       answer: Answer) -> None:
    stream, unread = bytearray(), b""
    recorder.streams.append(stream)
    while content := await reader.read(65536):
        stream += content
        unread += content
        try:
            while found := STRICT.next_request(unread):
                request, unread = found
                writer.write(answer(request))
        except Broken:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return


async def _serve_http2(recorder: Recorder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads leniently: whatever fields come are a request."""
    state = h2.connection.H2Connection(h2.config.H2Configuration(
        client_side=False, header_encoding="latin-1", validate_inbound_headers=False))
    state.initiate_connection()
    writer.write(state.data_to_send())
    while content := await reader.read(65536):
        try:
            received = state.receive_data(content)
        except h2.exceptions.ProtocolError:
            received = []
            writer.write(state.data_to_send())
            return
        for event in received:
            _handle(recorder, state, event)
        writer.write(state.data_to_send())


def _handle(recorder: Recorder, state: h2.connection.H2Connection, event: h2.events.Event) -> None:
    match event:
        case h2.events.RequestReceived():
            fields = {str(name): str(value) for name, value in event.headers or ()}
            recorder.requests.append((fields.get(":method", ""), fields.get(":authority", fields.get("host", "")),
                                      fields.get(":path", ""), fields.get("content-type", "")))
        case h2.events.DataReceived():
            state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        case h2.events.StreamEnded():
            with contextlib.suppress(h2.exceptions.ProtocolError):
                state.send_headers(event.stream_id or 0, [(":status", "200"), ("content-length", "2")])
                state.send_data(event.stream_id or 0, b"ok", end_stream=True)

"""Servers of what a plain origin does not speak: old and chunked HTTP, event streams, WebSockets, all kinds of gRPC."""

from __future__ import annotations

import contextlib
import queue
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.e2e.origins import Origin, Seen, _Handler

SECONDS = 20.0
MANY = 40


def event(number: int) -> bytes:
    return b"id: %02d\ndata: word\n\n" % number


class Speaker(_Handler):
    """Answers by the last part of the path. `more` is released for each piece that may be sent; `arrived` has each
    piece of a request's body when it comes, under /stream/."""

    more = threading.Semaphore(0)
    arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def _body(self) -> bytes:
        return b"" if self.path.startswith("/stream/") else super()._body()

    def reply(self) -> None:
        {"old": self._old, "trailers": self._trailers, "events": self._events, "pieces": self._pieces,
         "flood": self._flood, "take": self._take, "echo": self._echo,
         }.get(self.path.rpartition("/")[2], super().reply)()

    def _head(self, *fields: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def _old(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")
        self.close_connection = True

    def _trailers(self) -> None:
        self._head(("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum"))
        self._chunk(b"summed")
        self.wfile.write(b"0\r\nX-Sum: 6\r\n\r\n")

    def _events(self) -> None:
        self._gated("text/event-stream")

    def _pieces(self) -> None:
        self._gated("application/octet-stream")

    def _gated(self, kind: str) -> None:
        self._head(("Content-Type", kind), ("Transfer-Encoding", "chunked"))
        for number in range(MANY):
            assert self.more.acquire(timeout=SECONDS)
            self._chunk(event(number))
        self.wfile.write(b"0\r\n\r\n")

    def _flood(self) -> None:
        kind = "application/octet-stream" if "pieces" in self.path else "text/event-stream"
        self._head(("Content-Type", kind), ("Transfer-Encoding", "chunked"))
        for number in range(MANY):
            self._chunk(event(number))
        self.wfile.write(b"0\r\n\r\n")

    def _request_pieces(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _take(self) -> None:
        for piece in self._request_pieces():
            self.arrived.put(piece)
        super().reply()

    def _echo(self) -> None:
        self._head(("Transfer-Encoding", "chunked"))
        for piece in self._request_pieces():
            self._chunk(piece)
        self.wfile.write(b"0\r\n\r\n")


@contextlib.contextmanager
def echoing(chain: Path | None = None) -> Iterator[Origin]:
    """WebSockets that send every message back. `seen` counts handshakes and has each message as a request's body."""
    seen, context = Seen(), None
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)

    def echo(connection: ServerConnection) -> None:
        seen.connections += 1
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                seen.requests.append(("WS", "", {}, message.encode() if isinstance(message, str) else message))
                connection.send(message)

    with serve(echo, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Origin("ws" if chain is None else "wss", server.socket.getsockname()[1], seen)


@dataclass
class Calls:
    """What a gRPC server was asked: each message, and each call when it began."""

    port: int = 0
    messages: list[bytes] = field(default_factory=list)

    def once(self, asked: bytes, _: Any) -> bytes:
        self.messages.append(asked)
        return asked[::-1]

    def many(self, asked: bytes, _: Any) -> Iterator[bytes]:
        self.messages.append(asked)
        for index in range(len(asked)):
            yield asked[index:index + 1]

    def collect(self, asked: Iterator[bytes], _: Any) -> bytes:
        return b"".join(self._taken(asked))

    def talk(self, asked: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for message in self._taken(asked):
            yield message[::-1]

    def _taken(self, asked: Iterator[bytes]) -> Iterator[bytes]:
        for message in asked:
            self.messages.append(message)
            yield message


@contextlib.contextmanager
def calling(grpc: Any, chain: Path) -> Iterator[Calls]:
    """A gRPC server with the same four methods under each service of the tests."""
    calls, content = Calls(), chain.read_bytes()
    methods = {
        "Once": grpc.unary_unary_rpc_method_handler(calls.once),
        "Many": grpc.unary_stream_rpc_method_handler(calls.many),
        "Collect": grpc.stream_unary_rpc_method_handler(calls.collect),
        "Talk": grpc.stream_stream_rpc_method_handler(calls.talk),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)
                                     for name in ("test.Echo", "small.Echo", "stream.Echo", "denied")])
    calls.port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(content, content)]))
    server.start()
    try:
        yield calls
    finally:
        server.stop(None).wait(SECONDS)

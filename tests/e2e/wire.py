"""Bytes on the wire: what a client sends that is no well-behaved library, and what it is answered."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. Header names are lower-case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def code(self) -> str | None:
        return self.headers.get("x-governor-code")


class Refused(Exception):
    """A CONNECT was not answered 200."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer
        super().__init__(str(answer))


def dial(port: int, seconds: float = SECONDS) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), seconds)


def read(connection: socket.socket, method: str = "GET") -> Answer | None:
    """The next answer on a connection; None when it ended without one."""
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.reason, headers, b"" if method == "CONNECT" else response.read())
    except (http.client.HTTPException, OSError):
        return None
    finally:
        response.close()


def send(connection: socket.socket, content: bytes, method: str = "GET") -> Answer | None:
    """Send bytes as they are and read one answer; None when the connection ended instead."""
    try:
        connection.sendall(content)
    except OSError:
        return None
    return read(connection, method)


def ask(port: int, content: bytes, method: str = "GET", seconds: float = SECONDS) -> Answer | None:
    """One request on a connection of its own; None too when nothing came for some seconds."""
    with dial(port, seconds) as connection:
        return send(connection, content, method)


def request(method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """A request as bytes; nothing is added to it, and nothing is checked."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "surrogateescape") + body


def plain(method: str, url: str, *headers: tuple[str, str], body: bytes = b"") -> bytes:
    """A request to a proxy, with the Host header of its URL."""
    return request(method, url, (("Host", url.split("/")[2]), *headers), body)


def trusting(ca: Path) -> ssl.SSLContext:
    """What a client needs that trusts this CA alone."""
    return ssl.create_default_context(cafile=str(ca))


@contextlib.contextmanager
def connected(port: int, authority: str, *headers: tuple[str, str]) -> Iterator[socket.socket]:
    """A tunnel through the proxy. Raises `Refused`."""
    with dial(port) as connection:
        answer = send(connection, request("CONNECT", authority, (("Host", authority), *headers)), "CONNECT")
        if answer is None or answer.status != 200:
            raise Refused(answer)
        yield connection


@contextlib.contextmanager
def socks5_connected(socks: int, host: str, port: int) -> Iterator[socket.socket]:
    """A tunnel through the SOCKS5 proxy, by name and without credentials."""
    with dial(socks) as connection:
        name = host.encode()
        connection.sendall(b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(name),)) + name + struct.pack("!H", port))
        answer = b""
        while len(answer) < 12 and (more := connection.recv(12 - len(answer))):
            answer += more
        assert answer == b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        yield connection


@contextlib.contextmanager
def tunnel(port: int, ca: Path, authority: str, *headers: tuple[str, str], server_name: str | None = None,
           alpn: Sequence[str] = ("http/1.1",)) -> Iterator[ssl.SSLSocket]:
    """TLS inside a tunnel, with any server name; the certificate must come from `ca`."""
    context = trusting(ca)
    context.check_hostname = False
    context.set_alpn_protocols(list(alpn))
    name = authority.rpartition(":")[0].strip("[]") if server_name is None else server_name
    with (connected(port, authority, *headers) as connection,
          context.wrap_socket(connection, server_hostname=name) as inside):
        yield inside


Fields = Sequence[tuple[str, str]]


class Http2:
    """An HTTP/2 client that checks nothing of what it sends."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        assert connection.selected_alpn_protocol() == "h2"
        self._socket = connection
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self._state.initiate_connection()
        self._flush()

    def send(self, fields: Fields, body: bytes = b"", trailers: Fields = ()) -> int:
        """Send one request; its stream."""
        stream = self._state.get_next_available_stream_id()
        self._state.send_headers(stream, list(fields), end_stream=not body and not trailers)
        if body:
            self._state.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self._state.send_headers(stream, list(trailers), end_stream=True)
        self._flush()
        return stream

    def answers(self, streams: Sequence[int]) -> dict[int, Answer | None]:
        """The answers on these streams, None where a stream or the connection was reset."""
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = dict.fromkeys(streams, b"")
        done: dict[int, Answer | None] = {}
        while len(done) < len(streams):
            for event in self._events():
                match event:
                    case h2.events.ResponseReceived():
                        heads[event.stream_id] = dict(event.headers)
                    case h2.events.DataReceived():
                        bodies[event.stream_id] += event.data
                        self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded(stream_id=stream):
                        done[stream] = Answer(int(heads[stream][":status"]), "", heads[stream], bodies[stream])
                    case h2.events.StreamReset(stream_id=stream):
                        done[stream] = None
                    case h2.events.ConnectionTerminated():
                        return {stream: done.get(stream) for stream in streams}
            self._flush()
        return done

    def ask(self, fields: Fields, body: bytes = b"", trailers: Fields = ()) -> Answer | None:
        stream = self.send(fields, body, trailers)
        return self.answers([stream])[stream]

    def body(self, length: int | None) -> bytes:
        """So many bytes of the body of the only stream; None: all up to its end."""
        got = b""
        while length is None or len(got) < length:
            for event in self._events():
                match event:
                    case h2.events.DataReceived():
                        got += event.data
                        self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded() | h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        length = 0
            self._flush()
        return got

    def _events(self) -> Sequence[h2.events.Event]:
        try:
            content = self._socket.recv(65536)
        except OSError:
            content = b""
        return self._state.receive_data(content) if content else [h2.events.ConnectionTerminated()]

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(self._state.data_to_send())


def fields(method: str, authority: str, path: str = "/", *more: tuple[str, str]) -> Fields:
    return ((":method", method), (":scheme", "https"), (":authority", authority), (":path", path), *more)

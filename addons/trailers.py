"""Trailers of chunked HTTP/1 messages, which mitmproxy does not know: its layer crashes and the client waits for ever.

Here they become what they are in HTTP/2: part of the request or the response, to be judged, refused or passed on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h11
from h11._readers import ChunkedReader
from mitmproxy import http
from mitmproxy.proxy.events import Event
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestTrailers, ResponseTrailers

# What is kept of lines that are not complete; the pieces of a body itself are handed on as they come.
_LONGEST_LINES_BYTES = 64 * 1024
# Reading chunks of a byte each costs a thousand times what sending them does.
_MOST_SMALL_CHUNKS, _SMALL_CHUNK_BYTES = 16_384, 16

type ReadBody = Callable[[Any, Event], CommandGenerator[None]]


class TrailingReader(ChunkedReader):
    """mitmproxy's reader of chunked bodies; the trailers wait in `trailers` instead of in the end of the message.

    It hands on at once what arrived at once: mitmproxy takes ten microseconds over each piece, and chunks of one byte
    would have all other flows wait. A reader that is `bounded` takes no more of such chunks than `_MOST_SMALL_CHUNKS`.
    """

    trailers: list[tuple[bytes, bytes]] | None = None
    bounded = False
    _pieces = _bytes = 0
    _next: h11.Event | h11.ProtocolError | None = None

    def __call__(self, buf: Any) -> Any:
        event, self._next = self._next or self._read(buf), None
        if isinstance(event, h11.ProtocolError):
            raise event
        return self._joined(event, buf) if isinstance(event, h11.Data) else event

    def _joined(self, first: h11.Data, buf: Any) -> h11.Data:
        """The piece with all complete ones behind it; what comes after them waits for the next call."""
        pieces = [first.data]
        try:
            while isinstance(event := self._read(buf), h11.Data):
                pieces.append(event.data)
            self._next = event
        except h11.ProtocolError as problem:
            self._next = problem
        return h11.Data(data=b"".join(pieces))

    def _read(self, buf: Any) -> h11.Event | None:
        event: h11.Event | None = self._trailing(buf)
        if self.bounded and isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _MOST_SMALL_CHUNKS + self._bytes // _SMALL_CHUNK_BYTES:
                raise h11.RemoteProtocolError("the body comes in too many small chunks")
        return event

    def _trailing(self, buf: Any) -> Any:
        event = super().__call__(buf)
        if event is None and len(buf) > _LONGEST_LINES_BYTES:
            raise h11.RemoteProtocolError("a chunk's extension or the trailers do not end")
        if isinstance(event, h11.EndOfMessage) and event.headers:
            self.trailers = list(event.headers)
            return h11.EndOfMessage()
        return event


def install() -> None:
    """Let mitmproxy read trailers. Installing again changes nothing."""
    if not hasattr(_http1.Http1Connection.read_body, "ungoverned"):
        _http1.ChunkedReader = TrailingReader  # type: ignore[attr-defined]
        _http1.Http1Connection.read_body = _around(_http1.Http1Connection.read_body)  # type: ignore[method-assign,assignment]


def _around(original: ReadBody) -> ReadBody:
    def read_body(self: Any, event: Event) -> CommandGenerator[None]:
        reader, kind = self.body_reader, _trailers_of(self)
        if kind is RequestTrailers and isinstance(reader, TrailingReader):
            reader.bounded = True
        for command in original(self, event):
            if isinstance(command, ReceiveHttp) and isinstance(command.event, self.ReceiveEndOfMessage):
                trailers = getattr(reader, "trailers", None)
                if trailers:
                    yield ReceiveHttp(kind(command.event.stream_id, http.Headers(trailers)))
            yield command

    read_body.ungoverned = original  # type: ignore[attr-defined]
    return read_body


def _trailers_of(side: object) -> type[RequestTrailers | ResponseTrailers]:
    return RequestTrailers if isinstance(side, _http1.Http1Server) else ResponseTrailers

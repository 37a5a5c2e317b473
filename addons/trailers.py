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

type ReadBody = Callable[[Any, Event], CommandGenerator[None]]


class TrailingReader(ChunkedReader):
    """mitmproxy's reader of chunked bodies; the trailers wait in `trailers` instead of in the end of the message."""

    trailers: list[tuple[bytes, bytes]] | None = None

    def __call__(self, buf: Any) -> Any:
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
        reader: Any = self.body_reader
        kind = _trailers_of(self)
        for command in original(self, event):
            if isinstance(command, ReceiveHttp) and isinstance(command.event, self.ReceiveEndOfMessage):
                # The body of the next request can lie in the same read, and end within this one.
                trailers, reader = getattr(reader, "trailers", None), None
                if trailers:
                    yield ReceiveHttp(kind(command.event.stream_id, http.Headers(trailers)))
            yield command

    read_body.ungoverned = original  # type: ignore[attr-defined]
    return read_body


def _trailers_of(side: object) -> type[RequestTrailers | ResponseTrailers]:
    return RequestTrailers if isinstance(side, _http1.Http1Server) else ResponseTrailers

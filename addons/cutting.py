"""The end of an answer that must not go on: in words where its form has a place for them, never as if it were complete.

mitmproxy can only close connections. Here one stream ends: the client gets the words, then an end that says that more
would have come (an HTTP/1 connection closed before its end, HTTP/2 a reset; gRPC has its own words for it), and the
origin is told to stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from mitmproxy import http
from mitmproxy.proxy.events import Event
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import DropStream, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
    ResponseTrailers,
)


@dataclass(frozen=True, slots=True)
class Ending:
    """What the client is still sent: bytes of the body's own form, or trailers, or neither."""

    data: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()


type EndingOf = Callable[[http.HTTPFlow], Ending | None]

_ending_of: EndingOf | None = None


def install(ending_of: EndingOf) -> None:
    """After each piece of an answer, end it where `ending_of(flow)` says how. Installing again replaces it."""
    global _ending_of
    _ending_of = ending_of
    if not hasattr(HttpStream.state_stream_response_body, "ungoverned"):
        HttpStream.state_stream_response_body = _around(  # type: ignore[method-assign]
            HttpStream.state_stream_response_body)


def _around(original: Any) -> Any:
    @wraps(original)
    def state_stream_response_body(self: HttpStream, event: Event) -> CommandGenerator[None]:
        yield from original(self, event)
        ending = _ending_of(self.flow) if _ending_of is not None else None
        if ending is not None and self.server_state == self.state_stream_response_body:
            yield from end(self, ending)

    state_stream_response_body.ungoverned = original  # type: ignore[attr-defined]
    return state_stream_response_body


def ending(flow: http.HTTPFlow) -> Ending:
    """How the flow's answer ends now, of which a part has passed."""
    return (_ending_of(flow) if _ending_of is not None else None) or Ending()


def end(stream: HttpStream, ending: Ending) -> CommandGenerator[None]:
    """End the stream's answer, of which a part has passed."""
    client, server, number = stream.context.client, stream.context.server, stream.stream_id
    stream.client_state = stream.server_state = stream.state_errored
    stream.flow.live = False
    if ending.data:
        yield SendHttp(ResponseData(number, ending.data), client)
    if ending.trailers:
        yield SendHttp(ResponseTrailers(number, http.Headers(ending.trailers)), client)
        yield SendHttp(ResponseEndOfMessage(number), client)
    else:
        yield SendHttp(ResponseProtocolError(number, "cut", ErrorCode.CANCEL), client)
    yield SendHttp(RequestProtocolError(number, "cut", ErrorCode.CANCEL), server)
    yield DropStream(number)

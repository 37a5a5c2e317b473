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

from mitmproxy import ctx, http
from mitmproxy.proxy.commands import RequestWakeup
from mitmproxy.proxy.events import Event, Wakeup
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import DropStream, HttpLayer, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.utils import asyncio_utils


@dataclass(frozen=True, slots=True)
class Ending:
    """What the client is still sent: bytes of the body's own form, or trailers, or neither."""

    data: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()


type EndingOf = Callable[[http.HTTPFlow], Ending | None]
type WaitsOf = Callable[[http.HTTPFlow], float | None]

_ending_of: EndingOf | None = None
_waits_of: WaitsOf | None = None


def install(ending_of: EndingOf, waits_of: WaitsOf) -> None:
    """After each piece of an answer, end it where `ending_of(flow)` says how. Installing again replaces it.

    That is also asked each time when `waits_of(flow)` seconds have passed, though nothing comes.
    """
    global _ending_of, _waits_of
    _ending_of, _waits_of = ending_of, waits_of
    if not hasattr(HttpStream.state_stream_response_body, "ungoverned"):
        HttpStream.state_stream_response_body = _around(  # type: ignore[method-assign]
            HttpStream.state_stream_response_body)
        HttpStream.start_response_stream = _begun(HttpStream.start_response_stream)  # type: ignore[method-assign]
        HttpStream._handle_event = _woken(HttpStream._handle_event)  # type: ignore[method-assign]
        HttpLayer._handle_event = _spread(HttpLayer._handle_event)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    @wraps(original)
    def state_stream_response_body(self: HttpStream, event: Event) -> CommandGenerator[None]:
        yield from original(self, event)
        yield from _end_where_due(self)

    state_stream_response_body.ungoverned = original  # type: ignore[attr-defined]
    return state_stream_response_body


def wake(flow: http.HTTPFlow) -> None:
    """Have it asked at once whether the flow's answer goes on. To be called on the event loop."""
    handler = ctx.master.addons.get("proxyserver").connections.get(flow.client_conn.id)
    if handler is not None:
        asyncio_utils.create_task(handler.server_event(Nudge()), name="end an answer", keep_ref=True)


class Nudge(Event):
    """Something of this client's must not go on: every stream of it is asked."""


def _spread(original: Any) -> Any:
    @wraps(original)
    def _handle_event(self: HttpLayer, event: Event) -> CommandGenerator[None]:
        if not isinstance(event, Nudge):
            yield from original(self, event)
            return
        for stream in list(self.streams.values()):
            yield from self.event_to_child(stream, event)

    _handle_event.ungoverned = original  # type: ignore[attr-defined]
    return _handle_event


def _begun(original: Any) -> Any:
    @wraps(original)
    def start_response_stream(self: HttpStream) -> CommandGenerator[None]:
        yield from original(self)
        yield from _wait(self)

    start_response_stream.ungoverned = original  # type: ignore[attr-defined]
    return start_response_stream


def _woken(original: Any) -> Any:
    @wraps(original)
    def _handle_event(self: HttpStream, event: Event) -> CommandGenerator[None]:
        if isinstance(event, Nudge):
            if self.server_state == self.state_stream_response_body:
                yield from _end_where_due(self)
            elif self.server_state == self.passthrough and self.flow.websocket is None:
                yield from self.passthrough(event)
        elif not isinstance(event, Wakeup):
            yield from original(self, event)
        elif self.server_state == self.state_stream_response_body:
            yield from _end_where_due(self)
            yield from _wait(self)

    _handle_event.ungoverned = original  # type: ignore[attr-defined]
    return _handle_event


def _end_where_due(stream: HttpStream) -> CommandGenerator[None]:
    ending = _ending_of(stream.flow) if _ending_of is not None else None
    if ending is not None and stream.server_state == stream.state_stream_response_body:
        yield from end(stream, ending)


def _wait(stream: HttpStream) -> CommandGenerator[None]:
    seconds = _waits_of(stream.flow) if _waits_of is not None else None
    if seconds is not None:
        yield RequestWakeup(seconds)


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

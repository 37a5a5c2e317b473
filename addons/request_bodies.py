"""How a request's body is read before its verdict and sent after it: never more than allowed, little of it in memory.

mitmproxy collects every body in memory, whatever its size. Here a body that passes its limit is refused while it comes,
and a long one waits in a file until it may leave, in pieces as fast as its origin takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, finalize

from mitmproxy import http
from mitmproxy.proxy import commands
from mitmproxy.proxy.events import Event
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
)

from addons import cutting, early_answer
from addons.governed import Governed
from addons.spool import Body, Room
from kernel.measures import DEFAULT, Cap
from kernel.verdict import Code


@dataclass
class BodyRefusedHook(commands.StartHook):
    """A body is larger than it may be, or there is no room for it: the flow is to be given its answer."""

    name = "governor_body_refused"
    flow: http.HTTPFlow


@dataclass
class BodySentHook(commands.StartHook):
    """A piece of a spooled body was written: the next follows when the origin has taken it."""

    name = "governor_body_sent"
    flow: http.HTTPFlow


@dataclass
class StreamStartedHook(commands.StartHook):
    """The connection of a request that streams stands, or never will: the client may go on sending."""

    name = "governor_stream_started"
    flow: http.HTTPFlow


@dataclass(slots=True)
class Incoming:
    """A body that is being read. `refused` says why it may not go on, `fault` what failed.

    `governed` is the policy that says how large it may be.
    """

    body: Body
    most: Cap
    governed: Governed | None = None
    refused: Code | None = None
    fault: OSError | None = None


class RequestBodies:
    """The bodies of the flows that wait for a verdict. They lie in `folder` as far as memory is too small."""

    def __init__(self, folder: Path, room: Room) -> None:
        self._folder, self._room = folder, room
        self._incoming: WeakKeyDictionary[http.HTTPFlow, Incoming] = WeakKeyDictionary()

    def expect(self, flow: http.HTTPFlow, owner: str, most: Cap, governed: Governed | None = None) -> None:
        """At the headers: whose body it is, how many bytes it may have, and by which policy."""
        incoming = self._incoming[flow] = Incoming(Body(self._folder, self._room, owner), most, governed)
        # The room comes back when the flow is gone, however it went.
        finalize(flow, incoming.body.close)

    def of(self, flow: http.HTTPFlow) -> Incoming | None:
        return self._incoming.get(flow)

    def size(self, flow: http.HTTPFlow) -> int:
        """How many bytes the request's body has, wherever it is."""
        incoming = self._incoming.get(flow)
        if flow.request.data.content or incoming is None:
            return len(flow.request.data.content or b"")
        return incoming.body.size if incoming.body.spooled else 0

    def content(self, flow: http.HTTPFlow, most_bytes: int) -> bytes | None:
        """The request's body, wherever it is; None where it is longer than that."""
        if self.size(flow) > most_bytes:
            return None
        content = flow.request.data.content
        incoming = None if content else self._incoming.get(flow)
        return (content or b"") if incoming is None else b"".join(incoming.body.chunks())

    def add(self, flow: http.HTTPFlow, chunk: bytes) -> bool:
        """Take in a piece; False, with the reason in `refused`, where the body must not go on."""
        if flow not in self._incoming:
            self.expect(flow, str(flow.client_conn.peername[0]), DEFAULT.max_request)
        incoming = self._incoming[flow]
        if incoming.body.size + len(chunk) > incoming.most.most:
            incoming.refused = Code.BODY_TOO_LARGE
        else:
            incoming.refused = _written(incoming, chunk)
        return incoming.refused is None

    def forget(self, flow: http.HTTPFlow) -> None:
        """The body was sent, or never will be."""
        incoming = self._incoming.pop(flow, None)
        if incoming is not None:
            incoming.body.close()


def _written(incoming: Incoming, chunk: bytes) -> Code | None:
    try:
        return None if incoming.body.write(chunk) else Code.BUSY
    except OSError as fault:
        incoming.fault = fault
        return Code.FAULT


type IsStopped = Callable[[http.HTTPFlow], bool]

_bodies: RequestBodies | None = None
_is_stopped: IsStopped | None = None


def install(bodies: RequestBodies, is_stopped: IsStopped) -> None:
    """Have `bodies` hold every request's body, and end those that stream once `is_stopped(flow)`.

    Installing again replaces both.
    """
    global _bodies, _is_stopped
    _bodies, _is_stopped = bodies, is_stopped
    if not hasattr(HttpStream.state_consume_request_body, "ungoverned"):
        HttpStream.state_consume_request_body = _around(  # type: ignore[method-assign]
            HttpStream.state_consume_request_body)
        HttpStream.state_stream_request_body = _metered(  # type: ignore[method-assign]
            HttpStream.state_stream_request_body)
        HttpStream.start_request_stream = _announced(HttpStream.start_request_stream)  # type: ignore[method-assign]
        HttpStream.send_response = _final(HttpStream.send_response)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    @wraps(original)
    def state_consume_request_body(self: HttpStream, event: Event) -> CommandGenerator[None]:
        if _bodies is None:
            yield from original(self, event)
        elif isinstance(event, RequestData):
            if not _bodies.add(self.flow, event.data):
                yield BodyRefusedHook(self.flow)
                _bodies.forget(self.flow)
                yield from early_answer.answer(self)
        elif isinstance(event, RequestEndOfMessage):
            yield from _complete(_bodies, original, self, event)
        else:
            yield from original(self, event)

    state_consume_request_body.ungoverned = original  # type: ignore[attr-defined]
    return state_consume_request_body


def _metered(original: Any) -> Any:
    @wraps(original)
    def state_stream_request_body(self: HttpStream, event: Event) -> CommandGenerator[None]:
        yield from original(self, event)
        if isinstance(event, RequestData) and _is_stopped is not None and _is_stopped(self.flow):
            yield SendHttp(RequestProtocolError(self.stream_id, "cut", ErrorCode.CANCEL), self.context.server)
            if self.server_state == self.state_stream_response_body:
                yield from cutting.end(self, cutting.ending(self.flow))
                return
            answering = self.server_state == self.state_wait_for_response_headers
            yield BodyRefusedHook(self.flow)
            yield from early_answer.answer(self) if answering else cutting.end(self, cutting.Ending())

    return state_stream_request_body


def _announced(original: Any) -> Any:
    @wraps(original)
    def start_request_stream(self: HttpStream) -> CommandGenerator[None]:
        yield from original(self)
        yield StreamStartedHook(self.flow)

    return start_request_stream


def _final(original: Any) -> Any:
    """Have a whole answer end a request that still streams: its flow is over, and nothing may leave behind that."""
    @wraps(original)
    def send_response(self: HttpStream, already_streamed: bool = False) -> CommandGenerator[None]:
        yield from original(self, already_streamed)
        if self.client_state == self.state_stream_request_body and self.server_state == self.state_done:
            self.client_state = self.state_errored
            yield SendHttp(RequestProtocolError(self.stream_id, "answered", ErrorCode.CANCEL), self.context.server)
            yield from self.flow_done()

    return send_response


def _complete(bodies: RequestBodies, original: Any, stream: HttpStream, event: Event) -> CommandGenerator[None]:
    incoming = bodies.of(stream.flow)
    if incoming is None:
        yield from original(stream, event)
    elif incoming.body.spooled:
        yield from _with_spooled_body(original(stream, event), stream, incoming.body)
        bodies.forget(stream.flow)
    else:
        stream.request_body_buf += incoming.body.content
        bodies.forget(stream.flow)
        yield from original(stream, event)


def _with_spooled_body(sending: Any, stream: HttpStream, body: Body) -> CommandGenerator[None]:
    """What mitmproxy does with a complete request, its body put between the headers and the end."""
    reply = None
    while True:
        try:
            command = sending.send(reply)
        except StopIteration:
            return
        if not (isinstance(command, SendHttp) and isinstance(command.event, RequestHeaders)):
            reply = yield command
            continue
        if stream.flow.request.data.content:
            # Another addon gave the request a body of its own, and that is what was judged.
            reply = yield command
            continue
        command.event.end_stream = False
        reply = yield command
        for chunk in body.chunks():
            yield SendHttp(RequestData(stream.stream_id, chunk), command.connection)
            yield BodySentHook(stream.flow)

"""The head of a client's request: bounded while it comes, and refused in Governor's words where it cannot be read.

mitmproxy buffers a head without an end for ever, answers one that it cannot read with a page of its own, and tells
nobody. Here each of them goes through a hook first, so that the log has it before the client has its answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from h11._receivebuffer import ReceiveBuffer
from mitmproxy import flow, http
from mitmproxy.connection import Client
from mitmproxy.net.http import http1, url
from mitmproxy.proxy import commands
from mitmproxy.proxy.events import ConnectionClosed, ConnectionEvent, DataReceived, Event
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import HTTPMode, HttpStream, validate_request
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Server

from addons import early_answer
from addons.first_bytes import Speaks, spoken

MOST_BYTES = 64 * 1024
# Each look at a header costs as much as there are fields. Node takes 2,000, Apache 100.
MOST_FIELDS = 1000
# RFC 9112 section 2.2 asks servers to skip one; a client that sends many has nothing to say.
_BLANK_LINES = 8
_END = re.compile(rb"\n\r?\n")

TOO_LARGE = "headers larger than 64 KiB"
TOO_MANY = "more than 1000 header fields"
_NOT_HTTP = "this is no HTTP request"
_BAD_SCHEME = "its scheme is neither http nor https"
_BAD_CONNECT = "a CONNECT inside a tunnel"
_BAD_FIELDS = "its header fields or its framing can be read in two ways"
_NO_DESTINATION = "it names no destination"


@dataclass(slots=True, eq=False)
class Unreadable:
    """A request that cannot be read, and why, in fixed words. `flow` where its head has been read so far.

    `response` is what its client is to get, None where there is nothing but the end.
    """

    client: Client
    reason: str
    flow: http.HTTPFlow | None = None
    response: http.Response | None = None


@dataclass
class UnreadableHook(commands.StartHook):
    """A client has sent what is no request: it is to be given its answer."""

    name = "governor_unreadable"
    request: Unreadable


type Tell = Callable[[Client], None]

_begun: Tell | None = None
_abandoned: Tell | None = None


def install(begun: Tell, abandoned: Tell) -> None:
    """Bound and refuse heads; `begun` is told of each part of an unfinished one, `abandoned` of one that never ends.

    Both are called in the midst of a layer. Installing again replaces them.
    """
    global _begun, _abandoned
    _begun, _abandoned = begun, abandoned
    if not hasattr(Http1Server.read_headers, "ungoverned"):
        Http1Server.read_headers = _around(Http1Server.read_headers)  # type: ignore[method-assign]
        HttpStream.check_invalid = _checked(HttpStream.check_invalid)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    @wraps(original)
    def read_headers(self: Http1Server, event: ConnectionEvent) -> CommandGenerator[None]:
        if not isinstance(event, DataReceived):
            if _abandoned is not None and bytes(self.buf).strip():
                _abandoned(self.context.client)
            yield from original(self, event)
            return
        if len(self.buf) > MOST_BYTES and _END.search(bytes(self.buf)[:MOST_BYTES]) is None:
            yield from _refuse(self, TOO_LARGE)
            return
        for _ in range(_BLANK_LINES):
            size = len(self.buf)
            for command in original(self, event):
                # Here it sends nothing but its page for a head that it cannot read.
                if isinstance(command, commands.SendData) and self.state == self.read_headers:
                    yield from _unread(self)
                    return
                yield command
            if not self.buf or self.state != self.read_headers:
                return
            if len(self.buf) == size:
                yield from _unfinished(self)
                return
        yield from _refuse(self, _NOT_HTTP)

    read_headers.ungoverned = original  # type: ignore[attr-defined]
    return read_headers


def _unfinished(server: Http1Server) -> CommandGenerator[None]:
    if spoken(bytes(server.buf)) in (Speaks.TLS, Speaks.NEITHER):
        yield from _refuse(server, _NOT_HTTP)
    elif _begun is not None:
        _begun(server.context.client)


def _unread(server: Http1Server) -> CommandGenerator[None]:
    """Refuse a head that mitmproxy could not read, or could read but for the framing of the body."""
    if server.request is None:
        yield from _refuse(server, _NOT_HTTP)
        return
    server.state, server.request_done = partial(_drop, server), True
    yield ReceiveHttp(RequestHeaders(server.stream_id, server.request, end_stream=False))


def _refuse(server: Http1Server, reason: str) -> CommandGenerator[None]:
    # The client may still be sending: closed at once, the answer could be lost with what nobody has read.
    server.state = partial(_drop, server)
    request = Unreadable(server.context.client, reason)
    yield UnreadableHook(request)
    if request.response is None:
        yield commands.CloseConnection(server.conn)
        return
    yield commands.SendData(server.conn, http1.assemble_response(request.response))
    if _is_outermost(server):
        yield commands.CloseTcpConnection(server.conn, half_close=True)


def _drop(server: Http1Server, event: Event) -> CommandGenerator[None]:
    """Take what still comes from a refused client, and forget it."""
    server.buf = ReceiveBuffer()
    if isinstance(event, ConnectionClosed):
        yield commands.CloseConnection(server.conn)


def _is_outermost(server: Http1Server) -> bool:
    """True where no tunnel lies around this connection: one can only be closed whole."""
    return getattr(server.context.layers[-2], "mode", None) is HTTPMode.regular


def _checked(original: Any) -> Any:
    @wraps(original)
    def check_invalid(self: HttpStream, request: bool) -> CommandGenerator[bool]:
        if not request:
            invalid: bool = yield from original(self, request)
            return invalid
        reason = _fault_of(self)
        if reason is None:
            return False
        unreadable = Unreadable(self.context.client, reason, self.flow)
        # Nothing is judged at the headers of a flow that has failed.
        self.flow.error = flow.Error(reason)
        yield HttpRequestHeadersHook(self.flow)
        yield UnreadableHook(unreadable)
        self.flow.error, self.flow.response = None, unreadable.response
        if unreadable.response is None:
            self.flow.live = False
            self.client_state = self.server_state = self.state_errored
            yield commands.CloseConnection(self.context.client)
        else:
            yield from early_answer.answer(self)
        return True

    check_invalid.ungoverned = original  # type: ignore[attr-defined]
    return check_invalid


def _fault_of(stream: HttpStream) -> str | None:
    """Why a request whose head could be read is none. The words are fixed: mitmproxy's quote what was sent."""
    request = stream.flow.request
    if len(request.data.headers.fields) > MOST_FIELDS:
        return TOO_MANY
    if validate_request(stream.mode, request, stream.context.options.validate_inbound_headers) is not None:
        if request.scheme not in ("http", "https", ""):
            return _BAD_SCHEME
        return _BAD_CONNECT if request.method == "CONNECT" and stream.mode is HTTPMode.transparent else _BAD_FIELDS
    if stream.mode is HTTPMode.transparent or request.data.host or request.method == "CONNECT":
        return None
    return None if _names_a_host(request) else _NO_DESTINATION


def _names_a_host(request: http.Request) -> bool:
    try:
        return bool(url.parse_authority(request.host_header or "", check=True)[0])
    except ValueError:
        return False

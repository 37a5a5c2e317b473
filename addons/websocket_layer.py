"""mitmproxy's WebSocket layer, governed: what no hook sees carries nothing, and what is too much ends in words.

mitmproxy passes on the payloads of pings and pongs and the client's close reason without asking anybody, keeps
unfinished and finished messages without a bound, sends what an addon made of a message, and crashes on what it did not
expect. Here each ping is answered where it arrives and passed on empty, pongs end here, a client's close keeps its code
only, messages pass as they came or not at all, and whatever fails ends the WebSocket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, ClassVar, Protocol

from mitmproxy import ctx, http
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import websocket
from mitmproxy.utils import asyncio_utils
from mitmproxy.websocket import WebSocketMessage

from addons import websocket_frames as frames
from addons.websocket_limits import DEFAULT_MESSAGE_BYTES, RateWindow
from kernel.measures import WebSocketMeasures
from kernel.verdict import Code

logger = logging.getLogger(__name__)

_TEXT, _BINARY = 1, 2
_POLICY_VIOLATION, _GOING_AWAY, _ABNORMAL = 1008, 1001, 1006
# How long an end that was told to close may take to do so: a client that still sends would otherwise find its
# connection reset and never read why.
_LINGER_SECONDS = 2.0
_CLOSING_SECONDS = 5.0
# What may come in while a message is held in a hook, beside one message, and what each read costs beside its bytes.
_WAITING_BYTES = 256 * 1024
_READ_BYTES = 256


class Watch(Protocol):
    """What a governed WebSocket asks of the flow that it belongs to."""

    @property
    def limits(self) -> WebSocketMeasures:
        """What the rule that granted the flow lets it carry. Asked once, at the start."""

    def meter(self, bytes_up: int, bytes_down: int) -> None:
        """Take note of bytes that go to the origin or to the client, frame heads included, before they do."""

    def refused(self, code: Code) -> str:
        """Take note, once at most, that Governor ends the WebSocket; the words in which the client is told why."""


type WatchOf = Callable[[http.HTTPFlow], Watch | None]


def _unwatched(_: http.HTTPFlow) -> Watch | None:
    return None


_watch_of: WatchOf = _unwatched


def install(watch_of: WatchOf) -> None:
    """Govern every WebSocket of this process; one without a watch is closed at once. Installing again replaces it."""
    global _watch_of
    _watch_of = watch_of
    if not hasattr(websocket.WebsocketLayer, "ungoverned"):
        websocket.WebsocketLayer = GovernedWebsocket  # type: ignore[misc]


def close(flow: http.HTTPFlow, code: Code) -> None:
    """End this flow's WebSocket in words, whatever it waits for. To be called on the event loop."""
    handler = ctx.master.addons.get("proxyserver").connections.get(flow.client_conn.id)
    if handler is not None and flow.websocket is not None:
        asyncio_utils.create_task(handler.server_event(Ending(flow, code)), name="end a WebSocket", keep_ref=True)


class Ending(events.MessageInjected[Code]):
    """The WebSocket of this flow is to end; the message says why."""


@dataclass(slots=True)
class _End:
    """One end of the WebSocket."""

    connection: Connection
    reader: frames.FrameReader
    is_origin: bool
    said_close: bool = False
    told_close: bool = False
    is_shut: bool = False


class GovernedWebsocket(websocket.WebsocketLayer):
    """Passes messages under the limits of the flow's watch."""

    ungoverned: ClassVar[type] = websocket.WebsocketLayer

    def __init__(self, context: Context, flow: http.HTTPFlow) -> None:
        super().__init__(context, flow)
        self._watch: Watch | None = None
        self._rate: RateWindow | None = None
        self._most_waiting, self._waiting = _WAITING_BYTES, 0
        self._refused = self._over = False
        self._client, self._origin = self._ends(DEFAULT_MESSAGE_BYTES)

    def handle_event(self, event: events.Event) -> CommandGenerator[None]:
        """Pass the event on, or let it wait for the hook that holds a message: the end of all waits for none."""
        if isinstance(event, Ending) or (self._refused and not isinstance(event, events.HookCompleted)):
            yield from self._handle_event(event)
            return
        if isinstance(event, events.DataReceived):
            self._waiting += len(event.data) + _READ_BYTES
            if self._waiting > self._most_waiting:
                yield from self._guarded(self._refuse(Code.BUSY))
                return
        yield from super().handle_event(event)

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        yield from self._guarded(self._step(event))

    def _guarded(self, steps: CommandGenerator[None]) -> CommandGenerator[None]:
        """Take these steps; a fault ends the WebSocket, in words where they can still be said."""
        while True:
            try:
                yield from steps
            except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001
                fault = type(raised).__name__
            else:
                return
            logger.error("governor: %s in a WebSocket: closed", fault)
            if self._over:
                return
            steps = self._finish() if self._refused else self._refuse(Code.FAULT)

    def _step(self, event: events.Event) -> CommandGenerator[None]:
        match event:
            case _ if self._over:
                return
            case events.Start():
                yield from self._begin()
            case events.Wakeup():
                yield from self._finish()
            case Ending():
                yield from self._refuse(event.message)
            case events.ConnectionEvent() if self._refused:
                yield from self._linger(event)
            case events.DataReceived():
                self._waiting -= len(event.data) + _READ_BYTES
                yield from self._relay(event)
            case events.ConnectionClosed():
                self._note_end(_ABNORMAL, "", by_client=event.connection is self._client.connection)
                yield from self._finish()
            case _:
                # Nobody but the two ends may speak here: an operator's message would be sent without a verdict.
                yield from self._refuse(Code.EDITED)

    def _begin(self) -> CommandGenerator[None]:
        watch = self._watch = _watch_of(self.flow)
        if watch is None:
            yield from self._refuse(Code.UPGRADE_REFUSED)
            return
        limits = watch.limits
        most = DEFAULT_MESSAGE_BYTES if limits.max_frame_bytes is None else limits.max_frame_bytes
        self._client, self._origin = self._ends(most)
        self._most_waiting = most + _WAITING_BYTES
        self._rate = None if limits.max_rate is None else RateWindow(limits.max_rate)
        yield websocket.WebsocketStartHook(self.flow)

    def _ends(self, most_bytes: int) -> tuple[_End, _End]:
        context = self.context
        return (_End(context.client, frames.FrameReader(from_client=True, most_bytes=most_bytes), is_origin=False),
                _End(context.server, frames.FrameReader(from_client=False, most_bytes=most_bytes), is_origin=True))

    def _relay(self, event: events.DataReceived) -> CommandGenerator[None]:
        from_client = event.connection is self._client.connection
        source, other = (self._client, self._origin) if from_client else (self._origin, self._client)
        try:
            for read in source.reader.read(event.data):
                if from_client and not self._in_rate(read):
                    yield from self._refuse(Code.RATE_LIMITED)
                    return
                yield from self._pass(read, source, other)
                if self._refused or self._over:
                    return
        except frames.TooLarge:
            yield from self._refuse(Code.BODY_TOO_LARGE)
        except frames.Unreadable as error:
            yield from self._refuse(Code.MALFORMED, error.close_code)

    def _in_rate(self, read: frames.Read) -> bool:
        # Pings count, or they would be a channel beside the messages. A close ends everything and needs no allowance.
        return self._rate is None or isinstance(read, frames.Close) or self._rate.admits(monotonic_ns())

    def _pass(self, read: frames.Read, source: _End, other: _End) -> CommandGenerator[None]:
        match read:
            case frames.Message():
                yield from self._pass_message(read, other)
            case frames.Ping():
                yield from self._send(source, frames.pong(read.payload, masked=source.is_origin))
                yield from self._send(other, frames.ping(masked=other.is_origin))
            case frames.Close():
                yield from self._pass_close(read, source, other)

    def _pass_message(self, read: frames.Message, other: _End) -> CommandGenerator[None]:
        kind = _TEXT if read.is_text else _BINARY
        message = WebSocketMessage(kind, other.is_origin, read.content)
        # Only the last one is kept: a WebSocket may live for weeks.
        self._data.messages = [message]
        yield websocket.WebsocketMessageHook(self.flow)
        if message.dropped:
            return
        # An operator's kill is an error of the flow, and mitmproxy itself would take no notice of it here.
        if self.flow.error or (message.content, message.type) != (read.content, kind):
            yield from self._refuse(Code.EDITED)
            return
        for frame in frames.message(read, masked=other.is_origin):
            yield from self._send(other, frame)

    def _pass_close(self, said: frames.Close, source: _End, other: _End) -> CommandGenerator[None]:
        """Pass on that one end closes: the code, and the reason to the client only."""
        source.said_close = True
        reason = said.reason if source.is_origin else ""
        yield from self._say_close(other, said.code, reason)
        if other.said_close:
            yield from self._finish()
            return
        self._note_end(said.code, reason, by_client=not source.is_origin)
        yield commands.RequestWakeup(_CLOSING_SECONDS)

    def _refuse(self, code: Code, close_code: int = _POLICY_VIOLATION) -> CommandGenerator[None]:
        """End the WebSocket: in words to the client, with a plain close to the origin."""
        if self._refused or self._over:
            return
        self._refused = True
        reason = self._watch.refused(code) if self._watch is not None else str(code)
        self._note_end(close_code, reason, by_client=False)
        yield from self._say_close(self._client, close_code, reason)
        yield from self._say_close(self._origin, _GOING_AWAY, "")
        yield from self._shut(self._origin)
        if self._client.said_close or self._client.reader.ends_with(b""):
            yield from self._finish()
        else:
            yield commands.RequestWakeup(_LINGER_SECONDS)

    def _linger(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Wait until the client has read why: it answers with a close, or goes."""
        if event.connection is not self._client.connection:
            return
        if not isinstance(event, events.DataReceived) or self._client.reader.ends_with(event.data):
            yield from self._finish()

    def _finish(self) -> CommandGenerator[None]:
        """Close both connections, once."""
        self._over = True
        self._note_end(_ABNORMAL, "", by_client=False)
        yield from self._shut(self._origin)
        yield from self._shut(self._client)
        self.flow.live = False
        hook = websocket.WebsocketEndHook(self.flow)
        # Nothing here waits for it, and a message may still be held in another hook.
        hook.blocking = False
        yield hook

    def _send(self, end: _End, data: bytes) -> CommandGenerator[None]:
        """Send a frame, unless this end was already told that nothing more will come."""
        if end.told_close or end.is_shut:
            return
        if self._watch is not None:
            self._watch.meter(*((len(data), 0) if end.is_origin else (0, len(data))))
        yield commands.SendData(end.connection, data)

    def _say_close(self, end: _End, code: int | None, reason: str) -> CommandGenerator[None]:
        if not (end.told_close or end.is_shut):
            end.told_close = True
            yield commands.SendData(end.connection, frames.close(code, reason, masked=end.is_origin))

    def _shut(self, end: _End) -> CommandGenerator[None]:
        if not end.is_shut:
            end.is_shut = True
            yield commands.CloseConnection(end.connection)

    def _note_end(self, code: int | None, reason: str, *, by_client: bool) -> None:
        """Show how it ended where mitmweb shows it: what came first counts."""
        data = self._data
        if data.timestamp_end is None:
            data.timestamp_end = time.time()
            data.closed_by_client, data.close_code, data.close_reason = by_client, code or 1005, reason

    @property
    def _data(self) -> Any:
        return self.flow.websocket

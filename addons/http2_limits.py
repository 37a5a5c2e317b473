"""What an HTTP/2 peer may cost before it has asked for anything.

The library bounds a decoded head (64 KiB) and open streams (100). It holds up to 64 frames of an unfinished head, which
are 8 MiB at mitmproxy's frame size; it forgets a stream that is reset at once, so that a peer can open any number of
them (CVE-2023-44487); and it answers every ping and every change of settings. Here such connections end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import groupby
from time import monotonic
from typing import Any

import h2.events
import h2.exceptions
from mitmproxy.connection import Client
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

HEAD_BYTES = 64 * 1024
# A client may give up all that it may have open (100 streams), and then some. Each reset has cost a request's work.
RESETS, RESETS_PER_SECOND = 200, 20.0
# gRPC measures its line with pings, a few for each round trip while much is read.
IDLE_FRAMES, IDLE_FRAMES_PER_SECOND = 1000, 100.0
RELIEVED_BYTES = 256 * 1024
# What a piece costs beside its bytes.
_PIECE_BYTES = 256
_IDLE = (h2.events.PingReceived, h2.events.PingAckReceived, h2.events.PriorityUpdated, h2.events.RemoteSettingsChanged,
         h2.events.SettingsAcknowledged, h2.events.UnknownFrameReceived)

type Tell = Callable[[Client], None]

_broken: Tell | None = None


class TooMuch(h2.exceptions.DenialOfServiceError):
    """A peer costs more than it may."""


def install(broken: Tell) -> None:
    """Bound both sides; `broken` is told of each client whose connection ends by an error of the protocol.

    Installing again replaces it.
    """
    global _broken
    _broken = broken
    _http2.BufferedH2Connection = BoundedConnection  # type: ignore[attr-defined]
    if not hasattr(_http2.Http2Server.protocol_error, "ungoverned"):
        _http2.Http2Server.protocol_error = _around(  # type: ignore[method-assign]
            _http2.Http2Server.protocol_error)


class Allowance:
    """So many at once, and then so many a second."""

    __slots__ = ("_left", "_most", "_per_second", "_seen")

    def __init__(self, most: float, per_second: float, now: float) -> None:
        self._most, self._left, self._per_second, self._seen = most, most, per_second, now

    def take(self, count: int, now: float) -> bool:
        """Use some; False when it was more than there is."""
        self._left = min(self._most, self._left + (now - self._seen) * self._per_second) - count
        self._seen = now
        return self._left >= 0


class BoundedConnection(BufferedH2Connection):
    """mitmproxy's HTTP/2 connection, which raises `TooMuch` over a peer that only costs."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        now = monotonic()
        self._resets = Allowance(RESETS, RESETS_PER_SECOND, now)
        self._idle = Allowance(IDLE_FRAMES, IDLE_FRAMES_PER_SECOND, now)
        self.relieved: dict[int, Callable[[], None]] = {}
        """Whom to tell that little of a stream waits for its window any more, by the stream; each is told once."""

    def receive_data(self, data: bytes) -> Any:
        events = super().receive_data(data)
        resets = sum(isinstance(event, h2.events.StreamReset) for event in events)
        idle = sum(map(_asks_nothing, events))
        now = monotonic() if resets or idle else 0.0
        if resets and not self._resets.take(resets, now):
            raise TooMuch("too many streams were reset")
        if idle and not self._idle.take(idle, now):
            raise TooMuch("too many frames that ask for nothing")
        # A list until its head is complete; there is no other way to look.
        unfinished = self.incoming_buffer._headers_buffer
        if unfinished and sum(len(frame.data) for frame in unfinished) > HEAD_BYTES:
            raise TooMuch("a head that does not end")
        if self.relieved:
            self._relieve()
        return _gathered(events)

    def reset_stream(self, stream_id: int, error_code: int = 0) -> None:
        super().reset_stream(stream_id, error_code)
        self._relieve()

    def waits(self, stream_id: int, most: int) -> bool:
        """True when more than so many bytes of this stream wait for its window, and nobody is to be told yet."""
        return stream_id not in self.relieved and self._waiting_bytes(stream_id) > most

    def _relieve(self) -> None:
        for stream_id in tuple(self.relieved):
            if self._waiting_bytes(stream_id) < RELIEVED_BYTES:
                self.relieved.pop(stream_id)()

    def _waiting_bytes(self, stream_id: int) -> int:
        waiting = self.stream_buffers.get(stream_id, ())
        return sum(len(piece.data) + _PIECE_BYTES for piece in waiting)


def _gathered(events: list[h2.events.Event]) -> list[h2.events.Event]:
    """The events, with one for all pieces of a body that follow each other: each costs what a large one costs."""
    gathered: list[h2.events.Event] = []
    for stream_id, run in groupby(events, _stream_of_data):
        pieces: list[Any] = list(run)
        if stream_id is not None and len(pieces) > 1:
            whole = pieces[-1]
            whole.data = b"".join(piece.data for piece in pieces)
            whole.flow_controlled_length = sum(piece.flow_controlled_length for piece in pieces)
            pieces = [whole]
        gathered += pieces
    return gathered


def _stream_of_data(event: h2.events.Event) -> int | None:
    return event.stream_id if isinstance(event, h2.events.DataReceived) else None


def _asks_nothing(event: h2.events.Event) -> bool:
    if isinstance(event, h2.events.DataReceived):
        return not event.data and event.stream_ended is None
    return isinstance(event, _IDLE)


def _around(original: Any) -> Any:
    @wraps(original)
    def protocol_error(self: Any, *arguments: Any, **named: Any) -> CommandGenerator[None]:
        if _broken is not None:
            _broken(self.context.client)
        yield from original(self, *arguments, **named)

    protocol_error.ungoverned = original  # type: ignore[attr-defined]
    return protocol_error

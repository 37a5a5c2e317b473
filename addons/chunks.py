"""A chunked body in tiny chunks: read in turns, so that other clients have theirs.

A chunk costs as much as a small request and can be one byte long, and mitmproxy works off all that lie in one read
before it looks at anybody else. Requests and answers: an agent may have an origin of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import h11
from h11._readers import ChunkedReader
from mitmproxy.connection import Client, Connection
from mitmproxy.proxy import commands
from mitmproxy.proxy.events import ConnectionClosed, DataReceived, Event, Wakeup
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server

# In what is read at once, more than these fit only where they have less than 64 bytes each.
IN_A_TURN = 1000

type Pause = Callable[[Client, Connection], float]

_pause: Pause | None = None


def install(pause: Pause) -> None:
    """Read in turns; between them `pause` has nothing more read from that end, for as many seconds as it says.

    Installing again replaces it.
    """
    global _pause
    _pause = pause
    if not hasattr(Http1Server.read_body, "in_turns"):
        Http1Server.read_body = _around(Http1Connection.read_body)  # type: ignore[method-assign]
        Http1Client.read_body = _around(Http1Connection.read_body)  # type: ignore[method-assign]


class Gathering:
    """A reader of chunked bodies that gives what lies in many chunks as one, and rests after a turn."""

    def __init__(self, reader: Any) -> None:
        self._reader: Any = reader
        self._next: Any = None
        self.left = IN_A_TURN
        self.closed: Event | None = None
        self.read_eof = reader.read_eof

    @property
    def trailers(self) -> Any:
        return getattr(self._reader, "trailers", None)

    def __call__(self, buffer: Any) -> Any:
        event, self._next = self._next, None
        if event is not None:
            return event
        pieces: list[bytes] = []
        while self.left:
            event = self._reader(buffer)
            if not isinstance(event, h11.Data):
                break
            pieces.append(event.data)
            self.left -= 1
        if not pieces:
            return event if self.left else None
        self._next = event if isinstance(event, h11.EndOfMessage) else None
        return h11.Data(data=b"".join(pieces))


def _around(original: Any) -> Any:
    @wraps(original)
    def read_body(self: Http1Connection, event: Event) -> CommandGenerator[None]:
        if isinstance(self.body_reader, ChunkedReader):
            self.body_reader = Gathering(self.body_reader)  # type: ignore[assignment]
        reader: Any = self.body_reader
        if not isinstance(reader, Gathering):
            yield from Http1Connection.read_body(self, event)
        elif reader.left == 0 and not isinstance(event, Wakeup):
            # It is not its turn yet; what came is in the buffer.
            reader.closed = event if isinstance(event, ConnectionClosed) else reader.closed
        else:
            yield from _turn(self, reader, event)

    read_body.in_turns = True  # type: ignore[attr-defined]
    return read_body


def _turn(side: Http1Connection, reader: Gathering, event: Event) -> CommandGenerator[None]:
    reader.left = IN_A_TURN
    if isinstance(event, Wakeup):
        event = DataReceived(side.conn, b"")
    yield from Http1Connection.read_body(side, event)
    if reader.left == 0:
        yield commands.RequestWakeup(0.0 if _pause is None else _pause(side.context.client, side.conn))
    elif reader.closed is not None:
        closed, reader.closed = reader.closed, None
        yield from side.state(closed)

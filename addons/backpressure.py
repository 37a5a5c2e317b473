"""A peer that goes on sending while something is awaited: it has to wait, and nothing piles up.

mitmproxy reads from everyone whatever happens, and keeps what a layer that waits cannot take yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, ref

from mitmproxy.connection import Connection
from mitmproxy.proxy.server import ConnectionHandler

_READ_BYTES = 64 * 1024

_holds: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()


@contextmanager
def held(handler: ConnectionHandler) -> Iterator[None]:
    """Read nothing from the client meanwhile."""
    hold(handler)
    try:
        yield
    finally:
        release(handler)


def hold(handler: ConnectionHandler, end: Connection | None = None) -> None:
    """Read nothing more from this end, or the client, until everyone who holds it has released it."""
    end = end or handler.client
    _holds[end] = _holds.get(end, 0) + 1
    reading = _reading(handler, end)
    if reading is not None:
        reading.pause_reading()
        reader = handler.transports[end].reader
        if isinstance(reader, asyncio.StreamReader):
            # It would resume what it has paused itself, as soon as its buffer is read.
            reader._paused = False  # type: ignore[attr-defined]


def read_little(handler: ConnectionHandler) -> None:
    """Take no more from the client at once than mitmproxy does: what is read ahead of it is kept for each client."""
    reading = _reading(handler, handler.client)
    if reading is not None:
        # 256 KiB in asyncio's selector transports, a private name in others.
        reading.max_size = _READ_BYTES  # type: ignore[attr-defined]


def pause(handler: ConnectionHandler, seconds: float, end: Connection | None = None) -> None:
    """Read nothing from this end, or the client, for a while."""
    hold(handler, end)
    # Nobody is kept for that who is gone meanwhile.
    asyncio.get_running_loop().call_later(seconds, _release_if_there, ref(handler), end)


def _release_if_there(handler: ref[ConnectionHandler], end: Connection | None) -> None:
    there = handler()
    if there is not None:
        release(there, end)


def release(handler: ConnectionHandler, end: Connection | None = None) -> None:
    """End one hold."""
    end = end or handler.client
    left = _holds.get(end, 0) - 1
    if left > 0:
        _holds[end] = left
        return
    _holds.pop(end, None)
    reading = _reading(handler, end)
    if reading is not None and not reading.is_closing():
        reading.resume_reading()


def _reading(handler: ConnectionHandler, end: Connection) -> asyncio.ReadTransport | None:
    transport = handler.transports.get(end)
    writer = transport.writer if transport is not None else None
    if not isinstance(writer, asyncio.StreamWriter):
        return None
    reading = writer.transport
    return reading if isinstance(reading, asyncio.ReadTransport) else None

"""A client that goes on sending while a verdict or a connection is awaited: it has to wait, and nothing piles up.

mitmproxy reads from a client whatever happens, and keeps what a layer that waits cannot take yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, ref

from mitmproxy.proxy.server import ConnectionHandler

_READ_BYTES = 64 * 1024

_holds: WeakKeyDictionary[ConnectionHandler, int] = WeakKeyDictionary()


@contextmanager
def held(handler: ConnectionHandler) -> Iterator[None]:
    """Read nothing from the client meanwhile."""
    hold(handler)
    try:
        yield
    finally:
        release(handler)


def hold(handler: ConnectionHandler) -> None:
    """Read nothing more from the client until everyone who holds it has released it."""
    _holds[handler] = _holds.get(handler, 0) + 1
    reading = _reading(handler)
    if reading is not None:
        reading.pause_reading()


def read_little(handler: ConnectionHandler) -> None:
    """Take no more from the client at once than mitmproxy does: what is read ahead of it is kept for each client."""
    reading = _reading(handler)
    if reading is not None:
        # 256 KiB in asyncio's selector transports, a private name in others.
        reading.max_size = _READ_BYTES  # type: ignore[attr-defined]


def pause(handler: ConnectionHandler, seconds: float) -> None:
    """Read nothing from the client for a while."""
    hold(handler)
    # Nobody is kept for that who is gone meanwhile.
    asyncio.get_running_loop().call_later(seconds, _release_if_there, ref(handler))


def _release_if_there(handler: ref[ConnectionHandler]) -> None:
    there = handler()
    if there is not None:
        release(there)


def release(handler: ConnectionHandler) -> None:
    """End one hold."""
    left = _holds.get(handler, 0) - 1
    if left > 0:
        _holds[handler] = left
        return
    _holds.pop(handler, None)
    reading = _reading(handler)
    if reading is not None and not reading.is_closing():
        reading.resume_reading()


def _reading(handler: ConnectionHandler) -> asyncio.ReadTransport | None:
    transport = handler.transports.get(handler.client)
    writer = transport.writer if transport is not None else None
    if not isinstance(writer, asyncio.StreamWriter):
        return None
    reading = writer.transport
    return reading if isinstance(reading, asyncio.ReadTransport) else None

"""A connection that mitmproxy has decided to close is closed, whatever its task was doing.

mitmproxy closes by cancelling the connection's task. One that has read the peer's end may wait for a lock, and a
cancellation in that place ends it before it closes the socket: the peer waits until the garbage collector comes by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy.connection import Connection
from mitmproxy.proxy.server import ConnectionHandler

type HandleConnection = Callable[[Any, Connection], Awaitable[None]]


def install() -> None:
    """Close what is left open when a connection's task ends. Installing again changes nothing."""
    if not hasattr(ConnectionHandler.handle_connection, "ungoverned"):
        ConnectionHandler.handle_connection = _around(ConnectionHandler.handle_connection)  # type: ignore[method-assign,assignment]


def _around(original: HandleConnection) -> HandleConnection:
    async def handle_connection(self: ConnectionHandler, connection: Connection) -> None:
        try:
            await original(self, connection)
        finally:
            left = self.transports.pop(connection, None)
            if left is not None and left.writer is not None:
                left.writer.close()  # type: ignore[no-untyped-call,unused-ignore]

    handle_connection.ungoverned = original  # type: ignore[attr-defined]
    return handle_connection

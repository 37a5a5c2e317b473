"""An HTTP/2 client that does not read its answers: the origin has to wait, and nothing piles up.

HTTP/2 has a window for each stream. mitmproxy keeps whatever does not fit into it, as fast as the origin sends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from mitmproxy.connection import Client, Connection
from mitmproxy.proxy.events import Event
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._events import ResponseData

from addons.http2_limits import BoundedConnection

# Streams of one HTTP/2 origin share its connection, and all of them wait for the slowest: that is put off as far as
# memory allows.
MOST_BYTES, MOST_SHARED_BYTES = 1024 * 1024, 8 * 1024 * 1024

type Tell = Callable[[Client, Connection], None]


def _nobody(_client: Client, _origin: Connection) -> None:
    return


_hold: Tell = _nobody
_release: Tell = _nobody


def install(hold: Tell, release: Tell) -> None:
    """`hold(client, origin)` has nothing read from this origin, `release` lets it go on.

    Installing again replaces both.
    """
    global _hold, _release
    _hold, _release = hold, release
    if not hasattr(HttpStream.state_stream_response_body, "in_step"):
        HttpStream.state_stream_response_body = _around(  # type: ignore[method-assign]
            HttpStream.state_stream_response_body)


def _around(original: Any) -> Any:
    @wraps(original)
    def state_stream_response_body(self: HttpStream, event: Event) -> CommandGenerator[None]:
        yield from original(self, event)
        if isinstance(event, ResponseData) and self.context.client.alpn == b"h2":
            _wait_for_reader(self)

    state_stream_response_body.in_step = True  # type: ignore[attr-defined]
    return state_stream_response_body


def _wait_for_reader(stream: HttpStream) -> None:
    layers: Any = stream.context.layers
    client, origin = stream.context.client, stream.flow.server_conn
    sending = getattr(layers[layers.index(stream) - 1].connections.get(client), "h2_conn", None)
    most = MOST_SHARED_BYTES if origin.alpn == b"h2" else MOST_BYTES
    if isinstance(sending, BoundedConnection) and sending.waits(stream.stream_id, most):
        _hold(client, origin)
        sending.relieved[stream.stream_id] = partial(_release, client, origin)

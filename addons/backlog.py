"""What a client sends on while its last request is unanswered: kept as far as pipelining needs it, and no further.

mitmproxy answers one HTTP/1 request after the other and keeps all that comes meanwhile.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from mitmproxy.proxy import commands
from mitmproxy.proxy.events import DataReceived, Event
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Server

MOST_BYTES = 1024 * 1024


def install() -> None:
    """Bound what waits. Installing again changes nothing."""
    if not hasattr(Http1Server.wait, "ungoverned"):
        Http1Server.wait = _around(Http1Server.wait)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    @wraps(original)
    def wait(self: Http1Server, event: Event) -> CommandGenerator[None]:
        if isinstance(event, DataReceived) and len(self.buf) > MOST_BYTES:
            self.state = self.done
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(RequestProtocolError(
                self.stream_id, "more requests than may wait", ErrorCode.CLIENT_DISCONNECTED))
            return
        yield from original(self, event)

    wait.ungoverned = original  # type: ignore[attr-defined]
    return wait

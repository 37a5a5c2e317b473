"""Informational responses (100, 103) of HTTP/1 origins, which mitmproxy takes for the answer.

It would pass one on as the whole answer and drop the real one as unasked for: the client waits for ever, or takes the
answer to its next request for the one to this. Here they are dropped, as mitmproxy drops those of HTTP/2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy.proxy.events import ConnectionEvent, DataReceived
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ResponseHeaders

type ReadHeaders = Callable[[Any, ConnectionEvent], CommandGenerator[None]]

_SWITCHING_PROTOCOLS = 101


def install() -> None:
    """Have mitmproxy wait for the final response. Installing again changes nothing."""
    if not hasattr(_http1.Http1Client.read_headers, "ungoverned"):
        _http1.Http1Client.read_headers = _around(_http1.Http1Client.read_headers)  # type: ignore[method-assign,assignment]


def _around(original: ReadHeaders) -> ReadHeaders:
    def read_headers(self: Any, event: ConnectionEvent) -> CommandGenerator[None]:
        while True:
            for command in original(self, event):
                if _is_interim(command):
                    break
                yield command
            else:
                return
            self.response, event = None, DataReceived(self.conn, b"")

    read_headers.ungoverned = original  # type: ignore[attr-defined]
    return read_headers


def _is_interim(command: Any) -> bool:
    if not isinstance(command, ReceiveHttp) or not isinstance(command.event, ResponseHeaders):
        return False
    status = command.event.response.status_code
    return 100 <= status < 200 and status != _SWITCHING_PROTOCOLS

"""The head of an origin's HTTP/1 answer: bounded, and not the one that only says that an answer will follow.

mitmproxy takes an informational answer (RFC 9110 section 15.2) for the answer itself and ends the exchange at what
follows. Of a head that never ends it keeps every byte.
"""

from __future__ import annotations

import re
from functools import wraps
from typing import Any

from mitmproxy.proxy import commands
from mitmproxy.proxy.events import DataReceived, Event
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client

MOST_BYTES = 256 * 1024

# 101 is an answer: the protocol changes after it.
_INFORMATIONAL = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9][ \r\n]")


def install() -> None:
    """Read heads so. Installing again changes nothing."""
    if not hasattr(Http1Client.read_headers, "ungoverned"):
        Http1Client.read_headers = _around(Http1Client.read_headers)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    @wraps(original)
    def read_headers(self: Http1Client, event: Event) -> CommandGenerator[None]:
        if isinstance(event, DataReceived) and self.request is not None:
            while _INFORMATIONAL.match(bytes(self.buf)) and self.buf.maybe_extract_lines():
                pass
        yield from original(self, event)
        if len(self.buf) > MOST_BYTES and self.state == self.read_headers and self.stream_id is not None:
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(ResponseProtocolError(
                self.stream_id, "the head of the answer does not end", ErrorCode.GENERIC_SERVER_ERROR))

    read_headers.ungoverned = original  # type: ignore[attr-defined]
    return read_headers

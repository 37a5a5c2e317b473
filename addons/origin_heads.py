"""The head of an origin's HTTP/1 answer: bounded, and not the one that only says that an answer will follow.

mitmproxy takes an informational answer (RFC 9110 section 15.2) for the answer itself and drops the real one as unasked
for: the client waits for ever, or takes the answer to its next request for the one to this. They are dropped here, as
mitmproxy drops those of HTTP/2. Of a head that never ends mitmproxy keeps every byte, and it passes on a bare CR, at
which some clients end a line and then the head: it becomes a space (RFC 9112 section 2.2), and so does the break of a
folded line (section 5.2).
"""

from __future__ import annotations

import re
from functools import wraps
from typing import Any

from mitmproxy.http import ResponseData
from mitmproxy.proxy import commands
from mitmproxy.proxy.events import ConnectionEvent, DataReceived
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client

MOST_BYTES = 256 * 1024
# The protocol changes after it: this one is an answer.
_SWITCHING_PROTOCOLS = 101
_BREAK = re.compile(rb"[\r\n\0][\r\n\0 \t]*")


def install() -> None:
    """Read heads so. Installing again changes nothing."""
    if not hasattr(Http1Client.read_headers, "ungoverned"):
        Http1Client.read_headers = _around(Http1Client.read_headers)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    @wraps(original)
    def read_headers(self: Http1Client, event: ConnectionEvent) -> CommandGenerator[None]:
        while True:
            for command in original(self, event):
                head = _head_in(command)
                if head is not None and _is_informational(head):
                    break
                if head is not None:
                    _join_lines(head)
                yield command
            else:
                break
            self.response, event = None, DataReceived(self.conn, b"")
        if len(self.buf) > MOST_BYTES and self.state == self.read_headers and self.stream_id is not None:
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(ResponseProtocolError(
                self.stream_id, "the head of the answer does not end", ErrorCode.GENERIC_SERVER_ERROR))

    read_headers.ungoverned = original  # type: ignore[attr-defined]
    return read_headers


def _head_in(command: Any) -> ResponseData | None:
    if isinstance(command, ReceiveHttp) and isinstance(command.event, ResponseHeaders):
        return command.event.response.data
    return None


def _is_informational(head: ResponseData) -> bool:
    return 100 <= head.status_code < 200 and head.status_code != _SWITCHING_PROTOCOLS


def _join_lines(head: ResponseData) -> None:
    """Leave no character in the head at which a reader could end a line of it."""
    fields = head.headers.fields
    if _BREAK.search(b"".join([head.reason, *[part for field in fields for part in field]])):
        head.reason = _BREAK.sub(b" ", head.reason)
        head.headers.fields = tuple((_BREAK.sub(b" ", name), _BREAK.sub(b" ", value)) for name, value in fields)

"""Every body reaches an HTTP/1 origin framed.

An HTTP/2 request may have a body and no length. mitmproxy would write it bare behind the headers, where a second
request can hide in it. A body of known size gets its Content-Length with the verdict; one that streams is chunked here.
"""

from __future__ import annotations

from typing import Any

from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._events import HttpEvent, RequestHeaders
from mitmproxy.proxy.layers.http._http1 import Http1Client


def install() -> None:
    """Frame what is sent. Installing again changes nothing."""
    if not hasattr(Http1Client.send, "ungoverned"):
        Http1Client.send = _around(Http1Client.send)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    def send(self: Http1Client, event: HttpEvent) -> CommandGenerator[None]:
        if isinstance(event, RequestHeaders) and not event.end_stream and event.request.is_http2:
            headers = event.request.headers
            if "content-length" not in headers:
                event.request = event.request.copy()
                event.request.headers["transfer-encoding"] = "chunked"
        yield from original(self, event)

    send.ungoverned = original  # type: ignore[attr-defined]
    return send

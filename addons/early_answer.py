"""A refusal that goes out at once: while the request is still coming in, or in the place of its origin's answer.

mitmproxy reads every request to its end before it answers, and an answer to its end before it is another one. Here an
answer is sent as soon as the hook at the headers, or the limit of a body, has set one: a body is neither invited nor
kept, and what still comes from either side is read and dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mitmproxy import http
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import DropStream, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import ResponseData, ResponseEndOfMessage, ResponseHeaders
from mitmproxy.proxy.layers.http._hooks import HttpResponseHook

type IsEarly = Callable[[http.HTTPFlow], bool]

_is_early: IsEarly | None = None


def install(is_early: IsEarly) -> None:
    """Answer where `is_early(flow)` says that its response waits for nothing. Installing again replaces it."""
    global _is_early
    _is_early = is_early
    if not hasattr(HttpStream.check_killed, "ungoverned"):
        HttpStream.check_killed = _around(HttpStream.check_killed)  # type: ignore[method-assign]


def answer(stream: HttpStream) -> CommandGenerator[None]:
    """Send the flow's response now and be done with the stream."""
    flow, client = stream.flow, stream.context.client
    response = flow.response
    assert response is not None
    response.timestamp_start = response.timestamp_end = time.time()
    flow.live = False
    yield HttpResponseHook(flow)
    stream.client_state = stream.server_state = stream.state_errored
    # gRPC takes the status from a head only where that is the end as well, and says "stream removed" otherwise.
    yield SendHttp(ResponseHeaders(stream.stream_id, response, end_stream=not response.data.content), client)
    if response.data.content:
        yield SendHttp(ResponseData(stream.stream_id, response.data.content), client)
    yield DropStream(stream.stream_id)
    yield SendHttp(ResponseEndOfMessage(stream.stream_id), client)


def _around(original: Any) -> Any:
    def check_killed(self: HttpStream, emit_error_hook: bool) -> CommandGenerator[bool]:
        if (yield from original(self, emit_error_hook)):
            return True
        if _is_early is None or not _is_early(self.flow):
            return False
        yield from answer(self)
        return True

    check_killed.ungoverned = original  # type: ignore[attr-defined]
    return check_killed

"""What a client gets when its request was allowed and the origin failed: the same body as a refusal, with status 502.

mitmproxy answers with a page of its own and closes. This takes the place of that page wherever no byte of an answer has
been sent and the request was read to its end, or streams; everything else keeps mitmproxy's behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy import flow, http
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import DropStream, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook

from addons import early_answer

type Answer = Callable[[http.HTTPFlow], http.Response]

_answer: Answer | None = None


def install(answer: Answer) -> None:
    """Have `answer` make the response of every origin's failure. Installing again replaces it."""
    global _answer
    _answer = answer
    if not hasattr(HttpStream.handle_protocol_error, "ungoverned"):
        HttpStream.handle_protocol_error = _around(HttpStream.handle_protocol_error)  # type: ignore[method-assign]


def explain(message: str) -> str:
    """Which of the few kinds of failure mitmproxy's message tells of, in words that quote nothing of the origin's."""
    lowered = message.lower()
    if "certificate" in lowered or "hostname mismatch" in lowered:
        return "the origin's certificate could not be verified"
    if "tls" in lowered or "handshake" in lowered:
        return "the origin refused the TLS handshake"
    if "connect" in lowered:
        return "the origin could not be reached"
    return "the origin ended the exchange or broke the protocol"


def _around(original: Any) -> Any:
    def handle_protocol_error(self: HttpStream, event: Any) -> CommandGenerator[None]:
        if _answer is None or not _answerable(self, event):
            yield from original(self, event)
            return
        self.flow.error = flow.Error(event.message)
        yield HttpErrorHook(self.flow)
        self.server_state = self.state_errored
        if (yield from self.check_killed(emit_error_hook=False)):
            return
        self.flow.response = response = _answer(self.flow)
        if self.client_state != self.state_done:
            response.headers["connection"] = "close"
            yield from early_answer.answer(self)
            return
        yield SendHttp(ResponseHeaders(self.stream_id, response, end_stream=False), self.context.client)
        yield SendHttp(ResponseData(self.stream_id, response.content or b""), self.context.client)
        self.flow.live = False
        yield DropStream(self.stream_id)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    handle_protocol_error.ungoverned = original  # type: ignore[attr-defined]
    return handle_protocol_error


def _answerable(stream: HttpStream, event: Any) -> bool:
    return (
        isinstance(event, ResponseProtocolError)
        and event.code is not ErrorCode.KILL
        and stream.flow.response is None
        and (stream.client_state == stream.state_done or bool(stream.flow.request.stream))
        and stream.server_state not in (stream.state_done, stream.state_errored)
    )

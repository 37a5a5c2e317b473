"""What a stream says when it is cut, so that its client does not take the end for a network fault and try again."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from mitmproxy import http

from addons.refusal import Refused, grpc_fields, llm_error, members
from kernel.verdict import Code

POLICY_VIOLATION = 1008
"""The WebSocket close code (RFC 6455) of a cut."""

# A control frame carries 125 bytes, and the close code takes two of them.
_CLOSE_REASON_BYTES = 123
_EVENT_END = re.compile(rb".*(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)", re.DOTALL)


def takes_events(response: http.Response) -> bool:
    """True when an event can be put behind what has passed: an event stream that is neither encoded nor counted."""
    headers = response.headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = headers.get("content-encoding", "identity").strip().lower()
    return kind == "text/event-stream" and coding == "identity" and "content-length" not in headers


def sse(refused: Refused, llm_host: bool = False) -> bytes:
    """One server-sent event `error` with the problem details.

    On a model provider's stream the data is what the clients of all of them raise an error for: the OpenAI clients look
    for the member `error`, Anthropic's for the event's name.
    """
    ended = replace(refused, cut=True)
    told = members(ended, ended.verdict.code.status)
    if llm_host:
        told |= {"type": "error", "error": llm_error(ended)}
    data = json.dumps(told, separators=(",", ":")).encode()
    # The blank line ends whatever event was under way; where none was, it says nothing.
    return b"\n\nevent: error\ndata: " + data + b"\n\n"


def whole_events(chunk: bytes) -> bytes:
    """The chunk up to the end of its last whole event: a client would read half an event as data and stumble there."""
    found = _EVENT_END.match(chunk)
    return found[0] if found else b""


def close_reason(code: Code, entry: str | None) -> str:
    """The reason of a WebSocket close frame, for example `RULE_DENY main/1234`."""
    reason = f"{code} {entry}" if entry else str(code)
    return reason.encode(errors="replace")[:_CLOSE_REASON_BYTES].decode(errors="ignore")


def grpc_trailers(refused: Refused) -> http.Headers:
    """The trailers that end a gRPC call: PERMISSION_DENIED with the detail as its message."""
    fields = grpc_fields(replace(refused, cut=True))
    return http.Headers([(name.encode(), value.encode()) for name, value in fields.items()])

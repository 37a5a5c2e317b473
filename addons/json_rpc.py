"""JSON-RPC 2.0 as far as a refusal needs it: is this body one call that waits for an answer, and under which id?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mitmproxy import http

from addons import codec
from addons.decoding import Bounds, Undecodable, decoded
from kernel.errors import CanonicalError

type Id = str | int | float | None

_LONGEST_BODY = 64 * 1024
_BOUNDS = Bounds(max_bytes=_LONGEST_BODY)
# A client's ids are counters and UUIDs; what is longer would only be text of the client's in an answer of ours.
_LONGEST_ID = 256
# Beyond it a number may come back as another one.
_LARGEST_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Call:
    """A request object; a notification and a batch are none."""

    id: Id


def call_in(request: http.Request) -> Call | None:
    """The one call that the body is. None where it is anything else; whatever the body, nothing is raised."""
    content = request.data.content
    if not content or len(content) > _LONGEST_BODY:
        return None
    try:
        plain = decoded(content, request.headers.get("content-encoding", ""), _BOUNDS)
        # The reader stops at a thousand levels of nesting.
        value: Any = codec.read(plain) if plain.lstrip()[:1] == b"{" else None
    except (Undecodable, CanonicalError):
        return None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0" or not isinstance(value.get("method"), str):
        return None
    return Call(value["id"]) if "id" in value and _is_id(value["id"]) else None


def _is_id(value: object) -> bool:
    match value:
        case None:
            return True
        case bool():
            return False
        case str():
            return len(value) <= _LONGEST_ID
        case int():
            return True
        case float():
            return abs(value) < _LARGEST_EXACT
        case _:
            return False


def error(call: Call, code: int, message: str, data: dict[str, Any]) -> dict[str, Any]:
    """The answer to a call that failed. Codes from -32768 to -32000 are JSON-RPC's own."""
    return {"jsonrpc": "2.0", "id": call.id, "error": {"code": code, "message": message, "data": data}}

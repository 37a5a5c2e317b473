"""The bodies of requests as their fields are read: whole, without content codings, and never more than a little."""

from __future__ import annotations

from addons.decoding import Bounds, Undecodable, decoded
from kernel.comparison import Gap
from kernel.fields import MOST_BODY_BYTES, Headers, like, nominated

# A little that is sent must not become much to be read: JSON and forms shrink to a tenth, not to a thousandth.
_MOST_RATIO = 20
_ALWAYS_BYTES = 64 * 1024
_ENCODING = b"content-encoding"
STREAMED = Gap("the body passes while it comes")


def readable(body: bytes | None, headers: Headers, most_bytes: int = MOST_BODY_BYTES) -> bytes | Gap:
    """The body as an origin reads it that goes by these header fields. None stands for one that is too long."""
    if body is None or len(body) > most_bytes:
        return Gap(f"the body has more than {most_bytes} bytes")
    codings = [value for name, value in headers if like(name) == _ENCODING]
    if not body or not codings:
        return body
    if len(codings) > 1 or _ENCODING in nominated(headers):
        return Gap("there is more than one content-encoding, or it may be taken out on the way")
    most = min(most_bytes, max(_ALWAYS_BYTES, _MOST_RATIO * len(body)))
    try:
        return decoded(body, codings[0].decode("latin-1"), Bounds(most))
    except Undecodable as refused:
        return Gap(f"the body cannot be decoded: {refused.reason}")

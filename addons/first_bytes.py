"""What the first bytes of a client say that it speaks: TLS, HTTP, or something that is not governed."""

from __future__ import annotations

import re
from enum import StrEnum

# A method (RFC 9110 section 5.6.2) and the space behind it, or so much of it as has come.
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}(?: |\Z)")
# The head of a TLS record that holds a handshake, or so much of it as has come.
_RECORD = re.compile(rb"\x16(?:\Z|\x03(?:\Z|[\x00-\x03]))")
# A client that has sent this much and still has not decided sends blank lines; the head's own limits are for those.
_MOST_BYTES = 64


class Speaks(StrEnum):
    """What a connection begins with."""

    TLS = "tls"
    HTTP = "http"
    UNDECIDED = "undecided"
    NEITHER = "neither"


def spoken(data: bytes) -> Speaks:
    """What begins with these bytes."""
    if _RECORD.match(data):
        return Speaks.TLS if len(data) > 2 else Speaks.UNDECIDED
    # Some clients end a CONNECT with one line more than it has.
    begun = data[:_MOST_BYTES].lstrip(b"\r\n")
    if begun and (_METHOD.match(begun) is None or begun.startswith(b"SSH-")):
        return Speaks.NEITHER
    if len(data) >= _MOST_BYTES or b" " in begun:
        return Speaks.HTTP
    return Speaks.UNDECIDED

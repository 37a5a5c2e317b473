"""The least HTTP a load generator needs: fixed requests out, one answer at a time in."""

from __future__ import annotations

from typing import Protocol

from hpack import Decoder


class BadAnswer(Exception):
    """The answer is not the 200 that the origin gives to every request."""


class Codec(Protocol):
    """One connection's protocol. `opening` is sent once; `feed` is True once the last request is answered whole."""

    opening: bytes

    def request(self) -> bytes: ...

    def feed(self, data: bytes) -> bool: ...

    def replies(self) -> bytes: ...


class Http1:
    """HTTP/1.1 with content-length, without pipelining."""

    opening = b""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""

    def request(self) -> bytes:
        return self._request

    def feed(self, data: bytes) -> bool:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        if head[9:12] != b"200":
            raise BadAnswer(self._buffer[:600].decode("latin-1"))
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17:].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return False
        self._buffer = b""
        return True

    def replies(self) -> bytes:
        return b""


class Http2:
    """HTTP/2 with one stream at a time and windows so wide that flow control never speaks."""

    _SETTINGS_ACK = b"\0\0\0\x04\x01\0\0\0\0"
    # Initial window 2^31-1 for streams, then the same for the connection.
    opening = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x04\x7f\xff\xff\xff"
               + b"\0\0\x04\x08\0\0\0\0\0" + b"\x7f\xff\0\0")

    def __init__(self, authority: str) -> None:
        name = authority.encode()
        # :method GET, :scheme https and :path / stand in the static table; :authority is written out.
        self._block = b"\x82\x87\x84\x01" + bytes([len(name)]) + name
        self._stream = -1
        self._buffer = b""
        self._replies = b""
        self._decoder = Decoder()

    def request(self) -> bytes:
        self._stream += 2
        return len(self._block).to_bytes(3) + b"\x01\x05" + self._stream.to_bytes(4) + self._block

    def feed(self, data: bytes) -> bool:
        self._buffer += data
        complete = False
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3])
            if len(self._buffer) < end:
                break
            kind, flags, payload = self._buffer[3], self._buffer[4], self._buffer[9:end]
            self._buffer = self._buffer[end:]
            complete = self._frame(kind, flags, payload) or complete
        return complete

    def _frame(self, kind: int, flags: int, payload: bytes) -> bool:
        match kind:
            case 0x0:
                return bool(flags & 1)
            case 0x1:
                headers = dict(self._decoder.decode(payload, raw=True))
                if headers.get(b":status") != b"200":
                    raise BadAnswer(str(headers))
                return bool(flags & 1)
            case 0x3 | 0x7:
                raise BadAnswer(f"the stream or the connection was ended: frame {kind}, {payload!r}")
            case 0x4 if not flags & 1:
                self._replies += self._SETTINGS_ACK
            case 0x6 if not flags & 1:
                self._replies += b"\0\0\x08\x06\x01\0\0\0\0" + payload
        return False

    def replies(self) -> bytes:
        replies, self._replies = self._replies, b""
        return replies

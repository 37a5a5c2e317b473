"""Valid HTTP/1 and HTTP/2 client streams, and random damage to bytes and frames."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
_PIECES = (b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\r\n\r\n", b"\n\n", b"0\r\n\r\n", b"5\r\n",
           b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:+5\r\n",
           b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: xchunked\r\n",
           b"Transfer-Encoding:\n chunked\r\n", b"Connection: close\r\n", b"Connection: content-length\r\n",
           b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.1", b"http://", b"GET ", b"Upgrade: h2c\r\n", b"\xff",
           b"x", b"\r\n ")


def _bait(mark: str, port: int) -> bytes:
    """A whole request that stands in a body: nobody may ever take it for one without a verdict."""
    return (f"GET /hidden-{mark} HTTP/1.1\r\nHost: localhost:{port}\r\n"
            f"Content-Type: mark/{mark}-hidden\r\n\r\n").encode()


def http1(chance: Random, mark: str, port: int, prefix: str) -> bytes:
    """Some pipelined requests, each with its own mark as content type and in its path."""
    return b"".join(_http1(chance, f"{mark}-{number}", port, prefix) for number in range(chance.randint(1, 4)))


def last(mark: str, port: int, prefix: str) -> bytes:
    """A request with a mark, after which the connection is to be closed."""
    return (f"GET {prefix}/{mark} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: mark/{mark}\r\n"
            "Connection: close\r\n\r\n").encode()


def _http1(chance: Random, mark: str, port: int, prefix: str) -> bytes:
    body = chance.choice((b"", b"four", _bait(mark, port), _bait(mark, port) * 2))
    method = chance.choice(("POST", "PUT", "DELETE")) if body else chance.choice(("GET", "HEAD", "GET", "OPTIONS"))
    path = chance.choice((f"/{mark}", f"/{mark}?q={mark}", f"/denied/{mark}", f"//{mark}/%7e", f"/{mark}"))
    head = (f"{method} {prefix}{path} HTTP/1.{chance.choice('1111110')}\r\nHost: localhost:{port}\r\n"
            f"Content-Type: mark/{mark}\r\n")
    if not body:
        return f"{head}\r\n".encode()
    if chance.random() < 0.5:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    cut = chance.randrange(len(body))
    chunks = [b"%x%b\r\n%b\r\n" % (len(part), chance.choice((b"", b"", b";a=b", b"  ")), part)
              for part in (body[:cut], body[cut:]) if part]
    trailer = chance.choice((b"", b"", b"", b"X-Late: 1\r\n"))
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


def mutated(chance: Random, content: bytes, other: bytes) -> bytes:
    """The bytes with some damage; `other` is what may be spliced in."""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 5))):
        content = chance.choice(_DAMAGES)(chance, content, other)
    return content


def _span(chance: Random, content: bytes, longest: int = 40) -> tuple[int, int]:
    start = chance.randint(0, len(content))
    return start, min(len(content), start + chance.randint(0, longest))


def _flip(chance: Random, content: bytes, other: bytes) -> bytes:
    if not content:
        return content
    at = chance.randrange(len(content))
    return content[:at] + bytes((content[at] ^ 1 << chance.randrange(8),)) + content[at + 1:]


def _insert(chance: Random, content: bytes, other: bytes) -> bytes:
    at = chance.randint(0, len(content))
    return content[:at] + chance.choice(_PIECES) + content[at:]


def _insert_line(chance: Random, content: bytes, other: bytes) -> bytes:
    ends = [at for at in range(len(content)) if content[at:at + 2] == b"\r\n"] or [0]
    at = chance.choice(ends)
    return content[:at] + b"\r\n" + chance.choice(_PIECES).removesuffix(b"\r\n") + content[at:]


def _replace_end(chance: Random, content: bytes, other: bytes) -> bytes:
    ends = [at for at in range(len(content)) if content[at:at + 2] == b"\r\n"] or [0]
    at = chance.choice(ends)
    return content[:at] + chance.choice(_ENDS) + content[at + 2:]


_ENDS = (b"\n", b"\r", b"\r\r\n", b"", b"\r\n ", b" \r\n", b"\0\r\n")
_NUMBERS = (b"", b"0", b"1", b"9", b"00", b"-1", b"+1", b"0x1", b"1 1", b"1,1")


def _delete(chance: Random, content: bytes, other: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + content[end:]


def _double(chance: Random, content: bytes, other: bytes) -> bytes:
    start, end = _span(chance, content, 200)
    return content[:end] + content[start:end] + content[end:]


def _splice(chance: Random, content: bytes, other: bytes) -> bytes:
    start, end = _span(chance, other, len(other))
    at = chance.randint(0, len(content))
    return content[:at] + other[start:end] + content[at:]


def _truncate(chance: Random, content: bytes, other: bytes) -> bytes:
    return content[:chance.randint(0, len(content))]


def _number(chance: Random, content: bytes, other: bytes) -> bytes:
    digits = [at for at in range(len(content)) if content[at:at + 1].isdigit()]
    if not digits:
        return content
    at = chance.choice(digits)
    return content[:at] + chance.choice(_NUMBERS) + content[at + 1:]


_DAMAGES = (_flip, _insert, _insert_line, _insert_line, _replace_end, _delete, _double, _splice, _truncate, _number)


# HTTP/2


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def http2(chance: Random, mark: str, port: int) -> list[bytes]:
    """The frames of some requests on one connection, some of them interleaved. The preface is not among them."""
    encoder = Encoder()
    streams = [_http2(chance, encoder, f"{mark}-{number}", port, 1 + 2 * number)
               for number in range(chance.randint(1, 4))]
    frames = [frame(_SETTINGS, 0, 0)]
    if chance.random() < 0.5:
        frames += [part for stream in streams for part in stream]
    else:
        # Headers must come in the order in which they were encoded.
        frames += [part for stream in streams for part in stream[:-1]] + [stream[-1] for stream in streams]
    return frames


def _http2(chance: Random, encoder: Encoder, mark: str, port: int, stream: int) -> list[bytes]:
    body = chance.choice((b"", b"", b"four", _bait(mark, port)))
    fields = _fields(chance, mark, port, body)
    # A connection ends at the first fault of its peer: more of them would only mean that nothing is reached behind it.
    if chance.random() < 0.1:
        fields = _damaged(chance, fields, _bait(mark, port))
    block = encoder.encode(fields)
    last = 0 if body else 1
    frames = [frame(_HEADERS, 4 | last, stream, block)]
    if chance.random() < 0.2:
        cut = chance.randint(0, len(block))
        frames = [frame(_HEADERS, last, stream, block[:cut]), frame(_CONTINUATION, 4, stream, block[cut:])]
    if body:
        frames += _bodies(chance, encoder, stream, body)
    if chance.random() < 0.2:
        frames.append(chance.choice((
            frame(_RESET, 0, stream, b"\0\0\0\x08"), frame(_PRIORITY, 0, stream, b"\0\0\0\0\x10"),
            frame(_WINDOW, 0, stream, b"\0\0\xff\xff"), frame(_PING, 0, 0, b"12345678"),
            frame(_DATA, 1, stream, b"late"), frame(0x7f, 0, stream, b"unknown"))))
    return frames


def _fields(chance: Random, mark: str, port: int, body: bytes) -> list[tuple[bytes, bytes]]:
    path = chance.choice((f"/{mark}", f"/{mark}?q={mark}", f"/denied/{mark}", f"/{mark}"))
    fields = [(":method", "POST" if body else "GET"), (":scheme", "https"), (":authority", f"localhost:{port}"),
              (":path", path), ("content-type", f"mark/{mark}")]
    if body and chance.random() < 0.7:
        fields.append(("content-length", str(len(body))))
    if chance.random() < 0.2:
        fields += [("cookie", "a=b"), ("cookie", "c=d")]
    return [(name.encode(), value.encode()) for name, value in fields]


def _damaged(chance: Random, fields: list[tuple[bytes, bytes]], bait: bytes) -> list[tuple[bytes, bytes]]:
    """Fields that would be two requests, or another framing, to who writes them down as HTTP/1."""
    at = chance.randrange(len(fields))
    name, value = fields[at]
    end = b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    fields = list(fields)
    fields[at] = chance.choice((
        (name, value + b"\r\n" + bait), (name, value + end + bait), (name, value + b"\n" + bait), (name, value + b"\0"),
        (name + b"\r\ntransfer-encoding: chunked\r\nx", value), (name, value + b"\r\ntransfer-encoding: chunked"),
        (name + b": x\r\ny", value), (name, b" " + value), (name.upper(), value), (name + b" ", value), (name, b""),
        (name, value)))
    return [*fields, *chance.choice((*_MORE, (fields[at],)))]


_MORE: tuple[tuple[tuple[bytes, bytes], ...], ...] = (
    (), ((b"transfer-encoding", b"chunked"),), ((b"content-length", b"0"),), ((b"host", b"evil.example"),),
    ((b"connection", b"close"),), ((b":path", b"/other"),), ((b"content-length", b"7"),), ((b"x y", b"z"),),
    ((b"expect", b"100-continue"),), ((b"te", b"trailers"),))


def _bodies(chance: Random, encoder: Encoder, stream: int, body: bytes) -> list[bytes]:
    cut = chance.randrange(len(body))
    frames = [frame(_DATA, 0, stream, body[:cut])]
    if chance.random() < 0.2:
        late = frame(_HEADERS, 5, stream, encoder.encode([("x-late", "1")]))
        return [*frames, frame(_DATA, 0, stream, body[cut:]), late]
    if chance.random() < 0.2:
        return [*frames, frame(_DATA, 9, stream, b"\x03" + body[cut:] + b"\0\0\0")]
    return [*frames, frame(_DATA, 1, stream, body[cut:])]


_LAST = 199


def last2(mark: str, port: int) -> bytes:
    """A request on a stream of its own, in fields that need no table."""
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", f"localhost:{port}"), (":path", f"/{mark}"),
              ("content-type", f"mark/{mark}")]
    return frame(_HEADERS, 5, _LAST, b"".join(b"\0" + _string(name) + _string(value) for name, value in fields))


def _string(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def is_over(got: bytes) -> bool:
    """Whether the stream of `last2`, or the connection, has been ended by the other side."""
    while len(got) >= 9:
        length, kind, flags, stream = int.from_bytes(got[:3], "big"), got[3], got[4], int.from_bytes(got[5:9], "big")
        if kind == _GOAWAY or (stream == _LAST and (kind == _RESET or (kind in (_DATA, _HEADERS) and flags & 1))):
            return True
        got = got[9 + length:]
    return False


def mutated_frames(chance: Random, frames: Sequence[bytes], other: Sequence[bytes]) -> bytes:
    """The frames with some damage, as bytes without the preface."""
    frames = list(frames)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
        at = chance.randrange(len(frames))
        match chance.randrange(6):
            case 0:
                del frames[at]
                frames = frames or [b""]
            case 1:
                frames.insert(at, frames[at])
            case 2:
                frames[at] = frames[at][:3] + bytes((chance.randrange(11),)) + frames[at][4:]
            case 3:
                frames[at] = frames[at][:4] + bytes((chance.randrange(256),)) + frames[at][5:]
            case 4:
                frames[at] = frames[at][:8] + bytes((chance.randrange(9),)) + frames[at][9:]
            case _:
                frames.insert(at, chance.choice(other))
    content = b"".join(frames)
    return mutated(chance, content, b"".join(other)) if chance.random() < 0.2 else content

"""Decoding of content codings (RFC 9110) with bounds, so that a rule sees the body that the origin will see.

Whatever the input, memory is bounded: every layer takes small pieces and gives small pieces, and no decoder has a
window larger than 16 MiB. What has more than one reading is refused: bytes after the end, an end that is missing, a
coding that is not known here. A megabyte of output takes some milliseconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import brotli  # type: ignore[import-untyped]
import zstandard

from addons.errors import GovernorError

MAX_LAYERS = 2
"""A client that compresses what was compressed already sends two, by mistake; nothing in use sends three. Only one of
the two may be br or zstd: their windows have megabytes."""
MAX_MEMBERS = 1_000
"""A gzip or zstd stream may be a row of complete ones. Writers of such rows put 64 KiB and more into each."""

_INPUT_BYTES = _OUTPUT_BYTES = 16 * 1024
# Four bytes of a zstd stream can stand for a block of 128 KiB, and its decoder hands over all at once.
_ZSTD_INPUT_BYTES = 128
# RFC 9659: as a content coding zstd has no larger window.
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
# Small bodies of one repeated character are compressed a thousandfold, and are no danger.
_UNRATED_BYTES = 1024 * 1024
_HEADER_CHARACTERS = 256


class Reason(StrEnum):
    """Why a body cannot be decoded."""

    UNKNOWN_ENCODING = "its content-encoding is not known here"
    CORRUPT = "it is not what its content-encoding says, or ends too early"
    TOO_LARGE = "it is too large when it is decoded"
    TOO_DEEP = "it is encoded in too many layers or parts"
    TRAILING_GARBAGE = "bytes follow its encoded end"


class Undecodable(GovernorError):
    """A body has no one decoded form within the bounds."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may come out: `max_bytes` of each layer, and beyond the first MiB `max_ratio` times what went in."""

    max_bytes: int
    max_ratio: int = 200


def decoded(content: bytes, content_encoding: str, bounds: Bounds) -> bytes:
    """The whole body without its codings. `content_encoding` is the header's value. Raises `Undecodable`."""
    return b"".join(pieces((content,), content_encoding, bounds))


def pieces(chunks: Iterable[bytes], content_encoding: str, bounds: Bounds) -> Iterator[bytes]:
    """The body without its codings while it is read. Raises `Undecodable`, also after it has yielded pieces."""
    layers = layers_of(content_encoding)
    read = _Count()
    decoding: Iterator[bytes] = read.counting(chunks)
    if not layers:
        return _within(bounds, read, decoding)
    for layer in layers:
        decoding = _within(bounds, read, layer.through(decoding))
    return decoding


class _Count:
    """Counts the bytes that went in, and hands them on in small pieces."""

    def __init__(self) -> None:
        self.bytes = 0

    def counting(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            for piece in _cut(chunk, _INPUT_BYTES):
                self.bytes += len(piece)
                yield piece


def _within(bounds: Bounds, read: _Count, chunks: Iterator[bytes]) -> Iterator[bytes]:
    produced = 0
    for chunk in chunks:
        produced += len(chunk)
        if produced > bounds.max_bytes or produced > max(_UNRATED_BYTES, read.bytes * bounds.max_ratio):
            raise Undecodable(Reason.TOO_LARGE)
        yield chunk


def _cut(chunk: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(chunk), size):
        yield chunk[start:start + size]


class _Member(Protocol):
    """The decoder of one complete stream. `rest` is what it was given beyond the end."""

    @property
    def finished(self) -> bool: ...

    @property
    def rest(self) -> bytes: ...

    def decode(self, piece: bytes) -> Iterator[bytes]: ...


class _Inflate:
    def __init__(self, window_bits: int) -> None:
        self._state = zlib.decompressobj(window_bits)

    @property
    def finished(self) -> bool:
        return self._state.eof

    @property
    def rest(self) -> bytes:
        return self._state.unused_data

    def decode(self, piece: bytes) -> Iterator[bytes]:
        output = self._state.decompress(piece, _OUTPUT_BYTES)
        # The state may hold output when all input is taken, so only a short answer is the last one.
        while len(output) == _OUTPUT_BYTES or self._state.unconsumed_tail:
            yield output
            output = self._state.decompress(self._state.unconsumed_tail, _OUTPUT_BYTES)
        yield output


class _Brotli:
    rest = b""  # it raises where more was given

    def __init__(self) -> None:
        self._state = brotli.Decompressor()

    @property
    def finished(self) -> bool:
        return bool(self._state.is_finished())

    def decode(self, piece: bytes) -> Iterator[bytes]:
        while output := self._state.process(piece, output_buffer_limit=_OUTPUT_BYTES):
            yield output
            piece = b""


class _Zstd:
    def __init__(self) -> None:
        self._state = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
        self.rest = b""

    @property
    def finished(self) -> bool:
        return self._state.eof

    def decode(self, piece: bytes) -> Iterator[bytes]:
        for start in range(0, len(piece), _ZSTD_INPUT_BYTES):
            end = start + _ZSTD_INPUT_BYTES
            yield self._state.decompress(piece[start:end])
            if self._state.eof:
                self.rest = self._state.unused_data + piece[end:]
                return


class Layer:
    """Takes one coding off, piece by piece: of one complete stream, and of others that follow it."""

    def __init__(self, begin: Callable[[bytes], _Member], next_begins: bytes, head_bytes: int = 1) -> None:
        """`begin` makes the decoder of a stream from its first `head_bytes`; another one begins with one of the bytes
        `next_begins`.
        """
        self._begin, self._next_begins, self._head_bytes = begin, next_begins, head_bytes
        self._head = b""
        self._member: _Member | None = None
        self._count = 0

    def take(self, piece: bytes) -> Iterator[bytes]:
        """What a piece gives. Raises `Undecodable`."""
        if self._member is None:
            piece, self._head = self._head + piece, b""
            if len(piece) < self._head_bytes:
                self._head = piece
                return
        yield from self._decoded(piece)

    def end(self) -> Iterator[bytes]:
        """What is left once everything was given. Raises `Undecodable` where the end is missing."""
        yield from self._decoded(self._head)
        if self._member is not None and not self._member.finished:
            raise Undecodable(Reason.CORRUPT)

    def _decoded(self, given: bytes) -> Iterator[bytes]:
        while given:
            if self._member is None or self._member.finished:
                self._check_next(given)
                self._member, self._count = self._begin(given), self._count + 1
            yield from _sound(self._member.decode(given))
            given = self._member.rest if self._member.finished else b""

    def _check_next(self, given: bytes) -> None:
        if self._count and given[0] not in self._next_begins:
            raise Undecodable(Reason.TRAILING_GARBAGE)
        if self._count >= MAX_MEMBERS:
            raise Undecodable(Reason.TOO_DEEP)

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """What all of these give."""
        for chunk in chunks:
            yield from self.take(chunk)
        yield from self.end()


def _sound(decoding: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from decoding
    except (zlib.error, brotli.error, zstandard.ZstdError):
        raise Undecodable(Reason.CORRUPT) from None


def _gzip() -> Layer:
    return Layer(lambda _: _Inflate(zlib.MAX_WBITS | 16), b"\x1f")


def _deflate() -> Layer:
    """RFC 9110 means zlib's format; some clients send the bare stream. The first two bytes say which it is."""
    return Layer(_inflate_of, b"", head_bytes=2)


def _inflate_of(head: bytes) -> _Member:
    zlib_format = len(head) >= 2 and head[0] & 0x0F == 8 and int.from_bytes(head[:2]) % 31 == 0
    return _Inflate(zlib.MAX_WBITS if zlib_format else -zlib.MAX_WBITS)


def _br() -> Layer:
    return Layer(lambda _: _Brotli(), b"")


def _zstd() -> Layer:
    # A frame, or one of those that readers skip.
    return Layer(lambda _: _Zstd(), bytes((0x28, *range(0x50, 0x60))))


# Two of these at once could take more than 32 MiB.
_LARGE_WINDOWS = ("br", "zstd")

_DECODERS: dict[str, Callable[[], Layer]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "br": _br, "zstd": _zstd,
}  # fmt: skip


def _bounds_output() -> bool:
    try:
        brotli.Decompressor().process(b"", output_buffer_limit=1)
    except TypeError:
        return False
    return True


if not _bounds_output():
    # Before 1.2 a few bytes can make brotli hand over gigabytes at once.
    del _DECODERS["br"]


def layers_of(content_encoding: str) -> list[Layer]:
    """What takes the codings off, in this order. Raises `Undecodable`."""
    if not content_encoding:
        return []
    if len(content_encoding) > _HEADER_CHARACTERS:
        raise Undecodable(Reason.TOO_DEEP)
    names = [part.strip(" \t").lower() for part in content_encoding.split(",")]
    applied = [name for name in names if name not in ("", "identity")]
    if any(name not in _DECODERS for name in applied):
        raise Undecodable(Reason.UNKNOWN_ENCODING)
    if len(applied) > MAX_LAYERS or sum(name in _LARGE_WINDOWS for name in applied) > 1:
        raise Undecodable(Reason.TOO_DEEP)
    return [_DECODERS[name]() for name in reversed(applied)]

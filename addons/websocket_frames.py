"""WebSocket frames (RFC 6455): read strictly and never held beyond a bound, written as one end wants them.

mitmproxy's own reading moves the borders of text fragments to whole characters and holds whatever has no end yet. No
extension is known here: its reserved bits make a frame unreadable, so nothing is ever decompressed.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator
from dataclasses import dataclass
from os import urandom
from struct import pack

from wsproto.frame_protocol import (
    LOCAL_ONLY_CLOSE_REASONS,
    MAX_CLOSE_REASON,
    MAX_PROTOCOL_CLOSE_REASON,
    MIN_CLOSE_REASON,
    CloseReason,
    Frame,
    FrameDecoder,
    Opcode,
    ParseFailed,
    XorMaskerSimple,
)

from addons.errors import GovernorError

_CONTROL_BYTES = 125
_KNOWN_CODES = frozenset(CloseReason) - frozenset(LOCAL_ONLY_CLOSE_REASONS)
# What a fragment costs beside its bytes: a sender may cut a message into as many empty ones as it likes.
_FRAGMENT_BYTES = 64
_LEAST_FRAGMENTS = 1024


class Unreadable(GovernorError):
    """These bytes are no WebSocket frames. `close_code` is what RFC 6455 wants to be said about it."""

    def __init__(self, close_code: int) -> None:
        self.close_code = int(close_code)
        super().__init__(f"unreadable frame: {self.close_code}")


class TooLarge(GovernorError):
    """A message is, or says that it will be, larger than may be."""


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message. `ends` is where each of its fragments ends, as the sender cut them."""

    is_text: bool
    content: bytes
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping, which its receiver answers with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong, asked for or not."""


@dataclass(frozen=True, slots=True)
class Close:
    """The last frame of one end. `code` is None where none was given."""

    code: int | None
    reason: str


type Read = Message | Ping | Pong | Close


class FrameReader:
    """Reads what one end sends. It holds at most `most_bytes` of an unfinished message beside the last read."""

    def __init__(self, *, from_client: bool, most_bytes: int) -> None:
        self._decoder = FrameDecoder(client=not from_client)
        self._most_bytes = most_bytes
        self._most_fragments = max(most_bytes // _FRAGMENT_BYTES, _LEAST_FRAGMENTS)
        self._message: _Unfinished | None = None
        self._closed = self._lost = False

    @property
    def held_bytes(self) -> int:
        """What is kept of a message that has no end yet, and of a frame whose head is not whole."""
        return len(self._decoder.buffer) + (len(self._message.content) if self._message else 0)

    def read(self, data: bytes) -> Iterator[Read]:
        """What these bytes complete, in order. Raises `Unreadable` or `TooLarge` where the rest must not be read."""
        self._decoder.receive_bytes(data)
        while not self._closed:
            frame = self._next_frame()
            self._check_announced()
            if frame is None:
                return
            read = self._control(frame) if frame.opcode.iscontrol() else self._fragment(frame)
            if read is not None:
                yield read
        if len(self._decoder.buffer):
            raise Unreadable(CloseReason.PROTOCOL_ERROR)

    def ends_with(self, data: bytes) -> bool:
        """Keep nothing of these bytes; True when the sender's Close is among them."""
        self._message = None
        if self._lost:
            return False
        self._decoder.receive_bytes(data)
        try:
            while (frame := self._next_frame()) is not None:
                if frame.opcode is Opcode.CLOSE:
                    return True
        except Unreadable:
            return False
        return False

    def _next_frame(self) -> Frame | None:
        try:
            return self._decoder.process_buffer()
        except ParseFailed as error:
            self._lost = True
            raise Unreadable(error.code) from None

    def _check_announced(self) -> None:
        """Refuse a frame at its head when it says that it is too long."""
        header = self._decoder.header
        if header is None or header.opcode.iscontrol():
            return
        held = len(self._message.content) if self._message else 0
        if held + header.payload_len - self._decoder.payload_consumed > self._most_bytes:
            raise TooLarge

    def _fragment(self, frame: Frame) -> Message | None:
        """Add a fragment, or what has come of it, to the message; the message where this ends it."""
        continues = frame.opcode is Opcode.CONTINUATION
        if continues is not (self._message is not None):
            raise Unreadable(CloseReason.PROTOCOL_ERROR)
        message = self._message = self._message or _Unfinished(is_text=frame.opcode is Opcode.TEXT)
        message.add(_payload(frame), is_last=frame.frame_finished and frame.message_finished)
        if frame.frame_finished:
            message.ends.append(len(message.content))
        if len(message.content) > self._most_bytes or len(message.ends) > self._most_fragments:
            raise TooLarge
        if not (frame.frame_finished and frame.message_finished):
            return None
        self._message = None
        return Message(message.is_text, bytes(message.content), tuple(message.ends))

    def _control(self, frame: Frame) -> Read:
        payload = _payload(frame)
        if frame.opcode is Opcode.PING:
            return Ping(payload)
        if frame.opcode is Opcode.PONG:
            return Pong()
        self._closed = True
        return _read_close(payload)


class _Unfinished:
    """A message whose last fragment has not come."""

    __slots__ = ("_characters", "content", "ends", "is_text")

    def __init__(self, *, is_text: bool) -> None:
        self.is_text, self.content = is_text, bytearray()
        self.ends: list[int] = []
        self._characters: IncrementalDecoder | None = getincrementaldecoder("utf-8")() if is_text else None

    def add(self, payload: bytes, *, is_last: bool) -> None:
        if self._characters is not None:
            try:
                self._characters.decode(payload, is_last)
            except UnicodeDecodeError:
                raise Unreadable(CloseReason.INVALID_FRAME_PAYLOAD_DATA) from None
        self.content += payload


def _payload(frame: Frame) -> bytes:
    return frame.payload if isinstance(frame.payload, bytes) else b""


def _read_close(payload: bytes) -> Close:
    if not payload:
        return Close(None, "")
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not _may_be_said(code):
        raise Unreadable(CloseReason.PROTOCOL_ERROR)
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise Unreadable(CloseReason.INVALID_FRAME_PAYLOAD_DATA) from None


def _may_be_said(code: int) -> bool:
    """True for the codes that RFC 6455, 7.4, lets an end send."""
    return MIN_CLOSE_REASON <= code <= MAX_CLOSE_REASON and (code > MAX_PROTOCOL_CLOSE_REASON or code in _KNOWN_CODES)


def message(message: Message, *, masked: bool) -> Iterator[bytes]:
    """The frames of a message, cut where its sender cut it."""
    opcode, start, last = Opcode.TEXT if message.is_text else Opcode.BINARY, 0, len(message.ends) - 1
    for number, end in enumerate(message.ends):
        yield _frame(opcode, message.content[start:end], masked=masked, final=number == last)
        opcode, start = Opcode.CONTINUATION, end


def ping(*, masked: bool) -> bytes:
    """A ping that carries nothing."""
    return _frame(Opcode.PING, b"", masked=masked)


def pong(payload: bytes, *, masked: bool) -> bytes:
    """The answer to a ping with this payload."""
    return _frame(Opcode.PONG, payload, masked=masked)


def close(code: int | None, reason: str, *, masked: bool) -> bytes:
    """The last frame for one end, its reason cut at a whole character where it is too long."""
    if code is None:
        return _frame(Opcode.CLOSE, b"", masked=masked)
    told = reason.encode(errors="replace")[:_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return _frame(Opcode.CLOSE, pack("!H", code) + told, masked=masked)


def _frame(opcode: Opcode, payload: bytes, *, masked: bool, final: bool = True) -> bytes:
    first, mask, length = opcode | (0x80 if final else 0), 0x80 if masked else 0, len(payload)
    if length <= _CONTROL_BYTES:
        head = bytes((first, mask | length))
    elif length <= 0xFFFF:
        head = pack("!BBH", first, mask | 126, length)
    else:
        head = pack("!BBQ", first, mask | 127, length)
    if not masked:
        return head + payload
    key = urandom(4)
    return head + key + XorMaskerSimple(key).process(bytearray(payload))

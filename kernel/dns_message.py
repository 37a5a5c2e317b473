"""Questions and answers of the domain name system (RFC 1035, RFC 6891), as bytes.

Only what a stub resolver sends can be read: one question, and what its client says of itself. Nothing is guessed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from kernel.errors import KernelError
from kernel.facts import Address

LARGEST_UDP_BYTES = 1232
"""What fits into a packet on nearly every path (dnsflagday.net/2020)."""
_SMALLEST_UDP_BYTES = 512
_LARGEST_BYTES = 65535
_HEADER = struct.Struct("!HHHHHH")
_KIND = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_IS_ANSWER, _TRUNCATED, _WANTS_RECURSION, _HAS_RECURSION, _UNCHECKED = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
_OPERATION = 0x7800
_LONGEST_NAME, _LONGEST_LABEL = 255, 63
_OPTIONS = 41
# The name of the question, which begins right behind the header.
_OF_THE_QUESTION = b"\xc0\x0c"
_EXPLANATION = 15
_BLOCKED = 15
_INTERNET = 1


class RecordType(IntEnum):
    """The types of which anything is known here."""

    A = 1
    AAAA = 28
    SVCB = 64
    HTTPS = 65


_VERSIONS: dict[int, int] = {RecordType.A: 4, RecordType.AAAA: 6}


class Result(IntEnum):
    """How a question is answered."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `labels` are as they were sent; `wire` is the question itself, to be sent back letter for letter.

    `most_bytes` is how long an answer over UDP may be, `extended` whether the client speaks EDNS.
    """

    id: int
    flags: int
    labels: tuple[bytes, ...]
    type: int
    wire: bytes
    most_bytes: int = _SMALLEST_UDP_BYTES
    extended: bool = False


class Unreadable(KernelError):
    """This is no question, or one that is not answered. `reply` is what to send back; None for nothing at all."""

    def __init__(self, problem: str, reply: bytes | None) -> None:
        self.problem, self.reply = problem, reply
        super().__init__(problem)


def read(message: bytes) -> Question:
    """The question in a message. Raises `Unreadable`."""
    if len(message) < _HEADER.size:
        raise Unreadable("it is shorter than a header", None)
    number, flags, questions, answers, authorities, more = _HEADER.unpack_from(message)
    if flags & _IS_ANSWER:
        # An answer to an answer could go on for ever.
        raise Unreadable("it is an answer", None)
    if flags & _OPERATION or questions != 1:
        raise Unreadable("it is no query with one question", _bare(number, flags, Result.REFUSED))
    malformed = _bare(number, flags, Result.FORMERR)
    if answers or authorities or more > 1:
        raise Unreadable("it has records that no query has", malformed)
    labels, at = _labels(message, malformed)
    if len(message) < at + _KIND.size:
        raise Unreadable("its question is cut off", malformed)
    kind, where = _KIND.unpack_from(message, at)
    end = at + _KIND.size
    wire = message[_HEADER.size:end]
    most, extended = _SMALLEST_UDP_BYTES, False
    if more:
        most, end = _extension(message, end, malformed)
        extended = True
    if end != len(message):
        raise Unreadable("there is more than the query", malformed)
    asked = Question(number, flags, labels, kind, wire, most, extended)
    if where != _INTERNET:
        raise Unreadable("it asks for another class than IN", answer(asked, Result.REFUSED))
    return asked


def _labels(message: bytes, malformed: bytes) -> tuple[tuple[bytes, ...], int]:
    """The labels of the question's name, and where they end. There is nothing yet that a pointer could point to."""
    labels: list[bytes] = []
    at = _HEADER.size
    while True:
        if at >= len(message):
            raise Unreadable("its name is cut off", malformed)
        size = message[at]
        if size > _LONGEST_LABEL or at + size - _HEADER.size > _LONGEST_NAME - 1:
            raise Unreadable("its name is none", malformed)
        if size == 0:
            return tuple(labels), at + 1
        labels.append(message[at + 1:at + 1 + size])
        at += 1 + size


def _extension(message: bytes, at: int, malformed: bytes) -> tuple[int, int]:
    """How large an answer the client takes, and where its extension ends."""
    if len(message) < at + 1 + _RECORD.size or message[at]:
        raise Unreadable("it has records that no query has", malformed)
    kind, size, _, length = _RECORD.unpack_from(message, at + 1)
    end = at + 1 + _RECORD.size + length
    if kind != _OPTIONS or end > len(message):
        raise Unreadable("it has records that no query has", malformed)
    return min(max(size, _SMALLEST_UDP_BYTES), LARGEST_UDP_BYTES), end


def _bare(number: int, flags: int, result: Result) -> bytes:
    return _HEADER.pack(number, _of_answer(flags, result), 0, 0, 0, 0)


def _of_answer(flags: int, result: Result) -> int:
    return _IS_ANSWER | flags & (_OPERATION | _WANTS_RECURSION | _UNCHECKED) | _HAS_RECURSION | result


def answer(asked: Question, result: Result, addresses: Sequence[Address] = (), ttl: int = 0, why: str = "", *,
           udp: bool = True) -> bytes:
    """The answer to a question, with the addresses that have its type; truncated to what its client takes over UDP.

    `why` goes to a client that can read it (RFC 8914).
    """
    wanted = _VERSIONS.get(asked.type)
    kind = _OF_THE_QUESTION + struct.pack("!HHI", asked.type, _INTERNET, ttl)
    records = [kind + struct.pack("!H", len(each.packed)) + each.packed for each in addresses
               if each.version == wanted]
    more = _extended(why) if asked.extended else b""
    most = asked.most_bytes if udp else _LARGEST_BYTES
    flags = _of_answer(asked.flags, result)
    if _HEADER.size + len(asked.wire) + sum(map(len, records)) + len(more) > most:
        flags, records = flags | _TRUNCATED, []
    header = _HEADER.pack(asked.id, flags, 1, len(records), 0, bool(more))
    return b"".join((header, asked.wire, *records, more))


def _extended(why: str) -> bytes:
    option = b""
    if why:
        text = why.encode()
        option = struct.pack("!HHH", _EXPLANATION, 2 + len(text), _BLOCKED) + text
    return b"\0" + _RECORD.pack(_OPTIONS, LARGEST_UDP_BYTES, 0, len(option)) + option

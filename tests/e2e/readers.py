"""Readers of HTTP/1 bytes: one by the letter, and some that read what they should refuse, each in its own way."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(rb"(%b) ([^\x00-\x20\x7f]+) HTTP/1\.[01]" % _TOKEN)
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(rb"(%b):[ \t]*([^\x00\r\n]*?)[ \t]*" % _TOKEN)


class Broken(Exception):
    """Bytes that this reader takes for no HTTP."""


@dataclass(frozen=True)
class Message:
    """One request or response as a reader saw it. `start` is the first line, header names are lower-case."""

    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def all(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]


type Length = Callable[[Message], int | None]


@dataclass(frozen=True)
class Reader:
    """A way to read. `line_end` ends a line; `chunked_first` decides where both framings stand."""

    name: str
    line_end: re.Pattern[bytes]
    strict: bool = False
    chunked_first: bool = True

    def requests(self, content: bytes) -> list[Message]:
        """Every whole request, up to what this reader would answer with 400 or waits to be continued."""
        found = []
        with contextlib.suppress(Broken):
            while content and (one := self._next(content, self._request_length, ended=False)):
                message, content = one
                found.append(message)
        return found

    def after_the_answer(self, content: bytes, method: bytes) -> bytes:
        """What follows the final response to one request, on a connection that has ended."""
        with contextlib.suppress(Broken):
            while content and (one := self._next(content, partial(self._response_length, method=method), ended=True)):
                message, content = one
                if not re.match(rb"HTTP/\S+\s+1\d\d", message.start):
                    return content
        return b""

    def next_request(self, content: bytes) -> tuple[Message, bytes] | None:
        """The first request and what follows it; None while it is not whole."""
        return self._next(content, self._request_length, ended=False)

    def _next(self, content: bytes, length: Length, ended: bool) -> tuple[Message, bytes] | None:
        if not self.strict:
            content = content.lstrip(b"\r\n")
        head = self._head(content)
        if head is None:
            return None
        message, rest = head
        framed = length(message)
        if framed is None:
            return self._chunks(message, rest)
        if framed < 0:
            return (Message(message.start, message.fields, rest), b"") if ended else None
        if len(rest) < framed:
            return None
        return Message(message.start, message.fields, rest[:framed]), rest[framed:]

    def _head(self, content: bytes) -> tuple[Message, bytes] | None:
        lines: list[bytes] = []
        while found := self.line_end.search(content):
            line, content = content[:found.start()], content[found.end():]
            if not line:
                return Message(lines[0] if lines else b"", tuple(self._fields(lines[1:])), b""), content
            lines.append(line)
        return None

    def _fields(self, lines: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        unfolded: list[bytes] = []
        for line in lines:
            if line[:1] in b" \t" and unfolded and not self.strict:
                unfolded[-1] += b" " + line.strip()
            else:
                unfolded.append(line)
        for line in unfolded:
            match = _FIELD.fullmatch(line)
            if self.strict and match is None:
                raise Broken(f"the field {line!r}")
            name, _, value = line.partition(b":")
            yield name.strip().lower(), value.strip()

    def _request_length(self, message: Message) -> int | None:
        if self.strict and not _REQUEST.fullmatch(message.start):
            raise Broken(f"the request line {message.start!r}")
        length = self._length(message)
        return 0 if length is not None and length < 0 else length

    def _response_length(self, message: Message, method: bytes) -> int | None:
        if self.strict and not _STATUS.fullmatch(message.start):
            raise Broken(f"the status line {message.start!r}")
        status = re.match(rb"HTTP/\S+\s+(\d+)", message.start)
        code = int(status[1]) if status else 200
        if method == b"HEAD" or code in (204, 304) or 100 <= code < 200:
            return 0
        return self._length(message)

    def _length(self, message: Message) -> int | None:
        """The body's length, None for chunks, -1 where none is given."""
        codings, lengths = message.all(b"transfer-encoding"), message.all(b"content-length")
        if self.strict and codings and lengths:
            raise Broken("two framings")
        if self.strict and (len(set(lengths)) > 1 or not all(length.isdigit() for length in lengths)):
            raise Broken(f"the lengths {lengths!r}")
        chunked = any(b"chunked" in coding.lower() for coding in codings)
        if self.strict and codings and not chunked:
            raise Broken(f"the codings {codings!r}")
        number = re.match(rb"[+ ]*(\d{1,15})", lengths[0]) if lengths else None
        if chunked and (self.chunked_first or number is None):
            return None
        return int(number[1]) if number else -1

    def _chunks(self, message: Message, content: bytes) -> tuple[Message, bytes] | None:
        body = b""
        while found := self.line_end.search(content):
            size = re.match(rb"[0-9A-Fa-f]+", content[:found.start()].strip())
            content = content[found.end():]
            if size is None:
                raise Broken("a chunk without a size")
            if int(size[0], 16) == 0:
                return self._trailers(message, body, content)
            body, content = body + content[:int(size[0], 16)], content[int(size[0], 16):]
            end = self.line_end.match(content)
            if end is None:
                return None
            content = content[end.end():]
        return None

    def _trailers(self, message: Message, body: bytes, content: bytes) -> tuple[Message, bytes] | None:
        while found := self.line_end.search(content):
            line, content = content[:found.start()], content[found.end():]
            if not line:
                return Message(message.start, message.fields, body), content
        return None


STRICT = Reader("strict", re.compile(rb"\r\n"), strict=True)
LENIENT = (
    Reader("a bare LF ends a line, chunks first", re.compile(rb"\r?\n")),
    Reader("a bare LF ends a line, the length first", re.compile(rb"\r?\n"), chunked_first=False),
    Reader("a bare CR ends a line", re.compile(rb"\r\n|\r|\n")),
    Reader("only CRLF ends a line, the length first", re.compile(rb"\r\n"), chunked_first=False),
)

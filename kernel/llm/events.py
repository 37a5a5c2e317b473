"""Server-sent events as their data comes, whatever the pieces they come in (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_EVENT_BYTES = 2**20
"""No more of one event is kept."""
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class TooLong(Exception):
    """An event or a document is longer than is kept of one."""


class Events:
    """The data of each event, once the blank line behind it has come."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = self._after_cr = False

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """The data of the events that end in this piece. Raises `TooLong`."""
        if self._after_cr and chunk:
            # The second half of a line end whose first half was taken for one.
            chunk, self._after_cr = chunk.removeprefix(b"\n"), False
        if not self._begun:
            chunk, self._rest = self._rest + chunk, b""
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._rest = chunk
                return
            chunk, self._begun = chunk.removeprefix(_BOM), True
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        first, *lines = _LINE_END.split(chunk)
        self._rest += first
        for line in lines:
            yield from self._line(self._rest)
            self._rest = line
        if self._size + len(self._rest) > MOST_EVENT_BYTES:
            raise TooLong

    def _line(self, line: bytes) -> Iterator[bytes]:
        if not line:
            if self._data:
                yield b"\n".join(self._data)
            self._data, self._size = [], 0
        elif line.startswith(b"data:"):
            self._keep(line[5:].removeprefix(b" "))
        elif line == b"data":
            self._keep(b"")

    def _keep(self, value: bytes) -> None:
        self._size += len(value) + 1
        if self._size > MOST_EVENT_BYTES:
            raise TooLong
        self._data.append(value)

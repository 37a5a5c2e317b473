"""The objects of a JSON body as they come: one alone, one a line, or the items of an array, as Gemini streams them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kernel.llm.events import TooLong

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DOCUMENT_BYTES = 2**20
"""No more of one object is kept."""
_MARK = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class Documents:
    """Each object that stands in no other, once it is whole. What stands between them is passed over."""

    def __init__(self) -> None:
        self._kept = b""
        self._from = self._at = 0
        self._depth = 0
        self._in_text = False

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """The objects that end in this piece. Raises `TooLong`."""
        # Once for a piece: there may be an object for every two bytes of it.
        self._kept, self._at, self._from = self._kept[self._from:] + chunk, self._at - self._from, 0
        while self._step():
            yield self._kept[self._from:self._at]
            self._from = self._at
        if not self._depth:
            self._from = self._at
        if len(self._kept) - self._from > MOST_DOCUMENT_BYTES:
            raise TooLong

    def _step(self) -> bool:
        """Go on behind the next object that ends; False where the rest has none."""
        while True:
            if self._in_text and not self._leave_text():
                return False
            found = _MARK.search(self._kept, self._at)
            if found is None:
                self._at = len(self._kept)
                return False
            self._at = found.end()
            match found[0]:
                case b'"':
                    self._in_text = True
                case b"{":
                    self._open()
                case b"[" if self._depth:
                    self._depth += 1
                case b"}" | b"]" if self._depth:
                    self._depth -= 1
                    if not self._depth:
                        return True

    def _open(self) -> None:
        if not self._depth:
            self._from = self._at - 1
        self._depth += 1

    def _leave_text(self) -> bool:
        self._at = next(_INSIDE.finditer(self._kept, self._at)).end()
        if self._kept[self._at:self._at + 1] != b'"':
            return False
        self._at, self._in_text = self._at + 1, False
        return True

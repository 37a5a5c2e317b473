"""Request bodies while they come in: a little of each in memory, the rest in a file without a name.

What all of them hold together is bounded, and no owner may hold more than a quarter of it: a body is read before its
verdict, so an agent that is allowed nothing can send one too.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

IN_MEMORY_BYTES = 1024 * 1024
ROOM_BYTES = 4 * 1024**3
_SHARE = 4
_CHUNK_BYTES = 256 * 1024


class Room:
    """How many bytes of bodies there may be, in all and for one owner: an agent, or an unknown client's address."""

    def __init__(self, most_bytes: int = ROOM_BYTES) -> None:
        self._most, self._each = most_bytes, most_bytes // _SHARE
        self._held: Counter[str] = Counter()
        self.held_bytes = 0

    def take(self, owner: str, count: int) -> bool:
        """Claim room; False, and nothing claimed, where there is none."""
        if self.held_bytes + count > self._most or self._held[owner] + count > self._each:
            return False
        self._held[owner] += count
        self.held_bytes += count
        return True

    def give_back(self, owner: str, count: int) -> None:
        """End a claim, in whole or in part."""
        self.held_bytes -= count
        self._held[owner] -= count
        if not self._held[owner]:
            del self._held[owner]


class Body:
    """One body, appended to until it is complete and then read once. `size` is in bytes.

    The file lies in `folder` and has no name there, so that it ends with the process whatever happens.
    """

    def __init__(self, folder: Path, room: Room, owner: str) -> None:
        self._folder, self._room, self._owner = folder, room, owner
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self.size = 0

    @property
    def spooled(self) -> bool:
        """True when the body is too long for memory: `content` is then empty and `chunks` reads it."""
        return self._file is not None

    def write(self, chunk: bytes) -> bool:
        """Append; False where there is no room for it. Raises `OSError` where the disk has none."""
        if not self._room.take(self._owner, len(chunk)):
            return False
        self.size += len(chunk)
        if self._file is None and self.size > IN_MEMORY_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += chunk
        else:
            self._file.write(chunk)
        return True

    @property
    def content(self) -> bytes:
        return bytes(self._memory)

    def chunks(self) -> Iterator[bytes]:
        """What was spooled, in order, a piece at a time."""
        if self._file is None:
            return
        self._file.flush()
        at = 0
        while chunk := os.pread(self._file.fileno(), _CHUNK_BYTES, at):
            yield chunk
            at += len(chunk)

    def close(self) -> None:
        """Forget the body. Closing again changes nothing."""
        self._room.give_back(self._owner, self.size)
        self.size = 0
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

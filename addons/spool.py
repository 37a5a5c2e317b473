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
# Above this, all bodies together, each keeps little more in memory than what comes in one piece.
_MUCH_MEMORY_BYTES = 64 * 1024**2
_CROWDED_BYTES = 64 * 1024
_BODIES_EACH = 512
_CHUNK_BYTES = 256 * 1024


class Room:
    """How many bytes of bodies there may be, in all and for one owner: an agent, or an unknown client's address."""

    def __init__(self, most_bytes: int = ROOM_BYTES, bodies_each: int = _BODIES_EACH) -> None:
        self._most, self._each, self._bodies_each = most_bytes, most_bytes // _SHARE, bodies_each
        self._held: Counter[str] = Counter()
        self._bodies: Counter[str] = Counter()
        self.held_bytes = self.memory_bytes = 0

    @property
    def in_memory_bytes(self) -> int:
        """How much of a body may stay in memory at the moment."""
        return IN_MEMORY_BYTES if self.memory_bytes < _MUCH_MEMORY_BYTES else _CROWDED_BYTES

    def enter(self, owner: str) -> bool:
        """Begin a body; False, and nothing begun, where the owner has too many."""
        if self._bodies[owner] >= self._bodies_each:
            return False
        self._bodies[owner] += 1
        return True

    def take(self, owner: str, count: int) -> bool:
        """Claim room; False, and nothing claimed, where there is none."""
        if self.held_bytes + count > self._most or self._held[owner] + count > self._each:
            return False
        self._held[owner] += count
        self.held_bytes += count
        return True

    def leave(self, owner: str, count: int) -> None:
        """A body that was begun is gone, with all that it had claimed."""
        self.held_bytes -= count
        self._held[owner] -= count
        self._bodies[owner] -= 1
        if not self._bodies[owner]:
            del self._held[owner], self._bodies[owner]


class Body:
    """One body, appended to until it is complete and then read once. `size` is in bytes.

    The file lies in `folder` and has no name there, so that it ends with the process whatever happens.
    """

    def __init__(self, folder: Path, room: Room, owner: str) -> None:
        self._folder, self._room, self._owner = folder, room, owner
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._begun = False
        self.size = 0

    @property
    def spooled(self) -> bool:
        """True when the body is too long for memory: `content` is then empty and `chunks` reads it."""
        return self._file is not None

    def write(self, chunk: bytes) -> bool:
        """Append; False where there is no room for it. Raises `OSError` where the disk has none."""
        self._begun = self._begun or self._room.enter(self._owner)
        if not self._begun or not self._room.take(self._owner, len(chunk)):
            return False
        self.size += len(chunk)
        if self._file is None and self.size > self._room.in_memory_bytes:
            self._spool()
        if self._file is not None:
            self._file.write(chunk)
        else:
            self._memory += chunk
            self._room.memory_bytes += len(chunk)
        return True

    def _spool(self) -> None:
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._file.write(self._memory)
        self._forget_memory()

    def _forget_memory(self) -> None:
        self._room.memory_bytes -= len(self._memory)
        self._memory = bytearray()

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
        if self._begun:
            self._room.leave(self._owner, self.size)
        self._begun, self.size = False, 0
        self._forget_memory()
        if self._file is not None:
            self._file.close()
            self._file = None

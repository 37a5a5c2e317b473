"""A file of signed notes, one after the other: added to whole and durably, and read back."""

from __future__ import annotations

import fcntl
import os
import stat
from typing import TYPE_CHECKING

from addons import durable
from addons.anchors.protocol import AnchorError
from addons.audit_log import lines, open_regular
from kernel.errors import NoteError
from kernel.note import DASH, split_notes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Room for several notes: what a crash left unfinished is part of the last one.
_TAIL_BYTES = 64 * 1024
_SIGNATURE = DASH.encode()
_ORIGIN = b"governor/"
_MOST_UNFINISHED_LINES = 5
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NoteFile:
    """The notes at `path`. Every method may be called by several processes at once, and raises `AnchorError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, note: str) -> int:
        """Put `note` at the end, durable when this returns; the byte at which it begins. Its folder must be there."""
        try:
            descriptor = os.open(self.path, _FLAGS | os.O_CREAT, durable.PRIVATE_FILE)
            try:
                return self._append(descriptor, note.encode())
            finally:
                os.close(descriptor)
        except OSError as fault:
            raise self._failed(f"{fault.strerror or fault}; it must be a file you can add to") from fault

    def notes(self) -> Iterator[str]:
        """The notes from the first on; none where there is no file yet."""
        try:
            with open_regular(self.path) as file:
                yield from (placed.text for placed in split_notes(lines(file)))
        except FileNotFoundError:
            return
        except OSError as fault:
            raise self._failed(str(fault.strerror or fault)) from fault
        except NoteError as fault:
            raise self._failed(f"{fault}; it holds something else than notes") from fault

    def last(self) -> list[str]:
        """Some of the last notes, the newest at the end."""
        try:
            with open_regular(self.path) as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
                file.seek(start)
                tail = file.read(_TAIL_BYTES)
            return [placed.text for placed in split_notes(_from_a_note_on(tail, whole=start == 0))]
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise self._failed(str(fault.strerror or fault)) from fault
        except NoteError as fault:
            raise self._failed(str(fault)) from fault

    def _append(self, descriptor: int, note: bytes) -> int:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise self._failed("it is not a regular file")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        end = self._end(descriptor)
        durable.write_all(descriptor, note)
        os.fsync(descriptor)
        durable.sync_folder(self.path.parent)
        return end

    def _end(self, descriptor: int) -> int:
        """Where the last whole note ends, which is then the end of the file."""
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        unfinished = tail[_end_of_notes(tail):]
        if unfinished:
            if not _is_beginning(unfinished):
                raise self._failed("it holds something else than notes; name another file")
            # A note that a crash cut off: nobody was told that it is there.
            size -= len(unfinished)
            os.ftruncate(descriptor, size)
        return size

    def _failed(self, problem: str) -> AnchorError:
        return AnchorError(f"{self.path}: {problem}")


def _end_of_notes(data: bytes) -> int:
    end = at = 0
    for line in data.splitlines(keepends=True):
        at += len(line)
        if line.startswith(_SIGNATURE) and line.endswith(b"\n"):
            end = at
    return end


def _is_beginning(data: bytes) -> bool:
    """Whether `data` is what an unfinished write of a note of a log can have left."""
    begins = data.startswith(_ORIGIN) or _ORIGIN.startswith(data) or _SIGNATURE.startswith(data[: len(_SIGNATURE)])
    return begins and data.count(b"\n") <= _MOST_UNFINISHED_LINES


def _from_a_note_on(tail: bytes, *, whole: bool) -> list[bytes]:
    """The lines of `tail` from the beginning of a note on."""
    found = tail.splitlines(keepends=True)
    if whole:
        return found
    signed = [at for at, line in enumerate(found) if at and line.startswith(_SIGNATURE)]
    first = next((at for at in signed if not found[at + 1 : at + 2] or not found[at + 1].startswith(_SIGNATURE)), None)
    return [] if first is None else found[first + 1 :]
